#include "runsc/boot/filter/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <latch>
#include <set>
#include <thread>
#include <tuple>

#include "pkg/safecopy/safecopy_unsafe.h"
#include "pkg/seccomp/rule.h"
#include "pkg/seccomp/seccomp.h"
#include "pkg/seccomp/violation.h"
#include "pkg/sentry/socket/hostinet/options.h"

namespace redoubt::boot {
namespace {

TEST(SentryFilter, NoMoreThanThis) {
  EXPECT_LE(seccomp::CountCalls(FindFilter("systrap", "sandbox")->rules), 45u);
  EXPECT_LE(seccomp::CountCalls(FindFilter("systrap", "host")->rules), 51u);
  for (const Filter& f : Filters()) {
    const bool host = f.network == "host";
    EXPECT_LE(seccomp::CountCalls(f.rules), host ? 61u : 55u) << f.platform << " " << f.network;
    // The names of options are a line each.
    EXPECT_LE(f.program.size(), host ? 1200u : 400u) << f.platform << " " << f.network;
  }
  EXPECT_EQ(FindFilter("systrap", "bridge"), nullptr);
}

// What the Sentry hands on to the host, and what its filter lets it, are the same.
TEST(SentryFilter, OptionsAreThoseThatHostSocketsHave) {
  std::set<std::tuple<int, int, int>> allowed, wanted;
  for (const seccomp::Rule& r : FindFilter("systrap", "host")->rules) {
    if (r.number != SYS_setsockopt && r.number != SYS_getsockopt) continue;
    ASSERT_EQ(r.conditions, 2u);
    EXPECT_EQ(r.condition[0].argument, 1);
    EXPECT_EQ(r.condition[1].argument, 2);
    EXPECT_TRUE(allowed.emplace(r.number, r.condition[0].value, r.condition[1].value).second) << "twice";
  }
  for (const hostinet::Option& o : hostinet::Options()) {
    if (o.most != 0) wanted.emplace(SYS_setsockopt, o.level, o.name);
    if (o.got != 0) wanted.emplace(SYS_getsockopt, o.level, o.name);
  }
  EXPECT_EQ(allowed, wanted);
}

class SentryFilterTest : public ::testing::TestWithParam<Filter> {
 protected:
  // The exit status of a child that installs the filter and then does `what`; 1000 and the signal if it was killed.
  int Outcome(const std::function<void()>& what) {
    pid_t pid = fork();
    if (pid == 0) {
      seccomp::InstallViolationHandler({});
      OpenWhatIsOpenedLate();
      safecopy::InstallFaultHandler();
      if (!seccomp::Install(GetParam().program)) syscall(SYS_exit_group, 99);
      what();
      syscall(SYS_exit_group, 0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }
  bool Refused(const std::function<void()>& what) { return Outcome(what) == seccomp::kViolationStatus; }
};

TEST_P(SentryFilterTest, ThreadsAndMemoryAreItsOwn) {
  EXPECT_EQ(Outcome([] {
              // More than once around malloc's arenas, and back: nothing is opened for it.
              for (int round = 0; round < 3; round++) {
                std::thread([] {
                  std::vector<std::unique_ptr<char[]>> blocks;
                  for (int i = 0; i < 100; i++) blocks.emplace_back(new char[100 << 10]);
                  blocks.clear();
                  std::vector<char> large(1 << 20);
                  for (int i = 0; i < 4; i++) large.resize(large.size() * 2);
                  // SAFETY: a block of realloc's own.
                  void* p = malloc(1 << 20);
                  p = realloc(p, 8 << 20);
                  free(p);
                }).join();
              }
              // More at once than malloc has arenas without thinking.
              std::vector<std::thread> threads;
              std::latch all(40);
              for (int i = 0; i < 40; i++) {
                threads.emplace_back([&all] {
                  // Small blocks, which come from an arena; the main one grows by brk(2).
                  std::vector<std::unique_ptr<char[]>> blocks;
                  for (int k = 0; k < 100; k++) blocks.emplace_back(new char[5000]);
                  all.arrive_and_wait();
                });
              }
              for (std::thread& t : threads) t.join();
            }),
            0);
}

TEST_P(SentryFilterTest, NothingOpens) {
  EXPECT_TRUE(Refused([] { syscall(SYS_open, "/", O_RDONLY); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_openat2, AT_FDCWD, "/", nullptr, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_creat, "/tmp/x", 0600); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_open_by_handle_at, 0, nullptr, 0); }));
  EXPECT_EQ(Outcome([] { _exit(syscall(SYS_memfd_create, "x", MFD_CLOEXEC) == -1 && errno == ENOSYS ? 7 : 1); }), 7);
  EXPECT_TRUE(Refused([] { syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_socket, AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, nullptr); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_io_uring_setup, 1, nullptr); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_newfstatat, AT_FDCWD, "/", nullptr, 0); }));
}

