#include "pkg/sentry/loader/loader.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

#include "pkg/sentry/arch/hwcap.h"
#include "pkg/sentry/arch/initial_stack.h"
#include "pkg/sentry/arch/signal_frame.h"
#include "pkg/sentry/loader/elf_file.h"
#include "pkg/sentry/loader/elf_loader.h"
#include "pkg/sentry/loader/program_memory.h"
#include "pkg/sentry/loader/script.h"
#include "pkg/sentry/loader/vdso/vdso.h"

namespace redoubt::loader {
namespace {

// execve(2), "Limits on size of arguments and environment".
constexpr uint64_t kMaxArgumentBytes = 6 << 20;
constexpr uint64_t kMinArgumentBytes = 128 << 10;
constexpr size_t kMaxStringLength = 128 << 10;
// A script whose interpreter is a script, and so on.
constexpr int kMaxScripts = 5;

// Where position-independent programs go: two thirds up, as on Linux, and up to 2^28 pages further.
constexpr Addr kProgramBase = 0x555555554000;
constexpr uint64_t kProgramRandomPages = uint64_t{1} << 28;
// Linux's vm.mmap_rnd_bits.
constexpr uint64_t kMappingRandomPages = uint64_t{1} << 28;
constexpr uint64_t kStackRandomPages = mm::MemoryManager::kMostStackRandom / kPageSize;
constexpr uint64_t kBrkRandomPages = 1 << 13;
constexpr uint64_t kStackSlack = 128 << 10;  // beyond the arguments, at start
constexpr uint64_t kVectorRandomBytes = 8192;

class MmProgramMemory final : public ProgramMemory {
 public:
  explicit MmProgramMemory(mm::MemoryManager& mm) : mm_(mm) {}
  Result<Addr> MMap(mm::MMapOptions options) override { return mm_.MMap(std::move(options)); }
  Result<> MUnmap(Addr addr, uint64_t length) override { return mm_.MUnmap(addr, length); }
  MemoryIo& io() override { return mm_; }

