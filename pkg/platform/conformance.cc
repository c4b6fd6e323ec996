#include "pkg/platform/conformance.h"

#include <signal.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "pkg/platform/guest_code_amd64_unsafe.h"
#include "pkg/platform/registers_amd64.h"

namespace redoubt::platform {
namespace {

using std::chrono::milliseconds;

// One guest thread.
struct Guest {
  Guest(Platform& platform, RefPtr<AddressSpace> as, Addr rip) : space(std::move(as)) {
    auto made = platform.NewContext();
    CHECK(made.has_value(), "no context");
    context = *std::move(made);
    regs.rip = rip;
  }

  // An error of the platform fails the test and shows as an interrupt.
  TrapInfo Run() {
    Result<TrapInfo> r = context->Switch(*space, regs);
    EXPECT_TRUE(r.has_value()) << (r ? "" : r.error().name());
    return r ? *r : TrapInfo{};
  }

  RefPtr<AddressSpace> space;
  std::unique_ptr<Context> context;
  Registers regs{};
};

Addr FaultAddress(const TrapInfo& info) { return reinterpret_cast<Addr>(info.signal.addr); }

TEST_P(PlatformConformance, SyscallTraps) {
  Addr code = AddCode(guest::SyscallLoop());
  Run([&] {
    Guest g(platform(), NewSpace(), code);
    for (uint64_t i = 0; i < 10; i++) {
      g.regs.rax = 39 + i;
      g.regs.rdi = i * 7;
      g.regs.rbp = ~i;
      ASSERT_EQ(g.Run().trap, Trap::kSyscall);
      EXPECT_EQ(g.regs.orig_rax, 39 + i);
      EXPECT_EQ(g.regs.rax, static_cast<uint64_t>(-ENOSYS));
      EXPECT_EQ(g.regs.rdi, i * 7);
      EXPECT_EQ(g.regs.rbp, ~i);
      EXPECT_EQ(g.regs.rip, code + 2);
    }
    g.space->Release();
  });
}

// Values that a host kernel could take for a wish to restart the call.
TEST_P(PlatformConformance, RestartCodesInRaxAreJustNumbers) {
  Addr code = AddCode(guest::Spin());
  Run([&] {
    Guest g(platform(), NewSpace(), code);
    for (int64_t value : {-512, -513, -514, -516, -4}) {
      g.regs.rax = static_cast<uint64_t>(value);
      g.regs.orig_rax = 0;
      std::thread interrupter([&] {
        std::this_thread::sleep_for(milliseconds(5));
        g.context->Interrupt();
      });
      ASSERT_EQ(g.Run().trap, Trap::kInterrupted);
      interrupter.join();
      EXPECT_EQ(g.regs.rax, static_cast<uint64_t>(value));
      EXPECT_GE(g.regs.rip, code);
      EXPECT_LT(g.regs.rip, code + 4);
    }
  });
}

TEST_P(PlatformConformance, LoadsAndStoresReachTheMemoryFile) {
  Addr load = AddCode(guest::Load()), store = AddCode(guest::Store());
  Run([&] {
    Guest g(platform(), NewSpace(), store);
    g.regs.rdi = kData + 64;
    g.regs.rsi = 0x1122334455667788;
    ASSERT_EQ(g.Run().trap, Trap::kSyscall);
    EXPECT_EQ(Word(64), 0x1122334455667788u);
    Word(64) = 42;
    g.regs.rip = load;
    ASSERT_EQ(g.Run().trap, Trap::kSyscall);
    EXPECT_EQ(g.regs.orig_rax, 42u);
  });
}

TEST_P(PlatformConformance, ReadOfUnmappedPageFaults) {
  Addr load = AddCode(guest::Load());
  Run([&] {
    Guest g(platform(), NewSpace(), load);
    g.regs.rdi = 0x10000120;
    TrapInfo t = g.Run();
    ASSERT_TRUE(t.is_page_fault());
    EXPECT_EQ(t.signal.signo, SIGSEGV);
    EXPECT_EQ(t.signal.code, SEGV_MAPERR);
    EXPECT_EQ(FaultAddress(t), 0x10000120u);
    EXPECT_TRUE(!t.access_known || t.access == kRead);
    EXPECT_EQ(g.regs.rip, load);
    // The page comes, the guest goes on.
    ASSERT_TRUE(g.space->MapFile(0x10000000, memory_fd(), kDataOffset, kPageSize, kRead, false).has_value());
    Word(0x120) = 7;
    ASSERT_EQ(g.Run().trap, Trap::kSyscall);
    EXPECT_EQ(g.regs.orig_rax, 7u);
  });
}

TEST_P(PlatformConformance, WriteOfUnmappedPageFaults) {
  Addr store = AddCode(guest::Store());
  Run([&] {
    Guest g(platform(), NewSpace(), store);
    g.regs.rdi = 0x10000008;
    TrapInfo t = g.Run();
    ASSERT_TRUE(t.is_page_fault());
    EXPECT_EQ(FaultAddress(t), 0x10000008u);
    EXPECT_TRUE(!t.access_known || t.access.write);
  });
}

TEST_P(PlatformConformance, WriteOfReadOnlyPageFaultsAsWrite) {
  Addr store = AddCode(guest::Store()), load = AddCode(guest::Load());
  Run([&] {
    Guest g(platform(), NewSpace(), store);
    ASSERT_TRUE(g.space->MapFile(0x10000000, memory_fd(), kDataOffset, kPageSize, kRead, true).has_value());
    g.regs.rdi = 0x10000008;
    g.regs.rsi = 9;
    TrapInfo t = g.Run();
    ASSERT_TRUE(t.is_page_fault());
    EXPECT_EQ(t.signal.code, SEGV_ACCERR);
    EXPECT_TRUE(t.access_known);
    EXPECT_TRUE(t.access.write);
    EXPECT_EQ(Word(8), 0u);
    g.regs.rip = load;
    ASSERT_EQ(g.Run().trap, Trap::kSyscall);
    // Raised to writable, as copy-on-write does.
    ASSERT_TRUE(g.space->MapFile(0x10000000, memory_fd(), kDataOffset, kPageSize, kReadWrite, false).has_value());
    g.regs.rip = store;
    ASSERT_EQ(g.Run().trap, Trap::kSyscall);
    EXPECT_EQ(Word(8), 9u);
  });
}

TEST_P(PlatformConformance, FetchFaultsAsExecute) {
  Run([&] {
    Guest g(platform(), NewSpace(), 0x10000000);
    TrapInfo t = g.Run();
    ASSERT_TRUE(t.is_page_fault());
    EXPECT_EQ(FaultAddress(t), 0x10000000u);
    EXPECT_TRUE(t.access.execute);
    g.regs.rip = kData;  // mapped, not executable
    t = g.Run();
    ASSERT_TRUE(t.is_page_fault());
    EXPECT_EQ(t.signal.code, SEGV_ACCERR);
    EXPECT_TRUE(t.access.execute);
  });
}

TEST_P(PlatformConformance, ExceptionsHaveLinuxSignals) {
  Addr ud2 = AddCode(guest::InvalidOpcode()), divide = AddCode(guest::Divide()), int3 = AddCode(guest::Breakpoint());
  Addr hlt = AddCode(guest::Privileged()), int80 = AddCode(guest::Int80());
  Run([&] {
    Guest g(platform(), NewSpace(), ud2);
    TrapInfo t = g.Run();
    EXPECT_EQ(t.trap, Trap::kFault);
    EXPECT_EQ(t.signal.signo, SIGILL);
    EXPECT_EQ(t.signal.code, ILL_ILLOPN);
    EXPECT_EQ(FaultAddress(t), ud2);
    EXPECT_EQ(t.trapno, kTrapInvalidOpcode);

    g.regs.rip = divide;
    g.regs.rcx = 0;
    t = g.Run();
    EXPECT_EQ(t.trap, Trap::kFault);
    EXPECT_EQ(t.signal.signo, SIGFPE);
    EXPECT_EQ(t.signal.code, FPE_INTDIV);
    EXPECT_EQ(t.trapno, kTrapDivide);

    g.regs.rip = int3;
    t = g.Run();
    EXPECT_EQ(t.trap, Trap::kFault);
    EXPECT_EQ(t.signal.signo, SIGTRAP);
    EXPECT_EQ(t.signal.code, SI_KERNEL);
    EXPECT_EQ(t.trapno, kTrapBreakpoint);
    EXPECT_EQ(g.regs.rip, int3 + 1);
    EXPECT_EQ(g.Run().trap, Trap::kSyscall) << "goes on behind the int3";

    g.regs.rip = hlt;
    t = g.Run();
    EXPECT_EQ(t.trap, Trap::kFault);
    EXPECT_EQ(t.signal.signo, SIGSEGV);
    EXPECT_EQ(t.signal.code, SI_KERNEL);
    EXPECT_EQ(t.trapno, kTrapGeneralProtection);
    EXPECT_FALSE(t.is_page_fault());

    g.regs.rip = int80;
    t = g.Run();
    EXPECT_EQ(t.trap, Trap::kFault) << "32-bit system calls do not exist";
    EXPECT_EQ(t.signal.signo, SIGSEGV);
  });
}

TEST_P(PlatformConformance, TrapFlagStepsOneInstruction) {
  Addr code = AddCode(guest::Nops());
  Run([&] {
    Guest g(platform(), NewSpace(), code);
    for (int i = 1; i <= 3; i++) {
      g.regs.eflags |= kEflagsTf;
      TrapInfo t = g.Run();
      ASSERT_EQ(t.trap, Trap::kFault);
      EXPECT_EQ(t.signal.signo, SIGTRAP);
      EXPECT_EQ(t.signal.code, TRAP_TRACE);
      EXPECT_EQ(g.regs.rip, code + i);
    }
    g.regs.eflags &= ~kEflagsTf;
    EXPECT_EQ(g.Run().trap, Trap::kSyscall);
  });
}

TEST_P(PlatformConformance, HostileRegistersAreFaultsOfTheGuest) {
  Addr code = AddCode(guest::SyscallLoop());
  Run([&] {
    Guest g(platform(), NewSpace(), code);
    for (Addr rip : {Addr{0}, Addr{0x7ffffffff000}, Addr{0x800000000000}, Addr{0xffff800000000000},
                     Addr{0xffffffff81000000}, Addr{0xffffffffffffffff}, platform().max_user_address()}) {
      g.regs.rip = rip;
      TrapInfo t = g.Run();
      EXPECT_EQ(t.trap, Trap::kFault) << std::hex << rip;
      EXPECT_EQ(t.signal.signo, SIGSEGV);
    }
    g.regs.rip = code;
    g.regs.fs_base = 0xffff888000000000;
    EXPECT_EQ(g.Run().trap, Trap::kFault);
    g.regs.fs_base = 0x8000000000000000;  // not canonical
    EXPECT_EQ(g.Run().trap, Trap::kFault);
    memset(&g.regs, 0xff, sizeof(g.regs));
    EXPECT_EQ(g.Run().trap, Trap::kFault);
    // Selectors and flags are forced, not refused.
    g.regs.rip = code;
    g.regs.fs_base = g.regs.gs_base = 0;
    g.regs.eflags = ~kEflagsTf;
    g.regs.cs = 0x10;
    g.regs.ss = 0x18;
    g.regs.ds = g.regs.es = g.regs.fs = g.regs.gs = 0xfffb;
    EXPECT_EQ(g.Run().trap, Trap::kSyscall);
    EXPECT_EQ(g.regs.cs, kUserCs);
    EXPECT_EQ(g.regs.ss, kUserDs);
    EXPECT_EQ(g.regs.eflags & 0x3000, 0u);
  });
}

TEST_P(PlatformConformance, InterruptBeforeSwitchIsNotLost) {
  Addr code = AddCode(guest::SyscallLoop());
  Run([&] {
    Guest g(platform(), NewSpace(), code);
    g.context->Interrupt();
    g.context->Interrupt();
    EXPECT_EQ(g.Run().trap, Trap::kInterrupted);
    EXPECT_EQ(g.regs.rip, code);
    EXPECT_EQ(g.Run().trap, Trap::kSyscall) << "several make one";
  });
}

TEST_P(PlatformConformance, InterruptStopsASpinningGuest) {
  Addr code = AddCode(guest::Count());
  Run([&] {
    Guest g(platform(), NewSpace(), code);
    g.regs.rdi = kData;
    uint64_t before = 0;
    for (int i = 0; i < 5; i++) {
      std::thread interrupter([&] {
        volatile uint64_t& count = Word(0);
        while (count <= before) std::this_thread::sleep_for(milliseconds(1));
        g.context->Interrupt();
      });
      EXPECT_EQ(g.Run().trap, Trap::kInterrupted);
      interrupter.join();
      before = Word(0);
    }
  });
}

// An interrupt that meets a trap of another kind comes out of the next switch, and never out of another context's.
TEST_P(PlatformConformance, InterruptsRaceWithSyscalls) {
  Addr code = AddCode(guest::SyscallLoop());
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    Guest target(platform(), space, code), bystander(platform(), space, code);
    std::atomic<int> sent{0}, seen{0};
    std::atomic<bool> stop{false};
    std::thread interrupter([&] {
      for (int i = 0; i < 200; i++) {
        sent.fetch_add(1);
        target.context->Interrupt();
        while (seen.load() < sent.load() && !stop.load()) std::this_thread::yield();
      }
      stop.store(true);
    });
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!stop.load() && std::chrono::steady_clock::now() < deadline) {
      if (target.Run().trap == Trap::kInterrupted) seen.fetch_add(1);
      ASSERT_EQ(bystander.Run().trap, Trap::kSyscall);
    }
    EXPECT_TRUE(stop.load()) << "an interrupt was lost after " << seen.load();
    stop.store(true);
    interrupter.join();
    EXPECT_EQ(seen.load(), 200);
  });
}

