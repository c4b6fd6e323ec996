// What an operation may cost in host calls. KVM_RUN is an exit and an entry.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

#include "pkg/platform/conformance.h"
#include "pkg/platform/guest_code_amd64_unsafe.h"
#include "pkg/platform/kvm/api_unsafe.h"
#include "pkg/platform/kvm/kvm.h"

namespace redoubt::platform::kvm {
namespace {

class CountingApi final : public Api {
 public:
  Result<int> Ioctl(int fd, unsigned long request, uintptr_t argument) override {
    (request == KVM_RUN ? runs : others).fetch_add(1);
    return Api::Ioctl(fd, request, argument);
  }
  std::atomic<int> runs{0}, others{0};
};
CountingApi& Counted() {
  static CountingApi api;
  return api;
}
Result<std::unique_ptr<Platform>> CreateCounted(const Requirements& requirements) {
  return Create(Counted(), requirements);
}

class KvmBudget : public PlatformConformance {
 protected:
  struct Cost {
    int runs = 0;
    int others = 0;
    friend bool operator==(const Cost&, const Cost&) = default;
    friend void PrintTo(const Cost& c, std::ostream* os) { *os << c.runs << " runs, " << c.others << " other calls"; }
  };
  template <typename F>
  Cost CostOf(F&& body) {
    Cost before{Counted().runs.load(), Counted().others.load()};
    body();
    return {Counted().runs.load() - before.runs, Counted().others.load() - before.others};
  }
};
INSTANTIATE_TEST_SUITE_P(Kvm, KvmBudget, testing::Values(PlatformFactory{"kvm", CreateCounted}),
                         [](const auto& info) { return info.param.name; });

struct Guest {
  std::unique_ptr<Context> context;
  RefPtr<AddressSpace> space;
  Registers regs{};
  Trap Go() {
    Result<TrapInfo> info = context->Switch(*space, regs);
    EXPECT_TRUE(info.has_value());
    return info ? info->trap : Trap::kInterrupted;
  }
};

TEST_P(KvmBudget, OneRunForASystemCall) {
  Addr loop = AddCode(guest::SyscallLoop());
  Run([&] {
    Guest g{*platform().NewContext(), NewSpace()};
    g.regs.rip = loop;
    ASSERT_EQ(g.Go(), Trap::kSyscall);
    EXPECT_EQ(CostOf([&] {
                for (int i = 0; i < 100; i++) ASSERT_EQ(g.Go(), Trap::kSyscall);
              }),
              (Cost{.runs = 100, .others = 0}));
  });
}

TEST_P(KvmBudget, OneRunForAFaultAndNoneToMap) {
  Addr load = AddCode(guest::Load());
  Run([&] {
    Guest g{*platform().NewContext(), NewSpace()};
    auto touch = [&](int page) {
      g.regs.rip = load;
      g.regs.rdi = 0x10000000 + page * kPageSize;
      ASSERT_EQ(g.Go(), Trap::kFault);
      ASSERT_TRUE(
          g.space->MapFile(g.regs.rdi, memory_fd(), page * kPageSize, kPageSize, kReadWrite, false).has_value());
      ASSERT_EQ(g.Go(), Trap::kSyscall);
      ASSERT_TRUE(g.space->MapFile(g.regs.rdi, memory_fd(), page * kPageSize, kPageSize, kRead, false).has_value());
      ASSERT_TRUE(g.space->Unmap(g.regs.rdi, kPageSize).has_value());
    };
    touch(0);
    EXPECT_EQ(CostOf([&] {
                for (int page = 1; page < 101; page++) touch(page);
              }),
              (Cost{.runs = 200, .others = 0}))
        << "the fault and the system call after it";
  });
}

// As many contexts as vCPUs keep their state in them.
TEST_P(KvmBudget, NothingMoreForASwitchOfProcesses) {
  Addr loop = AddCode(guest::SyscallLoop());
  Run([&] {
    std::vector<Guest> guests;
    for (int n = 0; n < 2; n++) {
      guests.push_back({*platform().NewContext(), NewSpace()});
      guests[n].regs.rip = loop;
      ASSERT_EQ(guests[n].Go(), Trap::kSyscall);
    }
    EXPECT_EQ(CostOf([&] {
                for (int i = 0; i < 100; i++) ASSERT_EQ(guests[i % 2].Go(), Trap::kSyscall);
              }),
              (Cost{.runs = 100, .others = 0}));
  });
}

// More than that: one call to save the state of whom it displaces, one to load its own.
TEST_P(KvmBudget, TwoCallsMoreWhenStateMoves) {
  Addr loop = AddCode(guest::SyscallLoop());
  Run([&] {
    RefPtr<AddressSpace> space = NewSpace();
    std::vector<Guest> guests;
    for (int n = 0; n < 70; n++) {
      guests.push_back({*platform().NewContext(), space});
      guests[n].regs.rip = loop;
      ASSERT_EQ(guests[n].Go(), Trap::kSyscall);
    }
    Cost cost = CostOf([&] {
      for (auto& g : guests) ASSERT_EQ(g.Go(), Trap::kSyscall);
    });
    EXPECT_EQ(cost, (Cost{.runs = 70, .others = 140}));
  });
}

// An address space costs a slot for a chunk of page tables now and then, and nothing else.
TEST_P(KvmBudget, AddressSpacesAreCheap) {
  Addr loop = AddCode(guest::SyscallLoop());
  Run([&] {
    auto live = [&] {
      Guest g{*platform().NewContext(), NewSpace()};
      g.regs.rip = loop;
      ASSERT_EQ(g.Go(), Trap::kSyscall);
      g.space->Release();
    };
    for (int i = 0; i < 10; i++) live();
    Cost cost = CostOf([&] {
      for (int i = 0; i < 200; i++) live();
    });
    EXPECT_EQ(cost.runs, 200);
    // A new context loads its state (1); of 256 tables 4 are a space's: the slot goes and comes.
    EXPECT_LE(cost.others, 200 + 200 * 4 / 256 * 2 + 4);
  });
}

}  // namespace
}  // namespace redoubt::platform::kvm
