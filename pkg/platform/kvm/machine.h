// The machine that all guests of a platform share: one virtual machine, its memory, ring 0, and the pool of vCPUs.
//
// Lock order: Machine::mu_ (kSlots), KvmAddressSpace::mu_ (kAddressSpace), then the leaves of FileMemory and
// TableMemory.
#ifndef REDOUBT_PKG_PLATFORM_KVM_MACHINE_H_
#define REDOUBT_PKG_PLATFORM_KVM_MACHINE_H_

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/platform/kvm/file_memory.h"
#include "pkg/platform/kvm/table_memory.h"
#include "pkg/platform/kvm/vcpu_unsafe.h"
#include "pkg/platform/kvm/vm.h"
#include "pkg/platform/platform.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::kvm {

class Machine;

// A place in the pool.
struct PoolVcpu {
  std::unique_ptr<Vcpu> vcpu;
  // Guarded by the machine's lock.
  class FpHome* resident = nullptr;  // whose extended state it holds
  bool busy = false;
  uint64_t taken = 0;  // when it was last taken, in turns of the pool
  // Asked to let another have it.
  std::atomic<bool> preempt{false};
};

// A context's extended state: in the vCPU that ran it last, until another context takes that one, or here.
class FpHome final {
 public:
  explicit FpHome(Machine& machine) : machine_(machine) {}
  ~FpHome();
  FpHome(const FpHome&) = delete;
  FpHome& operator=(const FpHome&) = delete;

 private:
  friend class Machine;
  Machine& machine_;
  // Guarded by the machine's lock.
  std::vector<std::byte> bytes_;  // empty: initial
  PoolVcpu* home_ = nullptr;
  fiber::Fiber* waiter_ = nullptr;  // waits for a vCPU
  bool stop_ = false;               // StopWaiting was called
};

// Thread-safe. Outlives its address spaces and contexts.
class Machine final {
 public:
  // See Vm::Create for errors. `memory_fd` is borrowed.
  static Result<std::shared_ptr<Machine>> Create(Api& api, int memory_fd);
  ~Machine();

  // Page tables with ring 0 in them and nothing else.
  Result<RefPtr<GuestTables>> NewTables();
  FileMemory& file_memory() { return *file_memory_; }
  TableMemory& table_memory() { return *table_memory_; }

  // A vCPU with this extended state, the caller's until Release. If all are taken, parks the fiber until it is its
  // turn; the one that has been held longest is asked to end its turn every kTurn.
  // Null if StopWaiting was called meanwhile, or since the last wait.
  Result<PoolVcpu*> Acquire(FpHome& fp) EXCLUDES(mu_);
  // Any thread.
  void StopWaiting(FpHome& fp) EXCLUDES(mu_);
  void Release(PoolVcpu& v) EXCLUDES(mu_);

  // In XSAVE's standard format, FpStateSize() bytes. Only while the context does not run.
  Result<FpState> PullFpState(FpHome& fp) EXCLUDES(mu_);
  void PushFpState(FpHome& fp, const FpState& state) EXCLUDES(mu_);

  // KVM_RUNs of all vCPUs.
  uint64_t runs() EXCLUDES(mu_);
  size_t vcpus() EXCLUDES(mu_);

  static constexpr fiber::Time kTurn = 5'000'000;

 private:
  friend class FpHome;
  struct Waiter {
    RefPtr<fiber::Fiber> fiber;
    PoolVcpu* granted = nullptr;
    uint64_t since = 0;
  };

  Machine() = default;
  Result<> Init(Api& api, int memory_fd);
  Result<PoolVcpu*> NewVcpu(int index);
  PoolVcpu* PickFree(FpHome& fp) REQUIRES(mu_);
  // Moves the state from its vCPU, which is not running, to its bytes.
  Result<> Evict(FpHome& fp) REQUIRES(mu_);
  Result<> TakeOver(PoolVcpu& v, FpHome& fp) REQUIRES(mu_);
  void ReleaseLocked(PoolVcpu& v) REQUIRES(mu_);
  void PreemptFor(const Waiter& waiter) REQUIRES(mu_);
  Result<PoolVcpu*> WaitForVcpu(FpHome& fp) EXCLUDES(mu_);

  std::unique_ptr<Vm> vm_;
  std::unique_ptr<TableMemory> table_memory_;
  std::unique_ptr<FileMemory> file_memory_;
  Mapping ring0_;
  std::optional<ring0::pagetables::PageTables> kernel_tables_;  // fixed after Init

  sync::Mutex mu_{sync::Rank::kSlots};
  std::vector<std::unique_ptr<PoolVcpu>> pool_ GUARDED_BY(mu_);
  int max_vcpus_ GUARDED_BY(mu_) = 0;
  int made_ GUARDED_BY(mu_) = 0;  // vCPUs, those being made included
  uint64_t turns_ GUARDED_BY(mu_) = 0;
  std::deque<Waiter*> waiters_ GUARDED_BY(mu_);  // first come, first served
};

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_MACHINE_H_
