#include "pkg/platform/systrap/template_unsafe.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "pkg/log/log.h"
#include "pkg/platform/bare_process_unsafe.h"
#include "pkg/platform/systrap/control.h"

extern "C" {
extern const char redoubt_systrap_stub_start[];
extern const char redoubt_systrap_stub_end[];
extern const char redoubt_systrap_template_entry[];
extern const char redoubt_systrap_manager_start[];
extern const char redoubt_systrap_manager_end[];
extern const char redoubt_systrap_guest_start[];
extern const char redoubt_systrap_guest_end[];
extern const char redoubt_systrap_syscall[];
extern const char redoubt_systrap_iret[];
extern const char redoubt_systrap_handler[];
extern const char redoubt_systrap_restorer[];
}

namespace redoubt::platform::systrap {
namespace {

constexpr Addr kTaskEnd = 0x7ffffffff000;

Addr InStub(const char* symbol) { return kStubText + static_cast<Addr>(symbol - redoubt_systrap_stub_start); }

// The filter, by address: what the manager's range and what the guest threads' may call. Nothing else is ever executed:
// system calls of guest code are dispatched to the stub before the host looks at any filter. gettimeofday, time and
// getcpu are what the host's vsyscall page does for guest code that calls it.
//
// A program is a list of tests that jump to labels, forward only.
class Filter final {
 public:
  Filter() {
    enum Label { kNext, kKill, kAllow, kStub, kBeyondManager, kGuest, kGuestFutex, kGuestWrite };
    auto start = [](const char* symbol) { return static_cast<uint32_t>(InStub(symbol)); };
    Load(offsetof(seccomp_data, arch));
    Test(BPF_JEQ, AUDIT_ARCH_X86_64, kNext, kKill);
    Load(kIpHigh);
    Test(BPF_JEQ, static_cast<uint32_t>(kStubText >> 32), kStub, kNext);
    Test(BPF_JEQ, 0xffffffff, kNext, kKill);
    Load(kNr);
    for (uint32_t nr : {SYS_gettimeofday, SYS_time, SYS_getcpu}) Test(BPF_JEQ, nr, kAllow, kNext);
    Return(SECCOMP_RET_KILL_PROCESS);

    // The address is the one behind the instruction.
    Here(kStub);
    Load(kIpLow);
    Test(BPF_JGT, start(redoubt_systrap_manager_start), kNext, kKill);
    Test(BPF_JGT, start(redoubt_systrap_manager_end), kBeyondManager, kNext);
    Load(kNr);
    for (uint32_t nr : {SYS_mmap, SYS_munmap, SYS_write, SYS_futex, SYS_clone, SYS_recvmsg, SYS_close, SYS_dup2,
                        SYS_sigaltstack, SYS_prctl, SYS_restart_syscall, SYS_exit_group}) {
      Test(BPF_JEQ, nr, kAllow, kNext);
    }
    Return(SECCOMP_RET_KILL_PROCESS);

    Here(kBeyondManager);
    Test(BPF_JGT, start(redoubt_systrap_guest_start), kNext, kKill);
    Test(BPF_JGT, start(redoubt_systrap_guest_end), kKill, kNext);
    Load(kNr);
    Test(BPF_JEQ, SYS_futex, kGuestFutex, kNext);
    Test(BPF_JEQ, SYS_write, kGuestWrite, kNext);
    Test(BPF_JEQ, SYS_rt_sigreturn, kAllow, kNext);
    Test(BPF_JEQ, SYS_rt_sigprocmask, kAllow, kKill);
    Here(kGuestFutex);
    Load(ArgumentLow(1));
    Test(BPF_JEQ, FUTEX_WAIT, kAllow, kNext);
    Test(BPF_JEQ, FUTEX_WAKE, kAllow, kKill);
    Here(kGuestWrite);
    Load(ArgumentLow(0));
    Test(BPF_JEQ, STUB_FD_WAKE, kNext, kKill);
    Load(ArgumentLow(2));
    Test(BPF_JEQ, 8, kAllow, kKill);

    Here(kKill);
    Return(SECCOMP_RET_KILL_PROCESS);
    Here(kAllow);
    Return(SECCOMP_RET_ALLOW);
    Resolve();
  }

  sock_fprog program() { return {static_cast<uint16_t>(code_.size()), code_.data()}; }

 private:
  static constexpr uint32_t kNr = offsetof(seccomp_data, nr);
  static constexpr uint32_t kIpLow = offsetof(seccomp_data, instruction_pointer);
  static constexpr uint32_t kIpHigh = kIpLow + 4;
  static constexpr uint32_t ArgumentLow(int i) { return offsetof(seccomp_data, args) + 8 * i; }
  static constexpr int kLabels = 16;

  void Add(int code, uint32_t k, int yes, int no) {
    code_.push_back({static_cast<uint16_t>(code), static_cast<uint8_t>(yes), static_cast<uint8_t>(no), k});
  }
  void Load(uint32_t at) { Add(BPF_LD | BPF_W | BPF_ABS, at, 0, 0); }
  // Jumps are labels until Resolve; label 0 is the next instruction.
  void Test(int how, uint32_t k, int yes, int no) { Add(BPF_JMP | how | BPF_K, k, yes, no); }
  void Return(uint32_t what) { Add(BPF_RET | BPF_K, what, 0, 0); }
  void Here(int label) { at_[label] = code_.size(); }
  void Resolve() {
    for (size_t i = 0; i < code_.size(); i++) {
      auto offset = [&](uint8_t label) {
        if (label == 0) return uint8_t{0};
        CHECK(at_[label] > i && at_[label] - i - 1 < 256, "a filter's jump");
        return static_cast<uint8_t>(at_[label] - i - 1);
      };
      if (BPF_CLASS(code_[i].code) != BPF_JMP) continue;
      code_[i].jt = offset(code_[i].jt);
      code_[i].jf = offset(code_[i].jf);
    }
  }

