// The system and what a process may know of itself: uname(2), sysinfo(2), getrandom(2), sethostname(2), getcpu(2),
// sched_setaffinity(2), sched_setscheduler(2), getpriority(2), prctl(2), personality(2), times(2), getrusage(2),
// syslog(2).
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

void Work(int ms) {
  const clock_t end = clock() + ms * (CLOCKS_PER_SEC / 1000);
  volatile int work = 0;
  while (clock() < end) work = work + 1;
}

// Names ---------------------------------------------------------------------------------------------------------------

TEST(Uname, TellsTheSystem) {
  utsname u;
  ASSERT_OK(uname(&u));
  EXPECT_STREQ(u.sysname, "Linux");
  EXPECT_STREQ(u.machine, "x86_64");
  int major = 0, minor = 0;
  EXPECT_EQ(sscanf(u.release, "%d.%d", &major, &minor), 2);
  EXPECT_GE(major, 4);
  char name[65];
  ASSERT_OK(gethostname(name, sizeof(name)));
  EXPECT_STREQ(u.nodename, name);
  EXPECT_ERRNO(syscall(SYS_uname, 8L), EFAULT);
}

TEST(Sethostname, NeedsPrivilege) {
  EXPECT_EQ(RunAsNobody([] {
              EXPECT_ERRNO(sethostname("x", 1), EPERM);
              EXPECT_ERRNO(setdomainname("x", 1), EPERM);
            }),
            0);
}

TEST(Sethostname, Errors) {
  const std::string name(65, 'n');
  EXPECT_ERRNO(sethostname(name.c_str(), 65), EINVAL);
  EXPECT_ERRNO(setdomainname(name.c_str(), 65), EINVAL);
  EXPECT_ERRNO(syscall(SYS_sethostname, name.c_str(), -1), EINVAL);
  EXPECT_ERRNO(syscall(SYS_sethostname, 8L, 3), EFAULT);
  EXPECT_ERRNO(syscall(SYS_setdomainname, 8L, 3), EFAULT);
}

TEST(Sethostname, NamesAreKept) {
  // As they are: on a machine this is not the test's to change.
  utsname before, after;
  ASSERT_OK(uname(&before));
  EXPECT_OK(sethostname(before.nodename, strlen(before.nodename)));
  EXPECT_OK(setdomainname(before.domainname, strlen(before.domainname)));
  ASSERT_OK(uname(&after));
  EXPECT_STREQ(before.nodename, after.nodename);
  EXPECT_STREQ(before.domainname, after.domainname);
}

TEST(Sysinfo, TellsTheSystem) {
  struct sysinfo info;
  std::memset(&info, 0xff, sizeof(info));
  ASSERT_OK(sysinfo(&info));
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  EXPECT_NEAR(static_cast<double>(info.uptime), static_cast<double>(now.tv_sec), 1.0);
  EXPECT_GT(info.totalram, 0u);
  EXPECT_LE(info.freeram, info.totalram);
  EXPECT_LE(info.freeswap, info.totalswap);
  EXPECT_GE(info.mem_unit, 1u);
  EXPECT_GE(info.procs, 1u);
  EXPECT_ERRNO(syscall(SYS_sysinfo, 8L), EFAULT);
}

// Random bytes --------------------------------------------------------------------------------------------------------

TEST(Getrandom, FillsTheBuffer) {
  for (unsigned flags : {0u, unsigned{GRND_NONBLOCK}, unsigned{GRND_RANDOM}, unsigned{GRND_INSECURE}}) {
    std::vector<unsigned char> a(256), b(256);
    EXPECT_RETURNS(getrandom(a.data(), a.size(), flags), 256);
    EXPECT_RETURNS(getrandom(b.data(), b.size(), flags), 256);
    EXPECT_NE(a, b);
  }
  std::vector<unsigned char> large(1 << 20);
  EXPECT_RETURNS(getrandom(large.data(), large.size(), 0), 1 << 20);
  EXPECT_GT(std::count_if(large.end() - 4096, large.end(), [](unsigned char c) { return c != 0; }), 3000);
  EXPECT_RETURNS(getrandom(nullptr, 0, 0), 0);
}

