// Packet data: a short list of views into counted chunks, which headers are put in front of and which is cut, joined
// and shared without copying. The counterpart of Linux's sk_buff data and fragments.
#ifndef REDOUBT_PKG_NETSTACK_BUFFER_BUFFER_H_
#define REDOUBT_PKG_NETSTACK_BUFFER_BUFFER_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include "pkg/errors/errors.h"
#include "pkg/netstack/buffer/chunk_unsafe.h"

namespace redoubt::netstack {

// A sequence of bytes. A value that moves cheaply and is copied only by Clone. Not thread-safe; chunks that several
// Buffers share are. Up to kInlineViews views lie in the Buffer itself, more in a chunk of the pool, so that neither
// allocates on the steady path. It also serves as a queue: Append at the end and TrimFront are amortized O(1) per view.
// No view is empty.
class Buffer final {
 public:
  static constexpr uint32_t kInlineViews = 4;
  // Bytes that PullUp, Prepend and MakeWritable can make contiguous.
  static constexpr size_t kMaxContiguous = Chunk::kLarge;

  Buffer() = default;
  Buffer(Buffer&& o) noexcept { Take(o); }
  Buffer& operator=(Buffer&& o) noexcept {
    if (this != &o) {
      Reset();
      Take(o);
    }
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { Reset(); }

  // `size` bytes to be filled through MutableView, `headroom` bytes free before them. Contiguous if headroom + size
  // <= kMaxContiguous.
  static Buffer Allocate(size_t size, size_t headroom = 0);
  static Buffer CopyOf(std::span<const std::byte> bytes, size_t headroom = 0);

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Bytes of the chunks held, shared ones in full: what a queue's bound should count.
  size_t memory() const;

  size_t view_count() const { return count_; }
  std::span<const std::byte> view(size_t i) const {
    const View& v = views_[first_ + i];
    return {v.chunk->data() + v.offset, v.length};
  }
  // To fill what was just allocated: the chunk must not be shared.
  std::span<std::byte> MutableView(size_t i) {
    const View& v = views_[first_ + i];
    return {v.chunk->data() + v.offset, v.length};
  }
  // Fills at most iov.size() entries with bytes from `offset` on. Returns how many entries.
  size_t ToIovec(size_t offset, std::span<iovec> iov) const;

  // Bytes that can be prepended in place.
  size_t headroom() const { return count_ == 0 || views_[first_].chunk->IsShared() ? 0 : views_[first_].offset; }
  // Makes `n` bytes of room in front and returns them, to be filled; n <= kMaxContiguous. A new chunk, with room for
  // some more headers, is taken if there is no headroom.
  std::byte* Prepend(size_t n);
  void Prepend(Buffer front);
  // Moves the bytes of `o` to the end.
  void Append(Buffer&& o);
  // As Append, but copies bytes that would hold on to more than twice their memory into the last chunk instead, unless
  // they continue it: what a queue of small packets should use.
  void AppendCompact(Buffer&& o);
  // Copies the bytes into smaller chunks if they hold on to more than twice their memory.
  void Compact();
  // Copies to the end, into the last chunk's free bytes first.
  void Append(std::span<const std::byte> bytes) {
    (void)AppendFrom(bytes.size(), [&bytes](std::span<std::byte> to) -> Result<size_t> {
      std::memcpy(to.data(), bytes.data(), to.size());
      bytes = bytes.subspan(to.size());
      return to.size();
    });
  }
  // Appends up to `n` bytes that `copy(std::span<std::byte>) -> Result<size_t>` writes, in as many calls as there are
  // pieces, until one copies less than asked or fails. Returns the bytes appended; the error only if there are none.
  template <typename Copy>
  Result<size_t> AppendFrom(size_t n, Copy&& copy) {
    size_t done = 0;
    while (done < n) {
      std::span<std::byte> to = Extend(n - done);
      Result<size_t> r = copy(to);
      size_t copied = r ? *r : 0;
      if (copied < to.size()) CapLength(size_ - (to.size() - copied));
      done += copied;
      if (!r && done == 0) return r;
      if (copied < to.size()) break;
    }
    return done;
  }

  // Drops the first `n` bytes, at most all.
  void TrimFront(size_t n);
  // Drops what is past the first `n` bytes.
  void CapLength(size_t n);
  // The same bytes, shared.
  Buffer Clone() const { return Slice(0, size_); }
  // Bytes [offset, offset + length), shared; cut at the end.
  Buffer Slice(size_t offset, size_t length) const;
  // Takes the first `n` bytes, at most all, off.
  Buffer SplitFront(size_t n);

  // Copies at most out.size() bytes from `offset` on. Returns how many.
  size_t CopyOut(size_t offset, std::span<std::byte> out) const;
  // The first `n` bytes, made contiguous: empty if there are not as many. n <= kMaxContiguous. Copies only if they
  // lie in several views.
  std::span<const std::byte> PullUp(size_t n);
  // As PullUp, to be written: copies if others share them.
  std::span<std::byte> MakeWritable(size_t n);

 private:
  struct View {
    Chunk* chunk;  // a reference of ours
    uint32_t offset;
    uint32_t length;
  };
  static constexpr uint32_t kPooledViews = Chunk::kLarge / sizeof(View);  // of the largest array in a chunk

  // An array of `capacity` views, which is raised to what there is room for.
  static View* NewViews(uint32_t& capacity);
  static void FreeViews(View* views, uint32_t capacity);

  void Take(Buffer& o) noexcept;
  void Reset();
  void PushBack(Chunk* chunk, uint32_t offset, uint32_t length);
  void PushFront(Chunk* chunk, uint32_t offset, uint32_t length);
  void Reserve(uint32_t more);
  // Up to `n` more bytes at the end, one piece.
  std::span<std::byte> Extend(size_t n);
  void ReplaceFront(size_t n);

  View* views_ = inline_;
  uint32_t first_ = 0;
  uint32_t count_ = 0;
  uint32_t capacity_ = kInlineViews;
  size_t size_ = 0;
  View inline_[kInlineViews];
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_BUFFER_BUFFER_H_