TEST_P(PlatformConformance, SseStateIsPerContext) {
  Addr code = AddCode(guest::Sse());
  constexpr int kGuests = 8;
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    for (int n = 0; n < kGuests; n++) {
      Spawn([&, space, n] {
        Guest g(platform(), space, code);
        uint64_t in = n * 4096, out = in + 2048;
        std::vector<std::byte> want(guest::kSseBytes);
        for (size_t i = 0; i < 256; i++) want[i] = static_cast<std::byte>(i * 31 + n);
        uint32_t mxcsr = 0x1f80 | (n % 4) << 13;
        uint16_t fcw = static_cast<uint16_t>(0x37f | (n % 4) << 10);
        memcpy(&want[256], &mxcsr, 4);
        memcpy(&want[260], &fcw, 2);
        memcpy(&Word(in), want.data(), want.size());
        g.regs.rdi = kData + in;
        g.regs.rsi = kData + out;
        ASSERT_EQ(g.Run().trap, Trap::kSyscall);
        for (int round = 0; round < 10; round++) {
          fiber::Yield();
          memset(&Word(out), 0, want.size());
          ASSERT_EQ(g.Run().trap, Trap::kSyscall);
          ASSERT_EQ(memcmp(&Word(out), want.data(), want.size()), 0) << "guest " << n << " round " << round;
        }
      });
    }
  });
}

