// ptrace(2) under many schedules: processes and threads that trace, stop, signal, wait for and kill one another at
// random. Whatever they do, all can be ended, and nothing of them is left.
#include "pkg/sentry/kernel/trace.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <random>

#include "pkg/sentry/kernel/fake_machine.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::kernel {
namespace {

constexpr uint64_t kSeeds = 1500;
constexpr size_t kMostTasks = 12;
constexpr uint64_t kAnyCall = 1;

std::mt19937_64* random_source = nullptr;
uint64_t Below(uint64_t n) { return (*random_source)() % n; }

RefPtr<Task> AnyTask(Task& caller) {
  std::vector<RefPtr<Task>> all;
  for (const RefPtr<ThreadGroup>& group : caller.kernel().Groups()) {
    for (const RefPtr<Task>& t : caller.kernel().TasksOf(*group)) all.push_back(t);
  }
  // The first process lives: with it all would end.
  RefPtr<Task> t = all[Below(all.size())];
  return t->tid() == 1 ? RefPtr<Task>(&caller) : t;
}

int AnySignal() {
  constexpr int kSignals[] = {SIGUSR1, SIGSTOP, SIGTSTP, SIGCONT, SIGCHLD, SIGTERM, SIGKILL, SIGTRAP};
  return kSignals[Below(std::size(kSignals))];
}

Result<uint64_t> AnyCall(Task& task, uint64_t, const SyscallArgs&) {
  if (task.pid().number() == 1) {
    // Makes more of them, and reaps.
    if (task.kernel().TaskCount() < kMostTasks && Below(2) == 0) return TRY(task.Clone({.exit_signal = SIGCHLD}));
    Result<Kernel::WaitResult> r =
        task.kernel().Wait(task, {.id_type = P_ALL, .id = 0, .options = WEXITED | WNOHANG | static_cast<int>(__WALL)});
    (void)wait::Block(fiber::Now() + kMillisecond / 4);
    return r ? Result<uint64_t>(0) : Err(r.error());
  }
  RefPtr<Task> other = AnyTask(task);
  const auto work = static_cast<uint8_t>(Below(16) & ~kTraced);
  const int signal = Below(2) == 0 ? 0 : AnySignal();
  constexpr uint32_t kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC |
                                PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL;
  switch (Below(22)) {
    case 0:
      if (task.kernel().TaskCount() >= kMostTasks) return 0;
      return TRY(task.Clone({.flags = Below(3) == 0 ? uint64_t{CLONE_PTRACE} : 0, .exit_signal = SIGCHLD}));
    case 1:
      if (task.kernel().TaskCount() >= kMostTasks) return 0;
      return TRY(task.Clone({.flags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_FS | CLONE_FILES}));
    case 2:
      if (task.kernel().TaskCount() >= kMostTasks) return 0;
      return TRY(task.Clone({.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD}));
    case 3:
      TRY(task.TraceMe());
      return 0;
    case 4:
    case 5:
      TRY(task.Attach(*other, Below(2) == 0, static_cast<uint32_t>((*random_source)()) & kOptions));
      return 0;
    case 6:
      TRY(task.Detach(*other, signal));
      return 0;
    case 7:
    case 8:
    case 9:
      TRY(task.Resume(*other, work, signal));
      return 0;
    case 10:
      TRY(task.InterruptTracee(*other));
      return 0;
    case 11:
      TRY(task.Listen(*other));
      return 0;
    case 12:
      TRY(task.WithTracee(*other, [](Trace& trace, platform::Registers&) -> Result<> {
        trace.options = static_cast<uint32_t>((*random_source)()) & kOptions;
        trace.fp_changed = true;
        return {};
      }));
      return 0;
    case 13:
    case 14:
    case 15: {
      // All of the tracees that are stopped, or have ended.
      const int options = WEXITED | WSTOPPED | static_cast<int>(__WALL) | (Below(4) == 0 ? 0 : WNOHANG);
      Kernel::WaitResult r = TRY(task.kernel().Wait(task, {.id_type = P_ALL, .id = 0, .options = options}));
      if (r.pid == 0) return 0;
      if (RefPtr<Task> stopped = task.FindTask(r.pid); stopped && r.traced) TRY(task.Resume(*stopped, work, signal));
      return static_cast<uint64_t>(r.pid);
    }
    case 16:
      TRY(task.kernel().SendToTask(*other, MakeSigInfo(AnySignal(), SI_KERNEL)));
      return 0;
    case 17:
      TRY(task.kernel().SendToGroup(other->group(), MakeSigInfo(AnySignal(), SI_KERNEL)));
      return 0;
    case 18:
      task.Exit(3 << 8);
      return 0;
    case 19:
      task.ExitGroup(4 << 8);
      return 0;
    case 20:
      TRY(task.Exec(task.fs().cwd(), "/program", {"/program"}, {}, 0));
      return 0;
    default:
      TRY(wait::Block(fiber::Now() + kMillisecond / 2));
      return 0;
  }
}

TEST(Trace, WhateverTheyDoAllEnd) {
  uint64_t stops = 0;
  for (uint64_t seed = 0; seed < kSeeds && !::testing::Test::HasFailure(); seed++) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    random_source = &random;
    FakeMachine m(seed, [](platform::Registers&) { return Below(8) == 0 ? kCompute : kAnyCall; }, AnyCall);
    m.Run([&] {
      RefPtr<Container> container = MakeRef<Container>("c");
      RefPtr<ThreadGroup> init = m.Create(container);
      for (int i = 0; i < 6; i++) {
        m.Sleep(5 * kMillisecond);
        for (const RefPtr<ThreadGroup>& group : m.kernel().Groups()) {
          for (const RefPtr<Task>& t : m.kernel().TasksOf(*group)) stops += t->GetState() == 't' ? 1 : 0;
          // What computes goes on to something else.
          (void)m.kernel().SendToGroup(*group, MakeSigInfo(SIGCONT, SI_KERNEL));
        }
      }
      m.kernel().KillAll();
      EXPECT_EQ(m.kernel().TaskCount(), 0u);
    });
  }
  EXPECT_GT(stops, kSeeds) << "hardly anybody was traced";
}

}  // namespace
}  // namespace redoubt::kernel
