#include "runsc/boot/crash.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>

#include "pkg/log/log.h"
#include "pkg/safecopy/safecopy_unsafe.h"

namespace redoubt::boot {
namespace {

void Prepare() {
  log::Configure(STDERR_FILENO, log::Level::kError);
  InstallCrashHandler();
  safecopy::InstallFaultHandler();
}

// Two frames at least: this function's caller is known.
[[gnu::noinline]] void Fault() {
  *reinterpret_cast<volatile int*>(8) = 1;
  asm volatile("");
}

TEST(CrashDeathTest, FaultIsLoggedWithABacktrace) {
  EXPECT_EXIT(
      {
        Prepare();
        Fault();
      },
      ::testing::KilledBySignal(SIGSEGV),
      "signal 11 at address 0x8; rip 0x[0-9a-f]+; backtrace .for addr2line.:( 0x[0-9a-f]+)+");
}

TEST(CrashDeathTest, FailedCheckIsLoggedWithABacktrace) {
  EXPECT_EXIT(
      {
        Prepare();
        CHECK(getpid() < 0, "what must not be");
      },
      ::testing::ExitedWithCode(128 + SIGABRT), "what must not be.*backtrace .for addr2line.:( 0x[0-9a-f]+)+");
}

// Init of a PID namespace: signals that it sends to itself do not kill it.
TEST(CrashDeathTest, InitOfAPidNamespaceDiesToo) {
  EXPECT_EXIT(
      {
        Prepare();
        if (unshare(CLONE_NEWPID) != 0) _exit(1);
        pid_t pid = fork();
        if (pid == 0) Fault();
        int status = 0;
        waitpid(pid, &status, 0);
        _exit(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV ? 7 : 1);
      },
      ::testing::ExitedWithCode(7), "signal 11 at address 0x8");
}

TEST(CrashDeathTest, AFaultThatWasSentKillsToo) {
  EXPECT_EXIT(
      {
        Prepare();
        kill(getpid(), SIGSEGV);
      },
      ::testing::ExitedWithCode(128 + SIGSEGV), "signal 11");
}

TEST(CrashDeathTest, UncaughtExceptionIsLogged) {
  EXPECT_EXIT(
      {
        Prepare();
        std::terminate();
      },
      ::testing::ExitedWithCode(128 + SIGABRT), "std::terminate was called.*backtrace");
}

TEST(CrashDeathTest, WildFramePointerEndsTheBacktrace) {
  EXPECT_EXIT(
      {
        Prepare();
        asm volatile("mov $0x1000, %%rbp; movl $1, 8" ::: "memory");
      },
      ::testing::KilledBySignal(SIGSEGV), "signal 11 at address 0x8; rip 0x[0-9a-f]+; backtrace .for addr2line.:\n");
}

}  // namespace
}  // namespace redoubt::boot
