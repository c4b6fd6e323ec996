// futex(2) but for priority inheritance, get_robust_list(2), set_tid_address(2), and what the C library builds of them.
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

using Word = std::atomic<uint32_t>;
static_assert(sizeof(Word) == 4);

long Futex(Word* word, int op, uint32_t value, const timespec* timeout = nullptr, Word* word2 = nullptr,
           uint32_t value3 = 0) {
  return syscall(SYS_futex, word, op, value, timeout, word2, value3);
}
// Of the operations whose fourth argument is a number.
long Futex2(Word* word, int op, uint32_t value, uint32_t value2, Word* word2, uint32_t value3 = 0) {
  return syscall(SYS_futex, word, op, value, static_cast<long>(value2), word2, value3);
}

constexpr timespec Ms(int64_t ms) { return {ms / 1000, ms % 1000 * 1000000L}; }
timespec After(clockid_t clock, int64_t ms) {
  timespec t;
  clock_gettime(clock, &t);
  t.tv_nsec += ms * 1000000;
  t.tv_sec += t.tv_nsec / 1000000000;
  t.tv_nsec %= 1000000000;
  return t;
}

// A page that children share.
template <typename T>
T* SharedPage() {
  static_assert(sizeof(T) <= 4096);
  void* p = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(p, MAP_FAILED);
  return static_cast<T*>(p);
}

// A thread that is asleep in one futex call by the end of the constructor.
class Sleeper final {
 public:
  Sleeper(Word* word, int op, uint32_t value, uint32_t bitset = FUTEX_BITSET_MATCH_ANY) {
    thread_ = std::thread([=, this] {
      tid_ = gettid();
      result_ = Futex(word, op, value, nullptr, nullptr, bitset) == 0 ? 0 : errno;
      done_ = true;
    });
    while (tid_ == 0) sched_yield();
    EXPECT_TRUE(WaitUntilAsleep(getpid(), tid_));
  }
  ~Sleeper() {
    if (thread_.joinable()) thread_.join();
  }
  // 0 or the errno, once it has returned.
  int Join() {
    thread_.join();
    return result_;
  }
  bool done() const { return done_; }
  pid_t tid() const { return tid_; }

 private:
  std::thread thread_;
  std::atomic<pid_t> tid_{0};
  std::atomic<int> result_{-1};
  std::atomic<bool> done_{false};
};

class FutexFlag : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Scope, FutexFlag, ::testing::Values(0, FUTEX_PRIVATE_FLAG),
                         [](const auto& param) { return param.param == 0 ? "Shared" : "Private"; });

TEST_P(FutexFlag, WaitFailsWithEagainIfTheWordDiffers) {
  Word word{5};
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT | GetParam(), 6), EAGAIN);
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_BITSET | GetParam(), 6, nullptr, nullptr, 1), EAGAIN);
}

TEST_P(FutexFlag, WakeReturnsHowManyItWoke) {
  Word word{1};
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE | GetParam(), 1), 0);
  Sleeper a(&word, FUTEX_WAIT | GetParam(), 1), b(&word, FUTEX_WAIT | GetParam(), 1),
      c(&word, FUTEX_WAIT | GetParam(), 1);
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE | GetParam(), 2), 2);
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE | GetParam(), INT_MAX), 1);
  EXPECT_EQ(a.Join(), 0);
  EXPECT_EQ(b.Join(), 0);
  EXPECT_EQ(c.Join(), 0);
}

TEST_P(FutexFlag, WakeIsInOrderOfArrival) {
  Word word{1};
  Sleeper first(&word, FUTEX_WAIT | GetParam(), 1), second(&word, FUTEX_WAIT | GetParam(), 1);
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE | GetParam(), 1), 1);
  EXPECT_EQ(first.Join(), 0);
  EXPECT_FALSE(second.done());
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE | GetParam(), 1), 1);
}

TEST_P(FutexFlag, WakeOfAnotherWordWakesNobody) {
  Word words[2] = {1, 1};
  Sleeper sleeper(&words[0], FUTEX_WAIT | GetParam(), 1);
  EXPECT_RETURNS(Futex(&words[1], FUTEX_WAKE | GetParam(), INT_MAX), 0);
  EXPECT_RETURNS(Futex(&words[0], FUTEX_WAKE | GetParam(), INT_MAX), 1);
}

TEST_P(FutexFlag, BitsetsSelectWhoIsWoken) {
  Word word{1};
  Sleeper low(&word, FUTEX_WAIT_BITSET | GetParam(), 1, 0x3),
      high(&word, FUTEX_WAIT_BITSET | GetParam(), 1, 0x80000000), any(&word, FUTEX_WAIT | GetParam(), 1);
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE_BITSET | GetParam(), 1, nullptr, nullptr, 0x80000000), 1);
  EXPECT_EQ(high.Join(), 0);
  EXPECT_FALSE(low.done());
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE_BITSET | GetParam(), INT_MAX, nullptr, nullptr, 0x8), 1);
  EXPECT_EQ(any.Join(), 0);
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE | GetParam(), INT_MAX), 1);
}

