// Private to inet: what a datagram socket sends by: UDP, echo requests (icmp sockets), or packets of an IP protocol
// (raw(7)).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_DATAGRAM_TRANSPORT_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_DATAGRAM_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/buffer/buffer.h"
#include "pkg/netstack/transport/datagram_endpoint.h"
#include "pkg/sentry/socket/inet/network.h"

namespace redoubt::inetsock {

// Thread-safe.
class DatagramTransport {
 public:
  virtual ~DatagramTransport() = default;
  // Receives, and has the options.
  virtual netstack::DatagramEndpoint& endpoint() = 0;
  virtual Result<> Bind(const netstack::SocketAddress& address) = 0;
  virtual Result<> Connect(const netstack::SocketAddress& peer) = 0;
  virtual Result<> Disconnect() = 0;
  virtual Result<size_t> Send(netstack::Buffer data, const std::optional<netstack::SocketAddress>& to,
                              const netstack::SendOptions& own) = 0;
  virtual Result<> Shutdown(bool read, bool write) = 0;
  virtual void Close() = 0;
  virtual netstack::SocketAddress local() = 0;
  virtual std::optional<netstack::SocketAddress> peer() = 0;
  // Options of this transport alone. nullopt: it is none of them.
  virtual std::optional<Result<>> SetOption(int level, int name, std::span<const std::byte> value) {
    return std::nullopt;
  }
  virtual std::optional<std::vector<std::byte>> GetOption(int level, int name) { return std::nullopt; }
};

std::unique_ptr<DatagramTransport> MakeUdp(Network& network, netstack::Family family);
std::unique_ptr<DatagramTransport> MakePing(Network& network, netstack::Family family);
std::unique_ptr<DatagramTransport> MakeRaw(Network& network, netstack::Family family, uint8_t protocol);

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_DATAGRAM_TRANSPORT_H_
