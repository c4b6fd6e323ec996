// A Sentry assembled by hand: a tmpfs root, the ptrace platform, the program's own stdio, and nothing else. Runs one
// static program and exits as it did:
//
//   bazel run //test/examples:tiny_sentry -- /bin/busybox echo hello
//
// What it shows: each part is a library; this file is the only place that knows them all. Swap a line to swap a part.
#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/platform/ptrace/ptrace.h"
#include "pkg/sentry/fsimpl/host/host.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/loader/vdso/vdso.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/syscalls/table.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt {
namespace {

constexpr char kProgram[] = "/program";

// Copies a host file into the guest's tree.
Result<> Install(const char* host_path, const vfs::Walker& walker, const vfs::Path& root) {
  int fd = open(host_path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrFromHost();
  RefPtr<vfs::FileDescription> file =
      TRY(vfs::Open(walker, {.start = root, .name = kProgram}, {.flags = O_CREAT | O_WRONLY, .mode = 0755}));
  std::vector<std::byte> buffer(1 << 20);
  ssize_t n = 0;
  while ((n = read(fd, buffer.data(), buffer.size())) > 0) {
    BufferIo io(buffer);
    IoSequence src(io, 0, n);
    (void)TRY(file->Write(src, 0));
  }
  close(fd);
  if (n < 0) return Err(EIO);
  return {};
}

// Runs on a fiber: the wait(2) status of the program.
Result<int> RunProgram(kernel::Kernel& kernel, const std::vector<std::string>& args) {
  RefPtr<auth::Credentials> creds = auth::Credentials::Root();
  RefPtr<vfs::MountNamespace> mounts =
      vfs::MountNamespace::Create(tmpfs::Create(kernel.memory_file(), {.root_mode = 0755}), 0, "root");
  vfs::Path root = mounts->root();
  TRY(Install(args[0].c_str(), {*creds, root}, root));
  RefPtr<FdTable> fds = MakeRef<FdTable>();
  for (int fd : {0, 1, 2}) {
    int flags = fd == 0 ? O_RDONLY : O_WRONLY;
    TRY(fds->InstallAt(fd, TRY(host::Import(dup(fd), flags, 0, 0)), false, 3));
  }
  kernel::Kernel::ProcessArgs process;
  process.filename = kProgram;
  process.argv = args;
  process.envv = {"PATH=/"};
  process.creds = creds;
  process.mounts = mounts;
  process.fds = fds;
  RefPtr<kernel::ThreadGroup> init = TRY(kernel.CreateProcess(process));
  int status = kernel.WaitForExit(*init);
  kernel.KillAll();
  return status;
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: tiny_sentry STATIC-PROGRAM [ARG...]\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  auto memory_file = pgalloc::MemoryFile::Create({});
  if (!memory_file) {
    fmt::print(stderr, "tiny_sentry: memory file: {}\n", memory_file.error().name());
    return 1;
  }
  auto platform = platform::ptrace::Create({.memory_fd = (*memory_file)->fd()});
  if (!platform) {
    fmt::print(stderr, "tiny_sentry: ptrace: {}\n", platform.error().name());
    return 1;
  }
  auto vdso = loader::Vdso::Create(**memory_file);
  if (!vdso) {
    fmt::print(stderr, "tiny_sentry: vdso: {}\n", vdso.error().name());
    return 1;
  }
  std::unique_ptr<fiber::Executor> executor = fiber::ThreadedExecutor::Create({.slots = 1});
  kernel::Kernel kernel({.platform = platform->get(),
                         .memory_file = memory_file->get(),
                         .executor = executor.get(),
                         .dispatcher = syscalls::Dispatch,
                         .vdso = vdso->get()});
  Result<int> status = 0;
  executor->Spawn([&] { status = RunProgram(kernel, std::vector<std::string>(argv + 1, argv + argc)); });
  fiber::Join(*executor);
  if (!status) {
    fmt::print(stderr, "tiny_sentry: {}: {}\n", argv[1], status.error().name());
    return 127;
  }
  return WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + WTERMSIG(*status);
}

}  // namespace
}  // namespace redoubt

int main(int argc, char** argv) { return redoubt::Main(argc, argv); }
