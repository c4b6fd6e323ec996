// platform::Context: runs a guest thread on whichever traced thread belongs to the OS thread that its fiber is on.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_CONTEXT_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_CONTEXT_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "pkg/platform/platform.h"
#include "pkg/platform/ptrace/stub_process.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::ptrace {

// Owned by the guest's task; used by the task's fiber, save Interrupt, which is for any thread.
//
// Extended state: the next Switch may be on another OS thread, which could not ask this one's traced thread for it, so
// every Switch saves it (a host call of a microsecond) and only loads it if the traced thread has served another
// context since.
class PtraceContext final : public Context {
 public:
  PtraceContext();

  Result<TrapInfo> Switch(AddressSpace& as, Registers& regs) override;
  void Interrupt() override;
  Result<FpState> PullFpState() override;
  Result<> PushFpState(const FpState& state) override;

 private:
  // False, with the interrupt consumed, if one is pending: the guest must not be entered.
  bool Enter(const TracedThread& thread);
  void Leave();
  bool ConsumeInterrupt();
  Result<> LoadFpState(const TracedThread& thread);
  Result<> SaveFpState(TracedThread& thread);

  const uint64_t id_;
  uint64_t fp_version_ = 1;
  FpState fp_;

  sync::Mutex mu_{sync::Rank::kLeaf};
  bool pending_ GUARDED_BY(mu_) = false;
  // The traced thread that runs this context now; 0 if none does.
  pid_t running_pid_ GUARDED_BY(mu_) = 0;
  pid_t running_tid_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_CONTEXT_H_
