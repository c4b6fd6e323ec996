#include "pkg/seccomp/violation.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>

#include "pkg/log/log.h"

namespace redoubt::seccomp {
namespace {

constexpr int kCodeSeccomp = 1;  // SYS_SECCOMP of asm-generic/siginfo.h

ViolationHooks g_hooks;

// The thread that reports, by its thread pointer; and whoever comes second.
std::atomic<void*> g_reporting{nullptr};

// The call itself: what a sanitizer does at the end of a process is not in the list.
[[noreturn]] void End() {
  syscall(SYS_exit_group, kViolationStatus);
  __builtin_unreachable();
}

void OnTrap(int, siginfo_t* info, void* context) {
  void* none = nullptr;
  if (!g_reporting.compare_exchange_strong(none, __builtin_thread_pointer())) {
    // The report itself may do what is not allowed. Another thread waits for the end that the report comes to.
    if (none == __builtin_thread_pointer()) End();
    for (;;) __builtin_ia32_pause();
  }
  const greg_t* r = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  if (info->si_code == kCodeSeccomp) {
    const uint64_t number = static_cast<uint32_t>(info->si_syscall);
    std::string_view name = g_hooks.name != nullptr ? g_hooks.name(number) : std::string_view();
    // Nothing is allocated, which the filter may not allow in this thread.
    char text[400];
    auto end = fmt::format_to_n(
        text, sizeof(text),
        "a system call that the filter does not allow: {} {}({:#x}, {:#x}, {:#x}, {:#x}, {:#x}, {:#x}); the process is "
        "ended. Either it was taken over, or its list of calls lacks this one",
        number, name.empty() ? "?" : name, static_cast<uint64_t>(r[REG_RDI]), static_cast<uint64_t>(r[REG_RSI]),
        static_cast<uint64_t>(r[REG_RDX]), static_cast<uint64_t>(r[REG_R10]), static_cast<uint64_t>(r[REG_R8]),
        static_cast<uint64_t>(r[REG_R9]));
    log::Write(log::Level::kError, __FILE__, __LINE__, std::string_view(text, end.out));
    if (g_hooks.report != nullptr) g_hooks.report(context);
  }
  // Not by the signal: init of a PID namespace cannot send itself one that kills.
  End();
}

}  // namespace

void InstallViolationHandler(const ViolationHooks& hooks) {
  g_hooks = hooks;
  struct sigaction action{};
  action.sa_sigaction = &OnTrap;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  CHECK(sigaction(SIGSYS, &action, nullptr) == 0, "sigaction");
  // A blocked signal that is forced kills without a word.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGSYS);
  CHECK(pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0, "pthread_sigmask");
}

}  // namespace redoubt::seccomp
