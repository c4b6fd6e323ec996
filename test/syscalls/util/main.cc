// The main of every syscall test: each test runs in a child of its own, so that none inherits another's descriptors,
// masks, mappings or children, and one that crashes or hangs costs only itself. Prints a line per test for the runner:
//   @@ PASS Suite.Name | @@ FAIL Suite.Name reason | @@ SKIP Suite.Name, and "@@ END" when all have run.
// With --in_process it is a plain GoogleTest program, for debuggers.
#include <errno.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace {

constexpr int kSkipped = 77;
constexpr int kTimeoutSeconds = 20;

void Say(const std::string& line) {
  std::string whole = "\n@@ " + line + "\n";
  const char* p = whole.data();
  size_t left = whole.size();
  while (left > 0) {
    ssize_t n = write(STDOUT_FILENO, p, left);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(3);
    p += n;
    left -= static_cast<size_t>(n);
  }
}

std::string Describe(int status) {
  if (WIFSIGNALED(status)) return std::string("killed by signal ") + std::to_string(WTERMSIG(status));
  return "exit " + std::to_string(WEXITSTATUS(status));
}

// In the child.
int RunOne(const std::string& name) {
  ::testing::GTEST_FLAG(filter) = name;
  int result = RUN_ALL_TESTS();
  fflush(nullptr);
  if (result != 0) return 1;
  return ::testing::UnitTest::GetInstance()->skipped_test_count() > 0 ? kSkipped : 0;
}

void Supervise(const std::string& name) {
  sigset_t chld, old;
  sigemptyset(&chld);
  sigaddset(&chld, SIGCHLD);
  sigprocmask(SIG_BLOCK, &chld, &old);
  pid_t pid = fork();
  if (pid == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, &old, nullptr);
    _exit(RunOne(name));
  }
  if (pid < 0) {
    Say("FAIL " + name + " cannot fork: " + strerror(errno));
    return;
  }
  timespec left{kTimeoutSeconds, 0};
  int status = 0;
  bool timed_out = false;
  // Only a hang gets to the timeout, so it need not be exact.
  for (;;) {
    pid_t got = waitpid(pid, &status, WNOHANG);
    if (got == pid) break;
    if (sigtimedwait(&chld, nullptr, &left) < 0 && errno == EAGAIN) {
      timed_out = true;
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      break;
    }
  }
  kill(-pid, SIGKILL);  // whatever the test left behind
  sigprocmask(SIG_SETMASK, &old, nullptr);
  if (timed_out) {
    Say("FAIL " + name + " timed out");
  } else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    Say("PASS " + name);
  } else if (WIFEXITED(status) && WEXITSTATUS(status) == kSkipped) {
    Say("SKIP " + name);
  } else {
    Say("FAIL " + name + " " + Describe(status));
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool in_process = argc > 1 && strcmp(argv[1], "--in_process") == 0;
  ::testing::InitGoogleTest(&argc, argv);
  if (in_process) return RUN_ALL_TESTS();
  // The tests' own lines say enough.
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  (void)listeners;
  std::string filter = ::testing::GTEST_FLAG(filter);
  std::vector<std::string> names;
  const ::testing::UnitTest& unit = *::testing::UnitTest::GetInstance();
  for (int s = 0; s < unit.total_test_suite_count(); s++) {
    const ::testing::TestSuite& suite = *unit.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); t++) {
      names.push_back(std::string(suite.name()) + "." + suite.GetTestInfo(t)->name());
    }
  }
  for (const std::string& name : names) {
    // Globs of --gtest_filter, without the exclusions: enough for working on one test.
    if (filter != "*" && name.find(filter) == std::string::npos) continue;
    Supervise(name);
  }
  Say("END");
  return 0;
}
