#include "pkg/ring0/ring0.h"

#include <gtest/gtest.h>
#include <string.h>

#include <array>

namespace redoubt::ring0 {
namespace {

using Page = std::array<std::byte, kPageSize>;

template <typename T>
T At(const Page& page, size_t offset) {
  T value;
  memcpy(&value, page.data() + offset, sizeof(value));
  return value;
}

TEST(Ring0, TheFirstInstructionOfEachStubLeavesTheMachine) {
  Page page{};
  BuildText(page);
  for (int vector = 0; vector < RING0_VECTORS; vector++) {
    const size_t at = vector * RING0_STUB_SIZE;
    EXPECT_EQ(At<uint8_t>(page, at), 0xe6) << "out %al, imm8";
    EXPECT_EQ(At<uint8_t>(page, at + 1), vector);
    EXPECT_EQ(At<uint8_t>(page, at + 2), 0xf4) << "hlt";
  }
  EXPECT_EQ(At<uint8_t>(page, RING0_SYSCALL_STUB), 0xe6);
  EXPECT_EQ(At<uint8_t>(page, RING0_SYSCALL_STUB + 1), RING0_SYSCALL_PORT);
  EXPECT_EQ(At<uint8_t>(page, RING0_SYSCALL32_STUB), 0xe6);
  EXPECT_EQ(At<uint8_t>(page, RING0_SYSCALL32_STUB + 1), RING0_SYSCALL32_PORT);
  EXPECT_EQ(At<uint16_t>(page, RING0_ENTER_IRET), 0xcf48);
  EXPECT_EQ(memcmp(page.data() + RING0_ENTER_SYSRET, "\x48\x0f\x07", 3), 0);
  EXPECT_EQ(memcmp(page.data() + RING0_ENTER_CR3_IRET, "\x0f\x22\xd8\x58\x48\xcf", 6), 0);
  for (size_t i = RING0_TEXT_SIZE; i < kPageSize; i++) ASSERT_EQ(At<uint8_t>(page, i), 0xf4) << "nothing else";
}

TEST(Ring0, GatesLeadToTheirStubs) {
  Page page{};
  BuildIdt(page);
  for (int vector = 0; vector < RING0_VECTORS; vector++) {
    const size_t at = vector * 16;
    const Addr handler =
        At<uint16_t>(page, at) | Addr{At<uint16_t>(page, at + 6)} << 16 | Addr{At<uint32_t>(page, at + 8)} << 32;
    EXPECT_EQ(handler, kText + vector * RING0_STUB_SIZE);
    EXPECT_EQ(At<uint16_t>(page, at + 2), RING0_KERNEL_CS);
    EXPECT_EQ(At<uint8_t>(page, at + 4), 1) << "never on the stack that was there";
    const uint8_t type = At<uint8_t>(page, at + 5);
    EXPECT_EQ(type & 0x9f, 0x8e) << "present interrupt gate";
    EXPECT_EQ((type >> 5) & 3, vector == 3 || vector == 4 ? 3 : 0) << "who may call it";
    EXPECT_EQ(At<uint32_t>(page, at + 12), 0u);
    Place place = PlaceOf(handler);
    EXPECT_EQ(place.kind, Place::Kind::kException);
    EXPECT_EQ(place.vector, vector);
    EXPECT_EQ(PlaceOf(handler + 2).vector, vector) << "past the out";
  }
  for (size_t i = kIdtLimit + 1; i < kPageSize; i++) ASSERT_EQ(page[i], std::byte{0});
}

TEST(Ring0, SegmentsAreFlatAndMarkedAccessed) {
  Page page{};
  BuildGdt(page);
  struct Want {
    int selector;
    int dpl;
    bool code;
  };
  for (Want w : {Want{RING0_KERNEL_CS, 0, true}, Want{RING0_KERNEL_DS, 0, false}, Want{RING0_USER_DS, 3, false},
                 Want{RING0_USER_CS, 3, true}}) {
    EXPECT_EQ(w.selector & 3, w.dpl);
    const uint64_t d = At<uint64_t>(page, w.selector & ~7);
    EXPECT_EQ(d & 0xffff, 0xffffu);
    EXPECT_EQ(d >> 40 & 1, 1u) << "the processor must not write the page";
    EXPECT_EQ(d >> 43 & 1, w.code ? 1u : 0u);
    EXPECT_EQ(d >> 44 & 1, 1u);
    EXPECT_EQ(d >> 45 & 3, static_cast<uint64_t>(w.dpl));
    EXPECT_EQ(d >> 47 & 1, 1u);
    EXPECT_EQ(d >> 53 & 1, w.code ? 1u : 0u) << "64-bit code";
    EXPECT_EQ(d >> 56, 0u);
  }
  int present = 0;
  for (size_t i = 0; i < kPageSize; i += 8) present += At<uint64_t>(page, i) != 0;
  EXPECT_EQ(present, 4);
}

TEST(Ring0, CpuPages) {
  Page page{};
  BuildCpuPage(page, 5);
  EXPECT_EQ(At<uint64_t>(page, 4), CpuPage(5) + RING0_TRAP_STACK);
  EXPECT_EQ(At<uint64_t>(page, 36), CpuPage(5) + RING0_TRAP_STACK);
  EXPECT_GT(At<uint16_t>(page, 102), kTssLimit) << "no port is allowed";
}

TEST(Ring0, Frames) {
  Page page{};
  // As the processor pushes them.
  const uint64_t with_code[] = {0x15, 1, 2, 3, 4, 5};
  memcpy(page.data() + RING0_TRAP_STACK - sizeof(with_code), with_code, sizeof(with_code));
  TrapFrame f = ReadTrapFrame(page, 14);
  EXPECT_EQ(f.error_code, 0x15u);
  EXPECT_EQ(f.frame.rip, 1u);
  EXPECT_EQ(f.frame.cs, 2u);
  EXPECT_EQ(f.frame.rflags, 3u);
  EXPECT_EQ(f.frame.rsp, 4u);
  EXPECT_EQ(f.frame.ss, 5u);
  f = ReadTrapFrame(page, 6);
  EXPECT_EQ(f.error_code, 0u) << "an invalid opcode has none";
  EXPECT_EQ(f.frame.rip, 1u);

  const Addr rsp = WriteEnterFrame(page, 2, {.rip = 11, .cs = 12, .rflags = 13, .rsp = 14, .ss = 15}, 16);
  EXPECT_EQ(rsp, CpuPage(2) + RING0_ENTER_FRAME);
  for (uint64_t i = 0; i < 5; i++) EXPECT_EQ(At<uint64_t>(page, rsp - CpuPage(2) + 8 * i), 11 + i);
  EXPECT_EQ(At<uint64_t>(page, rsp - CpuPage(2) - 8), 16u);
}

TEST(Ring0, Places) {
  EXPECT_EQ(PlaceOf(kLstar).kind, Place::Kind::kSyscall);
  EXPECT_EQ(PlaceOf(kLstar + 2).kind, Place::Kind::kSyscall);
  EXPECT_EQ(PlaceOf(kCstar).kind, Place::Kind::kSyscall32);
  EXPECT_EQ(PlaceOf(kCstar + 2).kind, Place::Kind::kSyscall32);
  for (Addr a : {kText + RING0_ENTER_IRET, kText + RING0_ENTER_SYSRET, kText + RING0_ENTER_CR3_IRET,
                 kText + RING0_ENTER_CR3_IRET + 3, kText + RING0_ENTER_CR3_IRET + 4}) {
    EXPECT_EQ(PlaceOf(a).kind, Place::Kind::kEntering);
  }
  for (Addr a : {Addr{0}, kText - 1, kText + 3, kLstar + 3, kText + RING0_TEXT_SIZE, kIdt, ~Addr{0}}) {
    EXPECT_EQ(PlaceOf(a).kind, Place::Kind::kOther) << std::hex << a;
  }
}

}  // namespace
}  // namespace redoubt::ring0