TEST_P(SentryFilterTest, NothingElseRuns) {
  EXPECT_TRUE(Refused([] { syscall(SYS_execve, "/bin/true", nullptr, nullptr); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_execveat, AT_FDCWD, "/bin/true", nullptr, nullptr, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_fork); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_vfork); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); }));
  EXPECT_TRUE(
      Refused([] { syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_mprotect, 0, 4096, PROT_READ | PROT_EXEC); }));
  EXPECT_EQ(Outcome([] {
              clone_args a{};
              a.exit_signal = SIGCHLD;
              if (syscall(SYS_clone3, &a, sizeof(a)) != -1 || errno != ENOSYS) syscall(SYS_exit_group, 1);
            }),
            0);
}

TEST_P(SentryFilterTest, NobodyElseIsReached) {
  const pid_t parent = getpid();
  EXPECT_TRUE(Refused([parent] { syscall(SYS_kill, parent, 0); }));
  EXPECT_TRUE(Refused([parent] { syscall(SYS_kill, parent, SIGTERM); }));
  EXPECT_TRUE(Refused([parent] { syscall(SYS_tgkill, parent, parent, SIGTERM); }));
  EXPECT_TRUE(Refused([parent] { syscall(SYS_ptrace, PTRACE_ATTACH, parent, 0, 0); }));
  EXPECT_TRUE(Refused([parent] { syscall(SYS_ptrace, PTRACE_POKEDATA, parent, 0, 0); }));
  EXPECT_TRUE(Refused([parent] { syscall(SYS_process_vm_writev, parent, nullptr, 0, nullptr, 0, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_prctl, PR_SET_SECCOMP, 0, 0, 0, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_rt_sigaction, SIGSYS, nullptr, nullptr, 8); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x"); }));
  if (GetParam().platform != "ptrace") {
    EXPECT_TRUE(Refused([parent] { syscall(SYS_ptrace, PTRACE_SEIZE, parent, 0, 0); }));
  }
}

TEST_P(SentryFilterTest, SocketsAreTheHostsOnlyWhereAskedFor) {
  auto make = [] {
    if (syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP) < 0) {
      syscall(SYS_exit_group, 1);
    }
  };
  if (GetParam().network != "host") {
    EXPECT_TRUE(Refused(make));
    EXPECT_TRUE(Refused([] { syscall(SYS_connect, -1, nullptr, 0); }));
    EXPECT_TRUE(Refused([] { syscall(SYS_bind, -1, nullptr, 0); }));
    EXPECT_TRUE(Refused([] { syscall(SYS_setsockopt, -1, SOL_SOCKET, SO_REUSEADDR, nullptr, 0); }));
    return;
  }
  EXPECT_EQ(Outcome(make), 0);
  // Code, pointers, modules and other people's packets.
  for (int name : {SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF, SO_MARK,
                   SO_SNDBUFFORCE, SO_ZEROCOPY, SO_BUSY_POLL}) {
    EXPECT_TRUE(Refused([name] { syscall(SYS_setsockopt, -1, SOL_SOCKET, name, nullptr, 0); })) << name;
  }
  for (int name : {TCP_ULP, TCP_REPAIR, TCP_MD5SIG, TCP_ZEROCOPY_RECEIVE}) {
    EXPECT_TRUE(Refused([name] { syscall(SYS_setsockopt, -1, IPPROTO_TCP, name, nullptr, 0); })) << name;
    EXPECT_TRUE(Refused([name] { syscall(SYS_getsockopt, -1, IPPROTO_TCP, name, nullptr, nullptr); })) << name;
  }
  constexpr int kReplaceTables = 64;  // IPT_SO_SET_REPLACE of linux/netfilter_ipv4/ip_tables.h
  for (int level : {IPPROTO_IP, IPPROTO_IPV6}) {
    EXPECT_TRUE(Refused([level] { syscall(SYS_setsockopt, -1, level, kReplaceTables, nullptr, 0); })) << level;
  }
  EXPECT_TRUE(Refused([] { syscall(SYS_setsockopt, -1, IPPROTO_UDP, UDP_ENCAP, nullptr, 0); }));
  EXPECT_TRUE(Refused([] { syscall(SYS_ioctl, -1, SIOCSIFFLAGS, nullptr); }));
}

TEST_P(SentryFilterTest, AFaultThatIsBlockedKills) {
  EXPECT_EQ(Outcome([] {
              sigset_t set;
              sigemptyset(&set);
              sigaddset(&set, SIGSEGV);
              sigprocmask(SIG_BLOCK, &set, nullptr);
              *reinterpret_cast<volatile int*>(8) = 1;
            }),
            1000 + SIGSEGV);
}

TEST_P(SentryFilterTest, AFaultOfACopyIsAnError) {
  EXPECT_EQ(Outcome([] {
              std::byte byte[1];
              if (safecopy::CopyIn(byte, reinterpret_cast<const void*>(8)) != Result<size_t>(Err(EFAULT))) {
                syscall(SYS_exit_group, 1);
              }
            }),
            0);
}

TEST_P(SentryFilterTest, ClocksWork) {
  EXPECT_EQ(Outcome([] {
              timespec ts;
              if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts) != 0) syscall(SYS_exit_group, 1);
            }),
            0);
}

INSTANTIATE_TEST_SUITE_P(All, SentryFilterTest, ::testing::ValuesIn(Filters().begin(), Filters().end()),
                         [](const auto& p) {
                           return std::string(p.param.platform) + "_" + std::string(p.param.network);
                         });

}  // namespace
}  // namespace redoubt::boot
