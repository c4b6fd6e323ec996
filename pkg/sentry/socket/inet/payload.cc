#include "pkg/sentry/socket/inet/payload.h"

#include <algorithm>
#include <span>

namespace redoubt::inetsock {

Result<netstack::Buffer> CopyInPayload(IoSequence& data, size_t n, size_t headroom) {
  netstack::Buffer payload;
  if (n > 0) payload = netstack::Buffer::Allocate(n, headroom);
  for (size_t i = 0; i < payload.view_count(); ++i) {
    const std::span<std::byte> view = payload.MutableView(i);
    if (TRY(data.CopyIn(view)) < view.size()) return Err(EFAULT);
  }
  return payload;
}

Result<> CopyOutPayload(const netstack::Buffer& payload, size_t n, IoSequence& data) {
  size_t done = 0;
  for (size_t i = 0; done < n; ++i) {
    const std::span<const std::byte> view = payload.view(i);
    const std::span<const std::byte> part = view.first(std::min(view.size(), n - done));
    if (TRY(data.CopyOut(part)) < part.size()) return Err(EFAULT);
    done += part.size();
  }
  return {};
}

}  // namespace redoubt::inetsock
