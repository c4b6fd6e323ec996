// /proc/sys/net/ipv6/conf/NAME/disable_ipv6 in the calling thread's network namespace
// (Documentation/networking/ip-sysctl).
#ifndef REDOUBT_RUNSC_SANDBOX_IPV6_SWITCH_H_
#define REDOUBT_RUNSC_SANDBOX_IPV6_SWITCH_H_

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "pkg/fd/unique_fd.h"

namespace redoubt::sandbox {

inline UniqueFd OpenIpv6Switch(const std::string& interface, int flags) {
  const std::string path = "/proc/sys/net/ipv6/conf/" + interface + "/disable_ipv6";
  return UniqueFd(open(path.c_str(), flags | O_CLOEXEC));
}
// False also on a host without IPv6.
inline bool Ipv6Enabled(const std::string& interface) {
  UniqueFd fd = OpenIpv6Switch(interface, O_RDONLY);
  char c = '1';
  return fd && read(fd.get(), &c, 1) == 1 && c == '0';
}
// 0, or an errno.
inline int SetIpv6(const std::string& interface, bool on) {
  UniqueFd fd = OpenIpv6Switch(interface, O_WRONLY);
  if (!fd || write(fd.get(), on ? "0" : "1", 1) != 1) return errno;
  return 0;
}

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_IPV6_SWITCH_H_
