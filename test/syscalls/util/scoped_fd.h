// A descriptor that is closed with its scope.
#ifndef REDOUBT_TEST_SYSCALLS_UTIL_SCOPED_FD_H_
#define REDOUBT_TEST_SYSCALLS_UTIL_SCOPED_FD_H_

#include <unistd.h>

#include <utility>

namespace redoubt::testing {

class ScopedFd final {
 public:
  ScopedFd() = default;
  explicit ScopedFd(int fd) : fd_(fd) {}
  ScopedFd(ScopedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ScopedFd& operator=(ScopedFd&& other) noexcept {
    reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~ScopedFd() { reset(); }

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace redoubt::testing

#endif  // REDOUBT_TEST_SYSCALLS_UTIL_SCOPED_FD_H_
