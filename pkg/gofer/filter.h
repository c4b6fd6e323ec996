// The gofer's seccomp filter (filter.txt).
#ifndef REDOUBT_PKG_GOFER_FILTER_H_
#define REDOUBT_PKG_GOFER_FILTER_H_

#include "pkg/errors/errors.h"

namespace redoubt::gofer {

// For the calling thread, which from then on can serve and nothing else: any other system call kills the process.
Result<> InstallFilter();

}  // namespace redoubt::gofer

#endif  // REDOUBT_PKG_GOFER_FILTER_H_
