#include <elf.h>
#include <gtest/gtest.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <random>

#include "pkg/sentry/loader/elf_file.h"
#include "pkg/sentry/loader/elf_loader.h"
#include "test/fuzz/rounds.h"

namespace redoubt::loader {
namespace {

// An address space of pages in a map. Refuses what a real one refuses.
class FakeMemory final : public ProgramMemory, public MemoryIo {
 public:
  static constexpr Addr kMin = 0x10000, kMax = 0x7ffffffe0000;
  struct Mapping {
    Addr end;
    AccessType access;
    bool file;
    uint64_t offset;
  };
  std::map<Addr, Mapping> mappings;
  uint64_t zeroed = 0;

  Result<Addr> MMap(mm::MMapOptions o) override {
    EXPECT_TRUE(IsPageAligned(o.addr) && IsPageAligned(o.offset));
    if (o.length == 0) return Err(EINVAL);
    o.length = MustPageRoundUp(o.length);
    if (!o.fixed) {
      if (o.length > next_ - kMin) return Err(ENOMEM);
      o.addr = next_ -= o.length;
    }
    if (o.addr < kMin) return Err(EPERM);
    if (o.addr > kMax || o.length > kMax - o.addr) return Err(ENOMEM);
    EXPECT_TRUE(MUnmap(o.addr, o.length).has_value());
    mappings[o.addr] = {o.addr + o.length, o.access, o.identity != nullptr || o.name == "file", o.offset};
    return o.addr;
  }
  Result<> MUnmap(Addr addr, uint64_t length) override {
    std::map<Addr, Mapping> kept;
    Addr end = addr + length;
    for (auto& [start, m] : mappings) {
      if (start < addr) kept[start] = {std::min(m.end, addr), m.access, m.file, m.offset};
      if (m.end > end) kept[std::max(start, end)] = {m.end, m.access, m.file, m.offset};
    }
    mappings = std::move(kept);
    return {};
  }
  MemoryIo& io() override { return *this; }

  const Mapping* At(Addr a) const {
    auto it = mappings.upper_bound(a);
    if (it == mappings.begin()) return nullptr;
    --it;
    return a < it->second.end ? &it->second : nullptr;
  }

  Result<size_t> ZeroOut(Addr addr, uint64_t length) override {
    const Mapping* m = At(addr);
    if (m == nullptr || !m->access.write) return Err(EFAULT);
    zeroed += length;
    return length;
  }
  Result<size_t> CopyOut(Addr, std::span<const std::byte>) override { return Err(EFAULT); }
  Result<size_t> CopyIn(Addr, std::span<std::byte>) override { return Err(EFAULT); }
  Result<uint32_t> LoadU32(Addr) override { return Err(EFAULT); }
  Result<uint32_t> SwapU32(Addr, uint32_t) override { return Err(EFAULT); }
  Result<uint32_t> CompareAndSwapU32(Addr, uint32_t, uint32_t) override { return Err(EFAULT); }

 private:
  Addr next_ = 0x7ffff7fff000;
};

Result<> ConfigureFake(mm::MMapOptions& o) {
  o.name = "file";
  return {};
}

// A small, valid program to break.
struct Builder {
  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> phdrs;
  std::string tail;  // behind the headers

