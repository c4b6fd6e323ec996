#include "pkg/sentry/epoll/epoll.h"

#include <fcntl.h>

#include <atomic>
#include <boost/container/small_vector.hpp>
#include <boost/intrusive/list.hpp>
#include <set>
#include <tuple>
#include <vector>

#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::epoll {
namespace {

// epoll(7): chains of epolls are at most five long.
constexpr int kMaxDepth = 5;
constexpr uint32_t kInputFlags = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE;

// Which epolls watch which description, and by which descriptor. Every change of an interest list happens under its
// lock, so that a dying description, a dying epoll and epoll_ctl meet in one order.
struct Registry {
  sync::Mutex mu{sync::Rank::kEpollRegistry};
  std::set<std::tuple<const vfs::FileDescription*, Epoll*, int>> watched GUARDED_BY(mu);
};
Registry& TheRegistry() {
  static auto* registry = new Registry();
  return *registry;
}

limits::UserCount& WatchesOfUsers() {
  static auto* const count = new limits::UserCount();
  return *count;
}

}  // namespace

struct ReadyTag;
using ReadyHook = boost::intrusive::list_base_hook<boost::intrusive::tag<ReadyTag>>;

struct Epoll::Interest final : waiter::Entry, ReadyHook {
  Interest(Epoll& epoll, Key key, vfs::FileDescription* file, const epoll_event& event)
      : Entry(waiter::kAll), epoll(epoll), key(key), file(file), events(event.events), data(event.data) {}

  void Notify(waiter::EventMask happened) override {
    if ((happened & Mask()) != 0) epoll.MarkReady(*this);
  }
  // What is waited for now; errors and hang-ups always, unless a one-shot has been spent.
  waiter::EventMask Mask() const {
    uint32_t e = events.load(std::memory_order_relaxed);
    return e == 0 ? 0 : (e & ~kInputFlags) | waiter::kErr | waiter::kHup;
  }

  Epoll& epoll;
  const Key key;
  vfs::FileDescription* const file;  // not owned; alive while the interest is in the registry
  std::atomic<uint32_t> events;      // 0: a spent one-shot
  epoll_data_t data;                 // epoll.mu_
  uint64_t taken = 0;                // epoll.mu_: the call of Take that reported it last
  bool ready = false;                // epoll.ready_mu_: linked in ready_
};

struct Epoll::ReadyList {
  boost::intrusive::list<Interest, boost::intrusive::base_hook<ReadyHook>, boost::intrusive::constant_time_size<false>>
      list;
};

Epoll::Epoll(uint32_t owner)
    : FileDescription(vfs::MakeAnonymousPath("anon_inode:[eventpoll]"), O_RDWR),
      owner_(owner),
      ready_(std::make_unique<ReadyList>()) {}

Epoll::~Epoll() {
  Registry& registry = TheRegistry();
  sync::MutexLock registry_lock(registry.mu);
  sync::MutexLock lock(mu_);
  for (auto& [key, interest] : interests_) {
    interest->file->UnregisterWaiter(*interest);
    registry.watched.erase({interest->file, this, key.first});
    sync::MutexLock ready_lock(ready_mu_);
    if (interest->ready) ready_->list.erase(ready_->list.iterator_to(*interest));
  }
  WatchesOfUsers().Uncharge(owner_, interests_.size());
  interests_.clear();
}

void Epoll::MarkReady(Interest& interest) {
  {
    sync::MutexLock lock(ready_mu_);
    if (interest.ready) return;
    interest.ready = true;
    ready_->list.push_back(interest);
  }
  queue_.NotifyNested(waiter::kIn | waiter::kRdNorm);
}

void Epoll::DropInterestLocked(Interest& interest) {
  WatchesOfUsers().Uncharge(owner_, 1);
  interest.file->UnregisterWaiter(interest);
  sync::MutexLock lock(ready_mu_);
  if (interest.ready) ready_->list.erase(ready_->list.iterator_to(interest));
}

