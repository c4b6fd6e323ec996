// Maps an ELF file's segments into an address space.
#ifndef REDOUBT_PKG_SENTRY_LOADER_ELF_LOADER_H_
#define REDOUBT_PKG_SENTRY_LOADER_ELF_LOADER_H_

#include <functional>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/sentry/loader/elf_file.h"
#include "pkg/sentry/loader/program_memory.h"

namespace redoubt::loader {

struct LoadedElf {
  uint64_t bias = 0;  // what was added to every address; wraps if the file's were above where it lies
  AddrRange code;     // hulls of the executable segments' file parts and of the others, for /proc/PID/stat
  AddrRange data;
  Addr end = 0;  // of the highest segment: the heap may start here

  Addr Relocate(Addr a) const { return a + bias; }
};

// Makes an mmap of the file possible: fills mappable, identity, max_access (FileDescription::ConfigureMMap).
using ConfigureFile = std::function<Result<>(mm::MMapOptions& options)>;

// Position-independent files go to `base`, made a multiple of their alignment, or anywhere if that is 0; others to the
// addresses they name. ENOEXEC if those cannot be had, otherwise mmap's errors.
Result<LoadedElf> LoadElf(const ElfFile& elf, Addr base, const ConfigureFile& configure, ProgramMemory& memory);

}  // namespace redoubt::loader

#endif  // REDOUBT_PKG_SENTRY_LOADER_ELF_LOADER_H_
