// Installing seccomp filters that were compiled at build time (write_filter_main.cc), so that a start costs no
// compilation.
#ifndef REDOUBT_PKG_SECCOMP_SECCOMP_H_
#define REDOUBT_PKG_SECCOMP_SECCOMP_H_

#include <linux/filter.h>

#include <span>

#include "pkg/errors/errors.h"

namespace redoubt::seccomp {

// For all threads of the process, and what they start from now on; forever. Sets no_new_privs, and puts the process'
// own number where the filter says kSelf. Errors of seccomp(2); ESRCH if a thread has a filter that the caller has not.
Result<> Install(std::span<const sock_filter> filter);

}  // namespace redoubt::seccomp

#endif  // REDOUBT_PKG_SECCOMP_SECCOMP_H_
