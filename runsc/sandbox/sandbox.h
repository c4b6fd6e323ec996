// The processes of one sandbox, seen from outside: the gofer, and boot, which is the Sentry.
#ifndef REDOUBT_RUNSC_SANDBOX_SANDBOX_H_
#define REDOUBT_RUNSC_SANDBOX_SANDBOX_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "runsc/control/connection.h"
#include "runsc/control/protocol.h"
#include "runsc/sandbox/layout.h"
#include "runsc/specutils/spec.h"

namespace redoubt::sandbox {

using specutils::Expected;

// What `run` and `create` are told, borrowed for the time of the call.
struct LaunchArgs {
  const specutils::Spec& spec;
  const specutils::SandboxOptions& options;
  std::string id;
  std::vector<int> stdio = {0, 1, 2};  // the guest's
  int preserved = 0;                   // of this process, descriptors from 3 on that the guest gets
  int log_fd = -1;                     // where boot logs
  int gofer_log_fd = -1;               // the gofer's stderr
  int listen_fd = -1;                  // where the Sentry is to listen for requests; -1: it does not
  int sentry_fd = -1;  // control::Connection to a running Sentry that the container is to be in; -1: one of its own
  bool start = false;  // at once, without a kStart
};

// Boot and gofer, children of this process; they die with it. Killed and reaped by the destructor. Only a gofer if the
// container is in another's sandbox.
class Sandbox final {
 public:
  Sandbox(Sandbox&& o) noexcept;
  Sandbox& operator=(Sandbox&&) = delete;
  ~Sandbox();

  // Starts both and sends the request for the container; the answer is to be had from connection(). To be called with
  // every signal blocked.
  static Expected<Sandbox> Launch(const LaunchArgs& args);

  const control::Connection& connection() const { return connection_; }
  pid_t boot() const { return boot_; }
  // Readable once the process has ended (pidfd_open(2)).
  int boot_pidfd() const { return boot_pidfd_.get(); }
  int gofer_pidfd() const { return gofer_pidfd_.get(); }
  // Why the gofer could not start, for people; empty: it has said nothing.
  std::string WhyNoGofer() const;
  // Waits at most so long for boot to end by itself. What killed it, for people; empty if it ended as it should.
  std::string AwaitEnd(int milliseconds);
  void Kill();

 private:
  Sandbox() = default;

  pid_t boot_ = -1;
  pid_t gofer_ = -1;
  UniqueFd boot_pidfd_, gofer_pidfd_;
  UniqueFd gofer_reason_;
  control::Connection connection_;
};

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_SANDBOX_H_
