// What the files of procfs share. Private to proc.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_PROC_FILESYSTEM_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_PROC_FILESYSTEM_H_

#include <memory>
#include <string>
#include <string_view>

#include "pkg/sentry/fsimpl/proc/kernel_view.h"
#include "pkg/sentry/fsimpl/synthetic/synthetic.h"

namespace redoubt::proc {

class ProcFilesystem final : public synthetic::SyntheticFilesystem {
 public:
  explicit ProcFilesystem(std::shared_ptr<KernelView> view);
  RefPtr<vfs::Inode> root() override { return root_; }
  KernelView& view() const { return *view_; }
  // /proc/PID/net, the same for all.
  const RefPtr<synthetic::Directory>& net() const { return net_; }
  // The same on every mount of one boot: random/boot_id.
  const std::string& boot_id() const { return boot_id_; }

 private:
  const std::shared_ptr<KernelView> view_;
  const std::string boot_id_;
  const RefPtr<synthetic::Directory> net_;
  const RefPtr<vfs::Inode> root_;
};

// The parts of the tree, each in its file.
RefPtr<synthetic::Directory> MakeRoot(ProcFilesystem& fs);
RefPtr<synthetic::Directory> MakeSysDirectory(ProcFilesystem& fs);
RefPtr<synthetic::Directory> MakeNetDirectory(ProcFilesystem& fs);
void AddSystemFiles(ProcFilesystem& fs, synthetic::Directory& root);

// /proc/mounts and /proc/PID/mountinfo, for one who stands at `root`.
std::string FormatMounts(vfs::MountNamespace& mounts, const vfs::Path& root);
std::string FormatMountInfo(vfs::MountNamespace& mounts, const vfs::Path& root);
// Spaces, tabs, newlines and backslashes as octal escapes.
std::string EscapeOctal(std::string_view text, std::string_view what);
// One processor's paragraph of /proc/cpuinfo.
std::string FormatCpu(int index, int cpus);
std::string RandomUuid();

}  // namespace redoubt::proc

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_PROC_FILESYSTEM_H_
