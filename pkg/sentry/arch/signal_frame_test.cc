#include "pkg/sentry/arch/signal_frame.h"

#include <gtest/gtest.h>
#include <string.h>
#include <sys/ucontext.h>

#include "pkg/platform/registers_amd64.h"

namespace redoubt::arch {
namespace {

constexpr uint64_t kRestorerFlag = 0x04000000;

class SignalFrameTest : public testing::Test {
 protected:
  SignalFrameTest() {
    memset(&regs_, 0x11, sizeof(regs_));
    platform::SanitizeRegisters(regs_);
    regs_.rsp = 60000;
    regs_.rip = 0x401234;
    regs_.fs_base = 0x5000;
    args_.info.si_signo = SIGUSR1;
    args_.info.si_code = SI_QUEUE;
    args_.action = {.handler = 0x402000, .flags = SA_SIGINFO | kRestorerFlag, .restorer = 0x403000};
    args_.mask = SignalBit(SIGINT);
  }

  // As the restorer does, after the handler's ret.
  Result<SigreturnState> Return() {
    platform::Registers regs = regs_;
    regs.rsp += 8;
    return PopSignalFrame(regs, io_);
  }
  template <typename T>
  void Poke(Addr a, T v) {
    memcpy(memory_.data() + a, &v, sizeof(v));
  }
  template <typename T>
  T Peek(Addr a) {
    T v;
    memcpy(&v, memory_.data() + a, sizeof(v));
    return v;
  }
  Addr FpAddress() { return Peek<uint64_t>(regs_.rdx + offsetof(ucontext_t, uc_mcontext.fpregs)); }

