#include "runsc/boot/mounts.h"

#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "pkg/p9/client.h"
#include "pkg/sentry/fsimpl/cgroup/cgroup.h"
#include "pkg/sentry/fsimpl/copy/copy.h"
#include "pkg/sentry/fsimpl/dev/dev.h"
#include "pkg/sentry/fsimpl/devpts/devpts.h"
#include "pkg/sentry/fsimpl/gofer/gofer.h"
#include "pkg/sentry/fsimpl/overlay/overlay.h"
#include "pkg/sentry/fsimpl/proc/proc.h"
#include "pkg/sentry/fsimpl/sys/sys.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/kernel/proc_view.h"
#include "pkg/sentry/socket/inet/net_table.h"
#include "pkg/sentry/socket/packet/packet.h"
#include "pkg/sentry/socket/unix/unix.h"
#include "pkg/sentry/syscalls/file_systems.h"
#include "pkg/sentry/syscalls/ipc_namespace.h"
#include "runsc/boot/mount_options.h"

namespace redoubt::boot {
namespace {

Result<RefPtr<vfs::Filesystem>> ConnectGofer(kernel::Kernel& kernel, int socket, bool exclusive) {
  return goferfs::Create(TRY(p9::Client::Connect(socket)), kernel.memory_file(),
                         exclusive ? goferfs::Access::kExclusive : goferfs::Access::kShared);
}

// A directory tree whose changes are kept in memory, or their contents in the file.
Result<RefPtr<vfs::Filesystem>> Overlaid(kernel::Kernel& kernel, RefPtr<vfs::Filesystem> lower, UniqueFd file = {}) {
  std::unique_ptr<pgalloc::MemoryFile> disk;
  if (file) disk = TRY(pgalloc::MemoryFile::CreateOnFile(file.release()));
  return overlay::Create(
      tmpfs::Create(kernel.memory_file(),
                    {.inode_limit = tmpfs::DefaultInodes(kernel.memory_size()), .root_mode = 0755}, std::move(disk)),
      std::move(lower));
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

std::string Why(Errno e) { return fmt::format("{} ({})", strerror(e.value()), e.name()); }

// As above: the options' fault, if one alone is refused as well.
std::string WhyOptions(const std::string& type, const std::string& source, std::string_view data, Errno e) {
  if (e != Errno(EINVAL)) return Why(e);
  while (!data.empty()) {
    std::string option(data.substr(0, data.find(',')));
    data.remove_prefix(std::min(data.size(), option.size() + 1));
    if (!syscalls::MakeFilesystem(type, source, option)) return fmt::format("option {}: {}", option, Why(e));
  }
  return Why(e);
}

// File systems that take no options, or whose options nothing here acts on.
specutils::Expected<void> CheckData(const std::string& type, const std::string& data) {
  if (data.empty() || (type == "proc" && data == "hidepid=0")) return {};
  for (const char* without : {"proc", "sysfs", "mqueue", "cgroup", "cgroup2"}) {
    if (type == without) return std::unexpected(fmt::format("option {}: {} has no such option here", data, type));
  }
  return {};
}

// Shows the processes of that namespace; null: of the outermost. Set by RegisterFilesystems.
std::function<RefPtr<vfs::Filesystem>(RefPtr<kernel::PidNamespace>)>& MakeProc() {
  static auto* make = new std::function<RefPtr<vfs::Filesystem>(RefPtr<kernel::PidNamespace>)>();
  return *make;
}

cgroup::Limits LimitsOf(const specutils::Resources& r) {
  auto positive = [](auto limit) {
    return limit && *limit > 0 ? std::optional(static_cast<uint64_t>(*limit)) : std::nullopt;
  };
  return {.memory = positive(r.memory_limit),
          .cpu_quota = positive(r.cpu_quota),
          .cpu_period = positive(r.cpu_period),
          .pids = positive(r.pids_limit)};
}

cgroup::Usage UsageOf(kernel::Kernel& kernel, const RefPtr<kernel::Container>& container) {
  kernel::Kernel* k = &kernel;
  return {.memory = [k] { return k->memory_file().usage(); },
          .cpu_user_ns = [k, container] { return static_cast<uint64_t>(k->CpuOf(*container).user); },
          .cpu_system_ns = [k, container] { return static_cast<uint64_t>(k->CpuOf(*container).system); },
          .pids =
              [k, container] {
                uint64_t tasks = 0;
                for (const RefPtr<kernel::ThreadGroup>& g : k->GroupsOf(*container)) tasks += k->TasksOf(*g).size();
                return tasks;
              }};
}

specutils::Expected<RefPtr<vfs::Filesystem>> RootFilesystem(kernel::Kernel& kernel, const specutils::Spec& spec,
                                                            int gofer, UniqueFd disk) {
  Result<RefPtr<vfs::Filesystem>> fs = ConnectGofer(kernel, gofer, spec.root_exclusive);
  if (!fs) return std::unexpected(fmt::format("cannot mount the root file system: {}", Why(fs.error())));
  if (!spec.root_overlay && !spec.root_read_only) return *std::move(fs);
  // Also for a read-only root: mount points that are missing are made in memory, not on the host.
  fs = Overlaid(kernel, *std::move(fs), std::move(disk));
  if (!fs) return std::unexpected(fmt::format("cannot mount the root's overlay: {}", Why(fs.error())));
  return *std::move(fs);
}

// Mounts one after the other, as config.json has them.
class Builder final {
 public:
  Builder(kernel::Kernel& kernel, const RefPtr<kernel::Container>& container, const specutils::Spec& spec,
          vfs::MountNamespace& ns)
      : kernel_(kernel), container_(container), spec_(spec), ns_(ns), root_(ns.root()), walker_{*creds_, root_} {}

  specutils::Expected<void> Add(const specutils::Mount& m, int gofer) {
    specutils::Expected<MountOptions> options = ParseMountOptions(m);
    if (!options) return std::unexpected(options.error());
    if (m.is_bind()) return Bind(m, *options, gofer);
    if (auto checked = CheckData(m.type, options->data); !checked) return checked;
    if (m.type == "tmpfs" && m.destination == "/dev") {
      // Engines ask for a tmpfs and expect the standard devices in it.
      return Mount(m, *options, dev::CreateDevtmpfs(kernel_.memory_file()));
    }
    if (m.type == "tmpfs") return Tmpfs(m, *options);
    if (m.type == "cgroup" || m.type == "cgroup2") {
      return Mount(m, *options, cgroup::Create(LimitsOf(spec_.resources), UsageOf(kernel_, container_)));
    }
    if (m.type == "proc") return Mount(m, *options, MakeProc()(container_->pid_ns));
    return Mount(m, *options, syscalls::MakeFilesystem(m.type, m.source, options->data));
  }

  Result<> Remount(const std::string& path, uint64_t flags) {
    return ns_.RemountAt(walker_, {.start = root_, .name = path}, flags);
  }

 private:
  specutils::Expected<void> Mount(const specutils::Mount& m, const MountOptions& options,
                                  Result<RefPtr<vfs::Filesystem>> fs) {
    if (!fs) return std::unexpected(WhyOptions(m.type, m.source, options.data, fs.error()));
    // A directory's name on the host is not the guest's to know.
    const std::string source = m.is_bind() ? "none" : m.source.empty() ? m.type : m.source;
    Result<> r = MakeMountPoint(walker_, root_, m.destination, (*fs)->root()->IsDirectory());
    if (r) r = ns_.MountAt(walker_, {.start = root_, .name = m.destination}, *fs, options.flags, source);
    if (!r) return std::unexpected(Why(r.error()));
    return {};
  }

  specutils::Expected<void> Bind(const specutils::Mount& m, const MountOptions& options, int gofer) {
    Result<RefPtr<vfs::Filesystem>> fs = ConnectGofer(kernel_, gofer, m.exclusive);
    if (!fs) return std::unexpected(Why(fs.error()));
    if (!m.overlay) return Mount(m, options, std::move(fs));
    if ((*fs)->root()->IsDirectory()) return Mount(m, options, Overlaid(kernel_, *std::move(fs)));
    if (Result<> r = BindCopy(m, options, **fs); !r) {
      return std::unexpected(fmt::format("--overlay2: copying the file to memory: {}", Why(r.error())));
    }
    return {};
  }

  // A single file has no directory to lay another over.
  Result<> BindCopy(const specutils::Mount& m, const MountOptions& options, vfs::Filesystem& fs) {
    constexpr std::string_view kName = "file";
    RefPtr<vfs::Inode> file = fs.root();
    const vfs::Attributes attrs = TRY(file->GetAttributes());
    if (attrs.size > kMaxCopiedFile) return Err(EFBIG);
    RefPtr<vfs::Filesystem> memory = tmpfs::Create(kernel_.memory_file(), {.root_mode = 0755});
    RefPtr<vfs::Inode> made =
        TRY(memory->root()->Create(kName, {.mode = attrs.mode, .uid = attrs.uid, .gid = attrs.gid}));
    TRY(copy::Data(*file, *made, attrs.size));
    TRY(made->SetAttributes({.atime = attrs.atime, .mtime = attrs.mtime}));
    RefPtr<vfs::MountNamespace> alone = vfs::MountNamespace::Create(memory, 0, "tmpfs");
    vfs::Path top = alone->root();
    vfs::Path path = TRY(vfs::Lookup({*creds_, top}, {.start = top, .name = kName}));
    TRY(MakeMountPoint(walker_, root_, m.destination, false));
    TRY(ns_.BindAt(walker_, {.start = path, .name = "", .empty_ok = true}, {.start = root_, .name = m.destination},
                   false));
    return Remount(m.destination, options.flags);
  }

  // Over a directory that is there already it is as that was, where the options do not say otherwise; runc does so.
  specutils::Expected<void> Tmpfs(const specutils::Mount& m, MountOptions options) {
    Result<vfs::Path> below = vfs::Lookup(walker_, {.start = root_, .name = m.destination});
    const bool there = below && below->inode().IsDirectory();
    if (there) {
      Result<vfs::Attributes> attrs = below->inode().GetAttributes();
      if (!attrs) return std::unexpected(Why(attrs.error()));
      auto add = [&](const char* name, const std::string& value) {
        if (!options.Has(name)) options.data += fmt::format("{}{}={}", options.data.empty() ? "" : ",", name, value);
      };
      add("mode", fmt::format("{:o}", attrs->mode & 07777));
      if (options.copy_up) {
        add("uid", std::to_string(attrs->uid));
        add("gid", std::to_string(attrs->gid));
      }
    }
    Result<RefPtr<vfs::Filesystem>> fs = syscalls::MakeFilesystem("tmpfs", m.source, options.data);
    if (fs && there && options.copy_up) {
      if (Result<> copied = copy::Tree(below->inode(), *(*fs)->root()); !copied) {
        const Errno e = copied.error();
        return std::unexpected(fmt::format("option tmpcopyup: copying what {} holds: {}", m.destination,
                                           e == Errno(E2BIG) ? std::string("too many files") : Why(e)));
      }
    }
    return Mount(m, options, std::move(fs));
  }

  static constexpr uint64_t kMaxCopiedFile = 64 << 20;

  kernel::Kernel& kernel_;
  const RefPtr<kernel::Container>& container_;
  const specutils::Spec& spec_;
  vfs::MountNamespace& ns_;
  const RefPtr<auth::Credentials> creds_ = auth::Credentials::Root();
  const vfs::Path root_;
  const vfs::Walker walker_;
};

std::optional<proc::KernelView::NetSetting> FindNetSetting(inetsock::Network& network, std::string_view name) {
  if (name != "ipv4/tcp_fastopen") return std::nullopt;
  std::atomic<uint8_t>* bits = &network.tcp().sysctls().fast_open;
  return proc::KernelView::NetSetting{.get = [bits] { return bits->load(); },
                                      .set = [bits](int64_t n) { bits->store(static_cast<uint8_t>(n)); }};
}

}  // namespace

void RegisterFilesystems(kernel::Kernel& kernel, inetsock::Network& network) {
  using syscalls::RegisterFilesystem;
  kernel::Kernel* k = &kernel;
  RegisterFilesystem("tmpfs", [k](std::string_view, std::string_view options) -> Result<RefPtr<vfs::Filesystem>> {
    return tmpfs::Create(k->memory_file(), TRY(tmpfs::ParseOptions(options, k->memory_size())));
  });
  RegisterFilesystem("mqueue", [k](std::string_view, std::string_view options) -> Result<RefPtr<vfs::Filesystem>> {
    if (!options.empty()) return Err(EINVAL);
    return syscalls::IpcNamespace(*k)->posix_queues.filesystem();
  });
  MakeProc() = [k, &network](RefPtr<kernel::PidNamespace> ns) {
    return proc::Create(std::make_shared<kernel::ProcView>(
        *k, std::move(ns), [] { return syscalls::RegisteredFilesystems(); },
        [&network](std::string_view name) {
          if (name == "unix") return unixsock::NetTable();
          if (name == "packet") return packetsock::NetTable();
          return inetsock::NetTable(network, name);
        },
        [&network](std::string_view name) { return FindNetSetting(network, name); }));
  };
  RegisterFilesystem("proc", [](std::string_view, std::string_view) -> Result<RefPtr<vfs::Filesystem>> {
    kernel::Task* task = kernel::Task::Current();
    return MakeProc()(task != nullptr ? RefPtr<kernel::PidNamespace>(&task->pid_ns()) : nullptr);
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

specutils::Expected<RefPtr<vfs::MountNamespace>> MakeMounts(kernel::Kernel& kernel,
                                                            const RefPtr<kernel::Container>& container,
                                                            const specutils::Spec& spec, std::vector<UniqueFd> gofers,
                                                            UniqueFd disk) {
  specutils::Expected<RefPtr<vfs::Filesystem>> root =
      RootFilesystem(kernel, spec, gofers.at(0).release(), std::move(disk));
  if (!root) return std::unexpected(root.error());
  RefPtr<vfs::MountNamespace> ns = vfs::MountNamespace::Create(*root, 0, "root");
  ns->AddUser();
  Builder builder(kernel, container, spec, *ns);
  size_t next_gofer = 1;
  for (const specutils::Mount& m : spec.mounts) {
    specutils::Expected<void> done = builder.Add(m, m.is_bind() ? gofers.at(next_gofer++).release() : -1);
    if (!done) {
      ns->DropUser();
      return std::unexpected(
          fmt::format("cannot mount {} on {}: {}", m.is_bind() ? m.source : m.type, m.destination, done.error()));
    }
  }
  if (spec.root_read_only) {
    if (Result<> r = builder.Remount("/", MS_RDONLY | MS_REMOUNT); !r) {
      ns->DropUser();
      return std::unexpected(fmt::format("cannot mount the root read-only: {}", Why(r.error())));
    }
  }
  return ns;
}

}  // namespace redoubt::boot