TEST_P(FutexFlag, EmptyBitsetsFailWithEinval) {
  Word word{1};
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_BITSET | GetParam(), 1, nullptr, nullptr, 0), EINVAL);
  EXPECT_ERRNO(Futex(&word, FUTEX_WAKE_BITSET | GetParam(), 1, nullptr, nullptr, 0), EINVAL);
}

TEST_P(FutexFlag, UnalignedWordsFailWithEinval) {
  Word words[2] = {1, 1};
  Word* odd = reinterpret_cast<Word*>(reinterpret_cast<char*>(words) + 1);
  EXPECT_ERRNO(Futex(odd, FUTEX_WAIT | GetParam(), 1), EINVAL);
  EXPECT_ERRNO(Futex(odd, FUTEX_WAKE | GetParam(), 1), EINVAL);
  EXPECT_ERRNO(Futex2(&words[0], FUTEX_CMP_REQUEUE | GetParam(), 1, 1, odd, 1), EINVAL);
  EXPECT_ERRNO(Futex2(odd, FUTEX_REQUEUE | GetParam(), 1, 1, &words[0]), EINVAL);
  EXPECT_ERRNO(Futex2(&words[0], FUTEX_WAKE_OP | GetParam(), 1, 1, odd, FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_EQ, 0)),
               EINVAL);
}

TEST_P(FutexFlag, BadAddressesFailWithEfault) {
  Word word{1};
  Word* none = reinterpret_cast<Word*>(8);
  Word* kernel = reinterpret_cast<Word*>(0xffff800000000000);
  timespec* no_time = reinterpret_cast<timespec*>(8);
  EXPECT_ERRNO(Futex(none, FUTEX_WAIT | GetParam(), 1), EFAULT);
  EXPECT_ERRNO(Futex(kernel, FUTEX_WAIT | GetParam(), 1), EFAULT);
  EXPECT_ERRNO(Futex(kernel, FUTEX_WAKE | GetParam(), 1), EFAULT);
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT | GetParam(), 1, no_time), EFAULT);
  EXPECT_ERRNO(Futex2(none, FUTEX_CMP_REQUEUE | GetParam(), 1, 1, &word, 1), EFAULT);
  EXPECT_ERRNO(Futex2(&word, FUTEX_WAKE_OP | GetParam(), 1, 1, none, FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_EQ, 0)),
               EFAULT);
}

TEST_P(FutexFlag, RelativeTimeoutsPass) {
  Word word{1};
  const timespec t = Ms(30);
  const int64_t start = NowMs();
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT | GetParam(), 1, &t), ETIMEDOUT);
  EXPECT_GE(NowMs() - start, 29);
  const timespec zero{};
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT | GetParam(), 1, &zero), ETIMEDOUT);
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT | GetParam(), 2, &zero), EAGAIN);
}

TEST_P(FutexFlag, AbsoluteTimeoutsPassOnTheirClock) {
  Word word{1};
  const int64_t start = NowMs();
  timespec t = After(CLOCK_MONOTONIC, 30);
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_BITSET | GetParam(), 1, &t, nullptr, 1), ETIMEDOUT);
  EXPECT_GE(NowMs() - start, 29);
  t = After(CLOCK_REALTIME, 30);
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME | GetParam(), 1, &t, nullptr, 1), ETIMEDOUT);
  EXPECT_GE(NowMs() - start, 58);
  t = {1, 0};  // long ago
  EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_BITSET | GetParam(), 1, &t, nullptr, 1), ETIMEDOUT);
}

TEST_P(FutexFlag, WakeBeforeTheTimeoutIsASuccess) {
  Word word{1};
  std::thread waker([&] {
    while (Futex(&word, FUTEX_WAKE | GetParam(), 1) == 0) SleepMs(1);
  });
  const timespec t = Ms(15000);
  EXPECT_OK(Futex(&word, FUTEX_WAIT | GetParam(), 1, &t));
  waker.join();
}

TEST_P(FutexFlag, InvalidTimeoutsFailWithEinval) {
  Word word{1};
  for (timespec t : {timespec{0, 1000000000}, timespec{0, -1}, timespec{-1, 0}}) {
    EXPECT_ERRNO(Futex(&word, FUTEX_WAIT | GetParam(), 1, &t), EINVAL);
    EXPECT_ERRNO(Futex(&word, FUTEX_WAIT_BITSET | GetParam(), 1, &t, nullptr, 1), EINVAL);
  }
}

