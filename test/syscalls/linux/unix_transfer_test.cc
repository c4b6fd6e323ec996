// unix(7): send(2), recv(2), sendmmsg(2), recvmmsg(2) and shutdown(2) over datagrams, packets and streams.
#include <fcntl.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <thread>

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

// With messages.
class UnixPacket : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Type, UnixPacket, ::testing::Values(SOCK_DGRAM, SOCK_SEQPACKET), TypeName);

// Datagrams -----------------------------------------------------------------------------------------------------------

TEST(UnixDgram, SendtoReachesANameAndTellsTheSenders) {
  Address a = UniqueAbstract("a"), b = UniqueAbstract("b");
  ScopedFd receiver = Bound(SOCK_DGRAM, a), sender = Bound(SOCK_DGRAM, b), nameless = Socket(SOCK_DGRAM);
  ASSERT_RETURNS(sendto(sender.get(), "one", 3, 0, a.get(), a.length), 3);
  ASSERT_RETURNS(sendto(nameless.get(), "two", 3, 0, a.get(), a.length), 3);
  Address from;
  from.length = sizeof(from.un);
  char data[8];
  EXPECT_RETURNS(recvfrom(receiver.get(), data, 8, 0, reinterpret_cast<sockaddr*>(&from.un), &from.length), 3);
  EXPECT_EQ(from, b);
  from.length = sizeof(from.un);
  EXPECT_RETURNS(recvfrom(receiver.get(), data, 8, 0, reinterpret_cast<sockaddr*>(&from.un), &from.length), 3);
  EXPECT_EQ(from.length, 0u);
}

TEST(UnixDgram, ConnectSetsADefaultWhichUnspecClears) {
  Address a = UniqueAbstract("a"), b = UniqueAbstract("b");
  ScopedFd first = Bound(SOCK_DGRAM, a), second = Bound(SOCK_DGRAM, b), s = Socket(SOCK_DGRAM);
  EXPECT_ERRNO(Send(s, "x"), ENOTCONN);
  ASSERT_OK(Connect(s, a));
  EXPECT_RETURNS(Send(s, "1"), 1);
  ASSERT_OK(Connect(s, b));
  EXPECT_EQ(NameOf(s, getpeername), b);
  EXPECT_RETURNS(Send(s, "2"), 1);
  EXPECT_EQ(Recv(first), "1");
  EXPECT_EQ(Recv(second), "2");
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  ASSERT_OK(connect(s.get(), &none, sizeof(none)));
  EXPECT_ERRNO(Send(s, "x"), ENOTCONN);
}

TEST(UnixDgram, AConnectedReceiverRefusesOthers) {
  Address a = UniqueAbstract("a"), b = UniqueAbstract("b");
  ScopedFd receiver = Bound(SOCK_DGRAM, a), friendly = Bound(SOCK_DGRAM, b), stranger = Socket(SOCK_DGRAM);
  ASSERT_OK(Connect(receiver, b));
  EXPECT_ERRNO(sendto(stranger.get(), "x", 1, 0, a.get(), a.length), EPERM);
  EXPECT_ERRNO(Connect(stranger, a), EPERM);
  EXPECT_RETURNS(sendto(friendly.get(), "x", 1, 0, a.get(), a.length), 1);
}

TEST(UnixDgram, SendErrors) {
  TempDir dir;
  dir.File("file");
  ScopedFd s = Socket(SOCK_DGRAM);
  auto sendto_name = [&](const Address& a) { return sendto(s.get(), "x", 1, 0, a.get(), a.length); };
  EXPECT_ERRNO(sendto_name(At(dir / "none")), ENOENT);
  EXPECT_ERRNO(sendto_name(At(dir / "file")), ECONNREFUSED);
  EXPECT_ERRNO(sendto_name(UniqueAbstract()), ECONNREFUSED);
  ScopedFd stream = Listener(SOCK_STREAM, At(dir / "stream"));
  EXPECT_ERRNO(sendto_name(At(dir / "stream")), EPROTOTYPE);
  Address a = UniqueAbstract();
  EXPECT_ERRNO(sendto(s.get(), "x", 1, 0, a.get(), sizeof(sockaddr_un) + 1), EINVAL);
  EXPECT_ERRNO(sendto(s.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(8), a.length), EFAULT);
  ScopedFd receiver = Bound(SOCK_DGRAM, a);
  EXPECT_ERRNO(sendto(s.get(), reinterpret_cast<void*>(8), 1, 0, a.get(), a.length), EFAULT);
  EXPECT_ERRNO(sendto(s.get(), "x", 1, MSG_OOB, a.get(), a.length), EOPNOTSUPP);
  ASSERT_OK(Connect(s, a));
  receiver.reset();
  EXPECT_ERRNO(Send(s, "x"), ECONNREFUSED);
  EXPECT_ERRNO(Send(s, "x"), ENOTCONN);
}

