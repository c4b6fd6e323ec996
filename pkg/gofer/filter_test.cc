#include "pkg/gofer/filter.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace redoubt::gofer {
namespace {

// How a child ends that installs the filter and then does `what`.
int Outcome(const std::function<void()>& what) {
  pid_t pid = fork();
  if (pid == 0) {
    if (!InstallFilter()) syscall(SYS_exit_group, 99);
    what();
    syscall(SYS_exit_group, 0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

bool Killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS; }

TEST(GoferFilter, ServingWorks) {
  EXPECT_EQ(Outcome([] {
              char c;
              syscall(SYS_pread64, -1, &c, 1, 0);
              void* p = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              munmap(p, 4096);
            }),
            0);
}

TEST(GoferFilter, NothingElseDoes) {
  EXPECT_TRUE(Killed(Outcome([] { syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); })));
  EXPECT_TRUE(Killed(Outcome([] { syscall(SYS_execve, "/bin/true", nullptr, nullptr); })));
  EXPECT_TRUE(Killed(Outcome([] { syscall(SYS_fork); })));
  EXPECT_TRUE(Killed(Outcome([] { syscall(SYS_ptrace, 0, 0, 0, 0); })));
  EXPECT_TRUE(Killed(Outcome([] { syscall(SYS_mount, 0, 0, 0, 0, 0); })));
  EXPECT_TRUE(Killed(Outcome([] { syscall(SYS_kill, 1, 0); })));
  EXPECT_TRUE(Killed(
      Outcome([] { syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); })));
}

}  // namespace
}  // namespace redoubt::gofer
