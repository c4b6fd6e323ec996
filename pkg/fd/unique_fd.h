// An owned host descriptor.
#ifndef REDOUBT_PKG_FD_UNIQUE_FD_H_
#define REDOUBT_PKG_FD_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace redoubt {

// Closes its descriptor when it dies.
class UniqueFd final {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~UniqueFd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  // The caller owns it from now on.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}  // namespace redoubt

#endif  // REDOUBT_PKG_FD_UNIQUE_FD_H_