TEST(UnixDgram, SendtoNeedsWriteAccessToTheNode) {
  TempDir dir;
  Address a = At(dir / "s");
  ScopedFd receiver = Bound(SOCK_DGRAM, a);
  ASSERT_OK(chmod((dir / "s").c_str(), 0755));
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(sendto(Socket(SOCK_DGRAM).get(), "x", 1, 0, a.get(), a.length), EACCES); }),
            0);
}

TEST(UnixDgram, AFullReceiverBlocksItsSenders) {
  Address a = UniqueAbstract();
  ScopedFd receiver = Bound(SOCK_DGRAM, a), s = Socket(SOCK_DGRAM);
  ASSERT_OK(Connect(s, a));
  int sent = 0;
  while (sent < 100000 && Send(s, "x", MSG_DONTWAIT) == 1) sent++;
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GE(sent, 10);
  EXPECT_EQ(PollOne(s, POLLOUT), 0);
  SetTimeout(s, SO_SNDTIMEO, 20);
  EXPECT_ERRNO(Send(s, "x"), EAGAIN);
  SetTimeout(s, SO_SNDTIMEO, 0);
  std::thread reader([&] {
    SleepMs(20);
    for (int i = 0; i < sent; i++) Recv(receiver, MSG_DONTWAIT);
  });
  EXPECT_RETURNS(Send(s, "y"), 1);
  reader.join();
  EXPECT_EQ(PollOne(s, POLLOUT), POLLOUT);
}

TEST_P(UnixPacket, BoundariesArePreserved) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "one"), 3);
  ASSERT_RETURNS(Send(p.a, ""), 0);
  ASSERT_RETURNS(Send(p.a, "three"), 5);
  EXPECT_EQ(Ioctl(p.b, FIONREAD), GetParam() == SOCK_DGRAM ? 3 : 8);
  EXPECT_EQ(Recv(p.b), "one");
  EXPECT_EQ(Recv(p.b), "");
  EXPECT_EQ(Recv(p.b), "three");
}

TEST_P(UnixPacket, WhatDoesNotFitIsLost) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "abcdef"), 6);
  ASSERT_RETURNS(Send(p.a, "ghi"), 3);
  char data[4];
  iovec v{data, 4};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  EXPECT_RETURNS(recvmsg(p.b.get(), &m, 0), 4);
  EXPECT_EQ(m.msg_flags & MSG_TRUNC, MSG_TRUNC);
  EXPECT_EQ(Recv(p.b), "ghi");
}

TEST_P(UnixPacket, MsgTruncReturnsTheRealLength) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "abcdef"), 6);
  char data[2];
  EXPECT_RETURNS(recv(p.b.get(), data, 2, MSG_TRUNC | MSG_PEEK), 6);
  EXPECT_RETURNS(recv(p.b.get(), data, 2, MSG_TRUNC), 6);
  EXPECT_EQ(Recv(p.b, MSG_DONTWAIT), "EAGAIN");
}

TEST_P(UnixPacket, TooLongForTheBufferFailsWithEmsgsize) {
  Pair p(GetParam());
  std::string big(static_cast<size_t>(GetOption(p.a, SO_SNDBUF)), 'x');
  EXPECT_ERRNO(Send(p.a, big), EMSGSIZE);
}

TEST_P(UnixPacket, PacketsOf64KilobytesPass) {
  Pair p(GetParam());
  std::string data(65536, 'd');
  ASSERT_RETURNS(Send(p.a, data), 65536);
  EXPECT_EQ(Recv(p.b, 0, 100000), data);
}

TEST(UnixSeqpacket, AddressesOfSendtoAreIgnoredOnceConnected) {
  Pair p(SOCK_SEQPACKET);
  Address a = UniqueAbstract();
  EXPECT_RETURNS(sendto(p.a.get(), "x", 1, 0, a.get(), a.length), 1);
  EXPECT_EQ(Recv(p.b), "x");
}

