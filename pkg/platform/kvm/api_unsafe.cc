#include "pkg/platform/kvm/api_unsafe.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "pkg/log/log.h"

namespace redoubt::platform::kvm {

Fd::~Fd() {
  if (fd_ >= 0) close(fd_);
}

namespace {
int g_device = kNoHostDevice;
}  // namespace

void SetHostDevice(int device) { g_device = device; }
int HostDevice() { return g_device; }

Result<Fd> Api::Open() {
  if (g_device >= 0) return Fd(std::exchange(g_device, -EBUSY));
  if (g_device != kNoHostDevice) return Err(-g_device);
  int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (fd < 0) return ErrFromHost();
  return Fd(fd);
}

// SAFETY: callers pass what the request's entry in the kernel's documentation asks for.
Result<int> Api::Ioctl(int fd, unsigned long request, uintptr_t argument) {
  int r = ioctl(fd, request, argument);
  if (r < 0) return ErrFromHost();
  return r;
}

Api& HostApi() {
  static Api api;
  return api;
}

Result<Mapping> Mapping::Create(size_t size, int fd, uint64_t offset) {
  int flags = MAP_NORESERVE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, static_cast<off_t>(offset));
  if (p == MAP_FAILED) return ErrFromHost();
  return Mapping(static_cast<std::byte*>(p), size);
}

Mapping::~Mapping() {
  if (start_ != nullptr) munmap(start_, size_);
}

// SAFETY: the range is the mapping's own; a file's data is not in the page-table entries.
void Mapping::Forget(uint64_t offset, uint64_t length) const {
  CHECK(offset <= size_ && length <= size_ - offset, "outside the mapping");
  CHECK(madvise(start_ + offset, length, MADV_DONTNEED) == 0, "the host kept page-table entries");
}

}  // namespace redoubt::platform::kvm
