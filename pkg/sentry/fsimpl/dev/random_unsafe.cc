#include "pkg/sentry/fsimpl/dev/random_unsafe.h"

#include <sys/random.h>

#include <cerrno>

#include "pkg/log/log.h"

namespace redoubt::dev {

void FillRandom(std::span<std::byte> out) {
  while (!out.empty()) {
    ssize_t n = ::getrandom(out.data(), out.size(), 0);
    CHECK(n > 0 || errno == EINTR, "the host's getrandom failed");
    if (n > 0) out = out.subspan(static_cast<size_t>(n));
  }
}

}  // namespace redoubt::dev
