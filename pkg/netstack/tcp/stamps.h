// Private to Endpoint: what SO_TIMESTAMPING has to know of a stream's bytes.
#ifndef REDOUBT_PKG_NETSTACK_TCP_STAMPS_H_
#define REDOUBT_PKG_NETSTACK_TCP_STAMPS_H_

#include <cstdint>
#include <vector>

#include "pkg/netstack/packet/stamp.h"
#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/netstack/tcp/seq.h"

namespace redoubt::netstack::tcp {

// Bounded; what is too much loses its stamp, or shares that of the bytes behind it.
struct Endpoint::Stamps {
  static constexpr size_t kMaxSent = 256, kMaxReceived = 256;

  struct Sent {
    Seq end;  // behind the last byte of a call
    uint32_t key;
    StampPlaces left;  // places that it has not passed
  };
  // Bytes of the stream, counted from its start, that were there by then.
  struct Received {
    uint64_t end;
    Time at;
  };
  Seq base = 0;  // the byte with number 0
  std::vector<Sent> sent;
  std::vector<Received> received;
  StampQueue told;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_STAMPS_H_
