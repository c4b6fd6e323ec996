// Packets between the CLI and the Sentry: SOCK_SEQPACKET (unix(7)), a message a packet, with descriptors.
#ifndef REDOUBT_RUNSC_CONTROL_CONNECTION_H_
#define REDOUBT_RUNSC_CONTROL_CONNECTION_H_

#include <sys/socket.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fd/unique_fd.h"

namespace redoubt::control {

// A message longer than this travels in a memfd, or in parts if none can be had: the Sentry may make no files.
inline constexpr size_t kInlineLimit = size_t{32} << 10;
inline constexpr size_t kMessageLimit = size_t{16} << 20;
// SCM_MAX_FD of Linux is 253; one may be the memfd.
inline constexpr size_t kDescriptorLimit = 252;

struct Packet {
  std::string bytes;
  std::vector<UniqueFd> fds;  // close-on-exec
};

// One end. Neither side trusts the other: what is too long or malformed is an error, never a wait. Not for use by two
// threads at once in one direction.
class Connection final {
 public:
  Connection() = default;
  explicit Connection(UniqueFd socket) : socket_(std::move(socket)) {}
  // The two ends of a new connection.
  static Result<std::pair<Connection, Connection>> Pair();

  // `fds` are borrowed. E2BIG: over the limits above. EPIPE, ECONNRESET: the peer is gone. Blocks while the peer does
  // not read, unless `flags` has MSG_DONTWAIT or the socket is non-blocking (EAGAIN).
  Result<> Send(std::string_view bytes, std::span<const int> fds = {}, int flags = 0) const;
  // Blocks for the next message unless `flags` has MSG_DONTWAIT (EAGAIN). ENOTCONN: the peer has closed. EBADMSG: not a
  // message of ours.
  Result<Packet> Receive(int flags = 0) const;

  int fd() const { return socket_.get(); }
  explicit operator bool() const { return static_cast<bool>(socket_); }
  [[nodiscard]] UniqueFd Release() { return std::move(socket_); }

 private:
  Result<> SendPacket(char kind, std::string_view bytes, std::span<const int> fds, int flags) const;
  // `more`: the packet is a part of a message.
  Result<Packet> ReceivePacket(int flags, bool* more) const;

  UniqueFd socket_;
};

}  // namespace redoubt::control

#endif  // REDOUBT_RUNSC_CONTROL_CONNECTION_H_
