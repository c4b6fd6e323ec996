#include "pkg/netstack/buffer/chunk_unsafe.h"

#include <new>

#include "pkg/log/log.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

namespace {

constexpr int kClasses = 3;
constexpr uint32_t kCapacity[kClasses] = {Chunk::kSmall, Chunk::kMedium, Chunk::kLarge};
// Chunks kept per thread: half of them move to or from the shared list at a time, so its lock is taken once per so
// many.
constexpr uint32_t kPerThread[kClasses] = {64, 32, 8};
// Chunks kept for all threads: 0.5, 2 and 4 MiB.
constexpr uint32_t kShared[kClasses] = {1024, 1024, 64};

std::atomic<uint64_t> allocated_bytes{0};

}  // namespace

// Two levels: a free list per thread without a lock, and one for all.
class ChunkPool final {
 public:
  struct FreeList {
    Chunk* head = nullptr;
    uint32_t count = 0;

    void Push(Chunk* c) {
      c->next_ = head;
      head = c;
      count++;
    }
    Chunk* Pop() {
      Chunk* c = head;
      if (c == nullptr) return nullptr;
      head = c->next_;
      count--;
      return c;
    }
  };

  // Gone with its thread; chunks freed later by the thread's other destructors go to the shared list.
  struct ThreadCache {
    FreeList lists[kClasses];
    bool dead = false;
    ~ThreadCache() {
      Flush();
      dead = true;
    }
    void Flush() {
      for (int i = 0; i < kClasses; i++) Get().TakeBack(i, lists[i], lists[i].count);
    }
  };

  // Never destroyed: chunks may be freed after main.
  static ChunkPool& Get() {
    static ChunkPool& pool = *new ChunkPool;
    return pool;
  }
  static ThreadCache& Local() {
    // Not used across anything that could park, so a fiber that moves to another thread never holds a stale one.
    thread_local ThreadCache cache;
    return cache;
  }

  Chunk* New(int size_class) {
    ThreadCache& cache = Local();
    FreeList& list = cache.lists[size_class];
    if (list.head == nullptr && !cache.dead) Refill(size_class, list);
    Chunk* c = list.Pop();
    if (c == nullptr) return Allocate(size_class);
    c->refs_.store(1, std::memory_order_relaxed);
    c->used_.store(0, std::memory_order_relaxed);
    return c;
  }

  void Free(Chunk* c) {
    int size_class = c->class_;
    ThreadCache& cache = Local();
    FreeList& list = cache.lists[size_class];
    list.Push(c);
    if (cache.dead) {
      TakeBack(size_class, list, list.count);
    } else if (list.count >= kPerThread[size_class]) {
      TakeBack(size_class, list, kPerThread[size_class] / 2);
    }
  }

  void Trim() {
    Local().Flush();
    FreeList gone[kClasses];
    {
      sync::MutexLock lock(mu_);
      for (int i = 0; i < kClasses; i++) std::swap(gone[i], shared_[i]);
    }
    for (FreeList& list : gone) {
      while (Chunk* c = list.Pop()) Release(c);
    }
  }

  uint64_t CachedBytes() {
    sync::MutexLock lock(mu_);
    uint64_t n = 0;
    for (int i = 0; i < kClasses; i++) n += uint64_t{shared_[i].count} * (kCapacity[i] + Chunk::kHeaderSize);
    return n;
  }

 private:
  ChunkPool() : mu_(sync::Rank::kNetPool) {}

  void Refill(int size_class, FreeList& list) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    for (uint32_t i = 0; i < kPerThread[size_class] / 2; i++) {
      Chunk* c = shared_[size_class].Pop();
      if (c == nullptr) return;
      list.Push(c);
    }
  }

  void TakeBack(int size_class, FreeList& list, uint32_t count) EXCLUDES(mu_) {
    FreeList surplus;
    {
      sync::MutexLock lock(mu_);
      for (; count > 0; count--) {
        Chunk* c = list.Pop();
        if (shared_[size_class].count < kShared[size_class]) {
          shared_[size_class].Push(c);
        } else {
          surplus.Push(c);
        }
      }
    }
    while (Chunk* c = surplus.Pop()) Release(c);
  }

  static Chunk* Allocate(int size_class) {
    size_t bytes = Chunk::kHeaderSize + kCapacity[size_class];
    allocated_bytes.fetch_add(bytes, std::memory_order_relaxed);
    // SAFETY: aligned to a cache line and large enough for the header and the capacity that it states.
    return new (::operator new(bytes, std::align_val_t{64}))
        Chunk(kCapacity[size_class], static_cast<uint8_t>(size_class));
  }

  static void Release(Chunk* c) {
    allocated_bytes.fetch_sub(Chunk::kHeaderSize + c->capacity_, std::memory_order_relaxed);
    c->~Chunk();
    ::operator delete(c, std::align_val_t{64});
  }

  sync::Mutex mu_;
  FreeList shared_[kClasses] GUARDED_BY(mu_);
};

static_assert(sizeof(Chunk) <= Chunk::kHeaderSize);

Chunk* Chunk::New(size_t size) {
  CHECK(size <= kLarge, "a chunk is too small for this");
  return ChunkPool::Get().New(size <= kSmall ? 0 : size <= kMedium ? 1 : 2);
}

void Chunk::Free(Chunk* chunk) { ChunkPool::Get().Free(chunk); }

ChunkPoolStats GetChunkPoolStats() {
  return {.allocated_bytes = allocated_bytes.load(std::memory_order_relaxed),
          .cached_bytes = ChunkPool::Get().CachedBytes()};
}

void TrimChunkPool() { ChunkPool::Get().Trim(); }

}  // namespace redoubt::netstack
