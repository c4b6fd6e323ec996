// What all stub processes of one platform share: the template they are cloned from and the thread that collects their
// dead and watches over placement.h.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_HOST_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_HOST_H_

#include <sys/types.h>

#include <deque>
#include <memory>
#include <semaphore>
#include <thread>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::ptrace {

// Owned by the platform and by every stub process, as one shared_ptr. Thread-safe.
class Host final {
 public:
  static Result<std::shared_ptr<Host>> Create(int memory_fd);
  // Ends when all that was given to Bury is gone.
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // A new stub process, a child of this one, traced by the calling OS thread and stopped. ESRCH if the template was
  // killed.
  struct Cloned {
    pid_t pid = 0;
    int cpu = -1;  // that it is tied to (placement.h)
  };
  Result<Cloned> CloneProcess();

  // Waits, in the background, for a process that was sent SIGKILL and for the given traced threads of it. A group
  // leader becomes waitable only after its threads were waited for, and any thread may wait, whoever traces.
  void Bury(pid_t pid, std::vector<pid_t> threads);

  // Has the background thread make the rounds of Placement::Watch until they are no more needed.
  void Poke() { work_.release(); }

  int memory_fd() const { return memory_fd_; }

 private:
  struct Funeral {
    pid_t pid = 0;
    std::vector<pid_t> threads;
  };

  explicit Host(int memory_fd) : memory_fd_(memory_fd) {}
  void ReaperMain();
  // False: the host goes away.
  bool BuryNext();

  const int memory_fd_;

  // Held across waits for the template, which are bounded: it runs stub code only.
  sync::Mutex template_mu_{sync::Rank::kAddressSpace};
  pid_t template_pid_ GUARDED_BY(template_mu_) = -1;

  // The reaper: parent of the template, so that the parent-death signal of every stub names a thread that lives long
  // enough.
  Result<> template_result_;  // written before started_ is released
  std::binary_semaphore started_{0};
  std::counting_semaphore<> work_{0};
  sync::Mutex queue_mu_{sync::Rank::kLeaf};
  std::deque<Funeral> queue_ GUARDED_BY(queue_mu_);
  std::thread reaper_;
};

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_HOST_H_
