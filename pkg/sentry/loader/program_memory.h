// The little that loading a program asks of an address space; mm::MemoryManager has it all, tests have less.
#ifndef REDOUBT_PKG_SENTRY_LOADER_PROGRAM_MEMORY_H_
#define REDOUBT_PKG_SENTRY_LOADER_PROGRAM_MEMORY_H_

#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/sentry/memmap/mmap_options.h"
#include "pkg/sentry/usermem/usermem.h"

namespace redoubt::loader {

// As mmap(2), munmap(2). `io` moves bytes with the permissions of the mappings.
class ProgramMemory {
 public:
  virtual ~ProgramMemory() = default;
  virtual Result<Addr> MMap(mm::MMapOptions options) = 0;
  virtual Result<> MUnmap(Addr addr, uint64_t length) = 0;
  virtual MemoryIo& io() = 0;
};

}  // namespace redoubt::loader

#endif  // REDOUBT_PKG_SENTRY_LOADER_PROGRAM_MEMORY_H_
