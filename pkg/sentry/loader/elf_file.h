// Reads the headers of an ELF program (elf(5)). Every byte is hostile; what comes out has been checked.
#ifndef REDOUBT_PKG_SENTRY_LOADER_ELF_FILE_H_
#define REDOUBT_PKG_SENTRY_LOADER_ELF_FILE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"

namespace redoubt::loader {

// Reads at an offset; fewer bytes only at the end of the file.
using ReadAt = std::function<Result<size_t>(uint64_t offset, std::span<std::byte> dst)>;

// A PT_LOAD of nonzero size. No sum of its fields wraps, addresses are below kMaxElfAddress, file_size <= memory_size,
// and address and offset agree modulo the page size.
struct ElfSegment {
  Addr address = 0;  // before relocation
  uint64_t offset = 0;
  uint64_t file_size = 0;
  uint64_t memory_size = 0;
  AccessType access;

  Addr page_start() const { return PageRoundDown(address); }
  Addr page_end() const { return MustPageRoundUp(address + memory_size); }
};

inline constexpr Addr kMaxElfAddress = 0x7ffffffff000;

struct ElfFile {
  bool position_independent = false;  // ET_DYN
  Addr entry = 0;                     // before relocation
  std::vector<ElfSegment> segments;   // at least one
  std::optional<std::string> interpreter;
  bool executable_stack = false;
  uint64_t alignment = kPageSize;  // the largest a segment asks for, a power of two, at least a page
  uint64_t program_headers = 0;    // AT_PHDR before relocation; 0 if no segment holds them
  uint64_t program_header_count = 0;

  // The pages that all segments span.
  AddrRange span() const;
};

// ENOEXEC for whatever is not an x86-64 program that can be loaded, EIO and the like if reading fails.
Result<ElfFile> ReadElf(const ReadAt& read);

}  // namespace redoubt::loader

#endif  // REDOUBT_PKG_SENTRY_LOADER_ELF_FILE_H_
