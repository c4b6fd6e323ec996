#include "runsc/sandbox/sandbox.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "pkg/platform/kvm/kvm.h"
#include "runsc/box/box.h"
#include "runsc/specutils/codec.h"

namespace redoubt::sandbox {
namespace {

std::unexpected<std::string> Fail(const char* what) {
  return std::unexpected(fmt::format("cannot start the sandbox: {}: {}", what, std::strerror(errno)));
}

// What the child needs, made before it exists: it shares this process's memory until it executes, so it must not
// allocate.
struct Program {
  std::vector<char*> argv;
  std::vector<int> fds;    // become descriptors 0, 1, 2, ... in the child; -1: none. All others close on exec
  std::vector<int> moved;  // the child's own notes
  int parent;              // pidfd
  unsigned long namespaces;
  uid_t uid;
  gid_t gid;
};

[[noreturn, gnu::noinline]] void Exec(Program& p) {
  // Dies with its parent, which may have died before this line.
  if (!box::BeforeExec(p.parent, p.namespaces, p.uid, p.gid)) _exit(kSetupFailed);
  // Out of the way of the target numbers first.
  for (size_t i = 0; i < p.fds.size(); i++)
    p.moved[i] = p.fds[i] < 0 ? -1 : fcntl(p.fds[i], F_DUPFD_CLOEXEC, static_cast<int>(p.fds.size()));
  for (size_t i = 0; i < p.moved.size(); i++) {
    if (p.moved[i] < 0) {
      close(static_cast<int>(i));
    } else {
      dup2(p.moved[i], static_cast<int>(i));
    }
  }
  // The caller may have been given descriptors without close-on-exec; the child gets what it is meant to have.
  close_range(static_cast<unsigned>(p.fds.size()), ~0U, CLOSE_RANGE_CLOEXEC);
  // The environment is the caller's business, not the sandbox's.
  char* env[] = {nullptr};
  execve("/proc/self/exe", p.argv.data(), env);
  _exit(kSetupFailed);
}

// With every signal blocked, in the child too: a Ctrl-C at the terminal goes to the whole process group and is the
// guest's, and comes to it by the connection.
pid_t Start(const std::vector<std::string>& args, const std::vector<int>& fds, int self) {
  Program p{.argv = {},
            .fds = fds,
            .moved = std::vector<int>(fds.size()),
            .parent = self,
            .namespaces = box::BirthNamespaces(),
            .uid = geteuid(),
            .gid = getegid()};
  for (const std::string& a : args) p.argv.push_back(const_cast<char*>(a.c_str()));
  p.argv.push_back(nullptr);
  // Not fork: that copies page tables, and then each page that either side writes, which takes longer than all the
  // rest. All signals are blocked, so no handler runs in the child.
  pid_t pid = box::Vfork(p.namespaces);
  if (pid == 0) Exec(p);
  return pid;
}

UniqueFd PidFd(pid_t pid) { return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))); }

bool AwaitReadable(int fd, int milliseconds) {
  pollfd p{fd, POLLIN, 0};
  int n = 0;
  while ((n = poll(&p, 1, milliseconds)) < 0 && errno == EINTR) {
  }
  return n > 0;
}

int Reap(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return 0;
  }
  return status;
}

// A new file that has no name, but for a moment on file systems that cannot do without. errno if there is none.
UniqueFd NamelessFile(const std::string& directory) {
  UniqueFd file(open(directory.c_str(), O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600));
  if (file || (errno != EOPNOTSUPP && errno != EISDIR)) return file;
  std::string name = directory + "/.runsc-overlay-XXXXXX";
  file = UniqueFd(mkostemp(name.data(), O_CLOEXEC));
  if (file) unlink(name.c_str());
  return file;
}

}  // namespace

Sandbox::Sandbox(Sandbox&& o) noexcept
    : boot_(std::exchange(o.boot_, -1)),
      gofer_(std::exchange(o.gofer_, -1)),
      boot_pidfd_(std::move(o.boot_pidfd_)),
      gofer_pidfd_(std::move(o.gofer_pidfd_)),
      gofer_reason_(std::move(o.gofer_reason_)),
      connection_(std::move(o.connection_)) {}

Sandbox::~Sandbox() { Kill(); }

