#include "runsc/boot/mounts.h"

#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "pkg/log/log.h"
#include "pkg/p9/client.h"
#include "pkg/sentry/fsimpl/dev/dev.h"
#include "pkg/sentry/fsimpl/devpts/devpts.h"
#include "pkg/sentry/fsimpl/gofer/gofer.h"
#include "pkg/sentry/fsimpl/overlay/overlay.h"
#include "pkg/sentry/fsimpl/proc/proc.h"
#include "pkg/sentry/fsimpl/sys/sys.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/kernel/proc_view.h"
#include "pkg/sentry/socket/inet/net_table.h"
#include "pkg/sentry/syscalls/file_systems.h"

namespace redoubt::boot {
namespace {

struct FlagName {
  const char* name;
  uint64_t set;
  uint64_t clear;
};
constexpr FlagName kFlagNames[] = {
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"nosuid", MS_NOSUID, 0},
    {"suid", 0, MS_NOSUID},
    {"nodev", MS_NODEV, 0},
    {"dev", 0, MS_NODEV},
    {"noexec", MS_NOEXEC, 0},
    {"exec", 0, MS_NOEXEC},
    {"noatime", MS_NOATIME, 0},
    {"atime", 0, MS_NOATIME},
    {"nodiratime", MS_NODIRATIME, 0},
    {"relatime", MS_RELATIME, 0},
    {"strictatime", MS_STRICTATIME, 0},
    {"sync", MS_SYNCHRONOUS, 0},
    {"defaults", 0, 0},
    // How host mounts would propagate: there is nobody to propagate to.
    {"private", 0, 0},
    {"rprivate", 0, 0},
    {"slave", 0, 0},
    {"rslave", 0, 0},
    {"shared", 0, 0},
    {"rshared", 0, 0},
    {"unbindable", 0, 0},
    {"runbindable", 0, 0},
    {"bind", 0, 0},
    {"rbind", 0, 0},
    {"newinstance", 0, 0},
    {"norelatime", 0, 0},
    {"nostrictatime", 0, 0},
    {"async", 0, 0},
    {"silent", 0, 0},
    {"loud", 0, 0},
};

// mount(8)-style options as flags; the rest is the file system's.
uint64_t SplitOptions(const std::vector<std::string>& options, std::string* data) {
  uint64_t flags = 0;
  for (const std::string& option : options) {
    bool known = false;
    for (const FlagName& f : kFlagNames) {
      if (option != f.name) continue;
      flags = (flags | f.set) & ~f.clear;
      known = true;
    }
    if (known) continue;
    if (!data->empty()) *data += ',';
    *data += option;
  }
  return flags;
}

Result<RefPtr<vfs::Filesystem>> ConnectGofer(kernel::Kernel& kernel, int socket) {
  return goferfs::Create(TRY(p9::Client::Connect(socket)), kernel.memory_file());
}

// As runc does: a mount point that is not there is made, with its parents.
Result<> MakeMountPoint(const vfs::Walker& walker, const vfs::Path& root, const std::string& path, bool directory) {
  size_t at = 1;
  while (at < path.size()) {
    size_t slash = path.find('/', at);
    bool last = slash == std::string::npos || slash + 1 == path.size();
    std::string prefix = path.substr(0, slash);
    Result<vfs::Path> found = vfs::Lookup(walker, {.start = root, .name = prefix});
    if (!found) {
      if (found.error() != Errno(ENOENT)) return Err(found.error());
      if (last && !directory) {
        TRY(vfs::Mknod(walker, {.start = root, .name = prefix}, S_IFREG | 0644, 0));
      } else {
        TRY(vfs::Mkdir(walker, {.start = root, .name = prefix}, 0755));
      }
    }
    if (last) break;
    at = slash + 1;
  }
  return {};
}

}  // namespace

