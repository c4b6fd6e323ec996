// Installing seccomp filters that were compiled at build time (write_filter_main.cc), so that a start costs no
// compilation.
#ifndef REDOUBT_PKG_SECCOMP_SECCOMP_H_
#define REDOUBT_PKG_SECCOMP_SECCOMP_H_

#include <linux/filter.h>

#include <span>

#include "pkg/errors/errors.h"

namespace redoubt::seccomp {

// For the calling thread and what it starts from now on; forever. Sets no_new_privs. Errors of prctl(2).
Result<> Install(std::span<const sock_filter> filter);

}  // namespace redoubt::seccomp

#endif  // REDOUBT_PKG_SECCOMP_SECCOMP_H_
