// What the CLI asks of a running Sentry, and what it answers, over control::Connection.
//
// The client sends requests, the Sentry answers each with one reply, in order. kCreate and kExec with `attach` make the
// connection the process's own: after the first reply there come only kSignal (not answered) from the client, and one
// more reply, with `status`, from the Sentry when the process has ended. If such a connection breaks before that, the
// process is killed (and with a container's first process, the container): whoever stands for it outside is gone.
//
// A sandbox's first container comes by a connection that boot is started with (runsc/sandbox/sandbox.h), all else by
// its listening socket.
#ifndef REDOUBT_RUNSC_CONTROL_PROTOCOL_H_
#define REDOUBT_RUNSC_CONTROL_PROTOCOL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"

namespace redoubt::control {

enum class Method : uint8_t {
  kCreate,     // body: specutils::SerializeSpec; fds: stdin, stdout, stderr, `preserved` descriptors, gofer sockets
  kStart,      // lets the first process run
  kExec,       // body: specutils::SerializeProcess; fds: stdin, stdout, stderr, `preserved` descriptors
  kSignal,     // to `pid`, or with `all` to every process of the container, or with `keyboard` to the terminal's
               // foreground
  kProcesses,  // body of the reply: SerializeProcesses
  kPause,      // no process of the container runs when the reply comes
  kResume,
  kStats,    // body of the reply: SerializeStats
  kWait,     // answers when `pid` has ended
  kStacks,   // body of the reply: text; what each task does and waits for
  kMetrics,  // body of the reply: SerializeMetrics
  kDelete,   // a container other than the first: its processes are killed, its mounts and gofers let go
};

struct Request {
  Method method{};
  std::string container;
  int pid = 0;  // in the container's PID namespace, as kExec's reply had it; 0: its first process
  int signal = 0;
  bool all = false;
  bool keyboard = false;
  bool attach = false;         // kCreate, kExec
  bool start = false;          // kCreate: and start at once
  bool ignore_paused = false;  // kExec: also in a container that is paused; the process runs once it is resumed
  uint32_t preserved = 0;      // descriptors from 3 on that the process gets
  std::string body;
};

struct Reply {
  // Empty: done. Otherwise one line, without the container's name.
  std::string error;
  int code = 0;  // with an error: what `run` exits with (125 set-up, 126 not executable, 127 not found)
  int pid = 0;
  int status = -1;  // kWait, and the last reply of an attached connection: as wait(2) encodes it
  std::string body;
};

// A process of a container, as ps(1) shows it.
struct ProcessInfo {
  int pid = 0;  // inside
  int parent = 0;
  uint32_t uid = 0;
  int threads = 0;
  char state = '?';          // as in proc(5)
  uint64_t cpu_ns = 0;       // user and system
  uint64_t resident = 0;     // bytes
  int64_t started_ns = 0;    // CLOCK_REALTIME
  std::string command_line;  // arguments, by spaces; the name in brackets if there are none
};

struct Stats {
  uint64_t cpu_user_ns = 0;  // of all processes of the container, the ended too
  uint64_t cpu_system_ns = 0;
  uint64_t memory = 0;  // bytes of the sandbox's memory file in use
  uint64_t memory_limit = 0;
  uint64_t processes = 0;
  uint64_t threads = 0;
};

// One sample of something counted or measured, as Prometheus would have it.
struct Metric {
  std::string name;
  std::string label, label_value;  // empty: none
  double value = 0;
};

std::string Serialize(const Request& request);
std::string Serialize(const Reply& reply);
std::string Serialize(const std::vector<ProcessInfo>& processes);
std::string Serialize(const Stats& stats);
std::string Serialize(const std::vector<Metric>& metrics);
// EBADMSG for what Serialize has not made.
Result<Request> ParseRequest(const std::string& bytes);
Result<Reply> ParseReply(const std::string& bytes);
Result<std::vector<ProcessInfo>> ParseProcesses(const std::string& bytes);
Result<Stats> ParseStats(const std::string& bytes);
Result<std::vector<Metric>> ParseMetrics(const std::string& bytes);

}  // namespace redoubt::control

#endif  // REDOUBT_RUNSC_CONTROL_PROTOCOL_H_
