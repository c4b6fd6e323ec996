#include "pkg/sentry/strace/strace.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <bitset>
#include <cctype>
#include <cstring>

#include "pkg/log/log.h"

namespace redoubt::strace {
namespace {

constexpr size_t kMaxString = 64;
constexpr size_t kMaxVector = 8;

std::string Quote(std::span<const std::byte> bytes, bool more) {
  std::string out = "\"";
  for (std::byte b : bytes) {
    unsigned char c = static_cast<unsigned char>(b);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (std::isprint(c)) {
      out += static_cast<char>(c);
    } else {
      out += fmt::format("\\x{:02x}", c);
    }
  }
  out += more ? "\"..." : "\"";
  return out;
}

std::string QuoteString(MemoryIo& memory, Addr addr) {
  if (addr == 0) return "NULL";
  Result<std::string> s = memory.CopyInString(addr, 4096);
  if (!s) return fmt::format("{:#x}", addr);
  bool more = s->size() > kMaxString * 4;
  if (more) s->resize(kMaxString * 4);
  return Quote(std::as_bytes(std::span(*s)), more);
}

std::string QuoteBuffer(MemoryIo& memory, Addr addr, uint64_t length) {
  std::byte bytes[kMaxString];
  size_t want = std::min<uint64_t>(length, kMaxString);
  Result<size_t> n = memory.CopyIn(addr, std::span(bytes, want));
  if (!n) return fmt::format("{:#x}", addr);
  return Quote(std::span(bytes, *n), length > *n);
}

std::string QuoteVector(MemoryIo& memory, Addr addr) {
  std::string out = "[";
  for (size_t i = 0; i < kMaxVector; i++) {
    Result<uint64_t> p = memory.CopyInObject<uint64_t>(addr + i * sizeof(uint64_t));
    if (!p || *p == 0) return out + "]";
    if (i > 0) out += ", ";
    out += QuoteString(memory, *p);
  }
  return out + ", ...]";
}

std::string OpenFlags(int flags) {
  static constexpr struct {
    int bit;
    const char* name;
  } kNames[] = {{O_CREAT, "O_CREAT"},       {O_EXCL, "O_EXCL"},         {O_TRUNC, "O_TRUNC"},
                {O_APPEND, "O_APPEND"},     {O_NONBLOCK, "O_NONBLOCK"}, {O_DIRECTORY, "O_DIRECTORY"},
                {O_NOFOLLOW, "O_NOFOLLOW"}, {O_CLOEXEC, "O_CLOEXEC"},   {O_PATH, "O_PATH"},
                {O_NOCTTY, "O_NOCTTY"}};
  std::string out = (flags & O_ACCMODE) == O_RDONLY   ? "O_RDONLY"
                    : (flags & O_ACCMODE) == O_WRONLY ? "O_WRONLY"
                                                      : "O_RDWR";
  for (const auto& n : kNames) {
    if ((flags & n.bit) != 0) out += fmt::format("|{}", n.name);
  }
  return out;
}

std::string Protection(int prot) {
  if (prot == PROT_NONE) return "PROT_NONE";
  std::string out;
  for (auto [bit, name] : {std::pair{PROT_READ, "PROT_READ"}, {PROT_WRITE, "PROT_WRITE"}, {PROT_EXEC, "PROT_EXEC"}}) {
    if ((prot & bit) == 0) continue;
    if (!out.empty()) out += '|';
    out += name;
  }
  return out;
}

std::string Argument(MemoryIo& memory, char kind, const kernel::SyscallArgs& args, int i,
                     const Result<uint64_t>* result) {
  uint64_t v = args.v[i];
  switch (kind) {
    case 'd':
    case 'f':
      return std::to_string(args.I32(i));
    case 'a':
      return args.I32(i) == AT_FDCWD ? "AT_FDCWD" : std::to_string(args.I32(i));
    case 'u':
      return std::to_string(v);
    case 'o':
      return fmt::format("{:#o}", args.U32(i));
    case 's':
      return QuoteString(memory, v);
    case 'b':
      return QuoteBuffer(memory, v, i < 5 ? args.v[i + 1] : 0);
    case 'B':
      return result != nullptr && *result ? QuoteBuffer(memory, v, **result) : fmt::format("{:#x}", v);
    case 'S': {
      const char* name = sigabbrev_np(args.I32(i));
      return name != nullptr ? fmt::format("SIG{}", name) : std::to_string(args.I32(i));
    }
    case 'O':
      return OpenFlags(args.I32(i));
    case 'M':
      return Protection(args.I32(i));
    case 'V':
      return v == 0 ? "NULL" : QuoteVector(memory, v);
    case 't': {
      if (v == 0) return "NULL";
      Result<timespec> ts = memory.CopyInObject<timespec>(v);
      return ts ? fmt::format("{{{}, {}}}", ts->tv_sec, ts->tv_nsec) : fmt::format("{:#x}", v);
    }
    default:
      return v == 0 ? (kind == 'p' || kind == 'T' ? "NULL" : "0") : fmt::format("{:#x}", v);
  }
}

// Empty: all.
std::bitset<syscalls::kTableSize> wanted;

// Calls whose result is an address.
bool ReturnsAddress(uint64_t number) { return number == SYS_mmap || number == SYS_brk || number == SYS_mremap; }

}  // namespace

std::string Format(MemoryIo& memory, uint64_t number, const syscalls::Entry& entry, const kernel::SyscallArgs& args,
                   const Result<uint64_t>* result) {
  std::string line = entry.name.empty() ? fmt::format("syscall_{}", number) : std::string(entry.name);
  line += '(';
  for (size_t i = 0; i < entry.arguments.size() && i < 6; i++) {
    if (i > 0) line += ", ";
    line += Argument(memory, entry.arguments[i], args, static_cast<int>(i), result);
  }
  line += ')';
  if (result == nullptr) return line + " ...";
  if (!*result) return line + fmt::format(" = -1 {}", result->error().name());
  if (ReturnsAddress(number)) return line + fmt::format(" = {:#x}", **result);
  return line + fmt::format(" = {}", static_cast<int64_t>(**result));
}

Result<> Only(const std::vector<std::string>& names) {
  std::bitset<syscalls::kTableSize> numbers;
  for (const std::string& name : names) {
    uint64_t n = 0;
    while (n < syscalls::kTableSize && syscalls::Lookup(n).name != name) n++;
    if (name.empty() || n == syscalls::kTableSize) return Err(ENOENT);
    numbers.set(n);
  }
  wanted = numbers;
  return {};
}

void Trace(kernel::Task& task, uint64_t number, const syscalls::Entry& entry, const kernel::SyscallArgs& args,
           const Result<uint64_t>* result) {
  if (wanted.any() && (number >= wanted.size() || !wanted.test(number))) return;
  // What may replace the memory its arguments are in is written before; all else when the result is known.
  bool before = number == SYS_execve || number == SYS_execveat || number == SYS_exit || number == SYS_exit_group ||
                number == SYS_rt_sigreturn;
  if ((result == nullptr) != before) {
    if (!(before && result != nullptr && !*result)) return;
  }
  LOG_WARNING("[{}:{} {}] {}", task.group().id, task.tid(), task.GetName(),
              Format(task.mm(), number, entry, args, result));
}

}  // namespace redoubt::strace
