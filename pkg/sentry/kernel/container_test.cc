// Containers under many schedules: a kernel whose platform runs scripts, on the deterministic executor.
#include "pkg/sentry/kernel/container.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>

#include <map>

#include "pkg/sentry/kernel/fake_machine.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::kernel {
namespace {

constexpr uint64_t kSeeds = 60;

// What a guest does next. rbx is its program counter: it says of itself where it goes on.
enum class Op : uint64_t {
  kCompute,     // stays in the guest until interrupted
  kCall,        // a system call that does nothing
  kSleep,       // ... that waits for a millisecond
  kFork,        // rax is 0 in the child
  kFork2,       // as above, of a thread
  kKillOthers,  // kill(-1, SIGKILL)
  kKillFirst,   // kill(1, SIGKILL)
  kWait,        // for a child
  kExit,
};

Result<uint64_t> Dispatch(Task& task, uint64_t number, const SyscallArgs&) {
  switch (static_cast<Op>(number)) {
    case Op::kSleep:
      return wait::Block(fiber::Now() + kMillisecond) ? 0 : Result<uint64_t>(Err(EINTR));
    case Op::kFork:
      return static_cast<uint64_t>(TRY(task.Clone({.exit_signal = SIGCHLD})));
    case Op::kFork2:
      return static_cast<uint64_t>(
          TRY(task.Clone({.flags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_FS | CLONE_FILES})));
    case Op::kKillOthers:
      TRY(task.kernel().Kill(task, -1, SIGKILL));
      return 0;
    case Op::kKillFirst:
      TRY(task.kernel().Kill(task, 1, SIGKILL));
      return 0;
    case Op::kWait:
      return static_cast<uint64_t>(TRY(task.kernel().Wait(task, {.id_type = P_ALL, .id = 0, .options = WEXITED})).pid);
    case Op::kExit:
      task.ExitGroup(7 << 8);
      return 0;
    default:
      return 0;
  }
}

class Machine : public FakeMachine {
 public:
  Machine(uint64_t seed, std::function<Op(platform::Registers&)> guest)
      : FakeMachine(
            seed, [guest = std::move(guest)](platform::Registers& r) { return static_cast<uint64_t>(guest(r)); },
            Dispatch) {}
};

// Goes on as `child` in the child of a fork, as `parent` in the parent.
void Branch(platform::Registers& r, uint64_t parent, uint64_t child) { r.rbx = r.rax == 0 ? child : parent; }

// A family of all kinds: one that computes, one that calls, one that sleeps, one that forks all the time, a thread that
// calls, and the first, which sleeps.
Op Family(platform::Registers& r) {
  switch (r.rbx) {
    case 0:
    case 2:
    case 4:
    case 6:
      r.rbx++;
      return Op::kFork;
    case 1:
    case 3:
    case 5:
    case 7: {
      const uint64_t step = r.rbx;
      Branch(r, step + 1, step * 100);
      return Op::kCall;
    }
    case 8:
      r.rbx++;
      return Op::kFork2;
    case 9:
      Branch(r, 10, 300);
      return Op::kCall;
    case 100:
      return Op::kCompute;
    case 300:
      return Op::kCall;
    case 500:
      return Op::kSleep;
    case 700:
      r.rbx++;
      return Op::kFork;
    case 701:
      Branch(r, 702, 800);
      return Op::kSleep;
    case 702:
      r.rbx = 700;
      return Op::kWait;
    case 800:
      return Op::kExit;
    default:
      return Op::kSleep;
  }
}

TEST(Container, FrozenNobodyRunsUntilThaw) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    Machine m(seed, Family);
    m.Run([&] {
      RefPtr<Container> container = MakeRef<Container>("c");
      m.Create(container);
      // Sometimes in the middle of the forks, sometimes when all are there.
      m.Sleep(static_cast<fiber::Time>(seed) * kMillisecond / 8);
      for (int round = 0; round < 3; round++) {
        EXPECT_TRUE(m.kernel().Freeze(*container));
        EXPECT_EQ(m.world().inside, 0);
        m.world().frozen = true;
        const uint64_t before = m.world().switches;
        m.Sleep(20 * kMillisecond);
        EXPECT_EQ(m.world().switches, before);
        m.world().frozen = false;
        m.kernel().Thaw(*container);
        m.Sleep(5 * kMillisecond);
        EXPECT_GT(m.world().switches, before);
      }
      EXPECT_GE(m.Alive(*container), 1u);
    });
  }
}

