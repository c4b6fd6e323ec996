#include "pkg/platform/kvm/context.h"

#include <array>
#include <optional>
#include <utility>

#include "pkg/fiber/fiber.h"
#include "pkg/platform/kvm/address_space.h"
#include "pkg/platform/kvm/fault_amd64.h"
#include "pkg/platform/registers_amd64.h"

namespace redoubt::platform::kvm {

Result<TrapInfo> KvmContext::Switch(AddressSpace& as, Registers& regs) {
  if (TakeInterrupt()) return TrapInfo{};
  SanitizeRegisters(regs);
  regs.cs = kUserCs;  // there is no other code segment
  if (std::optional<TrapInfo> fault = CheckRegisters(regs)) return *fault;
  auto& space = static_cast<KvmAddressSpace&>(as);
  RefPtr<GuestTables> tables = space.tables();
  if (!tables) return Err(ESRCH);

  std::optional<Exit> exit;
  bool entered = false;
  while (!exit) {
    PoolVcpu* v = TRY(machine_->Acquire(fp_));
    if (v == nullptr) {
      if (TakeInterrupt()) return TrapInfo{};
      continue;
    }
    if (!std::exchange(entered, true)) NoteEntered(__builtin_ia32_rdtsc());
    Result<std::optional<Exit>> turn = RunTurn(*v, tables, regs);
    machine_->Release(*v);
    exit = TRY(turn);
  }
  NoteLeft(__builtin_ia32_rdtsc());
  regs.orig_rax = ~0ull;
  if (exit->kind == Exit::Kind::kSyscall) {
    regs.orig_rax = regs.rax;
    regs.rax = Errno(ENOSYS).AsReturnValue();
    TrapInfo info;
    info.trap = Trap::kSyscall;
    return info;
  }
  if (exit->kind == Exit::Kind::kInterrupted) return TrapInfo{};
  return Describe(*exit, space, regs);
}

Result<std::optional<Exit>> KvmContext::RunTurn(PoolVcpu& v, const RefPtr<GuestTables>& tables, Registers& regs) {
  for (;;) {
    if (!Enter(*v.vcpu)) return Exit{.kind = Exit::Kind::kInterrupted};
    if (Result<> r = v.vcpu->Prepare(regs, tables); !r) {
      Leave();
      return Err(r.error());
    }
    {
      fiber::BlockingRegion region;
      v.vcpu->Run();
    }
    Leave();
    Exit exit = v.vcpu->Finish(regs);
    while (exit.kind == Exit::Kind::kOwes) {
      v.vcpu->ClearKick();
      v.vcpu->Run();
      exit = v.vcpu->Finish(regs);
    }
    if (exit.kind == Exit::Kind::kFailed) return Err(EFAULT);
    if (exit.kind != Exit::Kind::kInterrupted || TakeInterrupt()) return exit;
    if (v.preempt.exchange(false)) return std::nullopt;
    // A signal for somebody else.
  }
}

TrapInfo KvmContext::Describe(const Exit& exit, KvmAddressSpace& space, const Registers& regs) {
  int vector = exit.vector;
  if (vector == static_cast<int>(kTrapInvalidOpcode)) {
    // `int n` is a general protection fault; without hardware virtualization KVM takes it for an unknown instruction.
    constexpr std::byte kInt{0xcd};
    std::array<std::byte, 1> opcode;
    if (space.Peek(regs.rip, opcode) && opcode[0] == kInt) return GeneralProtectionFault();
  }
  FpState fp;
  if (vector == static_cast<int>(kTrapX87) || vector == static_cast<int>(kTrapSimd)) {
    if (Result<FpState> pulled = PullFpState()) fp = *std::move(pulled);
  }
  return DescribeException(exit, regs, fp);
}

bool KvmContext::Enter(Vcpu& vcpu) {
  sync::MutexLock lock(mu_);
  if (pending_) {
    pending_ = false;
    return false;
  }
  vcpu.ClearKick();
  running_ = &vcpu;
  return true;
}

void KvmContext::Leave() {
  sync::MutexLock lock(mu_);
  running_ = nullptr;
}

bool KvmContext::TakeInterrupt() {
  sync::MutexLock lock(mu_);
  return std::exchange(pending_, false);
}

void KvmContext::Interrupt() {
  {
    sync::MutexLock lock(mu_);
    if (pending_) return;
    pending_ = true;
    if (running_ != nullptr) {
      // Under the lock, so that the vCPU cannot have begun to serve another context.
      running_->Kick();
      return;
    }
  }
  machine_->StopWaiting(fp_);
}

}  // namespace redoubt::platform::kvm
