#include "pkg/sentry/fsimpl/devpts/devpts.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pkg/sentry/fsimpl/devpts/pty.h"
#include "pkg/sentry/fsimpl/synthetic/synthetic.h"
#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/device.h"
#include "pkg/sentry/vfs/mount.h"
#include "pkg/sentry/vfs/special_nodes.h"

namespace redoubt::devpts {

namespace {

constexpr uint32_t kPtmxMajor = 5, kPtmxMinor = 2;

class Root;

// /dev/pts/N. Lives as long as the master is open, and then as long as someone stands on it.
class SlaveInode final : public synthetic::SyntheticInode {
 public:
  SlaveInode(synthetic::SyntheticFilesystem& fs, uint32_t mode, synthetic::Owner owner, RefPtr<Pty> pty)
      : SyntheticInode(fs, S_IFCHR | mode, owner, synthetic::Changeable::kYes, pty->device()), pty_(std::move(pty)) {}
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override {
    return pty_->OpenSlave(path, flags);
  }

 private:
  const RefPtr<Pty> pty_;
};

// /dev/pts/ptmx: every open makes a pair.
class PtmxInode final : public synthetic::SyntheticInode {
 public:
  PtmxInode(synthetic::SyntheticFilesystem& fs, uint32_t mode, Root& root)
      : SyntheticInode(fs, S_IFCHR | mode, {}, synthetic::Changeable::kYes, makedev(kPtmxMajor, kPtmxMinor)),
        root_(root) {}
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;

 private:
  Root& root_;  // holds this
};

class Root final : public synthetic::Directory {
 public:
  Root(synthetic::SyntheticFilesystem& fs, const Options& options) : Directory(fs, 0755), options_(options) {}

  vfs::LookupCache lookup_cache() const override { return vfs::LookupCache::kUncached; }

  Result<RefPtr<Pty>> Allocate() EXCLUDES(mu_) {
    synthetic::Owner owner{.uid = 0, .gid = 0};
    if (const auth::Credentials* creds = vfs::CurrentCredentials()) owner = {creds->fsuid, creds->fsgid};
    if (options_.slave_uid >= 0) owner.uid = static_cast<uint32_t>(options_.slave_uid);
    if (options_.slave_gid >= 0) owner.gid = static_cast<uint32_t>(options_.slave_gid);
    sync::MutexLock lock(mu_);
    uint32_t index = 0;
    for (const auto& [used, inode] : slaves_) {
      if (used != index) break;
      index++;
    }
    if (index >= options_.max) return Err(ENOSPC);
    RefPtr<Pty> pty = MakeRef<Pty>(index);
    slaves_.emplace(index, MakeRef<SlaveInode>(synthetic_filesystem(), options_.slave_mode, owner, pty));
    return pty;
  }
  void Free(uint32_t index) EXCLUDES(mu_) {
    RefPtr<SlaveInode> dropped;
    sync::MutexLock lock(mu_);
    auto it = slaves_.find(index);
    if (it == slaves_.end()) return;
    dropped = std::move(it->second);
    slaves_.erase(it);
  }

 protected:
  Result<RefPtr<vfs::Inode>> LookupDynamic(std::string_view name) override EXCLUDES(mu_) {
    uint32_t index = 0;
    auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    if (error != std::errc() || end != name.data() + name.size() || (name.size() > 1 && name[0] == '0'))
      return Err(ENOENT);
    sync::MutexLock lock(mu_);
    auto it = slaves_.find(index);
    if (it == slaves_.end()) return Err(ENOENT);
    return RefPtr<vfs::Inode>(it->second);
  }
  Result<> ListDynamic(std::vector<Entry>& entries) override EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    for (const auto& [index, inode] : slaves_) {
      entries.push_back({kDynamicCookie + index, std::to_string(index), inode->ino(), DT_CHR});
    }
    return {};
  }