  std::vector<std::byte> memory_ = std::vector<std::byte>(64 << 10);
  BufferIo io_{memory_};
  platform::Registers regs_;
  platform::FpState fp_ = platform::InitialFpState();
  SignalFrameArgs args_;
};

// glibc's ucontext_t begins as the kernel's does, so it serves as the check.
TEST_F(SignalFrameTest, HandlerSeesLinuxLayout) {
  platform::Registers before = regs_;
  args_.trapno = 14;
  args_.error_code = 6;
  args_.fault_address = 0xdead000;
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  EXPECT_EQ(regs_.rip, 0x402000u);
  EXPECT_EQ(regs_.rdi, static_cast<uint64_t>(SIGUSR1));
  EXPECT_EQ(regs_.rax, 0u);
  EXPECT_EQ((regs_.rsp + 8) % 16, 0u);
  EXPECT_LE(regs_.rsi + sizeof(siginfo_t), before.rsp - 128) << "the red zone is spared";
  EXPECT_EQ(Peek<uint64_t>(regs_.rsp), 0x403000u);
  EXPECT_EQ(Peek<siginfo_t>(regs_.rsi).si_code, SI_QUEUE);
  ucontext_t uc{};
  memcpy(&uc, memory_.data() + regs_.rdx, offsetof(ucontext_t, uc_sigmask) + 8);
  EXPECT_EQ(uc.uc_flags, 7u);
  EXPECT_EQ(uc.uc_mcontext.gregs[REG_RIP], 0x401234);
  EXPECT_EQ(uc.uc_mcontext.gregs[REG_RSP], 60000);
  EXPECT_EQ(static_cast<uint64_t>(uc.uc_mcontext.gregs[REG_R12]), before.r12);
  EXPECT_EQ(uc.uc_mcontext.gregs[REG_TRAPNO], 14);
  EXPECT_EQ(uc.uc_mcontext.gregs[REG_ERR], 6);
  EXPECT_EQ(uc.uc_mcontext.gregs[REG_CR2], 0xdead000);
  EXPECT_EQ(uc.uc_mcontext.gregs[REG_CSGSFS] & 0xffff, 0x33);
  EXPECT_TRUE(sigismember(&uc.uc_sigmask, SIGINT));
  Addr fp = FpAddress();
  EXPECT_EQ(fp % 64, 0u);
  EXPECT_GE(fp, regs_.rsi + sizeof(siginfo_t));
  EXPECT_EQ(Peek<uint32_t>(fp + 464), 0x46505853u);
  EXPECT_EQ(Peek<uint32_t>(fp + 480), platform::FpStateSize());
  EXPECT_EQ(Peek<uint32_t>(fp + Peek<uint32_t>(fp + 480)), 0x46505845u);
  EXPECT_EQ(Peek<uint32_t>(fp + 468), platform::FpStateSize() + 4);
}

TEST_F(SignalFrameTest, ReturnRestoresEverything) {
  platform::Registers before = regs_;
  for (size_t i = 160; i < 416; i++) fp_.bytes[i] = static_cast<std::byte>(i);
  args_.stack = {.address = 0x100, .flags = 0, .size = 0x2000};
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  Result<SigreturnState> s = Return();
  ASSERT_TRUE(s.has_value());
  before.orig_rax = ~uint64_t{0};
  EXPECT_EQ(memcmp(&s->regs, &before, sizeof(before)), 0);
  EXPECT_EQ(memcmp(s->fp.bytes.data() + 160, fp_.bytes.data() + 160, 256), 0);
  EXPECT_EQ(s->mask, SignalBit(SIGINT));
  EXPECT_EQ(s->stack.address, 0x100u);
  EXPECT_EQ(s->stack.size, 0x2000u);
}

TEST_F(SignalFrameTest, WithoutRestorerFaults) {
  args_.action.flags = 0;
  platform::Registers before = regs_;
  EXPECT_EQ(PushSignalFrame(regs_, fp_, io_, args_).error(), Errno(EFAULT));
  EXPECT_EQ(memcmp(&regs_, &before, sizeof(before)), 0);
}

TEST_F(SignalFrameTest, NoRoomFaultsAndChangesNothing) {
  for (Addr sp : {Addr{0}, Addr{100}, Addr{500}, Addr{1 << 20}, ~Addr{0}, Addr{0x8000000000000000}}) {
    regs_.rsp = sp;
    platform::Registers before = regs_;
    EXPECT_FALSE(PushSignalFrame(regs_, fp_, io_, args_).has_value()) << sp;
    EXPECT_EQ(memcmp(&regs_, &before, sizeof(before)), 0);
  }
}

TEST_F(SignalFrameTest, AlternateStackIsUsedOnlyWhenAskedAndNotAlreadyOn) {
  args_.stack = {.address = 4096, .flags = 0, .size = 16384};
  platform::Registers start = regs_;
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  EXPECT_GT(regs_.rsp, 4096u + 16384) << "no SA_ONSTACK";
  regs_ = start;
  args_.action.flags |= SA_ONSTACK;
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  EXPECT_LT(regs_.rsp, 4096u + 16384);
  EXPECT_GT(regs_.rsp, 4096u);
  // A second signal on the same stack goes below the first.
  Addr first = regs_.rsp;
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  EXPECT_LT(regs_.rsp, first - 128);
  EXPECT_GT(regs_.rsp, 4096u);
  // Until it is full.
  Result<> r;
  for (int i = 0; i < 20 && r; i++) r = PushSignalFrame(regs_, fp_, io_, args_);
  EXPECT_EQ(r.error(), Errno(EFAULT)) << "never runs over the stack's end";
  EXPECT_GT(regs_.rsp, 4096u);
  // A disabled one is none.
  regs_ = start;
  args_.stack.flags = SS_DISABLE;
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  EXPECT_GT(regs_.rsp, 4096u + 16384);
}

TEST_F(SignalFrameTest, HostileFrameIsSanitized) {
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  Poke<uint64_t>(regs_.rdx + offsetof(ucontext_t, uc_mcontext.gregs[REG_EFL]), ~0ull);
  Poke<uint64_t>(regs_.rdx + offsetof(ucontext_t, uc_mcontext.gregs[REG_CSGSFS]), 0x0010001000100010);
  Poke<uint64_t>(regs_.rdx + offsetof(ucontext_t, uc_sigmask), ~0ull);
  Result<SigreturnState> s = Return();
  ASSERT_TRUE(s.has_value());
  EXPECT_EQ(s->regs.eflags, platform::kEflagsUser | 0x202);
  EXPECT_EQ(s->regs.cs, platform::kUserCs);
  EXPECT_EQ(s->regs.ss, platform::kUserDs);
  EXPECT_EQ(s->mask & kUnblockable, 0u);
}

TEST_F(SignalFrameTest, UnloadableXstateFaults) {
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  Addr fp = FpAddress();
  Poke<uint32_t>(fp + 24, 0xffffffff);  // MXCSR
  EXPECT_EQ(Return().error(), Errno(EFAULT));
  Poke<uint32_t>(fp + 24, 0x1f80);
  Poke<uint64_t>(fp + 520, uint64_t{1} << 63);  // XCOMP_BV
  EXPECT_EQ(Return().error(), Errno(EFAULT));
  Poke<uint64_t>(fp + 520, 0);
  Poke<uint64_t>(fp + 512, ~platform::FpStateFeatures());  // XSTATE_BV
  EXPECT_EQ(Return().error(), Errno(EFAULT));
  Poke<uint64_t>(fp + 512, 3);
  EXPECT_TRUE(Return().has_value());
  // A wild pointer.
  Poke<uint64_t>(regs_.rdx + offsetof(ucontext_t, uc_mcontext.fpregs), ~0ull - 100);
  EXPECT_EQ(Return().error(), Errno(EFAULT));
  // None: the initial state.
  Poke<uint64_t>(regs_.rdx + offsetof(ucontext_t, uc_mcontext.fpregs), 0);
  ASSERT_TRUE(Return().has_value());
  EXPECT_TRUE(Return()->fp.bytes.empty());
}

TEST_F(SignalFrameTest, WithoutMarksOnlyTheLegacyStateIsRestored) {
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  Addr fp = FpAddress();
  Poke<uint32_t>(fp + 464, 0);
  Poke<uint64_t>(fp + 512, ~0ull);  // not looked at
  Poke<uint64_t>(fp + 160, 0x1234);
  Result<SigreturnState> s = Return();
  ASSERT_TRUE(s.has_value());
  uint64_t header, xmm0;
  memcpy(&header, s->fp.bytes.data() + 512, 8);
  memcpy(&xmm0, s->fp.bytes.data() + 160, 8);
  EXPECT_EQ(header, 3u);
  EXPECT_EQ(xmm0, 0x1234u);
}

TEST_F(SignalFrameTest, SizesInTheFrameAreBounded) {
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  Addr fp = FpAddress();
  for (uint32_t size : {0u, 1u, 575u, 577u, 0x7fffffffu, 0xffffffffu}) {
    Poke<uint32_t>(fp + 480, size);
    Result<SigreturnState> s = Return();
    ASSERT_TRUE(s.has_value()) << size;
    EXPECT_EQ(s->fp.bytes.size(), platform::FpStateSize());
  }
}

TEST_F(SignalFrameTest, FitsWhatIsPromised) {
  platform::Registers before = regs_;
  ASSERT_TRUE(PushSignalFrame(regs_, fp_, io_, args_).has_value());
  EXPECT_LE(before.rsp - 128 - regs_.rsp, MaxSignalFrameSize());
}

}  // namespace
}  // namespace redoubt::arch
