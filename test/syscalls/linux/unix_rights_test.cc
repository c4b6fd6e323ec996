// unix(7): descriptors and credentials that come with messages, SO_PEERCRED.
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"
#include "test/syscalls/util/unix_socket.h"

namespace redoubt::testing {
namespace {

class UnixSocket : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Type, UnixSocket, ::testing::Values(SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET), TypeName);

// With connections.
class UnixConnected : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Type, UnixConnected, ::testing::Values(SOCK_STREAM, SOCK_SEQPACKET), TypeName);

// Ancillary data ------------------------------------------------------------------------------------------------------

struct Control {
  int level = 0, type = 0;
  std::string data;
};

ssize_t SendWith(const ScopedFd& s, std::string_view data, const std::vector<Control>& control, int flags = 0) {
  std::vector<char> buffer;
  for (const Control& c : control) {
    size_t at = buffer.size();
    buffer.resize(at + CMSG_SPACE(c.data.size()));
    cmsghdr header{.cmsg_len = CMSG_LEN(c.data.size()), .cmsg_level = c.level, .cmsg_type = c.type};
    std::memcpy(buffer.data() + at, &header, sizeof(header));
    std::memcpy(buffer.data() + at + sizeof(header), c.data.data(), c.data.size());
  }
  iovec v{const_cast<char*>(data.data()), data.size()};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = buffer.empty() ? nullptr : buffer.data();
  m.msg_controllen = buffer.size();
  return sendmsg(s.get(), &m, flags);
}

struct Received {
  ssize_t n = -1;
  int error = 0;
  std::string data;
  int flags = 0;
  std::vector<Control> control;
  // Those of all SCM_RIGHTS; the test's to close.
  std::vector<int> fds() const {
    std::vector<int> all;
    for (const Control& c : control) {
      if (c.level != SOL_SOCKET || c.type != SCM_RIGHTS) continue;
      size_t at = all.size();
      all.resize(at + c.data.size() / sizeof(int));
      std::memcpy(all.data() + at, c.data.data(), c.data.size());
    }
    return all;
  }
  std::vector<ucred> creds() const {
    std::vector<ucred> all;
    for (const Control& c : control) {
      if (c.level != SOL_SOCKET || c.type != SCM_CREDENTIALS || c.data.size() != sizeof(ucred)) continue;
      std::memcpy(&all.emplace_back(), c.data.data(), sizeof(ucred));
    }
    return all;
  }
};

Received RecvWith(const ScopedFd& s, int flags = 0, size_t control_room = 4096, size_t room = 4096) {
  Received r;
  std::vector<char> buffer(control_room);
  r.data.resize(room);
  iovec v{r.data.data(), room};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = control_room > 0 ? buffer.data() : nullptr;
  m.msg_controllen = control_room;
  r.n = recvmsg(s.get(), &m, flags);
  if (r.n < 0) {
    r.error = errno;
    return r;
  }
  r.data.resize(static_cast<size_t>(r.n));
  r.flags = m.msg_flags;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    r.control.push_back(
        {c->cmsg_level, c->cmsg_type, std::string(reinterpret_cast<char*>(CMSG_DATA(c)), c->cmsg_len - CMSG_LEN(0))});
  }
  return r;
}

Control Rights(std::initializer_list<int> fds) {
  return {SOL_SOCKET, SCM_RIGHTS, std::string(reinterpret_cast<const char*>(std::data(fds)), fds.size() * sizeof(int))};
}
Control Credentials(pid_t pid, uid_t uid, gid_t gid) {
  ucred c{pid, uid, gid};
  return {SOL_SOCKET, SCM_CREDENTIALS, std::string(reinterpret_cast<char*>(&c), sizeof(c))};
}

TEST_P(UnixSocket, RightsPassOpenFiles) {
  TempDir dir;
  ScopedFd file = dir.Open("f", "0123456789");
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({file.get()})}), 1);
  ASSERT_OK(lseek(file.get(), 4, SEEK_SET));
  file.reset();
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.data, "x");
  EXPECT_EQ(r.flags & MSG_CTRUNC, 0);
  ASSERT_EQ(r.fds().size(), 1u);
  ScopedFd got(r.fds()[0]);
  char c[2];
  EXPECT_RETURNS(read(got.get(), c, 2), 2);  // the description is the same, so is the offset
  EXPECT_EQ(std::string_view(c, 2), "45");
  EXPECT_RETURNS(fcntl(got.get(), F_GETFD), 0);
}

