// Whole messages on a stream socket.
#ifndef REDOUBT_PKG_P9_TRANSPORT_H_
#define REDOUBT_PKG_P9_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/p9/protocol.h"

namespace redoubt::p9 {

// Both block the fiber or, outside any, the OS thread. EPIPE: the peer has gone.
Result<> SendMessage(int socket, std::span<const std::byte> message);

// Cuts a stream into messages; several may arrive at once.
class MessageReader final {
 public:
  // The next whole message, header included, valid until the next call. EPROTO: a size out of bounds.
  Result<std::span<const std::byte>> Next(int socket, uint32_t max_size);
  // Whether another whole one is here already.
  bool HasNext() const;

 private:
  std::vector<std::byte> buffer_;
  size_t begin_ = 0;  // of what has not been handed out
  size_t end_ = 0;
};

}  // namespace redoubt::p9

#endif  // REDOUBT_PKG_P9_TRANSPORT_H_
