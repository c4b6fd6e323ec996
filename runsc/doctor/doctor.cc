#include "runsc/doctor/doctor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/io_uring.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>

#include "pkg/fd/unique_fd.h"
#include "runsc/cgroup/cgroup.h"

namespace redoubt::doctor {
namespace {

std::string FirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// The errno of what a child has tried; 0: it worked.
int InChild(const std::function<int()>& attempt) {
  fflush(nullptr);
  pid_t pid = fork();
  if (pid == 0) {
    alarm(10);
    _exit(attempt());
  }
  int status = 0;
  if (pid < 0) return errno;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

int ErrnoOf(long result) { return result < 0 ? errno : 0; }

Finding Kernel() {
  utsname u{};
  uname(&u);
  Finding f{.what = "kernel", .detail = fmt::format("{} {} {}", u.sysname, u.release, u.machine)};
  int major = 0, minor = 0;
  std::sscanf(u.release, "%d.%d", &major, &minor);
  if (std::string_view(u.machine) != "x86_64") {
    f.verdict = Verdict::kMissing;
    f.remedy = "x86_64 is the only processor there is code for";
  } else if (major < 5 || (major == 5 && minor < 11)) {
    f.verdict = Verdict::kPoor;
    f.remedy = "Linux 5.11 or later makes systrap faster (Syscall User Dispatch)";
  }
  return f;
}

// The binary runs itself inside, which needs no file but this one.
Finding Platform(const char* name, const char* otherwise) {
  char self[4096] = {};
  ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
  int out[2];
  if (n <= 0 || pipe2(out, O_CLOEXEC) != 0) return {.what = name, .verdict = Verdict::kMissing, .detail = "cannot try"};
  UniqueFd read_end(out[0]), write_end(out[1]);
  const std::string flag = fmt::format("--platform={}", name);
  fflush(nullptr);
  pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    dup2(write_end.get(), 2);
    execl(self, "runsc", flag.c_str(), "do", self, "--version", nullptr);
    _exit(127);
  }
  write_end = UniqueFd();
  std::string said;
  char buffer[512];
  while ((n = read(read_end.get(), buffer, sizeof(buffer))) > 0) {
    if (said.size() < 400) said.append(buffer, static_cast<size_t>(n));
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  Finding f{.what = fmt::format("platform {}", name)};
  if (status == 0) {
    f.detail = "a program ran on it";
    return f;
  }
  f.verdict = Verdict::kMissing;
  f.detail = said.substr(0, said.find('\n'));
  if (f.detail.starts_with("runsc: ")) f.detail = f.detail.substr(7);
  if (f.detail.empty()) f.detail = fmt::format("no program runs on it (wait status {:#x})", status);
  f.remedy = otherwise;
  return f;
}

Finding Kvm() {
  UniqueFd fd(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (fd) return Platform("kvm", "use --platform=systrap");
  Finding f{.what = "platform kvm",
            .verdict = Verdict::kMissing,
            .detail = fmt::format("/dev/kvm: {}", std::strerror(errno))};
  f.remedy = errno == EACCES ? "add yourself to group kvm, or use --platform=systrap" : "systrap needs no /dev/kvm";
  return f;
}

Finding Namespaces() {
  int e = InChild([] {
    return ErrnoOf(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP));
  });
  if (e == 0) return {.what = "namespaces", .detail = "mount, pid, network, ipc, uts, cgroup"};
  return {.what = "namespaces",
          .verdict = Verdict::kMissing,
          .detail = fmt::format("unshare: {}", std::strerror(e)),
          .remedy = geteuid() == 0 ? "this root has no CAP_SYS_ADMIN (a container?); start it with more capabilities"
                                   : "run as root, or where ordinary users may make user namespaces"};
}

Finding UserNamespaces() {
  int e = InChild([] { return ErrnoOf(unshare(CLONE_NEWUSER)); });
  Finding f{.what = "user namespaces"};
  if (e == 0) {
    f.detail = "can be made";
    return f;
  }
  f.verdict = Verdict::kMissing;
  f.detail = std::strerror(e);
  if (FirstLine("/proc/sys/kernel/unprivileged_userns_clone") == "0") {
    f.remedy = "sysctl kernel.unprivileged_userns_clone=1";
  } else if (FirstLine("/proc/sys/user/max_user_namespaces") == "0") {
    f.remedy = "sysctl user.max_user_namespaces=10000";
  } else if (FirstLine("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1") {
    f.remedy = "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run as root";
  }
  return f;
}

Finding Yama() {
  std::string scope = FirstLine("/proc/sys/kernel/yama/ptrace_scope");
  if (scope.empty()) return {.what = "yama", .detail = "not there"};
  Finding f{.what = "yama", .detail = fmt::format("ptrace_scope {}", scope)};
  if (scope == "3") {
    f.verdict = Verdict::kPoor;
    f.remedy = "nobody may trace: --platform=ptrace cannot work, systrap and kvm do; only a reboot lowers it";
  }
  return f;
}

Finding Seccomp() {
  std::ifstream in("/proc/self/status");
  std::string mode = "0";
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("Seccomp:")) mode = line.substr(line.find_last_of(" \t") + 1);
  }
  if (mode == "0") return {.what = "outer seccomp filter", .detail = "none"};
  Finding f{.what = "outer seccomp filter", .detail = "there is one, as in a container"};
  std::string refused;
  struct Call {
    const char* name;
    std::function<long()> attempt;
  };
  for (const Call& c : {Call{"ptrace", [] { return syscall(SYS_ptrace, 0, 0, 0, 0); }},
                        Call{"unshare", [] { return syscall(SYS_unshare, CLONE_NEWNS); }},
                        Call{"pidfd_open", [] { return syscall(SYS_pidfd_open, getpid(), 0); }},
                        Call{"memfd_create", [] { return syscall(SYS_memfd_create, "x", 0); }}}) {
    int e = InChild([&] { return ErrnoOf(c.attempt()); });
    if (e == EPERM || e == ENOSYS) refused += std::string(refused.empty() ? "" : ", ") + c.name;
  }
  if (!refused.empty()) {
    f.verdict = Verdict::kPoor;
    f.detail += "; it refuses " + refused;
    f.remedy = "start the outer container with a profile that allows them";
  }
  return f;
}

Finding Dispatch() {
  int e = InChild([] { return ErrnoOf(prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0)); });
  if (e == 0) return {.what = "syscall user dispatch", .detail = "there"};
  return {.what = "syscall user dispatch",
          .verdict = Verdict::kPoor,
          .detail = std::strerror(e),
          .remedy = "Linux 5.11 or later has it; a seccomp filter stands in"};
}

Finding IoUring() {
  io_uring_params p{};
  UniqueFd fd(static_cast<int>(syscall(SYS_io_uring_setup, 1, &p)));
  if (fd) return {.what = "io_uring", .detail = "there"};
  return {.what = "io_uring",
          .verdict = Verdict::kPoor,
          .detail = std::strerror(errno),
          .remedy = "threads that block stand in; sysctl kernel.io_uring_disabled=0 allows it"};
}

Finding Cgroups() {
  std::vector<cgroup::Hierarchy> all = cgroup::HostHierarchies();
  if (all.empty()) {
    return {.what = "control groups",
            .verdict = Verdict::kMissing,
            .detail = "none is mounted",
            .remedy = "limits of a container cannot be enforced; --ignore-cgroups runs without"};
  }
  std::string seen;
  for (const cgroup::Hierarchy& h : all) {
    std::string controllers = FirstLine(h.mount_point + "/cgroup.controllers");
    for (const std::string& c : h.controllers) seen += c + " ";
    if (h.unified) seen += fmt::format("(version 2: {}) ", controllers.empty() ? "no controllers" : controllers);
  }
  seen.pop_back();
  Finding f{.what = "control groups", .detail = seen};
  if (access(all.front().mount_point.c_str(), W_OK) != 0) {
    f.verdict = Verdict::kPoor;
    f.remedy = "they cannot be written to by this user: limits of a container cannot be enforced";
  }
  return f;
}

Finding Network() {
  int e = InChild([] { return ErrnoOf(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)); });
  if (e == 0) return {.what = "packet sockets", .detail = "can be made"};
  return {.what = "packet sockets",
          .verdict = Verdict::kMissing,
          .detail = std::strerror(e),
          .remedy = "needs CAP_NET_RAW; --network=none works without"};
}

