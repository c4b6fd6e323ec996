// /proc/PID/mounts and mountinfo: proc(5), fstab(5).
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include "pkg/sentry/fsimpl/proc/filesystem.h"

namespace redoubt::proc {

namespace {

std::string Options(uint64_t flags) {
  std::string s = flags & MS_RDONLY ? "ro" : "rw";
  if (flags & MS_NOSUID) s += ",nosuid";
  if (flags & MS_NODEV) s += ",nodev";
  if (flags & MS_NOEXEC) s += ",noexec";
  if (flags & MS_NOATIME) s += ",noatime";
  if (flags & MS_NODIRATIME) s += ",nodiratime";
  if ((flags & (MS_NOATIME | MS_STRICTATIME)) == 0) s += ",relatime";
  if (flags & 256) s += ",nosymfollow";
  return s;
}

std::string Escape(std::string_view text) { return text.empty() ? "none" : EscapeOctal(text, " \t\n\\#"); }

}  // namespace

std::string EscapeOctal(std::string_view text, std::string_view what) {
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    if (what.find(c) == std::string_view::npos) {
      out += c;
    } else {
      out += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::string FormatMounts(vfs::MountNamespace& mounts, const vfs::Path& root) {
  std::string s;
  for (const vfs::MountInfo& m : mounts.Mounts(root)) {
    s += fmt::format("{} {} {} {}", Escape(m.source), Escape(m.mount_point), Escape(m.type), Options(m.ms_flags));
    if (!m.options.empty()) s += "," + m.options;
    s += " 0 0\n";
  }
  return s;
}

std::string FormatMountInfo(vfs::MountNamespace& mounts, const vfs::Path& root) {
  std::string s;
  for (const vfs::MountInfo& m : mounts.Mounts(root)) {
    s += fmt::format("{} {} {}:{} {} {} {} - {} {} {}", m.id, m.parent_id, major(m.dev), minor(m.dev), Escape(m.root),
                     Escape(m.mount_point), Options(m.ms_flags), Escape(m.type), Escape(m.source),
                     m.ms_flags & MS_RDONLY ? "ro" : "rw");
    if (!m.options.empty()) s += "," + m.options;
    s += '\n';
  }
  return s;
}

}  // namespace redoubt::proc
