#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "runsc/control/connection.h"
#include "runsc/control/protocol.h"
#include "test/fuzz/rounds.h"

namespace redoubt::control {
namespace {

TEST(Connection, CarriesBytesAndDescriptors) {
  auto [a, b] = *Connection::Pair();
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_TRUE(a.Send("hello", std::vector<int>{null, null}));
  close(null);
  Result<Packet> p = b.Receive();
  ASSERT_TRUE(p);
  EXPECT_EQ(p->bytes, "hello");
  ASSERT_EQ(p->fds.size(), 2u);
  struct stat st{};
  ASSERT_EQ(fstat(p->fds[1].get(), &st), 0);
  EXPECT_TRUE(S_ISCHR(st.st_mode));
  EXPECT_EQ(fcntl(p->fds[0].get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(Connection, CarriesLongMessagesInAFile) {
  auto [a, b] = *Connection::Pair();
  for (size_t size : {size_t{0}, kInlineLimit, kInlineLimit + 1, size_t{5} << 20}) {
    std::string bytes(size, 'x');
    ASSERT_TRUE(a.Send(bytes, std::vector<int>{0}));
    Result<Packet> p = b.Receive();
    ASSERT_TRUE(p) << size;
    EXPECT_EQ(p->bytes, bytes);
    EXPECT_EQ(p->fds.size(), 1u);
  }
  EXPECT_EQ(a.Send(std::string(kMessageLimit + 1, 'x')), Err(E2BIG));
}

TEST(Connection, CarriesLongMessagesInPartsWhereThereAreNoFiles) {
  auto [a, b] = *Connection::Pair();
  pid_t pid = fork();
  if (pid == 0) {
    // As the Sentry's filter does.
    sock_filter program[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                             BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
                             BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                             BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    sock_fprog filter{.len = 4, .filter = program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
      _exit(1);
    std::string bytes;
    for (int i = 0; bytes.size() < 300'000; i++) bytes += std::to_string(i);
    _exit(a.Send(bytes, std::vector<int>{0}) && a.Send("next") ? 0 : 2);
  }
  std::string expected;
  for (int i = 0; expected.size() < 300'000; i++) expected += std::to_string(i);
  Result<Packet> p = b.Receive();
  ASSERT_TRUE(p);
  EXPECT_EQ(p->bytes, expected);
  EXPECT_EQ(p->fds.size(), 1u);
  p = b.Receive();
  ASSERT_TRUE(p);
  EXPECT_EQ(p->bytes, "next");
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Connection, EndsWithThePeer) {
  auto [a, b] = *Connection::Pair();
  {
    Connection gone = std::move(a);
  }
  Result<Packet> p = b.Receive();
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error(), Errno(ENOTCONN));
  EXPECT_EQ(b.Send("x"), Err(EPIPE));
}

TEST(Connection, RefusesWhatIsNoMessage) {
  auto [a, b] = *Connection::Pair();
  auto refused = [&](const std::string& raw) {
    EXPECT_EQ(send(a.fd(), raw.data(), raw.size(), 0), static_cast<ssize_t>(raw.size()));
    Result<Packet> p = b.Receive();
    return !p && p.error() == Errno(EBADMSG);
  };
  EXPECT_TRUE(refused("?"));
  EXPECT_TRUE(refused("f"));
  EXPECT_TRUE(refused(std::string(kInlineLimit + 100, 'i')));
  // A pipe in the file's place must not make the reader wait.
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  char kind = 'f';
  iovec part{&kind, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof(control);
  cmsghdr* h = CMSG_FIRSTHDR(&m);
  h->cmsg_level = SOL_SOCKET;
  h->cmsg_type = SCM_RIGHTS;
  h->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(h), &pipe_fds[0], sizeof(int));
  ASSERT_EQ(sendmsg(a.fd(), &m, 0), 1);
  Result<Packet> p = b.Receive();
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error(), Errno(EBADMSG));
  // Nor may a file that another process serves.
  int served = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(served, 0);
  memcpy(CMSG_DATA(h), &served, sizeof(int));
  ASSERT_EQ(sendmsg(a.fd(), &m, 0), 1);
  p = b.Receive();
  close(served);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error(), Errno(EBADMSG));
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

TEST(Protocol, RoundTrips) {
  Request request{.method = Method::kExec,
                  .container = "c",
                  .pid = 7,
                  .signal = 9,
                  .all = true,
                  .keyboard = true,
                  .attach = true,
                  .start = true,
                  .preserved = 3,
                  .body = std::string("\0\xff", 2)};
  Result<Request> r = ParseRequest(Serialize(request));
  ASSERT_TRUE(r);
  EXPECT_EQ(r->method, Method::kExec);
  EXPECT_EQ(r->container, "c");
  EXPECT_EQ(r->pid, 7);
  EXPECT_EQ(r->preserved, 3u);
  EXPECT_TRUE(r->all && r->keyboard && r->attach && r->start);
  EXPECT_EQ(r->body, request.body);
  Result<Reply> reply = ParseReply(Serialize(Reply{.error = "no", .code = 127, .pid = 1, .status = 256, .body = "b"}));
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->error, "no");
  EXPECT_EQ(reply->code, 127);
  EXPECT_EQ(reply->status, 256);
  Result<std::vector<ProcessInfo>> list =
      ParseProcesses(Serialize(std::vector<ProcessInfo>{{.pid = 2, .state = 'R', .command_line = "\xfe"}}));
  ASSERT_TRUE(list);
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ(list->front().state, 'R');
  EXPECT_EQ(list->front().command_line, "\xfe");
  Result<Stats> stats = ParseStats(Serialize(Stats{.cpu_user_ns = 5, .threads = 8}));
  ASSERT_TRUE(stats);
  EXPECT_EQ(stats->cpu_user_ns, 5u);
  EXPECT_EQ(stats->threads, 8u);
  Result<std::vector<Metric>> metrics = ParseMetrics(Serialize(std::vector<Metric>{{"a", "name", "read", 1.5}, {"b"}}));
  ASSERT_TRUE(metrics);
  ASSERT_EQ(metrics->size(), 2u);
  EXPECT_EQ(metrics->front().label_value, "read");
  EXPECT_EQ(metrics->front().value, 1.5);
}

TEST(Protocol, RefusesBottomlessNesting) {
  for (const char* beginning : {"\x91", "\xdc\xff\xff", "\x81\xa1k"}) {
    std::string bytes;
    for (int i = 0; i < 1'000'000; i++) bytes += beginning;
    EXPECT_FALSE(ParseRequest(bytes));
    EXPECT_FALSE(ParseProcesses(bytes));
  }
}

// Bytes of the other side are hostile: anything parses or is EBADMSG.
TEST(Protocol, SurvivesMutations) {
  const std::string seeds[] = {Serialize(Request{.container = "abc", .body = "some body"}),
                               Serialize(Reply{.error = "abc"}),
                               Serialize(std::vector<ProcessInfo>{{.pid = 1, .command_line = "x"}, {.pid = 2}}),
                               Serialize(Stats{.memory = 1}), Serialize(std::vector<Metric>{{"a", "b", "c", 1}})};
  uint64_t rounds = 0, parsed = 0;
  fuzz::Rounds(20'000, [&](uint64_t seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    rounds++;
    std::string bytes = seeds[seed % 5];
    for (uint32_t n = random() % 4; n-- > 0 && !bytes.empty();) {
      size_t at = random() % bytes.size();
      switch (random() % 3) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes.resize(at);
          break;
        default:
          bytes.insert(at, 1, static_cast<char>(random()));
      }
    }
    parsed += ParseRequest(bytes) ? 1 : 0;
    parsed += ParseReply(bytes) ? 1 : 0;
    parsed += ParseProcesses(bytes) ? 1 : 0;
    parsed += ParseStats(bytes) ? 1 : 0;
    parsed += ParseMetrics(bytes) ? 1 : 0;
  });
  if (rounds > 1000) {
    EXPECT_GT(parsed, rounds / 20);
  }
}

}  // namespace
}  // namespace redoubt::control
