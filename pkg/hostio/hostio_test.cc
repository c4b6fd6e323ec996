#include "pkg/hostio/hostio.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/hostio/ring.h"

namespace redoubt::hostio {
namespace {

std::span<const std::byte> Bytes(const std::string& s) { return std::as_bytes(std::span(s)); }

// The same tests with the ring and without.
class HostIo : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) {
      Result<std::unique_ptr<Ring>> ring = Ring::Create(nullptr);
      ASSERT_TRUE(ring) << "io_uring: " << ring.error().name();
      ring_ = std::move(*ring);
      Install(ring_.get());
    }
    executor_ = fiber::ThreadedExecutor::Create({.slots = 2, .events = ring_.get()});
  }
  void TearDown() override {
    executor_.reset();
    Install(nullptr);
  }
  // In a fiber.
  void Run(std::function<void()> f) {
    executor_->Spawn(std::move(f));
    fiber::Join(*executor_);
  }
  uint64_t submitted() { return ring_ ? ring_->submitted() : 0; }

  std::unique_ptr<Ring> ring_;
  std::unique_ptr<fiber::Executor> executor_;
};
INSTANTIATE_TEST_SUITE_P(All, HostIo, testing::Bool(),
                         [](const auto& info) { return info.param ? "Ring" : "Threads"; });

TEST_P(HostIo, FilesAreReadAndWrittenAtOffsetsAndAtTheirPosition) {
  int fd = memfd_create("hostio", MFD_CLOEXEC);
  ASSERT_GE(fd, 0);
  Run([&] {
    Descriptor d(fd);
    EXPECT_EQ(d.Write(Bytes("hello "), Descriptor::kFilePosition), 6u);
    EXPECT_EQ(d.Write(Bytes("world"), Descriptor::kFilePosition), 5u);
    EXPECT_EQ(d.Write(Bytes("W"), 6), 1u);
    char buffer[32];
    EXPECT_EQ(d.Read(std::as_writable_bytes(std::span(buffer)), 0), 11u);
    EXPECT_EQ(std::string(buffer, 11), "hello World");
    // At the position: the end.
    EXPECT_EQ(d.Read(std::as_writable_bytes(std::span(buffer))), 0u);
    EXPECT_TRUE(d.Sync(false));
    EXPECT_TRUE(d.Sync(true));
  });
  close(fd);
  // Only what waits for the disk is worth a request.
  EXPECT_EQ(submitted(), GetParam() ? 2u : 0u);
}

TEST_P(HostIo, ErrorsAreThoseOfTheCalls) {
  int read_only = open("/dev/null", O_RDONLY | O_CLOEXEC);
  int pipes[2];
  ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
  Run([&] {
    Descriptor d(read_only);
    EXPECT_EQ(d.Write(Bytes("x")), Err(EBADF));
    Descriptor p(pipes[0]);
    EXPECT_EQ(p.Sync(false), Err(EINVAL));
    char c;
    EXPECT_EQ(Receive(-1, std::as_writable_bytes(std::span(&c, 1))), Err(EBADF));
    // Not SIGPIPE.
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    close(pair[1]);
    EXPECT_EQ(Send(pair[0], Bytes("x")), Err(EPIPE));
    EXPECT_EQ(Receive(pair[0], std::as_writable_bytes(std::span(&c, 1))), 0u);
    close(pair[0]);
  });
  close(read_only);
  close(pipes[0]);
  close(pipes[1]);
}

TEST_P(HostIo, SocketsAreSentToAndReceivedFromInFull) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  // More than the socket holds: the sender has to wait.
  const std::string sent(4 << 20, 'x');
  size_t received = 0;
  executor_->Spawn([&] {
    std::span<const std::byte> rest = Bytes(sent);
    while (!rest.empty()) {
      Result<size_t> n = Send(pair[0], rest);
      ASSERT_TRUE(n);
      rest = rest.subspan(*n);
    }
    shutdown(pair[0], SHUT_WR);
  });
  executor_->Spawn([&] {
    char buffer[8192];
    for (;;) {
      Result<size_t> n = Receive(pair[1], std::as_writable_bytes(std::span(buffer)));
      ASSERT_TRUE(n);
      if (*n == 0) break;
      received += *n;
    }
  });
  fiber::Join(*executor_);
  EXPECT_EQ(received, sent.size());
  close(pair[0]);
  close(pair[1]);
}

