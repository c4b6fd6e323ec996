// One stub process: the host's side of a guest address space.
//
// Its leader idles, untraced. Each OS thread of the Sentry that runs or changes the guest has one thread of the stub
// that it traces, since ptrace(2) obeys only the tracer's own thread: made when first needed (the OS thread attaches to
// the leader for as long as a clone takes), made to exit when the OS thread ends.
//
// Death: SIGKILL by Kill; when the Sentry dies, EXITKILL of the traced threads, and the leader's parent-death signal.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_STUB_PROCESS_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_STUB_PROCESS_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/platform/ptrace/host.h"
#include "pkg/platform/ptrace/tracee_unsafe.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::ptrace {

// A stopped thread of a stub, traced by the OS thread in whose table it is. Used by that one only.
struct TracedThread {
  pid_t pid = 0;
  pid_t tid = 0;
  // Whose extended state is in its registers: a context, and the version of that context's state.
  uint64_t fp_context = 0;
  uint64_t fp_version = 0;
  int cpu = -1;  // placement.h: the processor it is tied to, -1 if to none
};

// Thread-safe. Counted by the address space and by the thread tables.
class StubProcess final : public RefCounted {
 public:
  static Result<RefPtr<StubProcess>> Create(std::shared_ptr<Host> host);
  ~StubProcess() override;

  // The calling OS thread's traced thread; valid until it ends or the process is killed. ESRCH after death, EAGAIN or
  // ENOMEM if the host has no more threads.
  Result<TracedThread*> ThreadOfCaller();

  Result<> MapMemory(Addr addr, uint64_t offset, uint64_t length, int protection, bool populate);
  Result<> UnmapMemory(Addr addr, uint64_t length);

  // Kills and buries it. Idempotent; the address space is gone at return or soon after. No thread may be running a
  // guest.
  void Kill();
  bool killed() const { return killed_.load(std::memory_order_acquire); }
  pid_t pid() const { return pid_; }
  Host& host() const { return *host_; }

 private:
  friend class ThreadTable;

  StubProcess(std::shared_ptr<Host> host, pid_t pid);
  Result<TracedThread*> NewThread();
  // The calling OS thread ends: so must its traced thread, or the host would kill the whole process.
  void RetireThread(pid_t tid);

  const uint64_t id_;  // never reused, unlike pid_
  const std::shared_ptr<Host> host_;
  const pid_t pid_;
  std::atomic<bool> killed_{false};

  // Held across waits for the leader and for exiting threads, which are bounded: both run stub code only.
  sync::Mutex mu_{sync::Rank::kAddressSpace};
  std::vector<pid_t> threads_ GUARDED_BY(mu_);  // traced, by whichever OS thread
};

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_STUB_PROCESS_H_
