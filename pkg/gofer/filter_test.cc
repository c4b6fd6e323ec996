#include "pkg/gofer/filter.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "pkg/log/log.h"
#include "pkg/seccomp/rule.h"
#include "pkg/seccomp/violation.h"

namespace redoubt::gofer {
namespace {

// How a child ends that installs the filter and then does `what`.
int Outcome(const std::function<void()>& what) {
  pid_t pid = fork();
  if (pid == 0) {
    PrepareForFilter(1);
    if (!InstallFilter()) syscall(SYS_exit_group, 99);
    what();
    syscall(SYS_exit_group, 0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

bool Refused(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == seccomp::kViolationStatus; }

TEST(GoferFilter, NoMoreThanThis) { EXPECT_LE(seccomp::CountCalls(FilterRules()), 35u); }

TEST(GoferFilter, ServingWorks) {
  EXPECT_EQ(Outcome([] {
              char c;
              syscall(SYS_pread64, -1, &c, 1, 0);
              void* p = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              munmap(p, 4096);
              timespec ts;
              if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts) != 0) syscall(SYS_exit_group, 1);
            }),
            0);
}

TEST(GoferFilter, TheLogCanBeWritten) {
  int pipe[2];
  ASSERT_EQ(pipe2(pipe, O_CLOEXEC), 0);
  EXPECT_EQ(Outcome([&] {
              log::Configure(pipe[1], log::Level::kError);
              LOG_ERROR("connection closed: {}", "EPROTO");
            }),
            0);
  char text[200] = {};
  EXPECT_GT(read(pipe[0], text, sizeof(text) - 1), 0);
  EXPECT_NE(std::string_view(text).find("connection closed: EPROTO"), std::string_view::npos) << text;
  close(pipe[0]);
  close(pipe[1]);
}

TEST(GoferFilter, NothingElseDoes) {
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); })));
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_execve, "/bin/true", nullptr, nullptr); })));
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_fork); })));
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_clone, 0x3d0f00, 0, 0, 0, 0); })));
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_ptrace, 0, 0, 0, 0); })));
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_mount, 0, 0, 0, 0, 0); })));
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_kill, 1, 0); })));
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_open_by_handle_at, -1, nullptr, 0); })));
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_chroot, "/"); })));
  EXPECT_TRUE(Refused(Outcome([] { syscall(SYS_rt_sigaction, SIGSYS, nullptr, nullptr, 8); })));
  EXPECT_TRUE(Refused(
      Outcome([] { syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); })));
}

}  // namespace
}  // namespace redoubt::gofer