TEST(Getrandom, Errors) {
  char c;
  EXPECT_ERRNO(getrandom(&c, 1, 0x10), EINVAL);
  EXPECT_ERRNO(getrandom(&c, 1, GRND_RANDOM | GRND_INSECURE), EINVAL);
  EXPECT_ERRNO(syscall(SYS_getrandom, 8L, 1, 0), EFAULT);
}

// Processors ----------------------------------------------------------------------------------------------------------

TEST(Getcpu, TellsOneOfTheProcessors) {
  unsigned cpu = ~0u, node = ~0u;
  ASSERT_OK(syscall(SYS_getcpu, &cpu, &node, nullptr));
  EXPECT_LT(cpu, static_cast<unsigned>(sysconf(_SC_NPROCESSORS_CONF)));
  EXPECT_LT(node, 1024u);
  EXPECT_OK(syscall(SYS_getcpu, nullptr, nullptr, nullptr));
  EXPECT_ERRNO(syscall(SYS_getcpu, 8L, nullptr, nullptr), EFAULT);
  EXPECT_ERRNO(syscall(SYS_getcpu, nullptr, 8L, nullptr), EFAULT);
  EXPECT_OK(sched_getcpu());
}

TEST(Affinity, IsKeptAndInherited) {
  cpu_set_t all, one, got;
  ASSERT_OK(sched_getaffinity(0, sizeof(all), &all));
  ASSERT_GE(CPU_COUNT(&all), 1);
  int last = 0;
  for (int i = 0; i < CPU_SETSIZE; i++) {
    if (CPU_ISSET(i, &all)) last = i;
  }
  CPU_ZERO(&one);
  CPU_SET(last, &one);
  ASSERT_OK(sched_setaffinity(0, sizeof(one), &one));
  ASSERT_OK(sched_getaffinity(0, sizeof(got), &got));
  EXPECT_TRUE(CPU_EQUAL(&one, &got));
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(sched_getaffinity(0, sizeof(got), &got));
              EXPECT_TRUE(CPU_EQUAL(&one, &got));
              return 0;
            }),
            0);
  std::thread([&] {
    EXPECT_OK(sched_getaffinity(gettid(), sizeof(got), &got));
    EXPECT_TRUE(CPU_EQUAL(&one, &got));
    // Of one thread only.
    EXPECT_OK(sched_setaffinity(0, sizeof(all), &all));
  }).join();
  ASSERT_OK(sched_getaffinity(0, sizeof(got), &got));
  EXPECT_TRUE(CPU_EQUAL(&one, &got));
}

TEST(Affinity, Errors) {
  cpu_set_t none, all;
  CPU_ZERO(&none);
  ASSERT_OK(sched_getaffinity(0, sizeof(all), &all));
  EXPECT_ERRNO(sched_setaffinity(0, sizeof(none), &none), EINVAL);
  EXPECT_ERRNO(sched_setaffinity(0x3fffffff, sizeof(all), &all), ESRCH);
  EXPECT_ERRNO(sched_getaffinity(0x3fffffff, sizeof(all), &all), ESRCH);
  EXPECT_ERRNO(syscall(SYS_sched_getaffinity, 0, 7, &all), EINVAL);
  EXPECT_ERRNO(syscall(SYS_sched_getaffinity, 0, 0, &all), EINVAL);
  EXPECT_ERRNO(syscall(SYS_sched_getaffinity, 0, sizeof(all), 8L), EFAULT);
  EXPECT_ERRNO(syscall(SYS_sched_setaffinity, 0, sizeof(all), 8L), EFAULT);
  pid_t parent = getpid();
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(sched_setaffinity(parent, sizeof(all), &all), EPERM); }), 0);
}

