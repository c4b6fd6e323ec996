#include "test/syscalls/util/own_network.h"

#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {

void EnterOwnNetwork() {
  if (unshare(CLONE_NEWNET) != 0) return;
  ScopedFd s(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  strcpy(request.ifr_name, "lo");
  ASSERT_OK(ioctl(s.get(), SIOCGIFFLAGS, &request));
  request.ifr_flags |= IFF_UP;
  ASSERT_OK(ioctl(s.get(), SIOCSIFFLAGS, &request));
}

}  // namespace redoubt::testing
