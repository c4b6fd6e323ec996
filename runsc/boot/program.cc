#include "runsc/boot/program.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace redoubt::boot {
namespace {

constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

RefPtr<auth::Credentials> MakeCreds(const specutils::Process& p) {
  RefPtr<auth::Credentials> c = auth::Credentials::ForUser(p.uid, p.gid, p.groups, 0);
  c->bounding = p.bounding;
  c->permitted = p.permitted & auth::kAllCapabilities;
  c->effective = p.effective & auth::kAllCapabilities;
  c->inheritable = p.inheritable & auth::kAllCapabilities;
  c->ambient = p.ambient & c->permitted & c->inheritable;
  return c;
}

std::unexpected<Failure> NotMapped(const char* field, uint32_t id) {
  return Fail(fmt::format("process.user.{}: {} is not mapped in the container's user namespace", field, id));
}

// The names that execvp(3) would try.
std::vector<std::string> Candidates(const specutils::Process& p) {
  const std::string& program = p.args[0];
  if (program.find('/') != std::string::npos) return {program};
  std::string path = kDefaultPath;
  for (const std::string& e : p.env) {
    if (e.starts_with("PATH=")) path = e.substr(5);
  }
  std::vector<std::string> candidates;
  for (size_t at = 0; at <= path.size();) {
    size_t colon = std::min(path.find(':', at), path.size());
    std::string directory = path.substr(at, colon - at);
    candidates.push_back((directory.empty() ? "." : directory) + "/" + program);
    at = colon + 1;
  }
  return candidates;
}

}  // namespace

OrFailure<kernel::Kernel::ProcessArgs> PrepareProcess(const specutils::Process& p, RefPtr<vfs::MountNamespace> mounts,
                                                      const kernel::Container& container) {
  if (p.args.empty()) return Fail("process.args: no program given");
  if (!container.HasUid(p.uid)) return NotMapped("uid", p.uid);
  if (!container.HasGid(p.gid)) return NotMapped("gid", p.gid);
  for (uint32_t gid : p.groups) {
    if (!container.HasGid(gid)) return NotMapped("additionalGids", gid);
  }
  kernel::Kernel::ProcessArgs args;
  args.argv = p.args;
  args.envv = p.env;
  args.cwd = p.cwd;
  args.creds = MakeCreds(p);
  args.mounts = std::move(mounts);
  args.umask = p.umask;
  args.no_new_privs = p.no_new_privileges;
  args.oom_score_adj = p.oom_score_adj;
  for (const specutils::Rlimit& r : p.rlimits) args.limits.push_back({r.resource, {r.soft, r.hard}});

  vfs::Path root = args.mounts->root();
  vfs::Walker walker{*args.creds, root};
  Result<vfs::Path> cwd = vfs::Lookup(walker, {.start = root, .name = p.cwd});
  if (!cwd) return Fail(fmt::format("working directory {}: {}", p.cwd, strerror(cwd.error().value())));
  Errno error{ENOENT};
  for (const std::string& candidate : Candidates(p)) {
    Result<vfs::Path> found = vfs::Lookup(walker, {.start = *cwd, .name = candidate});
    if (found && !found->inode().IsRegular()) found = Err(EACCES);
    if (found) {
      if (Result<> r = found->inode().CheckPermission(*args.creds, X_OK); !r) found = Err(r.error());
    }
    if (found) {
      args.filename = candidate;
      return args;
    }
    if (found.error() != Errno(ENOENT) && found.error() != Errno(ENOTDIR)) error = found.error();
  }
  return std::unexpected(CannotStart(p, error));
}

Failure CannotStart(const specutils::Process& p, Errno e) {
  const std::string& program = p.args[0];
  if (e == Errno(ENOENT) || e == Errno(ENOTDIR)) {
    bool searched = program.find('/') == std::string::npos;
    return {.text = searched ? fmt::format("\"{}\": executable file not found in $PATH", program)
                             : fmt::format("\"{}\": no such file or directory", program),
            .code = sandbox::kNotFound};
  }
  if (e == Errno(EACCES) || e == Errno(EPERM)) {
    return {.text = fmt::format("\"{}\": permission denied", program), .code = sandbox::kNotExecutable};
  }
  if (e == Errno(ENOEXEC) || e == Errno(ELIBBAD) || e == Errno(EISDIR)) {
    return {.text = fmt::format("\"{}\": {}", program, strerror(e.value())), .code = sandbox::kNotExecutable};
  }
  return {.text = fmt::format("\"{}\": {}", program, strerror(e.value())), .code = sandbox::kSetupFailed};
}

}  // namespace redoubt::boot