TEST(Container, FrozenOthersRun) {
  Machine m(1, [](platform::Registers&) { return Op::kSleep; });
  m.Run([&] {
    RefPtr<Container> a = MakeRef<Container>("a"), b = MakeRef<Container>("b");
    m.Create(a);
    m.Create(b);
    ASSERT_TRUE(m.kernel().Freeze(*a));
    const uint64_t before = m.world().switches;
    m.Sleep(20 * kMillisecond);
    EXPECT_GT(m.world().switches, before);
  });
}

TEST(Container, FrozenCanBeKilled) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    Machine m(seed, Family);
    m.Run([&] {
      RefPtr<Container> container = MakeRef<Container>("c");
      RefPtr<ThreadGroup> init = m.Create(container);
      m.Sleep(static_cast<fiber::Time>(seed) * kMillisecond / 8);
      EXPECT_TRUE(m.kernel().Freeze(*container));
      m.world().frozen = true;
      EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGKILL, SI_USER)));
      EXPECT_EQ(m.kernel().WaitForExit(*init), SIGKILL);
      m.kernel().KillAll(container.get());
      EXPECT_EQ(m.Alive(*container), 0u);
      m.world().frozen = false;
    });
  }
}

TEST(Container, FrozenTakesOtherSignalsWhenThawed) {
  Machine m(2, [](platform::Registers&) { return Op::kCompute; });
  m.Run([&] {
    RefPtr<Container> container = MakeRef<Container>("c");
    RefPtr<ThreadGroup> init = m.Create(container);
    ASSERT_TRUE(m.kernel().Freeze(*container));
    EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGTERM, SI_USER)));
    m.Sleep(20 * kMillisecond);
    EXPECT_EQ(m.Alive(*container), 1u);
    m.kernel().Thaw(*container);
    EXPECT_EQ(m.kernel().WaitForExit(*init), SIGTERM);
  });
}

TEST(Container, StoppedAndFrozenAreApart) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    Machine m(seed, [](platform::Registers&) { return Op::kCompute; });
    m.Run([&] {
      RefPtr<Container> container = MakeRef<Container>("c");
      RefPtr<ThreadGroup> init = m.Create(container);
      EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGSTOP, SI_USER)));
      m.Sleep(kMillisecond);
      EXPECT_TRUE(m.kernel().Freeze(*container));
      m.world().frozen = true;
      // It is continued, and stays frozen.
      EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGCONT, SI_USER)));
      m.Sleep(kMillisecond);
      EXPECT_EQ(m.world().inside, 0);
      m.world().frozen = false;
      m.kernel().Thaw(*container);
      m.Sleep(kMillisecond);
      EXPECT_EQ(m.world().inside, 1);
      // Frozen first, stopped then: thawed, it takes the stop.
      EXPECT_TRUE(m.kernel().Freeze(*container));
      EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGSTOP, SI_USER)));
      m.kernel().Thaw(*container);
      m.Sleep(kMillisecond);
      EXPECT_EQ(m.world().inside, 0);
    });
  }
}

TEST(Container, HeldProcessRunsNothingBeforeItIsReleased) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    Machine m(seed, [](platform::Registers&) { return Op::kExit; });
    m.Run([&] {
      RefPtr<Container> container = MakeRef<Container>("c");
      RefPtr<ThreadGroup> init = m.Create(container, true);
      m.Sleep(10 * kMillisecond);
      EXPECT_EQ(m.world().switches, 0u);
      // Freezing and thawing the container is another matter.
      EXPECT_TRUE(m.kernel().Freeze(*container));
      m.kernel().Thaw(*container);
      m.Sleep(10 * kMillisecond);
      EXPECT_EQ(m.world().switches, 0u);
      m.kernel().Release(*init);
      EXPECT_EQ(m.kernel().WaitForExit(*init), 7 << 8);
    });
  }
}

TEST(Container, HeldProcessCanBeKilled) {
  Machine m(3, [](platform::Registers&) { return Op::kExit; });
  m.Run([&] {
    RefPtr<ThreadGroup> init = m.Create(MakeRef<Container>("c"), true);
    EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGKILL, SI_USER)));
    EXPECT_EQ(m.kernel().WaitForExit(*init), SIGKILL);
    EXPECT_EQ(m.world().switches, 0u);
  });
}

TEST(Container, EndsWithItsFirstProcess) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    Machine m(seed, Family);
    m.Run([&] {
      RefPtr<Container> a = MakeRef<Container>("a"), b = MakeRef<Container>("b");
      RefPtr<ThreadGroup> init = m.Create(a);
      m.Create(b);
      m.Sleep(static_cast<fiber::Time>(seed) * kMillisecond / 8);
      EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGKILL, SI_USER)));
      EXPECT_EQ(m.kernel().WaitForExit(*init), SIGKILL);
      m.Sleep(5 * kMillisecond);
      EXPECT_EQ(m.Alive(*a), 0u);
      EXPECT_GE(m.Alive(*b), 1u);
      EXPECT_GT(m.kernel().CpuOf(*a).system + m.kernel().CpuOf(*a).user, 0u);
    });
  }
}

