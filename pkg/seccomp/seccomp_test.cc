#include "pkg/seccomp/seccomp.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>

#include "pkg/log/log.h"
#include "pkg/seccomp/rule.h"
#include "pkg/seccomp/test_filter.h"
#include "pkg/seccomp/violation.h"

namespace redoubt::seccomp {
namespace {

[[noreturn]] void Leave(long code) {
  syscall(SYS_exit_group, code);
  __builtin_unreachable();
}

// How a child ends that installs the filter and then does `what`; what it wrote to its log goes to `log`.
int Outcome(const std::function<void()>& what, std::string* log = nullptr) {
  int pipe[2];
  EXPECT_EQ(pipe2(pipe, O_CLOEXEC), 0);
  pid_t pid = fork();
  if (pid == 0) {
    log::Configure(pipe[1], log::Level::kError);
    InstallViolationHandler({.name = [](uint64_t) { return std::string_view("some_call"); }});
    if (!Install(kTestProgram)) Leave(99);
    what();
    Leave(0);
  }
  close(pipe[1]);
  std::string text;
  char buffer[1024];
  for (ssize_t n; (n = read(pipe[0], buffer, sizeof(buffer))) > 0;) text.append(buffer, n);
  close(pipe[0]);
  if (log != nullptr) *log = text;
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

void Expect(bool holds) {
  if (!holds) Leave(1);
}

TEST(Seccomp, ListedCallsWork) {
  EXPECT_EQ(Outcome([] {
              Expect(getpid() > 0);
              Expect(fcntl(1, F_GETFD) >= 0);
              Expect(fcntl(1, F_GETFL) >= 0);
              Expect(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
            }),
            0);
}

TEST(Seccomp, OthersAreLoggedAndEndTheProcess) {
  std::string log;
  EXPECT_EQ(Outcome([] { syscall(SYS_kill, 0x1234, 0, 3, 4, 5, 6); }, &log), kViolationStatus);
  EXPECT_NE(log.find("62 some_call(0x1234, 0x0, 0x3, 0x4, 0x5, 0x6)"), std::string::npos) << log;
}

TEST(Seccomp, ArgumentsCount) {
  EXPECT_EQ(Outcome([] { fcntl(1, F_SETFL, 0); }), kViolationStatus);
  EXPECT_EQ(Outcome([] { mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }),
            kViolationStatus);
}

TEST(Seccomp, SelfIsTheOneWhoInstalls) {
  EXPECT_EQ(Outcome([] { syscall(SYS_tgkill, getpid(), gettid(), SIGABRT); }), 1000 + SIGABRT);
  EXPECT_EQ(Outcome([parent = getpid()] { syscall(SYS_tgkill, parent, parent, SIGABRT); }), kViolationStatus);
  EXPECT_EQ(Outcome([] { syscall(SYS_tgkill, kSelf, kSelf, SIGABRT); }), kViolationStatus);
}

TEST(Seccomp, AnErrorInsteadOfTheCall) {
  EXPECT_EQ(Outcome([] {
              Expect(fsync(1) == -1 && errno == EPERM);
              Expect(syscall(SYS_sync) == -1 && errno == ENOSYS);
            }),
            0);
}

TEST(Seccomp, Int80IsNoWayAround) {
  // 20 is getpid there.
  EXPECT_EQ(Outcome([] {
              long nr = 20;
              asm volatile("int $0x80" : "+a"(nr)::"memory");
            }),
            1000 + SIGSYS);
}

TEST(Seccomp, ThreadsThatAreThereAlreadyAreFiltered) {
  pid_t pid = fork();
  if (pid == 0) {
    InstallViolationHandler({});
    std::atomic<bool> started{false}, go{false};
    std::thread other([&] {
      started.store(true);
      while (!go.load()) __builtin_ia32_pause();
      syscall(SYS_kill, 0, 0);
      Leave(0);
    });
    while (!started.load()) sched_yield();
    if (!Install(kTestProgram)) Leave(99);
    go.store(true);
    for (;;) getpid();
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kViolationStatus) << status;
}

TEST(Rule, MatchesAsTheProgramDoes) {
  const Rule* tgkill = nullptr;
  for (const Rule& r : kTestRules) {
    if (std::string_view(r.name) == "tgkill") tgkill = &r;
  }
  ASSERT_NE(tgkill, nullptr);
  EXPECT_TRUE(tgkill->Matches(SYS_tgkill, {7, 8, SIGABRT}, 7));
  EXPECT_FALSE(tgkill->Matches(SYS_tgkill, {8, 8, SIGABRT}, 7));
  EXPECT_FALSE(tgkill->Matches(SYS_tgkill, {7, 8, SIGKILL}, 7));
  EXPECT_FALSE(tgkill->Matches(SYS_kill, {7, 8, SIGABRT}, 7));
}

TEST(Rule, CallsAreCountedOnceAndErrorsNot) { EXPECT_EQ(CountCalls(kTestRules), 9u); }

}  // namespace
}  // namespace redoubt::seccomp