TEST_P(FutexFlag, RequeueMovesWaiters) {
  Word from{1}, to{7};
  std::vector<std::unique_ptr<Sleeper>> sleepers;
  for (int i = 0; i < 4; i++) sleepers.push_back(std::make_unique<Sleeper>(&from, FUTEX_WAIT | GetParam(), 1));
  EXPECT_RETURNS(Futex2(&from, FUTEX_CMP_REQUEUE | GetParam(), 1, 2, &to, 1), 3);
  EXPECT_RETURNS(Futex(&from, FUTEX_WAKE | GetParam(), INT_MAX), 1);
  EXPECT_RETURNS(Futex(&to, FUTEX_WAKE | GetParam(), INT_MAX), 2);
  for (auto& s : sleepers) EXPECT_EQ(s->Join(), 0);
}

TEST_P(FutexFlag, RequeueWithoutComparisonMovesWaiters) {
  Word from{1}, to{7};
  Sleeper a(&from, FUTEX_WAIT | GetParam(), 1), b(&from, FUTEX_WAIT | GetParam(), 1);
  from = 2;
  // The manual counts only those woken; Linux counts both, as for FUTEX_CMP_REQUEUE.
  EXPECT_RETURNS(Futex2(&from, FUTEX_REQUEUE | GetParam(), 1, INT_MAX, &to), 2);
  EXPECT_RETURNS(Futex(&from, FUTEX_WAKE | GetParam(), INT_MAX), 0);
  EXPECT_RETURNS(Futex(&to, FUTEX_WAKE | GetParam(), INT_MAX), 1);
}

TEST_P(FutexFlag, RequeueErrors) {
  Word from{1}, to{7};
  EXPECT_ERRNO(Futex2(&from, FUTEX_CMP_REQUEUE | GetParam(), 1, 1, &to, 2), EAGAIN);
  EXPECT_ERRNO(Futex2(&from, FUTEX_CMP_REQUEUE | GetParam(), -1u, 1, &to, 1), EINVAL);
  EXPECT_ERRNO(Futex2(&from, FUTEX_CMP_REQUEUE | GetParam(), 1, -1u, &to, 1), EINVAL);
  EXPECT_ERRNO(Futex2(&from, FUTEX_REQUEUE | GetParam(), -1u, 1, &to), EINVAL);
}

TEST_P(FutexFlag, ARequeuedWaiterTimesOut) {
  Word from{1}, to{7};
  std::atomic<pid_t> tid{0};
  std::thread sleeper([&] {
    const timespec t = Ms(300);
    tid = gettid();
    EXPECT_ERRNO(Futex(&from, FUTEX_WAIT | GetParam(), 1, &t), ETIMEDOUT);
  });
  while (tid == 0) sched_yield();
  ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
  EXPECT_RETURNS(Futex2(&from, FUTEX_CMP_REQUEUE | GetParam(), 0, 1, &to, 1), 1);
  sleeper.join();
  EXPECT_RETURNS(Futex(&to, FUTEX_WAKE | GetParam(), INT_MAX), 0);
}

struct WakeOpCase {
  const char* name;
  int operation, operand;
  uint32_t before, after;
};
class FutexWakeOp : public ::testing::TestWithParam<WakeOpCase> {};
INSTANTIATE_TEST_SUITE_P(
    Operation, FutexWakeOp,
    ::testing::Values(WakeOpCase{"Set", FUTEX_OP_SET, 9, 5, 9},
                      WakeOpCase{"SetNegative", FUTEX_OP_SET, 0xfff, 5, 0xffffffff},
                      WakeOpCase{"Add", FUTEX_OP_ADD, 9, 5, 14}, WakeOpCase{"AddNegative", FUTEX_OP_ADD, 0xffe, 5, 3},
                      WakeOpCase{"Or", FUTEX_OP_OR, 0x18, 5, 0x1d}, WakeOpCase{"AndNot", FUTEX_OP_ANDN, 4, 5, 1},
                      WakeOpCase{"Xor", FUTEX_OP_XOR, 6, 5, 3},
                      WakeOpCase{"OrShifted", FUTEX_OP_OR | FUTEX_OP_OPARG_SHIFT, 20, 5, 0x100005}),
    [](const auto& param) { return param.param.name; });

TEST_P(FutexWakeOp, ChangesTheSecondWord) {
  Word first{1}, second{GetParam().before};
  EXPECT_RETURNS(Futex2(&first, FUTEX_WAKE_OP, 1, 1, &second,
                        static_cast<uint32_t>(FUTEX_OP(GetParam().operation, GetParam().operand, FUTEX_OP_CMP_EQ, 0))),
                 0);
  EXPECT_EQ(second, GetParam().after);
}

