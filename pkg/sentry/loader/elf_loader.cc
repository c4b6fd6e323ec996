#include "pkg/sentry/loader/elf_loader.h"

#include <algorithm>

namespace redoubt::loader {
namespace {

Addr AlignUp(Addr a, uint64_t alignment) { return (a + alignment - 1) & ~(alignment - 1); }

// What to add to the file's addresses.
Result<uint64_t> ChooseBias(const ElfFile& elf, Addr base, ProgramMemory& memory) {
  if (!elf.position_independent) return 0;
  AddrRange span = elf.span();
  if (base != 0) {
    base &= ~(elf.alignment - 1);
    return base - (span.start & ~(elf.alignment - 1));
  }
  // A reservation finds the place; the segments are mapped there one by one.
  uint64_t slack = elf.alignment - kPageSize;
  if (span.length() > kMaxElfAddress - slack) return Err(ENOEXEC);
  uint64_t length = span.length() + slack;
  Addr found = TRY(memory.MMap({.length = length, .no_reserve = true}));
  TRY(memory.MUnmap(found, length));
  // Congruent to the file's address modulo the alignment.
  return AlignUp(found - span.start, elf.alignment);
}

void Extend(AddrRange& range, AddrRange by) {
  if (range.end == 0) {
    range = by;
    return;
  }
  range.start = std::min(range.start, by.start);
  range.end = std::max(range.end, by.end);
}

Result<> MapSegment(const ElfSegment& s, uint64_t bias, const ConfigureFile& configure, ProgramMemory& memory) {
  Addr start = PageRoundDown(s.address + bias);
  Addr file_end = s.address + bias + s.file_size;
  Addr file_pages_end = s.file_size > 0 ? MustPageRoundUp(file_end) : start;
  Addr end = MustPageRoundUp(s.address + bias + s.memory_size);
  if (file_pages_end > start) {
    mm::MMapOptions options{.addr = start, .length = file_pages_end - start, .fixed = true, .access = s.access};
    options.offset = PageRoundDown(s.offset);
    TRY(configure(options));
    TRY(memory.MMap(options));
    if (s.memory_size > s.file_size && file_pages_end > file_end && s.access.write) {
      // The file goes on behind the segment, in the page where .bss begins.
      size_t zeroed = TRY(memory.io().ZeroOut(file_end, file_pages_end - file_end));
      if (zeroed != file_pages_end - file_end) return Err(EFAULT);
    }
  }
  if (end > file_pages_end) {
    TRY(memory.MMap({.addr = file_pages_end, .length = end - file_pages_end, .fixed = true, .access = s.access}));
  }
  return {};
}

}  // namespace

Result<LoadedElf> LoadElf(const ElfFile& elf, Addr base, const ConfigureFile& configure, ProgramMemory& memory) {
  LoadedElf loaded;
  loaded.bias = TRY(ChooseBias(elf, base, memory));
  for (const ElfSegment& s : elf.segments) {
    Addr start = loaded.Relocate(s.address);
    if (start > kMaxElfAddress || s.memory_size > kMaxElfAddress - start) return Err(ENOEXEC);
    Result<> mapped = MapSegment(s, loaded.bias, configure, memory);
    if (!mapped) {
      // The file asks for what no address space has (the null page, the top), or ends where data should be.
      int error = mapped.error().value();
      if (error == EFAULT || error == EINVAL || error == EPERM || error == EEXIST) return Err(ENOEXEC);
      return Err(mapped.error());
    }
    Extend(s.access.execute ? loaded.code : loaded.data, {start, start + s.file_size});
    loaded.end = std::max(loaded.end, MustPageRoundUp(start + s.memory_size));
  }
  return loaded;
}

}  // namespace redoubt::loader
