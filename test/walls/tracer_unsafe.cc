#include "test/walls/tracer_unsafe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <map>

namespace redoubt::walls {
namespace {

constexpr long kOptions = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                          PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC;

// A process whose calls are counted once it has its filter.
struct Process {
  Coverage* coverage = nullptr;
  bool confined = false;
  uint32_t self = 0;  // its number, as it sees it
};

std::string FirstLineOf(const std::string& path) {
  std::ifstream in(path);
  std::string text;
  std::getline(in, text, '\0');
  return text;
}

// A field of /proc/PID/status; the last number of it.
int StatusField(pid_t tid, const std::string& field) {
  std::ifstream in("/proc/" + std::to_string(tid) + "/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(field + ":")) return std::atoi(line.substr(line.find_last_of("\t ") + 1).c_str());
  }
  return 0;
}

class Tracer final {
 public:
  Tracer(Coverage& sentry, Coverage& gofer) : sentry_(sentry), gofer_(gofer) {}

  int Run(pid_t first) {
    first_ = first;
    known_.insert(first);
    int status = 0;
    while (true) {
      pid_t tid = waitpid(-1, &status, __WALL);
      if (tid < 0 && errno == EINTR) continue;
      if (tid < 0) return result_;
      if (WIFSTOPPED(status)) {
        OnStop(tid, status);
      } else {
        known_.erase(tid);
        if (tid == first_) result_ = status;
      }
    }
  }

 private:
  void Resume(pid_t tid, int signal) {
    // Only what is counted stops at its calls.
    auto it = processes_.find(StatusField(tid, "Tgid"));
    ptrace(it != processes_.end() ? PTRACE_SYSCALL : PTRACE_CONT, tid, 0, signal);
  }

  // Threads of who is counted, and children of runsc and of its relays, are followed; stubs are let go before their
  // parent goes on.
  void OnBirth(pid_t parent) {
    unsigned long child = 0;
    ptrace(PTRACE_GETEVENTMSG, parent, 0, &child);
    const pid_t tid = static_cast<pid_t>(child);
    int status = 0;
    while (early_.erase(tid) == 0 && waitpid(tid, &status, __WALL) < 0 && errno == EINTR) {
    }
    const bool thread = StatusField(tid, "Tgid") != tid;
    if (thread || !processes_.contains(StatusField(parent, "Tgid"))) {
      known_.insert(tid);
      Resume(tid, 0);
    } else {
      ptrace(PTRACE_DETACH, tid, 0, 0);
    }
  }

  void OnExec(pid_t tid) {
    const std::string name = FirstLineOf("/proc/" + std::to_string(tid) + "/cmdline");
    if (name == "runsc-sandbox") processes_[tid] = {.coverage = &sentry_};
    if (name == "runsc-gofer") processes_[tid] = {.coverage = &gofer_};
  }

  void OnSyscall(pid_t tid) {
    __ptrace_syscall_info info{};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) <= 0) return;
    auto it = processes_.find(StatusField(tid, "Tgid"));
    if (it == processes_.end()) return;
    Process& p = it->second;
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && installing_ == tid) {
      installing_ = 0;
      p.confined = info.exit.rval == 0;
      p.self = static_cast<uint32_t>(StatusField(it->first, "NSpid"));
    }
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return;
    if (info.entry.nr == SYS_seccomp) installing_ = tid;
    if (!p.confined) return;
    uint64_t arguments[6];
    for (int i = 0; i < 6; i++) arguments[i] = info.entry.args[i];
    for (size_t i = 0; i < p.coverage->rules.size(); i++) {
      if (p.coverage->rules[i].Matches(static_cast<long>(info.entry.nr), arguments, p.self)) p.coverage->used.insert(i);
    }
  }

  void OnStop(pid_t tid, int status) {
    // Its parent's stop is still to be told.
    if (!known_.contains(tid)) {
      early_.insert(tid);
      return;
    }
    const int signal = WSTOPSIG(status);
    switch (status >> 16) {
      case PTRACE_EVENT_CLONE:
      case PTRACE_EVENT_FORK:
      case PTRACE_EVENT_VFORK:
        OnBirth(tid);
        return Resume(tid, 0);
      case PTRACE_EVENT_STOP:
        return Resume(tid, 0);
      case PTRACE_EVENT_EXEC:
        OnExec(tid);
        return Resume(tid, 0);
      default:
        break;
    }
    if (signal == (SIGTRAP | 0x80)) {
      OnSyscall(tid);
      return Resume(tid, 0);
    }
    Resume(tid, signal);
  }

  Coverage& sentry_;
  Coverage& gofer_;
  pid_t first_ = 0;
  std::set<pid_t> known_, early_;
  pid_t installing_ = 0;
  int result_ = 0;
  std::map<pid_t, Process> processes_;
};

}  // namespace

int Trace(const Command& command, Coverage& sentry, Coverage& gofer) {
  std::vector<char*> argv;
  for (const std::string& a : command.argv) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  int go[2];
  if (pipe2(go, O_CLOEXEC) != 0) return -1;
  pid_t pid = fork();
  if (pid == 0) {
    close(go[1]);
    char byte = 0;
    if (read(go[0], &byte, 1) != 1) _exit(98);
    if (command.in_child) command.in_child();
    execv(argv[0], argv.data());
    _exit(99);
  }
  // Seized: what it starts then stops without a signal, and can be let go without a trace.
  const bool seized = ptrace(PTRACE_SEIZE, pid, 0, kOptions) == 0;
  if (seized && write(go[1], "", 1) != 1) return -1;
  close(go[0]);
  close(go[1]);
  if (!seized) return -1;
  return Tracer(sentry, gofer).Run(pid);
}

}  // namespace redoubt::walls
