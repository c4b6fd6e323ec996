#include "runsc/boot/crash.h"

#include <gtest/gtest.h>
#include <unistd.h>

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
  EXPECT_DEATH(
      {
        Prepare();
        CHECK(getpid() < 0, "what must not be");
      },
      "what must not be.*backtrace .for addr2line.:( 0x[0-9a-f]+)+");
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