TEST(Scheduler, StartsAsOther) {
  EXPECT_RETURNS(sched_getscheduler(0), SCHED_OTHER);
  sched_param p{7};
  ASSERT_OK(sched_getparam(0, &p));
  EXPECT_EQ(p.sched_priority, 0);
  EXPECT_OK(sched_setparam(0, &p));
  EXPECT_OK(sched_setscheduler(0, SCHED_BATCH, &p));
  EXPECT_RETURNS(sched_getscheduler(0), SCHED_BATCH);
  EXPECT_OK(sched_yield());
}

TEST(Scheduler, PrioritiesHaveTheirRanges) {
  for (int policy : {SCHED_FIFO, SCHED_RR}) {
    EXPECT_RETURNS(sched_get_priority_min(policy), 1);
    EXPECT_RETURNS(sched_get_priority_max(policy), 99);
  }
  for (int policy : {SCHED_OTHER, SCHED_BATCH, SCHED_IDLE}) {
    EXPECT_RETURNS(sched_get_priority_min(policy), 0);
    EXPECT_RETURNS(sched_get_priority_max(policy), 0);
  }
  EXPECT_ERRNO(sched_get_priority_max(99), EINVAL);
  EXPECT_ERRNO(sched_get_priority_min(99), EINVAL);
}

TEST(Scheduler, Errors) {
  sched_param p{1};
  EXPECT_ERRNO(sched_setscheduler(0, SCHED_OTHER, &p), EINVAL);
  EXPECT_ERRNO(sched_setparam(0, &p), EINVAL);
  p = {0};
  EXPECT_ERRNO(sched_setscheduler(0, 99, &p), EINVAL);
  EXPECT_ERRNO(sched_setscheduler(-1, SCHED_OTHER, &p), EINVAL);
  EXPECT_ERRNO(sched_setscheduler(0x3fffffff, SCHED_OTHER, &p), ESRCH);
  EXPECT_ERRNO(sched_getscheduler(-1), EINVAL);
  EXPECT_ERRNO(sched_getscheduler(0x3fffffff), ESRCH);
  EXPECT_ERRNO(sched_getparam(0, nullptr), EINVAL);
  EXPECT_ERRNO(syscall(SYS_sched_getparam, 0, 8L), EFAULT);
  EXPECT_EQ(RunAsNobody([] {
              sched_param fifo{1};
              EXPECT_ERRNO(sched_setscheduler(0, SCHED_FIFO, &fifo), EPERM);
            }),
            0);
}

TEST(Priority, NiceIsKeptAndInherited) {
  EXPECT_EQ(RunChild([] {
              errno = 0;
              EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 0);
              EXPECT_OK(setpriority(PRIO_PROCESS, 0, 5));
              EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 5);
              EXPECT_EQ(getpriority(PRIO_PROCESS, getpid()), 5);
              EXPECT_EQ(RunChild([] { return getpriority(PRIO_PROCESS, 0); }), W_EXITCODE(5, 0));
              EXPECT_OK(setpriority(PRIO_PROCESS, 0, 100));  // cut
              EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 19);
              EXPECT_OK(setpriority(PRIO_PROCESS, 0, -100));
              EXPECT_EQ(getpriority(PRIO_PROCESS, 0), -20);
              errno = 0;
              EXPECT_EQ(nice(3), -17);
              EXPECT_EQ(errno, 0);
              return 0;
            }),
            0);
}

TEST(Priority, GroupsAndUsersAreAddressed) {
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(setpgid(0, 0));
              EXPECT_OK(setpriority(PRIO_PGRP, 0, 3));
              EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 3);
              EXPECT_EQ(getpriority(PRIO_PGRP, getpgrp()), 3);
              return 0;
            }),
            0);
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(setresuid(4321, 4321, 4321));
              EXPECT_OK(setpriority(PRIO_USER, 4321, 4));
              EXPECT_EQ(getpriority(PRIO_USER, 0), 4);
              EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 4);
              return 0;
            }),
            0);
}