TEST_P(UnixSocket, RightsOfTwoPartsAndManyFilesArriveTogether) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({0, 1}), Rights({2})}), 1);
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.control.size(), 1u);
  EXPECT_EQ(r.fds().size(), 3u);
}

TEST_P(UnixSocket, CmsgCloexecIsApplied) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({0})}), 1);
  Received r = RecvWith(p.b, MSG_CMSG_CLOEXEC);
  ASSERT_EQ(r.fds().size(), 1u);
  EXPECT_RETURNS(fcntl(r.fds()[0], F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(r.flags & MSG_CMSG_CLOEXEC, MSG_CMSG_CLOEXEC);
}

TEST_P(UnixSocket, RightsReachOtherProcesses) {
  Pair p(GetParam());
  int pipe_fds[2];
  ASSERT_OK(pipe(pipe_fds));
  EXPECT_EQ(RunChild([&] {
              int mine[2];
              EXPECT_OK(pipe(mine));
              EXPECT_RETURNS(write(mine[1], "hello", 5), 5);
              EXPECT_RETURNS(SendWith(p.a, "x", {Rights({mine[0]})}), 1);
              return 0;
            }),
            0);
  Received r = RecvWith(p.b);
  ASSERT_EQ(r.fds().size(), 1u);
  char data[8];
  EXPECT_RETURNS(read(r.fds()[0], data, 8), 5);
}

TEST_P(UnixSocket, TooLittleRoomCutsRights) {
  for (auto [room, count] : {std::pair{size_t{0}, size_t{0}},
                             {CMSG_LEN(0), size_t{0}},
                             {CMSG_LEN(4), size_t{1}},
                             {CMSG_SPACE(8), size_t{2}}}) {
    Pair p(GetParam());
    int pipe_fds[2];
    ASSERT_OK(pipe(pipe_fds));
    ASSERT_RETURNS(SendWith(p.a, "x", {Rights({pipe_fds[1], pipe_fds[1], pipe_fds[1]})}), 1);
    Received r = RecvWith(p.b, 0, room);
    EXPECT_EQ(r.flags & MSG_CTRUNC, MSG_CTRUNC) << room;
    ASSERT_EQ(r.fds().size(), count) << room;
    for (int fd : r.fds()) close(fd);
    // Those that did not fit are closed.
    close(pipe_fds[1]);
    char c;
    EXPECT_RETURNS(read(pipe_fds[0], &c, 1), 0);
  }
}

TEST_P(UnixSocket, PlainReadsDropRights) {
  Pair p(GetParam());
  int pipe_fds[2];
  ASSERT_OK(pipe(pipe_fds));
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({pipe_fds[1]})}), 1);
  close(pipe_fds[1]);
  char c;
  EXPECT_RETURNS(read(p.b.get(), &c, 1), 1);
  EXPECT_RETURNS(read(pipe_fds[0], &c, 1), 0);
}

TEST_P(UnixSocket, ClosingTheReceiverDropsRights) {
  Pair p(GetParam());
  int pipe_fds[2];
  ASSERT_OK(pipe(pipe_fds));
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({pipe_fds[1]})}), 1);
  close(pipe_fds[1]);
  p.b.reset();
  char c;
  EXPECT_RETURNS(read(pipe_fds[0], &c, 1), 0);
}

TEST_P(UnixSocket, ASocketSentIntoItselfIsCollected) {
  int pipe_fds[2];
  ASSERT_OK(pipe(pipe_fds));
  {
    Pair p(GetParam());
    ASSERT_RETURNS(SendWith(p.a, "x", {Rights({p.b.get(), p.a.get(), pipe_fds[1]})}), 1);
    close(pipe_fds[1]);
  }
  // Linux collects when a socket is closed, and lately from a work queue.
  Pair another(SOCK_STREAM);
  another.a.reset();
  pollfd poll_fd{pipe_fds[0], POLLIN, 0};
  EXPECT_RETURNS(poll(&poll_fd, 1, 5000), 1);
  char c;
  EXPECT_RETURNS(read(pipe_fds[0], &c, 1), 0);
}

TEST_P(UnixSocket, PeekDuplicatesRights) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({0})}), 1);
  EXPECT_EQ(RecvWith(p.b, MSG_PEEK).fds().size(), 1u);
  EXPECT_EQ(RecvWith(p.b).fds().size(), 1u);
}

