// /proc/PID and /proc/PID/task/TID. Private to proc.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_PROC_TASK_DIRECTORY_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_PROC_TASK_DIRECTORY_H_

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/sentry/fsimpl/proc/filesystem.h"
#include "pkg/sentry/fsimpl/synthetic/synthetic.h"

namespace redoubt::proc {

// Whose a file is, in both senses: the task it tells of, and so its owner (root for those that may not be dumped).
// Everything below /proc/PID holds one.
class TaskRef {
 public:
  enum class Scope { kProcess, kThread };
  TaskRef(ProcFilesystem& fs, TaskHandle task, Scope scope) : fs_(fs), task_(std::move(task)), scope_(scope) {}

  ProcFilesystem& fs() const { return fs_; }
  KernelView& view() const { return fs_.view(); }
  RefCounted& task() const { return *task_; }
  Scope scope() const { return scope_; }
  // ESRCH if the task has been reaped.
  Result<TaskInfo> Info() const;
  synthetic::Owner owner() const;

 private:
  ProcFilesystem& fs_;  // holds whoever holds this, through its mount
  TaskHandle task_;
  Scope scope_;
};

using TaskGenerator = Result<std::string> (*)(const TaskRef& task);
using TaskStorer = Result<> (*)(const TaskRef& task, std::string_view text);

class TaskFile final : public synthetic::GeneratedFile {
 public:
  TaskFile(TaskRef task, uint32_t permissions, TaskGenerator generate, TaskStorer store)
      : GeneratedFile(task.fs(), permissions), task_(std::move(task)), generate_(generate), store_(store) {}
  Result<std::string> Generate() override { return generate_(task_); }
  Result<> Store(std::string_view text, uint64_t) override {
    return store_ != nullptr ? store_(task_, text) : Err(EINVAL);
  }

 protected:
  synthetic::Owner CurrentOwner() override { return task_.owner(); }

 private:
  const TaskRef task_;
  const TaskGenerator generate_;
  const TaskStorer store_;
};

// A directory whose children are about one task.
class TaskSubdirectory : public synthetic::Directory {
 public:
  TaskSubdirectory(TaskRef task, uint32_t permissions) : Directory(task.fs(), permissions), task_(std::move(task)) {}
  vfs::LookupCache lookup_cache() const override { return vfs::LookupCache::kUncached; }

 protected:
  synthetic::Owner CurrentOwner() override { return task_.owner(); }
  const TaskRef& task() const { return task_; }

 private:
  const TaskRef task_;
};

// /proc/PID itself: children are made when first asked for, since most never are.
class TaskDirectory final : public TaskSubdirectory {
 public:
  explicit TaskDirectory(TaskRef task) : TaskSubdirectory(std::move(task), 0555) {}
  const TaskRef& about() const { return task(); }

 protected:
  Result<RefPtr<vfs::Inode>> LookupDynamic(std::string_view name) override EXCLUDES(mu_);
  Result<> ListDynamic(std::vector<Entry>& entries) override EXCLUDES(mu_);
  uint32_t Links() override { return 9; }

 private:
  RefPtr<synthetic::SyntheticInode> ChildLocked(size_t index) REQUIRES(mu_);

  sync::Mutex mu_{sync::Rank::kFileSystem};
  std::vector<RefPtr<synthetic::SyntheticInode>> made_ GUARDED_BY(mu_);  // by index in the table of names
};

// Directories of tasks by number, stable while their tasks live: what /proc and /proc/PID/task are made of.
class TaskDirectories final {
 public:
  TaskDirectories(ProcFilesystem& fs, TaskRef::Scope scope) : fs_(fs), scope_(scope) {}
  RefPtr<TaskDirectory> Get(int tid, const TaskHandle& task) EXCLUDES(mu_);
  // Drops those that are not in `alive`, which is sorted.
  void Keep(const std::vector<int>& alive) EXCLUDES(mu_);
  // Time to call Keep: so many have been made since the last time.
  bool IsCrowded() const EXCLUDES(mu_);

 private:
  ProcFilesystem& fs_;
  const TaskRef::Scope scope_;
  mutable sync::Mutex mu_{sync::Rank::kFileSystem};
  std::map<int, RefPtr<TaskDirectory>> directories_ GUARDED_BY(mu_);
  size_t crowded_at_ GUARDED_BY(mu_) = 64;
};

// A decimal number as procfs takes it in names: no sign, no leading zero.
Result<int> ParseNumber(std::string_view name);

// Makers of what is not a plain text; each in its file.
RefPtr<synthetic::SyntheticInode> MakeTaskTaskDirectory(TaskRef task);  // task/
RefPtr<synthetic::SyntheticInode> MakeFdDirectory(TaskRef task);        // fd/
RefPtr<synthetic::SyntheticInode> MakeFdInfoDirectory(TaskRef task);    // fdinfo/
RefPtr<synthetic::SyntheticInode> MakeNsDirectory(TaskRef task);        // ns/
RefPtr<synthetic::SyntheticInode> MakeExeLink(TaskRef task);
RefPtr<synthetic::SyntheticInode> MakeCwdLink(TaskRef task);
RefPtr<synthetic::SyntheticInode> MakeRootLink(TaskRef task);
RefPtr<synthetic::SyntheticInode> MakeMemFile(TaskRef task);

// Texts (task_stat.cc, task_memory.cc, task_files.cc).
Result<std::string> TaskStat(const TaskRef& task);
Result<std::string> TaskStatm(const TaskRef& task);
Result<std::string> TaskStatus(const TaskRef& task);
Result<std::string> TaskCmdline(const TaskRef& task);
Result<std::string> TaskEnviron(const TaskRef& task);
Result<std::string> TaskAuxv(const TaskRef& task);
Result<std::string> TaskMaps(const TaskRef& task);
Result<std::string> TaskSmaps(const TaskRef& task);
Result<std::string> TaskSmapsRollup(const TaskRef& task);
Result<std::string> TaskComm(const TaskRef& task);
Result<> StoreComm(const TaskRef& task, std::string_view text);
Result<std::string> TaskLimits(const TaskRef& task);
Result<std::string> TaskMounts(const TaskRef& task);
Result<std::string> TaskMountInfo(const TaskRef& task);
Result<std::string> TaskCgroup(const TaskRef& task);
Result<std::string> TaskOomScore(const TaskRef& task);
Result<std::string> TaskOomScoreAdj(const TaskRef& task);
Result<> StoreOomScoreAdj(const TaskRef& task, std::string_view text);
Result<std::string> TaskUidMap(const TaskRef& task);
Result<std::string> TaskGidMap(const TaskRef& task);
Result<std::string> TaskProjidMap(const TaskRef& task);
Result<std::string> TaskSetgroups(const TaskRef& task);
Result<std::string> TaskLoginUid(const TaskRef& task);
Result<std::string> TaskSessionId(const TaskRef& task);
Result<std::string> TaskPersonality(const TaskRef& task);
Result<std::string> TaskSchedstat(const TaskRef& task);
Result<std::string> TaskTimerSlack(const TaskRef& task);
Result<std::string> TaskWchan(const TaskRef& task);

}  // namespace redoubt::proc

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_PROC_TASK_DIRECTORY_H_
