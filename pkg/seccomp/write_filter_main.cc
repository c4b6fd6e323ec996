// Run at build time: reads lists of allowed system calls and writes a header with a BPF program that allows those and
// traps at any other, and with the lists themselves as a table (rule.h), for tests and for reports.
//
//   write_filter VARIABLE LIST... > filter.h
//
// A line of a list:  CALL [CONDITION [&& CONDITION]...] [errno NAME] [rare]     # a comment
//   CONDITION  argN == VALUE | argN & MASK == VALUE; VALUE and MASK are numbers, constants of the table below joined by
//              "|", or SELF, which is the process that installs the filter
//   errno      the call is answered by that error and not made
//   rare       no test of the whole makes it; the comment says who does
// Several lines of one call are alternatives. The order is that of the program: what is called most often stands first.
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/kvm.h>
#include <linux/ptrace.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "pkg/seccomp/rule.h"

// <sys/ioctl.h> and <asm/termbits.h> exclude each other.
#include <asm/ioctls.h>

namespace {

using redoubt::seccomp::Condition;
using redoubt::seccomp::kSelf;

#define NAMED(name) {#name, static_cast<uint64_t>(name)}
const std::map<std::string, uint64_t>& Constants() {
  static const std::map<std::string, uint64_t> constants = {
      {"SELF", kSelf},
      NAMED(SOCK_CLOEXEC),
      NAMED(SOCK_NONBLOCK),
      NAMED(MFD_CLOEXEC),
      NAMED(F_GET_SEALS),
      NAMED(F_SETFL),
      NAMED(PROT_EXEC),
      NAMED(CLONE_VM),
      NAMED(CLONE_FS),
      NAMED(CLONE_FILES),
      NAMED(CLONE_SIGHAND),
      NAMED(CLONE_THREAD),
      NAMED(CLONE_SYSVSEM),
      NAMED(CLONE_SETTLS),
      NAMED(CLONE_PARENT_SETTID),
      NAMED(CLONE_CHILD_CLEARTID),
      NAMED(PR_SET_NAME),
      NAMED(PR_SET_VMA),
      NAMED(F_GETFL),
      NAMED(F_GETFD),
      NAMED(F_SETFD),
      NAMED(F_DUPFD_CLOEXEC),
      NAMED(FALLOC_FL_PUNCH_HOLE),
      NAMED(FALLOC_FL_KEEP_SIZE),
      NAMED(MADV_DONTNEED),
      NAMED(MADV_FREE),
      NAMED(MADV_DONTDUMP),
      NAMED(MADV_HUGEPAGE),
      NAMED(MADV_NOHUGEPAGE),
      NAMED(SIGABRT),
      NAMED(SIGSEGV),
      NAMED(SIGBUS),
      NAMED(SIGFPE),
      NAMED(SIGILL),
      NAMED(SIGKILL),
      NAMED(SIGURG),
      NAMED(O_CLOEXEC),
      NAMED(ENOSYS),
      NAMED(ENOMEM),
      NAMED(EPERM),
      NAMED(EINVAL),
      NAMED(ENOENT),
      NAMED(EACCES),
      NAMED(AT_EMPTY_PATH),
      NAMED(__WALL),
      NAMED(TCGETS),
      NAMED(TCSETS),
      NAMED(TCSETSW),
      NAMED(TCSETSF),
      NAMED(TCGETS2),
      NAMED(TCSETS2),
      NAMED(TCSETSW2),
      NAMED(TCSETSF2),
      NAMED(TIOCGWINSZ),
      NAMED(TIOCSWINSZ),
      NAMED(TIOCOUTQ),
      NAMED(TCSBRK),
      NAMED(TCXONC),
      NAMED(TCFLSH),
      NAMED(FIONREAD),
      NAMED(KVM_RUN),
      NAMED(KVM_CREATE_VCPU),
      NAMED(KVM_SET_USER_MEMORY_REGION),
      NAMED(KVM_SET_DEVICE_ATTR),
      NAMED(KVM_GET_SREGS),
      NAMED(KVM_SET_SREGS),
      NAMED(KVM_SET_XCRS),
      NAMED(KVM_GET_VCPU_EVENTS),
      NAMED(KVM_SET_VCPU_EVENTS),
      // linux/kvm.h's own definitions of these have another size in C++ (api_unsafe.h).
      {"KVM_SET_CPUID2", _IOC(_IOC_WRITE, KVMIO, 0x90, 8)},
      {"KVM_SET_MSRS", _IOC(_IOC_WRITE, KVMIO, 0x89, 8)},
      {"KVM_GET_XSAVE2", _IOC(_IOC_READ, KVMIO, 0xcf, 4096)},
      {"KVM_SET_XSAVE", _IOC(_IOC_WRITE, KVMIO, 0xa5, 4096)},
      NAMED(PTRACE_CONT),
      NAMED(PTRACE_GETREGS),
      NAMED(PTRACE_SETREGS),
      NAMED(PTRACE_DETACH),
      {"PTRACE_SYSEMU", 31},
      NAMED(PTRACE_GETEVENTMSG),
      NAMED(PTRACE_GETSIGINFO),
      NAMED(PTRACE_GETREGSET),
      NAMED(PTRACE_SETREGSET),
      NAMED(PTRACE_SEIZE),
      NAMED(PTRACE_INTERRUPT),
      NAMED(PTRACE_SETSIGMASK),
      NAMED(PTRACE_GET_SYSCALL_INFO),
      NAMED(AF_INET),
      NAMED(AF_INET6),
      NAMED(SOCK_STREAM),
      NAMED(SOCK_DGRAM),
      NAMED(IPPROTO_ICMP),
      NAMED(IPPROTO_ICMPV6),
      NAMED(SOL_SOCKET),
      NAMED(SO_REUSEADDR),
      NAMED(SO_REUSEPORT),
      NAMED(SO_KEEPALIVE),
      NAMED(SO_BROADCAST),
      NAMED(SO_OOBINLINE),
      NAMED(SO_DONTROUTE),
      NAMED(SO_SNDBUF),
      NAMED(SO_RCVBUF),
      NAMED(SO_RCVLOWAT),
      NAMED(SO_PRIORITY),
      NAMED(SO_NO_CHECK),
      NAMED(SO_RXQ_OVFL),
      NAMED(SO_TIMESTAMP),
      NAMED(SO_TIMESTAMPNS),
      NAMED(SO_BINDTOIFINDEX),
      NAMED(SO_BINDTODEVICE),
      NAMED(SO_LINGER),
      NAMED(SO_ERROR),
      NAMED(SO_ACCEPTCONN),
      NAMED(SO_SNDLOWAT),
      NAMED(SO_INCOMING_CPU),
      NAMED(IPPROTO_TCP),
      NAMED(TCP_NODELAY),
      NAMED(TCP_MAXSEG),
      NAMED(TCP_CORK),
      NAMED(TCP_KEEPIDLE),
      NAMED(TCP_KEEPINTVL),
      NAMED(TCP_KEEPCNT),
      NAMED(TCP_SYNCNT),
      NAMED(TCP_LINGER2),
      NAMED(TCP_DEFER_ACCEPT),
      NAMED(TCP_WINDOW_CLAMP),
      NAMED(TCP_QUICKACK),
      NAMED(TCP_USER_TIMEOUT),
      NAMED(TCP_FASTOPEN),
      NAMED(TCP_NOTSENT_LOWAT),
      NAMED(TCP_CONGESTION),
      NAMED(TCP_INFO),
      NAMED(IPPROTO_UDP),
      NAMED(UDP_CORK),
      NAMED(UDP_SEGMENT),
      NAMED(UDP_GRO),
      NAMED(IPPROTO_IP),
      NAMED(IP_TOS),
      NAMED(IP_TTL),
      NAMED(IP_MINTTL),
      NAMED(IP_MTU_DISCOVER),
      NAMED(IP_RECVERR),
      NAMED(IP_PKTINFO),
      NAMED(IP_RECVTTL),
      NAMED(IP_RECVTOS),
      NAMED(IP_FREEBIND),
      NAMED(IP_RECVOPTS),
      NAMED(IP_RETOPTS),
      NAMED(IP_UNICAST_IF),
      NAMED(MCAST_JOIN_GROUP),
      NAMED(MCAST_LEAVE_GROUP),
      NAMED(TCP_FASTOPEN_CONNECT),
      NAMED(IP_BIND_ADDRESS_NO_PORT),
      NAMED(IP_MULTICAST_TTL),
      NAMED(IP_MULTICAST_LOOP),
      NAMED(IP_MULTICAST_ALL),
      NAMED(IP_MULTICAST_IF),
      NAMED(IP_ADD_MEMBERSHIP),
      NAMED(IP_DROP_MEMBERSHIP),
      NAMED(IP_MTU),
      NAMED(IPPROTO_IPV6),
      NAMED(IPV6_V6ONLY),
      NAMED(IPV6_FREEBIND),
      NAMED(IPV6_MINHOPCOUNT),
      NAMED(IPV6_UNICAST_IF),
      NAMED(IPV6_UNICAST_HOPS),
      NAMED(IPV6_TCLASS),
      NAMED(IPV6_MTU_DISCOVER),
      NAMED(IPV6_DONTFRAG),
      NAMED(IPV6_RECVERR),
      NAMED(IPV6_RECVPKTINFO),
      NAMED(IPV6_RECVHOPLIMIT),
      NAMED(IPV6_RECVTCLASS),
      NAMED(IPV6_AUTOFLOWLABEL),
      NAMED(IPV6_ADDR_PREFERENCES),
      NAMED(IPV6_MULTICAST_HOPS),
      NAMED(IPV6_MULTICAST_LOOP),
      NAMED(IPV6_MULTICAST_ALL),
      NAMED(IPV6_MULTICAST_IF),
      NAMED(IPV6_ADD_MEMBERSHIP),
      NAMED(IPV6_DROP_MEMBERSHIP),
      NAMED(IPV6_MTU),
      NAMED(SIOCATMARK),
      NAMED(SIOCOUTQNSD),
  };
  return constants;
}
#undef NAMED

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "write_filter: %s\n", what.c_str());
  std::exit(1);
}