TEST_P(UnixSocket, RightsErrors) {
  Pair p(GetParam());
  EXPECT_ERRNO(SendWith(p.a, "x", {Rights({-1})}), EBADF);
  EXPECT_ERRNO(SendWith(p.a, "x", {Rights({0, 1 << 20})}), EBADF);
  std::vector<int> many(254, 0);
  Control too_many{SOL_SOCKET, SCM_RIGHTS, std::string(reinterpret_cast<char*>(many.data()), many.size() * 4)};
  EXPECT_ERRNO(SendWith(p.a, "x", {too_many}), EINVAL);  // unix(7): SCM_MAX_FD
  EXPECT_ERRNO(SendWith(p.a, "x", {{SOL_SOCKET, 99, "data"}}), EINVAL);
  EXPECT_EQ(Recv(p.b, MSG_DONTWAIT), "EAGAIN");
}

// Of one user, more than a process may have open: unix(7).
TEST_P(UnixSocket, TooManyFilesInFlightFailWithEtoomanyrefs) {
  EXPECT_EQ(RunAsNobody([&] {
              Pair p(GetParam());
              rlimit limit{10, 10};
              EXPECT_OK(setrlimit(RLIMIT_NOFILE, &limit));
              int sent = 0;
              while (sent < 40 &&
                     SendWith(p.a, "x", {Rights({p.a.get(), p.a.get(), p.a.get(), p.a.get()})}, MSG_DONTWAIT) == 1) {
                sent++;
              }
              EXPECT_EQ(errno, ETOOMANYREFS);
              EXPECT_GE(sent, 2);
              EXPECT_LE(sent, 4);
              // What has been received is in flight no more.
              for (int i = 0; i < sent; i++) RecvWith(p.b, 0, 0);
              EXPECT_RETURNS(SendWith(p.a, "x", {Rights({p.a.get()})}), 1);
            }),
            0);
}

TEST_P(UnixSocket, AsManyAs253FilesPass) {
  Pair p(GetParam());
  std::vector<int> many(253, 0);
  Control control{SOL_SOCKET, SCM_RIGHTS, std::string(reinterpret_cast<char*>(many.data()), many.size() * 4)};
  ASSERT_RETURNS(SendWith(p.a, "x", {control}), 1);
  EXPECT_EQ(RecvWith(p.b).fds().size(), 253u);
}

TEST_P(UnixSocket, ControlErrors) {
  Pair p(GetParam());
  msghdr m{};
  char data = 'x';
  iovec v{&data, 1};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  cmsghdr header{.cmsg_len = 4, .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  m.msg_control = &header;
  m.msg_controllen = sizeof(header);
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), EINVAL);
  header.cmsg_len = 4096;
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), EINVAL);
  m.msg_control = reinterpret_cast<void*>(8);
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), EFAULT);
  m.msg_controllen = size_t{1} << 31;
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), ENOBUFS);
}

TEST_P(UnixSocket, AReceiverOutOfDescriptorsGetsWhatItHasRoomFor) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Rights({0, 0, 0})}), 1);
  int next = dup(0);
  close(next);
  rlimit limit{static_cast<rlim_t>(next) + 1, static_cast<rlim_t>(next) + 1};
  ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.data, "x");
  EXPECT_EQ(r.fds().size(), 1u);
  EXPECT_EQ(r.flags & MSG_CTRUNC, MSG_CTRUNC);
}

TEST(UnixStream, RightsEndWhatOneCallReceives) {
  Pair p(SOCK_STREAM);
  ASSERT_RETURNS(Send(p.a, "ab"), 2);
  ASSERT_RETURNS(SendWith(p.a, "cd", {Rights({0})}), 2);
  ASSERT_RETURNS(Send(p.a, "ef"), 2);
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.data, "abcd");
  EXPECT_EQ(r.fds().size(), 1u);
  EXPECT_EQ(Recv(p.b), "ef");
}

TEST_P(UnixSocket, PasscredDeliversTheSender) {
  Pair p(GetParam());
  SetOption(p.b, SO_PASSCRED, 1);
  EXPECT_EQ(GetOption(p.b, SO_PASSCRED), 1);
  pid_t child = Spawn([&] {
    EXPECT_RETURNS(Send(p.a, "x"), 1);
    return 0;
  });
  EXPECT_EQ(WaitFor(child), 0);
  Received r = RecvWith(p.b);
  ASSERT_EQ(r.creds().size(), 1u);
  EXPECT_EQ(r.creds()[0].pid, child);
  EXPECT_EQ(r.creds()[0].uid, getuid());
  EXPECT_EQ(r.creds()[0].gid, getgid());
}

TEST_P(UnixSocket, WithoutPasscredThereAreNone) {
  Pair p(GetParam());
  ASSERT_RETURNS(SendWith(p.a, "x", {Credentials(getpid(), getuid(), getgid())}), 1);
  EXPECT_TRUE(RecvWith(p.b).control.empty());
}

