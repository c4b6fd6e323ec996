// Children that run a piece of a test, and how they ended.
#ifndef REDOUBT_TEST_SYSCALLS_UTIL_CHILD_H_
#define REDOUBT_TEST_SYSCALLS_UTIL_CHILD_H_

#include <sys/types.h>

#include <functional>

namespace redoubt::testing {

// Forks; the child runs `body` and exits with what it returns (0: well), and with 99 if an expectation in it failed,
// which is printed. -1 if fork fails.
pid_t Spawn(const std::function<int()>& body);
// Spawn, then the wait status. So: EXPECT_EQ(RunChild([] { EXPECT_OK(setuid(1)); return 0; }), 0).
int RunChild(const std::function<int()>& body);
int WaitFor(pid_t pid);

// Runs `body` in a child that has the identity of nobody (uid and gid 65534, no groups, no capabilities).
int RunAsNobody(const std::function<void()>& body);
inline constexpr uid_t kNobody = 65534;

// Sleeps. For giving another thread time to block; no test may depend on it for its result, only for its sharpness.
void SleepMs(int ms);
// CLOCK_MONOTONIC in ms.
int64_t NowMs();
// Waits for what another thread or process is about to bring about; a failure of the test if it takes five seconds.
void WaitUntil(const std::function<bool()>& condition);
// Waits until a thread sleeps interruptibly (state S of proc(5)); false if it does not within five seconds.
bool WaitUntilAsleep(pid_t pid, pid_t tid);

}  // namespace redoubt::testing

#endif  // REDOUBT_TEST_SYSCALLS_UTIL_CHILD_H_
