// POSIX message queues: mq_overview(7), mq_open(3), mq_unlink(3), mq_send(3), mq_receive(3), mq_notify(3),
// mq_getsetattr(2).
#include <fcntl.h>
#include <linux/netlink.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

constexpr size_t kSize = 64;   // mq_msgsize of the tests' queues
constexpr long kMessages = 4;  // mq_maxmsg
constexpr uid_t kSomebody = 54321;

// The calls themselves: the name has no slash.
int RawOpen(const char* name, int flags, mode_t mode = 0600, const void* attr = nullptr) {
  return static_cast<int>(syscall(SYS_mq_open, name, flags, mode, attr));
}
int RawUnlink(const char* name) { return static_cast<int>(syscall(SYS_mq_unlink, name)); }
long RawSend(int fd, const void* text, size_t length, unsigned priority, const void* until) {
  return syscall(SYS_mq_timedsend, fd, text, length, priority, until);
}
long RawReceive(int fd, void* text, size_t length, void* priority, const void* until) {
  return syscall(SYS_mq_timedreceive, fd, text, length, priority, until);
}
long RawNotify(int fd, const void* event) { return syscall(SYS_mq_notify, fd, event); }
long RawGetsetattr(int fd, const void* next, void* old) { return syscall(SYS_mq_getsetattr, fd, next, old); }

const void* const kBad = reinterpret_cast<const void*>(8);
void* const kBadOut = reinterpret_cast<void*>(8);

mq_attr Attr(long messages, long size) {
  mq_attr a{};
  a.mq_maxmsg = messages;
  a.mq_msgsize = size;
  return a;
}

timespec After(int ms) {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  t.tv_nsec += ms % 1000 * 1'000'000L;
  t.tv_sec += ms / 1000 + t.tv_nsec / 1'000'000'000;
  t.tv_nsec %= 1'000'000'000;
  return t;
}

int Send(mqd_t q, const std::string& text, unsigned priority = 0) {
  return mq_send(q, text.data(), text.size(), priority);
}

// "priority:text", or the name of the error.
std::string Receive(mqd_t q) {
  char text[kSize];
  unsigned priority = 0;
  const ssize_t n = mq_receive(q, text, sizeof(text), &priority);
  if (n < 0) return strerrorname_np(errno);
  return std::to_string(priority) + ":" + std::string(text, static_cast<size_t>(n));
}

// What read(2) says of the queue.
std::string Line(mqd_t q) {
  char text[128];
  const ssize_t n = pread(q, text, sizeof(text), 0);
  return n < 0 ? strerrorname_np(errno) : std::string(text, static_cast<size_t>(n));
}

void Handle(int signal, void (*handler)(int, siginfo_t*, void*), int flags = 0) {
  struct sigaction action{};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  ASSERT_OK(sigaction(signal, &action, nullptr));
}

// A process, until it is told to end.
class Held final {
 public:
  explicit Held(const std::function<void()>& body) {
    EXPECT_OK(pipe(ready_));
    EXPECT_OK(pipe(end_));
    pid_ = Spawn([&] {
      close(end_[1]);
      body();
      char c = 0;
      EXPECT_RETURNS(write(ready_[1], "r", 1), 1);
      EXPECT_RETURNS(read(end_[0], &c, 1), 0);
      return 0;
    });
    char c = 0;
    EXPECT_RETURNS(read(ready_[0], &c, 1), 1);
  }
  ~Held() {
    if (pid_ > 0) End();
    for (int fd : {ready_[0], ready_[1], end_[0]}) close(fd);
  }
  void End() {
    close(end_[1]);
    EXPECT_EQ(WaitFor(pid_), 0);
    pid_ = 0;
  }
  pid_t pid() const { return pid_; }

 private:
  int ready_[2], end_[2];
  pid_t pid_;
};

class PosixQueue : public ::testing::Test {
 protected:
  void SetUp() override {
    name_ = "/redoubt." + std::to_string(getpid());
    mq_attr attr = Attr(kMessages, kSize);
    q_ = mq_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600, &attr);
    ASSERT_OK(q_);
  }
  void TearDown() override {
    close(q_);
    mq_unlink(name_.c_str());
    mq_unlink(Other());
  }
  const char* Raw() const { return name_.c_str() + 1; }
  // Another queue's name.
  const char* Other() {
    other_ = name_ + "x";
    return other_.c_str();
  }
  // The same queue, with a description that waits.
  mqd_t Waiting() {
    const mqd_t q = mq_open(name_.c_str(), O_RDWR);
    EXPECT_OK(q);
    return q;
  }
  // Where there is only one, it is the sandbox's, whose settings a test puts back.
  void LeaveIpcNamespace() {
    ASSERT_OK(mq_unlink(name_.c_str()));
    const int error = unshare(CLONE_NEWIPC) == 0 ? 0 : errno;
    EXPECT_THAT(error, ::testing::AnyOf(0, EINVAL));
  }
  void Fill() {
    for (long i = 0; i < kMessages; i++) ASSERT_OK(Send(q_, "fill"));
  }

  std::string name_, other_;
  mqd_t q_ = -1;
};

// mq_open(3)

TEST_F(PosixQueue, NamesOfTheLibrary) {
  EXPECT_ERRNO(mq_open("none", O_RDWR), EINVAL);
  EXPECT_ERRNO(mq_open("/", O_RDWR), ENOENT);
  EXPECT_ERRNO(mq_open("/a/b", O_RDWR), EACCES);
  EXPECT_ERRNO(mq_open("/no such queue", O_RDWR), ENOENT);
  EXPECT_ERRNO(mq_unlink("none"), EINVAL);
  EXPECT_ERRNO(mq_unlink("/no such queue"), ENOENT);
}

TEST_F(PosixQueue, NamesOfTheCall) {
  for (int flags : {O_RDWR, O_RDWR | O_CREAT}) {
    EXPECT_ERRNO(RawOpen("", flags), ENOENT);
    for (const char* name : {".", "..", "/a", "a/b", "a/"}) EXPECT_ERRNO(RawOpen(name, flags), EACCES) << name;
    EXPECT_ERRNO(RawOpen(std::string(256, 'x').c_str(), flags), ENAMETOOLONG);
    EXPECT_ERRNO(RawOpen(std::string(5000, 'x').c_str(), flags), ENAMETOOLONG);
    EXPECT_ERRNO(RawOpen(static_cast<const char*>(kBad), flags), EFAULT);
  }
  EXPECT_ERRNO(RawUnlink(""), ENOENT);
  for (const char* name : {".", "..", "/a", "a/b"}) EXPECT_ERRNO(RawUnlink(name), EACCES) << name;
  EXPECT_ERRNO(RawUnlink(std::string(256, 'x').c_str()), ENAMETOOLONG);
  EXPECT_ERRNO(RawUnlink(static_cast<const char*>(kBad)), EFAULT);
  const std::string longest = std::string(255 - strlen(Raw()), 'x') + Raw();
  EXPECT_OK(RawOpen(longest.c_str(), O_RDWR | O_CREAT));
  EXPECT_OK(RawUnlink(longest.c_str()));
}

