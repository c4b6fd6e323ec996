#include "pkg/sentry/fsimpl/proc/task_directory.h"

#include <dirent.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace redoubt::proc {

Result<TaskInfo> TaskRef::Info() const {
  TaskInfo info;
  if (!view().GetInfo(task(), scope_ == Scope::kProcess, &info)) return Err(ESRCH);
  return info;
}

synthetic::Owner TaskRef::owner() const {
  TaskInfo info;
  if (!view().GetInfo(task(), false, &info) || !info.dumpable) return {};
  return {info.creds->euid, info.creds->egid};
}

Result<int> ParseNumber(std::string_view name) {
  int number = 0;
  auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || number < 0) return Err(ENOENT);
  if (name[0] == '-' || (name[0] == '0' && name.size() > 1)) return Err(ENOENT);
  return number;
}

namespace {

using Maker = RefPtr<synthetic::SyntheticInode> (*)(TaskRef task);
constexpr int kProcessOnly = 1, kThreadOnly = 2, kBoth = 3;

struct TaskChild {
  std::string_view name;
  int where;
  uint8_t type;
  uint32_t permissions;  // of texts
  TaskGenerator text;
  TaskStorer store;
  Maker make;  // of all else
};

RefPtr<synthetic::SyntheticInode> MakeNetLink(TaskRef task) { return task.fs().net(); }

constexpr TaskChild Text(std::string_view name, uint32_t permissions, TaskGenerator text, TaskStorer store = nullptr,
                         int where = kBoth) {
  return {name, where, DT_REG, permissions, text, store, nullptr};
}
constexpr TaskChild Made(std::string_view name, uint8_t type, Maker make, int where = kBoth) {
  return {name, where, type, 0, nullptr, nullptr, make};
}

constexpr TaskChild kChildren[] = {
    Made("task", DT_DIR, MakeTaskTaskDirectory, kProcessOnly),
    Made("fd", DT_DIR, MakeFdDirectory),
    Made("fdinfo", DT_DIR, MakeFdInfoDirectory),
    Made("ns", DT_DIR, MakeNsDirectory),
    Made("net", DT_DIR, MakeNetLink),
    Text("environ", 0400, TaskEnviron),
    Text("auxv", 0400, TaskAuxv),
    Text("status", 0444, TaskStatus),
    Text("personality", 0400, TaskPersonality),
    Text("limits", 0444, TaskLimits),
    Text("comm", 0644, TaskComm, StoreComm),
    Text("cmdline", 0444, TaskCmdline),
    Text("stat", 0444, TaskStat),
    Text("statm", 0444, TaskStatm),
    Text("maps", 0444, TaskMaps),
    Made("mem", DT_REG, MakeMemFile),
    Made("cwd", DT_LNK, MakeCwdLink),
    Made("root", DT_LNK, MakeRootLink),
    Made("exe", DT_LNK, MakeExeLink),
    Text("mounts", 0444, TaskMounts),
    Text("mountinfo", 0444, TaskMountInfo),
    Text("smaps", 0444, TaskSmaps),
    Text("smaps_rollup", 0444, TaskSmapsRollup),
    Text("wchan", 0444, TaskWchan),
    Text("schedstat", 0444, TaskSchedstat),
    Text("cgroup", 0444, TaskCgroup),
    Text("oom_score", 0444, TaskOomScore),
    Text("oom_score_adj", 0644, TaskOomScoreAdj, StoreOomScoreAdj),
    Text("loginuid", 0644, TaskLoginUid),
    Text("sessionid", 0444, TaskSessionId),
    Text("uid_map", 0644, TaskUidMap),
    Text("gid_map", 0644, TaskGidMap),
    Text("projid_map", 0644, TaskProjidMap),
    Text("setgroups", 0644, TaskSetgroups),
    Text("timerslack_ns", 0666, TaskTimerSlack, nullptr, kProcessOnly),
};

bool Applies(const TaskChild& c, TaskRef::Scope scope) {
  return (c.where & (scope == TaskRef::Scope::kProcess ? kProcessOnly : kThreadOnly)) != 0;
}

}  // namespace

RefPtr<synthetic::SyntheticInode> TaskDirectory::ChildLocked(size_t index) {
  if (made_.empty()) made_.resize(std::size(kChildren));
  RefPtr<synthetic::SyntheticInode>& slot = made_[index];
  if (!slot) {
    const TaskChild& c = kChildren[index];
    if (c.make != nullptr) {
      slot = c.make(task());
    } else {
      slot = MakeRef<TaskFile>(task(), c.permissions, c.text, c.store);
    }
  }
  return slot;
}

Result<RefPtr<vfs::Inode>> TaskDirectory::LookupDynamic(std::string_view name) {
  if (!task().Info()) return Err(ENOENT);
  for (size_t i = 0; i < std::size(kChildren); i++) {
    if (kChildren[i].name != name || !Applies(kChildren[i], task().scope())) continue;
    sync::MutexLock lock(mu_);
    return RefPtr<vfs::Inode>(ChildLocked(i));
  }
  return Err(ENOENT);
}

Result<> TaskDirectory::ListDynamic(std::vector<Entry>& entries) {
  if (!task().Info()) return Err(ENOENT);
  sync::MutexLock lock(mu_);
  for (size_t i = 0; i < std::size(kChildren); i++) {
    const TaskChild& c = kChildren[i];
    if (!Applies(c, task().scope())) continue;
    entries.push_back({kDynamicCookie + static_cast<int64_t>(i), std::string(c.name), ChildLocked(i)->ino(), c.type});
  }
  return {};
}

