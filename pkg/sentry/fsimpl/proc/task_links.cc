// The links of /proc/PID that lead to places: fd, cwd, root, exe, ns; and fdinfo.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <utility>

#include "pkg/sentry/fsimpl/proc/namespace_file.h"
#include "pkg/sentry/fsimpl/proc/task_directory.h"
#include "pkg/sentry/vfs/anon_inode.h"
#include "pkg/sentry/vfs/mount.h"

namespace redoubt::proc {

namespace {

// The name of a place as the reader sees it.
std::string NameOf(const TaskRef& task, const vfs::Path& path) {
  vfs::Path root;
  if (TaskHandle current = task.view().Current()) root = task.view().GetPlaces(*current).root;
  vfs::NamedPath name = vfs::PathName(root, path);
  // What lies outside the reader's root is shown from the top.
  return name.reachable ? name.name : vfs::PathName(vfs::Path(), path).name;
}

// Leads to a place by reference, whatever its name says.
class PlaceLink : public synthetic::SyntheticInode {
 public:
  bool IsMagicLink() const override { return true; }
  Result<vfs::Path> FollowMagicLink() override {
    TRY(task_.view().CheckAccess(task_.task()));
    return Place();
  }
  Result<std::string> Readlink() override {
    TRY(task_.view().CheckAccess(task_.task()));
    return NameOf(task_, TRY(Place()));
  }
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path&, int) override { return Err(ELOOP); }

 protected:
  PlaceLink(TaskRef task, uint32_t permissions)
      : SyntheticInode(task.fs(), S_IFLNK | permissions), task_(std::move(task)) {}
  virtual Result<vfs::Path> Place() = 0;
  synthetic::Owner CurrentOwner() override { return task_.owner(); }
  uint64_t Size() override { return 64; }
  const TaskRef& task() const { return task_; }

 private:
  const TaskRef task_;
};

class ExeLink final : public PlaceLink {
 public:
  explicit ExeLink(TaskRef task) : PlaceLink(std::move(task), 0777) {}

 protected:
  Result<vfs::Path> Place() override {
    RefPtr<mm::MemoryManager> mm = task().view().GetMemory(task().task());
    if (!mm) return Err(ENOENT);
    auto* file = dynamic_cast<vfs::FileDescription*>(mm->exec_info().executable.get());
    if (file == nullptr || !file->path()) return Err(ENOENT);
    return file->path();
  }
  uint64_t Size() override { return 0; }
};

class CwdLink final : public PlaceLink {
 public:
  explicit CwdLink(TaskRef task) : PlaceLink(std::move(task), 0777) {}

 protected:
  Result<vfs::Path> Place() override {
    vfs::Path cwd = task().view().GetPlaces(task().task()).cwd;
    return cwd ? Result<vfs::Path>(cwd) : Err(ENOENT);
  }
  uint64_t Size() override { return 0; }
};

class RootLink final : public PlaceLink {
 public:
  explicit RootLink(TaskRef task) : PlaceLink(std::move(task), 0777) {}

 protected:
  Result<vfs::Path> Place() override {
    vfs::Path root = task().view().GetPlaces(task().task()).root;
    return root ? Result<vfs::Path>(root) : Err(ENOENT);
  }
  uint64_t Size() override { return 0; }
};

Result<FdTable::File> FileOf(const TaskRef& task, int fd) {
  RefPtr<FdTable> fds = task.view().GetFds(task.task());
  if (!fds) return Err(ENOENT);
  Result<FdTable::File> file = fds->Get(fd);
  return file ? file : Err(ENOENT);
}

uint32_t FdPermissions(const vfs::FileDescription& file) {
  return (file.readable() ? 0500u : 0) | (file.writable() ? 0300u : 0);
}

class FdLink final : public PlaceLink {
 public:
  FdLink(TaskRef task, int fd, uint32_t permissions) : PlaceLink(std::move(task), permissions), fd_(fd) {}

 protected:
  Result<vfs::Path> Place() override {
    FdTable::File file = TRY(FileOf(task(), fd_));
    if (!file->path()) return Err(ENXIO);
    return file->path();
  }

 private:
  const int fd_;
};

class FdInfoFile final : public synthetic::GeneratedFile {
 public:
  FdInfoFile(TaskRef task, int fd) : GeneratedFile(task.fs(), 0400), task_(std::move(task)), fd_(fd) {}
  Result<std::string> Generate() override {
    RefPtr<FdTable> fds = task_.view().GetFds(task_.task());
    if (!fds) return Err(ENOENT);
    FdTable::File file = TRY(FileOf(task_, fd_));
    const bool cloexec = fds->GetCloexec(fd_).value_or(false);
    uint64_t ino = 0, mount = 0;
    if (file->path()) {
      Result<vfs::Attributes> attrs = file->GetAttributes();
      if (attrs) ino = attrs->ino;
      mount = file->path().mount->id();
    }
    return fmt::format("pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{}\n{}", file->offset(),
                       file->flags() | (cloexec ? O_CLOEXEC : 0), mount, ino, file->FdInfo());
  }

 protected:
  synthetic::Owner CurrentOwner() override { return task_.owner(); }