 private:
  const Options options_;
  sync::Mutex mu_{sync::Rank::kFileSystem};
  std::map<uint32_t, RefPtr<SlaveInode>> slaves_ GUARDED_BY(mu_);
};

class MasterDescription final : public vfs::FileDescription {
 public:
  MasterDescription(RefPtr<Pty> pty, RefPtr<Root> root, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), pty_(std::move(pty)), root_(std::move(root)) {}
  ~MasterDescription() override {
    root_->Free(pty_->index());
    pty_->MasterClosed();
  }

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags) override { return pty_->MasterRead(dst); }
  Result<size_t> Write(IoSequence& src, vfs::IoFlags) override { return pty_->MasterWrite(src); }
  Result<uint64_t> Seek(int64_t, int) override { return Err(ESPIPE); }
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override {
    return pty_->MasterIoctl(io, command, arg);
  }
  // TIOCGPTPEER, whose result is a descriptor and so the syscall layer's: the slave, whatever names lead to it.
  Result<RefPtr<vfs::FileDescription>> OpenPeer(int flags) {
    RefPtr<vfs::Dentry> parent = path().dentry->parent();
    if (!parent) return Err(EIO);
    vfs::Path slave(path().mount, TRY(parent->Lookup(std::to_string(pty_->index()))));
    if (slave.dentry->negative()) return Err(EIO);
    return slave.inode().Open(slave, flags);
  }
  waiter::EventMask Readiness(waiter::EventMask mask) override { return pty_->MasterReadiness(mask); }
  void RegisterWaiter(waiter::Entry& entry) override { pty_->master_queue().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { pty_->master_queue().Unregister(entry); }
  bool SupportsEpoll() const override { return true; }

 private:
  const RefPtr<Pty> pty_;
  const RefPtr<Root> root_;
};

Result<RefPtr<vfs::FileDescription>> PtmxInode::Open(const vfs::Path& path, int flags) {
  RefPtr<Pty> pty = TRY(root_.Allocate());
  return RefPtr<vfs::FileDescription>(MakeRef<MasterDescription>(std::move(pty), RefPtr<Root>(&root_), path, flags));
}

class DevptsFilesystem final : public synthetic::SyntheticFilesystem {
 public:
  explicit DevptsFilesystem(const Options& options)
      : SyntheticFilesystem("devpts", DEVPTS_SUPER_MAGIC), options_(options), root_(MakeRef<Root>(*this, options)) {
    root_->Add("ptmx", MakeRef<PtmxInode>(*this, options.ptmx_mode, *root_));
  }
  RefPtr<vfs::Inode> root() override { return root_; }
  std::string MountOptions() const override {
    std::string out;
    if (options_.slave_gid >= 0) out += "gid=" + std::to_string(options_.slave_gid) + ",";
    char mode[32];
    std::snprintf(mode, sizeof(mode), "mode=%03o,ptmxmode=%03o", options_.slave_mode, options_.ptmx_mode);
    return out + mode;
  }

 private:
  const Options options_;
  const RefPtr<Root> root_;
};

// A ptmx node elsewhere: the devpts is what is mounted on "pts" beside it.
Result<RefPtr<vfs::FileDescription>> OpenPtmxNode(const vfs::Path& path, uint32_t, int flags) {
  RefPtr<vfs::Dentry> parent = path.dentry->parent();
  if (!parent) return Err(ENXIO);
  vfs::Path pts(path.mount, TRY(parent->Lookup("pts")));
  if (pts.dentry->negative()) return Err(ENODEV);
  vfs::FollowMounts(pts);
  if (dynamic_cast<Root*>(&pts.inode()) == nullptr) return Err(ENODEV);
  vfs::Path ptmx(pts.mount, TRY(pts.dentry->Lookup("ptmx")));
  return ptmx.inode().Open(ptmx, flags);
}

}  // namespace

Result<Options> ParseOptions(std::string_view data) {
  Options options;
  while (!data.empty()) {
    std::string_view option = data.substr(0, data.find(','));
    data.remove_prefix(std::min(data.size(), option.size() + 1));
    if (option.empty() || option == "newinstance") continue;
    const size_t equals = option.find('=');
    if (equals == std::string_view::npos) return Err(EINVAL);
    std::string_view key = option.substr(0, equals), value = option.substr(equals + 1);
    uint32_t number = 0;
    const int base = key == "mode" || key == "ptmxmode" ? 8 : 10;
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number, base);
    if (error != std::errc() || end != value.data() + value.size()) return Err(EINVAL);
    if (key == "mode") {
      options.slave_mode = number & 0777;
    } else if (key == "ptmxmode") {
      options.ptmx_mode = number & 0777;
    } else if (key == "gid") {
      options.slave_gid = number;
    } else if (key == "uid") {
      options.slave_uid = number;
    } else if (key == "max") {
      options.max = std::min(number, uint32_t{1} << 20);
    } else {
      return Err(EINVAL);
    }
  }
  return options;
}

Result<RefPtr<vfs::FileDescription>> OpenPeer(vfs::FileDescription& master, int flags) {
  auto* description = dynamic_cast<MasterDescription*>(&master);
  if (description == nullptr) return Err(ENOTTY);
  return description->OpenPeer(flags);
}

RefPtr<vfs::Filesystem> Create(const Options& options) { return MakeRef<DevptsFilesystem>(options); }

void RegisterDevices() { vfs::RegisterCharDevice(kPtmxMajor, kPtmxMinor, 1, "/dev/ptmx", OpenPtmxNode); }

}  // namespace redoubt::devpts
