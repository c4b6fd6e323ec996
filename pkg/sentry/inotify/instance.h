// Private to inotify: what of an instance its watches know, and a watch.
#ifndef REDOUBT_PKG_SENTRY_INOTIFY_INSTANCE_H_
#define REDOUBT_PKG_SENTRY_INOTIFY_INSTANCE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/watch.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::inotify {

class Mark;

// One event that waits to be read.
struct Event {
  int descriptor = -1;
  uint32_t mask = 0;
  uint32_t cookie = 0;
  std::string name;

  // As read(2) gives it: the name padded with zeros to a multiple of the header's size, no bytes for an empty one.
  size_t NameSize() const;
  size_t Size() const;
  friend bool operator==(const Event&, const Event&) = default;
};

// The queue of an instance, and its watches by descriptor; Linux's fsnotify_group. Each watch holds it, since one may
// be at work while the description ends.
class Instance final : public RefCounted {
 public:
  // What all queues together may hold; what is more overflows (Linux: none, the memory is a control group's).
  static constexpr int64_t kMostQueuedBytes = int64_t{64} << 20;

  explicit Instance(uint32_t owner);

  uint32_t owner() const { return owner_; }
  waiter::Queue& waiters() { return waiters_; }

  // Gives `mark` a descriptor: the next, so that one is not used again soon. ENOSPC: the owner has too many.
  Result<> Register(const RefPtr<Mark>& mark) EXCLUDES(mu_);
  // The same undone, for a watch that could not be added.
  void Unregister(const Mark& mark) EXCLUDES(mu_);
  RefPtr<Mark> Find(int descriptor) EXCLUDES(mu_);
  std::vector<RefPtr<Mark>> Marks() EXCLUDES(mu_);  // by descriptor
  // The description has gone: watches that still leave say nothing.
  void Close() EXCLUDES(mu_);

  void Tell(const Mark& mark, const vfs::FileEvent& event) EXCLUDES(mu_);
  // The last that is told of a watch.
  void Ignored(const Mark& mark) EXCLUDES(mu_);

  // The next event, if it fits into `room`. EAGAIN; EINVAL: it does not.
  Result<Event> Take(size_t room) EXCLUDES(mu_);
  size_t queued_bytes() EXCLUDES(mu_);

 private:
  ~Instance() override;
  // False if nothing was added.
  bool PushLocked(Event event) REQUIRES(mu_);
  void UnregisterLocked(const Mark& mark) REQUIRES(mu_);

  const uint32_t owner_;
  const size_t most_events_;
  sync::Mutex mu_{sync::Rank::kInotify};
  std::deque<Event> events_ GUARDED_BY(mu_);
  size_t bytes_ GUARDED_BY(mu_) = 0;         // as read(2) gives them
  bool overflowed_ GUARDED_BY(mu_) = false;  // one of them says so
  bool closed_ GUARDED_BY(mu_) = false;
  std::map<int, RefPtr<Mark>> marks_ GUARDED_BY(mu_);
  int last_descriptor_ GUARDED_BY(mu_) = 0;
  waiter::Queue waiters_;
};

// A watch. Its mask is what inotify_add_watch(2) takes.
class Mark final : public vfs::Watch {
 public:
  Mark(const vfs::Path& path, RefPtr<Instance> instance, uint32_t mask);

  int descriptor() const { return descriptor_; }
  uint32_t mask() const { return mask_.load(std::memory_order_relaxed); }
  void set_mask(uint32_t mask) { mask_.store(mask, std::memory_order_relaxed); }

 private:
  friend class Instance;
  ~Mark() override;
  After OnEvent(const vfs::FileEvent& event) override;
  void OnRemoved() override;

  const RefPtr<Instance> instance_;
  int descriptor_ = -1;  // given before it is added
  std::atomic<uint32_t> mask_;
};

}  // namespace redoubt::inotify

#endif  // REDOUBT_PKG_SENTRY_INOTIFY_INSTANCE_H_
