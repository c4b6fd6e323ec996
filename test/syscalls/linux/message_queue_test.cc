// System V message queues: msgget(2), msgop(2), msgctl(2), sysvipc(7).
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"

namespace redoubt::testing {
namespace {

struct Text {
  long type = 0;
  char text[64] = {};
};

class MessageQueue : public ::testing::Test {
 protected:
  void SetUp() override {
    id_ = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    ASSERT_OK(id_);
  }
  void TearDown() override { msgctl(id_, IPC_RMID, nullptr); }
  int Send(long type, const std::string& text, int flags = IPC_NOWAIT) {
    Text m{.type = type};
    memcpy(m.text, text.data(), text.size());
    return msgsnd(id_, &m, text.size(), flags);
  }
  // "type:text", or the name of the error.
  std::string Receive(long type, int flags = 0, size_t room = sizeof(Text::text)) {
    Text m;
    const ssize_t n = msgrcv(id_, &m, room, type, flags | IPC_NOWAIT);
    if (n < 0) return strerrorname_np(errno);
    return std::to_string(m.type) + ":" + std::string(m.text, static_cast<size_t>(n));
  }
  msqid_ds Stat() {
    msqid_ds ds{};
    EXPECT_OK(msgctl(id_, IPC_STAT, &ds));
    return ds;
  }
  int id_ = -1;
};

TEST_F(MessageQueue, FirstInFirstOut) {
  EXPECT_OK(Send(3, "a"));
  EXPECT_OK(Send(1, ""));
  EXPECT_OK(Send(2, "ccc"));
  EXPECT_EQ(Receive(0), "3:a");
  EXPECT_EQ(Receive(0), "1:");
  EXPECT_EQ(Receive(0), "2:ccc");
  EXPECT_EQ(Receive(0), "ENOMSG");
}

TEST_F(MessageQueue, ByType) {
  for (auto [type, text] : {std::pair{3L, "a"}, {2L, "b"}, {2L, "c"}, {9L, "d"}, {LONG_MAX, "e"}}) Send(type, text);
  EXPECT_EQ(Receive(2), "2:b");
  EXPECT_EQ(Receive(5), "ENOMSG");
  EXPECT_EQ(Receive(3, MSG_EXCEPT), "2:c");
  EXPECT_EQ(Receive(-2), "ENOMSG");
  EXPECT_EQ(Receive(-8), "3:a");
  EXPECT_EQ(Receive(-9), "9:d");
  EXPECT_EQ(Receive(LONG_MIN), std::to_string(LONG_MAX) + ":e");
}

TEST_F(MessageQueue, ANegativeTypeTakesTheLowestAndOfThoseTheFirst) {
  for (auto [type, text] : {std::pair{3L, "a"}, {2L, "b"}, {1L, "c"}, {1L, "d"}}) Send(type, text);
  EXPECT_EQ(Receive(-3), "1:c");
  EXPECT_EQ(Receive(-3), "1:d");
  EXPECT_EQ(Receive(-3), "2:b");
  EXPECT_EQ(Receive(-3), "3:a");
}

TEST_F(MessageQueue, WhatIsTooLongStaysOrIsCut) {
  EXPECT_OK(Send(1, "abcdef"));
  EXPECT_EQ(Receive(0, 0, 5), "E2BIG");
  EXPECT_EQ(Receive(0, MSG_NOERROR, 2), "1:ab");
  EXPECT_EQ(Receive(0), "ENOMSG");
}

TEST_F(MessageQueue, CopiesAreTakenByPlace) {
  EXPECT_OK(Send(5, "a"));
  EXPECT_OK(Send(6, "b"));
  if (Receive(0, MSG_COPY) == "ENOSYS") GTEST_SKIP() << "no CONFIG_CHECKPOINT_RESTORE";
  EXPECT_EQ(Receive(1, MSG_COPY), "6:b");
  EXPECT_EQ(Receive(0, MSG_COPY), "5:a");
  EXPECT_EQ(Receive(2, MSG_COPY), "ENOMSG");
  EXPECT_EQ(Receive(0, MSG_COPY | MSG_EXCEPT), "EINVAL");
  Text m;
  EXPECT_ERRNO(msgrcv(id_, &m, sizeof(m.text), 0, MSG_COPY), EINVAL);
  EXPECT_EQ(Stat().msg_qnum, 2u);
}

TEST_F(MessageQueue, WhatIsNotAllowedInACall) {
  Text m{.type = 1};
  EXPECT_ERRNO(Send(0, "x"), EINVAL);
  EXPECT_ERRNO(Send(-1, "x"), EINVAL);
  EXPECT_ERRNO(msgsnd(-1, &m, 1, 0), EINVAL);
  EXPECT_ERRNO(msgsnd(id_ + 1, &m, 1, 0), EINVAL);
  std::string large(8193 + sizeof(long), 1);
  EXPECT_ERRNO(msgsnd(id_, large.data(), 8193, IPC_NOWAIT), EINVAL);
  EXPECT_OK(msgsnd(id_, large.data(), 8192, IPC_NOWAIT));
  EXPECT_ERRNO(msgsnd(id_, &m, static_cast<size_t>(-1), 0), EINVAL);
  EXPECT_ERRNO(msgrcv(id_, &m, static_cast<size_t>(-1), 0, IPC_NOWAIT), EINVAL);
  EXPECT_ERRNO(msgrcv(-1, &m, 1, 0, IPC_NOWAIT), EINVAL);
  EXPECT_ERRNO(msgsnd(id_, nullptr, 1, 0), EFAULT);
}

TEST_F(MessageQueue, AMessageThatCannotBeToldIsLost) {
  EXPECT_OK(Send(1, "a"));
  EXPECT_ERRNO(msgrcv(id_, nullptr, 10, 0, IPC_NOWAIT), EFAULT);
  EXPECT_EQ(Receive(0), "ENOMSG");
}

TEST_F(MessageQueue, StatTellsWhoAndHowMuch) {
  const time_t now = time(nullptr);
  msqid_ds ds = Stat();
  EXPECT_EQ(ds.msg_qbytes, 16384u);
  EXPECT_EQ(ds.msg_lspid, 0);
  EXPECT_EQ(ds.msg_stime, 0);
  EXPECT_GE(ds.msg_ctime, now - 1);
  EXPECT_EQ(ds.msg_perm.mode, 0600);
  EXPECT_OK(Send(1, "abc"));
  EXPECT_OK(Send(1, "de"));
  ds = Stat();
  EXPECT_EQ(ds.msg_qnum, 2u);
  EXPECT_EQ(ds.__msg_cbytes, 5u);
  EXPECT_EQ(ds.msg_lspid, getpid());
  EXPECT_EQ(ds.msg_lrpid, 0);
  EXPECT_GE(ds.msg_stime, now - 1);
  Receive(0);
  ds = Stat();
  EXPECT_EQ(ds.__msg_cbytes, 2u);
  EXPECT_EQ(ds.msg_lrpid, getpid());
  EXPECT_GE(ds.msg_rtime, now - 1);
}

TEST_F(MessageQueue, AFullOneTakesNoMore) {
  msqid_ds ds = Stat();
  ds.msg_qbytes = 4;
  ASSERT_OK(msgctl(id_, IPC_SET, &ds));
  EXPECT_ERRNO(Send(1, "abcde"), EAGAIN);
  EXPECT_OK(Send(1, "abc"));
  EXPECT_ERRNO(Send(1, "de"), EAGAIN);
  EXPECT_OK(Send(1, "d"));
  EXPECT_OK(Send(1, ""));
  EXPECT_OK(Send(1, ""));
  // Empty ones count too.
  EXPECT_ERRNO(Send(1, ""), EAGAIN);
}

TEST_F(MessageQueue, SettingChangesOwnerModeAndSize) {
  msqid_ds ds = Stat();
  ds.msg_perm.uid = 5;
  ds.msg_perm.gid = 6;
  ds.msg_perm.mode = 07640;
  ds.msg_qbytes = 16000;
  ASSERT_OK(msgctl(id_, IPC_SET, &ds));
  ds = Stat();
  EXPECT_EQ(ds.msg_perm.uid, 5u);
  EXPECT_EQ(ds.msg_perm.gid, 6u);
  EXPECT_EQ(ds.msg_perm.cuid, geteuid());
  EXPECT_EQ(ds.msg_perm.mode, 0640);
  EXPECT_EQ(ds.msg_qbytes, 16000u);
}

TEST_F(MessageQueue, OthersNeedRights) {
  EXPECT_OK(Send(1, "a"));
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_ERRNO(Send(1, "b"), EACCES);
              EXPECT_EQ(Receive(0), "EACCES");
              msqid_ds ds{};
              EXPECT_ERRNO(msgctl(id_, IPC_STAT, &ds), EACCES);
              EXPECT_ERRNO(msgctl(id_, IPC_SET, &ds), EPERM);
              EXPECT_ERRNO(msgctl(id_, IPC_RMID, nullptr), EPERM);
              // Of its own, but no larger than the system's.
              const int own = msgget(IPC_PRIVATE, 0600);
              EXPECT_OK(msgctl(own, IPC_STAT, &ds));
              ds.msg_qbytes = 16385;
              EXPECT_ERRNO(msgctl(own, IPC_SET, &ds), EPERM);
              ds.msg_qbytes = 100;
              EXPECT_OK(msgctl(own, IPC_SET, &ds));
              EXPECT_OK(msgctl(own, IPC_RMID, nullptr));
            }),
            0);
}

