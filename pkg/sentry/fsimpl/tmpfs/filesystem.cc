#include "pkg/sentry/fsimpl/tmpfs/filesystem.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "pkg/sentry/fsimpl/tmpfs/directory.h"
#include "pkg/sentry/fsimpl/tmpfs/regular_file.h"
#include "pkg/sentry/vfs/anon_inode.h"
#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/mount.h"

namespace redoubt::tmpfs {

TmpfsFilesystem::TmpfsFilesystem(pgalloc::MemoryFile& memory_file, const Options& options,
                                 std::unique_ptr<pgalloc::MemoryFile> disk)
    : memory_file_(memory_file), options_(options), disk_(std::move(disk)) {}

TmpfsFilesystem::~TmpfsFilesystem() = default;

RefPtr<vfs::Inode> TmpfsFilesystem::root() {
  sync::MutexLock lock(mu_);
  if (!root_) {
    inodes_.fetch_add(1, std::memory_order_relaxed);
    root_ = MakeRef<Directory>(
        *this, vfs::NewInode{
                   .mode = S_IFDIR | (options_.root_mode & 07777), .uid = options_.root_uid, .gid = options_.root_gid});
  }
  return root_;
}

Result<> TmpfsFilesystem::ChargeInode() {
  if (inodes_.fetch_add(1, std::memory_order_relaxed) >= options_.inode_limit && options_.inode_limit != 0) {
    UnchargeInode();
    return Err(ENOSPC);
  }
  return {};
}

Result<> TmpfsFilesystem::ChargeXattrs(uint64_t bytes) {
  constexpr uint64_t kPerInode = 1024;
  if (xattrs_.fetch_add(bytes, std::memory_order_relaxed) + bytes > options_.inode_limit * kPerInode &&
      options_.inode_limit != 0) {
    UnchargeXattrs(bytes);
    return Err(ENOSPC);
  }
  return {};
}

Result<> TmpfsFilesystem::ChargePages(uint64_t pages) {
  uint64_t used = pages_.fetch_add(pages, std::memory_order_relaxed);
  if (options_.size_limit != 0 && used + pages > options_.size_limit / kPageSize) {
    UnchargePages(pages);
    return Err(ENOSPC);
  }
  return {};
}

Result<memmap::FileRange> TmpfsFilesystem::Allocate(Medium medium, uint64_t length) {
  if (medium == Medium::kMemory) return memory_file_.Allocate(length);
  Result<memmap::FileRange> r = disk_->Allocate(length);
  if (!r) return r;
  return memmap::FileRange{r->start | kOnDisk, r->end | kOnDisk};
}

uint64_t TmpfsFilesystem::FreePages() const {
  // How full the disk is only an attempt tells.
  if (disk_ && options_.size_limit == 0) return disk_->limit() / kPageSize;
  const uint64_t limit = (options_.size_limit != 0 ? options_.size_limit : memory_file_.limit()) / kPageSize;
  const uint64_t used =
      options_.size_limit != 0 ? pages_.load(std::memory_order_relaxed) : memory_file_.usage() / kPageSize;
  return limit > used ? limit - used : 0;
}

Result<struct statfs> TmpfsFilesystem::Statfs() {
  struct statfs s = {};
  s.f_type = TMPFS_MAGIC;
  s.f_bsize = s.f_frsize = kPageSize;
  s.f_namelen = 255;
  // Without limits Linux leaves the counts at zero.
  if (options_.size_limit != 0) {
    s.f_blocks = options_.size_limit / kPageSize;
    s.f_bfree = s.f_bavail = FreePages();
  }
  if (options_.inode_limit != 0) {
    s.f_files = options_.inode_limit;
    const uint64_t used = inodes_.load(std::memory_order_relaxed);
    s.f_ffree = options_.inode_limit > used ? options_.inode_limit - used : 0;
  }
  const uint64_t d = dev();
  s.f_fsid.__val[0] = static_cast<int>(d);
  return s;
}

std::string TmpfsFilesystem::MountOptions() const {
  std::string out;
  auto add = [&out](std::string option) {
    if (!out.empty()) out += ',';
    out += option;
  };
  if (options_.size_limit != 0) add(fmt::format("size={}k", options_.size_limit / 1024));
  if (options_.inode_limit != 0) add(fmt::format("nr_inodes={}", options_.inode_limit));
  if (options_.root_mode != 01777) add(fmt::format("mode={:o}", options_.root_mode));
  if (options_.root_uid != 0) add(fmt::format("uid={}", options_.root_uid));
  if (options_.root_gid != 0) add(fmt::format("gid={}", options_.root_gid));
  return out;
}

namespace {

// "64m": a number with a suffix of memparse's.
Result<uint64_t> ParseSize(std::string_view text, uint64_t percent_of) {
  uint64_t value = 0;
  auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return Err(EINVAL);
  std::string_view suffix(rest, text.data() + text.size() - rest);
  if (suffix == "%") {
    if (value > 100) return Err(EINVAL);
    return percent_of / 100 * value;
  }
  int shift = 0;
  if (suffix.size() == 1) {
    constexpr std::string_view kSuffixes = "kmgtpe";
    size_t index = kSuffixes.find(static_cast<char>(suffix[0] | 0x20));
    if (index == std::string_view::npos) return Err(EINVAL);
    shift = static_cast<int>(index + 1) * 10;
  } else if (!suffix.empty()) {
    return Err(EINVAL);
  }
  if (shift > 0 && value > (std::numeric_limits<uint64_t>::max() >> shift)) return Err(EINVAL);
  return value << shift;
}

Result<uint32_t> ParseNumber(std::string_view text, int base) {
  uint32_t value = 0;
  auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || rest != text.data() + text.size()) return Err(EINVAL);
  return value;
}

}  // namespace

