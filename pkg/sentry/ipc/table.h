// The objects of one kind, by key and by identifier.
#ifndef REDOUBT_PKG_SENTRY_IPC_TABLE_H_
#define REDOUBT_PKG_SENTRY_IPC_TABLE_H_

#include <sys/ipc.h>

#include <map>
#include <utility>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::ipc {

// Linux's ipc_ids. An identifier is the slot's number and, above it, a count that makes an old identifier of a slot
// used again invalid. Thread-safe. `T` is counted and has a const `id` given at its making.
template <typename T>
class Table final {
 public:
  // semget(2) and its kin: what `key` names, or what `make(id)` makes. ENOENT, EEXIST, ENOSPC; `check(T&)` says whether
  // the one found will do.
  template <typename Make, typename Check>
  Result<RefPtr<T>> Get(key_t key, int flags, size_t limit, Make&& make, Check&& check) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    if (key != IPC_PRIVATE) {
      if (auto it = by_key_.find(key); it != by_key_.end()) {
        if ((flags & IPC_CREAT) && (flags & IPC_EXCL)) return Err(EEXIST);
        RefPtr<T> found = by_id_.at(it->second);
        TRY(check(*found));
        return found;
      }
      if (!(flags & IPC_CREAT)) return Err(ENOENT);
    }
    if (by_id_.size() >= limit) return Err(ENOSPC);
    int slot = 0;
    for (const auto& [id, object] : by_slot_) {
      if (id != slot) break;
      ++slot;
    }
    const int id = (sequence_++ & 0xffff) << 15 | slot;
    RefPtr<T> made = TRY(make(id));
    by_slot_[slot] = id;
    by_id_[id] = made;
    if (key != IPC_PRIVATE) by_key_[key] = id;
    return made;
  }
  // EINVAL.
  Result<RefPtr<T>> Find(int id) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    auto it = by_id_.find(id);
    if (it == by_id_.end()) return Err(EINVAL);
    return it->second;
  }
  // For SHM_STAT and SEM_STAT.
  Result<RefPtr<T>> FindSlot(int slot) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    auto it = by_slot_.find(slot);
    if (it == by_slot_.end()) return Err(EINVAL);
    return by_id_.at(it->second);
  }
  // The key names nothing any more; the identifier stays.
  void ForgetKey(int id) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    std::erase_if(by_key_, [id](const auto& entry) { return entry.second == id; });
  }
  void Remove(int id) EXCLUDES(mu_) {
    RefPtr<T> removed;  // after the lock
    sync::MutexLock lock(mu_);
    std::erase_if(by_key_, [id](const auto& entry) { return entry.second == id; });
    auto it = by_id_.find(id);
    if (it == by_id_.end()) return;
    removed = std::move(it->second);
    by_id_.erase(it);
    by_slot_.erase(id & 0x7fff);
  }
  std::vector<RefPtr<T>> All() EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    std::vector<RefPtr<T>> all;
    for (const auto& [id, object] : by_id_) all.push_back(object);
    return all;
  }
  // The highest slot in use; 0 if none is, as the calls report it.
  int MaxSlot() EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return by_slot_.empty() ? 0 : by_slot_.rbegin()->first;
  }

 private:
  sync::Mutex mu_{sync::Rank::kIpc};
  std::map<int, RefPtr<T>> by_id_ GUARDED_BY(mu_);
  std::map<int, int> by_slot_ GUARDED_BY(mu_);
  std::map<key_t, int> by_key_ GUARDED_BY(mu_);
  int sequence_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::ipc

#endif  // REDOUBT_PKG_SENTRY_IPC_TABLE_H_