  Builder() {
    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_entry = 0x401000;
    header.e_phoff = sizeof(header);
    header.e_phentsize = sizeof(Elf64_Phdr);
    phdrs.push_back({PT_LOAD, PF_R | PF_X, 0, 0x400000, 0, 0x1800, 0x1800, 0x1000});
    phdrs.push_back({PT_LOAD, PF_R | PF_W, 0x1800, 0x402800, 0, 0x300, 0x5000, 0x1000});
    phdrs.push_back({PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 0, 16});
  }
  std::string Bytes() {
    header.e_phnum = static_cast<uint16_t>(phdrs.size());
    std::string s(reinterpret_cast<char*>(&header), sizeof(header));
    s.append(reinterpret_cast<char*>(phdrs.data()), phdrs.size() * sizeof(Elf64_Phdr));
    s += tail;
    if (s.size() < 0x2000) s.resize(0x2000);
    return s;
  }
};

ReadAt ReadString(const std::string& s) {
  return [&s](uint64_t offset, std::span<std::byte> dst) -> Result<size_t> {
    if (offset >= s.size()) return 0;
    size_t n = std::min(dst.size(), s.size() - offset);
    memcpy(dst.data(), s.data() + offset, n);
    return n;
  };
}

Result<ElfFile> Parse(const std::string& s) { return ReadElf(ReadString(s)); }

TEST(ElfFile, ReadsAStaticProgram) {
  Result<ElfFile> elf = Parse(Builder().Bytes());
  ASSERT_TRUE(elf.has_value());
  EXPECT_FALSE(elf->position_independent);
  EXPECT_EQ(elf->entry, 0x401000u);
  ASSERT_EQ(elf->segments.size(), 2u);
  EXPECT_TRUE(elf->segments[0].access.execute);
  EXPECT_TRUE(elf->segments[1].access.write);
  EXPECT_EQ(elf->program_headers, 0x400000 + sizeof(Elf64_Ehdr));
  EXPECT_EQ(elf->program_header_count, 3u);
  EXPECT_FALSE(elf->executable_stack);
  EXPECT_FALSE(elf->interpreter.has_value());
  EXPECT_EQ(elf->span(), (AddrRange{0x400000, 0x408000}));
}

TEST(ElfFile, ReadsTheInterpretersName) {
  Builder b;
  std::string name = "/lib64/ld-linux-x86-64.so.2";
  b.phdrs.push_back(
      {PT_INTERP, PF_R, sizeof(Elf64_Ehdr) + 4 * sizeof(Elf64_Phdr), 0, 0, name.size() + 1, name.size() + 1, 1});
  b.tail = name + '\0';
  ASSERT_TRUE(Parse(b.Bytes()).has_value());
  EXPECT_EQ(Parse(b.Bytes())->interpreter, name);
  b.phdrs.back().p_filesz--;  // no NUL
  EXPECT_EQ(Parse(b.Bytes()).error(), Errno(ENOEXEC));
  b.phdrs.back().p_filesz = 1 << 20;
  EXPECT_EQ(Parse(b.Bytes()).error(), Errno(ENOEXEC));
  b.phdrs.back().p_filesz = 10;
  b.phdrs.back().p_offset = ~0ull;
  EXPECT_EQ(Parse(b.Bytes()).error(), Errno(ENOEXEC));
}

TEST(ElfFile, CorruptionIsEnoexec) {
  const std::vector<std::pair<const char*, void (*)(Builder&)>> faults = {
      {"magic", [](Builder& b) { b.header.e_ident[0] = 0; }},
      {"32 bits", [](Builder& b) { b.header.e_ident[EI_CLASS] = ELFCLASS32; }},
      {"big endian", [](Builder& b) { b.header.e_ident[EI_DATA] = ELFDATA2MSB; }},
      {"machine", [](Builder& b) { b.header.e_machine = EM_AARCH64; }},
      {"relocatable", [](Builder& b) { b.header.e_type = ET_REL; }},
      {"core", [](Builder& b) { b.header.e_type = ET_CORE; }},
      {"phentsize", [](Builder& b) { b.header.e_phentsize = 57; }},
      {"no headers", [](Builder& b) { b.phdrs.clear(); }},
      {"too many headers", [](Builder& b) { b.phdrs.resize(2000); }},
      {"phoff behind the end", [](Builder& b) { b.header.e_phoff = 0x1fff; }},
      {"phoff wraps", [](Builder& b) { b.header.e_phoff = ~0ull - 8; }},
      {"nothing to load", [](Builder& b) { b.phdrs = {b.phdrs[2]}; }},
      {"file size over memory size", [](Builder& b) { b.phdrs[0].p_filesz = 0x1801; }},
      {"address wraps", [](Builder& b) { b.phdrs[1].p_vaddr = ~0ull - 0xfff + 0x800; }},
      {"size wraps", [](Builder& b) { b.phdrs[1].p_memsz = ~0ull; }},
      {"beyond user space", [](Builder& b) { b.phdrs[1].p_vaddr = 0x7ffffffff800; }},
      {"offset wraps", [](Builder& b) { b.phdrs[1].p_offset = ~0ull - 0xfff + 0x800; }},
      {"offset and address disagree", [](Builder& b) { b.phdrs[1].p_offset = 0x1801; }},
      {"entry in the kernel", [](Builder& b) { b.header.e_entry = 0xffff800000000000; }},
  };
  for (const auto& [name, apply] : faults) {
    Builder b;
    apply(b);
    Result<ElfFile> elf = Parse(b.Bytes());
    ASSERT_FALSE(elf.has_value()) << name;
    EXPECT_EQ(elf.error(), Errno(ENOEXEC)) << name;
  }
  EXPECT_EQ(Parse("").error(), Errno(ENOEXEC));
  EXPECT_EQ(Parse("\x7f"
                  "ELF")
                .error(),
            Errno(ENOEXEC));
}

TEST(ElfLoader, MapsStaticProgram) {
  ElfFile elf = *Parse(Builder().Bytes());
  FakeMemory memory;
  Result<LoadedElf> l = LoadElf(elf, 0x555500000000, ConfigureFake, memory);
  ASSERT_TRUE(l.has_value());
  EXPECT_EQ(l->bias, 0u) << "its addresses are fixed";
  ASSERT_NE(memory.At(0x400000), nullptr);
  EXPECT_TRUE(memory.At(0x401fff)->access.execute);
  // 0x402800 to 0x402b00 from the file, zero up to the page's end, anonymous up to 0x407800.
  EXPECT_EQ(memory.At(0x402800)->offset, 0x1000u);
  EXPECT_TRUE(memory.At(0x402800)->file);
  EXPECT_EQ(memory.zeroed, 0x403000u - 0x402b00);
  ASSERT_NE(memory.At(0x407fff), nullptr);
  EXPECT_FALSE(memory.At(0x403000)->file);
  EXPECT_EQ(memory.At(0x408000), nullptr);
  EXPECT_EQ(l->end, 0x408000u);
  EXPECT_EQ(l->code, (AddrRange{0x400000, 0x401800}));
  EXPECT_EQ(l->data, (AddrRange{0x402800, 0x402b00}));
}

TEST(ElfLoader, MovesPositionIndependentProgram) {
  Builder b;
  b.header.e_type = ET_DYN;
  ElfFile elf = *Parse(b.Bytes());
  FakeMemory memory;
  Result<LoadedElf> l = LoadElf(elf, 0x555555554000, ConfigureFake, memory);
  ASSERT_TRUE(l.has_value());
  EXPECT_EQ(l->Relocate(0x400000), 0x555555554000u);
  EXPECT_NE(memory.At(0x555555554000), nullptr);
  EXPECT_EQ(memory.At(0x400000), nullptr);
  // Anywhere.
  l = LoadElf(elf, 0, ConfigureFake, memory);
  ASSERT_TRUE(l.has_value());
  EXPECT_NE(memory.At(l->Relocate(0x401000)), nullptr);
  // With a wish for alignment.
  for (Elf64_Phdr& p : b.phdrs) p.p_align = 1 << 21;
  b.phdrs[0].p_vaddr = 0;
  b.phdrs[1].p_vaddr = 0x2800;
  elf = *Parse(b.Bytes());
  for (Addr base : {Addr{0}, Addr{0x555555554000}}) {
    l = LoadElf(elf, base, ConfigureFake, memory);
    ASSERT_TRUE(l.has_value());
    EXPECT_EQ(l->bias % (1 << 21), 0u);
  }
}

TEST(ElfLoader, ImpossibleAddressesAreEnoexec) {
  Builder b;
  for (Elf64_Phdr& p : b.phdrs) p.p_vaddr &= 0xffff;  // the null page
  FakeMemory memory;
  EXPECT_EQ(LoadElf(*Parse(b.Bytes()), 0, ConfigureFake, memory).error(), Errno(ENOEXEC));
  b = Builder();
  b.header.e_type = ET_DYN;
  b.phdrs[1].p_vaddr = 0x7f0000000800;
  EXPECT_FALSE(LoadElf(*Parse(b.Bytes()), 0x555555554000, ConfigureFake, memory).has_value());
}

// Whatever is done to the headers: an error or mappings inside the address space, and no crash.
TEST(ElfLoader, MutatedHeadersAreSafe) {
  const uint64_t interesting[] = {0,
                                  1,
                                  0xfff,
                                  0x1000,
                                  0x7fff,
                                  0xffff,
                                  0x7fffffff,
                                  0xffffffff,
                                  0x7ffffffff000,
                                  0x800000000000,
                                  0x7fffffffffffffff,
                                  0x8000000000000000,
                                  ~0ull,
                                  ~0xfffull};
  uint64_t rounds = 0, loaded = 0;
  fuzz::Rounds(30'000, [&](uint64_t seed) {
    std::mt19937_64 random(seed);
    rounds++;
    Builder b;
    if (random() % 2 != 0) b.header.e_type = ET_DYN;
    std::string s = b.Bytes();
    size_t headers = sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Phdr);
    int changes = 1 + static_cast<int>(random() % 3);
    for (int c = 0; c < changes; c++) {
      if (random() % 3 == 0) {
        s[random() % headers] = static_cast<char>(random());
      } else {
        uint64_t v = interesting[random() % std::size(interesting)];
        size_t at = sizeof(Elf64_Ehdr) + (random() % ((headers - sizeof(Elf64_Ehdr)) / 8)) * 8;
        memcpy(s.data() + at, &v, 8);
      }
    }
    if (random() % 10 == 0) s.resize(random() % s.size());
    Result<ElfFile> elf = Parse(s);
    if (!elf) {
      EXPECT_EQ(elf.error(), Errno(ENOEXEC));
      return;
    }
    FakeMemory memory;
    Addr base = random() % 2 != 0 ? 0x555555554000 : 0;
    Result<LoadedElf> l = LoadElf(*elf, base, ConfigureFake, memory);
    if (l) loaded++;
    for (const auto& [start, m] : memory.mappings) {
      EXPECT_GE(start, FakeMemory::kMin);
      EXPECT_LE(m.end, FakeMemory::kMax);
      EXPECT_LT(start, m.end);
    }
  });
  if (rounds > 1000) {
    EXPECT_GT(loaded, rounds / 30) << "the mutations are too wild to test anything";
  }
}

}  // namespace
}  // namespace redoubt::loader
