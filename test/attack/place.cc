#include "test/attack/place.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "pkg/gofer/filter.h"
#include "pkg/log/log.h"
#include "pkg/seccomp/seccomp.h"
#include "pkg/seccomp/violation.h"
#include "runsc/boot/filter/filter.h"
#include "runsc/box/box.h"

namespace redoubt::attack {
namespace {

constexpr int kNoWalls = 250;

[[noreturn]] void Leave(int status) {
  syscall(SYS_exit_group, status);
  __builtin_unreachable();
}

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "no walls: %s\n", what.c_str());
  Leave(kNoWalls);
}

void PutUpBox(Role role, const std::string& tree, Place& place, int first_closed, bool host_network) {
  const box::Options options{
      .allow_weak = false, .parent_pidfd = -1, .first_closed = first_closed, .keep_network = host_network};
  if (role == Role::kSentry) {
    auto missing = box::EnterSentryBox(options);
    if (!missing) Fail(missing.error());
    return;
  }
  std::vector<box::Tree> trees = {{.path = tree, .read_only = false, .fd = -1}};
  auto missing = box::EnterGoferBox(options, trees, place.self_fd);
  if (!missing) Fail(missing.error());
  place.tree = trees[0].fd;
}

void GoWithoutBox(const std::string& tree, Place& place) {
  if (unshare(CLONE_NEWNS | CLONE_NEWUTS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    Fail("a namespace for harmlessness");
  }
  place.tree = open(tree.c_str(), O_PATH | O_CLOEXEC);
  place.self_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

void PutUpFilter(Role role, bool host_network) {
  Result<> installed;
  if (role == Role::kSentry) {
    seccomp::InstallViolationHandler({});
    installed = seccomp::Install(boot::FindFilter("systrap", host_network ? "host" : "sandbox")->program);
  } else {
    gofer::PrepareForFilter(1);
    installed = gofer::InstallFilter();
  }
  if (!installed) Fail("the filter");
}

}  // namespace

int Outcome(long result) { return result < 0 ? errno : 0; }

int Try(Role role, Walls walls, const std::string& tree, const Attempt& attempt) {
  int results[2];
  if (pipe2(results, O_CLOEXEC) != 0) return -1;
  // As box::Vfork, but with memory of its own.
  pid_t pid = static_cast<pid_t>(syscall(SYS_clone, (walls.box ? CLONE_NEWPID : 0) | SIGCHLD, 0, 0, 0, 0));
  if (pid == 0) {
    const int answer = dup2(results[1], 3);
    Place place;
    log::Configure(open("/dev/null", O_WRONLY | O_CLOEXEC), log::Level::kError);
    if (walls.box) {
      log::Configure(2, log::Level::kError);
      PutUpBox(role, tree, place, answer + 1, walls.host_network);
    } else {
      GoWithoutBox(tree, place);
    }
    if (walls.filter) PutUpFilter(role, walls.host_network);
    const int outcome = attempt(place);
    if (write(answer, &outcome, sizeof(outcome)) != sizeof(outcome)) Leave(1);
    Leave(0);
  }
  close(results[1]);
  int outcome = -1;
  const bool told = read(results[0], &outcome, sizeof(outcome)) == sizeof(outcome);
  close(results[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (told) return outcome;
  const bool stopped = WIFEXITED(status) && WEXITSTATUS(status) == seccomp::kViolationStatus;
  // Without a report: signals were blocked, or the number is another architecture's.
  const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
  return stopped || killed ? kStopped : -1;
}

}  // namespace redoubt::attack
