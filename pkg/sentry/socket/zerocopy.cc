#include "pkg/sentry/socket/zerocopy.h"

#include <netinet/in.h>
// After netinet/in.h, whose structures it would define otherwise.
#include <linux/errqueue.h>

#include <utility>
#include <vector>

namespace redoubt::socket {
namespace {

constexpr uint64_t kNext = UINT32_MAX;

}  // namespace

void ZerocopyCompletions::Count() {
  uint64_t now = numbers_.load(std::memory_order_relaxed);
  while (!numbers_.compare_exchange_weak(now, (now & ~kNext) | ((now + 1) & kNext), std::memory_order_acq_rel)) {
  }
}

bool ZerocopyCompletions::pending() const {
  const uint64_t now = numbers_.load(std::memory_order_acquire);
  return now >> kToldShift != (now & kNext);
}

Result<size_t> ZerocopyCompletions::Take(int family, InMessage& message) {
  uint64_t now = numbers_.load(std::memory_order_relaxed);
  do {
    if (now >> kToldShift == (now & kNext)) return Err(EAGAIN);
  } while (!numbers_.compare_exchange_weak(now, now << kToldShift | (now & kNext), std::memory_order_acq_rel));
  const sock_extended_err range{.ee_errno = 0,
                                .ee_origin = SO_EE_ORIGIN_ZEROCOPY,
                                .ee_type = 0,
                                .ee_code = SO_EE_CODE_ZEROCOPY_COPIED,
                                .ee_pad = 0,
                                .ee_info = static_cast<uint32_t>(now >> kToldShift),
                                .ee_data = static_cast<uint32_t>(now) - 1};
  std::vector<std::byte> data = OptionBytes(range);
  // Of an offender, which there is none, the place.
  data.resize(data.size() + (family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in)));
  message.control.push_back({.level = family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP,
                             .type = family == AF_INET6 ? IPV6_RECVERR : IP_RECVERR,
                             .data = std::move(data)});
  message.flags |= MSG_ERRQUEUE;
  return size_t{0};
}

}  // namespace redoubt::socket
