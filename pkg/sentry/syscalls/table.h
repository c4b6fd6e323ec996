// The syscall table of x86-64: number, name, argument kinds, handler. The one truth: dispatch, strace, the
// documentation and the count of what a program asked for and did not get are all made from it.
#ifndef REDOUBT_PKG_SENTRY_SYSCALLS_TABLE_H_
#define REDOUBT_PKG_SENTRY_SYSCALLS_TABLE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/sentry/kernel/task.h"

namespace redoubt::syscalls {

using Handler = Result<uint64_t> (*)(kernel::Task& task, const kernel::SyscallArgs& args);

struct Entry {
  std::string_view name;  // empty: no such number
  // One letter an argument, for strace: d int, u unsigned, x hexadecimal, o octal, p pointer, s string in, b buffer in
  // (length is the next argument), B buffer out (length is the result), f descriptor, a descriptor or AT_FDCWD, S
  // signal, O open flags, M mmap protection, V vector of strings, t timespec in, T stat out.
  std::string_view arguments;
  Handler handler = nullptr;  // null: not implemented, ENOSYS
};

inline constexpr uint64_t kTableSize = 512;

// Entry of a number below kTableSize.
const Entry& Lookup(uint64_t number);

// Runs the call; ENOSYS, counted, for what is missing. With tracing on, writes a line per call.
Result<uint64_t> Dispatch(kernel::Task& task, uint64_t number, const kernel::SyscallArgs& args);

// Every call that was made and is not implemented.
struct MissingCall {
  std::string name;
  uint64_t count = 0;
  std::string program;  // that was the first to make it
};
std::vector<MissingCall> MissingCalls();
// Every call that was made, implemented or not: name and count, roughly as of now.
std::vector<std::pair<std::string_view, uint64_t>> Calls();

// strace: called after each call (and before it, with a null result, for calls that do not return). Set before tasks
// run.
using Tracer = void (*)(kernel::Task& task, uint64_t number, const Entry& entry, const kernel::SyscallArgs& args,
                        const Result<uint64_t>* result);
void SetTracer(Tracer tracer);

}  // namespace redoubt::syscalls

#endif  // REDOUBT_PKG_SENTRY_SYSCALLS_TABLE_H_
