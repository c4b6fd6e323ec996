// platform::Context: a guest thread takes a vCPU for each turn.
#ifndef REDOUBT_PKG_PLATFORM_KVM_CONTEXT_H_
#define REDOUBT_PKG_PLATFORM_KVM_CONTEXT_H_

#include <memory>
#include <optional>
#include <utility>

#include "pkg/platform/kvm/machine.h"
#include "pkg/platform/platform.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::kvm {

class KvmAddressSpace;

class KvmContext final : public Context {
 public:
  explicit KvmContext(std::shared_ptr<Machine> machine) : machine_(std::move(machine)), fp_(*machine_) {}

  Result<TrapInfo> Switch(AddressSpace& as, Registers& regs) override;
  void Interrupt() override EXCLUDES(mu_);
  Result<FpState> PullFpState() override { return machine_->PullFpState(fp_); }
  Result<> PushFpState(const FpState& state) override {
    machine_->PushFpState(fp_, state);
    return {};
  }

 private:
  // False, and the interrupt is taken, if there was one.
  bool Enter(Vcpu& vcpu) EXCLUDES(mu_);
  void Leave() EXCLUDES(mu_);
  bool TakeInterrupt() EXCLUDES(mu_);
  // Nothing if the turn was ended in favour of another context.
  Result<std::optional<Exit>> RunTurn(PoolVcpu& v, const RefPtr<GuestTables>& tables, Registers& regs);
  TrapInfo Describe(const Exit& exit, KvmAddressSpace& space, const Registers& regs);

  const std::shared_ptr<Machine> machine_;
  FpHome fp_;

  // Taken under nothing but the kernel's locks, and takes nothing.
  sync::Mutex mu_{sync::Rank::kLeaf};
  bool pending_ GUARDED_BY(mu_) = false;
  Vcpu* running_ GUARDED_BY(mu_) = nullptr;
};

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_CONTEXT_H_
