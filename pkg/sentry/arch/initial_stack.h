// What a program finds on its stack when it starts: argc, argv, envp, the auxiliary vector and the strings they point
// to, laid out as Linux lays them out (binfmt_elf.c; getauxval(3)).
#ifndef REDOUBT_PKG_SENTRY_ARCH_INITIAL_STACK_H_
#define REDOUBT_PKG_SENTRY_ARCH_INITIAL_STACK_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/platform.h"
#include "pkg/sentry/usermem/usermem.h"

namespace redoubt::arch {

struct AuxEntry {
  uint64_t type = 0;
  uint64_t value = 0;
};

struct InitialStackArgs {
  Addr top = 0;  // end of the stack's mapping
  std::span<const std::string> argv;
  std::span<const std::string> envv;
  std::string filename;                // AT_EXECFN
  std::array<std::byte, 16> random{};  // AT_RANDOM
  uint64_t skip = 0;                   // bytes left free between strings and vectors, to vary addresses
  // In order, without AT_RANDOM, AT_EXECFN, AT_PLATFORM and AT_NULL, which are added.
  std::vector<AuxEntry> auxv;
};

struct InitialStack {
  Addr stack_pointer = 0;
  AddrRange argv;  // the strings
  AddrRange envv;
  std::vector<uint64_t> auxv;  // as written: pairs, AT_NULL included
};

// EFAULT if the stack's mapping is too small for it.
Result<InitialStack> BuildInitialStack(MemoryIo& memory, const InitialStackArgs& args);

// Bytes that it needs at most.
uint64_t InitialStackSize(const InitialStackArgs& args);

// Registers of a program that starts: all zero but these.
platform::Registers InitialRegisters(Addr entry, Addr stack_pointer);

}  // namespace redoubt::arch

#endif  // REDOUBT_PKG_SENTRY_ARCH_INITIAL_STACK_H_