// Streams -------------------------------------------------------------------------------------------------------------

TEST(UnixStream, BytesJoinAndSplit) {
  Pair p(SOCK_STREAM);
  ASSERT_RETURNS(Send(p.a, "abc"), 3);
  ASSERT_RETURNS(Send(p.a, "defgh"), 5);
  EXPECT_EQ(Ioctl(p.b, FIONREAD), 8);
  EXPECT_GT(Ioctl(p.a, SIOCOUTQ), 0);
  EXPECT_EQ(Recv(p.b, 0, 4), "abcd");
  EXPECT_EQ(Recv(p.b, 0, 2), "ef");
  EXPECT_EQ(Recv(p.b), "gh");
  EXPECT_EQ(Ioctl(p.a, SIOCOUTQ), 0);
}

TEST(UnixStream, WaitallWaitsForAll) {
  Pair p(SOCK_STREAM);
  std::thread writer([&] {
    Send(p.a, "abc");
    SleepMs(20);
    Send(p.a, "def");
  });
  EXPECT_EQ(Recv(p.b, MSG_WAITALL, 6), "abcdef");
  writer.join();
  Send(p.a, "gh");
  p.a.reset();
  EXPECT_EQ(Recv(p.b, MSG_WAITALL, 6), "gh");
}

TEST(UnixStream, LargeWritesWaitForTheReader) {
  Pair p(SOCK_STREAM);
  std::string data(1 << 20, '\0');
  for (size_t i = 0; i < data.size(); i++) data[i] = static_cast<char>(i * 7 + i / 251);
  std::thread writer([&] { EXPECT_RETURNS(Send(p.a, data), 1 << 20); });
  std::string got;
  while (got.size() < data.size()) {
    std::string piece = Recv(p.b, 0, 70000);
    ASSERT_FALSE(piece.empty());
    got += piece;
  }
  writer.join();
  EXPECT_TRUE(got == data);
}

TEST(UnixStream, AFullBufferFailsWithEagain) {
  Pair p(SOCK_STREAM);
  std::string block(4096, 'x');
  size_t sent = 0;
  while (sent < (64 << 20)) {
    ssize_t n = Send(p.a, block, MSG_DONTWAIT);
    if (n < 0) break;
    sent += static_cast<size_t>(n);
  }
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GE(sent, 4096u);
  EXPECT_EQ(PollOne(p.a, POLLOUT), 0);
  SetTimeout(p.a, SO_SNDTIMEO, 20);
  EXPECT_ERRNO(Send(p.a, "x"), EAGAIN);
  while (sent > 0) sent -= Recv(p.b).size();
  EXPECT_EQ(PollOne(p.a, POLLOUT), POLLOUT);
}

TEST(UnixStream, ReadvAndWritevGather) {
  Pair p(SOCK_STREAM);
  char a[] = "abc", b[] = "de";
  iovec out[] = {{a, 3}, {b, 2}};
  EXPECT_RETURNS(writev(p.a.get(), out, 2), 5);
  char c[2], d[8];
  iovec in[] = {{c, 2}, {d, 8}};
  EXPECT_RETURNS(readv(p.b.get(), in, 2), 5);
  EXPECT_EQ(std::string_view(d, 3), "cde");
}

// All types -----------------------------------------------------------------------------------------------------------

TEST_P(UnixSocket, PeekLeavesTheData) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "data"), 4);
  EXPECT_EQ(Recv(p.b, MSG_PEEK), "data");
  EXPECT_EQ(Recv(p.b, MSG_PEEK, 2), "da");
  EXPECT_EQ(Recv(p.b), "data");
}

TEST_P(UnixSocket, NothingToReceiveFailsWithEagain) {
  Pair p(GetParam());
  EXPECT_EQ(Recv(p.a, MSG_DONTWAIT), "EAGAIN");
  SetTimeout(p.a, SO_RCVTIMEO, 30);
  int64_t start = NowMs();
  EXPECT_EQ(Recv(p.a), "EAGAIN");
  EXPECT_GE(NowMs() - start, 25);
  char c;
  EXPECT_ERRNO(read(p.a.get(), &c, 1), EAGAIN);
  ASSERT_OK(fcntl(p.b.get(), F_SETFL, O_NONBLOCK));
  EXPECT_EQ(Recv(p.b), "EAGAIN");
  EXPECT_ERRNO(read(p.b.get(), &c, 1), EAGAIN);
}