TEST_F(MessageQueue, AReceiverWaits) {
  const pid_t child = Spawn([&] {
    Text m;
    EXPECT_RETURNS(msgrcv(id_, &m, sizeof(m.text), 7, 0), 3);
    EXPECT_EQ(std::string(m.text, 3), "abc");
    return 0;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  EXPECT_OK(Send(6, "not"));
  EXPECT_OK(Send(7, "abc"));
  EXPECT_EQ(WaitFor(child), 0);
  EXPECT_EQ(Receive(0), "6:not");
}

TEST_F(MessageQueue, ASenderWaits) {
  msqid_ds ds = Stat();
  ds.msg_qbytes = 3;
  ASSERT_OK(msgctl(id_, IPC_SET, &ds));
  EXPECT_OK(Send(1, "abc"));
  const pid_t child = Spawn([&] {
    EXPECT_OK(Send(2, "de", 0));
    return 0;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  EXPECT_EQ(Receive(0), "1:abc");
  EXPECT_EQ(WaitFor(child), 0);
  EXPECT_EQ(Receive(0), "2:de");
}

TEST_F(MessageQueue, MoreRoomWakesASender) {
  msqid_ds ds = Stat();
  ds.msg_qbytes = 1;
  ASSERT_OK(msgctl(id_, IPC_SET, &ds));
  const pid_t child = Spawn([&] {
    EXPECT_OK(Send(2, "de", 0));
    return 0;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  ds.msg_qbytes = 2;
  ASSERT_OK(msgctl(id_, IPC_SET, &ds));
  EXPECT_EQ(WaitFor(child), 0);
}

TEST_F(MessageQueue, RemovalEndsWaiting) {
  const pid_t child = Spawn([&] {
    Text m;
    EXPECT_ERRNO(msgrcv(id_, &m, sizeof(m.text), 0, 0), EIDRM);
    EXPECT_ERRNO(msgrcv(id_, &m, sizeof(m.text), 0, 0), EINVAL);
    return 0;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  EXPECT_OK(msgctl(id_, IPC_RMID, nullptr));
  EXPECT_EQ(WaitFor(child), 0);
}

TEST_F(MessageQueue, AHandlerEndsWaitingWhateverItsFlags) {
  const pid_t child = Spawn([&] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
    Text m;
    EXPECT_ERRNO(msgrcv(id_, &m, sizeof(m.text), 0, 0), EINTR);
    return 0;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  EXPECT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitFor(child), 0);
}

TEST_F(MessageQueue, AStopDoesNot) {
  const pid_t child = Spawn([&] {
    Text m;
    EXPECT_RETURNS(msgrcv(id_, &m, sizeof(m.text), 0, 0), 1);
    return 0;
  });
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  EXPECT_OK(kill(child, SIGSTOP));
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, WUNTRACED), child);
  EXPECT_OK(kill(child, SIGCONT));
  ASSERT_TRUE(WaitUntilAsleep(child, child));
  EXPECT_OK(Send(1, "a"));
  EXPECT_EQ(WaitFor(child), 0);
}

TEST_F(MessageQueue, MessagesInARaceAreEachReceivedOnce) {
  constexpr int kSenders = 3, kMessages = 300;
  std::thread senders[kSenders];
  for (int i = 0; i < kSenders; i++) {
    senders[i] = std::thread([&, i] {
      for (int n = 0; n < kMessages; n++) EXPECT_OK(Send(i + 1, std::to_string(n), 0));
    });
  }
  std::thread receivers[kSenders];
  for (int i = 0; i < kSenders; i++) {
    receivers[i] = std::thread([&, i] {
      // Of one sender they come in order.
      for (int n = 0; n < kMessages; n++) {
        Text m;
        const ssize_t length = msgrcv(id_, &m, sizeof(m.text), i + 1, 0);
        ASSERT_GT(length, 0);
        EXPECT_EQ(std::string(m.text, static_cast<size_t>(length)), std::to_string(n));
      }
    });
  }
  for (std::thread& t : senders) t.join();
  for (std::thread& t : receivers) t.join();
  EXPECT_EQ(Stat().msg_qnum, 0u);
}

TEST(MessageQueueKeys, NameQueues) {
  const key_t key = 0x7ed00b + getpid();
  EXPECT_ERRNO(msgget(key, 0600), ENOENT);
  const int id = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
  ASSERT_OK(id);
  EXPECT_RETURNS(msgget(key, 0600), id);
  EXPECT_RETURNS(msgget(key, IPC_CREAT | 0600), id);
  EXPECT_ERRNO(msgget(key, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
  EXPECT_EQ(RunAsNobody([&] { EXPECT_ERRNO(msgget(key, 0600), EACCES); }), 0);
  msqid_ds ds{};
  EXPECT_OK(msgctl(id, IPC_STAT, &ds));
  EXPECT_EQ(ds.msg_perm.__key, key);
  EXPECT_OK(msgctl(id, IPC_RMID, nullptr));
  EXPECT_ERRNO(msgctl(id, IPC_RMID, nullptr), EINVAL);
  EXPECT_ERRNO(msgget(key, 0600), ENOENT);
}

// The line of /proc/sysvipc/KIND about an object.
std::string Line(const std::string& kind, int id) {
  std::ifstream in("/proc/sysvipc/" + kind);
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    long key = 0;
    int found = -1;
    if (fields >> key >> found && found == id) return line;
  }
  return "none";
}

TEST(SysvipcFiles, ShowObjects) {
  const key_t key = 0x7ed100 + getpid();
  const int queue = msgget(key, IPC_CREAT | 0640);
  ASSERT_OK(queue);
  Text m{.type = 1};
  EXPECT_OK(msgsnd(queue, &m, 10, 0));
  const int set = semget(key, 3, IPC_CREAT | 0600);
  const int segment = shmget(key, 5000, IPC_CREAT | 0666);
  ASSERT_OK(set);
  ASSERT_OK(segment);
  msqid_ds ds{};
  EXPECT_OK(msgctl(queue, IPC_STAT, &ds));
  char expected[256];
  snprintf(expected, sizeof(expected), "%10d %10d  %4o  %10d %10d %5d %5d %5d %5d %5d %5d %10ld %10d %10ld", key, queue,
           0640, 10, 1, getpid(), 0, 0, 0, 0, 0, ds.msg_stime, 0, ds.msg_ctime);
  EXPECT_EQ(Line("msg", queue), expected);
  snprintf(expected, sizeof(expected), "%10d %10d  %4o %10d %5d %5d %5d %5d %10d", key, set, 0600, 3, 0, 0, 0, 0, 0);
  EXPECT_EQ(Line("sem", set).substr(0, strlen(expected)), expected);
  snprintf(expected, sizeof(expected), "%10d %10d  %4o %21d %5d %5d  %5d %5d %5d %5d %5d %10d %10d", key, segment, 0666,
           5000, getpid(), 0, 0, 0, 0, 0, 0, 0, 0);
  EXPECT_EQ(Line("shm", segment).substr(0, strlen(expected)), expected);
  EXPECT_OK(msgctl(queue, IPC_RMID, nullptr));
  EXPECT_OK(semctl(set, 0, IPC_RMID));
  EXPECT_OK(shmctl(segment, IPC_RMID, nullptr));
  EXPECT_EQ(Line("msg", queue), "none");
}

TEST(MessageQueueControl, InfoTellsOfLimitsAndUse) {
  const int id = msgget(IPC_PRIVATE, 0600);
  ASSERT_OK(id);
  Text m{.type = 1};
  EXPECT_OK(msgsnd(id, &m, 10, 0));
  msginfo info{};
  EXPECT_OK(msgctl(0, IPC_INFO, reinterpret_cast<msqid_ds*>(&info)));
  EXPECT_EQ(info.msgmax, 8192);
  EXPECT_EQ(info.msgmnb, 16384);
  EXPECT_EQ(info.msgmni, 32000);
  const int highest = msgctl(0, MSG_INFO, reinterpret_cast<msqid_ds*>(&info));
  ASSERT_OK(highest);
  EXPECT_GE(info.msgpool, 1);
  EXPECT_GE(info.msgmap, 1);
  EXPECT_GE(info.msgtql, 10);
  bool found = false;
  for (int i = 0; i <= highest; i++) {
    msqid_ds ds{};
    found |= msgctl(i, MSG_STAT, &ds) == id && ds.msg_qnum == 1;
  }
  EXPECT_TRUE(found);
  EXPECT_ERRNO(msgctl(id, 99, nullptr), EINVAL);
  EXPECT_ERRNO(msgctl(-1, IPC_RMID, nullptr), EINVAL);
  EXPECT_OK(msgctl(id, IPC_RMID, nullptr));
}

}  // namespace
}  // namespace redoubt::testing
