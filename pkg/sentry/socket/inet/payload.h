// Datagrams and frames between guest memory and the netstack's chunks: copied once each way.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_PAYLOAD_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_PAYLOAD_H_

#include <cstddef>

#include "pkg/errors/errors.h"
#include "pkg/netstack/buffer/buffer.h"
#include "pkg/sentry/usermem/usermem.h"

namespace redoubt::inetsock {

// The next `n` bytes of `data`, with `headroom` bytes free before them. EFAULT if not all of them are there.
Result<netstack::Buffer> CopyInPayload(IoSequence& data, size_t n, size_t headroom);
// The first `n` bytes of `payload`, of which there are at least as many. EFAULT: what was copied counts for nothing.
Result<> CopyOutPayload(const netstack::Buffer& payload, size_t n, IoSequence& data);

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_PAYLOAD_H_