TEST_F(PosixQueue, CreatingAndOpening) {
  EXPECT_ERRNO(mq_open(Other(), O_RDWR), ENOENT);
  EXPECT_ERRNO(mq_open(name_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, nullptr), EEXIST);
  // What there is keeps its attributes, and those that are asked for are not even looked at.
  mq_attr attr = Attr(0, -1);
  EXPECT_OK(mq_open(name_.c_str(), O_RDWR | O_CREAT, 0600, &attr));
  ASSERT_OK(mq_getattr(q_, &attr));
  EXPECT_EQ(attr.mq_maxmsg, kMessages);
  EXPECT_ERRNO(RawOpen(Raw(), O_RDWR, 0, kBad), EFAULT);
  EXPECT_ERRNO(RawOpen(Raw(), O_ACCMODE), EINVAL);
  EXPECT_ERRNO(RawOpen(Raw(), O_RDWR | O_DIRECT), EINVAL);
}

TEST_F(PosixQueue, DefaultAttributes) {
  auto number = [](const char* name) {
    long n = -1;
    std::ifstream("/proc/sys/fs/mqueue/" + std::string(name)) >> n;
    return n;
  };
  const mqd_t q = mq_open(Other(), O_CREAT | O_RDWR, 0600, nullptr);
  ASSERT_OK(q);
  mq_attr attr{};
  ASSERT_OK(mq_getattr(q, &attr));
  EXPECT_EQ(attr.mq_maxmsg, std::min(number("msg_default"), number("msg_max")));
  EXPECT_EQ(attr.mq_msgsize, std::min(number("msgsize_default"), number("msgsize_max")));
  EXPECT_EQ(attr.mq_curmsgs, 0);
  EXPECT_EQ(attr.mq_flags, 0);
}

TEST_F(PosixQueue, AttributesThatCannotBe) {
  EXPECT_EQ(RunAsNobody([&] {
              for (mq_attr attr : {Attr(0, 1), Attr(1, 0), Attr(-1, 1), Attr(1, -1), Attr(LONG_MAX, LONG_MAX),
                                   Attr(11, 64), Attr(10, 8193), Attr(65537, 1), Attr(1, (16 << 20) + 1)}) {
                EXPECT_ERRNO(mq_open(Other(), O_CREAT | O_RDWR, 0600, &attr), EINVAL)
                    << attr.mq_maxmsg << " " << attr.mq_msgsize;
              }
              // A queue that could not be made has left nothing.
              EXPECT_ERRNO(mq_open(Other(), O_RDWR), ENOENT);
            }),
            0);
  // Nor may who may exceed the settings (CAP_SYS_RESOURCE) ask for more than this.
  for (mq_attr attr : {Attr(65537, 1), Attr(1, (16 << 20) + 1), Attr(0, 1), Attr(1, -1)}) {
    EXPECT_ERRNO(mq_open(Other(), O_CREAT | O_RDWR, 0600, &attr), EINVAL);
  }
}

TEST_F(PosixQueue, ModeAndUmask) {
  for (auto [mask, mode] : {std::pair{0, 0666}, {022, 0644}, {077, 0600}}) {
    umask(static_cast<mode_t>(mask));
    const mqd_t q = mq_open(Other(), O_CREAT | O_EXCL | O_RDWR, 0666, nullptr);
    ASSERT_OK(q);
    struct stat st{};
    ASSERT_OK(fstat(q, &st));
    EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | mode));
    EXPECT_EQ(st.st_uid, geteuid());
    EXPECT_EQ(st.st_gid, getegid());
    EXPECT_EQ(st.st_nlink, 1u);
    EXPECT_EQ(st.st_size, 80);
    EXPECT_OK(mq_unlink(Other()));
    ASSERT_OK(fstat(q, &st));
    EXPECT_EQ(st.st_nlink, 0u);
    close(q);
  }
}

TEST_F(PosixQueue, PermissionsAreCheckedWhenItIsOpened) {
  umask(0);
  const mqd_t q = mq_open(Other(), O_CREAT | O_RDWR, 0602, nullptr);
  ASSERT_OK(q);
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(mq_open(name_.c_str(), O_RDONLY), EACCES);
              EXPECT_ERRNO(mq_open(name_.c_str(), O_RDONLY | O_CREAT, 0600, nullptr), EACCES);
              EXPECT_ERRNO(mq_open(Other(), O_RDONLY), EACCES);
              EXPECT_ERRNO(mq_open(Other(), O_RDWR), EACCES);
              const mqd_t w = mq_open(Other(), O_WRONLY);
              EXPECT_OK(w);
              EXPECT_OK(Send(w, "w"));
              // The directory is sticky; the library makes EACCES of that.
              EXPECT_ERRNO(RawUnlink(Other() + 1), EPERM);
              EXPECT_ERRNO(mq_unlink(Other()), EACCES);
            }),
            0);
  ASSERT_OK(fchmod(q, 0604));
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_OK(mq_open(Other(), O_RDONLY));
              EXPECT_ERRNO(mq_open(Other(), O_WRONLY), EACCES);
            }),
            0);
}

TEST_F(PosixQueue, WhatADescriptorMayDo) {
  const mqd_t r = mq_open(name_.c_str(), O_RDONLY), w = mq_open(name_.c_str(), O_WRONLY);
  EXPECT_ERRNO(Send(r, "a"), EBADF);
  EXPECT_OK(Send(w, "a"));
  EXPECT_EQ(Receive(w), "EBADF");
  EXPECT_EQ(Receive(r), "0:a");
  char c = 0;
  EXPECT_ERRNO(read(w, &c, 1), EBADF);
}

TEST_F(PosixQueue, IsAnOrdinaryDescriptor) {
  EXPECT_RETURNS(fcntl(q_, F_GETFD), FD_CLOEXEC);
  EXPECT_RETURNS(fcntl(q_, F_GETFL), O_RDWR | O_NONBLOCK);
  const int copy = dup(q_);
  ASSERT_OK(copy);
  EXPECT_OK(Send(copy, "a"));
  EXPECT_EQ(RunChild([&] {
              EXPECT_EQ(Receive(q_), "0:a");
              return 0;
            }),
            0);
  EXPECT_OK(mq_close(copy));
  EXPECT_ERRNO(mq_close(copy), EBADF);
  EXPECT_ERRNO(Send(copy, "a"), EBADF);
  EXPECT_ERRNO(write(q_, "a", 1), EINVAL);
  EXPECT_ERRNO(pwrite(q_, "a", 1, 0), EINVAL);
  EXPECT_ERRNO(fsync(q_), EINVAL);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, q_, 0), MAP_FAILED);
  EXPECT_EQ(errno, ENODEV);
  char link[256] = {};
  EXPECT_OK(readlink(("/proc/self/fd/" + std::to_string(q_)).c_str(), link, sizeof(link) - 1));
  EXPECT_EQ(link, name_);
}