Result<Options> ParseOptions(std::string_view data, uint64_t memory) {
  Options options;
  // Linux's default.
  options.size_limit = PageRoundDown(memory / 2);
  options.inode_limit = DefaultInodes(memory);
  while (!data.empty()) {
    std::string_view option = data.substr(0, data.find(','));
    data.remove_prefix(std::min(data.size(), option.size() + 1));
    if (option.empty()) continue;
    const size_t equals = option.find('=');
    std::string_view key = option.substr(0, equals);
    std::string_view value = equals == std::string_view::npos ? std::string_view() : option.substr(equals + 1);
    if (key == "size") {
      options.size_limit = MustPageRoundUp(std::min(TRY(ParseSize(value, memory)), uint64_t{1} << 62));
    } else if (key == "nr_blocks") {
      options.size_limit = std::min(TRY(ParseSize(value, 0)), uint64_t{1} << 50) * kPageSize;
    } else if (key == "nr_inodes") {
      options.inode_limit = TRY(ParseSize(value, 0));
    } else if (key == "mode") {
      options.root_mode = TRY(ParseNumber(value, 8)) & 07777;
    } else if (key == "uid") {
      options.root_uid = TRY(ParseNumber(value, 10));
    } else if (key == "gid") {
      options.root_gid = TRY(ParseNumber(value, 10));
    } else if (key != "huge" && key != "mpol" && key != "inode32" && key != "inode64" && key != "noswap") {
      return Err(EINVAL);
    }
  }
  return options;
}

RefPtr<vfs::Filesystem> Create(pgalloc::MemoryFile& memory_file, const Options& options,
                               std::unique_ptr<pgalloc::MemoryFile> disk) {
  return MakeRef<TmpfsFilesystem>(memory_file, options, std::move(disk));
}

Result<RefPtr<vfs::FileDescription>> CreateMemfd(pgalloc::MemoryFile& memory_file, std::string_view name,
                                                 Sealing sealing, uint32_t uid, uint32_t gid) {
  // One internal mount, as Linux's shm_mnt; never destroyed. A process has one memory file.
  static TmpfsFilesystem* const fs = MakeRef<TmpfsFilesystem>(memory_file, Options{}, nullptr).Release();
  static vfs::Mount* const mount = vfs::Mount::Create(RefPtr<vfs::Filesystem>(fs), 0, "tmpfs").Release();
  TRY(fs->ChargeInode());
  RefPtr<RegularFile> file =
      MakeRef<RegularFile>(*fs, vfs::NewInode{.mode = S_IFREG | 0777, .uid = uid, .gid = gid}, 0);
  if (sealing == Sealing::kAllowed) file->AllowSealing();
  RefPtr<vfs::Inode> inode = file;
  vfs::Path path(RefPtr<vfs::Mount>(mount),
                 vfs::Dentry::MakeAnonymous(inode, fmt::format("/memfd:{} (deleted)", name)));
  return file->Open(path, O_RDWR | 0100000 /* the kernel's O_LARGEFILE */);
}

Result<int> GetSeals(vfs::Inode& inode) {
  auto* file = dynamic_cast<RegularFile*>(&inode);
  if (file == nullptr) return Err(EINVAL);
  return file->seals();
}

Result<> AddSeals(vfs::Inode& inode, int seals) {
  auto* file = dynamic_cast<RegularFile*>(&inode);
  if (file == nullptr) return Err(EINVAL);
  return file->AddSeals(seals);
}

}  // namespace redoubt::tmpfs