TEST_P(UnixSocket, ReceivingWaitsForData) {
  Pair p(GetParam());
  std::thread sender([&] {
    SleepMs(20);
    Send(p.a, "late");
  });
  EXPECT_EQ(Recv(p.b), "late");
  sender.join();
}

TEST_P(UnixSocket, TransferErrors) {
  Pair p(GetParam());
  EXPECT_ERRNO(send(p.a.get(), reinterpret_cast<void*>(8), 1, 0), EFAULT);
  ASSERT_RETURNS(Send(p.a, "x"), 1);
  EXPECT_ERRNO(recv(p.b.get(), reinterpret_cast<void*>(8), 1, 0), EFAULT);
  EXPECT_ERRNO(syscall(SYS_sendmsg, p.a.get(), 8L, 0), EFAULT);
  EXPECT_ERRNO(syscall(SYS_recvmsg, p.a.get(), 8L, 0), EFAULT);
  msghdr m{};
  m.msg_iovlen = 1025;
  EXPECT_ERRNO(sendmsg(p.a.get(), &m, 0), EMSGSIZE);
  EXPECT_ERRNO(recvmsg(p.a.get(), &m, 0), EMSGSIZE);
}

TEST_P(UnixSocket, PollTellsWhatIsPossible) {
  Pair p(GetParam());
  EXPECT_EQ(PollOne(p.a, POLLIN | POLLOUT | POLLRDHUP), POLLOUT);
  ASSERT_RETURNS(Send(p.b, "x"), 1);
  EXPECT_EQ(PollOne(p.a, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT);
}

volatile sig_atomic_t handled;
void HandleAlarm(int flags) {
  handled = 0;
  struct sigaction sa{};
  sa.sa_handler = [](int) { handled = handled + 1; };
  sa.sa_flags = flags;
  ASSERT_OK(sigaction(SIGALRM, &sa, nullptr));
}

TEST_P(UnixSocket, SignalsInterruptReceiving) {
  Pair p(GetParam());
  HandleAlarm(0);
  itimerval t{{0, 0}, {0, 20000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  EXPECT_EQ(Recv(p.a), "EINTR");
}

TEST_P(UnixSocket, SaRestartGoesOnReceivingUnlessTimed) {
  Pair p(GetParam());
  HandleAlarm(SA_RESTART);
  std::thread sender([&] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    while (handled == 0) SleepMs(1);
    SleepMs(10);
    Send(p.b, "x");
  });
  itimerval t{{0, 0}, {0, 40000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  EXPECT_EQ(Recv(p.a), "x");
  sender.join();
  SetTimeout(p.a, SO_RCVTIMEO, 10000);
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  EXPECT_EQ(Recv(p.a), "EINTR");
}

// The end of it -------------------------------------------------------------------------------------------------------

TEST_P(UnixConnected, CloseIsTheEndOfFile) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "last"), 4);
  p.a.reset();
  EXPECT_EQ(PollOne(p.b, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
  EXPECT_EQ(Recv(p.b), "last");
  EXPECT_EQ(Recv(p.b), "");
  EXPECT_EQ(Recv(p.b), "");
}

TEST_P(UnixConnected, ClosingWithUnreadDataResetsThePeer) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "unread"), 6);
  p.b.reset();
  EXPECT_EQ(GetOption(p.a, SO_ERROR), ECONNRESET);
  EXPECT_EQ(GetOption(p.a, SO_ERROR), 0);
  EXPECT_EQ(Recv(p.a), "");
}

TEST_P(UnixConnected, SendingToAClosedPeerFailsWithEpipe) {
  Pair p(GetParam());
  p.b.reset();
  signal(SIGPIPE, SIG_IGN);
  EXPECT_ERRNO(Send(p.a, "x"), EPIPE);
  EXPECT_ERRNO(write(p.a.get(), "x", 1), EPIPE);
}

TEST_P(UnixSocket, OnlyStreamsRaiseSigpipe) {
  for (bool write_call : {false, true}) {
    int status = RunChild([&] {
      Pair p(GetParam());
      EXPECT_OK(shutdown(p.a.get(), SHUT_WR));
      EXPECT_ERRNO(Send(p.a, "x", MSG_NOSIGNAL), EPIPE);
      if (write_call) {
        EXPECT_ERRNO(write(p.a.get(), "x", 1), EPIPE);
      } else {
        EXPECT_ERRNO(Send(p.a, "x"), EPIPE);
      }
      return 0;
    });
    if (GetParam() == SOCK_STREAM) {
      EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE) << status;
    } else {
      EXPECT_EQ(status, 0);
    }
  }
}

