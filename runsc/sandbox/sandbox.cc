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
#include <optional>
#include <vector>

#include "runsc/sandbox/network.h"
#include "runsc/specutils/network.h"

namespace redoubt::sandbox {
namespace {

int Fail(const char* what) {
  fmt::print(stderr, "runsc: cannot start the sandbox: {}: {}\n", what, std::strerror(errno));
  return kSetupFailed;
}

// What the child needs, made before it exists: it shares this process's memory until it executes, so it must not
// allocate.
struct Program {
  std::vector<char*> argv;
  std::vector<int> fds;    // become descriptors 3, 4, ... in the child; -1: none. All others close on exec
  std::vector<int> moved;  // the child's own notes
  const sigset_t& mask;
  pid_t parent;
};

[[noreturn, gnu::noinline]] void Exec(Program& p) {
  // Dies with the CLI. The parent may have died before this line.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != p.parent) _exit(kSetupFailed);
  // Out of the way of the target numbers first.
  for (size_t i = 0; i < p.fds.size(); i++) p.moved[i] = p.fds[i] < 0 ? -1 : fcntl(p.fds[i], F_DUPFD_CLOEXEC, 64);
  for (size_t i = 0; i < p.moved.size(); i++) {
    if (p.moved[i] < 0) {
      close(3 + static_cast<int>(i));
    } else {
      dup2(p.moved[i], 3 + static_cast<int>(i));
    }
  }
  sigprocmask(SIG_SETMASK, &p.mask, nullptr);
  // The environment is the caller's business, not the sandbox's.
  char* env[] = {nullptr};
  execve("/proc/self/exe", p.argv.data(), env);
  _exit(kSetupFailed);
}

pid_t Start(const std::vector<std::string>& args, const std::vector<int>& fds, const sigset_t& mask) {
  Program p{.argv = {}, .fds = fds, .moved = std::vector<int>(fds.size()), .mask = mask, .parent = getpid()};
  for (const std::string& a : args) p.argv.push_back(const_cast<char*>(a.c_str()));
  p.argv.push_back(nullptr);
  // Not fork: that copies page tables, and then each page that either side writes, which takes longer than all the
  // rest. All signals are blocked, so no handler runs in the child.
  pid_t pid = vfork();
  if (pid == 0) Exec(p);
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

// A descriptor from which `text` can be read; -1.
int FileOf(const std::string& text) {
  int fd = memfd_create("runsc-config", MFD_CLOEXEC);
  if (fd >= 0 &&
      (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()) || lseek(fd, 0, SEEK_SET) != 0)) {
    close(fd);
    return -1;
  }
  return fd;
}

}  // namespace

int Run(const specutils::Spec& spec, const specutils::SandboxOptions& options, int log_fd) {
  int config_fd = FileOf(Serialize(spec, options));
  if (config_fd < 0) return Fail("configuration");

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

  // Given back when the sandbox has ended.
  std::optional<BorrowedNetwork> network;
  if (options.network == specutils::NetworkMode::kSandbox) {
    specutils::Expected<BorrowedNetwork> borrowed = BorrowedNetwork::Borrow(spec.network_namespace_path);
    if (!borrowed) {
      fmt::print(stderr, "runsc: {}\n", borrowed.error());
      return kSetupFailed;
    }
    network.emplace(std::move(*borrowed));
    boot_fds.push_back(FileOf(SerializeNetwork(network->config())));
    if (boot_fds.back() < 0) return Fail("network configuration");
    for (const gofer::UniqueFd& socket : network->sockets()) {
      boot_fds.push_back(fcntl(socket.get(), F_DUPFD_CLOEXEC, 64));
      if (boot_fds.back() < 0) return Fail("network");
    }
  }

  sigset_t all, old;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &old);
  // Boot, which has more to do, first: it starts with everything blocked and takes signals when it can.
  pid_t boot = Start({"runsc-sandbox", "boot"}, boot_fds, all);
  if (boot < 0) return Fail("fork");
  // The gofer with every signal blocked for good: a Ctrl-C at the terminal is the guest's, and goes to all of this
  // process group.
  pid_t gofer = Start(gofer_args, gofer_fds, all);
  if (gofer < 0) {
    KillAndReap(boot);
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
