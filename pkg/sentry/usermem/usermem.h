// The only way the Sentry reads and writes guest memory. A MemoryIo is an address space (mm::MemoryManager) or a buffer
// of the Sentry's own (BufferIo); an IoSequence is the iovec of one read or write.
#ifndef REDOUBT_PKG_SENTRY_USERMEM_USERMEM_H_
#define REDOUBT_PKG_SENTRY_USERMEM_USERMEM_H_

#include <boost/container/small_vector.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"

namespace redoubt {

// Bytes addressed by guest virtual address. All calls copy as much as they can: they return the number of bytes moved
// before the first bad address, or EFAULT if that is none of a nonzero request. May block the fiber (a page may come
// from the gofer), so no sync::Mutex ranked at or above kMappings may be held.
class MemoryIo {
 public:
  static constexpr size_t kMaxVector = size_t{64} << 20;
  virtual ~MemoryIo() = default;
  virtual Result<size_t> CopyOut(Addr addr, std::span<const std::byte> src) = 0;
  virtual Result<size_t> CopyIn(Addr addr, std::span<std::byte> dst) = 0;
  virtual Result<size_t> ZeroOut(Addr addr, uint64_t length) = 0;
  // Atomic on an aligned 32-bit word; EINVAL if unaligned, EFAULT if not writable (for Load: readable).
  virtual Result<uint32_t> LoadU32(Addr addr) = 0;
  virtual Result<uint32_t> SwapU32(Addr addr, uint32_t value) = 0;
  // Returns the value found; the store happened if that equals `expected`.
  virtual Result<uint32_t> CompareAndSwapU32(Addr addr, uint32_t expected, uint32_t value) = 0;

  // All or EFAULT.
  Result<> CopyOutAll(Addr addr, std::span<const std::byte> src);
  Result<> CopyInAll(Addr addr, std::span<std::byte> dst);

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  Result<> CopyOutObject(Addr addr, const T& object) {
    return CopyOutAll(addr, std::as_bytes(std::span<const T, 1>(&object, 1)));
  }
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  Result<T> CopyInObject(Addr addr) {
    T object;
    TRY(CopyInAll(addr, std::as_writable_bytes(std::span<T, 1>(&object, 1))));
    return object;
  }
  // ENOMEM for more than kMaxVector bytes, whatever the caller's own limit is: the Sentry would have to hold them.
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  Result<std::vector<T>> CopyInVector(Addr addr, size_t count) {
    if (count > kMaxVector / sizeof(T)) return Err(ENOMEM);
    std::vector<T> v(count);
    TRY(CopyInAll(addr, std::as_writable_bytes(std::span<T>(v))));
    return v;
  }
  // A NUL-terminated string without its NUL; ENAMETOOLONG if there is none within max_length bytes (NUL included).
  Result<std::string> CopyInString(Addr addr, size_t max_length);
};

// A buffer of the Sentry's own, at address 0. The buffer is borrowed.
class BufferIo final : public MemoryIo {
 public:
  explicit BufferIo(std::span<std::byte> buffer) : buffer_(buffer) {}
  Result<size_t> CopyOut(Addr addr, std::span<const std::byte> src) override;
  Result<size_t> CopyIn(Addr addr, std::span<std::byte> dst) override;
  Result<size_t> ZeroOut(Addr addr, uint64_t length) override;
  Result<uint32_t> LoadU32(Addr addr) override;
  Result<uint32_t> SwapU32(Addr addr, uint32_t value) override;
  Result<uint32_t> CompareAndSwapU32(Addr addr, uint32_t expected, uint32_t value) override;

 private:
  std::span<std::byte> buffer_;
};

// Where one read puts its bytes, or one write takes them: ranges of a MemoryIo, consumed from the front. Movable, cheap
// to copy for a single range. The MemoryIo is borrowed.
class IoSequence final {
 public:
  IoSequence() = default;
  IoSequence(MemoryIo& io, Addr addr, uint64_t length) : io_(&io) {
    if (length > 0) ranges_.push_back({addr, addr + length});
  }
  IoSequence(MemoryIo& io, const std::vector<AddrRange>& ranges) : io_(&io), ranges_(ranges.begin(), ranges.end()) {}

  uint64_t remaining() const;
  bool empty() const { return remaining() == 0; }
  // Moves min(src.size(), remaining()) bytes and consumes them. A fault after some bytes returns those; EFAULT if none.
  Result<size_t> CopyOut(std::span<const std::byte> src);
  Result<size_t> CopyIn(std::span<std::byte> dst);
  Result<size_t> ZeroOut(uint64_t length);
  // Drops bytes from the front / leaves only the first `length`.
  void DropFirst(uint64_t length);
  void TakeFirst(uint64_t length);
  // The first `length` bytes as a sequence of their own.
  IoSequence First(uint64_t length) const;

 private:
  template <typename F>
  Result<size_t> Each(uint64_t limit, F&& move);

  MemoryIo* io_ = nullptr;
  boost::container::small_vector<AddrRange, 1> ranges_;  // nearly always one
  size_t first_ = 0;                                     // index of the first range not wholly consumed
};

}  // namespace redoubt

#endif  // REDOUBT_PKG_SENTRY_USERMEM_USERMEM_H_