  std::vector<sock_filter> code_;
  size_t at_[kLabels] = {};
};

// SAFETY: the raw system call, for a process whose libc is not to be used any more.
[[gnu::no_sanitize("address", "undefined")]] bool MapAt(Addr addr, uint64_t length, int protection, int flags, int fd,
                                                        uint64_t offset) {
  return syscall(SYS_mmap, addr, length, protection, flags | MAP_FIXED, fd, offset) == static_cast<long>(addr);
}

struct TemplateArguments {
  pid_t parent;
  int fds[5];
  sock_fprog program;
};

// What .Lnew_process receives descriptors with, at SLOT_RESUME of the template's own first slot.
struct Receive {
  msghdr header;
  uint64_t unused;
  iovec vector;
  uint64_t data;
  alignas(8) char padding[0x80 - sizeof(msghdr) - sizeof(iovec) - 16];
  char control[0x100];
};
static_assert(offsetof(Receive, control) == 0x80 && offsetof(msghdr, msg_controllen) == 40 &&
              offsetof(msghdr, msg_control) == 32 && sizeof(cmsghdr) == 16);

// SAFETY: runs in the child of a fork of a program with threads: raw system calls only, no lock, no allocation. What it
// leaves (stack, libc) is unmapped at its end. The sanitizers would make calls that the filter kills.
[[noreturn, gnu::no_sanitize("address", "undefined")]] void TemplateMain(const TemplateArguments& a) {
  if (!BecomeBare(a.parent, a.fds, 5)) syscall(SYS_exit_group, 2);
  // Part of the Sentry may be where the stub is to be.
  if (syscall(SYS_munmap, kSlots, kTaskEnd - kSlots) != 0) syscall(SYS_exit_group, 3);
  bool mapped =
      MapAt(kStubText, kStubTextSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) &&
      MapAt(STUB_GLOBAL, kPageSize, PROT_READ, MAP_SHARED, STUB_FD_CONTROL, 0) &&
      MapAt(STUB_COMMAND, kPageSize, PROT_READ, MAP_SHARED, STUB_FD_CONTROL, ControlFile::CommandOffset(0)) &&
      MapAt(STUB_DOORBELLS, STUB_DOORBELLS_SIZE, PROT_READ, MAP_SHARED, STUB_FD_CONTROL, ControlFile::kDoorbells) &&
      MapAt(kSlots, kMaxSlots * kSlotSize, PROT_READ | PROT_WRITE, MAP_SHARED, STUB_FD_CONTROL,
            ControlFile::SlotsOffset(0));
  if (!mapped) syscall(SYS_exit_group, 4);
  // A loop, since memcpy may be intercepted.
  volatile char* to = reinterpret_cast<volatile char*>(kStubText);
  for (const char* from = redoubt_systrap_stub_start; from != redoubt_systrap_stub_end; from++) *to++ = *from;
  if (syscall(SYS_mprotect, kStubText, kStubTextSize, PROT_READ | PROT_EXEC) != 0) syscall(SYS_exit_group, 5);

  auto* receive = reinterpret_cast<Receive*>(kSlots + SLOT_RESUME);
  receive->vector.iov_base = &receive->data;
  receive->vector.iov_len = 1;
  receive->header.msg_iov = &receive->vector;
  receive->header.msg_iovlen = 1;
  receive->header.msg_control = receive->control;

  constexpr uint64_t kRestorer = 0x04000000;  // SA_RESTORER
  KernelSigaction action;
  action.handler = reinterpret_cast<void (*)(int)>(InStub(redoubt_systrap_handler));
  action.restorer = reinterpret_cast<void*>(InStub(redoubt_systrap_restorer));
  action.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | kRestorer;
  const int signals[] = {SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGURG};
  for (int signal : signals) {
    if (syscall(SYS_rt_sigaction, signal, &action, nullptr, sizeof(uint64_t)) != 0) syscall(SYS_exit_group, 6);
  }
  if (syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &a.program, 0, 0) != 0) syscall(SYS_exit_group, 7);
  // SAFETY: nothing of this process is used again; the stub needs no stack.
  asm volatile("xorl %%esp, %%esp\n\tjmp *%0" : : "r"(InStub(redoubt_systrap_template_entry)), "D"(0), "S"(kSlots));
  __builtin_unreachable();
}

}  // namespace

Result<pid_t> SpawnTemplate(const TemplateFds& fds) {
  CHECK(redoubt_systrap_stub_end - redoubt_systrap_stub_start <= static_cast<long>(kStubTextSize), "the stub's size");
  Filter filter;
  TemplateArguments arguments{
      .parent = getpid(),
      .fds = {fds.memory, fds.control, fds.wake, fds.ack, fds.socket},
      .program = filter.program(),
  };
  // SAFETY: fork without libc's handlers. No exit signal, so that nothing but a wait that names it hears of it.
  long pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
  if (pid == 0) TemplateMain(arguments);
  if (pid < 0) return ErrFromHost();
  return static_cast<pid_t>(pid);
}

const StubAddresses& Stub() {
  static const StubAddresses addresses{.syscall = InStub(redoubt_systrap_syscall),
                                       .guest_start = InStub(redoubt_systrap_guest_start),
                                       .guest_end = InStub(redoubt_systrap_guest_end),
                                       .iret = InStub(redoubt_systrap_iret)};
  return addresses;
}

}  // namespace redoubt::platform::systrap
