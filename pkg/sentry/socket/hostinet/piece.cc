#include "pkg/sentry/socket/hostinet/piece.h"

#include <utility>
#include <vector>

#include "pkg/log/log.h"
#include "pkg/sync/mutex.h"

namespace redoubt::hostinet {

namespace {

// As malloc would keep them, if it did not give the ends of its arenas back to the host each time.
class Store final {
 public:
  static Store& Get() {
    static Store* const store = new Store();
    return *store;
  }

  std::unique_ptr<std::byte[]> Take() {
    {
      sync::MutexLock lock(mu_);
      if (!kept_.empty()) {
        std::unique_ptr<std::byte[]> piece = std::move(kept_.back());
        kept_.pop_back();
        return piece;
      }
    }
    return std::make_unique_for_overwrite<std::byte[]>(Piece::kMost);
  }
  void Keep(std::unique_ptr<std::byte[]> piece) {
    sync::MutexLock lock(mu_);
    if (kept_.size() < kMostKept) kept_.push_back(std::move(piece));
  }

 private:
  static constexpr size_t kMostKept = 16;

  Store() { kept_.reserve(kMostKept); }

  sync::Mutex mu_{sync::Rank::kLeaf};
  std::vector<std::unique_ptr<std::byte[]>> kept_ GUARDED_BY(mu_);
};

}  // namespace

Piece::Piece(size_t size) : size_(size) {
  CHECK(size <= kMost, "too large a piece");
  if (size > kSmall) large_ = Store::Get().Take();
}

Piece::~Piece() {
  if (large_) Store::Get().Keep(std::move(large_));
}

}  // namespace redoubt::hostinet