uint64_t Value(const std::string& text, const std::string& where) {
  uint64_t value = 0;
  std::stringstream parts(text);
  std::string part;
  while (std::getline(parts, part, '|')) {
    if (auto it = Constants().find(part); it != Constants().end()) {
      value |= it->second;
      continue;
    }
    char* end = nullptr;
    errno = 0;
    value |= std::strtoull(part.c_str(), &end, 0);
    if (part.empty() || *end != 0 || errno != 0) Fail(where + ": neither a number nor a known constant: " + part);
  }
  return value;
}

struct Parsed {
  std::string name;
  int number = 0;
  std::vector<Condition> conditions;
  int error = 0;
  bool rare = false;
};

Condition ParseCondition(std::istringstream& words, const std::string& argument, const std::string& where) {
  Condition c;
  if (argument.size() != 4 || !argument.starts_with("arg") || argument[3] < '0' || argument[3] > '5') {
    Fail(where + ": not an argument: " + argument);
  }
  c.argument = argument[3] - '0';
  c.mask = ~uint64_t{0};
  std::string op, operand;
  words >> op >> operand;
  if (op == "&") {
    c.mask = Value(operand, where);
    words >> op >> operand;
  }
  if (op != "==") Fail(where + ": == expected, not \"" + op + "\"");
  c.value = Value(operand, where);
  if ((c.value & ~c.mask) != 0) Fail(where + ": can never be true");
  return c;
}

