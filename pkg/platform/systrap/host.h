// What all stub processes of one platform share: the control file, the template they are cloned from, the thread that
// collects their dead, and the watch over events of their guest threads.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_HOST_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_HOST_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <semaphore>
#include <thread>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/platform/systrap/control.h"
#include "pkg/platform/systrap/manager_unsafe.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::systrap {

class StubProcess;
struct Slot;

// Owned by the platform and by every stub process, as one shared_ptr. Thread-safe.
class Host final : public fiber::EventSource {
 public:
  // `spares`: how many new processes are kept ready: one at first, none until the guest makes a second process, then
  // all.
  static Result<std::shared_ptr<Host>> Create(int memory_fd, int spares);
  // Ends when all that was given to Bury is gone.
  ~Host() override;
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // A new stub process, a child of this one: its manager and its first guest thread are ready.
  struct Process {
    pid_t pid = 0;
    int area = 0;  // of the control file
    int ack = -1;  // read end of its pipe
    ManagerPlace place;
  };
  // ESRCH if the template was killed.
  Result<Process> NewProcess() EXCLUDES(template_mu_, queue_mu_);
  // A new guest thread, for the slot of that index; the caller holds what serializes commands to the manager.
  Result<> StartThread(Process& process, int index);
  // Waits, in the background, for the end of a process that was sent SIGKILL, and gives its area and pipe back.
  void Bury(const Process& process) EXCLUDES(queue_mu_);

  ControlFile& control() { return *control_; }
  int cpus() const { return cpus_; }

  // A fiber that waits for an event of a slot, from Await until Forget. The event is looked for from then on; the fiber
  // is unparked once it has come, or the process has died.
  struct Waiting {
    Slot* slot = nullptr;
    fiber::Fiber* fiber = nullptr;
    int index = -1;  // in waiting_, -1 if not there
  };
  void Await(Waiting& w) EXCLUDES(waiting_mu_);
  void Forget(Waiting& w) EXCLUDES(waiting_mu_);
  // Guests that run while their fibers are parked.
  int waiting() const { return waiting_count_.load(std::memory_order_relaxed); }

  // Slots whose threads spin although their contexts rest. When another thread must be waked, one of them is told to do
  // that and sleep: the other then takes over its processor, which costs a switch, and not an interrupt of an idle
  // processor, which costs ten times as much. Who takes a slot at rest says so before it gives the thread a command.
  void NoteResting(Slot& slot) EXCLUDES(waiting_mu_);
  void NoteNotResting(Slot& slot) EXCLUDES(waiting_mu_);
  // A slot at rest is to spin no longer.
  void SendToSleep(Slot& slot) EXCLUDES(waiting_mu_);
  // False: the caller must wake `slot` itself. True promises it only if nobody cheats: see SystrapContext::AwaitEvent.
  bool HandOver(Slot& slot) EXCLUDES(waiting_mu_);
  bool AnyResting() EXCLUDES(waiting_mu_);
  // The slot's thread is about to be waked; it must not queue up behind the caller, who then spins, and is kept off its
  // processor until no thread of the Sentry is awake.
  void Place(Slot& slot) EXCLUDES(kept_off_mu_);
  // The process is killed.
  void ForgetSlots(StubProcess& process) EXCLUDES(waiting_mu_, kept_off_mu_);

  // The process' pipe is watched for its end.
  void Watch(StubProcess& process, int ack) EXCLUDES(watched_mu_);
  void Unwatch(StubProcess& process, int ack) EXCLUDES(watched_mu_);

  // fiber::EventSource
  bool Poll() override EXCLUDES(waiting_mu_);
  void SetAsleep(bool asleep) override;
  void Drain() override;
  int wake_fd() const override { return epoll_fd_; }
  void Wake() override;
  int event_fd() const override { return wake_event_; }
  int64_t SpinTime() override;

 private:
  Host() = default;
  void ReaperMain();
  Result<Process> MakeProcess() EXCLUDES(template_mu_);
  // False: the host goes away.
  bool BuryNext() EXCLUDES(queue_mu_);
  void MakeSpares() EXCLUDES(queue_mu_, template_mu_);
  Result<> StartTemplate();

  int memory_fd_ = -1;
  int max_spares_ = 0;
  int wake_event_ = -1;
  int epoll_fd_ = -1;
  int cpus_ = 1;
  std::unique_ptr<ControlFile> control_;

  // Held while the template works.
  sync::Mutex template_mu_{sync::Rank::kAddressSpace};
  pid_t template_pid_ GUARDED_BY(template_mu_) = -1;
  int template_ack_ GUARDED_BY(template_mu_) = -1;
  int template_socket_ GUARDED_BY(template_mu_) = -1;
  ManagerPlace template_place_ GUARDED_BY(template_mu_);

  sync::Mutex waiting_mu_{sync::Rank::kLeaf};
  std::vector<Waiting*> waiting_ GUARDED_BY(waiting_mu_);
  std::vector<Slot*> resting_ GUARDED_BY(waiting_mu_);
  std::atomic<int> waiting_count_{0};
  std::atomic<int> resting_count_{0};

  // Taken under the executor's lock.
  sync::Mutex kept_off_mu_{sync::Rank::kEventSource};
  std::vector<Slot*> kept_off_ GUARDED_BY(kept_off_mu_);

  sync::Mutex watched_mu_{sync::Rank::kLeaf};
  struct Watched {
    uint64_t number;
    StubProcess* process;
  };
  std::vector<Watched> watched_ GUARDED_BY(watched_mu_);
  uint64_t last_watched_ GUARDED_BY(watched_mu_) = 0;

  // The reaper: parent of the template, so that the parent-death signal of every stub names a thread that lives long
  // enough.
  Result<> template_result_;  // written before started_ is released
  std::binary_semaphore started_{0};
  std::counting_semaphore<> work_{0};
  sync::Mutex queue_mu_{sync::Rank::kLeaf};
  std::deque<Process> queue_ GUARDED_BY(queue_mu_);
  std::deque<Process> spares_ GUARDED_BY(queue_mu_);
  int wanted_spares_ GUARDED_BY(queue_mu_) = 0;
  bool first_taken_ GUARDED_BY(queue_mu_) = false;
  std::thread reaper_;
};

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_HOST_H_
