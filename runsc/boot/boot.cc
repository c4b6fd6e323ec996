#include "runsc/boot/boot.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/hostio/hostio.h"
#include "pkg/hostio/ring.h"
#include "pkg/log/log.h"
#include "pkg/platform/kvm/kvm.h"
#include "pkg/platform/ptrace/ptrace.h"
#include "pkg/platform/registry/registry.h"
#include "pkg/platform/systrap/systrap.h"
#include "pkg/sentry/fsimpl/dev/dev.h"
#include "pkg/sentry/fsimpl/devpts/devpts.h"
#include "pkg/sentry/fsimpl/host/host.h"
#include "pkg/sentry/kernel/job_control.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/loader/vdso/vdso.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/pipe/pipe.h"
#include "pkg/sentry/socket/inet/inet.h"
#include "pkg/sentry/socket/inet/link_events.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/socket/unix/unix.h"
#include "pkg/sentry/strace/strace.h"
#include "pkg/sentry/syscalls/table.h"
#include "pkg/sentry/vfs/locks.h"
#include "pkg/sentry/vfs/special_nodes.h"
#include "runsc/boot/crash.h"
#include "runsc/boot/mounts.h"
#include "runsc/boot/network.h"
#include "runsc/sandbox/sandbox.h"
#include "runsc/specutils/network.h"
#include "runsc/specutils/spec.h"

namespace redoubt::boot {
namespace {

using specutils::Expected;

constexpr int kNotFound = 127;
constexpr int kNotExecutable = 126;

int Fail(int code, const std::string& what) {
  fmt::print(stderr, "runsc: {}\n", what);
  return code;
}

std::string ReadAll(int fd) {
  std::string text;
  char buffer[16384];
  ssize_t n = 0;
  while ((n = read(fd, buffer, sizeof(buffer))) > 0) text.append(buffer, n);
  close(fd);
  return text;
}

Expected<std::pair<specutils::Spec, specutils::SandboxOptions>> ReadConfig() {
  return specutils::Deserialize(ReadAll(sandbox::kConfigFd));
}

// What the CLI has taken over: a file at `fd`, and the descriptors after it.
Expected<void> TakeOverNetwork(inetsock::Network& network, inetsock::LinkEvents& events, int fd) {
  Expected<specutils::NetworkConfig> config = specutils::DeserializeNetwork(ReadAll(fd));
  if (!config) return std::unexpected(config.error());
  std::vector<gofer::UniqueFd> sockets;
  for (size_t i = 0; i < config->links.size(); i++) {
    sockets.emplace_back(++fd);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  return ConfigureNetwork(network, events, *config, std::move(sockets));
}

RefPtr<auth::Credentials> MakeCreds(const specutils::Process& p) {
  RefPtr<auth::Credentials> c = auth::Credentials::ForUser(p.uid, p.gid, p.groups, 0);
  c->bounding = p.bounding;
  c->permitted = p.permitted & auth::kAllCapabilities;
  c->effective = p.effective & auth::kAllCapabilities;
  c->inheritable = p.inheritable & auth::kAllCapabilities;
  c->ambient = p.ambient & c->permitted & c->inheritable;
  c->no_new_privs = p.no_new_privileges;
  return c;
}

const auth::Credentials* CurrentCredentials() {
  kernel::Task* task = kernel::Task::Current();
  return task != nullptr ? &task->creds() : nullptr;
}

RefPtr<RefCounted> ControllingTerminal() {
  kernel::Task* task = kernel::Task::Current();
  if (task == nullptr) return nullptr;
  sync::MutexLock lock(task->kernel().mu);
  return task->group().ControllingTtyLocked();
}

// fcntl(2): closing any descriptor of a file drops the process's record locks on it.
void ReleaseRecordLocks(FdTable& table, vfs::FileDescription& file) {
  if (!file.path()) return;
  if (vfs::FileLocks* locks = file.inode().locks_if_any(); locks != nullptr) locks->ReleasePosix(&table);
}

// Stdio as the guest's descriptors 0 to 2. Returns the terminal among them, if there is one.
Expected<RefPtr<tty::Terminal>> ImportStdio(FdTable& fds, uint32_t uid, uint32_t gid) {
  RefPtr<tty::Terminal> terminal;
  struct stat previous{};
  RefPtr<vfs::FileDescription> previous_file;
  for (int fd : {0, 1, 2}) {
    struct stat st{};
    if (fstat(fd, &st) != 0) continue;  // closed on the host: closed in the guest
    RefPtr<vfs::FileDescription> file;
    int flags = fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND);
    // One terminal on all three is one description, so that job control sees one terminal.
    if (previous_file && S_ISCHR(st.st_mode) && st.st_dev == previous.st_dev && st.st_ino == previous.st_ino &&
        (previous_file->flags() & O_ACCMODE) == (flags & O_ACCMODE)) {
      file = previous_file;
    } else {
      Result<RefPtr<vfs::FileDescription>> imported = host::Import(fcntl(fd, F_DUPFD_CLOEXEC, 64), flags, uid, gid);
      if (!imported) {
        return std::unexpected(fmt::format("cannot use descriptor {}: {}", fd, imported.error().name()));
      }
      file = *imported;
    }
    previous = st;
    previous_file = file;
    if (!terminal) terminal = host::TerminalOf(*file);
    if (Result<> r = fds.InstallAt(fd, file, false, 3); !r) return std::unexpected(std::string(r.error().name()));
  }
  return terminal;
}

// Host signals go to the container: from a terminal to its foreground process group, others to the first process.
class SignalForwarder final {
 public:
  SignalForwarder(fiber::Executor& executor, kernel::Kernel& kernel) : executor_(executor), kernel_(kernel) {}

