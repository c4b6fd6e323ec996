// Filters of sockets whose messages are bytes and nothing else: AF_UNIX, AF_NETLINK (socket(7), SO_ATTACH_FILTER).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_FILTER_H_
#define REDOUBT_PKG_SENTRY_SOCKET_FILTER_H_

#include <cstddef>
#include <optional>
#include <span>

#include "pkg/bpf/bpf.h"

namespace redoubt::socket {

// How many bytes of the message the reader gets; none: the message is lost without a word.
std::optional<size_t> RunFilter(const bpf::Program& filter, std::span<const std::byte> message);

}  // namespace redoubt::socket

#endif  // REDOUBT_PKG_SENTRY_SOCKET_FILTER_H_