TEST(FutexWakeOpComparison, DecidesWhetherTheSecondIsWoken) {
  struct {
    int comparison, operand;
    uint32_t before;
    bool wakes;
  } const cases[] = {
      {FUTEX_OP_CMP_EQ, 5, 5, true},       {FUTEX_OP_CMP_EQ, 6, 5, false}, {FUTEX_OP_CMP_NE, 6, 5, true},
      {FUTEX_OP_CMP_NE, 5, 5, false},      {FUTEX_OP_CMP_LT, 6, 5, true},  {FUTEX_OP_CMP_LT, 5, 5, false},
      {FUTEX_OP_CMP_LE, 5, 5, true},       {FUTEX_OP_CMP_LE, 4, 5, false}, {FUTEX_OP_CMP_GT, 4, 5, true},
      {FUTEX_OP_CMP_GT, 5, 5, false},      {FUTEX_OP_CMP_GE, 5, 5, true},  {FUTEX_OP_CMP_GE, 6, 5, false},
      {FUTEX_OP_CMP_LT, 0, -1u, true},  // signed
      {FUTEX_OP_CMP_EQ, 0xfff, -1u, true},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(::testing::Message() << "comparison " << c.comparison << " with " << c.operand);
    Word first{1}, second{c.before};
    Sleeper a(&first, FUTEX_WAIT, 1), b(&second, FUTEX_WAIT, c.before);
    EXPECT_RETURNS(Futex2(&first, FUTEX_WAKE_OP, INT_MAX, INT_MAX, &second,
                          static_cast<uint32_t>(FUTEX_OP(FUTEX_OP_SET, 77, c.comparison, c.operand))),
                   c.wakes ? 2 : 1);
    EXPECT_EQ(second, 77u);
    EXPECT_RETURNS(Futex(&second, FUTEX_WAKE, INT_MAX), c.wakes ? 0 : 1);
  }
}

TEST(FutexWakeOpComparison, UnknownOnesFailWithEnosys) {
  Word first{1}, second{1};
  EXPECT_ERRNO(Futex2(&first, FUTEX_WAKE_OP, 1, 1, &second, static_cast<uint32_t>(FUTEX_OP(FUTEX_OP_SET, 1, 7, 1))),
               ENOSYS);
  EXPECT_ERRNO(Futex2(&first, FUTEX_WAKE_OP, 1, 1, &second, static_cast<uint32_t>(FUTEX_OP(6, 1, 0, 1))), ENOSYS);
}

TEST(Futex, UnknownOperationsFailWithEnosys) {
  Word word{1};
  EXPECT_ERRNO(Futex(&word, 127, 1), ENOSYS);
  EXPECT_ERRNO(Futex(&word, FUTEX_FD, 1), ENOSYS);  // gone since 2.6.26
}

TEST(Futex, ClockRealtimeOfAnOperationWithoutTimeFailsWithEnosys) {
  Word word{1};
  EXPECT_ERRNO(Futex(&word, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1), ENOSYS);
  EXPECT_ERRNO(Futex2(&word, FUTEX_CMP_REQUEUE | FUTEX_CLOCK_REALTIME, 1, 1, &word, 1), ENOSYS);
}

TEST(Futex, ReadOnlyWordsCanBeWaitedForButNotChanged) {
  void* page = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  Word* word = static_cast<Word*>(page);
  Word other{1};
  const timespec t = Ms(1);
  EXPECT_ERRNO(Futex(word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &t), ETIMEDOUT);
  EXPECT_ERRNO(Futex2(&other, FUTEX_WAKE_OP, 1, 1, word, FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_EQ, 0)), EFAULT);
}

TEST(Futex, PrivateWakeOfNothingMappedWakesNobody) {
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  ASSERT_OK(munmap(page, 4096));
  EXPECT_RETURNS(Futex(static_cast<Word*>(page), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1), 0);
  EXPECT_ERRNO(Futex(static_cast<Word*>(page), FUTEX_WAKE, 1), EFAULT);
}

