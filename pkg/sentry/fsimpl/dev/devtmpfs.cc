#include <sys/sysmacros.h>

#include <utility>

#include "pkg/sentry/fsimpl/dev/dev.h"
#include "pkg/sentry/fsimpl/dev/mem_devices.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/tty/job_control.h"
#include "pkg/sentry/vfs/device.h"

namespace redoubt::dev {

namespace {

constexpr uint32_t kTtyMajor = 5;
constexpr uint32_t kTtyMinor = 0, kConsoleMinor = 1;

constinit Hooks hooks;
constinit sync::Mutex console_mu{sync::Rank::kLeaf};
RefPtr<RefCounted>* console = nullptr;  // guarded by console_mu; never destroyed

Result<RefPtr<vfs::FileDescription>> OpenTty(const vfs::Path& path, uint32_t minor, int flags) {
  RefPtr<RefCounted> terminal;
  if (minor == kTtyMinor) {
    if (hooks.controlling_terminal != nullptr) terminal = hooks.controlling_terminal();
  } else {
    sync::MutexLock lock(console_mu);
    if (console != nullptr) terminal = *console;
  }
  auto* tty = dynamic_cast<tty::Terminal*>(terminal.get());
  if (tty == nullptr) return Err(ENXIO);
  return tty->OpenTerminal(path, flags);
}

struct Node {
  const char* name;
  uint32_t mode, major, minor;
};
constexpr Node kNodes[] = {
    {"null", 0666, kMemMajor, kNullMinor},       {"zero", 0666, kMemMajor, kZeroMinor},
    {"full", 0666, kMemMajor, kFullMinor},       {"random", 0666, kMemMajor, kRandomMinor},
    {"urandom", 0666, kMemMajor, kUrandomMinor}, {"tty", 0666, kTtyMajor, kTtyMinor},
    {"console", 0620, kTtyMajor, kConsoleMinor},
};
struct Link {
  const char* name;
  const char* target;
};
constexpr Link kLinks[] = {
    {"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"}, {"core", "/proc/kcore"},      {"ptmx", "pts/ptmx"},
};

}  // namespace

void RegisterDevices(const Hooks& h) {
  hooks = h;
  vfs::RegisterCharDevice(kMemMajor, 0, 16, "mem", OpenMemDevice);
  vfs::RegisterCharDevice(kTtyMajor, kTtyMinor, 1, "/dev/tty", OpenTty);
  vfs::RegisterCharDevice(kTtyMajor, kConsoleMinor, 1, "/dev/console", OpenTty);
}

void SetConsole(RefPtr<RefCounted> terminal) {
  sync::MutexLock lock(console_mu);
  if (console == nullptr) console = new RefPtr<RefCounted>();
  std::swap(*console, terminal);
}

Result<RefPtr<vfs::Filesystem>> CreateDevtmpfs(pgalloc::MemoryFile& memory_file) {
  RefPtr<vfs::Filesystem> fs = tmpfs::Create(memory_file, {.type_name = "devtmpfs", .root_mode = 0755});
  // Not mounted yet: nobody else is here.
  RefPtr<vfs::Inode> root = fs->root();
  for (const Node& n : kNodes) {
    TRY(root->Create(n.name, {.mode = S_IFCHR | n.mode, .rdev = makedev(n.major, n.minor)}));
  }
  for (const Link& l : kLinks) TRY(root->Symlink(l.name, l.target, {.mode = S_IFLNK | 0777}));
  TRY(root->Mkdir("pts", {.mode = S_IFDIR | 0755}));
  TRY(root->Mkdir("shm", {.mode = S_IFDIR | 01777}));
  return fs;
}

}  // namespace redoubt::dev