TEST_P(PlatformConformance, AvxStateIsPerContext) {
  if (!__builtin_cpu_supports("avx")) GTEST_SKIP() << "no AVX";
  Addr code = AddCode(guest::Avx());
  Run([&] {
    for (int n = 0; n < 8; n++) {
      Spawn([&, n] {
        Guest g(platform(), NewSpace(), code);
        uint64_t in = n * 4096, out = in + 2048;
        std::vector<std::byte> want(guest::kAvxBytes);
        for (size_t i = 0; i < want.size(); i++) want[i] = static_cast<std::byte>(i * 7 + n * 3);
        memcpy(&Word(in), want.data(), want.size());
        g.regs.rdi = kData + in;
        g.regs.rsi = kData + out;
        ASSERT_EQ(g.Run().trap, Trap::kSyscall);
        for (int round = 0; round < 5; round++) {
          fiber::Yield();
          ASSERT_EQ(g.Run().trap, Trap::kSyscall);
          ASSERT_EQ(memcmp(&Word(out), want.data(), want.size()), 0) << "guest " << n << " round " << round;
        }
      });
    }
  });
}

TEST_P(PlatformConformance, FpStateCanBePulledAndPushed) {
  Addr code = AddCode(guest::Sse());
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    Guest a(platform(), space, code), b(platform(), space, code);
    for (size_t i = 0; i < 256; i++) reinterpret_cast<uint8_t*>(&Word(0))[i] = static_cast<uint8_t>(i + 1);
    uint32_t mxcsr = 0x1f80;
    uint16_t fcw = 0x37f;
    memcpy(reinterpret_cast<char*>(&Word(0)) + 256, &mxcsr, 4);
    memcpy(reinterpret_cast<char*>(&Word(0)) + 260, &fcw, 2);
    a.regs.rdi = kData;
    a.regs.rsi = kData + 4096;
    ASSERT_EQ(a.Run().trap, Trap::kSyscall);
    Result<FpState> state = a.context->PullFpState();
    ASSERT_TRUE(state.has_value());
    ASSERT_EQ(state->bytes.size(), FpStateSize());
    EXPECT_EQ(memcmp(state->bytes.data() + 160, &Word(0), 256), 0) << "xmm0-15 in the legacy area";
    uint64_t present;
    memcpy(&present, state->bytes.data() + 512, sizeof(present));
    EXPECT_EQ(present & ~FpStateFeatures(), 0u) << "what a signal frame would not be taken back with";

    // b continues where a was, as a cloned thread does.
    ASSERT_TRUE(b.context->PushFpState(*state).has_value());
    b.regs = a.regs;
    b.regs.rsi = kData + 8192;
    ASSERT_EQ(b.Run().trap, Trap::kSyscall);
    EXPECT_EQ(memcmp(&Word(8192), &Word(0), guest::kSseBytes), 0);

    // A hostile state is made harmless, and takes effect.
    FpState hostile;
    hostile.bytes.assign(FpStateSize(), std::byte{0xff});
    ASSERT_TRUE(a.context->PushFpState(hostile).has_value());
    ASSERT_EQ(a.Run().trap, Trap::kSyscall);
    EXPECT_EQ(Word(4096), ~uint64_t{0});
    // Empty is the initial state.
    ASSERT_TRUE(a.context->PushFpState(FpState{}).has_value());
    ASSERT_EQ(a.Run().trap, Trap::kSyscall);
    EXPECT_EQ(Word(4096), 0u);
    memcpy(&mxcsr, reinterpret_cast<char*>(&Word(4096)) + 256, 4);
    EXPECT_EQ(mxcsr, 0x1f80u);
  });
}