TEST_P(UnixConnected, ShutdownOfWritingIsThePeersEndOfFile) {
  Pair p(GetParam());
  ASSERT_RETURNS(Send(p.a, "last"), 4);
  ASSERT_OK(shutdown(p.a.get(), SHUT_WR));
  EXPECT_ERRNO(Send(p.a, "x", MSG_NOSIGNAL), EPIPE);
  EXPECT_EQ(PollOne(p.b, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP);
  EXPECT_EQ(Recv(p.b), "last");
  EXPECT_EQ(Recv(p.b), "");
  // The other way is open.
  EXPECT_RETURNS(Send(p.b, "back"), 4);
  EXPECT_EQ(Recv(p.a), "back");
}

TEST_P(UnixConnected, ShutdownOfReadingStopsThePeer) {
  Pair p(GetParam());
  ASSERT_OK(shutdown(p.a.get(), SHUT_RD));
  EXPECT_EQ(Recv(p.a), "");
  EXPECT_ERRNO(Send(p.b, "x", MSG_NOSIGNAL), EPIPE);
  EXPECT_RETURNS(Send(p.a, "x"), 1);
  EXPECT_EQ(Recv(p.b), "x");
}

TEST_P(UnixConnected, ShutdownOfBothHangsUp) {
  Pair p(GetParam());
  ASSERT_OK(shutdown(p.a.get(), SHUT_RDWR));
  EXPECT_EQ(PollOne(p.a, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP | POLLHUP);
  EXPECT_EQ(PollOne(p.b, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP | POLLHUP);
  EXPECT_EQ(Recv(p.b), "");
}

TEST_P(UnixConnected, ShutdownWakesAReceiver) {
  Pair p(GetParam());
  std::thread ender([&] {
    SleepMs(20);
    shutdown(p.a.get(), SHUT_RD);
  });
  EXPECT_EQ(Recv(p.a), "");
  ender.join();
}

TEST(UnixShutdown, UnknownWaysFailWithEinval) {
  Pair p(SOCK_STREAM);
  EXPECT_ERRNO(shutdown(p.a.get(), 3), EINVAL);
  EXPECT_ERRNO(shutdown(p.a.get(), -1), EINVAL);
}

TEST_P(UnixConnected, ShutdownOfAListenerRefusesClients) {
  Address a = UniqueAbstract();
  ScopedFd listener = Listener(GetParam(), a);
  ASSERT_OK(shutdown(listener.get(), SHUT_RDWR));
  EXPECT_ERRNO(Connect(Socket(GetParam()), a), ECONNREFUSED);
  EXPECT_ERRNO(accept(listener.get(), nullptr, nullptr), EINVAL);
}

// Many at once --------------------------------------------------------------------------------------------------------

TEST_P(UnixPacket, ManyMessagesInOneCall) {
  Pair p(GetParam());
  char out[3][2] = {"a", "b", "c"};
  iovec v[3];
  mmsghdr m[3]{};
  for (int i = 0; i < 3; i++) {
    v[i] = {out[i], 1};
    m[i].msg_hdr.msg_iov = &v[i];
    m[i].msg_hdr.msg_iovlen = 1;
  }
  EXPECT_RETURNS(sendmmsg(p.a.get(), m, 3, 0), 3);
  EXPECT_EQ(m[2].msg_len, 1u);
  char in[3][8];
  for (int i = 0; i < 3; i++) v[i] = {in[i], 8};
  EXPECT_RETURNS(recvmmsg(p.b.get(), m, 2, 0, nullptr), 2);
  EXPECT_EQ(in[1][0], 'b');
  // The third, and what is there is all there is.
  EXPECT_RETURNS(recvmmsg(p.b.get(), m, 3, MSG_WAITFORONE, nullptr), 1);
  EXPECT_EQ(in[0][0], 'c');
  EXPECT_ERRNO(recvmmsg(p.b.get(), m, 3, MSG_DONTWAIT, nullptr), EAGAIN);
  timespec bad{0, -1};
  EXPECT_ERRNO(recvmmsg(p.b.get(), m, 3, 0, &bad), EINVAL);
}

}  // namespace
}  // namespace redoubt::testing
