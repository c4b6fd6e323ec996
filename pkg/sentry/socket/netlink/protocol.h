// The seam at which the protocols of AF_NETLINK plug in: NETLINK_ROUTE, NETLINK_SOCK_DIAG, ...
#ifndef REDOUBT_PKG_SENTRY_SOCKET_NETLINK_PROTOCOL_H_
#define REDOUBT_PKG_SENTRY_SOCKET_NETLINK_PROTOCOL_H_

#include <string>

#include "pkg/errors/errors.h"
#include "pkg/sentry/socket/netlink/message.h"
#include "pkg/sentry/socket/netlink/port.h"

namespace redoubt::netlink {

// One request, and what is answered.
struct Request {
  const Message& message;
  bool may_change = false;  // CAP_NET_ADMIN of who asks and of who has opened the socket
  uint32_t port = 0;        // the asking socket's
  Writer& reply;
  bool strict = false;      // NETLINK_GET_STRICT_CHK: a dump is filtered by the header's fields
  std::string explanation;  // with an error: why, for NETLINK_EXT_ACK

  bool is_dump() const { return (message.header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP; }
  // Begins an answer, which is part of a dump if that was asked for.
  template <typename Header>
  void Answer(uint16_t type, const Header& header) {
    const uint16_t flags = is_dump() ? NLM_F_MULTI : 0;
    reply.Begin(type, flags, message.header.nlmsg_seq, port, header);
  }
  std::unexpected<Errno> Refuse(int error, std::string why) {
    explanation = std::move(why);
    return Err(error);
  }
};

// Thread-safe; lives for ever.
class Protocol {
 public:
  virtual ~Protocol() = default;
  // Answers go into request.reply; the end of a dump, and acknowledgements, are the caller's.
  virtual Result<> Handle(Request& request) = 0;
  // The largest group it has; 0: none.
  virtual uint32_t groups() const = 0;
  PortRegistry& ports() { return ports_; }

 private:
  PortRegistry ports_;
};

}  // namespace redoubt::netlink

#endif  // REDOUBT_PKG_SENTRY_SOCKET_NETLINK_PROTOCOL_H_
