#include "runsc/boot/crash.h"

#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <span>
#include <string>

#include "pkg/errors/errors.h"
#include "pkg/log/log.h"
#include "pkg/safecopy/safecopy_unsafe.h"
#include "pkg/seccomp/violation.h"

namespace redoubt::boot {
namespace {

constexpr int kMaxFrames = 64;

// The chain of frame pointers from `frame` on (everything here is compiled with them). Not backtrace(3): in a static
// program that sorts all unwind tables before its first answer, which is neither safe in a crash nor quick at a start.
int Walk(uint64_t frame, std::span<uint64_t> addresses) {
  constexpr uint64_t kMaxFrame = 1 << 20;
  size_t n = 0;
  while (n < addresses.size() && frame != 0 && (frame & 7) == 0) {
    struct {
      uint64_t next, address;
    } pair;
    // SAFETY: a copy that a fault ends.
    Result<size_t> got =
        safecopy::CopyIn(std::as_writable_bytes(std::span(&pair, 1)), reinterpret_cast<const std::byte*>(frame));
    if (!got || *got != sizeof(pair) || pair.address == 0) break;
    addresses[n++] = pair.address;
    if (pair.next <= frame || pair.next - frame > kMaxFrame) break;
    frame = pair.next;
  }
  return static_cast<int>(n);
}

// Addresses only: symbols are found afterwards, with addr2line, from the same binary. Nothing is allocated here that
// the crash may have broken, but for the log's own line.
void LogBacktrace(std::string_view why, uint64_t rip, uint64_t frame) {
  uint64_t addresses[kMaxFrames];
  int n = Walk(frame, addresses);
  std::string line;
  for (int i = 0; i < n; i++) line += fmt::format(" {:#x}", addresses[i]);
  LOG_ERROR("internal error: {}; rip {:#x}; backtrace (for addr2line):{}", why, rip, line);
}

void OnFault(int sig, siginfo_t* info, void* context) {
  static std::atomic<bool> crashed{false};
  if (!crashed.exchange(true)) {
    // The walk may fault too, and whoever passed this signal on to us may have had it blocked.
    sigset_t faults;
    sigemptyset(&faults);
    sigaddset(&faults, SIGSEGV);
    sigaddset(&faults, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &faults, nullptr);
    const auto* uc = static_cast<const ucontext_t*>(context);
    LogBacktrace(fmt::format("signal {} at address {:#x}", sig, reinterpret_cast<uintptr_t>(info->si_addr)),
                 static_cast<uint64_t>(uc->uc_mcontext.gregs[REG_RIP]),
                 static_cast<uint64_t>(uc->uc_mcontext.gregs[REG_RBP]));
  }
  // The fault comes again, now blocked, and so kills (signal(7)): also init of a PID namespace, which signals of its
  // own do not, and with no call that a filter may not allow. What somebody has sent does not come again.
  if (info->si_code <= 0) _exit(128 + sig);
  sigaddset(&static_cast<ucontext_t*>(context)->uc_sigmask, sig);
}

void OnViolation(const void* context) {
  const mcontext_t& m = static_cast<const ucontext_t*>(context)->uc_mcontext;
  LogBacktrace("a forbidden system call", static_cast<uint64_t>(m.gregs[REG_RIP]),
               static_cast<uint64_t>(m.gregs[REG_RBP]));
}

void OnFatal(std::string_view message) {
  LogBacktrace(message, 0, reinterpret_cast<uint64_t>(__builtin_frame_address(0)));
  // As if by SIGABRT, which init of a PID namespace cannot send itself.
  _exit(128 + SIGABRT);
}

// An exception that nobody has caught: the host has no memory left.
void OnTerminate() { OnFatal("std::terminate was called; out of memory?"); }

}  // namespace

void InstallCrashHandler(std::string_view (*syscall_name)(uint64_t number)) {
  log::SetFatalHook(&OnFatal);
  std::set_terminate(&OnTerminate);
  seccomp::InstallViolationHandler({.name = syscall_name, .report = &OnViolation});
  struct sigaction action{};
  action.sa_sigaction = &OnFault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (int sig : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigaction(sig, &action, nullptr);
}

}  // namespace redoubt::boot