RefPtr<TaskDirectory> TaskDirectories::Get(int tid, const TaskHandle& task) {
  RefPtr<TaskDirectory> replaced;  // dropped without the lock
  sync::MutexLock lock(mu_);
  RefPtr<TaskDirectory>& slot = directories_[tid];
  if (!slot || &slot->about().task() != task.get()) {
    replaced = std::exchange(slot, MakeRef<TaskDirectory>(TaskRef(fs_, task, scope_)));
  }
  return slot;
}

void TaskDirectories::Keep(const std::vector<int>& alive) {
  std::vector<RefPtr<TaskDirectory>> dropped;
  sync::MutexLock lock(mu_);
  for (auto it = directories_.begin(); it != directories_.end();) {
    if (std::ranges::binary_search(alive, it->first)) {
      ++it;
      continue;
    }
    dropped.push_back(std::move(it->second));
    it = directories_.erase(it);
  }
  crowded_at_ = std::max<size_t>(64, 2 * directories_.size());
}

bool TaskDirectories::IsCrowded() const {
  sync::MutexLock lock(mu_);
  return directories_.size() >= crowded_at_;
}

namespace {

// /proc/PID/task.
class ThreadsDirectory final : public TaskSubdirectory {
 public:
  explicit ThreadsDirectory(TaskRef task)
      : TaskSubdirectory(std::move(task), 0555), threads_(this->task().fs(), TaskRef::Scope::kThread) {}

 protected:
  Result<RefPtr<vfs::Inode>> LookupDynamic(std::string_view name) override {
    const int tid = TRY(ParseNumber(name));
    std::vector<int> threads = TRY(Threads());
    threads_.Keep(threads);
    if (!std::ranges::binary_search(threads, tid)) return Err(ENOENT);
    TaskHandle found = task().view().Find(tid);
    if (!found) return Err(ENOENT);
    return RefPtr<vfs::Inode>(threads_.Get(tid, found));
  }
  Result<> ListDynamic(std::vector<Entry>& entries) override {
    for (int tid : TRY(Threads())) {
      TaskHandle found = task().view().Find(tid);
      if (!found) continue;
      entries.push_back({kDynamicCookie + tid, std::to_string(tid), threads_.Get(tid, found)->ino(), DT_DIR});
    }
    return {};
  }
  uint32_t Links() override {
    Result<std::vector<int>> threads = Threads();
    return 2 + (threads ? static_cast<uint32_t>(threads->size()) : 0);
  }

 private:
  Result<std::vector<int>> Threads() {
    Result<TaskInfo> info = task().Info();
    if (!info) return Err(ENOENT);
    return task().view().Threads(info->tgid);
  }
  TaskDirectories threads_;
};

// /proc itself.
class Root final : public synthetic::Directory {
 public:
  explicit Root(ProcFilesystem& fs) : Directory(fs), fs_(fs), processes_(fs, TaskRef::Scope::kProcess) {}
  vfs::LookupCache lookup_cache() const override { return vfs::LookupCache::kUncached; }

 protected:
  // A thread's number is found though it is not listed (proc(5)).
  Result<RefPtr<vfs::Inode>> LookupDynamic(std::string_view name) override {
    const int tid = TRY(ParseNumber(name));
    TaskHandle found = fs_.view().Find(tid);
    if (!found) return Err(ENOENT);
    // Else every process that ever looked at itself would be remembered.
    if (processes_.IsCrowded()) processes_.Keep(fs_.view().Processes());
    return RefPtr<vfs::Inode>(processes_.Get(tid, found));
  }
  Result<> ListDynamic(std::vector<Entry>& entries) override {
    std::vector<int> processes = fs_.view().Processes();
    processes_.Keep(processes);
    for (int tgid : processes) {
      TaskHandle found = fs_.view().Find(tgid);
      if (!found) continue;
      entries.push_back({kDynamicCookie + tgid, std::to_string(tgid), processes_.Get(tgid, found)->ino(), DT_DIR});
    }
    return {};
  }
  uint32_t Links() override { return Directory::Links() + static_cast<uint32_t>(fs_.view().Processes().size()); }

 private:
  ProcFilesystem& fs_;
  TaskDirectories processes_;
};

// self and thread-self: what they say depends on who asks.
class SelfLink final : public synthetic::SyntheticInode {
 public:
  SelfLink(ProcFilesystem& fs, bool thread) : SyntheticInode(fs, S_IFLNK | 0777), fs_(fs), thread_(thread) {}
  Result<std::string> Readlink() override {
    TaskHandle current = fs_.view().Current();
    TaskInfo info;
    if (!current || !fs_.view().GetInfo(*current, false, &info)) return Err(ENOENT);
    std::string process = std::to_string(info.tgid);
    return thread_ ? process + "/task/" + std::to_string(info.tid) : process;
  }
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path&, int) override { return Err(ELOOP); }

 private:
  ProcFilesystem& fs_;
  const bool thread_;
};

}  // namespace

RefPtr<synthetic::SyntheticInode> MakeTaskTaskDirectory(TaskRef task) {
  return MakeRef<ThreadsDirectory>(std::move(task));
}

RefPtr<synthetic::Directory> MakeRoot(ProcFilesystem& fs) {
  RefPtr<Root> root = MakeRef<Root>(fs);
  root->Add("self", MakeRef<SelfLink>(fs, false));
  root->Add("thread-self", MakeRef<SelfLink>(fs, true));
  root->Add("mounts", MakeRef<synthetic::FixedSymlink>(fs, "self/mounts"));
  root->Add("net", MakeRef<synthetic::FixedSymlink>(fs, "self/net"));
  AddSystemFiles(fs, *root);
  root->Add("sys", MakeSysDirectory(fs));
  return root;
}

}  // namespace redoubt::proc