  void Start(RefPtr<kernel::ThreadGroup> init, RefPtr<tty::Terminal> terminal) {
    std::thread([this, init, terminal] {
      sigset_t all;
      sigfillset(&all);
      for (int sig : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGCHLD, SIGABRT}) sigdelset(&all, sig);
      while (true) {
        siginfo_t info;
        int sig = sigwaitinfo(&all, &info);
        if (sig <= 0) continue;
        bool keyboard = info.si_code == SI_KERNEL;
        executor_.Spawn([this, init, terminal, sig, keyboard] {
          if (keyboard && terminal) {
            terminal->SignalForeground(sig);
          } else if (sig != SIGWINCH && sig != SIGURG) {
            (void)kernel_.SendToGroup(*init, MakeSigInfo(sig, SI_KERNEL));
          }
        });
      }
    }).detach();
  }

 private:
  fiber::Executor& executor_;
  kernel::Kernel& kernel_;
};

// Everything after the machinery stands; runs on a fiber. The container's exit code.
int RunContainer(kernel::Kernel& kernel, const specutils::Spec& spec, const std::vector<int>& gofers,
                 SignalForwarder& signals) {
  Expected<RefPtr<vfs::MountNamespace>> mounts = MakeMounts(kernel, spec, gofers);
  if (!mounts) return Fail(sandbox::kSetupFailed, mounts.error());
  const specutils::Process& p = spec.process;
  RefPtr<FdTable> fds = MakeRef<FdTable>();
  Expected<RefPtr<tty::Terminal>> terminal = ImportStdio(*fds, p.uid, p.gid);
  if (!terminal) return Fail(sandbox::kSetupFailed, terminal.error());
  if (*terminal) dev::SetConsole(*terminal);

  kernel::Kernel::ProcessArgs args;
  args.argv = p.args;
  args.envv = p.env;
  args.cwd = p.cwd;
  args.creds = MakeCreds(p);
  args.mounts = *mounts;
  args.fds = fds;
  args.umask = p.umask;
  args.controlling_tty = *terminal;
  for (const specutils::Rlimit& r : p.rlimits) args.limits.push_back({r.resource, {r.soft, r.hard}});

  // The search of execvp(3), with the container's PATH.
  std::vector<std::string> candidates;
  if (p.args[0].find('/') != std::string::npos) {
    candidates.push_back(p.args[0]);
  } else {
    std::string path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (const std::string& e : p.env) {
      if (e.starts_with("PATH=")) path = e.substr(5);
    }
    for (size_t at = 0; at <= path.size();) {
      size_t colon = std::min(path.find(':', at), path.size());
      std::string directory = path.substr(at, colon - at);
      candidates.push_back((directory.empty() ? "." : directory) + "/" + p.args[0]);
      at = colon + 1;
    }
  }
  // Looked for first and started once, as the first process is to be number 1.
  vfs::Path root = (*mounts)->root();
  vfs::Walker walker{*args.creds, root};
  Errno failure{ENOENT};
  for (const std::string& candidate : candidates) {
    Result<vfs::Path> cwd = vfs::Lookup(walker, {.start = root, .name = p.cwd});
    if (!cwd) {
      (*mounts)->DropUser();
      return Fail(sandbox::kSetupFailed, fmt::format("working directory {}: {}", p.cwd, strerror(cwd.error().value())));
    }
    Result<vfs::Path> found = vfs::Lookup(walker, {.start = *cwd, .name = candidate});
    if (found && !found->inode().IsRegular()) found = Err(EACCES);
    if (found) {
      if (Result<> r = found->inode().CheckPermission(*args.creds, X_OK); !r) found = Err(r.error());
    }
    if (found) {
      args.filename = candidate;
      break;
    }
    if (found.error() != Errno(ENOENT) && found.error() != Errno(ENOTDIR)) failure = found.error();
  }
  Result<RefPtr<kernel::ThreadGroup>> init = Err(failure);
  if (!args.filename.empty()) init = kernel.CreateProcess(args);
  if (!init) {
    Errno e = init.error();
    (*mounts)->DropUser();
    if (e == Errno(ENOENT) || e == Errno(ENOTDIR)) {
      bool searched = p.args[0].find('/') == std::string::npos;
      return Fail(kNotFound, searched ? fmt::format("\"{}\": executable file not found in $PATH", p.args[0])
                                      : fmt::format("\"{}\": no such file or directory", p.args[0]));
    }
    if (e == Errno(EACCES) || e == Errno(EPERM))
      return Fail(kNotExecutable, fmt::format("\"{}\": permission denied", p.args[0]));
    if (e == Errno(ENOEXEC) || e == Errno(ELIBBAD) || e == Errno(EISDIR)) {
      return Fail(kNotExecutable, fmt::format("\"{}\": {}", p.args[0], strerror(e.value())));
    }
    return Fail(sandbox::kSetupFailed, fmt::format("\"{}\": {}", p.args[0], strerror(e.value())));
  }
  fds.reset();
  if (*terminal) (*terminal)->SetForeground((*init)->id, (*init)->id);
  signals.Start(*init, *terminal);

  int status = kernel.WaitForExit(**init);
  kernel.KillAll();
  (*mounts)->DropUser();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The fastest platform that works here. Systrap needs no look at anything that it would not look at anyway; without it,
// KVM beats ptrace only on a processor with virtualization.
Result<std::unique_ptr<platform::Platform>> CreateFastest(const platform::Requirements& requirements) {
  Result<std::unique_ptr<platform::Platform>> made = platform::systrap::Create(requirements);
  if (made) return made;
  LOG_WARNING("--platform=auto: systrap does not work here: {}", made.error().name());
  if (platform::kvm::HasHardware()) {
    made = platform::kvm::Create(requirements);
    if (made) return made;
    LOG_WARNING("--platform=auto: kvm does not work here: {}", made.error().name());
  }
  return platform::ptrace::Create(requirements);
}

}  // namespace

int BootMain() {
  log::SetProcessName("boot");
  prctl(PR_SET_NAME, "runsc-sandbox");
  signal(SIGPIPE, SIG_IGN);
  Expected<std::pair<specutils::Spec, specutils::SandboxOptions>> config = ReadConfig();
  if (!config) return Fail(sandbox::kSetupFailed, config.error());
  const auto& [spec, options] = *config;
  if (fcntl(sandbox::kLogFd, F_GETFD) >= 0) {
    fcntl(sandbox::kLogFd, F_SETFD, FD_CLOEXEC);
    log::Configure(sandbox::kLogFd, static_cast<log::Level>(options.log_level));
  } else {
    log::Configure(STDERR_FILENO, log::Level::kError);
  }
  InstallCrashHandler();
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  umask(0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Fail(sandbox::kSetupFailed, "PR_SET_NO_NEW_PRIVS failed");

  Result<std::unique_ptr<pgalloc::MemoryFile>> memory_file = pgalloc::MemoryFile::Create({.limit = options.memory});
  if (!memory_file) {
    return Fail(sandbox::kSetupFailed, fmt::format("cannot make the memory file: {}", memory_file.error().name()));
  }
  platform::Registry platforms;
  platforms.Add("systrap", platform::systrap::Create);
  platforms.Add("ptrace", platform::ptrace::Create);
  platforms.Add("kvm", platform::kvm::Create);
  platforms.Add("auto", CreateFastest);
  Result<std::unique_ptr<platform::Platform>> platform =
      platforms.Create(options.platform, {.spares = 2, .rewrite = options.rewrite, .memory_fd = (*memory_file)->fd()});
  if (!platform) {
    return Fail(sandbox::kSetupFailed,
                fmt::format("cannot use platform {}: {}", options.platform, platform.error().name()));
  }
  LOG_INFO("platform {}", (*platform)->name());
  Result<std::unique_ptr<loader::Vdso>> vdso = loader::Vdso::Create(**memory_file);
  if (!vdso) return Fail(sandbox::kSetupFailed, fmt::format("cannot make the vDSO: {}", vdso.error().name()));

  // Not destroyed at the end: the process ends with them, and the threads that still look at them.
  fiber::EventSource* events = (*platform)->event_source();
  if (options.io_uring) {
    Result<std::unique_ptr<hostio::Ring>> ring = hostio::Ring::Create(events);
    if (ring) {
      events = ring->get();
      hostio::Install(ring->release());
    } else {
      LOG_INFO("no io_uring here ({}): host files are read by threads that block", ring.error().name());
    }
  }
  inetsock::LinkEvents* link_events = nullptr;
  if (options.network == specutils::NetworkMode::kSandbox) {
    Result<std::unique_ptr<inetsock::LinkEvents>> made = inetsock::LinkEvents::Create(events);
    if (!made) return Fail(sandbox::kSetupFailed, fmt::format("cannot receive frames: {}", made.error().name()));
    events = link_events = made->release();
  }
  fiber::Executor* executor =
      fiber::ThreadedExecutor::Create({.slots = options.cpus, .thread_name = "runsc", .events = events}).release();
  (*vdso)->StartClock(*executor);
  auto* kernel = new kernel::Kernel({.platform = platform->get(),
                                     .memory_file = memory_file->get(),
                                     .executor = executor,
                                     .dispatcher = syscalls::Dispatch,
                                     .vdso = vdso->get(),
                                     .hostname = spec.hostname.empty() ? "redoubt" : spec.hostname,
                                     .cpus = options.cpus,
                                     .memory_size = options.memory});
  auto* job_control = new kernel::KernelJobControl(*kernel);
  tty::SetJobControl(job_control);
  vfs::SetSpecialNodeHooks({.open_fifo = pipe::OpenFifo, .current_credentials = CurrentCredentials});
  FdTable::SetCloseHook(ReleaseRecordLocks);
  dev::RegisterDevices({.controlling_terminal = ControllingTerminal});
  devpts::RegisterDevices();
  socket::RegisterFamily(AF_UNIX, unixsock::UnixFamily());
  // All of --network=none, and the beginning of the others.
  auto* network = new inetsock::Network(*executor);
  if (Result<> r = network->AddLoopback(); !r) {
    return Fail(sandbox::kSetupFailed, fmt::format("cannot make the loopback interface: {}", r.error().name()));
  }
  inetsock::RegisterFamilies(*network);
  RegisterFilesystems(*kernel, *network);
  if (options.strace) syscalls::SetTracer(strace::Trace);

  std::vector<int> gofers;
  size_t trees = 1;
  for (const specutils::Mount& m : spec.mounts) trees += m.is_bind() ? 1 : 0;
  for (size_t i = 0; i < trees; i++) {
    int fd = sandbox::kFirstGoferFd + static_cast<int>(i);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    gofers.push_back(fd);
  }
  if (link_events != nullptr) {
    int fd = sandbox::kFirstGoferFd + static_cast<int>(trees);
    if (Expected<void> r = TakeOverNetwork(*network, *link_events, fd); !r) {
      return Fail(sandbox::kSetupFailed, r.error());
    }
  }
  SignalForwarder signals(*executor, *kernel);
  int code = sandbox::kSetupFailed;
  executor->Spawn([&] { code = RunContainer(*kernel, spec, gofers, signals); });
  fiber::Join(*executor);
  if (options.report_missing) {
    for (const auto& [name, count] : syscalls::MissingCalls()) {
      fmt::print(stderr, "runsc: not implemented: {} ({} calls)\n", name, count);
    }
  }
  // Without destructors: guest processes are gone, and what is left goes with this one.
  fflush(stderr);
  _exit(code);
}

}  // namespace redoubt::boot
