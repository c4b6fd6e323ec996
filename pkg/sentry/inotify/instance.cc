#include "pkg/sentry/inotify/instance.h"

#include <limits.h>

#include <utility>

#include "pkg/sentry/limits/system.h"

namespace redoubt::inotify {

namespace {

limits::UserCount& WatchesOfUsers() {
  static auto* const count = new limits::UserCount();
  return *count;
}

// What the queues hold, as Cost counts.
constinit std::atomic<int64_t> queued_in_all{0};

int64_t Cost(const Event& event) { return static_cast<int64_t>(sizeof(Event) + event.name.size()); }

}  // namespace

size_t Event::NameSize() const {
  constexpr size_t kUnit = sizeof(inotify_event);
  return name.empty() ? 0 : (name.size() + 1 + kUnit - 1) / kUnit * kUnit;
}

size_t Event::Size() const { return sizeof(inotify_event) + NameSize(); }

Instance::Instance(uint32_t owner)
    : owner_(owner), most_events_(static_cast<size_t>(limits::System::Get().inotify_max_events.load())) {}

Instance::~Instance() {
  for (const Event& event : events_) queued_in_all.fetch_sub(Cost(event), std::memory_order_relaxed);
}

Result<> Instance::Register(const RefPtr<Mark>& mark) {
  const auto most = static_cast<uint64_t>(limits::System::Get().inotify_max_watches.load());
  if (!WatchesOfUsers().Charge(owner_, 1, most)) return Err(ENOSPC);
  sync::MutexLock lock(mu_);
  do {
    last_descriptor_ = last_descriptor_ == INT_MAX ? 1 : last_descriptor_ + 1;
  } while (marks_.contains(last_descriptor_));
  mark->descriptor_ = last_descriptor_;
  marks_.emplace(last_descriptor_, mark);
  return {};
}

void Instance::Unregister(const Mark& mark) {
  sync::MutexLock lock(mu_);
  UnregisterLocked(mark);
}

void Instance::UnregisterLocked(const Mark& mark) {
  marks_.erase(mark.descriptor_);
  WatchesOfUsers().Uncharge(owner_, 1);
}

RefPtr<Mark> Instance::Find(int descriptor) {
  sync::MutexLock lock(mu_);
  auto it = marks_.find(descriptor);
  return it == marks_.end() ? nullptr : it->second;
}

std::vector<RefPtr<Mark>> Instance::Marks() {
  std::vector<RefPtr<Mark>> marks;
  sync::MutexLock lock(mu_);
  marks.reserve(marks_.size());
  for (const auto& [descriptor, mark] : marks_) marks.push_back(mark);
  return marks;
}

void Instance::Close() {
  sync::MutexLock lock(mu_);
  closed_ = true;
}

void Instance::Tell(const Mark& mark, const vfs::FileEvent& event) {
  {
    sync::MutexLock lock(mu_);
    if (!PushLocked({mark.descriptor_, event.mask, event.cookie, std::string(event.name)})) return;
  }
  waiters_.Notify(waiter::kIn | waiter::kRdNorm);
}

void Instance::Ignored(const Mark& mark) {
  {
    sync::MutexLock lock(mu_);
    const bool pushed = PushLocked({.descriptor = mark.descriptor_, .mask = IN_IGNORED});
    UnregisterLocked(mark);
    if (!pushed) return;
  }
  waiters_.Notify(waiter::kIn | waiter::kRdNorm);
}

bool Instance::PushLocked(Event event) {
  if (closed_) return false;
  const bool full =
      events_.size() >= most_events_ || queued_in_all.load(std::memory_order_relaxed) + Cost(event) > kMostQueuedBytes;
  if (full) {
    if (overflowed_) return false;
    overflowed_ = true;
    event = {.descriptor = -1, .mask = IN_Q_OVERFLOW};
  } else if (!events_.empty() && events_.back() == event) {
    return false;
  }
  queued_in_all.fetch_add(Cost(event), std::memory_order_relaxed);
  bytes_ += event.Size();
  events_.push_back(std::move(event));
  return true;
}

Result<Event> Instance::Take(size_t room) {
  sync::MutexLock lock(mu_);
  if (events_.empty()) return Err(EAGAIN);
  if (events_.front().Size() > room) return Err(EINVAL);
  Event event = std::move(events_.front());
  events_.pop_front();
  if (event.mask == IN_Q_OVERFLOW) overflowed_ = false;
  bytes_ -= event.Size();
  queued_in_all.fetch_sub(Cost(event), std::memory_order_relaxed);
  return event;
}

size_t Instance::queued_bytes() {
  sync::MutexLock lock(mu_);
  return bytes_;
}

Mark::Mark(const vfs::Path& path, RefPtr<Instance> instance, uint32_t mask)
    : Watch(path, instance.get()), instance_(std::move(instance)), mask_(mask) {}

Mark::~Mark() = default;

Mark::After Mark::OnEvent(const vfs::FileEvent& event) {
  const uint32_t mask = this->mask();
  // IN_UNMOUNT comes to all.
  if ((event.mask & ((mask & IN_ALL_EVENTS) | IN_UNMOUNT)) == 0) return After::kStay;
  if (event.nameless && (mask & IN_EXCL_UNLINK) != 0) return After::kStay;
  instance_->Tell(*this, event);
  return (mask & IN_ONESHOT) != 0 ? After::kRemove : After::kStay;
}

void Mark::OnRemoved() { instance_->Ignored(*this); }

}  // namespace redoubt::inotify
