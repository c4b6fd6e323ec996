// What happens when processes die: none may be left behind, nothing may hang.
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "pkg/platform/conformance.h"
#include "pkg/platform/guest_code_amd64_unsafe.h"

namespace redoubt::platform {
namespace {

using std::chrono::milliseconds;

// State letter and parent of a process; 'X' if there is none.
std::pair<char, pid_t> StateOf(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(in, line)) return {'X', 0};
  size_t paren = line.rfind(')');
  char state = 'X';
  int parent = 0;
  if (paren == std::string::npos || sscanf(line.c_str() + paren + 1, " %c %d", &state, &parent) != 2) return {'X', 0};
  return {state, parent};
}

std::vector<pid_t> ChildrenOf(pid_t parent) {
  std::vector<pid_t> children;
  DIR* dir = opendir("/proc");
  while (dirent* e = readdir(dir)) {
    pid_t pid = atoi(e->d_name);
    if (pid > 0 && StateOf(pid).second == parent) children.push_back(pid);
  }
  closedir(dir);
  return children;
}

template <typename F>
bool Eventually(F&& condition) {
  for (int i = 0; i < 500; i++) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

TEST_P(PlatformConformance, NothingIsLeftAfterRelease) {
  Addr code = AddCode(guest::SyscallLoop());
  size_t before = 0;
  Run([&] { before = ChildrenOf(getpid()).size(); });
  Run([&] {
    for (int n = 0; n < 10; n++) {
      RefPtr<AddressSpace> space = NewSpace();
      Spawn([&, space] {
        auto context = *platform().NewContext();
        Registers regs{};
        regs.rip = code;
        EXPECT_TRUE(context->Switch(*space, regs).has_value());
        space->Release();
      });
    }
  });
  EXPECT_TRUE(Eventually([&] { return ChildrenOf(getpid()).size() == before; }));
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(StubConformance);

TEST_P(StubConformance, KilledFromOutside) {
  Addr spin = AddCode(guest::Spin()), syscall = AddCode(guest::SyscallLoop());
  Run([&] {
    std::vector<pid_t> before = ChildrenOf(getpid());
    RefPtr<AddressSpace> space = NewSpace();
    pid_t stub = 0;
    for (pid_t pid : ChildrenOf(getpid())) {
      if (std::find(before.begin(), before.end(), pid) == before.end()) stub = pid;
    }
    ASSERT_NE(stub, 0);
    auto context = *platform().NewContext();
    std::thread killer([&] {
      std::this_thread::sleep_for(milliseconds(20));
      kill(stub, SIGKILL);
    });
    Registers regs{};
    regs.rip = spin;
    Result<TrapInfo> r = context->Switch(*space, regs);
    killer.join();
    ASSERT_FALSE(r.has_value());
    EXPECT_EQ(r.error(), Errno(ESRCH));
    r = context->Switch(*space, regs);
    ASSERT_FALSE(r.has_value());
    EXPECT_EQ(r.error(), Errno(ESRCH));
    EXPECT_FALSE(space->Unmap(kData, kPageSize).has_value());
    space->Release();
    // The platform goes on.
    RefPtr<AddressSpace> other = NewSpace();
    regs = {};
    regs.rip = syscall;
    EXPECT_TRUE(context->Switch(*other, regs).has_value());
    EXPECT_TRUE(Eventually([&] { return StateOf(stub).first == 'X'; })) << "not reaped";
  });
}

// Signals that somebody on the host sends to a stub do nothing to the guest.
TEST_P(StubConformance, StraySignalsAreDropped) {
  Addr count = AddCode(guest::Count());
  Run([&] {
    std::vector<pid_t> before = ChildrenOf(getpid());
    RefPtr<AddressSpace> space = NewSpace();
    std::vector<pid_t> stubs;
    for (pid_t pid : ChildrenOf(getpid())) {
      if (std::find(before.begin(), before.end(), pid) == before.end()) stubs.push_back(pid);
    }
    ASSERT_FALSE(stubs.empty());
    auto context = *platform().NewContext();
    std::thread sender([&] {
      for (int signal :
           {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGSEGV, SIGTRAP, SIGSTOP, SIGCONT, SIGTSTP, SIGRTMIN}) {
        std::this_thread::sleep_for(milliseconds(5));
        for (pid_t stub : stubs) kill(stub, signal);
      }
      std::this_thread::sleep_for(milliseconds(20));
      uint64_t then = Word(0);
      EXPECT_TRUE(Eventually([&] { return Word(0) > then; })) << "the guest has stopped";
      context->Interrupt();
    });
    Registers regs{};
    regs.rip = count;
    regs.rdi = kData;
    Result<TrapInfo> r = context->Switch(*space, regs);
    ASSERT_TRUE(r.has_value()) << r.error().name();
    EXPECT_EQ(r->trap, Trap::kInterrupted);
    sender.join();
  });
}

TEST_P(StubConformance, StubsDieWithTheSentry) {
  Addr spin = AddCode(guest::Spin());
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  pid_t sentry = fork();
  ASSERT_GE(sentry, 0);
  if (sentry == 0) {
    Run([&] {
      std::vector<RefPtr<AddressSpace>> idle;
      for (int n = 0; n < 3; n++) idle.push_back(NewSpace());
      for (int n = 0; n < 2; n++) {
        Spawn([&, space = NewSpace()] {
          auto context = *platform().NewContext();
          Registers regs{};
          regs.rip = spin;
          (void)context->Switch(*space, regs);
        });
      }
      // A space whose only traced thread has gone with its OS thread.
      RefPtr<AddressSpace> orphan;
      std::thread([&] { orphan = NewSpace(); }).join();
      (void)!write(ready[1], "x", 1);
      for (;;) pause();
    });
    _exit(1);
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  std::this_thread::sleep_for(milliseconds(50));
  std::vector<pid_t> stubs = ChildrenOf(sentry);
  EXPECT_GE(stubs.size(), 6u);
  kill(sentry, SIGKILL);
  EXPECT_TRUE(Eventually([&] {
    // Orphans are ours to reap now.
    while (waitpid(-1, nullptr, __WALL | WNOHANG) > 0) {
    }
    return ChildrenOf(getpid()).empty();
  }));
  for (pid_t stub : stubs) EXPECT_EQ(StateOf(stub).first, 'X') << stub;
  close(ready[0]);
  close(ready[1]);
}

}  // namespace
}  // namespace redoubt::platform