std::optional<Parsed> Parse(std::string line, const std::string& where) {
  std::istringstream words(line.substr(0, line.find('#')));
  Parsed p;
  if (!(words >> p.name)) return std::nullopt;
  p.number = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, p.name.c_str());
  if (p.number < 0) Fail(where + ": no system call is called " + p.name);
  std::string word;
  bool more = true;  // a condition may follow
  while (words >> word) {
    if (word == "rare") {
      p.rare = true;
    } else if (word == "errno") {
      words >> word;
      p.error = static_cast<int>(Value(word, where));
    } else if (word == "&&") {
      if (p.conditions.empty() || more) Fail(where + ": && without a condition before it");
      more = true;
    } else {
      if (!more) Fail(where + ": && expected, not " + word);
      p.conditions.push_back(ParseCondition(words, word, where));
      more = false;
    }
  }
  if (p.conditions.size() > redoubt::seccomp::kMaxConditions) Fail(where + ": too many conditions");
  return p;
}

std::vector<Parsed> ReadLists(int count, char** paths) {
  std::vector<Parsed> rules;
  for (int i = 0; i < count; i++) {
    std::ifstream list(paths[i]);
    if (!list) Fail(std::string(paths[i]) + ": " + std::strerror(errno));
    std::string line;
    for (int n = 1; std::getline(list, line); n++) {
      std::optional<Parsed> p = Parse(line, std::string(paths[i]) + ":" + std::to_string(n));
      if (p) rules.push_back(*p);
    }
  }
  return rules;
}

