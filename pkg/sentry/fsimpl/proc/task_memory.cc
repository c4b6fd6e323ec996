// What /proc/PID shows of an address space: cmdline, environ, auxv, maps, smaps, mem.
#include <fmt/format.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "pkg/sentry/fsimpl/proc/task_directory.h"

namespace redoubt::proc {

namespace {

// Linux allows a quarter of the stack limit; nobody reads more than this.
constexpr uint64_t kMaxStrings = 6 << 20;

// Bytes of the task's memory, up to the first that is not there.
std::string ReadMemory(mm::MemoryManager& mm, AddrRange range) {
  if (range.empty()) return {};
  std::string bytes(std::min(range.length(), kMaxStrings), '\0');
  Result<size_t> n = mm.ForceCopyIn(range.start, std::as_writable_bytes(std::span(bytes)));
  bytes.resize(n.value_or(0));
  return bytes;
}

std::string FormatRange(const mm::MapsEntry& e) {
  std::string line = fmt::format("{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {}", e.range.start, e.range.end,
                                 e.access.read ? 'r' : '-', e.access.write ? 'w' : '-', e.access.execute ? 'x' : '-',
                                 e.shared ? 's' : 'p', e.offset, major(e.device), minor(e.device), e.inode);
  if (!e.name.empty()) {
    // The name stands in column 74.
    line.append(line.size() < 72 ? 73 - line.size() : 1, ' ');
    line += EscapeOctal(e.name, "\n");
  }
  line += '\n';
  return line;
}

struct Sizes {
  uint64_t rss = 0, shared_dirty = 0, private_clean = 0, private_dirty = 0, anonymous = 0;
  void Add(const mm::MapsEntry& e) {
    rss += e.rss;
    if (e.inode == 0) anonymous += e.rss;
    (e.shared ? shared_dirty : e.inode != 0 && !e.access.write ? private_clean : private_dirty) += e.rss;
  }
  std::string Format() const {
    std::string s;
    auto kb = [&s](std::string_view name, uint64_t bytes) {
      s += fmt::format("{:<16}{:8} kB\n", std::string(name) + ":", bytes / 1024);
    };
    kb("Rss", rss);
    kb("Pss", rss);
    kb("Pss_Dirty", shared_dirty + private_dirty);
    kb("Shared_Clean", 0);
    kb("Shared_Dirty", shared_dirty);
    kb("Private_Clean", private_clean);
    kb("Private_Dirty", private_dirty);
    kb("Referenced", rss);
    kb("Anonymous", anonymous);
    kb("KSM", 0);
    kb("LazyFree", 0);
    kb("AnonHugePages", 0);
    kb("ShmemPmdMapped", 0);
    kb("FilePmdMapped", 0);
    kb("Shared_Hugetlb", 0);
    kb("Private_Hugetlb", 0);
    kb("Swap", 0);
    kb("SwapPss", 0);
    kb("Locked", 0);
    return s;
  }
};

Result<std::vector<mm::MapsEntry>> Maps(const TaskRef& task) {
  TRY(task.Info());
  TRY(task.view().CheckAccess(task.task()));
  RefPtr<mm::MemoryManager> mm = task.view().GetMemory(task.task());
  if (!mm) return std::vector<mm::MapsEntry>();
  return mm->Maps();
}

// Reads and writes another address space, whatever its protection. The space is the one the task had at open.
class MemDescription final : public vfs::FileDescription {
 public:
  MemDescription(RefPtr<mm::MemoryManager> mm, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), mm_(std::move(mm)) {}

  Result<size_t> PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags) override {
    std::vector<std::byte> buffer(std::min<uint64_t>(dst.remaining(), kChunk));
    size_t done = 0;
    while (!dst.empty()) {
      std::span<std::byte> part = std::span(buffer).first(std::min<uint64_t>(dst.remaining(), buffer.size()));
      Result<size_t> n = mm_->ForceCopyIn(offset, part);
      if (!n) return done > 0 ? Result<size_t>(done) : Err(EIO);
      Result<size_t> moved = dst.CopyOut(part.first(*n));
      if (!moved) return done > 0 ? Result<size_t>(done) : moved;
      done += *moved;
      offset += *moved;
      if (*moved < part.size()) break;
    }
    return done;
  }
  Result<size_t> PWrite(IoSequence& src, uint64_t offset, vfs::IoFlags) override {
    std::vector<std::byte> buffer(std::min<uint64_t>(src.remaining(), kChunk));
    size_t done = 0;
    while (!src.empty()) {
      Result<size_t> n = src.CopyIn(std::span(buffer).first(std::min<uint64_t>(src.remaining(), buffer.size())));
      if (!n) return done > 0 ? Result<size_t>(done) : n;
      Result<size_t> moved = mm_->ForceCopyOut(offset, std::span(buffer).first(*n));
      if (!moved) return done > 0 ? Result<size_t>(done) : Err(EIO);
      done += *moved;
      offset += *moved;
      if (*moved < *n) break;
    }
    return done;
  }
  Result<uint64_t> Seek(int64_t offset, int whence) override {
    fiber::MutexLock lock(offset_lock());
    if (whence == SEEK_CUR) {
      offset = static_cast<int64_t>(this->offset() + static_cast<uint64_t>(offset));
    } else if (whence != SEEK_SET) {
      return Err(EINVAL);
    }
    // Any address may be an offset, also one that looks negative.
    set_offset(static_cast<uint64_t>(offset));
    return static_cast<uint64_t>(offset);
  }