TEST(Priority, Errors) {
  EXPECT_ERRNO(getpriority(static_cast<__priority_which_t>(9), 0), EINVAL);
  EXPECT_ERRNO(setpriority(static_cast<__priority_which_t>(9), 0, 0), EINVAL);
  EXPECT_ERRNO(getpriority(PRIO_PROCESS, 0x3fffffff), ESRCH);
  EXPECT_ERRNO(setpriority(PRIO_PROCESS, 0x3fffffff, 0), ESRCH);
  EXPECT_ERRNO(getpriority(PRIO_PGRP, 0x3fffffff), ESRCH);
  EXPECT_ERRNO(getpriority(PRIO_USER, 0x3ffffff), ESRCH);
  pid_t parent = getpid();
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(setpriority(PRIO_PROCESS, 0, -1), EACCES);
              EXPECT_ERRNO(setpriority(PRIO_PROCESS, parent, 1), EPERM);
            }),
            0);
}

// prctl, personality --------------------------------------------------------------------------------------------------

TEST(Prctl, UnknownOptionsFailWithEinval) { EXPECT_ERRNO(prctl(0x7fff, 0, 0, 0, 0), EINVAL); }

TEST(Prctl, BadAddressesFailWithEfault) {
  EXPECT_ERRNO(prctl(PR_SET_NAME, 8L), EFAULT);
  EXPECT_ERRNO(prctl(PR_GET_NAME, 8L), EFAULT);
  EXPECT_ERRNO(prctl(PR_GET_PDEATHSIG, 8L), EFAULT);
  EXPECT_ERRNO(prctl(PR_GET_CHILD_SUBREAPER, 8L), EFAULT);
}

TEST(Prctl, DumpableIsKeptAndLostByChangesOfIdentity) {
  EXPECT_RETURNS(prctl(PR_GET_DUMPABLE), 1);
  EXPECT_OK(prctl(PR_SET_DUMPABLE, 0));
  EXPECT_RETURNS(prctl(PR_GET_DUMPABLE), 0);
  EXPECT_OK(prctl(PR_SET_DUMPABLE, 1));
  EXPECT_ERRNO(prctl(PR_SET_DUMPABLE, 2), EINVAL);
  EXPECT_EQ(RunChild([] {
              EXPECT_OK(setresuid(4321, 4321, 4321));
              EXPECT_RETURNS(prctl(PR_GET_DUMPABLE), 0);
              return 0;
            }),
            0);
}

TEST(Prctl, TimerslackIsKeptAndInherited) {
  long initial = prctl(PR_GET_TIMERSLACK);
  EXPECT_GT(initial, 0);
  EXPECT_OK(prctl(PR_SET_TIMERSLACK, 12345));
  EXPECT_RETURNS(prctl(PR_GET_TIMERSLACK), 12345);
  EXPECT_EQ(RunChild([] {
              EXPECT_RETURNS(prctl(PR_GET_TIMERSLACK), 12345);
              EXPECT_OK(prctl(PR_SET_TIMERSLACK, 1));
              EXPECT_OK(prctl(PR_SET_TIMERSLACK, 0));  // the default: what it began with
              EXPECT_RETURNS(prctl(PR_GET_TIMERSLACK), 12345);
              return 0;
            }),
            0);
}

TEST(Prctl, TimingIsStatistical) {
  EXPECT_RETURNS(prctl(PR_GET_TIMING), PR_TIMING_STATISTICAL);
  EXPECT_OK(prctl(PR_SET_TIMING, PR_TIMING_STATISTICAL));
  EXPECT_ERRNO(prctl(PR_SET_TIMING, PR_TIMING_TIMESTAMP), EINVAL);
}

