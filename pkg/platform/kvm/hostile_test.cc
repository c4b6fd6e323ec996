// The trust boundary. Whatever a guest does in ring 3 is a system call, a signal or nothing: the virtual machine goes
// on, other guests notice nothing, and ring 0 is neither read, written nor executed.
#include <gtest/gtest.h>
#include <signal.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "pkg/platform/conformance.h"
#include "pkg/platform/guest_code_amd64_unsafe.h"
#include "pkg/platform/kvm/kvm.h"
#include "pkg/platform/registers_amd64.h"
#include "pkg/ring0/ring0.h"

namespace redoubt::platform::kvm {
namespace {

using std::chrono::milliseconds;

// Where the attackers' code is: readable, writable and executable; a stack; a page to scribble on.
constexpr Addr kAttack = 0x10000000;
constexpr uint64_t kAttackOffset = 16 << 20;
constexpr uint64_t kAttackSize = 16 * kPageSize;
constexpr Addr kStackTop = kAttack + 8 * kPageSize;

std::vector<uint8_t> Bytes(std::initializer_list<int> bytes) { return {bytes.begin(), bytes.end()}; }

class KvmHostile : public PlatformConformance {
 protected:
  void SetUp() override {
    PlatformConformance::SetUp();
    loop_ = AddCode(platform::guest::SyscallLoop());
  }

  // Runs `body` with an attacker's context and space and a bystander's, and checks afterwards that the bystander is
  // well.
  void Attack(const std::function<void()>& body) {
    Run([&] {
      space_ = NewSpace();
      AccessType all = kAnyAccess;
      ASSERT_TRUE(space_->MapFile(kAttack, memory_fd(), kAttackOffset, kAttackSize, all, false).has_value());
      context_ = *platform().NewContext();
      bystander_space_ = NewSpace();
      bystander_ = *platform().NewContext();
      CheckBystander();
      body();
      CheckBystander();
      context_.reset();
      bystander_.reset();
      space_.reset();
      bystander_space_.reset();
    });
  }

  void CheckBystander() {
    Registers regs{};
    regs.rip = loop_;
    for (uint64_t i = 0; i < 3; i++) {
      regs.rax = i;
      regs.rbx = ~i;
      regs.fs_base = kData;
      Result<TrapInfo> info = bystander_->Switch(*bystander_space_, regs);
      ASSERT_TRUE(info.has_value()) << what_;
      ASSERT_EQ(info->trap, Trap::kSyscall) << what_;
      ASSERT_EQ(regs.orig_rax, i) << what_;
      ASSERT_EQ(regs.rbx, ~i) << what_;
      ASSERT_EQ(regs.rip, loop_ + 2) << what_;
      ASSERT_EQ(regs.fs_base, kData) << what_;
    }
  }

  Registers At(Addr rip) {
    Registers regs{};
    regs.rip = rip;
    regs.rsp = kStackTop;
    return regs;
  }

  // The code, then a syscall with a number that says it came so far.
  void Put(const std::vector<uint8_t>& code) {
    std::byte* at = memory() + kAttackOffset;
    memset(at, 0xcc, kPageSize);
    std::copy(code.begin(), code.end(), reinterpret_cast<uint8_t*>(at));
    const uint8_t end[] = {0x0f, 0x05};
    memcpy(at + code.size(), end, sizeof(end));
  }

  TrapInfo Go(Registers& regs) {
    Result<TrapInfo> info = context_->Switch(*space_, regs);
    EXPECT_TRUE(info.has_value()) << what_;
    return info ? *info : TrapInfo{};
  }

  // The code must end in this signal, at its start.
  void ExpectSignal(const std::string& what, const std::vector<uint8_t>& code, int signal) {
    what_ = what;
    Put(code);
    Registers regs = At(kAttack);
    TrapInfo info = Go(regs);
    EXPECT_EQ(info.trap, Trap::kFault) << what;
    EXPECT_EQ(info.signal.signo, signal) << what;
  }

