#include "test/syscalls/util/child.h"

#include <errno.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace redoubt::testing {

pid_t Spawn(const std::function<int()>& body) {
  fflush(nullptr);
  pid_t pid = fork();
  if (pid != 0) return pid;
  int status = body();
  bool failed = ::testing::Test::HasFailure();
  fflush(nullptr);
  _exit(failed ? 99 : status);
}

int WaitFor(pid_t pid) {
  int status = -1;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return status;
}

int RunChild(const std::function<int()>& body) {
  pid_t pid = Spawn(body);
  if (pid < 0) return -1;
  return WaitFor(pid);
}

int RunAsNobody(const std::function<void()>& body) {
  return RunChild([&] {
    if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
        setresuid(kNobody, kNobody, kNobody) != 0) {
      perror("become nobody");
      return 98;
    }
    body();
    return 0;
  });
}

void SleepMs(int ms) {
  timespec ts{ms / 1000, ms % 1000 * 1000000L};
  while (nanosleep(&ts, &ts) != 0 && errno == EINTR) {
  }
}

int64_t NowMs() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void WaitUntil(const std::function<bool()>& condition) {
  for (int64_t end = NowMs() + 5000; NowMs() < end; SleepMs(1)) {
    if (condition()) return;
  }
  ADD_FAILURE() << "the condition did not come about";
}

bool WaitUntilAsleep(pid_t pid, pid_t tid) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
  for (int64_t end = NowMs() + 5000; NowMs() < end; SleepMs(1)) {
    FILE* stat = fopen(path, "re");
    if (stat == nullptr) return false;
    char state = 0;
    int got = fscanf(stat, "%*d (%*[^)]) %c", &state);
    fclose(stat);
    if (got == 1 && state == 'S') return true;
  }
  return false;
}

}  // namespace redoubt::testing