TEST(FutexShared, ReachesOtherProcesses) {
  Word* word = SharedPage<Word>();
  pid_t child = Spawn([&] { return Futex(word, FUTEX_WAIT, 0) == 0 ? 0 : errno; });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  EXPECT_RETURNS(Futex(word, FUTEX_WAKE, INT_MAX), 1);
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(FutexShared, PrivateOnesDoNotReachOtherProcesses) {
  Word* word = SharedPage<Word>();
  pid_t child = Spawn([&] {
    const timespec t = Ms(200);
    EXPECT_ERRNO(Futex(word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &t), ETIMEDOUT);
    return 0;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  EXPECT_RETURNS(Futex(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX), 0);
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(FutexShared, CopiesOfPrivateMemoryAreDifferentWords) {
  Word word{0};
  pid_t child = Spawn([&] {
    const timespec t = Ms(200);
    EXPECT_ERRNO(Futex(&word, FUTEX_WAIT, 0, &t), ETIMEDOUT);
    return 0;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE, INT_MAX), 0);
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(FutexShared, IsTheFilesWhereverItIsMapped) {
  TempDir dir;
  ScopedFd fd = dir.Open("f");
  ASSERT_OK(ftruncate(fd.get(), 8192));
  Word* a = static_cast<Word*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  Word* b = static_cast<Word*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 4096));
  ASSERT_NE(static_cast<void*>(a), MAP_FAILED);
  ASSERT_NE(static_cast<void*>(b), MAP_FAILED);
  Sleeper sleeper(a + 1024 + 3, FUTEX_WAIT, 0);
  EXPECT_RETURNS(Futex(b, FUTEX_WAKE, INT_MAX), 0);
  EXPECT_RETURNS(Futex(b + 3, FUTEX_WAKE, INT_MAX), 1);
}

volatile sig_atomic_t handled;
void Handle(int sig, int flags) {
  struct sigaction sa{};
  sa.sa_handler = [](int) { handled = handled + 1; };
  sa.sa_flags = flags;
  ASSERT_OK(sigaction(sig, &sa, nullptr));
}

TEST(FutexSignal, HandlerInterruptsTheWait) {
  Handle(SIGUSR1, 0);
  Word word{1};
  Sleeper sleeper(&word, FUTEX_WAIT, 1);
  ASSERT_OK(tgkill(getpid(), sleeper.tid(), SIGUSR1));
  EXPECT_EQ(sleeper.Join(), EINTR);
  EXPECT_EQ(handled, 1);
}

TEST(FutexSignal, SaRestartGoesOnWaiting) {
  Handle(SIGUSR1, SA_RESTART);
  Word word{1};
  Sleeper sleeper(&word, FUTEX_WAIT, 1);
  ASSERT_OK(tgkill(getpid(), sleeper.tid(), SIGUSR1));
  while (handled == 0) SleepMs(1);
  ASSERT_TRUE(WaitUntilAsleep(getpid(), sleeper.tid()));
  EXPECT_FALSE(sleeper.done());
  EXPECT_RETURNS(Futex(&word, FUTEX_WAKE, 1), 1);
  EXPECT_EQ(sleeper.Join(), 0);
}

TEST(FutexSignal, SaRestartSeesAWordThatChanged) {
  Handle(SIGUSR1, SA_RESTART);
  Word word{1};
  Sleeper sleeper(&word, FUTEX_WAIT, 1);
  word = 2;
  ASSERT_OK(tgkill(getpid(), sleeper.tid(), SIGUSR1));
  EXPECT_EQ(sleeper.Join(), EAGAIN);
}

TEST(FutexSignal, HandlerInterruptsATimedWaitEvenWithSaRestart) {
  Handle(SIGUSR1, SA_RESTART);
  for (int op : {FUTEX_WAIT, FUTEX_WAIT_BITSET}) {
    Word word{1};
    std::atomic<pid_t> tid{0};
    std::thread sleeper([&] {
      const timespec t = op == FUTEX_WAIT ? Ms(10000) : After(CLOCK_MONOTONIC, 10000);
      tid = gettid();
      EXPECT_ERRNO(Futex(&word, op, 1, &t, nullptr, 1), EINTR);
      EXPECT_ERRNO(syscall(SYS_restart_syscall), EINTR);
    });
    while (tid == 0) sched_yield();
    ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
    ASSERT_OK(tgkill(getpid(), tid, SIGUSR1));
    sleeper.join();
  }
}

TEST(FutexSignal, StopAndContinueDoNotEndTimedWaits) {
  Word* word = SharedPage<Word>();
  pid_t child = Spawn([&] {
    const timespec t = Ms(400);
    const int64_t start = NowMs();
    EXPECT_ERRNO(Futex(word, FUTEX_WAIT, 0, &t), ETIMEDOUT);
    const int64_t took = NowMs() - start;
    EXPECT_GE(took, 399);
    EXPECT_LT(took, 5000);
    return 0;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  ASSERT_OK(kill(child, SIGSTOP));
  int status;
  ASSERT_RETURNS(waitpid(child, &status, WUNTRACED), child);
  ASSERT_OK(kill(child, SIGCONT));
  EXPECT_EQ(WaitFor(child), 0);
}

TEST(FutexSignal, AStoppedWaiterIsWoken) {
  Word* word = SharedPage<Word>();
  pid_t child = Spawn([&] {
    int result = Futex(word, FUTEX_WAIT, 0) == 0 ? 0 : errno;
    // The wake may come between the stop and the restart, which then finds another value.
    return result == EAGAIN ? 0 : result;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  ASSERT_OK(kill(child, SIGSTOP));
  int status;
  ASSERT_RETURNS(waitpid(child, &status, WUNTRACED), child);
  *word = 1;
  EXPECT_OK(Futex(word, FUTEX_WAKE, INT_MAX));
  ASSERT_OK(kill(child, SIGCONT));
  EXPECT_EQ(WaitFor(child), 0);
}

// Robust lists ------------------------------------------------------------------------------------------------------

struct RobustLock {
  robust_list node{};
  Word word{0};
};
struct RobustShared {
  RobustLock a, b;
};

robust_list_head MakeHead(std::initializer_list<RobustLock*> locks, RobustLock* pending = nullptr) {
  robust_list_head head{};
  head.futex_offset = offsetof(RobustLock, word) - offsetof(RobustLock, node);
  robust_list* last = &head.list;
  for (RobustLock* l : locks) {
    last->next = &l->node;
    last = &l->node;
  }
  last->next = nullptr;  // the caller's head is elsewhere
  head.list_op_pending = pending != nullptr ? &pending->node : nullptr;
  return head;
}

// Ends the list at the place the head is at for good.
void Install(robust_list_head& head) {
  robust_list* last = &head.list;
  while (last->next != nullptr) last = last->next;
  last->next = &head.list;
  ASSERT_OK(syscall(SYS_set_robust_list, &head, sizeof(head)));
}

TEST(RobustList, SizesOtherThanTheHeadsFailWithEinval) {
  robust_list_head head{};
  EXPECT_ERRNO(syscall(SYS_set_robust_list, &head, sizeof(head) - 1), EINVAL);
  EXPECT_ERRNO(syscall(SYS_set_robust_list, &head, 0), EINVAL);
}

TEST(RobustList, GetReturnsWhatSetSet) {
  robust_list_head head = MakeHead({});
  Install(head);
  robust_list_head* got = nullptr;
  size_t length = 0;
  for (pid_t pid : {0, gettid()}) {
    got = nullptr;
    ASSERT_OK(syscall(SYS_get_robust_list, pid, &got, &length));
    EXPECT_EQ(got, &head);
    EXPECT_EQ(length, sizeof(head));
  }
  // Nothing of the kind is inherited.
  EXPECT_EQ(RunChild([&] {
              robust_list_head* mine = &head;
              EXPECT_OK(syscall(SYS_get_robust_list, 0, &mine, &length));
              EXPECT_NE(mine, &head);
              return 0;
            }),
            0);
}

TEST(RobustList, GetErrors) {
  void* head;
  size_t length;
  EXPECT_ERRNO(syscall(SYS_get_robust_list, 0x3fffffff, &head, &length), ESRCH);
  EXPECT_ERRNO(syscall(SYS_get_robust_list, 0, 8L, &length), EFAULT);
  EXPECT_ERRNO(syscall(SYS_get_robust_list, 0, &head, 8L), EFAULT);
  pid_t parent = getpid();
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(syscall(SYS_get_robust_list, parent, &head, &length), EPERM); }), 0);
}

TEST(RobustList, DeathOfTheOwnerMarksTheWord) {
  auto* shared = SharedPage<RobustShared>();
  EXPECT_EQ(RunChild([&] {
              static robust_list_head head;
              head = MakeHead({&shared->a, &shared->b});
              Install(head);
              shared->a.word = static_cast<uint32_t>(gettid());
              shared->b.word = static_cast<uint32_t>(gettid()) | FUTEX_WAITERS;
              syscall(SYS_exit, 0);
              return 1;
            }),
            0);
  EXPECT_EQ(shared->a.word, static_cast<uint32_t>(FUTEX_OWNER_DIED));
  EXPECT_EQ(shared->b.word, static_cast<uint32_t>(FUTEX_OWNER_DIED | FUTEX_WAITERS));
}

TEST(RobustList, WordsOfOthersStay) {
  auto* shared = SharedPage<RobustShared>();
  shared->a.word = static_cast<uint32_t>(getpid());
  EXPECT_EQ(RunChild([&] {
              static robust_list_head head;
              head = MakeHead({&shared->a, &shared->b});
              Install(head);
              syscall(SYS_exit, 0);
              return 1;
            }),
            0);
  EXPECT_EQ(shared->a.word, static_cast<uint32_t>(getpid()));
  EXPECT_EQ(shared->b.word, 0u);
}

TEST(RobustList, ThePendingOperationIsSeenToAsWell) {
  auto* shared = SharedPage<RobustShared>();
  EXPECT_EQ(RunChild([&] {
              static robust_list_head head;
              head = MakeHead({}, &shared->a);
              Install(head);
              shared->a.word = static_cast<uint32_t>(gettid());
              syscall(SYS_exit, 0);
              return 1;
            }),
            0);
  EXPECT_EQ(shared->a.word, static_cast<uint32_t>(FUTEX_OWNER_DIED));
}

TEST(RobustList, DeathBySignalWakesAWaiter) {
  auto* shared = SharedPage<RobustShared>();
  pid_t owner = Spawn([&] {
    static robust_list_head head;
    head = MakeHead({&shared->a});
    Install(head);
    shared->a.word = static_cast<uint32_t>(gettid()) | FUTEX_WAITERS;
    pause();
    return 0;
  });
  while (shared->a.word == 0) SleepMs(1);
  Sleeper sleeper(&shared->a.word, FUTEX_WAIT, static_cast<uint32_t>(owner) | FUTEX_WAITERS);
  ASSERT_OK(kill(owner, SIGKILL));
  EXPECT_EQ(sleeper.Join(), 0);
  EXPECT_EQ(shared->a.word, static_cast<uint32_t>(FUTEX_OWNER_DIED | FUTEX_WAITERS));
  WaitFor(owner);
}

TEST(RobustList, ABrokenListHarmsNobody) {
  auto* shared = SharedPage<RobustShared>();
  EXPECT_EQ(RunChild([&] {
              static robust_list_head head;
              head = MakeHead({&shared->a});
              shared->a.node.next = reinterpret_cast<robust_list*>(8);
              EXPECT_OK(syscall(SYS_set_robust_list, &head, sizeof(head)));
              shared->a.word = static_cast<uint32_t>(gettid());
              syscall(SYS_exit, 0);
              return 1;
            }),
            0);
  EXPECT_EQ(RunChild([&] {
              static robust_list_head head;
              head = MakeHead({&shared->a});
              shared->a.node.next = &shared->a.node;  // has no end
              EXPECT_OK(syscall(SYS_set_robust_list, &head, sizeof(head)));
              syscall(SYS_exit, 0);
              return 1;
            }),
            0);
}

// Threads -----------------------------------------------------------------------------------------------------------

constexpr int kThreadFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

// Without a thread area of its own a raw thread must not touch errno or anything else of the C library's.
struct RawThread {
  alignas(16) char stack[65536];
  Word parent_tid{0}, child_tid{0};
  Word seen_tid{0}, go{0};

  static int Main(void* arg) {
    auto* self = static_cast<RawThread*>(arg);
    self->seen_tid = self->child_tid.load();
    while (self->go == 0) {
    }
    return 0;
  }
  int Start(int flags) {
    return clone(Main, stack + sizeof(stack), kThreadFlags | flags, this, &parent_tid, nullptr, &child_tid);
  }
};

TEST(CloneThread, TidsAreStoredAndClearedWithAWake) {
  auto t = std::make_unique<RawThread>();
  int tid = t->Start(CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID);
  ASSERT_GT(tid, 0);
  EXPECT_EQ(t->parent_tid, static_cast<uint32_t>(tid));
  while (t->seen_tid == 0) sched_yield();
  EXPECT_EQ(t->seen_tid, static_cast<uint32_t>(tid));
  std::thread goer([&] {
    SleepMs(20);
    t->go = 1;
  });
  while (t->child_tid != 0) {
    long r = Futex(&t->child_tid, FUTEX_WAIT, static_cast<uint32_t>(tid));
    EXPECT_TRUE(r == 0 || errno == EAGAIN) << errno;
  }
  goer.join();
}

TEST(SetTidAddress, ReturnsTheCallersTid) {
  EXPECT_EQ(RunChild([] {
              static int word;
              EXPECT_RETURNS(syscall(SYS_set_tid_address, &word), gettid());
              return 0;
            }),
            0);
}

TEST(SetTidAddress, TheWordIsClearedAtExitIfOthersCanSeeIt) {
  auto t = std::make_unique<RawThread>();
  static Word word;
  word = 7;
  auto main = [](void* arg) -> int {
    long r;
    register long address asm("rdi") = reinterpret_cast<long>(&word);
    asm volatile("syscall" : "=a"(r) : "0"(SYS_set_tid_address), "r"(address) : "rcx", "r11", "memory");
    static_cast<RawThread*>(arg)->seen_tid = static_cast<uint32_t>(r);
    return 0;
  };
  int tid = clone(main, t->stack + sizeof(t->stack), kThreadFlags, t.get());
  ASSERT_GT(tid, 0);
  while (word != 0) Futex(&word, FUTEX_WAIT, 7);
  EXPECT_EQ(t->seen_tid, static_cast<uint32_t>(tid));
  SleepMs(5);  // the stack goes with the test
}

TEST(CloneThread, InconsistentFlagsFailWithEinval) {
  auto t = std::make_unique<RawThread>();
  char* top = t->stack + sizeof(t->stack);
  EXPECT_ERRNO(clone(RawThread::Main, top, CLONE_THREAD, t.get()), EINVAL);
  EXPECT_ERRNO(clone(RawThread::Main, top, CLONE_THREAD | CLONE_VM, t.get()), EINVAL);
  EXPECT_ERRNO(clone(RawThread::Main, top, CLONE_SIGHAND, t.get()), EINVAL);
  EXPECT_ERRNO(clone(RawThread::Main, top, CLONE_FS | CLONE_NEWNS, t.get()), EINVAL);
}

// The C library ------------------------------------------------------------------------------------------------------

TEST(Pthread, MutexExcludes) {
  std::vector<std::thread> threads;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  int value = 0;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&mutex);
        int seen = value;
        if (i % 100 == 0) sched_yield();
        value = seen + 1;
        pthread_mutex_unlock(&mutex);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(value, 8000);
}

TEST(Pthread, ProcessSharedMutexExcludes) {
  struct Shared {
    pthread_mutex_t mutex;
    int value;
  };
  auto* shared = SharedPage<Shared>();
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->mutex, &attributes);
  std::vector<pid_t> children;
  for (int c = 0; c < 3; c++) {
    children.push_back(Spawn([&] {
      for (int i = 0; i < 500; i++) {
        pthread_mutex_lock(&shared->mutex);
        int seen = shared->value;
        if (i % 50 == 0) sched_yield();
        shared->value = seen + 1;
        pthread_mutex_unlock(&shared->mutex);
      }
      return 0;
    }));
  }
  for (pid_t c : children) EXPECT_EQ(WaitFor(c), 0);
  EXPECT_EQ(shared->value, 1500);
}

TEST(Pthread, RobustMutexOfADeadProcessIsInherited) {
  auto* mutex = SharedPage<pthread_mutex_t>();
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(mutex, &attributes);
  pid_t child = Spawn([&] {
    pthread_mutex_lock(mutex);
    pause();
    return 0;
  });
  while (pthread_mutex_trylock(mutex) == 0) {
    pthread_mutex_unlock(mutex);
    SleepMs(1);
  }
  std::thread killer([&] {
    SleepMs(20);
    kill(child, SIGKILL);
  });
  EXPECT_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
  EXPECT_EQ(pthread_mutex_consistent(mutex), 0);
  EXPECT_EQ(pthread_mutex_unlock(mutex), 0);
  EXPECT_EQ(pthread_mutex_lock(mutex), 0);
  killer.join();
  WaitFor(child);
}

TEST(Pthread, ConditionsPassTheBall) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
  int turn = 0;
  constexpr int kRounds = 300;
  auto play = [&](int me) {
    for (int i = 0; i < kRounds; i++) {
      pthread_mutex_lock(&mutex);
      while (turn % 3 != me) pthread_cond_wait(&changed, &mutex);
      turn++;
      pthread_cond_broadcast(&changed);
      pthread_mutex_unlock(&mutex);
    }
  };
  std::thread a(play, 0), b(play, 1), c(play, 2);
  a.join();
  b.join();
  c.join();
  EXPECT_EQ(turn, 3 * kRounds);
}

TEST(Pthread, ConditionsTimeOut) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t never = PTHREAD_COND_INITIALIZER;
  pthread_mutex_lock(&mutex);
  timespec t = After(CLOCK_REALTIME, 30);
  EXPECT_EQ(pthread_cond_timedwait(&never, &mutex, &t), ETIMEDOUT);
  t = After(CLOCK_MONOTONIC, 30);
  EXPECT_EQ(pthread_cond_clockwait(&never, &mutex, CLOCK_MONOTONIC, &t), ETIMEDOUT);
  pthread_mutex_unlock(&mutex);
}