void RegisterFilesystems(kernel::Kernel& kernel, inetsock::Network& network) {
  using syscalls::RegisterFilesystem;
  kernel::Kernel* k = &kernel;
  RegisterFilesystem("tmpfs", [k](std::string_view, std::string_view options) -> Result<RefPtr<vfs::Filesystem>> {
    return tmpfs::Create(k->memory_file(), TRY(tmpfs::ParseOptions(options, k->memory_size())));
  });
  // A message-queue file system has only what mq_open makes, and that call is not there.
  RegisterFilesystem("mqueue", [k](std::string_view, std::string_view) -> Result<RefPtr<vfs::Filesystem>> {
    return tmpfs::Create(k->memory_file(), {.type_name = "mqueue"});
  });
  auto* view = new kernel::ProcView(
      kernel, [] { return syscalls::RegisteredFilesystems(); },
      [&network](std::string_view name) { return inetsock::NetTable(network, name); });  // lives as the kernel does
  RegisterFilesystem("proc", [view](std::string_view, std::string_view) -> Result<RefPtr<vfs::Filesystem>> {
    return proc::Create(*view);
  });
  RegisterFilesystem("sysfs", [k](std::string_view, std::string_view) -> Result<RefPtr<vfs::Filesystem>> {
    return sys::Create({.cpus = k->cpus(), .memory = k->memory_size(), .devices = {}});
  });
  RegisterFilesystem("devpts", [](std::string_view, std::string_view options) -> Result<RefPtr<vfs::Filesystem>> {
    return devpts::Create(TRY(devpts::ParseOptions(options)));
  });
  RegisterFilesystem("devtmpfs",
                     [k](std::string_view, std::string_view) { return dev::CreateDevtmpfs(k->memory_file()); });
}

specutils::Expected<RefPtr<vfs::MountNamespace>> MakeMounts(kernel::Kernel& kernel, const specutils::Spec& spec,
                                                            std::vector<UniqueFd> gofers) {
  auto fail = [](const std::string& what, Errno e) {
    return std::unexpected(fmt::format("cannot mount {}: {} ({})", what, strerror(e.value()), e.name()));
  };
  RefPtr<auth::Credentials> creds = auth::Credentials::Root();
  Result<RefPtr<vfs::Filesystem>> root_fs = ConnectGofer(kernel, gofers.at(0).release());
  if (!root_fs) return fail("the root file system", root_fs.error());
  if (spec.root_overlay || spec.root_read_only) {
    // Also for a read-only root: mount points that are missing are made in memory, not on the host.
    root_fs = overlay::Create(tmpfs::Create(kernel.memory_file(), {.root_mode = 0755}), *root_fs);
    if (!root_fs) return fail("the root's overlay", root_fs.error());
  }
  RefPtr<vfs::MountNamespace> ns = vfs::MountNamespace::Create(*root_fs, 0, "root");
  ns->AddUser();
  vfs::Path root = ns->root();
  vfs::Walker walker{*creds, root};
  auto abandon = [&](auto error) {
    ns->DropUser();
    return error;
  };

  size_t next_gofer = 1;
  for (const specutils::Mount& m : spec.mounts) {
    std::string data;
    uint64_t flags = SplitOptions(m.options, &data);
    std::string what = fmt::format("{} on {}", m.is_bind() ? m.source : m.type, m.destination);
    Result<RefPtr<vfs::Filesystem>> fs = Err(ENODEV);
    bool directory = true;
    if (m.is_bind()) {
      fs = ConnectGofer(kernel, gofers.at(next_gofer++).release());
      if (fs) directory = (*fs)->root()->IsDirectory();
    } else if (m.type == "tmpfs" && m.destination == "/dev") {
      // Engines ask for a tmpfs and expect the standard devices in it.
      fs = dev::CreateDevtmpfs(kernel.memory_file());
    } else if (m.type == "cgroup" || m.type == "cgroup2") {
      LOG_INFO("{}: there are no control groups inside; left out", m.destination);
      continue;
    } else {
      fs = syscalls::MakeFilesystem(m.type, m.source, data);
    }
    if (!fs) return abandon(fail(what, fs.error()));
    if (Result<> r = MakeMountPoint(walker, root, m.destination, directory); !r) return abandon(fail(what, r.error()));
    std::string source = m.source.empty() ? m.type : m.source;
    if (Result<> r = ns->MountAt(walker, {.start = root, .name = m.destination}, *fs, flags, source); !r) {
      return abandon(fail(what, r.error()));
    }
  }
  if (spec.root_read_only) {
    if (Result<> r = ns->RemountAt(walker, {.start = root, .name = "/"}, MS_RDONLY | MS_REMOUNT); !r) {
      return abandon(fail("the root read-only", r.error()));
    }
  }
  return ns;
}

}  // namespace redoubt::boot