TEST(Prctl, ThpDisableIsKept) {
  EXPECT_RETURNS(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
  EXPECT_OK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
  EXPECT_RETURNS(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
  EXPECT_ERRNO(prctl(PR_GET_THP_DISABLE, 1, 0, 0, 0), EINVAL);
}

TEST(Prctl, CapabilityArgumentsAreChecked) {
  EXPECT_RETURNS(prctl(PR_CAPBSET_READ, CAP_CHOWN), 1);
  EXPECT_ERRNO(prctl(PR_CAPBSET_READ, 99), EINVAL);
  EXPECT_ERRNO(prctl(PR_CAPBSET_DROP, 99), EINVAL);
  EXPECT_ERRNO(prctl(PR_SET_KEEPCAPS, 2), EINVAL);
  EXPECT_RETURNS(prctl(PR_GET_SECUREBITS), 0);
  EXPECT_ERRNO(prctl(PR_SET_SECUREBITS, 0x1000), EPERM);
  EXPECT_EQ(RunAsNobody([] {
              EXPECT_ERRNO(prctl(PR_CAPBSET_DROP, CAP_CHOWN), EPERM);
              EXPECT_ERRNO(prctl(PR_SET_SECUREBITS, 1), EPERM);
            }),
            0);
}

TEST(Personality, IsKeptAndInherited) {
  EXPECT_RETURNS(personality(0xffffffff), PER_LINUX);
  EXPECT_RETURNS(personality(ADDR_NO_RANDOMIZE), PER_LINUX);
  EXPECT_RETURNS(personality(0xffffffff), ADDR_NO_RANDOMIZE);
  EXPECT_EQ(RunChild([] {
              EXPECT_RETURNS(personality(0xffffffff), ADDR_NO_RANDOMIZE);
              return 0;
            }),
            0);
  EXPECT_RETURNS(personality(PER_LINUX), ADDR_NO_RANDOMIZE);
}

// Times ---------------------------------------------------------------------------------------------------------------

TEST(Times, CountTicksOfSelfAndChildren) {
  tms before, after;
  clock_t start = times(&before);
  ASSERT_OK(start);
  Work(60);
  clock_t end = times(&after);
  EXPECT_GE(end - start, 5);
  EXPECT_GE(after.tms_utime + after.tms_stime - before.tms_utime - before.tms_stime, 4);
  EXPECT_EQ(after.tms_cutime, before.tms_cutime);
  EXPECT_EQ(RunChild([] {
              Work(60);
              return 0;
            }),
            0);
  ASSERT_OK(times(&after));
  EXPECT_GE(after.tms_cutime + after.tms_cstime, 4);
  EXPECT_ERRNO(syscall(SYS_times, 8L), EFAULT);
  EXPECT_OK(syscall(SYS_times, nullptr));
}

int64_t Micros(const rusage& r) {
  return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 + r.ru_utime.tv_usec + r.ru_stime.tv_usec;
}

TEST(Getrusage, CountsTimeFaultsAndMemory) {
  rusage before, after;
  ASSERT_OK(getrusage(RUSAGE_SELF, &before));
  Work(50);
  constexpr size_t kBytes = 8 << 20;
  char* p = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (size_t i = 0; i < kBytes; i += 4096) p[i] = 1;
  SleepMs(2);
  ASSERT_OK(getrusage(RUSAGE_SELF, &after));
  EXPECT_GE(Micros(after) - Micros(before), 40000);
  EXPECT_GT(after.ru_minflt, before.ru_minflt);
  EXPECT_GE(after.ru_maxrss, before.ru_maxrss);
  EXPECT_GE(after.ru_maxrss, static_cast<long>(kBytes >> 10));
  EXPECT_GT(after.ru_nvcsw, before.ru_nvcsw);
}

TEST(Getrusage, ThreadsAreCountedApartAndTogether) {
  rusage thread{}, process{};
  std::thread([&] {
    Work(50);
    EXPECT_OK(getrusage(RUSAGE_THREAD, &thread));
  }).join();
  EXPECT_GE(Micros(thread), 40000);
  rusage mine;
  ASSERT_OK(getrusage(RUSAGE_THREAD, &mine));
  ASSERT_OK(getrusage(RUSAGE_SELF, &process));
  EXPECT_LT(Micros(mine), Micros(thread));
  EXPECT_GE(Micros(process), Micros(thread));
}

TEST(Getrusage, ChildrenCountOnceWaitedFor) {
  rusage r;
  pid_t child = Spawn([] {
    Work(50);
    return 0;
  });
  siginfo_t info;
  ASSERT_OK(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT));
  ASSERT_OK(getrusage(RUSAGE_CHILDREN, &r));
  EXPECT_EQ(Micros(r), 0);
  EXPECT_EQ(WaitFor(child), 0);
  ASSERT_OK(getrusage(RUSAGE_CHILDREN, &r));
  EXPECT_GE(Micros(r), 40000);
  EXPECT_GT(r.ru_maxrss, 0);
}

TEST(Getrusage, Errors) {
  rusage r;
  EXPECT_ERRNO(getrusage(static_cast<__rusage_who_t>(7), &r), EINVAL);
  EXPECT_ERRNO(syscall(SYS_getrusage, RUSAGE_SELF, 8L), EFAULT);
}

TEST(SetClock, NeedsPrivilege) {
  EXPECT_EQ(RunAsNobody([] {
              timespec now;
              EXPECT_OK(clock_gettime(CLOCK_REALTIME, &now));
              EXPECT_ERRNO(clock_settime(CLOCK_REALTIME, &now), EPERM);
              timeval tv{now.tv_sec, 0};
              EXPECT_ERRNO(settimeofday(&tv, nullptr), EPERM);
              timex t{};
              EXPECT_OK(adjtimex(&t));
              t.modes = ADJ_FREQUENCY;
              EXPECT_ERRNO(adjtimex(&t), EPERM);
            }),
            0);
}

// syslog --------------------------------------------------------------------------------------------------------------

// syslog(2)'s numbers; the log itself is the machine's, so it is only looked at.
constexpr int kRead = 2, kReadAll = 3, kConsoleLevel = 8, kUnread = 9, kSize = 10;

TEST(Syslog, TheLogCanBeRead) {
  int size = klogctl(kSize, nullptr, 0);
  ASSERT_GT(size, 0);
  std::vector<char> log(static_cast<size_t>(size));
  int n = klogctl(kReadAll, log.data(), size);
  ASSERT_OK(n);
  EXPECT_LE(n, size);
  EXPECT_OK(klogctl(kUnread, nullptr, 0));
  EXPECT_RETURNS(klogctl(kReadAll, log.data(), 0), 0);
  EXPECT_RETURNS(klogctl(0, nullptr, 0), 0);
  EXPECT_RETURNS(klogctl(1, nullptr, 0), 0);
}

TEST(Syslog, Errors) {
  char c;
  EXPECT_ERRNO(klogctl(11, nullptr, 0), EINVAL);
  EXPECT_ERRNO(klogctl(-1, nullptr, 0), EINVAL);
  EXPECT_ERRNO(klogctl(kReadAll, nullptr, 1), EINVAL);
  EXPECT_ERRNO(klogctl(kReadAll, &c, -1), EINVAL);
  EXPECT_ERRNO(klogctl(kRead, nullptr, 1), EINVAL);
  EXPECT_ERRNO(klogctl(kConsoleLevel, nullptr, 0), EINVAL);
  EXPECT_ERRNO(klogctl(kConsoleLevel, nullptr, 9), EINVAL);
  EXPECT_ERRNO(syscall(SYS_syslog, kReadAll, 0xffff800000000000, 16), EFAULT);
}

TEST(Syslog, NeedsPrivilege) {
  EXPECT_EQ(RunAsNobody([] {
              char c;
              EXPECT_ERRNO(klogctl(kRead, &c, 1), EPERM);
              EXPECT_ERRNO(klogctl(kUnread, nullptr, 0), EPERM);
              EXPECT_ERRNO(klogctl(kConsoleLevel, nullptr, 4), EPERM);
            }),
            0);
}

}  // namespace
}  // namespace redoubt::testing