Finding Descriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  Finding f{.what = "open files", .detail = fmt::format("{} (at most {})", limit.rlim_cur, limit.rlim_max)};
  if (limit.rlim_max < 4096) {
    f.verdict = Verdict::kPoor;
    f.remedy = "each file name the sandbox remembers holds one; raise the hard limit (ulimit -Hn)";
  }
  return f;
}

}  // namespace

std::vector<Finding> Examine() {
  return {Kernel(),
          Platform("systrap", "use --platform=ptrace or kvm"),
          Platform("ptrace", "use --platform=systrap or kvm"),
          Kvm(),
          Namespaces(),
          UserNamespaces(),
          Yama(),
          Seccomp(),
          Dispatch(),
          IoUring(),
          Cgroups(),
          Network(),
          Descriptors()};
}

std::string Format(const std::vector<Finding>& findings) {
  std::string text;
  for (const Finding& f : findings) {
    const char* mark = f.verdict == Verdict::kWorks ? "ok" : f.verdict == Verdict::kPoor ? "poor" : "no";
    text += fmt::format("{:<4} {:<22} {}{}{}\n", mark, f.what, f.detail, f.remedy.empty() ? "" : "; ", f.remedy);
  }
  return text;
}

bool AnyPlatformWorks(const std::vector<Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& f) { return f.what.starts_with("platform ") && f.verdict == Verdict::kWorks; });
}

}  // namespace redoubt::doctor