TEST_P(PlatformConformance, SegmentBasesAreRegisters) {
  Addr code = AddCode(guest::SegmentBases());
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    Word(128) = 111;
    Word(256) = 222;
    for (int i = 0; i < 4; i++) {
      Guest g(platform(), space, code);
      g.regs.fs_base = kData + (i % 2 ? 128 : 256);
      g.regs.gs_base = kData + (i % 2 ? 256 : 128);
      ASSERT_EQ(g.Run().trap, Trap::kSyscall);
      EXPECT_EQ(g.regs.orig_rax, i % 2 ? 111u : 222u);
      EXPECT_EQ(g.regs.rbx, i % 2 ? 222u : 111u);
      EXPECT_EQ(g.regs.fs_base, kData + (i % 2 ? 128 : 256));
    }
  });
}

TEST_P(PlatformConformance, ManyContextsInOneSpace) {
  Addr code = AddCode(guest::SyscallLoop());
  std::atomic<int> done{0};
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    for (uint64_t n = 0; n < 200; n++) {
      Spawn([&, space, n] {
        Guest g(platform(), space, code);
        for (uint64_t i = 0; i < 3; i++) {
          g.regs.rax = n;
          g.regs.r12 = n * 1000 + i;
          ASSERT_EQ(g.Run().trap, Trap::kSyscall);
          ASSERT_EQ(g.regs.orig_rax, n);
          ASSERT_EQ(g.regs.r12, n * 1000 + i);
          fiber::Yield();
        }
        done.fetch_add(1);
      });
    }
  });
  EXPECT_EQ(done.load(), 200);
}

