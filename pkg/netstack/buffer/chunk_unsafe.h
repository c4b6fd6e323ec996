// The memory packets are made of: counted chunks of three sizes from a pool with a bounded cache.
#ifndef REDOUBT_PKG_NETSTACK_BUFFER_CHUNK_UNSAFE_H_
#define REDOUBT_PKG_NETSTACK_BUFFER_CHUNK_UNSAFE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace redoubt::netstack {

// Bytes that views of several Buffers may share. The header stands in front of the bytes in the same allocation.
// Bytes within a view are constant while more than one reference exists; bytes past `used` belong to nobody until
// Claim gives them to one.
class Chunk final {
 public:
  // Capacities in bytes: headers and small writes; one frame of an Ethernet; one super-segment.
  static constexpr uint32_t kSmall = 448;
  static constexpr uint32_t kMedium = 1984;
  static constexpr uint32_t kLarge = 64 * 1024;

  // A chunk of the smallest capacity that holds `size` bytes, at most kLarge are asked for; one reference, the
  // caller's. Its bytes are not initialized.
  static Chunk* New(size_t size);

  uint32_t capacity() const { return capacity_; }
  // SAFETY: New allocates capacity() bytes behind the header.
  std::byte* data() { return reinterpret_cast<std::byte*>(this) + kHeaderSize; }
  // The chunk whose data() is `data`.
  static Chunk* Of(void* data) { return reinterpret_cast<Chunk*>(static_cast<std::byte*>(data) - kHeaderSize); }

  void IncRef() { refs_.fetch_add(1, std::memory_order_relaxed); }
  void DecRef() {
    // The only owner need not pay for an atomic operation: nobody is left who could take a reference.
    if (refs_.load(std::memory_order_acquire) == 1 || refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) Free(this);
  }
  bool IsShared() const { return refs_.load(std::memory_order_acquire) != 1; }

  // Takes `size` bytes at `offset`, the end of a view of the caller's, for the caller alone. False if there is no
  // room or they may be somebody else's.
  bool Claim(uint32_t offset, uint32_t size) {
    if (size > capacity_ - offset) return false;
    if (!IsShared()) {
      used_.store(offset + size, std::memory_order_relaxed);
      return true;
    }
    uint32_t expected = offset;
    return used_.compare_exchange_strong(expected, offset + size, std::memory_order_acq_rel);
  }

  static constexpr size_t kHeaderSize = 64;  // a cache line, so that the bytes are aligned for copying

 private:
  friend class ChunkPool;

  Chunk(uint32_t capacity, uint8_t size_class) : capacity_(capacity), class_(size_class) {}
  static void Free(Chunk* chunk);

  std::atomic<int32_t> refs_{1};
  std::atomic<uint32_t> used_{0};
  const uint32_t capacity_;
  const uint8_t class_;
  Chunk* next_ = nullptr;  // in a free list
};

// What the pool holds, for tests and statistics.
struct ChunkPoolStats {
  uint64_t allocated_bytes = 0;  // asked of the allocator and not given back, in use or cached
  uint64_t cached_bytes = 0;     // of those, in the free lists that all threads share
};
ChunkPoolStats GetChunkPoolStats();
// Gives the shared free lists' and this thread's memory back, for an embedder that goes idle.
void TrimChunkPool();

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_BUFFER_CHUNK_UNSAFE_H_