TEST_P(UnixSocket, TheSuperuserMayNameOthersAsSender) {
  Pair p(GetParam());
  SetOption(p.b, SO_PASSCRED, 1);
  pid_t parent = getppid();
  ASSERT_RETURNS(SendWith(p.a, "x", {Credentials(parent, 5, 6)}), 1);
  Received r = RecvWith(p.b);
  ASSERT_EQ(r.creds().size(), 1u);
  EXPECT_EQ(r.creds()[0].pid, parent);
  EXPECT_EQ(r.creds()[0].uid, 5u);
  EXPECT_EQ(r.creds()[0].gid, 6u);
}

TEST_P(UnixSocket, CredentialsOfNobodyAliveFailWithEsrch) {
  Pair p(GetParam());
  EXPECT_ERRNO(SendWith(p.a, "x", {Credentials(0x3fffffff, 0, 0)}), ESRCH);
  EXPECT_ERRNO(SendWith(p.a, "x", {Credentials(0, 0, 0)}), ESRCH);
}

TEST_P(UnixSocket, CredentialsThatAreNotOnesOwnFailWithEperm) {
  Pair p(GetParam());
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_RETURNS(SendWith(p.a, "x", {Credentials(getpid(), kNobody, kNobody)}), 1);
              EXPECT_ERRNO(SendWith(p.a, "x", {Credentials(getppid(), kNobody, kNobody)}), EPERM);
              EXPECT_ERRNO(SendWith(p.a, "x", {Credentials(getpid(), 0, kNobody)}), EPERM);
              EXPECT_ERRNO(SendWith(p.a, "x", {Credentials(getpid(), kNobody, 0)}), EPERM);
            }),
            0);
  Control cut = Credentials(getpid(), 0, 0);
  cut.data.resize(8);
  EXPECT_ERRNO(SendWith(p.a, "x", {cut}), EINVAL);
}

TEST(UnixStream, BytesOfDifferentSendersDoNotMixWithPasscred) {
  Pair p(SOCK_STREAM);
  SetOption(p.b, SO_PASSCRED, 1);
  ASSERT_RETURNS(Send(p.a, "ab"), 2);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_RETURNS(Send(p.a, "cd"), 2); }), 0);
  Received r = RecvWith(p.b);
  EXPECT_EQ(r.data, "ab");
  r = RecvWith(p.b);
  EXPECT_EQ(r.data, "cd");
  ASSERT_EQ(r.creds().size(), 1u);
  EXPECT_EQ(r.creds()[0].uid, kNobody);
}

TEST_P(UnixSocket, PeercredOfAPairIsTheMaker) {
  Pair p(GetParam());
  ucred c{};
  socklen_t length = sizeof(c);
  ASSERT_OK(getsockopt(p.a.get(), SOL_SOCKET, SO_PEERCRED, &c, &length));
  EXPECT_EQ(length, sizeof(c));
  EXPECT_EQ(c.pid, getpid());
  EXPECT_EQ(c.uid, getuid());
  EXPECT_EQ(c.gid, getgid());
}

TEST_P(UnixConnected, PeercredIsOfConnectAndListen) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a);
  pid_t parent = getpid();
  int ready[2];
  ASSERT_OK(pipe(ready));
  pid_t child = Spawn([&] {
    ScopedFd client = Socket(GetParam());  // made as root
    EXPECT_OK(setresgid(kNobody, kNobody, kNobody));
    EXPECT_OK(setresuid(kNobody, kNobody, kNobody));
    EXPECT_OK(Connect(client, a));
    ucred c{};
    socklen_t length = sizeof(c);
    EXPECT_OK(getsockopt(client.get(), SOL_SOCKET, SO_PEERCRED, &c, &length));
    EXPECT_EQ(c.pid, parent);
    EXPECT_EQ(c.uid, 0u);
    char byte;
    close(ready[1]);
    EXPECT_RETURNS(read(ready[0], &byte, 1), 0);
    return 0;
  });
  ScopedFd server = Accept(listener);
  ucred c{};
  socklen_t length = sizeof(c);
  ASSERT_OK(getsockopt(server.get(), SOL_SOCKET, SO_PEERCRED, &c, &length));
  EXPECT_EQ(c.pid, child);
  EXPECT_EQ(c.uid, kNobody);
  EXPECT_EQ(c.gid, kNobody);
  close(ready[1]);
  EXPECT_EQ(WaitFor(child), 0);
}

}  // namespace
}  // namespace redoubt::testing
