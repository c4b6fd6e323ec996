#include "pkg/seccomp/seccomp.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "pkg/seccomp/rule.h"

namespace redoubt::seccomp {

Result<> Install(std::span<const sock_filter> filter) {
  std::vector<sock_filter> own(filter.begin(), filter.end());
  for (sock_filter& f : own) {
    if (f.code == (BPF_JMP | BPF_JEQ | BPF_K) && f.k == kSelf) f.k = static_cast<uint32_t>(getpid());
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return ErrFromHost();
  sock_fprog program{.len = static_cast<unsigned short>(own.size()), .filter = own.data()};
  long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
  if (r < 0) return ErrFromHost();
  // seccomp(2): the number of a thread that cannot take it.
  if (r > 0) return Err(ESRCH);
  return {};
}

}  // namespace redoubt::seccomp
