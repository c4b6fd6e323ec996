// A container inside the sandbox: its tree of files, its processes, its life.
#ifndef REDOUBT_RUNSC_BOOT_CONTAINER_H_
#define REDOUBT_RUNSC_BOOT_CONTAINER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/seccomp/seccomp_filter.h"
#include "pkg/sentry/vfs/vfs.h"
#include "pkg/sync/mutex.h"
#include "runsc/boot/failure.h"
#include "runsc/boot/process.h"
#include "runsc/specutils/spec.h"

namespace redoubt::boot {

// Made with its first process in it, which is held until Start unless made to start at once. When that ends, all its
// processes do, and its mounts and gofers are let go. Kept by the service under its name, until it is deleted there.
// Thread-safe; all calls come from fibers.
class Container final : public RefCounted {
 public:
  struct Made {
    RefPtr<Container> container;
    RefPtr<Process> init;
  };
  // `fds`: stdin, stdout, stderr, `preserved` more for the process, then the gofers' sockets: the root's and one a bind
  // mount, in order; last the file for the root's overlay, if that is to be on a disk. `pid_ns` null: the outermost.
  // Whoever gets the result calls AwaitEnd.
  static OrFailure<Made> Create(kernel::Kernel& kernel, const std::string& id, RefPtr<kernel::PidNamespace> pid_ns,
                                const specutils::Spec& spec, std::vector<UniqueFd> fds, uint32_t preserved, bool start);

  const std::string& id() const { return members_->id; }
  kernel::Container& members() const { return *members_; }
  const RefPtr<Process>& init() const { return init_; }

  OrFailure<void> Start() EXCLUDES(mu_);
  // A process beside the first; whoever gets it calls AwaitExec. `fds` as above, without gofers.
  // In a paused container it is refused, or is paused too.
  OrFailure<RefPtr<Process>> Exec(const specutils::Process& process, std::vector<UniqueFd> fds, uint32_t preserved,
                                  bool ignore_paused) EXCLUDES(mu_);
  // Park the calling fiber until the first process, or that one, has ended and what belongs to it has been cleared
  // away. The status as wait(2) encodes it.
  int AwaitEnd() EXCLUDES(mu_);
  int AwaitExec(Process& process) EXCLUDES(mu_);

  bool HasEnded() EXCLUDES(mu_);
  // As kill(2) would have it: to a process (0: the first) or to all. Signal 0 only looks.
  OrFailure<void> Signal(int pid, int sig, bool all, bool keyboard);
  OrFailure<void> Pause();
  OrFailure<void> Resume();
  // One that was made from outside and lives; null.
  RefPtr<Process> Find(int pid) EXCLUDES(mu_);
  // The status of one that has ended, if it is remembered: kRemembered of them are.
  std::optional<int> EndedStatus(int pid) EXCLUDES(mu_);

 private:
  static constexpr size_t kRemembered = 1024;

  Container(kernel::Kernel& kernel, RefPtr<kernel::Container> members)
      : kernel_(kernel), members_(std::move(members)) {}
  const kernel::PidNamespace& pid_ns() const { return members_->pid_ns ? *members_->pid_ns : kernel_.root_pid_ns(); }

  OrFailure<RefPtr<Process>> StartProcess(const specutils::Process& process, std::vector<UniqueFd> fds, bool held);
  void Remember(int pid, int status) REQUIRES(mu_);

  kernel::Kernel& kernel_;
  const RefPtr<kernel::Container> members_;
  RefPtr<vfs::MountNamespace> mounts_;   // we are one of its users until the end
  RefPtr<Process> init_;                 // set by Create
  RefPtr<const SeccompFilter> seccomp_;  // of all that is started in it; set by Create
  sync::Mutex mu_{sync::Rank::kLeaf};
  bool started_ GUARDED_BY(mu_) = false;
  bool ended_ GUARDED_BY(mu_) = false;
  std::map<int, RefPtr<Process>> processes_ GUARDED_BY(mu_);  // made from outside, not ended; the first too
  std::deque<std::pair<int, int>> statuses_ GUARDED_BY(mu_);  // PID and status, the last to end last
};

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_CONTAINER_H_