void Epoll::ForgetFile(vfs::FileDescription& file) {
  Registry& registry = TheRegistry();
  sync::MutexLock registry_lock(registry.mu);
  auto it = registry.watched.lower_bound({&file, nullptr, 0});
  while (it != registry.watched.end() && std::get<0>(*it) == &file) {
    const auto [watched, epoll, fd] = *it;
    {
      sync::MutexLock lock(epoll->mu_);
      auto interest = epoll->interests_.find({fd, watched});
      epoll->DropInterestLocked(*interest->second);
      epoll->interests_.erase(interest);
    }
    it = registry.watched.erase(it);
  }
}

// The longest chain of epolls below `epoll`; past `limit`, or if `forbidden` is met, a number over the limit.
int Epoll::DepthOf(const Epoll& epoll, const Epoll* forbidden, int limit) {
  if (&epoll == forbidden || limit <= 0) return kMaxDepth + 1;
  std::vector<const Epoll*> below;
  {
    sync::MutexLockNested lock(epoll.mu_);
    for (const auto& [key, interest] : epoll.interests_) {
      if (const auto* e = dynamic_cast<const Epoll*>(interest->file); e != nullptr) below.push_back(e);
    }
  }
  // They stay alive: a dying one waits for the registry's lock, which the caller holds.
  int depth = 1;
  for (const Epoll* e : below) depth = std::max(depth, 1 + DepthOf(*e, forbidden, limit - 1));
  return depth;
}

Result<> Epoll::Add(int fd, RefPtr<vfs::FileDescription> file, const epoll_event& event) {
  Key key{fd, file.get()};
  {
    Registry& registry = TheRegistry();
    sync::MutexLock registry_lock(registry.mu);
    if (const auto* other = dynamic_cast<const Epoll*>(file.get()); other != nullptr) {
      if ((event.events & EPOLLEXCLUSIVE) != 0) return Err(EINVAL);
      if (DepthOf(*other, this, kMaxDepth) >= kMaxDepth) return Err(ELOOP);
    }
    sync::MutexLock lock(mu_);
    if (interests_.contains(key)) return Err(EEXIST);
    const int64_t most = limits::System::Get().epoll_max_user_watches.load(std::memory_order_relaxed);
    if (!WatchesOfUsers().Charge(owner_, 1, static_cast<uint64_t>(most))) return Err(ENOSPC);
    auto interest = std::make_unique<Interest>(*this, key, file.get(), event);
    // A plain 0 would read as a spent one-shot; errors and hang-ups are reported all the same.
    if (event.events == 0) interest->events.store(waiter::kErr);
    file->MarkWatched(&Epoll::ForgetFile);
    registry.watched.insert({file.get(), this, fd});
    file->RegisterWaiter(*interest);
    interests_.emplace(key, std::move(interest));
  }
  RecheckInterest(key, *file);
  return {};
}

Result<> Epoll::Modify(int fd, vfs::FileDescription& file, const epoll_event& event) {
  Key key{fd, &file};
  {
    sync::MutexLock registry_lock(TheRegistry().mu);
    sync::MutexLock lock(mu_);
    auto it = interests_.find(key);
    if (it == interests_.end()) return Err(ENOENT);
    if (((event.events | it->second->events.load()) & EPOLLEXCLUSIVE) != 0) return Err(EINVAL);
    it->second->events.store(event.events == 0 ? waiter::kErr : event.events);
    it->second->data = event.data;
  }
  RecheckInterest(key, file);
  return {};
}

Result<> Epoll::Remove(int fd, vfs::FileDescription& file) {
  Registry& registry = TheRegistry();
  sync::MutexLock registry_lock(registry.mu);
  sync::MutexLock lock(mu_);
  auto it = interests_.find({fd, &file});
  if (it == interests_.end()) return Err(ENOENT);
  DropInterestLocked(*it->second);
  interests_.erase(it);
  registry.watched.erase({&file, this, fd});
  return {};
}

std::optional<epoll_event> Epoll::Find(int fd, const vfs::FileDescription& file) const {
  sync::MutexLock lock(mu_);
  auto it = interests_.find({fd, &file});
  if (it == interests_.end()) return std::nullopt;
  return epoll_event{.events = it->second->events.load(), .data = it->second->data};
}