TEST(Pthread, BarriersHoldAll) {
  constexpr int kThreads = 4, kRounds = 50;
  pthread_barrier_t barrier;
  ASSERT_EQ(pthread_barrier_init(&barrier, nullptr, kThreads), 0);
  std::atomic<int> arrived{0}, serial{0}, early{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; i++) {
        arrived++;
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) serial++;
        if (arrived < (i + 1) * kThreads) early++;
        pthread_barrier_wait(&barrier);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(serial, kRounds);
  EXPECT_EQ(early, 0);
}

TEST(Pthread, ReadersShareAndWritersDoNot) {
  pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
  ASSERT_EQ(pthread_rwlock_rdlock(&lock), 0);
  std::thread([&] {
    EXPECT_EQ(pthread_rwlock_tryrdlock(&lock), 0);
    EXPECT_EQ(pthread_rwlock_unlock(&lock), 0);
    EXPECT_EQ(pthread_rwlock_trywrlock(&lock), EBUSY);
    timespec t = After(CLOCK_REALTIME, 20);
    EXPECT_EQ(pthread_rwlock_timedwrlock(&lock, &t), ETIMEDOUT);
  }).join();
  std::atomic<bool> written{false};
  std::thread writer([&] {
    EXPECT_EQ(pthread_rwlock_wrlock(&lock), 0);
    written = true;
    EXPECT_EQ(pthread_rwlock_unlock(&lock), 0);
  });
  SleepMs(10);
  EXPECT_FALSE(written);
  EXPECT_EQ(pthread_rwlock_unlock(&lock), 0);
  writer.join();
}

}  // namespace
}  // namespace redoubt::testing
