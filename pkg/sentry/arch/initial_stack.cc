#include "pkg/sentry/arch/initial_stack.h"

#include <elf.h>

#include <cstring>

#include "pkg/platform/registers_amd64.h"

namespace redoubt::arch {
namespace {

constexpr char kPlatform[] = "x86_64";

uint64_t StringBytes(std::span<const std::string> strings) {
  uint64_t n = 0;
  for (const std::string& s : strings) n += s.size() + 1;
  return n;
}

// Writes from high to low addresses.
class Pusher final {
 public:
  Pusher(MemoryIo& memory, Addr top) : memory_(memory), sp_(top) {}

  Result<Addr> Bytes(std::span<const std::byte> bytes) {
    if (bytes.size() > sp_) return Err(EFAULT);
    sp_ -= bytes.size();
    TRY(memory_.CopyOutAll(sp_, bytes));
    return sp_;
  }
  Result<Addr> CString(const std::string& s) { return Bytes(std::as_bytes(std::span(s.c_str(), s.size() + 1))); }
  // One after another upwards; their addresses.
  Result<std::vector<uint64_t>> Strings(std::span<const std::string> strings) {
    std::string block;
    block.reserve(StringBytes(strings));
    for (const std::string& s : strings) block.append(s.c_str(), s.size() + 1);
    uint64_t addr = TRY(Bytes(std::as_bytes(std::span(block))));
    std::vector<uint64_t> addrs;
    for (const std::string& s : strings) {
      addrs.push_back(addr);
      addr += s.size() + 1;
    }
    return addrs;
  }
  Result<> Skip(uint64_t bytes) {
    if (bytes > sp_) return Err(EFAULT);
    sp_ -= bytes;
    return {};
  }
  void Align() { sp_ &= ~Addr{15}; }
  Addr sp() const { return sp_; }

 private:
  MemoryIo& memory_;
  Addr sp_;
};

}  // namespace

uint64_t InitialStackSize(const InitialStackArgs& args) {
  uint64_t words = args.argv.size() + args.envv.size() + 3 + 2 * (args.auxv.size() + 4);
  return 8 + args.filename.size() + 1 + StringBytes(args.argv) + StringBytes(args.envv) + args.skip +
         sizeof(kPlatform) + args.random.size() + words * 8 + 64;
}

Result<InitialStack> BuildInitialStack(MemoryIo& memory, const InitialStackArgs& args) {
  Pusher push(memory, args.top);
  InitialStack result;
  uint64_t zero = 0;
  TRY(push.Bytes(std::as_bytes(std::span(&zero, 1))));
  Addr filename = TRY(push.CString(args.filename));
  result.envv.end = push.sp();
  std::vector<uint64_t> envv = TRY(push.Strings(args.envv));
  result.envv.start = push.sp();
  result.argv.end = push.sp();
  std::vector<uint64_t> argv = TRY(push.Strings(args.argv));
  result.argv.start = push.sp();
  TRY(push.Skip(args.skip));
  push.Align();
  Addr platform = TRY(push.Bytes(std::as_bytes(std::span(kPlatform))));
  Addr random = TRY(push.Bytes(args.random));

  for (const AuxEntry& e : args.auxv) {
    result.auxv.push_back(e.type);
    result.auxv.push_back(e.value);
  }
  for (AuxEntry e : {AuxEntry{AT_RANDOM, random}, AuxEntry{AT_EXECFN, filename}, AuxEntry{AT_PLATFORM, platform},
                     AuxEntry{AT_NULL, 0}}) {
    result.auxv.push_back(e.type);
    result.auxv.push_back(e.value);
  }

  std::vector<uint64_t> words;
  words.push_back(args.argv.size());
  words.insert(words.end(), argv.begin(), argv.end());
  words.push_back(0);
  words.insert(words.end(), envv.begin(), envv.end());
  words.push_back(0);
  words.insert(words.end(), result.auxv.begin(), result.auxv.end());
  // The stack pointer is a multiple of 16 and points at argc.
  push.Align();
  if (words.size() % 2 != 0) TRY(push.Skip(8));
  result.stack_pointer = TRY(push.Bytes(std::as_bytes(std::span(words))));
  return result;
}

platform::Registers InitialRegisters(Addr entry, Addr stack_pointer) {
  platform::Registers regs{};
  regs.rip = entry;
  regs.rsp = stack_pointer;
  regs.orig_rax = ~uint64_t{0};
  platform::SanitizeRegisters(regs);
  return regs;
}

}  // namespace redoubt::arch