 private:
  const TaskRef task_;
  const int fd_;
};

// fd and fdinfo.
class FdDirectory final : public TaskSubdirectory {
 public:
  enum class Of { kLinks, kInfo };
  FdDirectory(TaskRef task, Of of) : TaskSubdirectory(std::move(task), of == Of::kLinks ? 0500 : 0555), of_(of) {}

  // A process may always look at its own.
  Result<> CheckPermission(const auth::Credentials& creds, int may) override {
    Result<> normal = TaskSubdirectory::CheckPermission(creds, may);
    if (normal) return normal;
    TaskHandle current = task().view().Current();
    TaskInfo mine, theirs;
    if (current && task().view().GetInfo(*current, false, &mine) &&
        task().view().GetInfo(task().task(), false, &theirs) && mine.tgid == theirs.tgid) {
      return {};
    }
    return normal;
  }

 protected:
  Result<RefPtr<vfs::Inode>> LookupDynamic(std::string_view name) override {
    const int fd = TRY(ParseNumber(name));
    FdTable::File file = TRY(FileOf(task(), fd));
    if (of_ == Of::kInfo) return RefPtr<vfs::Inode>(MakeRef<FdInfoFile>(task(), fd));
    return RefPtr<vfs::Inode>(MakeRef<FdLink>(task(), fd, FdPermissions(*file)));
  }
  Result<> ListDynamic(std::vector<Entry>& entries) override {
    TRY(task().view().CheckAccess(task().task()));
    RefPtr<FdTable> fds = task().view().GetFds(task().task());
    if (!fds) return {};
    const uint8_t type = of_ == Of::kLinks ? DT_LNK : DT_REG;
    for (const FdTable::Info& f : fds->List()) {
      entries.push_back({kDynamicCookie + f.fd, std::to_string(f.fd), ino() + 1 + static_cast<uint64_t>(f.fd), type});
    }
    return {};
  }

 private:
  const Of of_;
};

constexpr std::string_view kNamespaces[] = {
    "cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"};

// Its number is the namespace's: two files are of one namespace if device and inode are the same (namespaces(7)).
class NsInode final : public vfs::Inode {
 public:
  NsInode(std::string_view kind, uint64_t id, RefPtr<RefCounted> object)
      : Inode(vfs::AnonymousFilesystem()), kind_(kind), id_(id), object_(std::move(object)) {}
  uint32_t type() const override { return S_IFREG; }
  Result<vfs::Attributes> GetAttributes() override {
    return vfs::Attributes{.mode = S_IFREG | 0444, .ino = id_, .dev = filesystem().dev()};
  }
  Result<> SetAttributes(const vfs::AttributeChange&) override { return Err(EPERM); }
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override {
    if ((flags & O_ACCMODE) != O_RDONLY) return Err(EPERM);
    return RefPtr<vfs::FileDescription>(MakeRef<NamespaceFile>(path, kind_, object_));
  }

 private:
  const std::string_view kind_;
  const uint64_t id_;
  const RefPtr<RefCounted> object_;
};

class NsLink final : public PlaceLink {
 public:
  NsLink(TaskRef task, std::string_view kind) : PlaceLink(std::move(task), 0777), kind_(kind) {}
  Result<std::string> Readlink() override {
    TRY(task().Info());
    TRY(task().view().CheckAccess(task().task()));
    return Name();
  }

 protected:
  Result<vfs::Path> Place() override {
    RefCounted& of = task().task();
    return vfs::MakeAnonymousPath(
        MakeRef<NsInode>(Kind(), task().view().NamespaceId(of, kind_), task().view().Namespace(of, kind_)), Name());
  }
  uint64_t Size() override { return 0; }

 private:
  std::string_view Kind() const { return kind_.substr(0, kind_.find('_')); }
  std::string Name() const { return fmt::format("{}:[{}]", Kind(), task().view().NamespaceId(task().task(), kind_)); }
  const std::string_view kind_;
};

}  // namespace

RefPtr<synthetic::SyntheticInode> MakeExeLink(TaskRef task) { return MakeRef<ExeLink>(std::move(task)); }
RefPtr<synthetic::SyntheticInode> MakeCwdLink(TaskRef task) { return MakeRef<CwdLink>(std::move(task)); }
RefPtr<synthetic::SyntheticInode> MakeRootLink(TaskRef task) { return MakeRef<RootLink>(std::move(task)); }
RefPtr<synthetic::SyntheticInode> MakeFdDirectory(TaskRef task) {
  return MakeRef<FdDirectory>(std::move(task), FdDirectory::Of::kLinks);
}
RefPtr<synthetic::SyntheticInode> MakeFdInfoDirectory(TaskRef task) {
  return MakeRef<FdDirectory>(std::move(task), FdDirectory::Of::kInfo);
}
RefPtr<synthetic::SyntheticInode> MakeNsDirectory(TaskRef task) {
  RefPtr<TaskSubdirectory> ns = MakeRef<TaskSubdirectory>(task, 0511);
  for (std::string_view kind : kNamespaces) ns->Add(std::string(kind), MakeRef<NsLink>(task, kind));
  return ns;
}

}  // namespace redoubt::proc