void Add(scmp_filter_ctx context, const Parsed& p) {
  std::vector<scmp_arg_cmp> comparisons;
  for (const Condition& c : p.conditions) {
    comparisons.push_back({.arg = static_cast<unsigned>(c.argument),
                           .op = c.mask == ~uint64_t{0} ? SCMP_CMP_EQ : SCMP_CMP_MASKED_EQ,
                           .datum_a = c.mask == ~uint64_t{0} ? c.value : c.mask,
                           .datum_b = c.mask == ~uint64_t{0} ? 0 : c.value});
  }
  uint32_t action = p.error != 0 ? SCMP_ACT_ERRNO(static_cast<uint32_t>(p.error)) : SCMP_ACT_ALLOW;
  int r =
      seccomp_rule_add_array(context, action, p.number, static_cast<unsigned>(comparisons.size()), comparisons.data());
  if (r != 0) Fail(p.name + ": " + std::strerror(-r));
}

void WriteProgram(scmp_filter_ctx context, const char* variable) {
  FILE* out = std::tmpfile();
  if (out == nullptr || seccomp_export_bpf(context, fileno(out)) != 0) Fail("seccomp_export_bpf failed");
  std::rewind(out);
  lseek(fileno(out), 0, SEEK_SET);
  std::printf("inline constexpr sock_filter %sProgram[] = {\n", variable);
  sock_filter f;
  while (read(fileno(out), &f, sizeof(f)) == static_cast<ssize_t>(sizeof(f))) {
    std::printf("    {%#x, %u, %u, %#x},\n", f.code, f.jt, f.jf, f.k);
  }
  std::printf("};\n");
}

void WriteTable(const std::vector<Parsed>& rules, const char* variable) {
  std::printf("inline constexpr redoubt::seccomp::Rule %sRules[] = {\n", variable);
  for (const Parsed& p : rules) {
    std::printf("    {\"%s\", %d, %d, %s, %zu, {", p.name.c_str(), p.number, p.error, p.rare ? "true" : "false",
                p.conditions.size());
    for (const Condition& c : p.conditions) {
      std::printf("{%d, %#llxu, %#llxu}, ", c.argument, static_cast<unsigned long long>(c.mask),
                  static_cast<unsigned long long>(c.value));
    }
    std::printf("}},\n");
  }
  std::printf("};\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) Fail("usage: write_filter VARIABLE LIST...");
  std::vector<Parsed> rules = ReadLists(argc - 2, argv + 2);
  // A foreign architecture's or x32's number never reaches the rules.
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_TRAP);
  if (context == nullptr || seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) != 0) {
    Fail("seccomp_init failed");
  }
  uint8_t priority = 255;
  for (const Parsed& p : rules) {
    Add(context, p);
    if (seccomp_syscall_priority(context, p.number, priority) != 0) Fail(p.name + ": no priority");
    if (priority > 1) priority--;
  }
  std::printf(
      "// Written by write_filter at build time.\n#include <linux/filter.h>\n\n#include \"pkg/seccomp/rule.h\"\n\n");
  WriteProgram(context, argv[1]);
  WriteTable(rules, argv[1]);
  return 0;
}