TEST(Container, TakesNobodyInOnceItHasEnded) {
  Machine m(4, [](platform::Registers&) { return Op::kExit; });
  m.Run([&] {
    RefPtr<Container> container = MakeRef<Container>("c");
    EXPECT_EQ(m.kernel().WaitForExit(*m.Create(container)), 7 << 8);
    EXPECT_EQ(m.TryCreate(container).error(), Errno(ESRCH));
  });
}

// A child whose own child outlives it.
Op Orphan(platform::Registers& r) {
  switch (r.rbx) {
    case 0:
      r.rbx++;
      return Op::kFork;
    case 1:
      Branch(r, 10, 2);
      return Op::kCall;
    case 2:
      r.rbx++;
      return Op::kFork;
    case 3:
      Branch(r, 4, 10);
      return Op::kCall;
    case 4:
      return Op::kExit;
    default:
      return Op::kSleep;
  }
}

TEST(Container, OrphansGoToItsFirstProcess) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    Machine m(seed, Orphan);
    m.Run([&] {
      RefPtr<Container> a = MakeRef<Container>("a"), b = MakeRef<Container>("b");
      m.Create(a);
      RefPtr<ThreadGroup> init = m.Create(b);
      m.Sleep(20 * kMillisecond);
      // The first, its child that is a zombie, and the orphan.
      std::map<int, int> parents;
      for (const RefPtr<ThreadGroup>& group : m.kernel().GroupsOf(*b)) parents[group->id] = group->parent_id.load();
      EXPECT_EQ(parents.size(), 3u);
      for (auto [id, parent] : parents) EXPECT_EQ(parent, id == init->id ? 0 : init->id);
    });
  }
}

TEST(Container, KillOfAllReachesItsOwnOnly) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    // The first of each forks two sleepers; `killer` then kills.
    int killer = 0;
    Machine m(seed, [&killer](platform::Registers& r) {
      switch (r.rbx) {
        case 0:
        case 2:
          r.rbx++;
          return Op::kFork;
        case 1:
        case 3:
          Branch(r, r.rbx + 1, 10);
          return Op::kCall;
        case 4:
          if (Task::Current()->group().id != killer) return Op::kSleep;
          r.rbx = 10;
          return Op::kKillOthers;
        default:
          return Op::kSleep;
      }
    });
    m.Run([&] {
      RefPtr<Container> a = MakeRef<Container>("a"), b = MakeRef<Container>("b");
      m.Create(a);
      RefPtr<ThreadGroup> init = m.Create(b);
      m.Sleep(10 * kMillisecond);
      EXPECT_EQ(m.Alive(*a), 3u);
      EXPECT_EQ(m.Alive(*b), 3u);
      killer = init->id;
      m.Sleep(10 * kMillisecond);
      EXPECT_EQ(m.Alive(*a), 3u);
      EXPECT_EQ(m.Alive(*b), 1u);
      EXPECT_FALSE(init->zombie);
    });
  }
}

TEST(Container, SignalsReachAll) {
  Machine m(5, Family);
  m.Run([&] {
    RefPtr<Container> a = MakeRef<Container>("a"), b = MakeRef<Container>("b");
    m.Create(a);
    RefPtr<ThreadGroup> init = m.Create(b);
    m.Sleep(10 * kMillisecond);
    const size_t before = m.Alive(*b);
    EXPECT_GE(before, 5u);
    EXPECT_EQ(m.kernel().SignalAll(*b, MakeSigInfo(SIGKILL, SI_USER)), before);
    EXPECT_EQ(m.kernel().WaitForExit(*init), SIGKILL);
    m.Sleep(5 * kMillisecond);
    EXPECT_EQ(m.Alive(*b), 0u);
    EXPECT_GE(m.Alive(*a), 5u);
  });
}

// --- with PID namespaces of their own
RefPtr<Container> InNamespace(Machine& m, RefPtr<PidNamespace>* ns = nullptr) {
  RefPtr<PidNamespace> made = MakeRef<PidNamespace>(RefPtr<PidNamespace>(&m.kernel().root_pid_ns()));
  if (ns != nullptr) *ns = made;
  return MakeRef<Container>("c", made);
}

