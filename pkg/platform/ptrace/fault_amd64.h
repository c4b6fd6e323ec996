// Which exception a signal of the host stands for.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_FAULT_AMD64_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_FAULT_AMD64_H_

#include "pkg/platform/platform.h"

namespace redoubt::platform::ptrace {

// Fills trapno, error_code, access and access_known of `info`, whose signal is the host's, for an exception at `regs`.
// ptrace(2) shows no error code, so it is rebuilt: see address_space.cc for why a mapped page tells writes and fetches
// from reads.
void DescribeFault(const Registers& regs, TrapInfo& info);

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_FAULT_AMD64_H_
