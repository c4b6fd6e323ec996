// The process tree as terminals see it: tty::JobControl for one Kernel.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_JOB_CONTROL_H_
#define REDOUBT_PKG_SENTRY_KERNEL_JOB_CONTROL_H_

#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/tty/job_control.h"

namespace redoubt::kernel {

class KernelJobControl final : public tty::JobControl {
 public:
  explicit KernelJobControl(Kernel& kernel) : kernel_(kernel) {}

  Ids Current() override;
  int ToGuest(int id) override;
  int FromGuest(int id) override;
  void GiveUpTerminal() override;
  void SetControllingTerminal(RefPtr<RefCounted> terminal) override;
  void ClearControllingTerminal(int session) override;
  Result<> CheckProcessGroup(int process_group, int session) override;
  void SignalProcessGroup(int process_group, int sig) override;
  void HangUpSessionLeader(int session) override;
  Result<> BackgroundAccess(int sig) override;

 private:
  Kernel& kernel_;
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_JOB_CONTROL_H_
