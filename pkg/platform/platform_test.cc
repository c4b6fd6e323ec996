#include "pkg/platform/platform.h"

#include <gtest/gtest.h>
#include <string.h>

#include "pkg/platform/registers_amd64.h"

namespace redoubt::platform {
namespace {

uint64_t Header(const FpState& s) {
  uint64_t v;
  memcpy(&v, s.bytes.data() + 512, sizeof(v));
  return v;
}

TEST(FpState, InitialHasResetValues) {
  FpState s = InitialFpState();
  ASSERT_EQ(s.bytes.size(), FpStateSize());
  uint16_t fcw;
  uint32_t mxcsr;
  memcpy(&fcw, s.bytes.data(), 2);
  memcpy(&mxcsr, s.bytes.data() + 24, 4);
  EXPECT_EQ(fcw, 0x37f);
  EXPECT_EQ(mxcsr, 0x1f80u);
}

TEST(FpState, SanitizeClearsWhatXrstorRefuses) {
  FpState s;
  s.bytes.assign(FpStateSize(), std::byte{0xff});
  SanitizeFpState(s);
  ASSERT_EQ(s.bytes.size(), FpStateSize());
  EXPECT_EQ(Header(s), FpStateFeatures());
  uint32_t mxcsr;
  memcpy(&mxcsr, s.bytes.data() + 24, 4);
  EXPECT_EQ(mxcsr & ~FpStateMxcsrMask(), 0u);
  for (size_t i = 520; i < 576; i++) EXPECT_EQ(s.bytes[i], std::byte{0});
}

TEST(FpState, SanitizeTakesAnySize) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{511}, size_t{512}, size_t{519}, size_t{520}, size_t{576},
                      FpStateSize() - 1, FpStateSize(), FpStateSize() + 1000}) {
    FpState s;
    s.bytes.assign(size, std::byte{0xff});
    SanitizeFpState(s);
    EXPECT_EQ(s.bytes.size(), size == 0 ? 0 : FpStateSize());
    if (size != 0) {
      EXPECT_EQ(Header(s) & ~FpStateFeatures(), 0u);
    }
  }
}

TEST(Registers, HostileValuesAreForced) {
  Registers r;
  memset(&r, 0xff, sizeof(r));
  SanitizeRegisters(r);
  EXPECT_EQ(r.cs, kUserCs);
  EXPECT_EQ(r.ss, kUserDs);
  EXPECT_EQ(r.fs, 0u);
  EXPECT_EQ(r.eflags & ~(kEflagsUser | 0x202), 0u);
  EXPECT_EQ(r.eflags & 0x3000, 0u) << "IOPL";
}

TEST(Registers, ImpossibleAddressesAreFaults) {
  Registers r{};
  EXPECT_FALSE(CheckRegisters(r).has_value());
  r.rip = kTaskSize;
  ASSERT_TRUE(CheckRegisters(r).has_value());
  EXPECT_EQ(CheckRegisters(r)->signal.code, SEGV_MAPERR);
  r.rip = 0x800000000000;  // not canonical
  ASSERT_TRUE(CheckRegisters(r).has_value());
  EXPECT_EQ(CheckRegisters(r)->signal.code, SI_KERNEL);
  r.rip = 0x1000;
  r.fs_base = 0xffff800000000000;
  EXPECT_TRUE(CheckRegisters(r).has_value());
}

}  // namespace
}  // namespace redoubt::platform
