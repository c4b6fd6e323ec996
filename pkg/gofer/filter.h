// The gofer's seccomp filter (filter.txt).
#ifndef REDOUBT_PKG_GOFER_FILTER_H_
#define REDOUBT_PKG_GOFER_FILTER_H_

#include <span>

#include "pkg/errors/errors.h"
#include "pkg/seccomp/rule.h"

namespace redoubt::gofer {

// Before the threads that serve are started: whose call the filter does not allow says so in the log and ends the
// process, and so many threads have memory of their own.
void PrepareForFilter(size_t threads);

// For all threads, which from then on can serve and nothing else; not even end one by one.
Result<> InstallFilter();

// The list, for tests.
std::span<const seccomp::Rule> FilterRules();

}  // namespace redoubt::gofer

#endif  // REDOUBT_PKG_GOFER_FILTER_H_