TEST_F(PosixQueue, NoDescriptorIsLeft) {
  EXPECT_EQ(RunChild([&] {
              rlimit limit{};
              EXPECT_OK(getrlimit(RLIMIT_NOFILE, &limit));
              limit.rlim_cur = static_cast<rlim_t>(dup(0));
              EXPECT_OK(setrlimit(RLIMIT_NOFILE, &limit));
              close(static_cast<int>(limit.rlim_cur));
              EXPECT_ERRNO(mq_open(name_.c_str(), O_RDWR), EMFILE);
              return 0;
            }),
            0);
}

TEST_F(PosixQueue, ReadTellsOfIt) {
  const char* const empty = "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n";
  char text[100] = {};
  ASSERT_RETURNS(read(q_, text, sizeof(text)), 60);
  EXPECT_STREQ(text, empty);
  EXPECT_RETURNS(read(q_, text, sizeof(text)), 0);
  EXPECT_RETURNS(lseek(q_, 6, SEEK_SET), 6);
  ASSERT_RETURNS(read(q_, text, 1), 1);
  EXPECT_EQ(text[0], '0');
  EXPECT_OK(Send(q_, "four"));
  EXPECT_OK(Send(q_, "by"));
  EXPECT_EQ(Line(q_), "QSIZE:6          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  ASSERT_OK(mq_notify(q_, &event));
  char expected[100];
  snprintf(expected, sizeof(expected), "QSIZE:6          NOTIFY:0     SIGNO:%-5d NOTIFY_PID:%-6d\n", SIGUSR1, getpid());
  EXPECT_EQ(Line(q_), expected);
  ASSERT_OK(mq_notify(q_, nullptr));
  event.sigev_notify = SIGEV_NONE;
  ASSERT_OK(mq_notify(q_, &event));
  snprintf(expected, sizeof(expected), "QSIZE:6          NOTIFY:1     SIGNO:0     NOTIFY_PID:%-6d\n", getpid());
  EXPECT_EQ(Line(q_), expected);
}

// mq_unlink(3)

TEST_F(PosixQueue, AnUnlinkedOneLivesWhileItIsOpen) {
  EXPECT_OK(Send(q_, "a"));
  ASSERT_OK(mq_unlink(name_.c_str()));
  EXPECT_ERRNO(mq_open(name_.c_str(), O_RDWR), ENOENT);
  EXPECT_ERRNO(mq_unlink(name_.c_str()), ENOENT);
  const mqd_t next = mq_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600, nullptr);
  ASSERT_OK(next);
  char text[8192];
  EXPECT_ERRNO(mq_receive(next, text, sizeof(text), nullptr), EAGAIN);
  EXPECT_EQ(Receive(q_), "0:a");
}

TEST_F(PosixQueue, MessagesOutliveTheirSender) {
  EXPECT_EQ(RunChild([&] {
              EXPECT_OK(Send(mq_open(name_.c_str(), O_WRONLY), "from a child", 3));
              return 0;
            }),
            0);
  EXPECT_EQ(Receive(q_), "3:from a child");
}

// mq_send(3), mq_receive(3)

TEST_F(PosixQueue, HighestPriorityThenFirst) {
  EXPECT_OK(Send(q_, "a", 1));
  EXPECT_OK(Send(q_, "b", 32767));
  EXPECT_OK(Send(q_, "", 0));
  EXPECT_OK(Send(q_, "c", 1));
  for (const char* m : {"32767:b", "1:a", "1:c", "0:", "EAGAIN"}) EXPECT_EQ(Receive(q_), m);
}

TEST_F(PosixQueue, FullAndEmpty) {
  EXPECT_EQ(Receive(q_), "EAGAIN");
  Fill();
  EXPECT_ERRNO(Send(q_, "more"), EAGAIN);
  EXPECT_EQ(Receive(q_), "0:fill");
  EXPECT_OK(Send(q_, "more"));
}

TEST_F(PosixQueue, SizesOfMessages) {
  const std::string largest(kSize, 'x');
  EXPECT_OK(Send(q_, largest));
  EXPECT_ERRNO(Send(q_, largest + "y"), EMSGSIZE);
  EXPECT_ERRNO(RawSend(q_, largest.data(), SIZE_MAX, 0, nullptr), EMSGSIZE);
  char text[kSize + 1];
  EXPECT_ERRNO(mq_receive(q_, text, kSize - 1, nullptr), EMSGSIZE);
  EXPECT_RETURNS(mq_receive(q_, text, sizeof(text), nullptr), kSize);
  EXPECT_EQ(std::string(text, kSize), largest);
  // The buffer is looked at first.
  EXPECT_ERRNO(mq_receive(q_, text, kSize - 1, nullptr), EMSGSIZE);
}