TEST_P(PlatformConformance, ManySpaces) {
  Addr store = AddCode(guest::Store());
  Run([&] {
    std::vector<std::unique_ptr<Guest>> guests;
    for (uint64_t n = 0; n < 100; n++) {
      guests.push_back(std::make_unique<Guest>(platform(), NewSpace(), store));
      // The same address, a page of its own.
      uint64_t offset = (8 << 20) + n * kPageSize;
      ASSERT_TRUE(guests[n]->space->MapFile(0x10000000, memory_fd(), offset, kPageSize, kReadWrite, false).has_value());
    }
    for (uint64_t n = 0; n < 100; n++) {
      guests[n]->regs.rdi = 0x10000000;
      guests[n]->regs.rsi = n + 1;
      ASSERT_EQ(guests[n]->Run().trap, Trap::kSyscall);
    }
    for (uint64_t n = 0; n < 100; n++) {
      uint64_t value;
      memcpy(&value, memory() + (8 << 20) + n * kPageSize, sizeof(value));
      EXPECT_EQ(value, n + 1);
    }
  });
}

TEST_P(PlatformConformance, UnmapAndRemapAreSeenAtOnce) {
  Addr load = AddCode(guest::Load());
  Run([&] {
    Guest g(platform(), NewSpace(), load);
    for (uint64_t n = 0; n < 5; n++) {
      memcpy(memory() + (9 << 20) + n * kPageSize, &n, sizeof(n));
      ASSERT_TRUE(
          g.space->MapFile(0x20000000, memory_fd(), (9 << 20) + n * kPageSize, kPageSize, kRead, n % 2).has_value());
      g.regs.rip = load;
      g.regs.rdi = 0x20000000;
      ASSERT_EQ(g.Run().trap, Trap::kSyscall);
      EXPECT_EQ(g.regs.orig_rax, n) << "replaced without an unmap";
    }
    ASSERT_TRUE(g.space->Unmap(0x20000000, kPageSize).has_value());
    ASSERT_TRUE(g.space->Unmap(0x20000000, kPageSize).has_value()) << "nothing there is fine";
    g.regs.rip = load;
    EXPECT_TRUE(g.Run().is_page_fault());
    // No access maps nothing.
    ASSERT_TRUE(g.space->MapFile(kData, memory_fd(), kDataOffset, kPageSize, AccessType{}, false).has_value());
    g.regs.rdi = kData;
    EXPECT_TRUE(g.Run().is_page_fault());
  });
}