 private:
  static constexpr uint64_t kChunk = 64 << 10;
  const RefPtr<mm::MemoryManager> mm_;
};

class MemFile final : public synthetic::SyntheticInode {
 public:
  explicit MemFile(TaskRef task) : SyntheticInode(task.fs(), S_IFREG | 0600), task_(std::move(task)) {}
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override {
    TRY(task_.Info());
    TRY(task_.view().CheckAccess(task_.task()));
    RefPtr<mm::MemoryManager> mm = task_.view().GetMemory(task_.task());
    if (!mm) return Err(ESRCH);
    return RefPtr<vfs::FileDescription>(MakeRef<MemDescription>(std::move(mm), path, flags));
  }

 protected:
  synthetic::Owner CurrentOwner() override { return task_.owner(); }

 private:
  const TaskRef task_;
};

}  // namespace

Result<std::string> TaskCmdline(const TaskRef& task) {
  TRY(task.Info());
  RefPtr<mm::MemoryManager> mm = task.view().GetMemory(task.task());
  if (!mm) return std::string();
  const mm::MemoryManager::ExecInfo exec = mm->exec_info();
  std::string text = ReadMemory(*mm, exec.argv);
  // A program that writes a title over its arguments (setproctitle) may go on into the environment.
  if (!text.empty() && text.back() != '\0') {
    text += ReadMemory(*mm, exec.envv);
    text.resize(std::min(text.find('\0'), text.size()));
  }
  return text;
}

Result<std::string> TaskEnviron(const TaskRef& task) {
  TRY(task.Info());
  TRY(task.view().CheckAccess(task.task()));
  RefPtr<mm::MemoryManager> mm = task.view().GetMemory(task.task());
  if (!mm) return std::string();
  return ReadMemory(*mm, mm->exec_info().envv);
}

Result<std::string> TaskAuxv(const TaskRef& task) {
  TRY(task.Info());
  TRY(task.view().CheckAccess(task.task()));
  RefPtr<mm::MemoryManager> mm = task.view().GetMemory(task.task());
  if (!mm) return std::string();
  const std::vector<uint64_t> auxv = mm->exec_info().auxv;
  return std::string(reinterpret_cast<const char*>(auxv.data()), auxv.size() * sizeof(uint64_t));
}

Result<std::string> TaskMaps(const TaskRef& task) {
  std::string s;
  for (const mm::MapsEntry& e : TRY(Maps(task))) s += FormatRange(e);
  return s;
}

Result<std::string> TaskSmaps(const TaskRef& task) {
  std::string s;
  for (const mm::MapsEntry& e : TRY(Maps(task))) {
    s += FormatRange(e);
    s += fmt::format("{:<16}{:8} kB\n{:<16}{:8} kB\n{:<16}{:8} kB\n", "Size:", e.range.length() / 1024,
                     "KernelPageSize:", 4, "MMUPageSize:", 4);
    Sizes sizes;
    sizes.Add(e);
    s += sizes.Format();
    s += "THPeligible:           0\nVmFlags:";
    if (e.access.read) s += " rd";
    if (e.access.write) s += " wr";
    if (e.access.execute) s += " ex";
    if (e.shared) s += " sh";
    s += " mr mw me \n";
  }
  return s;
}

Result<std::string> TaskSmapsRollup(const TaskRef& task) {
  std::vector<mm::MapsEntry> maps = TRY(Maps(task));
  if (maps.empty()) return Err(ESRCH);
  Sizes sizes;
  for (const mm::MapsEntry& e : maps) sizes.Add(e);
  mm::MapsEntry all;
  all.range = {maps.front().range.start, maps.back().range.end};
  all.name = "[rollup]";
  return FormatRange(all) + sizes.Format();
}

RefPtr<synthetic::SyntheticInode> MakeMemFile(TaskRef task) { return MakeRef<MemFile>(std::move(task)); }

}  // namespace redoubt::proc