  Addr loop_ = 0;
  std::string what_;
  RefPtr<AddressSpace> space_, bystander_space_;
  std::unique_ptr<Context> context_, bystander_;
};
INSTANTIATE_TEST_SUITE_P(Kvm, KvmHostile, testing::Values(PlatformFactory{"kvm", Create}),
                         [](const auto& info) { return info.param.name; });

TEST_P(KvmHostile, NoPageOfRing0CanBeReadWrittenOrExecuted) {
  Addr load = AddCode(platform::guest::Load()), store = AddCode(platform::guest::Store());
  Attack([&] {
    // All that is mapped, and around it; then steps over all of the upper half.
    std::vector<Addr> pages;
    for (int i = -2; i < 3 + 64 + 2; i++) pages.push_back(ring0::kBase + i * kPageSize);
    for (int bit = 12; bit < 47; bit++) pages.push_back(0xffff800000000000 + (Addr{1} << bit));
    for (Addr page : pages) {
      for (uint64_t offset : {uint64_t{0}, uint64_t{RING0_SYSCALL_STUB}, uint64_t{RING0_TRAP_STACK} - 8,
                              uint64_t{RING0_ENTER_FRAME}, kPageSize - 8}) {
        const Addr addr = page + offset;
        Registers regs = At(load);
        regs.rdi = addr;
        TrapInfo info = Go(regs);
        ASSERT_TRUE(info.is_page_fault()) << std::hex << addr;
        ASSERT_EQ(info.signal.signo, SIGSEGV);
        ASSERT_EQ(info.signal.code, SEGV_MAPERR) << "nor can it be told from what is not mapped";
        ASSERT_EQ(info.error_code, 5u);
        ASSERT_EQ(reinterpret_cast<Addr>(info.signal.addr), addr);
        regs = At(store);
        regs.rdi = addr;
        regs.rsi = 0x4141414141414141;
        info = Go(regs);
        ASSERT_TRUE(info.is_page_fault()) << std::hex << addr;
        ASSERT_EQ(info.error_code, 7u);
      }
    }
    // jmp *%rdi
    Put(Bytes({0xff, 0xe7}));
    for (Addr page : pages) {
      for (uint64_t offset = 0; offset < RING0_TEXT_SIZE; offset += 8) {
        const Addr addr = page + offset;
        Registers regs = At(kAttack);
        regs.rdi = addr;
        regs.rcx = 0x8000000000000000;  // no return address of a system call
        TrapInfo info = Go(regs);
        ASSERT_TRUE(info.is_page_fault()) << std::hex << addr;
        ASSERT_EQ(info.signal.signo, SIGSEGV);
        ASSERT_TRUE(info.access.execute);
      }
      CheckBystander();
    }
  });
}

// Where `syscall` is a fault at LSTAR, a jump there is a system call, with what the guest says it returns to.
TEST_P(KvmHostile, AJumpToTheSystemCallEntryGainsNothing) {
  Attack([&] {
    Put(Bytes({0xff, 0xe7}));
    for (Addr rcx : {Addr{0}, Addr{0x1234}, kTaskSize - 1, kTaskSize, kTaskSize + 1, Addr{0x800000000000},
                     ring0::kLstar, ring0::kBase, ~Addr{0}}) {
      Registers regs = At(kAttack);
      regs.rdi = ring0::kLstar;
      regs.rcx = rcx;
      regs.r11 = ~uint64_t{0};
      TrapInfo info = Go(regs);
      if (info.trap == Trap::kSyscall) {
        EXPECT_LE(rcx, kTaskSize);
        EXPECT_EQ(regs.rip, rcx);
        // It goes on there, as user code with a user's flags.
        info = Go(regs);
        EXPECT_EQ(regs.cs, kUserCs);
      }
      EXPECT_EQ(info.trap, Trap::kFault) << std::hex << rcx;
      EXPECT_EQ(info.signal.signo, info.trapno == kTrapDebug ? SIGTRAP : SIGSEGV);
      CheckBystander();
    }
  });
}

TEST_P(KvmHostile, PrivilegedInstructions) {
  Attack([&] {
    ExpectSignal("hlt", Bytes({0xf4}), SIGSEGV);
    ExpectSignal("cli", Bytes({0xfa}), SIGSEGV);
    ExpectSignal("sti", Bytes({0xfb}), SIGSEGV);
    ExpectSignal("out", Bytes({0xe6, RING0_SYSCALL_PORT}), SIGSEGV);
    for (int port = 0; port < 32; port++) ExpectSignal("out", Bytes({0xe6, port}), SIGSEGV);
    ExpectSignal("out dx", Bytes({0xba, 0xf0, 0, 0, 0, 0xee}), SIGSEGV);
    ExpectSignal("in", Bytes({0xe4, 0x60}), SIGSEGV);
    ExpectSignal("insb", Bytes({0x6c}), SIGSEGV);
    ExpectSignal("outsb", Bytes({0x6e}), SIGSEGV);
    ExpectSignal("mov cr0", Bytes({0x0f, 0x20, 0xc0}), SIGSEGV);
    ExpectSignal("mov to cr0", Bytes({0x0f, 0x22, 0xc0}), SIGSEGV);
    ExpectSignal("mov cr3", Bytes({0x0f, 0x20, 0xd8}), SIGSEGV);
    ExpectSignal("mov to cr3", Bytes({0x0f, 0x22, 0xd8}), SIGSEGV);
    ExpectSignal("mov to cr4", Bytes({0x0f, 0x22, 0xe0}), SIGSEGV);
    ExpectSignal("mov cr8", Bytes({0x44, 0x0f, 0x20, 0xc0}), SIGSEGV);
    ExpectSignal("mov dr0", Bytes({0x0f, 0x21, 0xc0}), SIGSEGV);
    ExpectSignal("mov to dr0", Bytes({0x0f, 0x23, 0xc0}), SIGSEGV);
    ExpectSignal("mov to dr7", Bytes({0x0f, 0x23, 0xf8}), SIGSEGV);
    ExpectSignal("rdmsr", Bytes({0xb9, 0x82, 0, 0, 0xc0, 0x0f, 0x32}), SIGSEGV);
    ExpectSignal("wrmsr", Bytes({0xb9, 0x82, 0, 0, 0xc0, 0x0f, 0x30}), SIGSEGV);
    ExpectSignal("rdpmc", Bytes({0x31, 0xc9, 0x0f, 0x33}), SIGSEGV);
    ExpectSignal("swapgs", Bytes({0x0f, 0x01, 0xf8}), SIGSEGV);
    ExpectSignal("invlpg", Bytes({0x0f, 0x01, 0x3f}), SIGSEGV);
    ExpectSignal("lgdt", Bytes({0x0f, 0x01, 0x14, 0x24}), SIGSEGV);
    ExpectSignal("lidt", Bytes({0x0f, 0x01, 0x1c, 0x24}), SIGSEGV);
    ExpectSignal("lldt", Bytes({0x31, 0xc0, 0x0f, 0x00, 0xd0}), SIGSEGV);
    ExpectSignal("ltr", Bytes({0xb8, 0x40, 0, 0, 0, 0x0f, 0x00, 0xd8}), SIGSEGV);
    ExpectSignal("lmsw", Bytes({0x0f, 0x01, 0xf0}), SIGSEGV);
    ExpectSignal("clts", Bytes({0x0f, 0x06}), SIGSEGV);
    ExpectSignal("wbinvd", Bytes({0x0f, 0x09}), SIGSEGV);
    ExpectSignal("invd", Bytes({0x0f, 0x08}), SIGSEGV);
    ExpectSignal("xsetbv", Bytes({0x31, 0xc9, 0x0f, 0x01, 0xd1}), SIGSEGV);
    ExpectSignal("sysretq", Bytes({0x48, 0x0f, 0x07}), SIGSEGV);
    ExpectSignal("ud2", Bytes({0x0f, 0x0b}), SIGILL);
    CheckBystander();
  });
}

TEST_P(KvmHostile, EverySoftwareInterrupt) {
  Attack([&] {
    for (int n = 0; n < 256; n++) {
      what_ = "int " + std::to_string(n);
      Put(Bytes({0xcd, n}));
      Registers regs = At(kAttack);
      TrapInfo info = Go(regs);
      // A host without hardware virtualization may have gates of its own for a few reserved vectors, that do nothing.
      if (info.trap == Trap::kSyscall && n > 20 && n < 32) continue;
      ASSERT_EQ(info.trap, Trap::kFault) << what_;
      ASSERT_EQ(info.signal.signo, n == 3 ? SIGTRAP : SIGSEGV) << what_;
      if (n == 3 || n == 4) {
        ASSERT_EQ(regs.rip, kAttack + 2) << "traps, not faults";
      }
      if (n % 16 == 0) CheckBystander();
    }
  });
}

TEST_P(KvmHostile, ForgedSegments) {
  Attack([&] {
    // Any selector in any segment register: a fault or a value that gives no rights.
    for (int selector = 0; selector < 0x110; selector++) {
      for (int reg : {0 /* es */, 3 /* ds */, 4 /* fs */, 5 /* gs */, 2 /* ss */}) {
        what_ = "mov " + std::to_string(selector) + " to segment register " + std::to_string(reg);
        Put(Bytes({0xb8, selector & 0xff, selector >> 8, 0, 0, 0x8e, 0xc0 | reg << 3}));
        Registers regs = At(kAttack);
        TrapInfo info = Go(regs);
        if (info.trap == Trap::kSyscall) {
          ASSERT_EQ(regs.cs, kUserCs);
          ASSERT_EQ(regs.ss, kUserDs);
        } else {
          ASSERT_EQ(info.trap, Trap::kFault) << what_;
          ASSERT_TRUE(info.signal.signo == SIGSEGV || info.signal.signo == SIGBUS) << what_;
        }
      }
      // push selector; push target; lretq
      what_ = "far return to " + std::to_string(selector);
      std::vector<uint8_t> code =
          Bytes({0x68, selector & 0xff, selector >> 8, 0, 0, 0x48, 0xb8, 0, 1, 0, 0x10, 0, 0, 0, 0, 0x50, 0x48, 0xcb});
      Put(code);
      memcpy(memory() + kAttackOffset + 0x100, "\x0f\x05", 2);
      Registers regs = At(kAttack);
      TrapInfo info = Go(regs);
      if (info.trap == Trap::kSyscall) {
        ASSERT_EQ(selector, static_cast<int>(kUserCs)) << what_;
      } else {
        ASSERT_EQ(info.trap, Trap::kFault) << what_;
      }
      // The same by iretq, with ss and flags.
      what_ = "iretq to " + std::to_string(selector);
      code = Bytes(
          {0x6a, 0x2b, 0x54, 0x68, 0xff, 0x7f, 0x3f, 0,    0x68, selector & 0xff, selector >> 8, 0, 0, 0x48, 0xb8, 0, 1,
           0,    0x10, 0,    0,    0,    0,    0x50, 0x48, 0xcf});
      Put(code);
      memcpy(memory() + kAttackOffset + 0x100, "\x0f\x05", 2);
      regs = At(kAttack);
      info = Go(regs);
      if (info.trap == Trap::kSyscall) {
        ASSERT_EQ(selector, static_cast<int>(kUserCs)) << what_;
        ASSERT_EQ(regs.eflags & 0x3000, 0u) << "IOPL";
      } else {
        ASSERT_EQ(info.trap, Trap::kFault) << what_;
      }
      if (selector % 32 == 0) CheckBystander();
    }
  });
}

// Without hardware virtualization this may lead to code that the processor takes for 32-bit code, whose system calls
// come by CSTAR, with the stack that ring 3 chose.
TEST_P(KvmHostile, IretqToADataSegmentWithRing0sStack) {
  Attack([&] {
    EXPECT_FALSE(space_->MapFile(0, memory_fd(), kAttackOffset, kPageSize, kAnyAccess, false).has_value());
    // pushq $0x2b; pushq %rdi; pushfq; pushq $0x2b; pushq $0x10000100; iretq
    Put(Bytes({0x6a, 0x2b, 0x57, 0x9c, 0x6a, 0x2b, 0x68, 0x00, 0x01, 0x00, 0x10, 0x48, 0xcf}));
    memcpy(memory() + kAttackOffset + 0x100, "\x0f\x05", 2);
    std::vector<Addr> stacks = {0, kStackTop, kData + 0x100, ring0::kIdt + 0x100, ring0::kGdt + 0x100, ~Addr{0}};
    for (int cpu = 0; cpu < 8; cpu++) {
      for (uint64_t offset : {0x2c, 0x30, 0x34, 0x54, RING0_TRAP_STACK, RING0_ENTER_FRAME + 40}) {
        stacks.push_back(ring0::CpuPage(cpu) + offset);
      }
    }
    for (Addr stack : stacks) {
      Registers regs = At(kAttack);
      regs.rdi = stack;
      TrapInfo info = Go(regs);
      ASSERT_EQ(info.trap, Trap::kFault) << std::hex << stack;
      // (A KVM without hardware virtualization may emulate it; then what it went to is no instruction of that segment.)
      ASSERT_TRUE(info.signal.signo == SIGSEGV || info.signal.signo == SIGBUS ||
                  (info.signal.signo == SIGILL && regs.rip == kAttack + 0x100))
          << std::hex << stack << " signal " << info.signal.signo << " vector " << info.trapno << " rip " << regs.rip;
      CheckBystander();
    }
  });
}

TEST_P(KvmHostile, ForgedRegistersGivenToSwitch) {
  Attack([&] {
    Put({});
    std::mt19937_64 random(1);
    for (int i = 0; i < 300; i++) {
      Registers regs;
      uint64_t words[sizeof(regs) / 8];
      for (uint64_t& w : words) w = random() >> (random() % 64);
      memcpy(&regs, words, sizeof(regs));
      if (i % 3 != 0) regs.rip = kAttack;
      if (i % 2 == 0) regs.fs_base = regs.gs_base = 0;
      what_ = "registers " + std::to_string(i);
      TrapInfo info = Go(regs);
      if (info.trap == Trap::kSyscall) {
        EXPECT_EQ(regs.cs, kUserCs);
        EXPECT_EQ(regs.ss, kUserDs);
        EXPECT_EQ(regs.rip, kAttack + 2);
      } else {
        EXPECT_EQ(info.trap, Trap::kFault);
      }
    }
  });
}

// A system call in the last bytes of the address space returns to an address that the processor's sysret must never
// see.
TEST_P(KvmHostile, SysretToTheBorder) {
  Attack([&] {
    const Addr last = platform().max_user_address() - kPageSize;
    memset(memory() + kAttackOffset, 0x90, kPageSize);
    memcpy(memory() + kAttackOffset + kPageSize - 2, "\x0f\x05", 2);
    AccessType rx{.read = true, .execute = true};
    ASSERT_TRUE(space_->MapFile(last, memory_fd(), kAttackOffset, kPageSize, rx, false).has_value());
    Registers regs = At(last + kPageSize - 2);
    ASSERT_EQ(Go(regs).trap, Trap::kSyscall);
    EXPECT_EQ(regs.rip, last + kPageSize);
    TrapInfo info = Go(regs);
    EXPECT_EQ(info.trap, Trap::kFault);
    EXPECT_EQ(info.signal.signo, SIGSEGV);
    // And what the guest could make of rcx and r11 by sigreturn.
    for (Addr rip : {Addr{0x7fffffffffff}, Addr{0x800000000000}, Addr{0xfff8000000000000}, ring0::kText}) {
      regs = At(rip);
      regs.rcx = rip;
      regs.r11 = regs.eflags = 0x202;
      info = Go(regs);
      EXPECT_EQ(info.trap, Trap::kFault);
      EXPECT_EQ(info.signal.signo, SIGSEGV);
      CheckBystander();
    }
  });
}

TEST_P(KvmHostile, FlagsThatCouldDisturbRing0) {
  Attack([&] {
    // pushq %rdi; popfq; syscall: single-step, alignment checks, nested task, direction.
    Put(Bytes({0x57, 0x9d}));
    for (uint64_t flags : {uint64_t{0x100}, uint64_t{0x40000}, uint64_t{0x4000}, uint64_t{0x400}, uint64_t{0x3000},
                           uint64_t{0x44500}, ~uint64_t{0}}) {
      Registers regs = At(kAttack);
      regs.rdi = flags;
      for (int step = 0; step < 4; step++) {
        TrapInfo info = Go(regs);
        if (info.trap == Trap::kSyscall) break;
        ASSERT_EQ(info.signal.signo, SIGTRAP) << std::hex << flags;
      }
      EXPECT_EQ(regs.rip, kAttack + 4) << std::hex << flags;
      EXPECT_EQ(regs.eflags & 0x3000, 0u) << "IOPL";
      CheckBystander();
    }
    // An unaligned access with AC.
    Put(Bytes({0x68, 0x02, 0x02, 0x04, 0x00, 0x9d, 0x8b, 0x44, 0x24, 0x81}));
    Registers regs = At(kAttack);
    TrapInfo info = Go(regs);
    EXPECT_EQ(info.signal.signo, SIGBUS);
    EXPECT_EQ(info.signal.code, BUS_ADRALN);
    // Stacks that cannot be pushed to: traps have their own.
    Put(Bytes({0x0f, 0x0b}));
    for (Addr rsp : {Addr{0}, Addr{1}, ring0::CpuPage(0) + RING0_TRAP_STACK, Addr{0x8000000000000000}}) {
      regs = At(kAttack);
      regs.rsp = rsp;
      EXPECT_EQ(Go(regs).signal.signo, SIGILL);
      EXPECT_EQ(regs.rsp, rsp);
    }
  });
}

// Random bytes as code, with pointers to everything in its registers.
TEST_P(KvmHostile, RandomCode) {
  Attack([&] {
    std::atomic<int> ticks{0};
    std::atomic<bool> stop{false};
    std::atomic<int> now{0};
    std::jthread watchdog([&] {
      int seen = -1;
      for (; !stop.load() && !HasFatalFailure(); std::this_thread::sleep_for(milliseconds(5))) {
        if (now.load() == seen) {
          context_->Interrupt();
          ticks.fetch_add(1);
        }
        seen = now.load();
      }
    });
    int signals[64] = {};
    int calls = 0;
    for (int i = 0; i < 4000; i++) {
      std::mt19937_64 random(i);
      now.store(i);
      what_ = "seed " + std::to_string(i);
      uint8_t* code = reinterpret_cast<uint8_t*>(memory() + kAttackOffset);
      for (uint64_t j = 0; j < 256; j++) code[j] = static_cast<uint8_t>(random());
      // Two-byte opcodes and far transfers are where the surprises are.
      if (i % 2 == 0) code[0] = 0x0f;
      if (i % 8 == 0) code[1] = 0x01;
      if (i % 16 == 1) code[0] = 0xff;
      Registers regs = At(kAttack);
      regs.rax = ring0::kText;
      regs.rbx = ring0::CpuPage(0);
      regs.rcx = kAttack;
      regs.rdx = kData;
      regs.rsi = kAttack + 4 * kPageSize;
      regs.rdi = kStackTop - 256;
      Result<TrapInfo> info = context_->Switch(*space_, regs);
      ASSERT_TRUE(info.has_value()) << what_;
      if (info->trap == Trap::kFault) {
        ASSERT_GT(info->signal.signo, 0);
        ASSERT_LT(info->signal.signo, 32);
        signals[info->signal.signo]++;
      }
      calls += info->trap == Trap::kSyscall;
      ASSERT_TRUE(info->trap == Trap::kInterrupted || regs.cs == kUserCs);
      if (i % 64 == 0) CheckBystander();
    }
    stop.store(true);
    watchdog.join();
    EXPECT_GT(calls, 0);
    EXPECT_GT(signals[SIGSEGV], 0);
    EXPECT_GT(signals[SIGILL], 0);
  });
}

// A guest has no protection keys (SDM vol. 3, 4.6.2). Where it can write their rights nonetheless, since a KVM without
// hardware virtualization runs it with the host's CR4, it takes them from itself alone.
TEST_P(KvmHostile, RightsOfProtectionKeysCannotBeTakenFromOthers) {
  const Addr load = AddCode(platform::guest::Load());
  Attack([&] {
    // eax = all of access and write disabled; ecx = edx = 0; wrpkru; then data is read.
    const std::vector<uint8_t> code =
        Bytes({0xb8, 0xff, 0xff, 0xff, 0xff, 0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xef, 0x48, 0x8b, 0x07});
    for (int round = 0; round < 100; round++) {
      Put(code);
      Registers regs = At(kAttack);
      regs.rdi = kData;
      TrapInfo info = Go(regs);
      if (info.trap == Trap::kFault) {
        ASSERT_TRUE(info.signal.signo == SIGSEGV || info.signal.signo == SIGILL) << info.signal.signo;
      }
      CheckBystander();
      regs = At(load);
      regs.rdi = kData;
      Result<TrapInfo> ran = bystander_->Switch(*bystander_space_, regs);
      ASSERT_TRUE(ran.has_value());
      ASSERT_EQ(ran->trap, Trap::kSyscall) << ran->signal.signo;
    }
  });
}

// The processor that the guest is told of is one that it can use.
TEST_P(KvmHostile, FeaturesTheGuestSeesWork) {
  Attack([&] {
    // cpuid leaf 1; then, if OSXSAVE, xgetbv.
    Put(Bytes({0x0f, 0xa2, 0x89, 0xce}));  // cpuid; movl %ecx, %esi
    Registers regs = At(kAttack);
    regs.rax = 1;
    ASSERT_EQ(Go(regs).trap, Trap::kSyscall);
    ASSERT_NE(regs.rsi >> 27 & 1, 0u) << "OSXSAVE";
    Put(Bytes({0x31, 0xc9, 0x0f, 0x01, 0xd0, 0x89, 0xd6}));
    regs = At(kAttack);
    ASSERT_EQ(Go(regs).trap, Trap::kSyscall);
    const uint64_t xcr0 = regs.rsi << 32 | (regs.orig_rax & 0xffffffff);
    // (A KVM without hardware virtualization shows the host's, with protection keys' rights, and with tiles, which
    // nobody has who has not asked for them.)
    constexpr uint64_t kPkru = 1 << 9, kTiles = 3 << 17;
    EXPECT_EQ(xcr0 & ~(FpStateFeatures() | kPkru | kTiles), 0u) << "state that would not be saved";
    if ((xcr0 & kTiles) != 0) {
      Put(Bytes({0xc4, 0xe2, 0x7b, 0x49, 0xc0}));  // tilezero %tmm0
      regs = At(kAttack);
      EXPECT_EQ(Go(regs).trap, Trap::kFault);
    }
    // Of the vector extensions, what XCR0 offers executes; FSGSBASE is in AT_HWCAP2.
    if ((xcr0 & 6) == 6) {
      Put(Bytes({0xc5, 0xfd, 0xef, 0xc0}));  // vpxor %ymm0, %ymm0, %ymm0
      regs = At(kAttack);
      EXPECT_EQ(Go(regs).trap, Trap::kSyscall);
    }
    if ((xcr0 & 0xe0) == 0xe0) {
      Put(Bytes({0x62, 0xf1, 0xfd, 0x48, 0xef, 0xc0}));  // vpxorq %zmm0, %zmm0, %zmm0
      regs = At(kAttack);
      EXPECT_EQ(Go(regs).trap, Trap::kSyscall);
    }
    Put(Bytes({0xf3, 0x48, 0x0f, 0xae, 0xd7, 0xf3, 0x48, 0x0f, 0xae, 0xdf}));  // wrfsbase, wrgsbase %rdi
    regs = At(kAttack);
    regs.rdi = kData;
    ASSERT_EQ(Go(regs).trap, Trap::kSyscall);
    EXPECT_EQ(regs.fs_base, kData);
    EXPECT_EQ(regs.gs_base, kData);
  });
}

}  // namespace
}  // namespace redoubt::platform::kvm
