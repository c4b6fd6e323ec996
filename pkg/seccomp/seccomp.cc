#include "pkg/seccomp/seccomp.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>

namespace redoubt::seccomp {

Result<> Install(std::span<const sock_filter> filter) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return ErrFromHost();
  sock_fprog program{.len = static_cast<unsigned short>(filter.size()),
                     .filter = const_cast<sock_filter*>(filter.data())};
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) return ErrFromHost();
  return {};
}

}  // namespace redoubt::seccomp
