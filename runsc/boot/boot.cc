#include "runsc/boot/boot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <latch>
#include <memory>
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
#include "pkg/sentry/kernel/job_control.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/loader/vdso/vdso.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/pipe/pipe.h"
#include "pkg/sentry/socket/hostinet/hostinet.h"
#include "pkg/sentry/socket/inet/inet.h"
#include "pkg/sentry/socket/inet/link_events.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/netlink/netlink.h"
#include "pkg/sentry/socket/packet/packet.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/socket/unix/unix.h"
#include "pkg/sentry/strace/strace.h"
#include "pkg/sentry/syscalls/table.h"
#include "pkg/sentry/vfs/locks.h"
#include "pkg/sentry/vfs/special_nodes.h"
#include "runsc/boot/confine.h"
#include "runsc/boot/control_server.h"
#include "runsc/boot/crash.h"
#include "runsc/boot/inspect.h"
#include "runsc/boot/mounts.h"
#include "runsc/boot/network.h"
#include "runsc/boot/service.h"
#include "runsc/control/connection.h"
#include "runsc/control/protocol.h"
#include "runsc/sandbox/layout.h"
#include "runsc/specutils/codec.h"
#include "runsc/specutils/network.h"
#include "runsc/specutils/spec.h"

namespace redoubt::boot {
namespace {

using specutils::Expected;

Expected<specutils::SandboxOptions> ReadOptions() {
  std::string text;
  char buffer[4096];
  ssize_t n = 0;
  while ((n = read(sandbox::kOptionsFd, buffer, sizeof(buffer))) > 0) text.append(buffer, static_cast<size_t>(n));
  close(sandbox::kOptionsFd);
  return specutils::ParseOptions(text);
}

// Answers the request for the first container. Not before it has come: who closes a socket with something unread makes
// the other end lose the answer.
int Refuse(const control::Connection& connection, const std::string& what) {
  LOG_WARNING("cannot boot: {}", what);
  constexpr int kPatienceMs = 5000;
  pollfd request{.fd = connection.fd(), .events = POLLIN, .revents = 0};
  if (poll(&request, 1, kPatienceMs) == 1) (void)connection.Receive(MSG_DONTWAIT);
  (void)connection.Send(control::Serialize(control::Reply{.error = what, .code = sandbox::kSetupFailed}));
  return sandbox::kSetupFailed;
}

// Only what this process does itself gets through, and SIGKILL: the guest's signals come as requests.
void BlockSignals() {
  sigset_t blocked;
  sigfillset(&blocked);
  for (int sig : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT}) sigdelset(&blocked, sig);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
}

const auth::Credentials* CurrentCredentials() {
  kernel::Task* task = kernel::Task::Current();
  return task != nullptr ? &task->creds() : nullptr;
}

socket::Identity CurrentIdentity() {
  kernel::Task* task = kernel::Task::Current();
  if (task == nullptr) return {};
  return {.pid = task->group().pid, .uid = task->creds().euid, .gid = task->creds().egid};
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

// How many of this process's descriptors, of which there may be `limit`, may be sockets of the guest's: the rest is for
// what files, stubs and requests need.
int64_t HostSockets(rlim_t limit) {
  constexpr rlim_t kOthers = 4096;
  return static_cast<int64_t>(limit > 2 * kOthers ? std::min<rlim_t>(limit, INT32_MAX) - kOthers : limit / 2);
}

std::string_view FilterName(specutils::NetworkMode network) {
  switch (network) {
    case specutils::NetworkMode::kNone:
      return "none";
    case specutils::NetworkMode::kSandbox:
      return "sandbox";
    case specutils::NetworkMode::kHost:
      return "host";
  }
  return {};
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
  BlockSignals();
  fcntl(sandbox::kConnectionFd, F_SETFD, FD_CLOEXEC);
  fcntl(sandbox::kConnectionFd, F_SETFL, O_NONBLOCK);
  control::Connection connection{UniqueFd(sandbox::kConnectionFd)};
  UniqueFd listener;
  if (fcntl(sandbox::kListenFd, F_SETFD, FD_CLOEXEC) == 0) listener = UniqueFd(sandbox::kListenFd);
  Expected<specutils::SandboxOptions> options = ReadOptions();
  if (!options) return Refuse(connection, options.error());
  if (fcntl(sandbox::kLogFd, F_SETFD, FD_CLOEXEC) == 0) {
    log::Configure(sandbox::kLogFd, static_cast<log::Level>(options->log_level));
  } else {
    log::Configure(STDERR_FILENO, log::Level::kError);
  }
  InstallCrashHandler(&SyscallName);
  if (auto in_box = EnterBox(*options); !in_box) return Refuse(connection, in_box.error());
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  umask(0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Refuse(connection, "PR_SET_NO_NEW_PRIVS failed");

  if (options->memory_reserve > options->memory) return Refuse(connection, "more memory is reserved than there is");
  const uint64_t memory_limit = options->memory - options->memory_reserve;
  Result<std::unique_ptr<pgalloc::MemoryFile>> memory_file = pgalloc::MemoryFile::Create({.limit = memory_limit});
  if (!memory_file) {
    return Refuse(connection, fmt::format("cannot make the memory file: {}", memory_file.error().name()));
  }
  limits::System::Get().ScaleTo(memory_limit);
  platform::Registry platforms;
  platforms.Add("systrap", platform::systrap::Create);
  platforms.Add("ptrace", platform::ptrace::Create);
  platforms.Add("kvm", platform::kvm::Create);
  platforms.Add("auto", CreateFastest);
  Result<std::unique_ptr<platform::Platform>> platform = platforms.Create(
      options->platform, {.spares = 2, .rewrite = options->rewrite, .memory_fd = (*memory_file)->fd()});
  if (!platform) {
    return Refuse(connection, fmt::format("cannot use platform {}: {}", options->platform, platform.error().name()));
  }
  LOG_INFO("platform {}", (*platform)->name());
  Result<std::unique_ptr<loader::Vdso>> vdso = loader::Vdso::Create(**memory_file);
  if (!vdso) return Refuse(connection, fmt::format("cannot make the vDSO: {}", vdso.error().name()));

  // Not destroyed at the end: the process ends with them, and the threads that still look at them.
  fiber::EventSource* events = (*platform)->event_source();
  if (options->io_uring) {
    Result<std::unique_ptr<hostio::Ring>> ring = hostio::Ring::Create(events);
    if (ring) {
      events = ring->get();
      hostio::Install(ring->release());
    } else {
      LOG_INFO("no io_uring here ({}): host files are read by threads that block", ring.error().name());
    }
  }
  inetsock::LinkEvents* link_events = nullptr;
  const bool host_network = options->network == specutils::NetworkMode::kHost;
  if (options->network == specutils::NetworkMode::kSandbox || host_network) {
    Result<std::unique_ptr<inetsock::LinkEvents>> made = inetsock::LinkEvents::Create(events);
    if (!made) return Refuse(connection, fmt::format("cannot receive frames: {}", made.error().name()));
    events = link_events = made->release();
    if (Result<> r = host_network ? hostinet::TellBy(*link_events) : Result<>(); !r) {
      return Refuse(connection, fmt::format("cannot watch sockets: {}", r.error().name()));
    }
  }
  fiber::Executor* executor =
      fiber::ThreadedExecutor::Create({.slots = options->cpus, .thread_name = "runsc", .events = events}).release();
  (*vdso)->StartClock(*executor);
  auto* kernel = new kernel::Kernel({.platform = platform->get(),
                                     .memory_file = memory_file->get(),
                                     .executor = executor,
                                     .dispatcher = syscalls::Dispatch,
                                     .vdso = vdso->get(),
                                     .cpus = options->cpus,
                                     .memory_size = options->memory});
  auto* job_control = new kernel::KernelJobControl(*kernel);
  tty::SetJobControl(job_control);
  vfs::SetSpecialNodeHooks({.open_fifo = pipe::OpenFifo, .current_credentials = CurrentCredentials});
  FdTable::SetCloseHook(ReleaseRecordLocks);
  dev::RegisterDevices({.controlling_terminal = ControllingTerminal});
  devpts::RegisterDevices();
  socket::RegisterFamily(AF_UNIX, unixsock::UnixFamily());
  unixsock::SetCurrentIdentity(CurrentIdentity);
  // All of --network=none, and the beginning of the others.
  auto* network = new inetsock::Network(*executor);
  if (Result<> r = network->AddLoopback(); !r) {
    return Refuse(connection, fmt::format("cannot make the loopback interface: {}", r.error().name()));
  }
  inetsock::RegisterFamilies(*network);
  netlink::RegisterFamily(*network);
  if (host_network) {
    // Of the host's packets none is seen.
    network->SetReadOnly();
    hostinet::RegisterFamilies(HostSockets(limit.rlim_cur));
    hostinet::ListBy(*network);
  } else {
    packetsock::RegisterFamily(*network, kernel->memory_file());
  }
  RegisterFilesystems(*kernel, *network);
  if (options->strace) {
    if (!strace::Only(options->strace_only)) return Refuse(connection, "internal error: no such system call to trace");
    syscalls::SetTracer(strace::Trace);
  }

  // What the CLI has taken over of the container's network namespace, or has seen there.
  auto configure = [=](const std::string& body, std::vector<UniqueFd> fds) -> OrFailure<void> {
    if (link_events == nullptr) return {};
    Expected<specutils::NetworkConfig> config = specutils::DeserializeNetwork(body);
    if (!config) return boot::Fail(config.error());
    if (host_network) {
      ShowNetwork(*network, *config);
      return {};
    }
    if (config->links.size() != fds.size()) return boot::Fail("internal error: not one socket a link");
    Expected<void> done = ConfigureNetwork(*network, *link_events, *config, std::move(fds));
    if (!done) return boot::Fail(done.error());
    return {};
  };
  auto* service =
      new Service(*kernel, *options,
                  {.configure = configure, .last_words = [kernel, options = *options](const kernel::Container& first) {
                     return options.summary ? Summary(*kernel, first) : options.report_missing ? MissingText() : "";
                   }});
  auto* server = new ControlServer(*executor, std::move(listener),
                                   [service](RefPtr<Peer> peer, control::Request request, std::vector<UniqueFd> fds) {
                                     service->Handle(std::move(peer), std::move(request), std::move(fds));
                                   });
  // Before anything that somebody else has made is looked at, a request included. On a fiber: the executor has its
  // threads then.
  Expected<void> confined;
  std::latch done(1);
  executor->Spawn([&] {
    confined = Confine((*platform)->name(), FilterName(options->network));
    done.count_down();
  });
  done.wait();
  if (!confined) return Refuse(connection, confined.error());
  // Who has started us has gone before he asked for anything.
  service->set_first_peer(server->Add(std::move(connection), [] { _exit(sandbox::kSetupFailed); }));
  server->Run();
}

}  // namespace redoubt::boot