TEST(PidNamespaceOfContainer, NumbersStartAtOneAndOrphansGoThere) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    Machine m(seed, Orphan);
    m.Run([&] {
      RefPtr<Container> a = InNamespace(m), b = InNamespace(m);
      m.Create(a);
      RefPtr<ThreadGroup> init = m.Create(b);
      m.Sleep(20 * kMillisecond);
      EXPECT_EQ(init->pid->number(), 1);
      for (const RefPtr<Container>& c : {a, b}) {
        std::map<int, int> parents;
        for (const RefPtr<ThreadGroup>& g : m.kernel().GroupsOf(*c)) parents[g->pid->number()] = g->parent_id.load();
        EXPECT_EQ(parents, (std::map<int, int>{{1, 0}, {2, 1}, {3, 1}}));
      }
    });
  }
}

TEST(PidNamespaceOfContainer, NobodyOutlivesTheFirstProcess) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    Machine m(seed, Family);
    m.Run([&] {
      RefPtr<PidNamespace> ns;
      RefPtr<Container> a = InNamespace(m, &ns), outside = MakeRef<Container>("o");
      // Of another container, and in the same namespace.
      RefPtr<Container> guest = MakeRef<Container>("g", ns);
      RefPtr<ThreadGroup> init = m.Create(a);
      RefPtr<ThreadGroup> other = m.Create(guest);
      m.Create(outside);
      EXPECT_GT(other->pid->number(), 1);
      m.Sleep(static_cast<fiber::Time>(seed) * kMillisecond / 8);
      EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGKILL, SI_USER)));
      EXPECT_EQ(m.kernel().WaitForExit(*init), SIGKILL);
      EXPECT_EQ(m.Alive(*a), 0u);
      EXPECT_EQ(m.Alive(*guest), 0u);
      EXPECT_EQ(m.kernel().WaitForExit(*other), SIGKILL);
      EXPECT_EQ(m.TryCreate(guest).error(), Errno(ESRCH));
      EXPECT_GE(m.Alive(*outside), 1u);
    });
  }
}

TEST(PidNamespaceOfContainer, TheFirstProcessIsSafeFromInside) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    int shots = 0;
    Machine m(seed, [&shots](platform::Registers& r) {
      switch (r.rbx) {
        case 0:
          r.rbx++;
          return Op::kFork;
        case 1:
          Branch(r, 2, 3);
          return Op::kCall;
        case 3:
          shots++;
          return Op::kKillFirst;
        default:
          return Op::kCompute;
      }
    });
    m.Run([&] {
      RefPtr<Container> a = InNamespace(m);
      RefPtr<ThreadGroup> init = m.Create(a);
      m.Sleep(5 * kMillisecond);
      EXPECT_GT(shots, 1);
      EXPECT_EQ(m.Alive(*a), 2u);
      // From outside: nothing that it could take and does not.
      EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGTERM, SI_USER)));
      m.Sleep(5 * kMillisecond);
      EXPECT_EQ(m.Alive(*a), 2u);
      EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGSTOP, SI_USER)));
      m.Sleep(kMillisecond);
      {
        sync::MutexLock lock(m.kernel().mu);
        EXPECT_TRUE(init->stopped);
      }
      EXPECT_TRUE(m.kernel().SendToGroup(*init, MakeSigInfo(SIGKILL, SI_USER)));
      EXPECT_EQ(m.kernel().WaitForExit(*init), SIGKILL);
    });
  }
}

TEST(PidNamespaceOfContainer, KillOfAllIsOfTheNamespace) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    int killer = 0;
    Machine m(seed, [&killer](platform::Registers& r) {
      if (Task::Current()->group().id != killer || r.rbx == 1) return Op::kSleep;
      r.rbx = 1;
      return Op::kKillOthers;
    });
    m.Run([&] {
      RefPtr<PidNamespace> ns;
      RefPtr<Container> a = InNamespace(m, &ns), b = MakeRef<Container>("b", ns), c = InNamespace(m);
      RefPtr<ThreadGroup> init = m.Create(a);
      RefPtr<ThreadGroup> first = m.Create(b), second = m.Create(b), apart = m.Create(c);
      m.Sleep(kMillisecond);
      killer = second->id;
      EXPECT_EQ(m.kernel().WaitForExit(*first), SIGKILL);
      m.Sleep(5 * kMillisecond);
      EXPECT_EQ(m.Alive(*a), 1u);
      EXPECT_EQ(m.Alive(*c), 1u);
      EXPECT_FALSE(init->zombie);
      EXPECT_FALSE(apart->zombie);
    });
  }
}

}  // namespace
}  // namespace redoubt::kernel
