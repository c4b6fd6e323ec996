#include "pkg/sentry/socket/unix/rights.h"

#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "pkg/sentry/socket/unix/unix_socket.h"
#include "pkg/sync/mutex.h"

namespace redoubt::unixsock {

namespace {

// How many sockets in flight make sending look for garbage.
constexpr size_t kManySockets = 1024;

class InFlight final {
 public:
  Result<> Add(const std::vector<File>& files, uint64_t limit) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    if (total_ + files.size() > std::min(limit, Rights::kMaxInFlight)) return Err(ETOOMANYREFS);
    total_ += files.size();
    ++sends_;
    for (const File& f : files) {
      if (auto* s = dynamic_cast<UnixSocket*>(f.get())) ++sockets_[s];
    }
    count_.store(sockets_.size(), std::memory_order_relaxed);
    return {};
  }
  void Remove(const std::vector<File>& files) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    total_ -= files.size();
    for (const File& f : files) {
      auto* s = dynamic_cast<UnixSocket*>(f.get());
      if (s == nullptr) continue;
      auto it = sockets_.find(s);
      if (--it->second == 0) sockets_.erase(it);
    }
    count_.store(sockets_.size(), std::memory_order_relaxed);
  }
  size_t sockets() const { return count_.load(std::memory_order_relaxed); }
  bool ShouldCollect() EXCLUDES(mu_) {
    if (sockets() < kManySockets) return false;
    sync::MutexLock lock(mu_);
    if (2 * sends_ < sockets_.size()) return false;
    sends_ = 0;
    return true;
  }

  // The messages with descriptors of all sockets that nobody can reach.
  std::vector<Rights> TakeGarbage() EXCLUDES(mu_) {
    std::vector<Rights> garbage;
    sync::MutexLock lock(mu_);
    // Held by nothing but messages. The count of references of such a one cannot grow meanwhile: for that it would have
    // to land.
    std::unordered_map<UnixSocket*, int32_t> from_elsewhere;
    for (auto [s, count] : sockets_) {
      if (s->RefCount() == count) from_elsewhere.emplace(s, count);
    }
    if (from_elsewhere.empty()) return garbage;
    auto for_each_child = [&](UnixSocket& s, auto&& f) {
      s.endpoint().ForEachQueued([&](const Rights& rights) {
        for (const File& file : rights.files()) {
          auto it = from_elsewhere.find(dynamic_cast<UnixSocket*>(file.get()));
          if (it != from_elsewhere.end()) f(*it);
        }
      });
    };
    for (auto& [s, left] : from_elsewhere) {
      for_each_child(*s, [](auto& child) { --child.second; });
    }
    // What a message of a reachable socket holds is reachable.
    std::vector<UnixSocket*> reached;
    for (auto& [s, left] : from_elsewhere) {
      if (left > 0) reached.push_back(s);
    }
    constexpr int32_t kSeen = INT32_MAX;
    for (UnixSocket* s : reached) from_elsewhere[s] = kSeen;
    while (!reached.empty()) {
      UnixSocket* s = reached.back();
      reached.pop_back();
      for_each_child(*s, [&](auto& child) {
        if (std::exchange(child.second, kSeen) != kSeen) reached.push_back(child.first);
      });
    }
    for (auto& [s, left] : from_elsewhere) {
      if (left != kSeen) s->endpoint().TakeRights(garbage);
    }
    return garbage;
  }

 private:
  sync::Mutex mu_{sync::Rank::kInFlight};
  std::unordered_map<UnixSocket*, int32_t> sockets_ GUARDED_BY(mu_);  // with how many references in flight
  uint64_t total_ GUARDED_BY(mu_) = 0;
  uint64_t sends_ GUARDED_BY(mu_) = 0;  // of messages with descriptors, since the last look
  std::atomic<size_t> count_{0};
};

InFlight& Registry() {
  static InFlight* const registry = new InFlight();
  return *registry;
}

}  // namespace

Result<Rights> Rights::Launch(std::vector<File> files, uint64_t limit) {
  Rights rights;
  if (files.empty()) return rights;
  if (files.size() > kMaxFiles) return Err(EINVAL);
  TRY(Registry().Add(files, limit));
  rights.files_ = std::move(files);
  if (Registry().ShouldCollect()) CollectGarbage();
  return rights;
}

std::vector<File> Rights::Land() {
  if (!files_.empty()) Registry().Remove(files_);
  return std::exchange(files_, {});
}

Rights::~Rights() {
  if (!files_.empty()) Bury(Land());
}

// Dropping a socket drops its messages, which drop sockets: each of them only adds to the list that the first works
// off.
void Bury(std::vector<File> files) {
  struct Graveyard {
    sync::Mutex mu{sync::Rank::kLeaf};
    std::vector<File> files GUARDED_BY(mu);
    bool working GUARDED_BY(mu) = false;
  };
  static Graveyard* const graveyard = new Graveyard();
  {
    sync::MutexLock lock(graveyard->mu);
    std::move(files.begin(), files.end(), std::back_inserter(graveyard->files));
    if (std::exchange(graveyard->working, true)) return;
  }
  while (true) {
    std::vector<File> batch;
    {
      sync::MutexLock lock(graveyard->mu);
      batch.swap(graveyard->files);
      if (batch.empty()) {
        graveyard->working = false;
        return;
      }
    }
  }
}

void CollectGarbage() {
  if (Registry().sockets() == 0) return;
  Registry().TakeGarbage();
}

void SocketEnded() {
  static constinit std::atomic<size_t> ended{0};
  const size_t sockets = Registry().sockets();
  if (sockets == 0 || ended.fetch_add(1, std::memory_order_relaxed) < sockets / 8) return;
  ended.store(0, std::memory_order_relaxed);
  CollectGarbage();
}

size_t SocketsInFlight() { return Registry().sockets(); }

}  // namespace redoubt::unixsock