 private:
  mm::MemoryManager& mm_;
};

// Below `bound`, which is a power of two.
uint64_t Random(const Args& args, uint64_t bound) {
  uint64_t value = 0;
  if (args.random && args.randomize) args.random(std::as_writable_bytes(std::span(&value, 1)));
  return value & (bound - 1);
}

ReadAt Reader(vfs::FileDescription& file) {
  return [&file](uint64_t offset, std::span<std::byte> dst) -> Result<size_t> {
    BufferIo io(dst);
    IoSequence sequence(io, 0, dst.size());
    return file.PRead(sequence, offset, 0);
  };
}

ConfigureFile Configurer(vfs::FileDescription& file) {
  return [&file](mm::MMapOptions& options) { return file.ConfigureMMap(options); };
}

// Everything that is left when scripts have been replaced by their interpreters.
struct Program {
  RefPtr<vfs::FileDescription> file;
  std::vector<std::string> argv;
};

Result<Program> ResolveScripts(const Args& args) {
  Program program{args.file, args.argv};
  // As Linux since 5.18: a program may count on argv[0].
  if (program.argv.empty()) program.argv.emplace_back();
  std::string name = args.filename;
  for (int scripts = 0;; scripts++) {
    char start[kMaxScriptLine];
    ReadAt read = Reader(*program.file);
    size_t length = 0;
    while (length < sizeof(start)) {
      size_t n = TRY(read(length, std::as_writable_bytes(std::span(start)).subspan(length)));
      if (n == 0) break;
      length += n;
    }
    std::optional<ScriptLine> script = TRY(ParseScript({start, length}));
    if (!script) return program;
    if (scripts == kMaxScripts) return Err(ELOOP);
    std::vector<std::string> argv = {script->interpreter};
    if (script->argument) argv.push_back(*script->argument);
    argv.push_back(name);
    argv.insert(argv.end(), program.argv.begin() + 1, program.argv.end());
    program.argv = std::move(argv);
    name = script->interpreter;
    program.file = TRY(args.open(name));
  }
}

Result<> CheckArguments(const Args& args, const Program& program) {
  uint64_t total = (program.argv.size() + args.envv.size()) * sizeof(uint64_t) + args.filename.size() + 1;
  for (const auto* strings : {&program.argv, &args.envv}) {
    for (const std::string& s : *strings) {
      if (s.size() >= kMaxStringLength) return Err(E2BIG);
      total += s.size() + 1;
    }
  }
  if (total > ArgumentLimit(args.stack_limit)) return Err(E2BIG);
  return {};
}

Result<ElfFile> ReadInterpreterElf(vfs::FileDescription& file) {
  Result<ElfFile> elf = ReadElf(Reader(file));
  if (!elf && elf.error() == Errno(ENOEXEC)) return Err(ELIBBAD);
  return elf;
}

// A stack with room for `bytes`, its top somewhere near the top of the address space; returns its end.
Result<Addr> MapStack(const Args& args, uint64_t bytes, bool executable, ProgramMemory& memory) {
  uint64_t length = MustPageRoundUp(bytes + kStackSlack);
  mm::MMapOptions options{.length = length, .grows_down = true, .access = kReadWrite, .name = "[stack]"};
  options.access.execute = executable;
  Addr start = TRY(memory.MMap(options));
  uint64_t lower = Random(args, kStackRandomPages) * kPageSize;
  if (lower == 0 || lower > start) return start + length;
  TRY(memory.MUnmap(start, length));
  options.addr = start - lower;
  options.fixed = true;
  return TRY(memory.MMap(options)) + length;
}

}  // namespace

uint64_t ArgumentLimit(uint64_t stack_limit) {
  return std::max(std::min(stack_limit / 4, kMaxArgumentBytes), kMinArgumentBytes);
}

Result<Image> Load(const Args& args, mm::MemoryManager& mm) {
  MmProgramMemory memory(mm);
  Program program = TRY(ResolveScripts(args));
  TRY(CheckArguments(args, program));
  ElfFile elf = TRY(ReadElf(Reader(*program.file)));
  RefPtr<vfs::FileDescription> interpreter_file;
  std::optional<ElfFile> interpreter;
  if (elf.interpreter) {
    interpreter_file = TRY(args.open(*elf.interpreter));
    interpreter = TRY(ReadInterpreterElf(*interpreter_file));
  }

  mm.LowerMappings(Random(args, kMappingRandomPages) * kPageSize);
  // An interpreter that is run as a program, and a static PIE, go where mappings go: the base is for what has a heap
  // above it.
  Addr base = interpreter ? kProgramBase + Random(args, kProgramRandomPages) * kPageSize : 0;
  LoadedElf loaded = TRY(LoadElf(elf, base, Configurer(*program.file), memory));
  Addr entry = loaded.Relocate(elf.entry);
  Addr interpreter_base = 0;
  if (interpreter) {
    Result<LoadedElf> l = LoadElf(*interpreter, 0, Configurer(*interpreter_file), memory);
    if (!l) return Err(l.error() == Errno(ENOEXEC) ? Errno(ELIBBAD) : l.error());
    interpreter_base = l->bias;
    entry = l->Relocate(interpreter->entry);
  }
  // The heap of a program in the mapping area would have no room to grow.
  Addr brk = elf.position_independent && !interpreter ? kProgramBase : loaded.end;
  brk += Random(args, kBrkRandomPages) * kPageSize;
  mm.SetBrkStart(brk);
  Addr vdso = args.vdso != nullptr ? TRY(args.vdso->Map(memory)) : 0;

  arch::InitialStackArgs stack;
  stack.argv = program.argv;
  stack.envv = args.envv;
  stack.filename = args.filename;
  if (args.random) args.random(stack.random);
  stack.skip = Random(args, kVectorRandomBytes);
  const auth::Credentials* creds = args.creds;
  if (vdso != 0) stack.auxv.push_back({AT_SYSINFO_EHDR, vdso});
  stack.auxv.push_back({AT_MINSIGSTKSZ, arch::MaxSignalFrameSize()});
  stack.auxv.push_back({AT_HWCAP, arch::Hwcap()});
  stack.auxv.push_back({AT_PAGESZ, kPageSize});
  stack.auxv.push_back({AT_CLKTCK, 100});
  stack.auxv.push_back({AT_PHDR, elf.program_headers != 0 ? loaded.Relocate(elf.program_headers) : 0});
  stack.auxv.push_back({AT_PHENT, sizeof(Elf64_Phdr)});
  stack.auxv.push_back({AT_PHNUM, elf.program_header_count});
  stack.auxv.push_back({AT_BASE, interpreter_base});
  stack.auxv.push_back({AT_FLAGS, 0});
  stack.auxv.push_back({AT_ENTRY, loaded.Relocate(elf.entry)});
  stack.auxv.push_back({AT_UID, creds != nullptr ? creds->ruid : 0});
  stack.auxv.push_back({AT_EUID, creds != nullptr ? creds->euid : 0});
  stack.auxv.push_back({AT_GID, creds != nullptr ? creds->rgid : 0});
  stack.auxv.push_back({AT_EGID, creds != nullptr ? creds->egid : 0});
  stack.auxv.push_back({AT_SECURE, args.secure ? 1u : 0u});
  stack.auxv.push_back({AT_HWCAP2, arch::kHwcap2});
  stack.top = TRY(MapStack(args, arch::InitialStackSize(stack), elf.executable_stack, memory));
  Result<arch::InitialStack> built = arch::BuildInitialStack(mm, stack);
  // Only memory can be short here: the mapping was made to fit.
  if (!built) return Err(built.error() == Errno(EFAULT) ? Errno(ENOMEM) : built.error());

  mm.SetExecInfo({.argv = built->argv,
                  .envv = built->envv,
                  .auxv = built->auxv,
                  .start_stack = built->stack_pointer,
                  .code = loaded.code,
                  .data = loaded.data,
                  .start_brk = brk,
                  .executable = program.file});
  Image image;
  image.regs = arch::InitialRegisters(entry, built->stack_pointer);
  size_t slash = args.filename.rfind('/');
  image.name = slash == std::string::npos ? args.filename : args.filename.substr(slash + 1);
  image.executable = program.file;
  return image;
}

}  // namespace redoubt::loader
