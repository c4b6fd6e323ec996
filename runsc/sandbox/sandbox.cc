#include "runsc/sandbox/sandbox.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace redoubt::sandbox {
namespace {

int Fail(const char* what) {
  fmt::print(stderr, "runsc: cannot start the sandbox: {}: {}\n", what, std::strerror(errno));
  return kSetupFailed;
}

// In the child between fork and exec. `fds` become descriptors 3, 4, ...; all others close on exec.
[[noreturn]] void Exec(const std::vector<std::string>& args, const std::vector<int>& fds, const sigset_t& mask,
                       pid_t parent) {
  // Dies with the CLI. The parent may have died before this line.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kSetupFailed);
  // Out of the way of the target numbers first.
  std::vector<int> moved;
  for (int fd : fds) moved.push_back(fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 64));
  for (size_t i = 0; i < moved.size(); i++) {
    if (moved[i] < 0) {
      close(3 + static_cast<int>(i));
    } else {
      dup2(moved[i], 3 + static_cast<int>(i));
    }
  }
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  std::vector<char*> argv;
  for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  // The environment is the caller's business, not the sandbox's.
  char* env[] = {nullptr};
  execve("/proc/self/exe", argv.data(), env);
  _exit(kSetupFailed);
}

pid_t Start(const std::vector<std::string>& args, const std::vector<int>& fds, const sigset_t& mask) {
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid == 0) Exec(args, fds, mask, parent);
  return pid;
}

void KillAndReap(pid_t pid) {
  if (pid <= 0) return;
  kill(pid, SIGKILL);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

int ToExitCode(int status) {
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  fmt::print(
      stderr,
      "runsc: internal error: the sandbox process died of signal {} ({}); run again with --debug-log DIR for the "
      "reason\n",
      WTERMSIG(status), strsignal(WTERMSIG(status)));
  return kSetupFailed;
}

}  // namespace

int Run(const specutils::Spec& spec, const specutils::SandboxOptions& options, int log_fd) {
  std::string config = Serialize(spec, options);
  int config_fd = memfd_create("runsc-config", MFD_CLOEXEC);
  if (config_fd < 0 || write(config_fd, config.data(), config.size()) != static_cast<ssize_t>(config.size()) ||
      lseek(config_fd, 0, SEEK_SET) != 0) {
    return Fail("configuration");
  }

  std::vector<std::string> gofer_args = {"runsc-gofer", "gofer"};
  std::vector<int> gofer_fds;
  std::vector<int> boot_fds = {config_fd, log_fd};
  auto add_tree = [&](const std::string& path, bool read_only) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return false;
    gofer_args.push_back(read_only ? "ro" : "rw");
    gofer_args.push_back(path);
    gofer_args.push_back(std::to_string(3 + gofer_fds.size()));
    gofer_fds.push_back(pair[0]);
    boot_fds.push_back(pair[1]);
    return true;
  };
  // Writes below a read-only or overlaid root never reach the gofer, which is told so too.
  if (!add_tree(spec.root_path, spec.root_read_only || spec.root_overlay)) return Fail("socketpair");
  for (const specutils::Mount& m : spec.mounts) {
    if (m.is_bind() && !add_tree(m.source, m.read_only())) return Fail("socketpair");
  }

  sigset_t all, old;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &old);
  // With every signal blocked, for good: a Ctrl-C at the terminal is the guest's, and goes to all of this process
  // group.
  pid_t gofer = Start(gofer_args, gofer_fds, all);
  if (gofer < 0) return Fail("fork");
  // Boot starts with everything blocked and takes signals when it can.
  pid_t boot = Start({"runsc-sandbox", "boot"}, boot_fds, all);
  if (boot < 0) {
    KillAndReap(gofer);
    return Fail("fork");
  }
  for (int fd : gofer_fds) close(fd);
  for (size_t i = 2; i < boot_fds.size(); i++) close(boot_fds[i]);
  close(config_fd);

  int boot_status = 0;
  bool gofer_gone = false;
  while (true) {
    siginfo_t info;
    int sig = sigwaitinfo(&all, &info);
    if (sig < 0) continue;
    if (sig == SIGCHLD) {
      int status = 0;
      pid_t pid = 0;
      bool boot_gone = false;
      while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == boot) {
          boot_gone = true;
          boot_status = status;
        } else if (pid == gofer) {
          gofer_gone = true;
        }
      }
      if (boot_gone) break;
      if (gofer_gone) {
        // Normal once the sandbox closes its connections; otherwise the guest has lost its files.
        timespec patience{.tv_sec = 0, .tv_nsec = 500'000'000};
        sigset_t child;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        sigtimedwait(&child, nullptr, &patience);
        if (waitpid(boot, &boot_status, WNOHANG) == boot) break;
        KillAndReap(boot);
        fmt::print(stderr, "runsc: the gofer process died; the sandbox was ended\n");
        sigprocmask(SIG_SETMASK, &old, nullptr);
        return kSetupFailed;
      }
      continue;
    }
    // From the terminal the whole process group got it, boot included; what is sent to the CLI alone is passed on.
    bool from_terminal = info.si_code == SI_KERNEL;
    if (!from_terminal) kill(boot, sig);
  }
  if (!gofer_gone) KillAndReap(gofer);
  sigprocmask(SIG_SETMASK, &old, nullptr);
  return ToExitCode(boot_status);
}

}  // namespace redoubt::sandbox
