#include "runsc/boot/crash.h"

#include <execinfo.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "pkg/log/log.h"

namespace redoubt::boot {
namespace {

constexpr int kMaxFrames = 64;

// Addresses only: symbols are found afterwards, with addr2line, from the same binary. The unwinder was loaded
// beforehand, so nothing is allocated here that the crash may have broken, but for the log's own line.
void LogBacktrace(std::string_view why, uint64_t rip) {
  void* frames[kMaxFrames];
  int n = backtrace(frames, kMaxFrames);
  std::string line;
  for (int i = 0; i < n; i++) line += fmt::format(" {:#x}", reinterpret_cast<uintptr_t>(frames[i]));
  LOG_ERROR("internal error: {}; rip {:#x}; backtrace (for addr2line):{}", why, rip, line);
}

void OnFault(int sig, siginfo_t* info, void* context) {
  static std::atomic<bool> crashed{false};
  if (!crashed.exchange(true)) {
    const auto* uc = static_cast<const ucontext_t*>(context);
    LogBacktrace(fmt::format("signal {} at address {:#x}", sig, reinterpret_cast<uintptr_t>(info->si_addr)),
                 static_cast<uint64_t>(uc->uc_mcontext.gregs[REG_RIP]));
  }
  signal(sig, SIG_DFL);
  raise(sig);
}

void OnFatal(std::string_view message) { LogBacktrace(message, 0); }

}  // namespace

void InstallCrashHandler() {
  void* frame = nullptr;
  backtrace(&frame, 1);
  log::SetFatalHook(&OnFatal);
  struct sigaction action{};
  action.sa_sigaction = &OnFault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (int sig : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigaction(sig, &action, nullptr);
}

}  // namespace redoubt::boot
