// What the files of this library share.
#ifndef REDOUBT_RUNSC_CONTAINER_INTERNAL_H_
#define REDOUBT_RUNSC_CONTAINER_INTERNAL_H_

#include <signal.h>

#include <optional>
#include <string>
#include <vector>

#include "runsc/cgroup/cgroup.h"
#include "runsc/container/container.h"
#include "runsc/control/connection.h"
#include "runsc/sandbox/relay.h"
#include "runsc/sandbox/sandbox.h"

namespace redoubt::container {

inline std::unexpected<Failure> Fail(std::string text, int code = 1) {
  return std::unexpected(Failure{std::move(text), code});
}
// An error about a container, with its name in front.
std::unexpected<Failure> Fail(const std::string& id, const std::string& text, int code = 1);

// Blocks every signal as long as it lives.
class SignalsBlocked final {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old_);
  }
  ~SignalsBlocked() { sigprocmask(SIG_SETMASK, &old_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t old_;
};

// With somebody at stderr: what has no log of its own and must be told goes there.
class LogToStderr final {
 public:
  explicit LogToStderr(Settings& settings);

 private:
  UniqueFd copy_;
};

// A Sentry that does not answer for so long is taken for broken.
inline constexpr int kAnswerSeconds = 30;

// The Sentry that the container is in. The error says that it is not running.
Outcome<control::Connection> Connect(const Settings& settings, const State& state);
// One question, one answer; the Sentry's error becomes the failure. `fds` go with the question.
Outcome<control::Reply> Ask(const Settings& settings, const State& state, const control::Request& request,
                            const std::vector<UniqueFd>& fds = {});
// `what` is shown at a terminal if it takes its time.
inline constexpr char kAnswering[] = "waiting for its sandbox to answer";
inline constexpr char kSetUp[] = "waiting for the sandbox to be set up";
Outcome<control::Reply> Answer(const control::Connection& connection, const std::string& id,
                               const char* what = kAnswering);
// What a sandbox that has just been launched says of its container; the failure is without the container's name.
Outcome<control::Reply> FirstAnswer(sandbox::Sandbox& sandbox);

// --- of processes that are forked to stand for one inside
// In the child: a session of its own, with `terminal` as its controlling terminal unless that is -1.
void LeadSession(int terminal);
// Closes every descriptor but those; stdin, stdout and stderr become /dev/null if `quiet`.
void KeepOnly(std::vector<int> keep, bool quiet);
// The network namespace of the configuration, if it names one or wants a new one.
Expected<void> EnterNetwork(const specutils::Spec& spec);

// In the container, which has been created and not started; in order, each to its end. The error is of the first that
// fails.
Expected<void> RunGuestHooks(const Settings& settings, const State& state, const specutils::Spec& spec);

// The PID in /proc/PID/ns/KIND; 0: the path is another.
pid_t ProcessNamedBy(const std::string& path, const std::string& kind);
// Engines name an existing namespace by a process. If that stands for a container of ours outside,
// the container is what they mean: inside there are other namespaces than the process is in.
std::optional<State> ContainerNamedBy(const Store& store, const std::string& path, const std::string& kind);

Expected<void> WritePidFile(const std::string& path, pid_t pid);
// What the flags say of the container's files.
void ApplyFileFlags(const Settings& settings, specutils::Spec& spec);
Outcome<specutils::Spec> SpecOf(const Entry& entry);
// Kills what is left of it, waits until it is gone, runs poststop hooks, removes control groups and the entry.
Outcome<> Destroy(const Settings& settings, Entry& entry);

}  // namespace redoubt::container

#endif  // REDOUBT_RUNSC_CONTAINER_INTERNAL_H_
