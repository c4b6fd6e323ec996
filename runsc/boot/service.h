// The requests of runsc/control/protocol.h, carried out.
#ifndef REDOUBT_RUNSC_BOOT_SERVICE_H_
#define REDOUBT_RUNSC_BOOT_SERVICE_H_

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sync/mutex.h"
#include "runsc/boot/container.h"
#include "runsc/boot/control_server.h"
#include "runsc/boot/failure.h"
#include "runsc/control/protocol.h"
#include "runsc/specutils/spec.h"

namespace redoubt::boot {

// All containers of the sandbox by name. The first comes by the connection that boot was started with, and the sandbox
// ends with it; others come and go. One for the process, never destroyed. Thread-safe.
class Service final {
 public:
  using Fds = std::vector<UniqueFd>;

  // Steps of the sandbox's life at which others have something to do. Called at most once each, from a fiber.
  struct Hooks {
    // kStart of the first container, with the request's body and descriptors. Not called if that was made to start at
    // once.
    std::function<OrFailure<void>(const std::string& body, Fds fds)> configure;
    // What goes to the first container's stderr outside when all processes are gone.
    std::function<std::string(const kernel::Container& first)> last_words;
  };
  Service(kernel::Kernel& kernel, const specutils::SandboxOptions& options, Hooks hooks)
      : kernel_(kernel), options_(options), hooks_(std::move(hooks)) {}
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // The connection by which the first container comes. Before any request.
  void set_first_peer(RefPtr<Peer> peer) { first_peer_ = std::move(peer); }
  // From a fiber of its own, which it may keep for as long as what the request has begun lasts.
  void Handle(RefPtr<Peer> peer, control::Request request, Fds fds) EXCLUDES(mu_);

 private:
  static constexpr size_t kMaxContainers = 1024;
  static constexpr size_t kMaxName = 1024;

  void CreateFirst(const RefPtr<Peer>& peer, const control::Request& request, Fds fds) EXCLUDES(mu_);
  void CreateOther(const RefPtr<Peer>& peer, const control::Request& request, Fds fds) EXCLUDES(mu_);
  OrFailure<RefPtr<Container>> Create(const control::Request& request, Fds fds, bool first) EXCLUDES(mu_);
  // Null: the outermost.
  OrFailure<RefPtr<kernel::PidNamespace>> PidNamespaceFor(const specutils::PidNamespace& wanted) EXCLUDES(mu_);
  void Exec(const RefPtr<Peer>& peer, Container& container, const control::Request& request, Fds fds) EXCLUDES(mu_);
  void Wait(const RefPtr<Peer>& peer, RefPtr<Container> container, const control::Request& request) EXCLUDES(mu_);
  OrFailure<void> Start(Container& container, const control::Request& request, Fds fds) EXCLUDES(mu_);
  OrFailure<void> Delete(Container& container) EXCLUDES(mu_);
  // Those whose answer comes when they have been carried out.
  control::Reply Answer(Container& container, const control::Request& request, Fds fds) EXCLUDES(mu_);

  RefPtr<Container> Find(const std::string& name) EXCLUDES(mu_);
  bool IsFirst(const Container& container) EXCLUDES(mu_);
  // Before `peer` is told of a process, and once it has been told of its end.
  void EndIsToCome() EXCLUDES(mu_);
  void EndHasBeenTold() EXCLUDES(mu_);
  // When the first container has ended: so do all others, whoever waits is told, and the process ends.
  [[noreturn]] void EndSandbox(const RefPtr<Peer>& peer, bool attached, int status) EXCLUDES(mu_);

  kernel::Kernel& kernel_;
  const specutils::SandboxOptions options_;
  const Hooks hooks_;
  RefPtr<Peer> first_peer_;
  fiber::Mutex start_mu_;  // whoever starts something waits until the hooks are done
  bool configured_ GUARDED_BY(start_mu_) = false;
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::map<std::string, RefPtr<Container>> containers_ GUARDED_BY(mu_);  // null while it is being made
  RefPtr<Container> first_ GUARDED_BY(mu_);
  int ends_to_come_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_SERVICE_H_
