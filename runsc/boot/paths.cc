#include "runsc/boot/paths.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/mount.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "pkg/log/log.h"
#include "pkg/sentry/fsimpl/dev/dev.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/syscalls/file_systems.h"

namespace redoubt::boot {
namespace {

bool IsMissing(Errno e) { return e == Errno(ENOENT) || e == Errno(ENOTDIR); }

std::string Why(Errno e) { return fmt::format("{} ({})", strerror(e.value()), e.name()); }

// A device node of our own making: the image's /dev need not have it, or may have something else of that name.
Result<vfs::Path> NullDevice(kernel::Kernel& kernel) {
  RefPtr<vfs::MountNamespace> devices =
      vfs::MountNamespace::Create(TRY(dev::CreateDevtmpfs(kernel.memory_file())), 0, "devtmpfs");
  RefPtr<auth::Credentials> creds = auth::Credentials::Root();
  vfs::Path root = devices->root();
  vfs::Walker walker{*creds, root};
  return vfs::Lookup(walker, {.start = root, .name = "null"});
}

Result<> Mask(kernel::Kernel& kernel, vfs::MountNamespace& mounts, const vfs::Walker& walker, const vfs::Path& at) {
  const vfs::At target{.start = at, .name = "", .empty_ok = true};
  if (at.inode().IsDirectory()) {
    return mounts.MountAt(walker, target, tmpfs::Create(kernel.memory_file(), {.root_mode = 0755}), MS_RDONLY, "tmpfs");
  }
  vfs::Path null = TRY(NullDevice(kernel));
  return mounts.BindAt(walker, {.start = null, .name = "", .empty_ok = true}, target, false);
}

Result<> MakeReadOnly(vfs::MountNamespace& mounts, const vfs::Walker& walker, const std::string& path,
                      const vfs::Path& at) {
  const vfs::At place{.start = at, .name = "", .empty_ok = true};
  TRY(mounts.BindAt(walker, place, place, true));
  return mounts.RemountAt(walker, {.start = walker.root, .name = path}, vfs::MountFlags(at) | MS_RDONLY);
}

// Of an IPC or network namespace, known to Linux and without effect here, whether /proc/sys shows them or not.
bool HasNoEffect(const std::string& name) {
  static constexpr const char* kNames[] = {"kernel.shm_rmid_forced",
                                           "kernel.sem",
                                           "kernel.msg_next_id",
                                           "kernel.sem_next_id",
                                           "kernel.shm_next_id",
                                           "kernel.auto_msgmni",
                                           "net.ipv4.ping_group_range",
                                           "net.ipv4.ip_local_port_range",
                                           "net.ipv4.ip_unprivileged_port_start",
                                           "net.ipv4.tcp_rmem",
                                           "net.ipv4.tcp_wmem"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

Result<> Write(const vfs::Path& path, std::string text) {
  RefPtr<vfs::FileDescription> file = TRY(path.inode().Open(path, O_WRONLY));
  BufferIo io(std::as_writable_bytes(std::span(text)));
  IoSequence source(io, 0, text.size());
  if (TRY(file->Write(source, {})) != text.size()) return Err(EIO);
  return {};
}

// /proc/sys of the container or, without one, of a procfs that nobody sees: to know what is known.
Result<vfs::Path> SysctlRoot(const vfs::Walker& walker) {
  Result<vfs::Path> found = vfs::Lookup(walker, {.start = walker.root, .name = "/proc/sys"});
  if (found && found->inode().filesystem().type_name() == "proc") return found;
  RefPtr<vfs::MountNamespace> alone =
      vfs::MountNamespace::Create(TRY(syscalls::MakeFilesystem("proc", "proc", "")), 0, "proc");
  vfs::Path root = alone->root();
  return vfs::Lookup({walker.creds, root}, {.start = root, .name = "sys"});
}

}  // namespace

OrFailure<void> ProtectPaths(kernel::Kernel& kernel, vfs::MountNamespace& mounts, const specutils::Spec& spec) {
  RefPtr<auth::Credentials> creds = auth::Credentials::Root();
  vfs::Path root = mounts.root();
  vfs::Walker walker{*creds, root};
  for (const std::string& path : spec.read_only_paths) {
    Result<vfs::Path> at = vfs::Lookup(walker, {.start = root, .name = path});
    if (!at && IsMissing(at.error())) continue;
    Result<> r = at ? MakeReadOnly(mounts, walker, path, *at) : Result<>(Err(at.error()));
    if (!r) return Fail(fmt::format("linux.readonlyPaths: {}: {}", path, Why(r.error())));
  }
  for (const std::string& path : spec.masked_paths) {
    Result<vfs::Path> at = vfs::Lookup(walker, {.start = root, .name = path});
    if (!at && IsMissing(at.error())) continue;
    Result<> r = at ? Mask(kernel, mounts, walker, *at) : Result<>(Err(at.error()));
    if (!r) return Fail(fmt::format("linux.maskedPaths: {}: {}", path, Why(r.error())));
  }
  return {};
}

OrFailure<void> SetSysctls(vfs::MountNamespace& mounts, const specutils::Spec& spec) {
  if (spec.sysctls.empty()) return {};
  RefPtr<auth::Credentials> creds = auth::Credentials::Root();
  vfs::Path root = mounts.root();
  vfs::Walker walker{*creds, root};
  Result<vfs::Path> sysctls = SysctlRoot(walker);
  if (!sysctls) return Fail(fmt::format("linux.sysctl: /proc/sys: {}", Why(sysctls.error())));
  for (const auto& [name, value] : spec.sysctls) {
    if (HasNoEffect(name)) {
      LOG_INFO("sysctl {} = {}: has no effect here", name, value);
      continue;
    }
    std::string file = name;
    std::replace(file.begin(), file.end(), '.', '/');
    Result<vfs::Path> at = vfs::Lookup(
        walker, {.start = *sysctls, .name = file, .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS});
    if (!at || !at->inode().IsRegular()) return Fail(fmt::format("sysctl {}: not known", name));
    if (Result<> r = Write(*at, value); !r) {
      return Fail(fmt::format("sysctl {}: cannot be set to \"{}\": {}", name, value, Why(r.error())));
    }
  }
  return {};
}

}  // namespace redoubt::boot
