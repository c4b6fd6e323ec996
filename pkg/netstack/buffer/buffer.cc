#include "pkg/netstack/buffer/buffer.h"

#include <algorithm>
#include <new>

#include "pkg/log/log.h"

namespace redoubt::netstack {

namespace {
// Room for the headers below TCP's and UDP's: Ethernet 14, IPv6 40 and an extension header.
constexpr size_t kSpareHeadroom = 128;
}  // namespace

Buffer Buffer::Allocate(size_t size, size_t headroom) {
  Buffer b;
  CHECK(headroom < kMaxContiguous, "no chunk has as much headroom");
  while (size > 0) {
    size_t n = std::min(size, Chunk::kLarge - headroom);
    Chunk* chunk = Chunk::New(headroom + n);
    CHECK(chunk->Claim(0, static_cast<uint32_t>(headroom + n)), "a new chunk is taken");
    b.PushBack(chunk, static_cast<uint32_t>(headroom), static_cast<uint32_t>(n));
    size -= n;
    headroom = 0;
  }
  return b;
}

Buffer Buffer::CopyOf(std::span<const std::byte> bytes, size_t headroom) {
  Buffer b = Allocate(bytes.size(), headroom);
  for (size_t i = 0; i < b.view_count(); i++) {
    std::span<std::byte> to = b.MutableView(i);
    std::memcpy(to.data(), bytes.data(), to.size());
    bytes = bytes.subspan(to.size());
  }
  return b;
}

size_t Buffer::memory() const {
  size_t n = 0;
  for (uint32_t i = 0; i < count_; i++) {
    if (i > 0 && views_[first_ + i].chunk == views_[first_ + i - 1].chunk) continue;
    n += views_[first_ + i].chunk->capacity() + Chunk::kHeaderSize;
  }
  return n;
}

size_t Buffer::ToIovec(size_t offset, std::span<iovec> iov) const {
  size_t used = 0;
  for (uint32_t i = 0; i < count_ && used < iov.size(); i++) {
    const View& v = views_[first_ + i];
    if (offset >= v.length) {
      offset -= v.length;
      continue;
    }
    iov[used++] = {v.chunk->data() + v.offset + offset, v.length - offset};
    offset = 0;
  }
  return used;
}

std::byte* Buffer::Prepend(size_t n) {
  if (n <= headroom() && n > 0) {
    View& v = views_[first_];
    v.offset -= static_cast<uint32_t>(n);
    v.length += static_cast<uint32_t>(n);
    size_ += n;
    return v.chunk->data() + v.offset;
  }
  if (n == 0) return nullptr;
  CHECK(n <= kMaxContiguous, "more than fits into one chunk is prepended");
  Chunk* chunk = Chunk::New(std::min(n + kSpareHeadroom, kMaxContiguous));
  // At the end of the spare room, but not at the chunk's end: what follows a lone header may be appended to it.
  size_t offset = std::min(kSpareHeadroom, chunk->capacity() - n);
  CHECK(chunk->Claim(0, static_cast<uint32_t>(offset + n)), "a new chunk is taken");
  PushFront(chunk, static_cast<uint32_t>(offset), static_cast<uint32_t>(n));
  return chunk->data() + offset;
}

void Buffer::Prepend(Buffer front) {
  front.Append(std::move(*this));
  *this = std::move(front);
}

void Buffer::Append(Buffer&& o) {
  if (count_ == 0) {
    *this = std::move(o);
    return;
  }
  Reserve(o.count_);
  for (uint32_t i = 0; i < o.count_; i++) {
    const View& v = o.views_[o.first_ + i];
    View& last = views_[first_ + count_ - 1];
    // Pieces of one stream that met again: on a loopback this keeps a queue at one view per chunk.
    if (v.chunk == last.chunk && v.offset == last.offset + last.length) {
      last.length += v.length;
      v.chunk->DecRef();
    } else {
      views_[first_ + count_++] = v;
    }
  }
  size_ += o.size_;
  o.count_ = 0;
  o.Reset();
}

void Buffer::AppendCompact(Buffer&& o) {
  if (count_ == 0 || o.count_ == 0 || o.memory() <= 2 * o.size_ + Chunk::kSmall) {
    Append(std::move(o));
    return;
  }
  const View& last = views_[first_ + count_ - 1];
  const View& next = o.views_[o.first_];
  if (o.count_ == 1 && next.chunk == last.chunk && next.offset == last.offset + last.length) {
    Append(std::move(o));
    return;
  }
  for (uint32_t i = 0; i < o.count_; i++) Append(o.view(i));
  o.Reset();
}

void Buffer::Compact() {
  if (memory() <= 2 * size_ + Chunk::kSmall + Chunk::kHeaderSize) return;
  Buffer small;
  for (uint32_t i = 0; i < count_; i++) small.Append(view(i));
  *this = std::move(small);
}

std::span<std::byte> Buffer::Extend(size_t n) {
  if (count_ > 0) {
    View& last = views_[first_ + count_ - 1];
    uint32_t end = last.offset + last.length;
    uint32_t room = last.chunk->capacity() - end;
    uint32_t take = static_cast<uint32_t>(std::min<size_t>(n, room));
    if (take > 0 && last.chunk->Claim(end, take)) {
      last.length += take;
      size_ += take;
      return {last.chunk->data() + end, take};
    }
  }
  Chunk* chunk = Chunk::New(std::min<size_t>(n, Chunk::kLarge));
  uint32_t take = static_cast<uint32_t>(std::min<size_t>(n, chunk->capacity()));
  CHECK(chunk->Claim(0, take), "a new chunk is taken");
  PushBack(chunk, 0, take);
  return {chunk->data(), take};
}

void Buffer::TrimFront(size_t n) {
  n = std::min(n, size_);
  size_ -= n;
  while (n > 0) {
    View& v = views_[first_];
    if (n < v.length) {
      v.offset += static_cast<uint32_t>(n);
      v.length -= static_cast<uint32_t>(n);
      return;
    }
    n -= v.length;
    v.chunk->DecRef();
    first_++;
    count_--;
  }
  if (count_ == 0) first_ = 0;
}

void Buffer::CapLength(size_t n) {
  while (size_ > n) {
    View& v = views_[first_ + count_ - 1];
    size_t surplus = size_ - n;
    if (surplus < v.length) {
      v.length -= static_cast<uint32_t>(surplus);
      size_ = n;
      return;
    }
    size_ -= v.length;
    v.chunk->DecRef();
    count_--;
  }
}

Buffer Buffer::Slice(size_t offset, size_t length) const {
  Buffer b;
  if (offset >= size_) return b;
  length = std::min(length, size_ - offset);
  for (uint32_t i = 0; length > 0; i++) {
    const View& v = views_[first_ + i];
    if (offset >= v.length) {
      offset -= v.length;
      continue;
    }
    size_t n = std::min<size_t>(length, v.length - offset);
    v.chunk->IncRef();
    b.PushBack(v.chunk, static_cast<uint32_t>(v.offset + offset), static_cast<uint32_t>(n));
    offset = 0;
    length -= n;
  }
  return b;
}

Buffer Buffer::SplitFront(size_t n) {
  if (n >= size_) return std::move(*this);
  Buffer b = Slice(0, n);
  TrimFront(n);
  return b;
}

size_t Buffer::CopyOut(size_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  for (uint32_t i = 0; i < count_ && done < out.size(); i++) {
    const View& v = views_[first_ + i];
    if (offset >= v.length) {
      offset -= v.length;
      continue;
    }
    size_t n = std::min<size_t>(out.size() - done, v.length - offset);
    std::memcpy(out.data() + done, v.chunk->data() + v.offset + offset, n);
    done += n;
    offset = 0;
  }
  return done;
}

std::span<const std::byte> Buffer::PullUp(size_t n) {
  if (n > size_ || n == 0) return {};
  if (views_[first_].length < n) ReplaceFront(n);
  return view(0).first(n);
}

std::span<std::byte> Buffer::MakeWritable(size_t n) {
  if (n > size_ || n == 0) return {};
  if (views_[first_].length < n || views_[first_].chunk->IsShared()) ReplaceFront(n);
  return MutableView(0).first(n);
}

// The first `n` bytes copied into a chunk of their own.
void Buffer::ReplaceFront(size_t n) {
  CHECK(n <= kMaxContiguous, "more than fits into one chunk is made contiguous");
  Chunk* chunk = Chunk::New(std::min(n + kSpareHeadroom, kMaxContiguous));
  size_t offset = std::min(kSpareHeadroom, chunk->capacity() - n);
  CHECK(chunk->Claim(0, static_cast<uint32_t>(offset + n)), "a new chunk is taken");
  CopyOut(0, {chunk->data() + offset, n});
  TrimFront(n);
  PushFront(chunk, static_cast<uint32_t>(offset), static_cast<uint32_t>(n));
}

void Buffer::Take(Buffer& o) noexcept {
  if (o.views_ == o.inline_) {
    views_ = inline_;
    std::copy_n(o.views_ + o.first_, o.count_, inline_);
    first_ = 0;
    capacity_ = kInlineViews;
  } else {
    views_ = o.views_;
    first_ = o.first_;
    capacity_ = o.capacity_;
  }
  count_ = o.count_;
  size_ = o.size_;
  o.views_ = o.inline_;
  o.first_ = o.count_ = 0;
  o.capacity_ = kInlineViews;
  o.size_ = 0;
}

void Buffer::Reset() {
  for (uint32_t i = 0; i < count_; i++) views_[first_ + i].chunk->DecRef();
  if (views_ != inline_) FreeViews(views_, capacity_);
  views_ = inline_;
  first_ = count_ = 0;
  capacity_ = kInlineViews;
  size_ = 0;
}

Buffer::View* Buffer::NewViews(uint32_t& capacity) {
  if (capacity > kPooledViews) return new View[capacity];
  Chunk* chunk = Chunk::New(capacity * sizeof(View));
  capacity = static_cast<uint32_t>(chunk->capacity() / sizeof(View));
  return new (chunk->data()) View[capacity];
}

void Buffer::FreeViews(View* views, uint32_t capacity) {
  if (capacity > kPooledViews) {
    delete[] views;
  } else {
    Chunk::Of(views)->DecRef();
  }
}

void Buffer::PushBack(Chunk* chunk, uint32_t offset, uint32_t length) {
  Reserve(1);
  views_[first_ + count_++] = {chunk, offset, length};
  size_ += length;
}

void Buffer::PushFront(Chunk* chunk, uint32_t offset, uint32_t length) {
  if (first_ == 0) {
    Reserve(1);
    std::copy_backward(views_ + first_, views_ + first_ + count_, views_ + first_ + count_ + 1);
  } else {
    first_--;
  }
  views_[first_] = {chunk, offset, length};
  count_++;
  size_ += length;
}

// Room for `more` views behind the last.
void Buffer::Reserve(uint32_t more) {
  if (first_ + count_ + more <= capacity_) return;
  // Moving down costs count_, and is paid for by the first_ views that were dropped.
  if (first_ > 0 && first_ >= count_ && count_ + more <= capacity_) {
    std::copy_n(views_ + first_, count_, views_);
    first_ = 0;
    return;
  }
  uint32_t capacity = std::max(2 * capacity_, count_ + more);
  View* views = NewViews(capacity);
  std::copy_n(views_ + first_, count_, views);
  if (views_ != inline_) FreeViews(views_, capacity_);
  views_ = views;
  first_ = 0;
  capacity_ = capacity;
}

}  // namespace redoubt::netstack