// Pipes stand for what makes the host wait.
class Waits : public HostIo {
 protected:
  void SetUp() override {
    HostIo::SetUp();
    ASSERT_EQ(pipe2(there_, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(back_, O_CLOEXEC), 0);
  }
  void TearDown() override {
    for (int fd : {there_[0], there_[1], back_[0], back_[1]}) close(fd);
    HostIo::TearDown();
  }
  static Result<size_t> ReadOne(const Descriptor& d, char* c) {
    return d.Read(std::as_writable_bytes(std::span(c, 1)));
  }
  int there_[2], back_[2];
};
INSTANTIATE_TEST_SUITE_P(All, Waits, testing::Bool(), [](const auto& info) { return info.param ? "Ring" : "Threads"; });

// One slot, and a fiber that waits in the host: others run meanwhile.
TEST_P(Waits, AWaitingFiberHoldsNobodyUp) {
  executor_ = fiber::ThreadedExecutor::Create({.slots = 1, .events = ring_.get()});
  char got = 0;
  executor_->Spawn([&] {
    Descriptor d(there_[0]);
    EXPECT_EQ(ReadOne(d, &got), 1u);
  });
  executor_->Spawn([&] {
    for (int i = 0; i < 10; i++) fiber::Yield();
    Descriptor d(there_[1]);
    EXPECT_EQ(d.Write(Bytes("x")), 1u);
  });
  fiber::Join(*executor_);
  EXPECT_EQ(got, 'x');
  EXPECT_EQ(submitted() > 0, GetParam());
}

// Everybody sleeps when the answer comes, from outside.
TEST_P(Waits, AnAnswerWakesASleepingExecutor) {
  constexpr int kRounds = 300;
  executor_->Spawn([&] {
    Descriptor in(there_[0]), out(back_[1]);
    char c = 0;
    for (int i = 0; i < kRounds; i++) {
      EXPECT_EQ(ReadOne(in, &c), 1u);
      EXPECT_EQ(out.Write(std::as_bytes(std::span(&c, 1))), 1u);
    }
  });
  for (int i = 0; i < kRounds; i++) {
    if (i % 10 == 0) usleep(2000);
    char c = static_cast<char>(i), answer = 0;
    ASSERT_EQ(write(there_[1], &c, 1), 1);
    ASSERT_EQ(read(back_[0], &answer, 1), 1);
    ASSERT_EQ(answer, c);
  }
  fiber::Join(*executor_);
}

// Beyond what the ring takes at once, threads wait; nothing is lost.
TEST_P(Waits, MoreRequestsThanTheRingHolds) {
  constexpr int kFibers = Ring::kEntries + 40;
  std::atomic<int> got = 0;
  for (int i = 0; i < kFibers; i++) {
    executor_->Spawn([&] {
      Descriptor d(there_[0]);
      char c;
      for (int n = 0; n < 3; n++) got += ReadOne(d, &c) == 1u;
    });
  }
  const std::string all(kFibers, 'x');
  for (int i = 0; i < 3; i++) {
    usleep(1000);
    ASSERT_EQ(write(there_[1], all.data(), all.size()), kFibers);
  }
  fiber::Join(*executor_);
  EXPECT_EQ(got, 3 * kFibers);
}

// A guest's signal wakes the fiber at any time: it goes on waiting, and the wake is not lost to whoever waits above.
TEST_P(Waits, WakesMeantForOthersAreKept) {
  RefPtr<fiber::Fiber> f = executor_->Spawn([&] {
    Descriptor d(there_[0]);
    char c;
    EXPECT_EQ(ReadOne(d, &c), 1u);
    EXPECT_EQ(fiber::Park(fiber::Now() + 5'000'000'000), fiber::ParkResult::kUnparked);
  });
  usleep(1000);
  f->Unpark();
  usleep(1000);
  ASSERT_EQ(write(there_[1], "x", 1), 1);
  fiber::Join(*executor_);
}

// A thread's requests are cancelled when it ends: idle threads beyond the slots do, after a second.
TEST_P(Waits, TheEndOfTheThreadThatAskedIsNotTheEndOfTheRequest) {
  executor_ = fiber::ThreadedExecutor::Create({.slots = 1, .events = ring_.get()});
  std::atomic<int> inside = 0;
  std::atomic<int> ended = 0;
  // Several threads, each of which makes a request.
  for (int i = 0; i < 6; i++) {
    executor_->Spawn([&] {
      fiber::AtThreadExit([&] { ended++; });
      inside++;
      {
        fiber::BlockingRegion region;
        while (inside < 6) usleep(100);
      }
      Descriptor d(there_[0]);
      char c;
      EXPECT_EQ(ReadOne(d, &c), 1u);
    });
  }
  usleep(2'500'000);
  EXPECT_EQ(ended > 0, GetParam());
  ASSERT_EQ(write(there_[1], "xxxxxx", 6), 6);
  fiber::Join(*executor_);
  executor_.reset();  // before what its threads count in
}

TEST_P(HostIo, OutsideFibersTheCallsArePlain) {
  int fd = memfd_create("hostio", MFD_CLOEXEC);
  {
    Descriptor d(fd);
    EXPECT_EQ(d.Write(Bytes("abc"), 0), 3u);
    EXPECT_TRUE(d.Sync(false));
    EXPECT_EQ(submitted(), 0u);
  }
  close(fd);
}

TEST_P(HostIo, DescriptorsBeyondTheTableWorkToo) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  std::vector<std::unique_ptr<Descriptor>> many;
  int fd = memfd_create("hostio", MFD_CLOEXEC);
  for (unsigned i = 0; i < Ring::kFiles + 5; i++) many.push_back(std::make_unique<Descriptor>(fd));
  Run([&] { EXPECT_TRUE(many.back()->Sync(false)); });
  EXPECT_EQ(submitted(), 0u);
  many.erase(many.begin());
  many.push_back(std::make_unique<Descriptor>(fd));
  Run([&] { EXPECT_TRUE(many.back()->Sync(false)); });
  EXPECT_EQ(submitted(), GetParam() ? 1u : 0u);
  many.clear();
  close(fd);
}

// What the kernel lets the ring do, asked without our code in between.
class Restrictions : public testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<Ring>> ring = Ring::Create(nullptr);
    ASSERT_TRUE(ring) << "io_uring: " << ring.error().name();
    ring_ = std::move(*ring);
  }
  int Submit(std::function<void(io_uring_sqe*)> prepare) {
    io_uring* r = &ring_->raw();
    io_uring_sqe* sqe = io_uring_get_sqe(r);
    prepare(sqe);
    int submitted = io_uring_submit(r);
    if (submitted < 0) return submitted;
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(r, &cqe) != 0) usleep(100);
    int result = cqe->res;
    io_uring_cqe_seen(r, cqe);
    return result;
  }
  std::unique_ptr<Ring> ring_;
};

