// strace: a line per syscall to the log, made from the table's argument kinds.
#ifndef REDOUBT_PKG_SENTRY_STRACE_STRACE_H_
#define REDOUBT_PKG_SENTRY_STRACE_STRACE_H_

#include <string>
#include <vector>

#include "pkg/sentry/syscalls/table.h"

namespace redoubt::strace {

// A syscalls::Tracer. `result` null: the call begins (logged only for calls that may not come back).
void Trace(kernel::Task& task, uint64_t number, const syscalls::Entry& entry, const kernel::SyscallArgs& args,
           const Result<uint64_t>* result);

// Only calls of these names are written from now on; all, if there are none. ENOENT for a name that no call has. Before
// tasks run.
Result<> Only(const std::vector<std::string>& names);

// "read(3, \"abc\"..., 10) = 3". For tests.
std::string Format(MemoryIo& memory, uint64_t number, const syscalls::Entry& entry, const kernel::SyscallArgs& args,
                   const Result<uint64_t>* result);

}  // namespace redoubt::strace

#endif  // REDOUBT_PKG_SENTRY_STRACE_STRACE_H_
