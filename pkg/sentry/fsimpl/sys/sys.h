// sysfs(5): what programs look for to count processors and find the loopback device.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_SYS_SYS_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_SYS_SYS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::sys {

struct NetDevice {
  std::string name;     // "lo"
  std::string address;  // "00:00:00:00:00:00"
  int index = 1;
  uint32_t mtu = 65536;
  uint32_t flags = 0x9;  // IFF_*
  uint32_t type = 772;   // ARPHRD_*
};

struct Options {
  int cpus = 1;
  uint64_t memory = 0;  // bytes, of the one NUMA node
  std::vector<NetDevice> devices = {{.name = "lo", .address = "00:00:00:00:00:00"}};
};

// /sys/fs/cgroup is an empty directory to mount on.
RefPtr<vfs::Filesystem> Create(const Options& options);

}  // namespace redoubt::sys

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_SYS_SYS_H_