TEST_F(Restrictions, NothingIsOpenedConnectedOrMadeThroughTheRing) {
  EXPECT_EQ(Submit([](io_uring_sqe* s) { io_uring_prep_openat(s, AT_FDCWD, "/etc/passwd", O_RDONLY, 0); }), -EACCES);
  EXPECT_EQ(Submit([](io_uring_sqe* s) { io_uring_prep_socket(s, AF_INET, SOCK_STREAM, 0, 0); }), -EACCES);
  EXPECT_EQ(Submit([](io_uring_sqe* s) { io_uring_prep_unlinkat(s, AT_FDCWD, "/nonexistent", 0); }), -EACCES);
  EXPECT_EQ(Submit([](io_uring_sqe* s) { io_uring_prep_close(s, 0); }), -EACCES);
  sockaddr address{};
  EXPECT_EQ(Submit([&](io_uring_sqe* s) { io_uring_prep_connect(s, 0, &address, sizeof(address)); }), -EACCES);
  EXPECT_EQ(Submit([](io_uring_sqe* s) { io_uring_prep_nop(s); }), -EACCES);
}

TEST_F(Restrictions, OnlyRegisteredFilesAreReached) {
  int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  char c = 1;
  EXPECT_EQ(Submit([&](io_uring_sqe* s) { io_uring_prep_read(s, fd, &c, 1, 0); }), -EACCES);
  int slot = ring_->Register(fd);
  ASSERT_GE(slot, 0);
  auto read = [&](io_uring_sqe* s) {
    io_uring_prep_read(s, slot, &c, 1, 0);
    s->flags |= IOSQE_FIXED_FILE;
  };
  EXPECT_EQ(Submit(read), 1);
  EXPECT_EQ(c, 0);
  ring_->Unregister(slot);
  EXPECT_EQ(Submit(read), -EBADF);
  close(fd);
}

TEST_F(Restrictions, TheRegistrationOfOtherThingsIsRefused) {
  io_uring* r = &ring_->raw();
  EXPECT_EQ(io_uring_register_personality(r), -EACCES);
  EXPECT_EQ(io_uring_unregister_eventfd(r), -EACCES);
  char buffer[4096];
  iovec iov{buffer, sizeof(buffer)};
  EXPECT_EQ(io_uring_register_buffers(r, &iov, 1), -EACCES);
  io_uring_restriction all{};
  EXPECT_LT(io_uring_register_restrictions(r, &all, 1), 0);
}

// As in a container engine's seccomp profile.
TEST(WithoutIoUring, CreateFailsAndCallsGoOn) {
  pid_t pid = fork();
  if (pid == 0) {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog filter{.len = std::size(program), .filter = program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
      _exit(1);
    Result<std::unique_ptr<Ring>> ring = Ring::Create(nullptr);
    if (ring || ring.error() != Errno(EPERM)) _exit(2);
    auto executor = fiber::ThreadedExecutor::Create({.slots = 1});
    int fd = memfd_create("hostio", MFD_CLOEXEC);
    bool good = false;
    executor->Spawn([&] {
      Descriptor d(fd);
      good = d.Write(Bytes("abc"), 0) == 3u && d.Sync(false).has_value();
    });
    fiber::Join(*executor);
    _exit(good ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace redoubt::hostio