Expected<Sandbox> Sandbox::Launch(const LaunchArgs& args) {
  specutils::SandboxOptions given = args.options;
  UniqueFd self = PidFd(getpid());
  if (!self) return Fail("pidfd_open");
  // What boot could not open itself in its box.
  UniqueFd kvm;
  given.kvm_device = ENOENT;
  if (given.platform == "kvm" || (given.platform == "auto" && platform::kvm::HasHardware())) {
    int fd = platform::kvm::OpenDevice();
    given.kvm_device = fd < 0 ? -fd : 0;
    if (fd >= 0) kvm = UniqueFd(fd);
  }
  std::string config = specutils::SerializeOptions(given);
  UniqueFd options(memfd_create("runsc-options", MFD_CLOEXEC));
  if (!options || pwrite(options.get(), config.data(), config.size(), 0) != static_cast<ssize_t>(config.size())) {
    return Fail("options");
  }
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return Fail("/dev/null");
  Result<std::pair<control::Connection, control::Connection>> pair = control::Connection::Pair();
  if (!pair) return Fail("socketpair");

  std::vector<std::string> gofer_args = {"runsc-gofer", "gofer"};
  // Without privileges, what the first process writes is the caller's, and the caller's files are its.
  const specutils::Process& first = args.spec.process;
  gofer_args.insert(gofer_args.end(), {"owner", std::to_string(first.uid), std::to_string(first.gid)});
  if (const specutils::IdMappings& ids = args.spec.id_mappings; !ids.empty()) {
    gofer_args.insert(gofer_args.end(), {"userns", specutils::MapText(ids.uids), specutils::MapText(ids.gids)});
    gofer_args.insert(gofer_args.end(), {"as", std::to_string(specutils::ServingId(ids.uids)),
                                         std::to_string(specutils::ServingId(ids.gids))});
  }
  UniqueFd reason(memfd_create("runsc-reason", MFD_CLOEXEC));
  if (!reason) return Fail("memfd");
  std::vector<int> gofer_fds = {null.get(), null.get(), args.gofer_log_fd >= 0 ? args.gofer_log_fd : null.get(),
                                reason.get()};
  std::vector<int> request_fds = args.stdio;
  for (int i = 0; i < args.preserved; i++) request_fds.push_back(3 + i);
  std::vector<UniqueFd> trees;
  auto add_tree = [&](const std::string& path, bool read_only) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return false;
    trees.emplace_back(ends[0]);
    trees.emplace_back(ends[1]);
    gofer_args.push_back(read_only ? "ro" : "rw");
    gofer_args.push_back(path);
    gofer_args.push_back(std::to_string(gofer_fds.size()));
    gofer_fds.push_back(ends[0]);
    request_fds.push_back(ends[1]);
    return true;
  };
  // Writes below a read-only or overlaid root never reach the gofer, which is told so too.
  if (!add_tree(args.spec.root_path, args.spec.root_read_only || args.spec.root_overlay)) return Fail("socketpair");
  for (const specutils::Mount& m : args.spec.mounts) {
    if (!m.is_bind()) continue;
    if (!add_tree(m.source, m.read_only() || m.overlay)) return Fail("socketpair");
    if (m.mapped == specutils::Mount::Mapped::kNo) continue;
    gofer_args.push_back(m.mapped == specutils::Mount::Mapped::kTree ? "ridmap" : "idmap");
    gofer_args.push_back(specutils::MapText(m.mappings.uids));
    gofer_args.push_back(specutils::MapText(m.mappings.gids));
  }

  UniqueFd disk;
  if (args.spec.root_overlay_on_disk) {
    disk = NamelessFile(args.spec.root_path);
    if (!disk) return Fail(("--overlay2=root:self: a file in " + args.spec.root_path).c_str());
    request_fds.push_back(disk.get());
  }

  control::Request request{.method = control::Method::kCreate,
                           .container = args.id,
                           .attach = true,
                           .start = args.start,
                           .preserved = static_cast<uint32_t>(args.preserved),
                           .body = specutils::SerializeSpec(args.spec)};
  Sandbox sandbox;
  sandbox.gofer_reason_ = std::move(reason);
  sandbox.connection_ = args.sentry_fd < 0 ? std::move(pair->first)
                                           : control::Connection(UniqueFd(fcntl(args.sentry_fd, F_DUPFD_CLOEXEC, 3)));
  // Into the socket before there is anybody to read it: boot finds it when it comes that far.
  if (Result<> sent = sandbox.connection_.Send(control::Serialize(request), request_fds); !sent) {
    errno = sent.error().value();
    return Fail("request");
  }
  if (args.sentry_fd < 0) {
    // Boot, which has more to do, first.
    sandbox.boot_ = Start({"runsc-sandbox", "boot"},
                          {null.get(), null.get(), null.get(), options.get(), args.log_fd, args.listen_fd,
                           pair->second.fd(), self.get(), kvm.get()},
                          self.get());
    if (sandbox.boot_ < 0) return Fail("fork");
    sandbox.boot_pidfd_ = PidFd(sandbox.boot_);
    if (!sandbox.boot_pidfd_) return Fail("pidfd_open");
  }
  if (given.allow_weak_box) gofer_args[1] = "gofer-weak";
  sandbox.gofer_ = Start(gofer_args, gofer_fds, self.get());
  if (sandbox.gofer_ < 0) return Fail("fork");
  sandbox.gofer_pidfd_ = PidFd(sandbox.gofer_);
  if (!sandbox.gofer_pidfd_) return Fail("pidfd_open");
  return sandbox;
}

std::string Sandbox::WhyNoGofer() const {
  char text[1000];
  const ssize_t n = pread(gofer_reason_.get(), text, sizeof(text), 0);
  return specutils::OneLine(std::string(text, n > 0 ? static_cast<size_t>(n) : 0));
}

std::string Sandbox::AwaitEnd(int milliseconds) {
  if (boot_ < 0) return "";
  if (!AwaitReadable(boot_pidfd_.get(), milliseconds)) {
    Kill();
    return "it did not end and was killed";
  }
  int status = Reap(std::exchange(boot_, -1));
  if (WIFSIGNALED(status))
    return fmt::format("it died of signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  if (WEXITSTATUS(status) != 0) return fmt::format("it exited with {}", WEXITSTATUS(status));
  return "";
}

void Sandbox::Kill() {
  for (pid_t* pid : {&boot_, &gofer_}) {
    if (*pid <= 0) continue;
    kill(*pid, SIGKILL);
    Reap(std::exchange(*pid, -1));
  }
}

}  // namespace redoubt::sandbox