TEST_P(PlatformConformance, MapsWhileAnotherThreadRuns) {
  Addr count = AddCode(guest::Count()), load = AddCode(guest::Load());
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    auto spinner = std::make_shared<Guest>(platform(), space, count);
    spinner->regs.rdi = kData;
    Spawn([spinner] { EXPECT_EQ(spinner->Run().trap, Trap::kInterrupted); });
    Spawn([&, space, spinner] {
      Guest g(platform(), space, load);
      for (uint64_t n = 0; n < 20; n++) {
        Addr addr = 0x30000000 + n * kPageSize;
        ASSERT_TRUE(space->MapFile(addr, memory_fd(), kDataOffset + kPageSize, kPageSize, kRead, false).has_value());
        g.regs.rip = load;
        g.regs.rdi = addr;
        EXPECT_EQ(g.Run().trap, Trap::kSyscall);
        EXPECT_TRUE(space->Unmap(addr, kPageSize).has_value());
      }
      // Its thread may not have begun yet.
      volatile uint64_t& counted = Word(0);
      while (counted == 0) fiber::Yield();
      spinner->context->Interrupt();
    });
  });
}

TEST_P(PlatformConformance, RefusesWhatIsNotTheGuests) {
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    Addr max = platform().max_user_address();
    EXPECT_GE(max, Addr{0x7fff00000000});
    EXPECT_LE(platform().min_user_address(), Addr{0x10000});
    EXPECT_EQ(space->MapFile(max, memory_fd(), 0, kPageSize, kRead, false).error(), Errno(EINVAL));
    EXPECT_EQ(space->MapFile(max - kPageSize, memory_fd(), 0, 2 * kPageSize, kRead, false).error(), Errno(EINVAL));
    EXPECT_EQ(space->MapFile(~uint64_t{0xfff}, memory_fd(), 0, kPageSize, kRead, false).error(), Errno(EINVAL));
    EXPECT_EQ(space->MapFile(kData + 1, memory_fd(), 0, kPageSize, kRead, false).error(), Errno(EINVAL));
    EXPECT_EQ(space->MapFile(kData, memory_fd(), 1, kPageSize, kRead, false).error(), Errno(EINVAL));
    EXPECT_EQ(space->MapFile(kData, memory_fd() + 1000, 0, kPageSize, kRead, false).error(), Errno(EINVAL));
    EXPECT_EQ(space->Unmap(max, kPageSize).error(), Errno(EINVAL));
    EXPECT_TRUE(space->MapFile(max - kPageSize, memory_fd(), 0, kPageSize, kRead, false).has_value());
  });
}

// Each writes its own word and waits for the other's: only guests that run at the same time get out.
TEST_P(PlatformConformance, TwoContextsRunInParallel) {
  Addr code = AddCode(guest::Rendezvous());
  std::atomic<int> done{0};
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    for (int n = 0; n < 2; n++) {
      Spawn([&, space, n] {
        Guest g(platform(), space, code);
        for (uint64_t round = 1; round <= 5; round++) {
          g.regs.rip = code;
          g.regs.rdi = kData + n * 64;
          g.regs.rdx = kData + (1 - n) * 64;
          g.regs.rsi = round;
          // Both words may already hold the next round's number, never an earlier one.
          Trap trap = g.Run().trap;
          ASSERT_EQ(trap, Trap::kSyscall);
          done.fetch_add(1);
          while (done.load() < static_cast<int>(2 * round)) fiber::Yield();
        }
      });
    }
  });
  EXPECT_EQ(done.load(), 10);
}

TEST_P(PlatformConformance, ReleaseEndsTheSpaceForMapping) {
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    space->Release();
    space->Release();
    EXPECT_FALSE(space->MapFile(kData, memory_fd(), kDataOffset, kPageSize, kRead, false).has_value());
  });
}

}  // namespace
}  // namespace redoubt::platform
