// System V semaphores: semget(2), semop(2), semctl(2).
#ifndef REDOUBT_PKG_SENTRY_IPC_SEMAPHORE_H_
#define REDOUBT_PKG_SENTRY_IPC_SEMAPHORE_H_

#include <sys/sem.h>

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/ipc/permissions.h"
#include "pkg/sentry/ipc/table.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::ipc {

class UndoList;

// One set. Operations on it are atomic as a whole; who has to wait does so on the queue and tries again.
class SemaphoreSet final : public RefCounted {
 public:
  static constexpr int kMaxValue = 32767;  // SEMVMX

  SemaphoreSet(int id, size_t count, const Permissions& permissions);
  ~SemaphoreSet() override;

  const int id;
  size_t size() const { return size_; }

  // semop(2), one try: EAGAIN if it has to wait, EIDRM, EFBIG, EACCES, ERANGE. kMustNotWait: it would, but for
  // IPC_NOWAIT. `undo` takes what SEM_UNDO asks for; may be null without.
  enum class Outcome { kDone, kMustNotWait };
  Result<Outcome> Operate(std::span<const sembuf> operations, const auth::Credentials& creds, int pid, UndoList* undo)
      EXCLUDES(mu_);
  // Counts the caller among those GETNCNT and GETZCNT report while it waits for the operation that blocks it. Which one
  // that is may change with every try that fails: Update.
  class Waiting final {
   public:
    explicit Waiting(SemaphoreSet& set) : set_(set) {}
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

    void Update(std::span<const sembuf> operations);

   private:
    void ForgetLocked() REQUIRES(set_.mu_);

    SemaphoreSet& set_;
    size_t index_ = SIZE_MAX;
    bool for_zero_ = false;
  };

  // semctl(2).
  Result<semid_ds> Stat(const auth::Credentials& creds, bool check) EXCLUDES(mu_);
  Result<> Set(const auth::Credentials& creds, const ipc_perm& p) EXCLUDES(mu_);
  Result<> CheckRemove(const auth::Credentials& creds) EXCLUDES(mu_);
  void Remove() EXCLUDES(mu_);
  enum class What { kValue, kPid, kWaitingForIncrease, kWaitingForZero };
  Result<int> GetOne(const auth::Credentials& creds, int index, What what) EXCLUDES(mu_);
  Result<std::vector<uint16_t>> GetAll(const auth::Credentials& creds) EXCLUDES(mu_);
  Result<> SetOne(const auth::Credentials& creds, int index, int value, int pid) EXCLUDES(mu_);
  Result<> SetAll(const auth::Credentials& creds, std::span<const uint16_t> values, int pid) EXCLUDES(mu_);
  Result<> CheckUse(const auth::Credentials& creds, int flags) EXCLUDES(mu_);

  // What the exit of a process gives back, by semaphore. Values stay within their limits.
  struct Adjustment {
    int value = 0;
    uint64_t generation = 0;
  };
  void Undo(std::span<const Adjustment> adjustments, int pid) EXCLUDES(mu_);

  // For wait::Retry.
  void RegisterWaiter(waiter::Entry& entry) { queue_.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) { queue_.Unregister(entry); }

 private:
  struct Semaphore {
    int value = 0;
    int pid = 0;  // of the last operation
    int waiting_increase = 0, waiting_zero = 0;
    uint64_t generation = 0;  // SETVAL and SETALL make all adjustments from before void
  };

  // The first operation that would wait, or the size if all can be done; the values then are in `result`.
  Result<size_t> TryLocked(std::span<const sembuf> operations, std::vector<int>& result) const REQUIRES(mu_);

  const size_t size_;
  sync::Mutex mu_{sync::Rank::kMappable};  // the table's lock comes before it
  Permissions permissions_ GUARDED_BY(mu_);
  std::vector<Semaphore> semaphores_ GUARDED_BY(mu_);
  bool removed_ GUARDED_BY(mu_) = false;
  int64_t operate_time_ GUARDED_BY(mu_) = 0, change_time_ GUARDED_BY(mu_) = 0;
  waiter::Queue queue_;  // kIn: some value changed, or the set has gone
};

// semadj of one process: what its SEM_UNDO operations have to be undone by. Dropping it does that.
class UndoList final : public RefCounted {
 public:
  explicit UndoList(int pid) : pid_(pid) {}
  ~UndoList() override;

 private:
  friend class SemaphoreSet;
  struct Adjustments {
    RefPtr<SemaphoreSet> set;
    std::vector<SemaphoreSet::Adjustment> values;
  };
  // ERANGE. Called with the set's lock held; `generations` by semaphore.
  Result<> Add(SemaphoreSet& set, std::span<const uint64_t> generations, std::span<const sembuf> operations)
      EXCLUDES(mu_);

  const int pid_;
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::map<int, Adjustments> sets_ GUARDED_BY(mu_);
};

// All sets of a namespace.
class Semaphores final {
 public:
  static constexpr size_t kMaxSets = 32000;      // SEMMNI
  static constexpr int kMaxPerSet = 32000;       // SEMMSL
  static constexpr size_t kMaxOperations = 500;  // SEMOPM

  // semget(2): EACCES, EEXIST, EINVAL, ENOENT, ENOSPC (also for more than SEMMNS semaphores in all).
  Result<RefPtr<SemaphoreSet>> Get(key_t key, int count, int flags, const auth::Credentials& creds);
  Table<SemaphoreSet>& table() { return table_; }

 private:
  Table<SemaphoreSet> table_;
};

}  // namespace redoubt::ipc

#endif  // REDOUBT_PKG_SENTRY_IPC_SEMAPHORE_H_
