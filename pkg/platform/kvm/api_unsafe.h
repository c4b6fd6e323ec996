// The host's KVM interface (Documentation/virt/kvm/api.rst), as thin as can be and replaceable, so that tests can make
// any call fail.
#ifndef REDOUBT_PKG_PLATFORM_KVM_API_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_KVM_API_UNSAFE_H_

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "pkg/errors/errors.h"

namespace redoubt::platform::kvm {

// linux/kvm.h ends these structs with a flexible array that takes a byte in C++, which shifts the array and changes the
// requests' numbers; so here they are again, as C has them.
struct CpuidTable {
  static constexpr size_t kMax = 256;
  uint32_t count = 0;
  uint32_t padding = 0;
  kvm_cpuid_entry2 entries[kMax] = {};
};
struct MsrTable {
  static constexpr size_t kMax = 8;
  uint32_t count = 0;
  uint32_t padding = 0;
  kvm_msr_entry entries[kMax] = {};
};
inline constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
inline constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
inline constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);
inline constexpr unsigned long kGetXsave2 = _IOC(_IOC_READ, KVMIO, 0xcf, 4096);
inline constexpr unsigned long kSetXsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, 4096);

// A descriptor that is closed with it.
class Fd final {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Fd& operator=(Fd&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~Fd();
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// Thread-safe. Outlives everything made with it.
class Api {
 public:
  virtual ~Api() = default;
  // /dev/kvm.
  virtual Result<Fd> Open();
  // ioctl(2). `argument` is a number, or the address of what the request reads or writes.
  virtual Result<int> Ioctl(int fd, unsigned long request, uintptr_t argument);
};

// Typed over Ioctl.
template <typename T>
Result<int> Ioctl(Api& api, int fd, unsigned long request, T* argument) {
  return api.Ioctl(fd, request, reinterpret_cast<uintptr_t>(argument));
}

// The real one.
Api& HostApi();
// What its Open gives, instead of opening: a descriptor, which it then owns, or the errno negated. Once, at the start.
void SetHostDevice(int device);
int HostDevice();
inline constexpr int kNoHostDevice = -0x10000;

// A mapping that goes with it.
class Mapping final {
 public:
  Mapping() = default;
  // Readable and writable, no memory reserved. Of a file, shared; anonymous, private and zero, if `fd` is -1. ENOMEM.
  static Result<Mapping> Create(size_t size, int fd, uint64_t offset);
  Mapping(Mapping&& o) noexcept : start_(std::exchange(o.start_, nullptr)), size_(o.size_) {}
  Mapping& operator=(Mapping&& o) noexcept {
    std::swap(start_, o.start_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~Mapping();
  std::byte* start() const { return start_; }
  size_t size() const { return size_; }
  // madvise(2) MADV_DONTNEED: takes the host's page-table entries of a part away. The data of a file stays; anonymous
  // memory is zero afterwards. If the mapping is memory of a virtual machine, KVM gives up all that it and the
  // processors have cached of guest mappings to it, on all vCPUs, before this returns (KVM_CAP_SYNC_MMU).
  void Forget(uint64_t offset, uint64_t length) const;

 private:
  Mapping(std::byte* start, size_t size) : start_(start), size_(size) {}
  std::byte* start_ = nullptr;
  size_t size_ = 0;
};

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_API_UNSAFE_H_
