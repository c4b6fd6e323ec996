#include "pkg/sentry/usermem/usermem.h"

#include <algorithm>
#include <cstring>

namespace redoubt {

Result<> MemoryIo::CopyOutAll(Addr addr, std::span<const std::byte> src) {
  if (TRY(CopyOut(addr, src)) != src.size()) return Err(EFAULT);
  return {};
}

Result<> MemoryIo::CopyInAll(Addr addr, std::span<std::byte> dst) {
  if (TRY(CopyIn(addr, dst)) != dst.size()) return Err(EFAULT);
  return {};
}

Result<std::string> MemoryIo::CopyInString(Addr addr, size_t max_length) {
  std::string result;
  // Never across a page border at once: the next page may be missing and not needed.
  std::byte chunk[256];
  while (result.size() < max_length) {
    uint64_t to_page_end = kPageSize - (addr & kPageMask);
    size_t want = std::min({sizeof(chunk), static_cast<size_t>(to_page_end), max_length - result.size()});
    size_t got = TRY(CopyIn(addr, std::span(chunk, want)));
    const char* text = reinterpret_cast<const char*>(chunk);
    size_t length = strnlen(text, got);
    result.append(text, length);
    if (length < got) return result;
    if (got < want) return Err(EFAULT);
    if (__builtin_add_overflow(addr, got, &addr)) return Err(EFAULT);
  }
  return Err(ENAMETOOLONG);
}

Result<size_t> BufferIo::CopyOut(Addr addr, std::span<const std::byte> src) {
  if (src.empty()) return 0;
  if (addr >= buffer_.size()) return Err(EFAULT);
  size_t n = std::min<size_t>(src.size(), buffer_.size() - addr);
  std::memcpy(buffer_.data() + addr, src.data(), n);
  return n;
}

Result<size_t> BufferIo::CopyIn(Addr addr, std::span<std::byte> dst) {
  if (dst.empty()) return 0;
  if (addr >= buffer_.size()) return Err(EFAULT);
  size_t n = std::min<size_t>(dst.size(), buffer_.size() - addr);
  std::memcpy(dst.data(), buffer_.data() + addr, n);
  return n;
}

Result<size_t> BufferIo::ZeroOut(Addr addr, uint64_t length) {
  if (length == 0) return 0;
  if (addr >= buffer_.size()) return Err(EFAULT);
  size_t n = std::min<size_t>(length, buffer_.size() - addr);
  std::memset(buffer_.data() + addr, 0, n);
  return n;
}

// A futex word in a Sentry buffer has no meaning.
Result<uint32_t> BufferIo::LoadU32(Addr) { return Err(EFAULT); }
Result<uint32_t> BufferIo::SwapU32(Addr, uint32_t) { return Err(EFAULT); }
Result<uint32_t> BufferIo::CompareAndSwapU32(Addr, uint32_t, uint32_t) { return Err(EFAULT); }

uint64_t IoSequence::remaining() const {
  uint64_t n = 0;
  for (size_t i = first_; i < ranges_.size(); i++) n += ranges_[i].length();
  return n;
}

template <typename F>
Result<size_t> IoSequence::Each(uint64_t limit, F&& move) {
  size_t done = 0;
  while (done < limit && first_ < ranges_.size()) {
    AddrRange& r = ranges_[first_];
    if (r.empty()) {
      first_++;
      continue;
    }
    uint64_t want = std::min<uint64_t>(limit - done, r.length());
    Result<size_t> got = move(r.start, want, done);
    if (!got) {
      if (done > 0) return done;
      return got;
    }
    r.start += *got;
    done += *got;
    if (*got < want) break;
  }
  return done;
}

Result<size_t> IoSequence::CopyOut(std::span<const std::byte> src) {
  return Each(src.size(), [&](Addr addr, uint64_t n, size_t done) { return io_->CopyOut(addr, src.subspan(done, n)); });
}

Result<size_t> IoSequence::CopyIn(std::span<std::byte> dst) {
  return Each(dst.size(), [&](Addr addr, uint64_t n, size_t done) { return io_->CopyIn(addr, dst.subspan(done, n)); });
}

Result<size_t> IoSequence::ZeroOut(uint64_t length) {
  return Each(length, [&](Addr addr, uint64_t n, size_t) { return io_->ZeroOut(addr, n); });
}

void IoSequence::DropFirst(uint64_t length) {
  while (length > 0 && first_ < ranges_.size()) {
    AddrRange& r = ranges_[first_];
    uint64_t n = std::min(length, r.length());
    r.start += n;
    length -= n;
    if (r.empty()) first_++;
  }
}

void IoSequence::TakeFirst(uint64_t length) {
  for (size_t i = first_; i < ranges_.size(); i++) {
    uint64_t n = std::min(length, ranges_[i].length());
    ranges_[i].end = ranges_[i].start + n;
    length -= n;
  }
}

IoSequence IoSequence::First(uint64_t length) const {
  IoSequence s = *this;
  s.TakeFirst(length);
  return s;
}

}  // namespace redoubt
