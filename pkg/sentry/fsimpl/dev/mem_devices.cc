#include "pkg/sentry/fsimpl/dev/mem_devices.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "pkg/sentry/fsimpl/dev/random_unsafe.h"
#include "pkg/sentry/memmap/mmap_options.h"

namespace redoubt::dev {

namespace {

using vfs::FileDescription;
using vfs::IoFlags;

// Has no offset: seeking succeeds and stays at 0, and all reads and writes are alike wherever they are.
class MemDevice : public FileDescription {
 public:
  using FileDescription::FileDescription;
  Result<size_t> Read(IoSequence& dst, IoFlags flags) override { return PRead(dst, 0, flags); }
  Result<size_t> Write(IoSequence& src, IoFlags flags) override { return PWrite(src, 0, flags); }
  Result<uint64_t> Seek(int64_t offset, int whence) override { return 0; }
};

Result<size_t> Swallow(IoSequence& src) {
  const size_t n = src.remaining();
  src.DropFirst(n);
  return n;
}

class Null final : public MemDevice {
 public:
  using MemDevice::MemDevice;
  Result<size_t> PRead(IoSequence& dst, uint64_t, IoFlags) override { return size_t{0}; }
  Result<size_t> PWrite(IoSequence& src, uint64_t, IoFlags) override { return Swallow(src); }
};

class Zero final : public MemDevice {
 public:
  using MemDevice::MemDevice;
  Result<size_t> PRead(IoSequence& dst, uint64_t, IoFlags) override { return dst.ZeroOut(dst.remaining()); }
  Result<size_t> PWrite(IoSequence& src, uint64_t, IoFlags) override { return Swallow(src); }
  // The same as anonymous memory, shared or private (mem(4)).
  Result<> ConfigureMMap(mm::MMapOptions& options) override {
    options.offset = 0;
    return {};
  }
};

class Full final : public MemDevice {
 public:
  using MemDevice::MemDevice;
  Result<size_t> PRead(IoSequence& dst, uint64_t, IoFlags) override { return dst.ZeroOut(dst.remaining()); }
  Result<size_t> PWrite(IoSequence& src, uint64_t, IoFlags) override { return Err(ENOSPC); }
};

class Random final : public MemDevice {
 public:
  using MemDevice::MemDevice;
  Result<size_t> PRead(IoSequence& dst, uint64_t, IoFlags) override {
    std::array<std::byte, 1024> buffer;
    size_t done = 0;
    while (!dst.empty()) {
      std::span<std::byte> part(buffer.data(), std::min<uint64_t>(buffer.size(), dst.remaining()));
      FillRandom(part);
      Result<size_t> n = dst.CopyOut(part);
      if (!n) {
        if (done > 0) break;
        return n;
      }
      done += *n;
      if (*n < part.size()) break;
    }
    return done;
  }
  // Stirring the pool: bytes are read, so that a bad address is EFAULT, and dropped.
  Result<size_t> PWrite(IoSequence& src, uint64_t, IoFlags) override {
    std::array<std::byte, 1024> buffer;
    size_t done = 0;
    while (!src.empty()) {
      Result<size_t> n = src.CopyIn(std::span(buffer).first(std::min<uint64_t>(buffer.size(), src.remaining())));
      if (!n) {
        if (done > 0) break;
        return n;
      }
      done += *n;
    }
    return done;
  }
  bool SupportsEpoll() const override { return true; }
};

}  // namespace

Result<RefPtr<FileDescription>> OpenMemDevice(const vfs::Path& path, uint32_t minor, int flags) {
  switch (minor) {
    case kNullMinor:
      return RefPtr<FileDescription>(MakeRef<Null>(path, flags));
    case kZeroMinor:
      return RefPtr<FileDescription>(MakeRef<Zero>(path, flags));
    case kFullMinor:
      return RefPtr<FileDescription>(MakeRef<Full>(path, flags));
    case kRandomMinor:
    case kUrandomMinor:
      return RefPtr<FileDescription>(MakeRef<Random>(path, flags));
    default:
      return Err(ENXIO);
  }
}

}  // namespace redoubt::dev
