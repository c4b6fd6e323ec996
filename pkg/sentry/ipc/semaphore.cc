#include "pkg/sentry/ipc/semaphore.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::ipc {

namespace {
int64_t Now() { return clock::Realtime() / 1'000'000'000; }

// Semaphores of all sets, the removed ones that are in use included.
constinit std::atomic<int64_t> in_all{0};
}  // namespace

SemaphoreSet::SemaphoreSet(int id, size_t count, const Permissions& permissions)
    : id(id), size_(count), permissions_(permissions), semaphores_(count), change_time_(Now()) {
  in_all.fetch_add(static_cast<int64_t>(count), std::memory_order_relaxed);
  sync::MutexLock lock(mu_);
  permissions_.id = id;
}

SemaphoreSet::~SemaphoreSet() { in_all.fetch_sub(static_cast<int64_t>(size_), std::memory_order_relaxed); }

Result<> SemaphoreSet::CheckUse(const auth::Credentials& creds, int flags) {
  sync::MutexLock lock(mu_);
  const auto mode = static_cast<uint32_t>(flags);
  return permissions_.Check(creds, (mode >> 6 | mode >> 3 | mode) & 7);
}

Result<size_t> SemaphoreSet::TryLocked(std::span<const sembuf> operations, std::vector<int>& result) const {
  result.resize(size_);
  for (size_t i = 0; i < size_; ++i) result[i] = semaphores_[i].value;
  for (size_t i = 0; i < operations.size(); ++i) {
    const sembuf& op = operations[i];
    int& value = result[op.sem_num];
    if (op.sem_op == 0) {
      if (value != 0) return i;
    } else if (op.sem_op < 0) {
      if (value < -op.sem_op) return i;
      value += op.sem_op;
    } else {
      if (value > kMaxValue - op.sem_op) return Err(ERANGE);
      value += op.sem_op;
    }
  }
  return operations.size();
}

Result<SemaphoreSet::Outcome> SemaphoreSet::Operate(std::span<const sembuf> operations, const auth::Credentials& creds,
                                                    int pid, UndoList* undo) {
  bool alters = false;
  {
    sync::MutexLock lock(mu_);
    if (removed_) return Err(EIDRM);
    for (const sembuf& op : operations) {
      if (op.sem_num >= size_) return Err(EFBIG);
      alters |= op.sem_op != 0;
    }
    TRY(permissions_.Check(creds, alters ? 2 : 4));
    std::vector<int> values;
    const size_t blocked_at = TRY(TryLocked(operations, values));
    if (blocked_at < operations.size()) {
      if (operations[blocked_at].sem_flg & IPC_NOWAIT) return Outcome::kMustNotWait;
      return Err(EAGAIN);
    }
    if (undo != nullptr) {
      std::vector<uint64_t> generations;
      for (const Semaphore& s : semaphores_) generations.push_back(s.generation);
      TRY(undo->Add(*this, generations, operations));
    }
    for (size_t i = 0; i < size_; ++i) semaphores_[i].value = values[i];
    for (const sembuf& op : operations) semaphores_[op.sem_num].pid = pid;
    operate_time_ = Now();
  }
  if (alters) queue_.Notify(waiter::kIn);
  return Outcome::kDone;
}

void SemaphoreSet::Waiting::Update(std::span<const sembuf> operations) {
  sync::MutexLock lock(set_.mu_);
  ForgetLocked();
  for (const sembuf& op : operations) {
    if (op.sem_num >= set_.size_) return;
  }
  std::vector<int> values;
  Result<size_t> at = set_.TryLocked(operations, values);
  if (!at || *at == operations.size()) return;
  index_ = operations[*at].sem_num;
  for_zero_ = operations[*at].sem_op == 0;
  Semaphore& s = set_.semaphores_[index_];
  ++(for_zero_ ? s.waiting_zero : s.waiting_increase);
}

SemaphoreSet::Waiting::~Waiting() {
  sync::MutexLock lock(set_.mu_);
  ForgetLocked();
}

void SemaphoreSet::Waiting::ForgetLocked() {
  if (index_ == SIZE_MAX) return;
  Semaphore& s = set_.semaphores_[index_];
  --(for_zero_ ? s.waiting_zero : s.waiting_increase);
  index_ = SIZE_MAX;
}

Result<semid_ds> SemaphoreSet::Stat(const auth::Credentials& creds, bool check) {
  sync::MutexLock lock(mu_);
  if (check) TRY(permissions_.Check(creds, 4));
  semid_ds ds = {};
  ds.sem_perm = permissions_.ToGuest();
  ds.sem_otime = operate_time_;
  ds.sem_ctime = change_time_;
  ds.sem_nsems = size_;
  return ds;
}

Result<> SemaphoreSet::Set(const auth::Credentials& creds, const ipc_perm& p) {
  sync::MutexLock lock(mu_);
  TRY(permissions_.CheckOwner(creds));
  permissions_.uid = p.uid;
  permissions_.gid = p.gid;
  permissions_.mode = p.mode & 0777;
  change_time_ = Now();
  return {};
}

Result<> SemaphoreSet::CheckRemove(const auth::Credentials& creds) {
  sync::MutexLock lock(mu_);
  return permissions_.CheckOwner(creds);
}

void SemaphoreSet::Remove() {
  {
    sync::MutexLock lock(mu_);
    removed_ = true;
  }
  queue_.Notify(waiter::kIn);
}

Result<int> SemaphoreSet::GetOne(const auth::Credentials& creds, int index, What what) {
  sync::MutexLock lock(mu_);
  TRY(permissions_.Check(creds, 4));
  if (index < 0 || static_cast<size_t>(index) >= size_) return Err(EINVAL);
  const Semaphore& s = semaphores_[static_cast<size_t>(index)];
  switch (what) {
    case What::kValue:
      return s.value;
    case What::kPid:
      return s.pid;
    case What::kWaitingForIncrease:
      return s.waiting_increase;
    case What::kWaitingForZero:
      return s.waiting_zero;
  }
  return Err(EINVAL);
}

Result<std::vector<uint16_t>> SemaphoreSet::GetAll(const auth::Credentials& creds) {
  sync::MutexLock lock(mu_);
  TRY(permissions_.Check(creds, 4));
  std::vector<uint16_t> values;
  for (const Semaphore& s : semaphores_) values.push_back(static_cast<uint16_t>(s.value));
  return values;
}

Result<> SemaphoreSet::SetOne(const auth::Credentials& creds, int index, int value, int pid) {
  {
    sync::MutexLock lock(mu_);
    if (value < 0 || value > kMaxValue) return Err(ERANGE);
    TRY(permissions_.Check(creds, 2));
    if (index < 0 || static_cast<size_t>(index) >= size_) return Err(EINVAL);
    Semaphore& s = semaphores_[static_cast<size_t>(index)];
    s.value = value;
    s.pid = pid;
    ++s.generation;
    change_time_ = Now();
  }
  queue_.Notify(waiter::kIn);
  return {};
}

Result<> SemaphoreSet::SetAll(const auth::Credentials& creds, std::span<const uint16_t> values, int pid) {
  {
    sync::MutexLock lock(mu_);
    TRY(permissions_.Check(creds, 2));
    if (std::ranges::any_of(values, [](uint16_t v) { return v > kMaxValue; })) return Err(ERANGE);
    for (size_t i = 0; i < size_ && i < values.size(); ++i) {
      semaphores_[i].value = values[i];
      semaphores_[i].pid = pid;
      ++semaphores_[i].generation;
    }
    change_time_ = Now();
  }
  queue_.Notify(waiter::kIn);
  return {};
}

void SemaphoreSet::Undo(std::span<const Adjustment> adjustments, int pid) {
  {
    sync::MutexLock lock(mu_);
    if (removed_) return;
    for (size_t i = 0; i < size_ && i < adjustments.size(); ++i) {
      if (adjustments[i].value == 0 || adjustments[i].generation != semaphores_[i].generation) continue;
      semaphores_[i].value = std::clamp(semaphores_[i].value + adjustments[i].value, 0, kMaxValue);
      semaphores_[i].pid = pid;
    }
    operate_time_ = Now();
  }
  queue_.Notify(waiter::kIn);
}

Result<> UndoList::Add(SemaphoreSet& set, std::span<const uint64_t> generations, std::span<const sembuf> operations) {
  sync::MutexLock lock(mu_);
  auto [it, fresh] = sets_.try_emplace(set.id, Adjustments{RefPtr<SemaphoreSet>(&set), {}});
  std::vector<SemaphoreSet::Adjustment> values = it->second.values;
  values.resize(set.size());
  for (const sembuf& op : operations) {
    if ((op.sem_flg & SEM_UNDO) == 0) continue;
    SemaphoreSet::Adjustment& a = values[op.sem_num];
    if (a.generation != generations[op.sem_num]) a = {.value = 0, .generation = generations[op.sem_num]};
    a.value -= op.sem_op;
    if (a.value > SemaphoreSet::kMaxValue || a.value < -SemaphoreSet::kMaxValue - 1) return Err(ERANGE);
  }
  it->second.values = std::move(values);
  return {};
}

UndoList::~UndoList() {
  std::map<int, Adjustments> sets;
  {
    sync::MutexLock lock(mu_);
    sets.swap(sets_);
  }
  for (auto& [id, a] : sets) a.set->Undo(a.values, pid_);
}

Result<RefPtr<SemaphoreSet>> Semaphores::Get(key_t key, int count, int flags, const auth::Credentials& creds) {
  if (count < 0 || count > kMaxPerSet) return Err(EINVAL);
  return table_.Get(
      key, flags, kMaxSets,
      [&](int id) -> Result<RefPtr<SemaphoreSet>> {
        if (count == 0) return Err(EINVAL);
        const int64_t most = limits::System::Get().semmns.load(std::memory_order_relaxed);
        if (in_all.load(std::memory_order_relaxed) + count > most) return Err(ENOSPC);
        return MakeRef<SemaphoreSet>(id, static_cast<size_t>(count),
                                     Permissions::Of(key, static_cast<uint32_t>(flags), creds));
      },
      [&](SemaphoreSet& set) -> Result<> {
        if (static_cast<size_t>(count) > set.size()) return Err(EINVAL);
        return set.CheckUse(creds, flags);
      });
}

}  // namespace redoubt::ipc
