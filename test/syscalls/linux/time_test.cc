// Time: clock_gettime(2) through the vDSO and not, nanosleep(2), clock_nanosleep(2), setitimer(2), alarm(2),
// timer_create(2), times(2).
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"

namespace redoubt::testing {
namespace {

int64_t Ns(const timespec& t) { return t.tv_sec * 1'000'000'000 + t.tv_nsec; }
int64_t Vdso(clockid_t id) {
  timespec t{};
  EXPECT_OK(clock_gettime(id, &t));
  return Ns(t);
}
int64_t Raw(clockid_t id) {
  timespec t{};
  EXPECT_OK(syscall(SYS_clock_gettime, id, &t));
  return Ns(t);
}

class Clocks : public ::testing::TestWithParam<clockid_t> {};

TEST_P(Clocks, VdsoAndCallAgree) {
  for (int i = 0; i < 200; i++) {
    int64_t before = Raw(GetParam());
    int64_t between = Vdso(GetParam());
    int64_t after = Raw(GetParam());
    // The vDSO follows the host's clock to within a fraction of a millisecond.
    EXPECT_GE(between, before - 500'000);
    EXPECT_LE(between, after + 500'000);
  }
}
INSTANTIATE_TEST_SUITE_P(All, Clocks, ::testing::Values(CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME));

TEST(Clock, MonotonicNeverGoesBack) {
  std::atomic<bool> failed = false;
  auto run = [&] {
    int64_t last = Vdso(CLOCK_MONOTONIC);
    for (int i = 0; i < 200'000; i++) {
      int64_t now = Vdso(CLOCK_MONOTONIC);
      if (now < last) failed = true;
      last = now;
    }
  };
  std::thread a(run), b(run);
  a.join();
  b.join();
  EXPECT_FALSE(failed);
}

TEST(Clock, ErrorsOfClockCalls) {
  timespec t{};
  EXPECT_THAT(syscall(SYS_clock_gettime, 99, &t), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, nullptr), SyscallFails(EFAULT));
  EXPECT_THAT(syscall(SYS_clock_getres, 99, &t), SyscallFails(EINVAL));
  EXPECT_OK(syscall(SYS_clock_getres, CLOCK_MONOTONIC, nullptr));
  EXPECT_OK(clock_getres(CLOCK_MONOTONIC, &t));
  EXPECT_EQ(Ns(t), 1);
}

TEST(Clock, CpuTimeGrowsWithWorkOnly) {
  int64_t before = Raw(CLOCK_THREAD_CPUTIME_ID);
  SleepMs(50);
  int64_t slept = Raw(CLOCK_THREAD_CPUTIME_ID);
  EXPECT_LT(slept - before, 30'000'000);
  int64_t end = NowMs() + 60;
  while (NowMs() < end) {
  }
  EXPECT_GT(Raw(CLOCK_THREAD_CPUTIME_ID) - slept, 10'000'000);
  EXPECT_GE(Raw(CLOCK_PROCESS_CPUTIME_ID), Raw(CLOCK_THREAD_CPUTIME_ID) - 1'000'000);
}

TEST(Sleep, NanosleepTakesItsTime) {
  int64_t start = NowMs();
  timespec t{0, 30'000'000};
  EXPECT_OK(nanosleep(&t, nullptr));
  EXPECT_GE(NowMs() - start, 29);
}

TEST(Sleep, BadTimesFail) {
  timespec t{0, 1'000'000'000};
  EXPECT_THAT(nanosleep(&t, nullptr), SyscallFails(EINVAL));
  t = {-1, 0};
  EXPECT_THAT(nanosleep(&t, nullptr), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_nanosleep, nullptr, nullptr), SyscallFails(EFAULT));
  EXPECT_THAT(syscall(SYS_clock_nanosleep, 99, 0, &t, nullptr), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &t, nullptr), SyscallFails(EOPNOTSUPP));
}

std::atomic<int> alarms = 0;
void OnAlarm(int) { alarms++; }

TEST(Sleep, InterruptionTellsWhatIsLeft) {
  struct sigaction action{};
  action.sa_handler = OnAlarm;
  action.sa_flags = SA_RESTART;  // nanosleep does not care
  sigaction(SIGALRM, &action, nullptr);
  itimerval timer{{0, 0}, {0, 30'000}};
  setitimer(ITIMER_REAL, &timer, nullptr);
  timespec t{10, 0}, left{};
  EXPECT_THAT(nanosleep(&t, &left), SyscallFails(EINTR));
  EXPECT_GT(Ns(left), 9'000'000'000);
  EXPECT_LT(Ns(left), 10'000'000'000);
}

TEST(Sleep, AbsoluteSleepInThePastReturnsAtOnce) {
  timespec t{1, 0};
  EXPECT_OK(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr));
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  now.tv_nsec += 20'000'000;
  if (now.tv_nsec >= 1'000'000'000) {
    now.tv_nsec -= 1'000'000'000;
    now.tv_sec++;
  }
  EXPECT_OK(syscall(SYS_clock_nanosleep, CLOCK_REALTIME, TIMER_ABSTIME, &now, nullptr));
  EXPECT_GE(Raw(CLOCK_REALTIME), Ns(now));
}

TEST(Itimer, FiresAndRepeats) {
  alarms = 0;
  signal(SIGALRM, OnAlarm);
  itimerval timer{{0, 10'000}, {0, 10'000}}, old{};
  ASSERT_EQ(setitimer(ITIMER_REAL, &timer, nullptr), 0);
  int64_t start = NowMs();
  while (alarms < 5 && NowMs() - start < 5000) pause();
  EXPECT_GE(alarms, 5);
  EXPECT_OK(getitimer(ITIMER_REAL, &old));
  EXPECT_EQ(old.it_interval.tv_usec, 10'000);
  timer = {};
  EXPECT_OK(setitimer(ITIMER_REAL, &timer, &old));
  EXPECT_OK(getitimer(ITIMER_REAL, &old));
  EXPECT_EQ(old.it_value.tv_usec, 0);
  EXPECT_THAT(syscall(SYS_setitimer, 7, &timer, nullptr), SyscallFails(EINVAL));
  timer.it_value.tv_usec = 1'000'000;
  EXPECT_THAT(syscall(SYS_setitimer, ITIMER_REAL, &timer, nullptr), SyscallFails(EINVAL));
}

TEST(Itimer, TimesThatAreTooLargeAreTheLargest) {
  const itimerval most{.it_interval = {INT64_MAX, 999'999}, .it_value = {INT64_MAX, 999'999}};
  ASSERT_OK(setitimer(ITIMER_REAL, &most, nullptr));
  itimerval now{};
  EXPECT_OK(getitimer(ITIMER_REAL, &now));
  EXPECT_EQ(now.it_interval.tv_sec, INT64_MAX / 1'000'000'000);
  EXPECT_GT(now.it_value.tv_sec, 8'000'000'000);
  const itimerval none{};
  EXPECT_OK(setitimer(ITIMER_REAL, &none, nullptr));
}

TEST(Itimer, ProfilingTimerCountsCpuTime) {
  static std::atomic<int> ticks;
  ticks = 0;
  signal(SIGPROF, [](int) { ticks++; });
  itimerval timer{{0, 10'000}, {0, 10'000}};
  ASSERT_EQ(setitimer(ITIMER_PROF, &timer, nullptr), 0);
  int64_t end = NowMs() + 3000;
  while (ticks < 3 && NowMs() < end) {
  }
  EXPECT_GE(ticks, 3);
  timer = {};
  setitimer(ITIMER_PROF, &timer, nullptr);
}

TEST(Itimer, AlarmReturnsWhatWasLeft) {
  EXPECT_EQ(alarm(100), 0u);
  EXPECT_EQ(alarm(0), 100u);
  EXPECT_EQ(alarm(0), 0u);
}

TEST(PosixTimer, SendsItsSignalWithItsValue) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN;
  event.sigev_value.sival_int = 4711;
  timer_t id;
  ASSERT_EQ(timer_create(CLOCK_MONOTONIC, &event, &id), 0);
  itimerspec when{{0, 0}, {0, 10'000'000}};
  EXPECT_OK(timer_settime(id, 0, &when, nullptr));
  siginfo_t info{};
  timespec limit{5, 0};
  EXPECT_THAT(sigtimedwait(&set, &info, &limit), SyscallReturns(SIGRTMIN));
  EXPECT_EQ(info.si_code, SI_TIMER);
  EXPECT_EQ(info.si_value.sival_int, 4711);
  itimerspec left{};
  EXPECT_OK(timer_gettime(id, &left));
  EXPECT_EQ(left.it_value.tv_nsec, 0);
  EXPECT_EQ(timer_getoverrun(id), 0);
  EXPECT_OK(timer_delete(id));
  EXPECT_THAT(syscall(SYS_timer_delete, 12345), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_timer_settime, 12345, 0, &when, nullptr), SyscallFails(EINVAL));
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

TEST(PosixTimer, BadClocksAndEventsFail) {
  sigevent event{};
  int id = 0;
  event.sigev_notify = 77;
  EXPECT_THAT(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id), SyscallFails(EINVAL));
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = 100;
  EXPECT_THAT(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_timer_create, 99, nullptr, &id), SyscallFails(EINVAL));
  EXPECT_THAT(syscall(SYS_timer_create, CLOCK_MONOTONIC, nullptr, nullptr), SyscallFails(EFAULT));
}

TEST(Times, TicksGrow) {
  tms t{};
  clock_t a = times(&t);
  EXPECT_NE(a, -1);
  SleepMs(30);
  EXPECT_GE(times(nullptr), a + 2);
}

TEST(Times, TimeAgreesWithGettimeofday) {
  timeval tv{};
  EXPECT_OK(gettimeofday(&tv, nullptr));
  time_t t = time(nullptr);
  EXPECT_LE(t - tv.tv_sec, 1);
  EXPECT_GE(t, tv.tv_sec);
  EXPECT_THAT(syscall(SYS_time, 8), SyscallFails(EFAULT));
}

}  // namespace
}  // namespace redoubt::testing
