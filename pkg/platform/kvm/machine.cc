#include "pkg/platform/kvm/machine.h"

#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "pkg/log/rate_limit.h"
#include "pkg/ring0/ring0.h"

namespace redoubt::platform::kvm {
namespace {

// Ring 0's pages in the machine's memory, in the order of their addresses (ring0.h).
constexpr int kMaxVcpus = 64;
constexpr uint64_t kRing0Pages = 3 + kMaxVcpus;

std::span<std::byte, kPageSize> PageAt(const Mapping& mapping, uint64_t index) {
  return std::span<std::byte, kPageSize>(mapping.start() + index * kPageSize, kPageSize);
}

class NothingToLose final : public ring0::pagetables::Listener {
 public:
  void Lost(Addr, uint64_t, uint64_t) override { UNREACHABLE(); }
};

}  // namespace

FpHome::~FpHome() {
  sync::MutexLock lock(machine_.mu_);
  if (home_ != nullptr) home_->resident = nullptr;
}

Result<std::shared_ptr<Machine>> Machine::Create(Api& api, int memory_fd) {
  std::shared_ptr<Machine> machine(new Machine);
  TRY(machine->Init(api, memory_fd));
  return machine;
}

Machine::~Machine() {
  // Their references on page tables go first.
  pool_.clear();
  kernel_tables_.reset();
}

Result<> Machine::Init(Api& api, int memory_fd) {
  vm_ = TRY(Vm::Create(api));
  table_memory_ = TRY(TableMemory::Create(*vm_));
  file_memory_ = std::make_unique<FileMemory>(*vm_, memory_fd);
  ring0_ = TRY(Mapping::Create(kRing0Pages * kPageSize, -1, 0));
  ring0::BuildText(PageAt(ring0_, 0));
  ring0::BuildIdt(PageAt(ring0_, 1));
  ring0::BuildGdt(PageAt(ring0_, 2));
  TRY(vm_->AddSlot(kRing0Slot, kRing0Physical, ring0_.start(), ring0_.size()));

  kernel_tables_.emplace(TRY(ring0::pagetables::PageTables::Create(*table_memory_)));
  NothingToLose none;
  auto map = [&](uint64_t first, uint64_t pages, AccessType access) {
    return kernel_tables_->Map(ring0::kBase + first * kPageSize, pages * kPageSize, kRing0Physical + first * kPageSize,
                               {.access = access, .user = false}, none);
  };
  TRY(map(0, 1, kExecute));
  TRY(map(1, 2, kRead));
  TRY(map(3, kMaxVcpus, kReadWrite));
  // Twice as many as processors, so that a guest that leaves for a moment finds its own again.
  const long cpus = std::max(1L, sysconf(_SC_NPROCESSORS_ONLN));
  {
    sync::MutexLock lock(mu_);
    max_vcpus_ = std::min({static_cast<int>(2 * std::min(cpus, long{kMaxVcpus})), kMaxVcpus, vm_->max_vcpus()});
  }
  // The first now, so that a host that cannot make one says so at the start.
  (void)TRY(NewVcpu(0));
  return {};
}

Result<RefPtr<GuestTables>> Machine::NewTables() {
  ring0::pagetables::PageTables tables = TRY(ring0::pagetables::PageTables::Create(*table_memory_));
  tables.ShareUpperHalf(*kernel_tables_);
  return MakeRef<GuestTables>(std::move(tables));
}

// At rest in the pool.
Result<PoolVcpu*> Machine::NewVcpu(int index) {
  auto v = std::make_unique<PoolVcpu>();
  v->vcpu = TRY(Vcpu::Create(*vm_, index, PageAt(ring0_, 3 + static_cast<uint64_t>(index))));
  PoolVcpu* made = v.get();
  sync::MutexLock lock(mu_);
  if (made_ <= index) made_ = index + 1;
  pool_.push_back(std::move(v));
  return made;
}

PoolVcpu* Machine::PickFree(FpHome& fp) {
  if (fp.home_ != nullptr && !fp.home_->busy) return fp.home_;
  PoolVcpu* best = nullptr;
  for (const auto& v : pool_) {
    if (v->busy) continue;
    if (v->resident == nullptr) return v.get();
    if (best == nullptr || v->taken < best->taken) best = v.get();
  }
  // Others' state stays where it is as long as another can be made.
  return made_ < max_vcpus_ ? nullptr : best;
}

Result<> Machine::Evict(FpHome& fp) {
  fp.bytes_.resize(vm_->xsave_size());
  TRY(fp.home_->vcpu->GetFpState(fp.bytes_));
  fp.home_->resident = nullptr;
  fp.home_ = nullptr;
  return {};
}

Result<> Machine::TakeOver(PoolVcpu& v, FpHome& fp) {
  v.taken = ++turns_;
  v.preempt.store(false, std::memory_order_relaxed);
  if (v.resident == &fp) return {};
  if (v.resident != nullptr) TRY(Evict(*v.resident));
  // It may be in one that was granted to another context, which has not taken it over yet.
  if (fp.home_ != nullptr) TRY(Evict(fp));
  if (fp.bytes_.empty()) {
    fp.bytes_ = InitialFpState().bytes;
    fp.bytes_.resize(vm_->xsave_size());
  }
  TRY(v.vcpu->SetFpState(fp.bytes_));
  v.resident = &fp;
  fp.home_ = &v;
  return {};
}

Result<PoolVcpu*> Machine::Acquire(FpHome& fp) {
  int index = -1;
  {
    sync::MutexLock lock(mu_);
    if (PoolVcpu* v = PickFree(fp)) {
      v->busy = true;
      if (Result<> r = TakeOver(*v, fp); !r) {
        ReleaseLocked(*v);
        return Err(r.error());
      }
      return v;
    }
    if (made_ < max_vcpus_) index = made_++;
  }
  if (index < 0) return WaitForVcpu(fp);
  Result<PoolVcpu*> made = NewVcpu(index);
  if (!made) {
    // The others do the work.
    LOG_WARNING_LIMITED("kvm: cannot make vCPU {}: {}", index, made.error().name());
    sync::MutexLock lock(mu_);
    max_vcpus_ = std::min(max_vcpus_, static_cast<int>(pool_.size()));
    if (max_vcpus_ == 0) return Err(made.error());
  }
  return Acquire(fp);
}

Result<PoolVcpu*> Machine::WaitForVcpu(FpHome& fp) {
  Waiter waiter{.fiber = RefPtr<fiber::Fiber>(fiber::Current())};
  CHECK(waiter.fiber, "not a fiber");
  bool queued = false;
  for (;;) {
    {
      sync::MutexLock lock(mu_);
      if (!queued && waiters_.empty()) {
        // One may have been given back since the caller looked.
        waiter.granted = PickFree(fp);
        if (waiter.granted != nullptr) waiter.granted->busy = true;
      }
      if (waiter.granted != nullptr || std::exchange(fp.stop_, false)) {
        fp.waiter_ = nullptr;
        if (queued) {
          if (waiter.granted == nullptr) waiters_.erase(std::find(waiters_.begin(), waiters_.end(), &waiter));
          // The wake may have been meant for a wait further up.
          waiter.fiber->Unpark();
        }
        if (waiter.granted == nullptr) return nullptr;
        if (Result<> r = TakeOver(*waiter.granted, fp); !r) {
          ReleaseLocked(*waiter.granted);
          return Err(r.error());
        }
        return waiter.granted;
      }
      if (!queued) {
        queued = true;
        waiter.since = turns_;
        waiters_.push_back(&waiter);
        fp.waiter_ = waiter.fiber.get();
      }
    }
    if (fiber::Park(fiber::Now() + kTurn) == fiber::ParkResult::kTimedOut) {
      sync::MutexLock lock(mu_);
      if (waiter.granted == nullptr) PreemptFor(waiter);
    }
  }
}

void Machine::StopWaiting(FpHome& fp) {
  sync::MutexLock lock(mu_);
  fp.stop_ = true;
  if (fp.waiter_ != nullptr) fp.waiter_->Unpark();
}

void Machine::PreemptFor(const Waiter& waiter) {
  PoolVcpu* longest = nullptr;
  for (const auto& v : pool_) {
    if (!v->busy || v->taken > waiter.since || v->preempt.load(std::memory_order_relaxed)) continue;
    if (longest == nullptr || v->taken < longest->taken) longest = v.get();
  }
  if (longest == nullptr) return;
  longest->preempt.store(true, std::memory_order_relaxed);
  longest->vcpu->Kick();
}

void Machine::Release(PoolVcpu& v) {
  sync::MutexLock lock(mu_);
  ReleaseLocked(v);
}

void Machine::ReleaseLocked(PoolVcpu& v) {
  if (waiters_.empty()) {
    v.busy = false;
    return;
  }
  Waiter* next = waiters_.front();
  waiters_.pop_front();
  next->granted = &v;
  next->fiber->Unpark();
}

Result<FpState> Machine::PullFpState(FpHome& fp) {
  FpState state;
  {
    sync::MutexLock lock(mu_);
    if (fp.home_ != nullptr) {
      fp.bytes_.resize(vm_->xsave_size());
      TRY(fp.home_->vcpu->GetFpState(fp.bytes_));
    }
    state.bytes = fp.bytes_;
  }
  if (state.bytes.empty()) return InitialFpState();
  state.bytes.resize(FpStateSize());
  return state;
}

void Machine::PushFpState(FpHome& fp, const FpState& state) {
  FpState sane = state;
  SanitizeFpState(sane);
  if (!sane.bytes.empty()) {
    // Of what guests have; the host may have more.
    uint64_t present;
    memcpy(&present, sane.bytes.data() + 512, sizeof(present));
    present &= vm_->xcr0();
    memcpy(sane.bytes.data() + 512, &present, sizeof(present));
    sane.bytes.resize(vm_->xsave_size());
  }
  sync::MutexLock lock(mu_);
  fp.bytes_ = std::move(sane.bytes);
  if (fp.home_ != nullptr) {
    fp.home_->resident = nullptr;
    fp.home_ = nullptr;
  }
}

uint64_t Machine::runs() {
  sync::MutexLock lock(mu_);
  uint64_t sum = 0;
  for (const auto& v : pool_) sum += v->vcpu->runs();
  return sum;
}

size_t Machine::vcpus() {
  sync::MutexLock lock(mu_);
  return pool_.size();
}

}  // namespace redoubt::platform::kvm
