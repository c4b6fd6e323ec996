#include "pkg/platform/kvm/fault_amd64.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <string.h>

#include "pkg/platform/registers_amd64.h"

namespace redoubt::platform::kvm {
namespace {

TrapInfo Describe(int vector, uint64_t error = 0, Addr addr = 0, const FpState& fp = {}, uint64_t flags = 0x202) {
  Registers regs{};
  regs.rip = 0x1234;
  regs.eflags = flags;
  return DescribeException(
      {.kind = Exit::Kind::kException, .vector = vector, .error_code = error, .fault_address = addr}, regs, fp);
}

void Expect(const TrapInfo& info, int signal, int code, Addr addr) {
  EXPECT_EQ(info.trap, Trap::kFault);
  EXPECT_EQ(info.signal.signo, signal);
  EXPECT_EQ(info.signal.code, code);
  EXPECT_EQ(reinterpret_cast<Addr>(info.signal.addr), addr);
}

TEST(Fault, ExceptionsHaveLinuxSignals) {
  Expect(Describe(0), SIGFPE, FPE_INTDIV, 0x1234);
  Expect(Describe(1, 0, 0, {}, 0x202 | kEflagsTf), SIGTRAP, TRAP_TRACE, 0x1234);
  Expect(Describe(1), SIGTRAP, TRAP_BRKPT, 0x1234);
  Expect(Describe(3), SIGTRAP, SI_KERNEL, 0);
  Expect(Describe(4), SIGSEGV, SI_KERNEL, 0);
  Expect(Describe(6), SIGILL, ILL_ILLOPN, 0x1234);
  Expect(Describe(11), SIGBUS, SI_KERNEL, 0);
  Expect(Describe(12), SIGBUS, SI_KERNEL, 0);
  Expect(Describe(13, 0x28), SIGSEGV, SI_KERNEL, 0);
  EXPECT_EQ(Describe(13, 0x28).error_code, 0x28u);
  Expect(Describe(17), SIGBUS, BUS_ADRALN, 0);
  EXPECT_EQ(Describe(17).trapno, 17u);
}

TEST(Fault, PageFaults) {
  TrapInfo info = Describe(14, 4, 0x5000);
  Expect(info, SIGSEGV, SEGV_MAPERR, 0x5000);
  EXPECT_TRUE(info.is_page_fault());
  EXPECT_EQ(info.access, kRead);
  info = Describe(14, 7, 0x5000);
  Expect(info, SIGSEGV, SEGV_ACCERR, 0x5000);
  EXPECT_EQ(info.access, kWrite);
  info = Describe(14, 0x15, 0x5000);
  EXPECT_EQ(info.access, kExecute);
  EXPECT_EQ(info.error_code, 0x15u);
  // Ring 0's half looks the same whatever is there.
  for (uint64_t error : {4, 5}) {
    info = Describe(14, error, 0xffffff8000000000);
    Expect(info, SIGSEGV, SEGV_MAPERR, 0xffffff8000000000);
    EXPECT_EQ(info.error_code, 5u);
  }
}

TEST(Fault, FloatingPointByWhatIsRaisedAndNotMasked) {
  struct Case {
    uint32_t flag;
    int code;
  };
  for (Case c : {Case{0x01, FPE_FLTINV}, Case{0x02, FPE_FLTUND}, Case{0x04, FPE_FLTDIV}, Case{0x08, FPE_FLTOVF},
                 Case{0x10, FPE_FLTUND}, Case{0x20, FPE_FLTRES}}) {
    FpState fp = InitialFpState();
    // All are raised, one is not masked.
    uint16_t fcw = static_cast<uint16_t>(0x37f & ~c.flag), fsw = 0x3f;
    memcpy(fp.bytes.data(), &fcw, 2);
    memcpy(fp.bytes.data() + 2, &fsw, 2);
    uint32_t mxcsr = (0x1fbf & ~(c.flag << 7));
    memcpy(fp.bytes.data() + 24, &mxcsr, 4);
    Expect(Describe(16, 0, 0, fp), SIGFPE, c.code, 0x1234);
    Expect(Describe(19, 0, 0, fp), SIGFPE, c.code, 0x1234);
  }
}

}  // namespace
}  // namespace redoubt::platform::kvm