RefPtr<vfs::FileDescription> Epoll::Watched(int fd, const vfs::FileDescription* file) const {
  sync::MutexLock lock(mu_);
  auto it = interests_.find({fd, file});
  if (it == interests_.end() || !it->second->file->TryIncRef()) return nullptr;
  return RefPtr<vfs::FileDescription>::Adopt(it->second->file);
}

void Epoll::RecheckInterest(const Key& key, vfs::FileDescription& file) {
  // The file's own locks may be of any rank, so none is held while it is asked.
  waiter::EventMask ready = file.Readiness(waiter::kAll);
  {
    sync::MutexLock lock(mu_);
    auto it = interests_.find(key);
    if (it == interests_.end() || (ready & it->second->Mask()) == 0) return;
    sync::MutexLock ready_lock(ready_mu_);
    if (!it->second->ready) {
      it->second->ready = true;
      ready_->list.push_back(*it->second);
    }
  }
  queue_.Notify(waiter::kIn | waiter::kRdNorm);
}

struct Epoll::Candidate {
  Key key;
  RefPtr<vfs::FileDescription> file;
  waiter::EventMask mask;
};

struct Epoll::Candidates : boost::container::small_vector<Candidate, 4> {};

Epoll::Candidates Epoll::ReadyCandidates(size_t limit, bool remove) const {
  Candidates candidates;
  sync::MutexLock lock(mu_);
  sync::MutexLock ready_lock(ready_mu_);
  for (auto it = ready_->list.begin(); it != ready_->list.end() && candidates.size() < limit;) {
    Interest& interest = *it;
    // A description whose last reference has gone is on its way to ForgetFile.
    if (interest.file->TryIncRef()) {
      candidates.push_back({interest.key, RefPtr<vfs::FileDescription>::Adopt(interest.file), interest.Mask()});
    }
    if (remove) {
      interest.ready = false;
      it = ready_->list.erase(it);
    } else {
      ++it;
    }
  }
  return candidates;
}

size_t Epoll::Take(std::span<epoll_event> events) {
  size_t taken = 0;
  boost::container::small_vector<Key, 4> again;
  const uint64_t call = takes_.fetch_add(1, std::memory_order_relaxed) + 1;
  // What became ready again after it was reported stands behind all that was ready before.
  bool repeats = false;
  while (taken < events.size() && !repeats) {
    Candidates candidates = ReadyCandidates(events.size() - taken, true);
    if (candidates.empty()) break;
    for (Candidate& c : candidates) {
      waiter::EventMask ready = c.file->Readiness(c.mask) & c.mask;
      if (ready == 0) continue;
      sync::MutexLock lock(mu_);
      auto it = interests_.find(c.key);
      if (it == interests_.end()) continue;
      Interest& interest = *it->second;
      ready &= interest.Mask();
      if (ready == 0) continue;
      if (interest.taken == call) {
        // Reported twice, the second report would be stale once the caller has served the first. For the next call.
        repeats = true;
        again.push_back(c.key);
        continue;
      }
      interest.taken = call;
      uint32_t flags = interest.events.load(std::memory_order_relaxed);
      epoll_event& event = events[taken++];
      event.events = ready;
      event.data = interest.data;
      if ((flags & EPOLLONESHOT) != 0) {
        interest.events.store(0);
      } else if ((flags & EPOLLET) == 0) {
        again.push_back(c.key);
      }
    }
  }
  // Level-triggered ones go to the end, so that others have their turn first.
  if (!again.empty()) {
    sync::MutexLock lock(mu_);
    sync::MutexLock ready_lock(ready_mu_);
    for (const Key& key : again) {
      auto it = interests_.find(key);
      if (it == interests_.end() || it->second->ready) continue;
      it->second->ready = true;
      ready_->list.push_back(*it->second);
    }
  }
  return taken;
}

waiter::EventMask Epoll::Readiness(waiter::EventMask mask) {
  for (Candidate& c : ReadyCandidates(~size_t{0}, false)) {
    if ((c.file->Readiness(c.mask) & c.mask) != 0) return mask & (waiter::kIn | waiter::kRdNorm);
  }
  return 0;
}

RefPtr<vfs::FileDescription> Make(uint32_t owner) { return MakeRef<Epoll>(owner); }

}  // namespace redoubt::epoll
