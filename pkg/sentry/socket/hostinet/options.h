// What of getsockopt(2), setsockopt(2) and cmsg(3) is the host's to answer. Everything else never reaches it: the
// kernel has hundreds, some with pointers in them, some that load modules.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_OPTIONS_H_
#define REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::hostinet {

// runsc/boot/filter/network_host.txt has a line for each, and a test that they agree.
struct Option {
  int level;
  int name;
  // Bytes of a value to set; a longer one is cut, a shorter one is EINVAL. Both 0: cannot be set.
  uint8_t least = 0;
  uint8_t most = 0;
  uint16_t got = 0;  // bytes of a value that is got, at most; 0: cannot be got
};

std::span<const Option> Options();
// Null if the host is not to be asked.
const Option* FindOption(int level, int name);

// Ancillary data on its way to the host, as it lies in msg_control: of a datagram socket of `family`. What is of
// another level is left out, as Linux does; an unknown type or a wrong length is EINVAL.
Result<std::vector<std::byte>> EncodeControl(int family, std::span<const socket::Control> control);
// And back. What is on no list is left out; nothing that is here refers to descriptors.
std::vector<socket::Control> DecodeControl(std::span<const std::byte> bytes);

}  // namespace redoubt::hostinet

#endif  // REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_OPTIONS_H_
