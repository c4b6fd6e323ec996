#include "runsc/boot/mount_options.h"

#include <fmt/format.h>
#include <sys/mount.h>

#include <algorithm>
#include <iterator>
#include <string_view>

#include "pkg/log/log.h"

namespace redoubt::boot {
namespace {

constexpr uint64_t kNoSymFollow = 256;  // MS_NOSYMFOLLOW, newer than the C library's headers

struct Attribute {
  std::string_view name;
  uint64_t set;
  uint64_t clear;
};
// Each may have an "r" before its name (mount_setattr(2), AT_RECURSIVE).
constexpr Attribute kAttributes[] = {
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
    {"diratime", 0, MS_NODIRATIME},
    {"relatime", MS_RELATIME, 0},
    {"norelatime", 0, MS_RELATIME},
    {"strictatime", MS_STRICTATIME, 0},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"nosymfollow", kNoSymFollow, 0},
    {"symfollow", 0, kNoSymFollow},
};

constexpr std::string_view kWithoutEffect[] = {
    "defaults", "bind", "rbind", "newinstance", "silent", "loud",
    // How host mounts would propagate: there is nobody to propagate to.
    "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable",
    // Done by who serves the tree.
    "idmap", "ridmap",
    // When the host writes is its own business; mandatory locks are gone from Linux.
    "sync", "async", "dirsync", "lazytime", "nolazytime", "iversion", "noiversion", "mand", "nomand", "notmpcopyup"};

struct Refused {
  std::string_view name;
  const char* why;
};
constexpr Refused kRefused[] = {
    {"remount", "what an earlier mount has set is not changed; give the options there"},
};

bool IsOf(std::string_view name, const auto& names) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool Apply(std::string_view option, uint64_t* flags) {
  for (const Attribute& a : kAttributes) {
    if (option != a.name && !(option.starts_with('r') && option.substr(1) == a.name)) continue;
    *flags = (*flags | a.set) & ~a.clear;
    return true;
  }
  return false;
}

}  // namespace

bool MountOptions::Has(const std::string& name) const {
  for (std::string_view rest = data; !rest.empty();) {
    std::string_view option = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), option.size() + 1));
    if (option.substr(0, option.find('=')) == name) return true;
  }
  return false;
}

specutils::Expected<MountOptions> ParseMountOptions(const specutils::Mount& mount) {
  MountOptions result;
  for (const std::string& option : mount.options) {
    for (const Refused& r : kRefused) {
      if (option == r.name || option.starts_with(std::string(r.name) + "=")) {
        return std::unexpected(fmt::format("option {}: {}", option, r.why));
      }
    }
    if (Apply(option, &result.flags) || IsOf(option, kWithoutEffect)) continue;
    if (option == "tmpcopyup") {
      if (mount.is_bind() || mount.type != "tmpfs") return std::unexpected("option tmpcopyup: is for tmpfs only");
      result.copy_up = true;
      continue;
    }
    if (mount.is_bind()) {
      // As with mount(2), which takes no data with MS_BIND; engines leave words of their own here.
      LOG_INFO("bind mount on {}: option {} means nothing and is ignored", mount.destination, option);
      continue;
    }
    if (!result.data.empty()) result.data += ',';
    result.data += option;
  }
  return result;
}

}  // namespace redoubt::boot
