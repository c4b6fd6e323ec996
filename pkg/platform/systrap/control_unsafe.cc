#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "pkg/log/rate_limit.h"
#include "pkg/platform/systrap/control.h"

namespace redoubt::platform::systrap {
namespace {

uint64_t FileSize(int areas) { return ControlFile::SlotsOffset(areas); }

}  // namespace

Result<std::unique_ptr<ControlFile>> ControlFile::Create() {
  int fd = memfd_create("redoubt-control", MFD_CLOEXEC);
  if (fd < 0) return ErrFromHost();
  uint64_t size = FileSize(kMaxAreas);
  if (ftruncate(fd, static_cast<off_t>(size)) < 0) {
    std::unexpected<Errno> error = ErrFromHost();
    close(fd);
    return error;
  }
  // SAFETY: sparse; pages exist once touched. Stubs map parts of the same file, so every access through this mapping is
  // to memory that may change at any time.
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (base == MAP_FAILED) {
    std::unexpected<Errno> error = ErrFromHost();
    close(fd);
    return error;
  }
  return std::unique_ptr<ControlFile>(new ControlFile(fd, static_cast<std::byte*>(base)));
}

ControlFile::~ControlFile() {
  munmap(base_, FileSize(kMaxAreas));
  close(fd_);
}

Result<int> ControlFile::Allocate() {
  sync::MutexLock lock(mu_);
  if (!free_.empty()) {
    int area = free_.back();
    free_.pop_back();
    return area;
  }
  if (used_ == kMaxAreas) return Err(ENOMEM);
  return used_++;
}

void ControlFile::Free(int area) {
  // What a guest left in its registers is no other guest's to read.
  if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(SlotsOffset(area)),
                static_cast<off_t>(kAreaSize)) < 0) {
    LOG_WARNING_LIMITED("cannot clear the pages of a stub, which are lost: {}", Errno(errno).name());
    return;
  }
  sync::MutexLock lock(mu_);
  free_.push_back(area);
}

}  // namespace redoubt::platform::systrap