TEST_F(PosixQueue, ErrorsOfTheCalls) {
  char text[kSize];
  const timespec bad[] = {
      {.tv_sec = 0, .tv_nsec = 1'000'000'000}, {.tv_sec = 0, .tv_nsec = -1}, {.tv_sec = -1, .tv_nsec = 0}};
  EXPECT_ERRNO(Send(q_, "a", 32768), EINVAL);
  EXPECT_ERRNO(Send(q_, "a", UINT_MAX), EINVAL);
  for (int fd : {-1, 999, STDIN_FILENO}) {
    EXPECT_ERRNO(RawSend(fd, "a", 1, 0, nullptr), EBADF);
    EXPECT_ERRNO(RawReceive(fd, text, kSize, nullptr, nullptr), EBADF);
    EXPECT_ERRNO(RawGetsetattr(fd, nullptr, nullptr), EBADF);
    EXPECT_ERRNO(RawNotify(fd, nullptr), EBADF);
  }
  // A time is looked at even where nothing has to wait, and before all else.
  for (const timespec& t : bad) {
    EXPECT_ERRNO(RawSend(q_, "a", 1, 0, &t), EINVAL);
    EXPECT_ERRNO(RawReceive(999, text, kSize, nullptr, &t), EINVAL);
  }
  EXPECT_ERRNO(RawSend(999, "a", 1, 0, kBad), EFAULT);
  EXPECT_ERRNO(RawReceive(999, text, kSize, nullptr, kBad), EFAULT);
  EXPECT_ERRNO(RawSend(q_, kBad, 1, 0, nullptr), EFAULT);
  EXPECT_EQ(Receive(q_), "EAGAIN");
  // A message that cannot be told is gone.
  EXPECT_OK(Send(q_, "a"));
  EXPECT_OK(Send(q_, "b"));
  EXPECT_OK(Send(q_, "c"));
  EXPECT_ERRNO(RawReceive(q_, kBadOut, kSize, nullptr, nullptr), EFAULT);
  EXPECT_ERRNO(RawReceive(q_, text, kSize, kBadOut, nullptr), EFAULT);
  EXPECT_EQ(Receive(q_), "0:c");
}

TEST_F(PosixQueue, TimesOut) {
  const mqd_t q = Waiting();
  char text[kSize];
  timespec past{.tv_sec = 1, .tv_nsec = 0}, soon = After(30);
  EXPECT_ERRNO(mq_timedreceive(q, text, kSize, nullptr, &past), ETIMEDOUT);
  EXPECT_ERRNO(mq_timedreceive(q, text, kSize, nullptr, &soon), ETIMEDOUT);
  const timespec now = After(1);
  EXPECT_GE(std::pair(now.tv_sec, now.tv_nsec), std::pair(soon.tv_sec, soon.tv_nsec));
  // What need not wait does not time out.
  EXPECT_OK(mq_timedsend(q, "a", 1, 0, &past));
  EXPECT_RETURNS(mq_timedreceive(q, text, kSize, nullptr, &past), 1);
  Fill();
  EXPECT_ERRNO(mq_timedsend(q, "late", 4, 9, &past), ETIMEDOUT);
  soon = After(30);
  EXPECT_ERRNO(mq_timedsend(q, "late", 4, 9, &soon), ETIMEDOUT);
  for (long i = 0; i < kMessages; i++) EXPECT_EQ(Receive(q_), "0:fill");
  EXPECT_EQ(Receive(q_), "EAGAIN");
  // O_NONBLOCK comes before the time.
  soon = After(10'000);
  EXPECT_ERRNO(mq_timedreceive(q_, text, kSize, nullptr, &soon), EAGAIN);
}

TEST_F(PosixQueue, AReceiverWaitsForAMessage) {
  const mqd_t q = Waiting();
  std::atomic<pid_t> tid{0};
  std::string received;
  std::thread receiver([&] {
    tid = gettid();
    received = Receive(q);
  });
  WaitUntil([&] { return tid != 0; });
  ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
  EXPECT_OK(Send(q_, "a", 7));
  receiver.join();
  EXPECT_EQ(received, "7:a");
}

TEST_F(PosixQueue, ASenderWaitsForRoom) {
  const mqd_t q = Waiting();
  Fill();
  std::atomic<pid_t> tid{0};
  std::thread sender([&] {
    tid = gettid();
    EXPECT_OK(Send(q, "urgent", 9));
  });
  WaitUntil([&] { return tid != 0; });
  ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
  EXPECT_EQ(Receive(q_), "0:fill");
  sender.join();
  // It was let in by that, and comes first.
  EXPECT_ERRNO(Send(q_, "more"), EAGAIN);
  EXPECT_EQ(Receive(q_), "9:urgent");
}

TEST_F(PosixQueue, TheLongestWaitingIsServedFirst) {
  const mqd_t q = Waiting();
  std::string received[3];
  std::vector<std::thread> threads;
  for (std::string& mine : received) {
    std::atomic<pid_t> tid{0};
    threads.emplace_back([&] {
      tid = gettid();
      mine = Receive(q);
    });
    WaitUntil([&] { return tid != 0; });
    ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
  }
  for (const char* text : {"a", "b", "c"}) EXPECT_OK(Send(q_, text));
  for (std::thread& t : threads) t.join();
  EXPECT_THAT(received, ::testing::ElementsAre("0:a", "0:b", "0:c"));
}

TEST_F(PosixQueue, ASignalInterruptsOrRestarts) {
  const mqd_t q = Waiting();
  static std::atomic<int> handled;
  Fill();
  for (int flags : {0, SA_RESTART}) {
    handled = 0;
    Handle(SIGUSR1, [](int, siginfo_t*, void*) { handled++; }, flags);
    std::atomic<pid_t> tid{0};
    int result = 0, error = 0;
    std::thread sender([&] {
      tid = gettid();
      result = Send(q, "a");
      error = errno;
    });
    WaitUntil([&] { return tid != 0; });
    ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
    ASSERT_OK(tgkill(getpid(), tid, SIGUSR1));
    WaitUntil([&] { return handled == 1; });
    if (flags == SA_RESTART) {
      ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
      EXPECT_EQ(Receive(q_), "0:fill");
    }
    sender.join();
    EXPECT_EQ(result, flags == SA_RESTART ? 0 : -1);
    EXPECT_EQ(result == 0 ? EINTR : error, EINTR);
  }
  while (Receive(q_) != "EAGAIN") {
  }
  handled = 0;
  Handle(SIGUSR1, [](int, siginfo_t*, void*) { handled++; });
  std::atomic<pid_t> tid{0};
  std::string received;
  std::thread receiver([&] {
    tid = gettid();
    received = Receive(q);
  });
  WaitUntil([&] { return tid != 0; });
  ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
  ASSERT_OK(tgkill(getpid(), tid, SIGUSR1));
  receiver.join();
  EXPECT_EQ(received, "EINTR");
}

TEST_F(PosixQueue, ManyThreadsLoseNothing) {
  const mqd_t q = Waiting();
  constexpr int kThreads = 4, kEach = 200;
  std::atomic<int> sum{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; i++) {
        const int value = t * kEach + i;
        ASSERT_OK(mq_send(q, reinterpret_cast<const char*>(&value), sizeof(value), static_cast<unsigned>(i % 3)));
      }
    });
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; i++) {
        char text[kSize];
        ASSERT_RETURNS(mq_receive(q, text, sizeof(text), nullptr), sizeof(int));
        int value = 0;
        memcpy(&value, text, sizeof(value));
        sum += value;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  constexpr int kAll = kThreads * kEach;
  EXPECT_EQ(sum, kAll * (kAll - 1) / 2);
  EXPECT_EQ(Receive(q_), "EAGAIN");
}

// mq_getattr(3), mq_setattr(3), mq_getsetattr(2)

TEST_F(PosixQueue, OnlyNonblockChanges) {
  const mqd_t q = Waiting();
  EXPECT_OK(Send(q, "a"));
  mq_attr next = Attr(99, 999), old{};
  next.mq_flags = O_NONBLOCK;
  next.mq_curmsgs = 77;
  memset(&old, 0xff, sizeof(old));
  ASSERT_OK(mq_setattr(q, &next, &old));
  EXPECT_EQ(old.mq_flags, 0);
  EXPECT_EQ(old.mq_maxmsg, kMessages);
  EXPECT_EQ(old.mq_msgsize, static_cast<long>(kSize));
  EXPECT_EQ(old.mq_curmsgs, 1);
  mq_attr now{};
  ASSERT_OK(mq_getattr(q, &now));
  EXPECT_EQ(now.mq_flags, O_NONBLOCK);
  EXPECT_EQ(now.mq_maxmsg, kMessages);
  EXPECT_EQ(now.mq_msgsize, static_cast<long>(kSize));
  EXPECT_EQ(now.mq_curmsgs, 1);
  EXPECT_RETURNS(fcntl(q, F_GETFL), O_RDWR | O_NONBLOCK);
  EXPECT_EQ(Receive(q), "0:a");
  EXPECT_EQ(Receive(q), "EAGAIN");
  next.mq_flags = 0;
  ASSERT_OK(mq_setattr(q, &next, nullptr));
  EXPECT_RETURNS(fcntl(q, F_GETFL), O_RDWR);
  // Other descriptions of the queue have flags of their own.
  EXPECT_RETURNS(fcntl(q_, F_GETFL), O_RDWR | O_NONBLOCK);
}

TEST_F(PosixQueue, ErrorsOfGetsetattr) {
  mq_attr next{};
  next.mq_flags = O_NONBLOCK | O_APPEND;
  EXPECT_ERRNO(RawGetsetattr(q_, &next, nullptr), EINVAL);
  next.mq_flags = -1;
  EXPECT_ERRNO(RawGetsetattr(999, &next, nullptr), EINVAL);
  EXPECT_ERRNO(RawGetsetattr(q_, kBad, nullptr), EFAULT);
  EXPECT_ERRNO(RawGetsetattr(q_, nullptr, kBadOut), EFAULT);
  EXPECT_OK(RawGetsetattr(q_, nullptr, nullptr));
  long old[8];
  memset(old, 0xff, sizeof(old));
  EXPECT_OK(RawGetsetattr(q_, nullptr, old));
  EXPECT_THAT(old, ::testing::ElementsAre(O_NONBLOCK, kMessages, static_cast<long>(kSize), 0, 0, 0, 0, 0));
}

// poll(2) and its kin

short Poll(mqd_t q, int timeout = 0) {
  pollfd p{.fd = q, .events = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM, .revents = 0};
  EXPECT_OK(poll(&p, 1, timeout));
  return p.revents;
}

TEST_F(PosixQueue, PollSaysWhatCanBeDone) {
  EXPECT_EQ(Poll(q_), POLLOUT | POLLWRNORM);
  EXPECT_OK(Send(q_, "a"));
  EXPECT_EQ(Poll(q_), POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
  while (Send(q_, "a") == 0) {
  }
  EXPECT_EQ(Poll(q_), POLLIN | POLLRDNORM);
  fd_set in, out;
  FD_ZERO(&in);
  FD_ZERO(&out);
  FD_SET(q_, &in);
  FD_SET(q_, &out);
  timeval zero{};
  EXPECT_RETURNS(select(q_ + 1, &in, &out, nullptr, &zero), 1);
  EXPECT_TRUE(FD_ISSET(q_, &in));
}

TEST_F(PosixQueue, PollAndEpollWake) {
  const int epoll = epoll_create1(0);
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = 5}};
  ASSERT_OK(epoll_ctl(epoll, EPOLL_CTL_ADD, q_, &event));
  EXPECT_RETURNS(epoll_wait(epoll, &event, 1, 0), 0);
  std::atomic<pid_t> tid{0};
  std::thread waiting([&] {
    tid = gettid();
    pollfd p{.fd = q_, .events = POLLIN, .revents = 0};
    EXPECT_RETURNS(poll(&p, 1, 10'000), 1);
    EXPECT_EQ(p.revents, POLLIN);
  });
  WaitUntil([&] { return tid != 0; });
  ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
  EXPECT_OK(Send(q_, "a"));
  waiting.join();
  EXPECT_RETURNS(epoll_wait(epoll, &event, 1, 10'000), 1);
  EXPECT_EQ(event.data.u64, 5u);
  EXPECT_RETURNS(epoll_wait(epoll, &event, 1, 0), 0);
  while (Send(q_, "a") == 0) {
  }
  tid = 0;
  std::thread room([&] {
    tid = gettid();
    pollfd p{.fd = q_, .events = POLLOUT, .revents = 0};
    EXPECT_RETURNS(poll(&p, 1, 10'000), 1);
    EXPECT_EQ(p.revents, POLLOUT);
  });
  WaitUntil([&] { return tid != 0; });
  ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
  EXPECT_EQ(Receive(q_), "0:a");
  room.join();
}

// mq_notify(3)

sigevent SignalEvent(int signal, int value = 0) {
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = signal;
  event.sigev_value.sival_int = value;
  return event;
}

// What comes of the blocked signal within a while; si_signo 0 if nothing does.
siginfo_t Take(int signal, int ms) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  siginfo_t info{};
  const timespec wait{.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1'000'000L};
  if (sigtimedwait(&set, &info, &wait) < 0) info.si_signo = 0;
  return info;
}

void Block(int signal) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  ASSERT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
}

TEST_F(PosixQueue, ASignalTellsOfTheFirstMessage) {
  Block(SIGRTMIN);
  const sigevent event = SignalEvent(SIGRTMIN, 1234);
  ASSERT_OK(mq_notify(q_, &event));
  pid_t child = 0;
  ASSERT_OK(child = Spawn([&] {
              EXPECT_OK(setresuid(kSomebody, 0, 0));
              EXPECT_OK(Send(q_, "a"));
              return 0;
            }));
  const siginfo_t info = Take(SIGRTMIN, 10'000);
  EXPECT_EQ(WaitFor(child), 0);
  EXPECT_EQ(info.si_signo, SIGRTMIN);
  EXPECT_EQ(info.si_code, SI_MESGQ);
  EXPECT_EQ(info.si_value.sival_int, 1234);
  EXPECT_EQ(info.si_pid, child);
  EXPECT_EQ(info.si_uid, kSomebody);
  EXPECT_EQ(Receive(q_), "0:a");
  // Once.
  EXPECT_OK(Send(q_, "b"));
  EXPECT_EQ(Take(SIGRTMIN, 0).si_signo, 0);
  // Not of one that came to others.
  ASSERT_OK(mq_notify(q_, &event));
  EXPECT_OK(Send(q_, "c"));
  EXPECT_EQ(Take(SIGRTMIN, 0).si_signo, 0);
  EXPECT_EQ(Receive(q_), "0:b");
  EXPECT_EQ(Receive(q_), "0:c");
  EXPECT_OK(Send(q_, "d"));
  EXPECT_EQ(Take(SIGRTMIN, 0).si_signo, SIGRTMIN);
}

TEST_F(PosixQueue, WhoWaitsComesBeforeTheSignal) {
  Block(SIGRTMIN);
  const mqd_t q = Waiting();
  const sigevent event = SignalEvent(SIGRTMIN);
  ASSERT_OK(mq_notify(q_, &event));
  std::atomic<pid_t> tid{0};
  std::thread receiver([&] {
    tid = gettid();
    EXPECT_EQ(Receive(q), "0:a");
  });
  WaitUntil([&] { return tid != 0; });
  ASSERT_TRUE(WaitUntilAsleep(getpid(), tid));
  EXPECT_OK(Send(q_, "a"));
  receiver.join();
  EXPECT_EQ(Take(SIGRTMIN, 0).si_signo, 0);
  EXPECT_ERRNO(mq_notify(q_, &event), EBUSY);
  EXPECT_OK(Send(q_, "b"));
  EXPECT_EQ(Take(SIGRTMIN, 0).si_signo, SIGRTMIN);
}

TEST_F(PosixQueue, OneProcessIsNotified) {
  const sigevent event = SignalEvent(SIGRTMIN);
  ASSERT_OK(mq_notify(q_, &event));
  EXPECT_ERRNO(mq_notify(q_, &event), EBUSY);
  EXPECT_EQ(RunChild([&] {
              EXPECT_ERRNO(mq_notify(q_, &event), EBUSY);
              // Not its own, and its descriptors neither.
              EXPECT_OK(mq_notify(q_, nullptr));
              EXPECT_OK(mq_close(q_));
              return 0;
            }),
            0);
  EXPECT_ERRNO(mq_notify(q_, &event), EBUSY);
  EXPECT_OK(mq_notify(q_, nullptr));
  EXPECT_OK(mq_notify(q_, nullptr));
  EXPECT_OK(mq_notify(q_, &event));
  // Any descriptor of the queue that the process closes takes it back.
  close(Waiting());
  EXPECT_OK(mq_notify(q_, &event));
  close(dup(q_));
  EXPECT_OK(mq_notify(q_, &event));
}

TEST_F(PosixQueue, WhoEndsIsNoLongerNotified) {
  const sigevent event = SignalEvent(SIGRTMIN);
  Held child([&] { EXPECT_OK(mq_notify(q_, &event)); });
  EXPECT_ERRNO(mq_notify(q_, &event), EBUSY);
  char expected[100];
  snprintf(expected, sizeof(expected), "QSIZE:0          NOTIFY:0     SIGNO:%-5d NOTIFY_PID:%-6d\n", SIGRTMIN,
           child.pid());
  EXPECT_EQ(Line(q_), expected);
  child.End();
  EXPECT_OK(mq_notify(q_, &event));
}

// The program that follows does not know of it: with a descriptor that stays open, too.
TEST_F(PosixQueue, ANewProgramIsNotNotified) {
  for (bool stays : {false, true}) {
    const sigevent event = SignalEvent(SIGTERM);
    int in[2], out[2];
    ASSERT_OK(pipe(in));
    ASSERT_OK(pipe(out));
    const pid_t child = Spawn([&] {
      EXPECT_OK(fcntl(q_, F_SETFD, stays ? 0 : FD_CLOEXEC));
      EXPECT_OK(mq_notify(q_, &event));
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      close(in[1]);
      execl("/bin/cat", "cat", nullptr);
      return 1;
    });
    char c = 0;
    ASSERT_RETURNS(write(in[1], "x", 1), 1);
    ASSERT_RETURNS(read(out[0], &c, 1), 1);
    // It runs.
    if (stays) {
      EXPECT_ERRNO(mq_notify(q_, &event), EBUSY);
    } else {
      EXPECT_OK(mq_notify(q_, &event));
      EXPECT_OK(mq_notify(q_, nullptr));
    }
    EXPECT_OK(Send(q_, "a"));
    EXPECT_EQ(Receive(q_), "0:a");
    close(in[1]);
    EXPECT_EQ(WaitFor(child), 0) << "and no signal has ended it";
    for (int fd : {in[0], out[0], out[1]}) close(fd);
  }
}

TEST_F(PosixQueue, NothingIsDoneForSigevNone) {
  sigevent event{};
  event.sigev_notify = SIGEV_NONE;
  ASSERT_OK(mq_notify(q_, &event));
  EXPECT_ERRNO(mq_notify(q_, &event), EBUSY);
  EXPECT_OK(Send(q_, "a"));
  EXPECT_OK(mq_notify(q_, &event));
  // Nor for the signal that there is not.
  EXPECT_OK(mq_notify(q_, nullptr));
  EXPECT_EQ(Receive(q_), "0:a");
  event = SignalEvent(0);
  EXPECT_OK(mq_notify(q_, &event));
  EXPECT_OK(Send(q_, "b"));
  EXPECT_OK(mq_notify(q_, &event));
}

TEST_F(PosixQueue, ErrorsOfNotify) {
  sigevent event = SignalEvent(65);
  EXPECT_ERRNO(RawNotify(q_, &event), EINVAL);
  event.sigev_signo = -1;
  EXPECT_ERRNO(RawNotify(q_, &event), EINVAL);
  event = SignalEvent(64);
  event.sigev_notify = 3;
  EXPECT_ERRNO(RawNotify(q_, &event), EINVAL);
  event.sigev_notify = SIGEV_THREAD_ID;
  EXPECT_ERRNO(RawNotify(q_, &event), EINVAL);
  event = SignalEvent(64);
  EXPECT_ERRNO(RawNotify(999, &event), EBADF);
  EXPECT_ERRNO(RawNotify(STDIN_FILENO, &event), EBADF);
  EXPECT_ERRNO(RawNotify(q_, kBad), EFAULT);
  EXPECT_OK(RawNotify(q_, &event));
}

sigevent CookieEvent(int socket, const void* cookie) {
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD;
  event.sigev_signo = socket;
  event.sigev_value.sival_ptr = const_cast<void*>(cookie);
  return event;
}

TEST_F(PosixQueue, ACookieOnANetlinkSocket) {
  std::array<char, 32> cookie, got;
  for (size_t i = 0; i < cookie.size(); i++) cookie[i] = static_cast<char>(i + 100);
  const int socket = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
  ASSERT_OK(socket);
  const sigevent event = CookieEvent(socket, cookie.data());
  ASSERT_OK(RawNotify(q_, &event));
  char expected[100];
  snprintf(expected, sizeof(expected), "QSIZE:0          NOTIFY:2     SIGNO:0     NOTIFY_PID:%-6d\n", getpid());
  EXPECT_EQ(Line(q_), expected);
  EXPECT_ERRNO(recv(socket, got.data(), got.size(), MSG_DONTWAIT), EAGAIN);
  EXPECT_OK(Send(q_, "a"));
  sockaddr_nl from{};
  socklen_t length = sizeof(from);
  ASSERT_RETURNS(recvfrom(socket, got.data(), got.size(), 0, reinterpret_cast<sockaddr*>(&from), &length), 32);
  EXPECT_EQ(from.nl_family, AF_NETLINK);
  EXPECT_EQ(from.nl_pid, 0u);
  cookie[31] = 1;  // NOTIFY_WOKENUP
  EXPECT_EQ(got, cookie);
  // Taken back: by the call, and by closing the queue.
  for (bool closes : {false, true}) {
    ASSERT_OK(RawNotify(q_, &event));
    if (closes) {
      close(dup(q_));
    } else {
      ASSERT_OK(RawNotify(q_, nullptr));
    }
    ASSERT_RETURNS(recv(socket, got.data(), got.size(), 0), 32);
    cookie[31] = 2;  // NOTIFY_REMOVED
    EXPECT_EQ(got, cookie);
  }
  EXPECT_ERRNO(recv(socket, got.data(), got.size(), MSG_DONTWAIT), EAGAIN);
  // A socket that has gone hears nothing, and nobody minds.
  EXPECT_EQ(Receive(q_), "0:a");
  ASSERT_OK(RawNotify(q_, &event));
  close(socket);
  EXPECT_OK(Send(q_, "b"));
}

TEST_F(PosixQueue, ErrorsOfCookies) {
  const std::array<char, 32> cookie{};
  int pair[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  const int socket = ::socket(AF_NETLINK, SOCK_RAW, 0);
  auto notify = [&](int fd, int with, const void* from) {
    const sigevent event = CookieEvent(with, from);
    return RawNotify(fd, &event);
  };
  EXPECT_ERRNO(notify(q_, socket, kBad), EFAULT);
  EXPECT_ERRNO(notify(q_, 999, cookie.data()), EBADF);
  EXPECT_ERRNO(notify(q_, q_, cookie.data()), ENOTSOCK);
  EXPECT_ERRNO(notify(q_, pair[0], cookie.data()), EINVAL);
  EXPECT_ERRNO(notify(999, socket, cookie.data()), EBADF);
  EXPECT_OK(notify(q_, socket, cookie.data()));
  EXPECT_ERRNO(notify(q_, socket, cookie.data()), EBUSY);
}

// The library's helper thread, its socket and its cookies.
TEST_F(PosixQueue, AThreadIsStarted) {
  struct Call {
    mqd_t q;
    sem_t done;
    std::string received;
    pid_t tid;
  } call{.q = q_, .done = {}, .received = {}, .tid = 0};
  ASSERT_OK(sem_init(&call.done, 0, 0));
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD;
  event.sigev_value.sival_ptr = &call;
  event.sigev_notify_function = [](sigval value) {
    Call& c = *static_cast<Call*>(value.sival_ptr);
    c.received = Receive(c.q);
    c.tid = gettid();
    sem_post(&c.done);
  };
  for (const char* text : {"first", "second", "third"}) {
    ASSERT_OK(mq_notify(q_, &event));
    EXPECT_ERRNO(mq_notify(q_, &event), EBUSY);
    EXPECT_OK(Send(q_, text, 2));
    const timespec until = After(10'000);
    ASSERT_OK(sem_timedwait(&call.done, &until));
    EXPECT_EQ(call.received, std::string("2:") + text);
    EXPECT_NE(call.tid, gettid());
  }
  // One that is taken back, and the next one works.
  ASSERT_OK(mq_notify(q_, &event));
  ASSERT_OK(mq_notify(q_, nullptr));
  EXPECT_OK(Send(q_, "unheard"));
  EXPECT_EQ(Receive(q_), "0:unheard");
  ASSERT_OK(mq_notify(q_, &event));
  EXPECT_OK(Send(q_, "heard"));
  const timespec until = After(10'000);
  ASSERT_OK(sem_timedwait(&call.done, &until));
  EXPECT_EQ(call.received, "0:heard");
  EXPECT_ERRNO(sem_trywait(&call.done), EAGAIN);
}

// Bounds

// getrlimit(2): bytes of a queue.
rlim_t Counted(long messages, long size) {
  return static_cast<rlim_t>(messages * 48 + std::min(messages, 32768L) * 48 + messages * size);
}

// Runs `body` as a user whom no other test knows.
int RunAsSomebody(const std::function<void()>& body) {
  return RunChild([&] {
    EXPECT_OK(setgid(kSomebody));
    EXPECT_OK(setuid(kSomebody));
    body();
    return 0;
  });
}

TEST_F(PosixQueue, BytesOfAUserAreLimited) {
  EXPECT_EQ(RunAsSomebody([&] {
              mq_attr attr = Attr(7, 100);
              const rlim_t one = Counted(7, 100);
              rlimit limit{.rlim_cur = one - 1, .rlim_max = 819200};
              ASSERT_OK(setrlimit(RLIMIT_MSGQUEUE, &limit));
              EXPECT_ERRNO(mq_open(Other(), O_CREAT | O_RDWR, 0600, &attr), EMFILE);
              EXPECT_ERRNO(mq_open(Other(), O_RDWR), ENOENT);
              limit.rlim_cur = one;
              ASSERT_OK(setrlimit(RLIMIT_MSGQUEUE, &limit));
              const mqd_t q = mq_open(Other(), O_CREAT | O_RDWR, 0600, &attr);
              ASSERT_OK(q);
              const std::string second = other_ + "2";
              EXPECT_ERRNO(mq_open(second.c_str(), O_CREAT | O_RDWR, 0600, &attr), EMFILE);
              // Until it has gone: the name and the last descriptor.
              ASSERT_OK(mq_unlink(other_.c_str()));
              EXPECT_ERRNO(mq_open(second.c_str(), O_CREAT | O_RDWR, 0600, &attr), EMFILE);
              ASSERT_OK(mq_close(q));
              ASSERT_OK(mq_open(second.c_str(), O_CREAT | O_RDWR, 0600, &attr));
              ASSERT_OK(mq_unlink(second.c_str()));
            }),
            0);
}

// The settings are an IPC namespace's, so natively those of one that ends with the test.
class Setting final {
 public:
  Setting(const char* name, const char* value)
      : path_("/proc/sys/fs/mqueue/" + std::string(name)), old_(ReadAll(path_)) {
    Write(value);
  }
  ~Setting() { Write(old_); }
  std::string Get() const { return ReadAll(path_); }
  bool Write(const std::string& value) {
    const int fd = open(path_.c_str(), O_WRONLY);
    EXPECT_OK(fd);
    const bool written = write(fd, value.data(), value.size()) == static_cast<ssize_t>(value.size());
    close(fd);
    return written;
  }

 private:
  const std::string path_, old_;
};

TEST_F(PosixQueue, SettingsAreObeyed) {
  LeaveIpcNamespace();
  struct stat st{};
  ASSERT_OK(stat("/proc/sys/fs/mqueue/msg_max", &st));
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0644));
  Setting messages("msg_max", "20"), size("msgsize_max", "9000"), usual("msg_default", "5"),
      usual_size("msgsize_default", "500");
  EXPECT_EQ(messages.Get(), "20\n");
  for (const char* bad : {"0", "65537", "-1", "x"}) EXPECT_FALSE(messages.Write(bad)) << bad;
  for (const char* bad : {"127", "16777217"}) EXPECT_FALSE(size.Write(bad)) << bad;
  EXPECT_EQ(RunAsSomebody([&] {
              mq_attr attr = Attr(20, 9000);
              const mqd_t q = mq_open(Other(), O_CREAT | O_RDWR, 0600, &attr);
              EXPECT_OK(q);
              EXPECT_OK(mq_unlink(Other()));
              attr = Attr(21, 1);
              EXPECT_ERRNO(mq_open(Other(), O_CREAT | O_RDWR, 0600, &attr), EINVAL);
              attr = Attr(1, 9001);
              EXPECT_ERRNO(mq_open(Other(), O_CREAT | O_RDWR, 0600, &attr), EINVAL);
              const mqd_t standard = mq_open(Other(), O_CREAT | O_RDWR, 0600, nullptr);
              ASSERT_OK(standard);
              EXPECT_OK(mq_getattr(standard, &attr));
              EXPECT_EQ(attr.mq_maxmsg, 5);
              EXPECT_EQ(attr.mq_msgsize, 500);
              EXPECT_OK(mq_unlink(Other()));
            }),
            0);
  // A default above what is allowed is what is allowed.
  ASSERT_TRUE(messages.Write("3"));
  EXPECT_EQ(RunAsSomebody([&] {
              mq_attr attr{};
              ASSERT_OK(mq_getattr(mq_open(Other(), O_CREAT | O_RDWR, 0600, nullptr), &attr));
              EXPECT_EQ(attr.mq_maxmsg, 3);
              EXPECT_OK(mq_unlink(Other()));
            }),
            0);
}

TEST_F(PosixQueue, QueuesInAllAreLimited) {
  LeaveIpcNamespace();
  ASSERT_OK(mq_close(q_));
  const mqd_t one = mq_open(name_.c_str(), O_CREAT | O_RDWR, 0600, nullptr);
  ASSERT_OK(one);
  Setting queues("queues_max", "1");
  EXPECT_EQ(RunAsSomebody([&] { EXPECT_ERRNO(mq_open(Other(), O_CREAT | O_RDWR, 0600, nullptr), ENOSPC); }), 0);
  ASSERT_TRUE(queues.Write("2"));
  EXPECT_EQ(RunAsSomebody([&] {
              EXPECT_OK(mq_open(Other(), O_CREAT | O_RDWR, 0600, nullptr));
              EXPECT_OK(mq_unlink(Other()));
            }),
            0);
}

// The file system

class MqueueMount : public PosixQueue {
 protected:
  void SetUp() override {
    PosixQueue::SetUp();
    ASSERT_OK(unshare(CLONE_NEWNS));
    ASSERT_OK(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
    at_ = dir_.Dir("mqueue");
    ASSERT_OK(mount("none", at_.c_str(), "mqueue", 0, nullptr));
  }
  void TearDown() override {
    umount2(at_.c_str(), MNT_DETACH);
    PosixQueue::TearDown();
  }
  std::string Path() const { return at_ + name_; }

  TempDir dir_;
  std::string at_;
};

TEST_F(MqueueMount, QueuesAreFiles) {
  struct stat st{};
  ASSERT_OK(stat(at_.c_str(), &st));
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFDIR | 01777));
  ASSERT_OK(stat(Path().c_str(), &st));
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0600));
  struct stat same{};
  ASSERT_OK(fstat(q_, &same));
  EXPECT_EQ(st.st_ino, same.st_ino);
  EXPECT_EQ(st.st_dev, same.st_dev);
  struct statfs fs{};
  ASSERT_OK(statfs(at_.c_str(), &fs));
  EXPECT_EQ(fs.f_type, 0x19800202);
  EXPECT_OK(Send(q_, "abc"));
  EXPECT_EQ(ReadAll(Path()), "QSIZE:3          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
  EXPECT_ERRNO(mount("none", at_.c_str(), "mqueue", 0, "no=option"), EINVAL);
  EXPECT_THAT(ReadAll("/proc/filesystems"), ::testing::HasSubstr("nodev\tmqueue\n"));
  EXPECT_THAT(ReadAll("/proc/self/mounts"), ::testing::HasSubstr("none " + at_ + " mqueue rw"));
}

TEST_F(MqueueMount, ListMakeAndRemove) {
  const std::string made = at_ + Other();
  umask(0);
  const int fd = open(made.c_str(), O_CREAT | O_EXCL | O_RDWR, 0640);
  ASSERT_OK(fd);
  // It is a queue as any other.
  mq_attr attr{};
  EXPECT_OK(mq_getattr(fd, &attr));
  EXPECT_OK(mq_send(fd, "a", 1, 0));
  const mqd_t again = mq_open(Other(), O_RDWR | O_NONBLOCK);
  ASSERT_OK(again);
  std::vector<char> text(static_cast<size_t>(attr.mq_msgsize));
  EXPECT_RETURNS(mq_receive(again, text.data(), text.size(), nullptr), 1);
  std::string list;
  FILE* ls = popen(("ls " + at_).c_str(), "r");
  for (int c = 0; (c = fgetc(ls)) != EOF;) list += static_cast<char>(c);
  EXPECT_EQ(pclose(ls), 0);
  EXPECT_THAT(list, ::testing::HasSubstr(Raw() + std::string("\n") + (Other() + 1) + "\n"));
  EXPECT_OK(unlink(made.c_str()));
  EXPECT_ERRNO(mq_open(Other(), O_RDWR), ENOENT);
  EXPECT_ERRNO(unlink(made.c_str()), ENOENT);
  EXPECT_OK(mq_unlink(name_.c_str()));
  EXPECT_ERRNO(open(Path().c_str(), O_RDONLY), ENOENT);
  EXPECT_OK(mknod(made.c_str(), S_IFREG | 0600, 0));
  EXPECT_OK(mq_open(Other(), O_RDWR));
}

TEST_F(MqueueMount, OtherKindsOfFilesCannotBe) {
  const std::string other = at_ + Other();
  EXPECT_ERRNO(mkdir(other.c_str(), 0700), EPERM);
  EXPECT_ERRNO(symlink("a", other.c_str()), EPERM);
  EXPECT_ERRNO(mknod(other.c_str(), S_IFIFO | 0600, 0), EPERM);
  EXPECT_ERRNO(link(Path().c_str(), other.c_str()), EPERM);
  EXPECT_ERRNO(rename(Path().c_str(), other.c_str()), EPERM);
  EXPECT_ERRNO(rmdir(Path().c_str()), ENOTDIR);
  EXPECT_ERRNO(open(at_.c_str(), O_TMPFILE | O_RDWR, 0600), EOPNOTSUPP);
}

TEST_F(MqueueMount, OwnerModeAndTimesChange) {
  EXPECT_OK(chmod(Path().c_str(), 0644));
  EXPECT_OK(chown(Path().c_str(), kSomebody, 7));
  struct stat st{};
  ASSERT_OK(fstat(q_, &st));
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0644));
  EXPECT_EQ(st.st_uid, kSomebody);
  EXPECT_EQ(st.st_gid, 7u);
  const timespec times[2] = {{.tv_sec = 100, .tv_nsec = 0}, {.tv_sec = 200, .tv_nsec = 0}};
  ASSERT_OK(utimensat(AT_FDCWD, Path().c_str(), times, 0));
  ASSERT_OK(fstat(q_, &st));
  EXPECT_EQ(st.st_mtime, 200);
  EXPECT_OK(Send(q_, "a"));
  ASSERT_OK(fstat(q_, &st));
  EXPECT_GT(st.st_mtime, 200);
  EXPECT_GT(st.st_atime, 200);
  // Redirecting into a queue: what is opened is cut, which means nothing, and nothing can be written.
  const int fd = open(Path().c_str(), O_WRONLY | O_TRUNC);
  ASSERT_OK(fd);
  EXPECT_ERRNO(write(fd, "x", 1), EINVAL);
  EXPECT_EQ(Receive(q_), "0:a");
}

}  // namespace
}  // namespace redoubt::testing
