#include "pkg/sentry/loader/elf_file.h"

#include <elf.h>
#include <limits.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace redoubt::loader {
namespace {

// Linux's limit on the table of program headers.
constexpr size_t kMaxHeaderBytes = 65536;
// What mmap can reasonably be asked for; Linux takes any power of two.
constexpr uint64_t kMaxAlignment = uint64_t{1} << 30;

// All of `dst` or ENOEXEC.
Result<> ReadAll(const ReadAt& read, uint64_t offset, std::span<std::byte> dst) {
  while (!dst.empty()) {
    size_t n = TRY(read(offset, dst));
    if (n == 0 || n > dst.size()) return Err(ENOEXEC);
    offset += n;
    dst = dst.subspan(n);
  }
  return {};
}

Result<ElfSegment> CheckSegment(const Elf64_Phdr& p) {
  ElfSegment s{.address = p.p_vaddr, .offset = p.p_offset, .file_size = p.p_filesz, .memory_size = p.p_memsz};
  s.access = {.read = (p.p_flags & PF_R) != 0, .write = (p.p_flags & PF_W) != 0, .execute = (p.p_flags & PF_X) != 0};
  if (s.file_size > s.memory_size || s.memory_size > kMaxElfAddress || s.address > kMaxElfAddress - s.memory_size) {
    return Err(ENOEXEC);
  }
  // Offsets are signed in the host's and the guest's file interfaces.
  constexpr uint64_t kMaxOffset = INT64_MAX - kPageSize;
  if (s.file_size > kMaxOffset || s.offset > kMaxOffset - s.file_size) return Err(ENOEXEC);
  if (s.file_size > 0 && ((s.address ^ s.offset) & kPageMask) != 0) return Err(ENOEXEC);
  return s;
}

Result<std::string> ReadInterpreter(const ReadAt& read, const Elf64_Phdr& p) {
  if (p.p_filesz < 2 || p.p_filesz > PATH_MAX || p.p_offset > INT64_MAX - uint64_t{PATH_MAX}) return Err(ENOEXEC);
  std::string name(p.p_filesz, '\0');
  TRY(ReadAll(read, p.p_offset, std::as_writable_bytes(std::span(name))));
  if (name.back() != '\0') return Err(ENOEXEC);
  name.resize(strlen(name.c_str()));
  return name;
}

}  // namespace

AddrRange ElfFile::span() const {
  AddrRange r{segments.front().page_start(), segments.front().page_end()};
  for (const ElfSegment& s : segments) {
    r.start = std::min(r.start, s.page_start());
    r.end = std::max(r.end, s.page_end());
  }
  return r;
}

Result<ElfFile> ReadElf(const ReadAt& read) {
  Elf64_Ehdr header;
  TRY(ReadAll(read, 0, std::as_writable_bytes(std::span(&header, 1))));
  if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_machine != EM_X86_64) {
    return Err(ENOEXEC);
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) return Err(ENOEXEC);
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
      header.e_phnum * sizeof(Elf64_Phdr) > kMaxHeaderBytes || header.e_phoff > INT64_MAX - kMaxHeaderBytes) {
    return Err(ENOEXEC);
  }
  std::vector<Elf64_Phdr> headers(header.e_phnum);
  TRY(ReadAll(read, header.e_phoff, std::as_writable_bytes(std::span(headers))));

  ElfFile elf;
  elf.position_independent = header.e_type == ET_DYN;
  elf.entry = header.e_entry;
  elf.program_header_count = header.e_phnum;
  for (const Elf64_Phdr& p : headers) {
    switch (p.p_type) {
      case PT_LOAD: {
        if (p.p_memsz == 0) break;
        ElfSegment segment = TRY(CheckSegment(p));
        if (std::has_single_bit(p.p_align) && p.p_align <= kMaxAlignment) {
          elf.alignment = std::max(elf.alignment, p.p_align);
        }
        bool holds_headers = header.e_phoff >= p.p_offset && header.e_phoff - p.p_offset < p.p_filesz;
        if (holds_headers && elf.program_headers == 0) elf.program_headers = header.e_phoff - p.p_offset + p.p_vaddr;
        elf.segments.push_back(segment);
        break;
      }
      case PT_INTERP:
        if (!elf.interpreter) elf.interpreter = TRY(ReadInterpreter(read, p));
        break;
      case PT_GNU_STACK:
        elf.executable_stack = (p.p_flags & PF_X) != 0;
        break;
      default:
        break;
    }
  }
  if (elf.segments.empty() || elf.entry >= kMaxElfAddress) return Err(ENOEXEC);
  return elf;
}

}  // namespace redoubt::loader
