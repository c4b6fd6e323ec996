// The smaller texts of /proc/PID.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "pkg/sentry/fsimpl/proc/task_directory.h"
#include "pkg/sentry/vfs/special_nodes.h"

namespace redoubt::proc {

namespace {

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  return text;
}

std::string LimitValue(uint64_t v) { return v == RLIM64_INFINITY ? "unlimited" : std::to_string(v); }

}  // namespace

Result<std::string> TaskComm(const TaskRef& task) { return TRY(task.Info()).name + "\n"; }

Result<> StoreComm(const TaskRef& task, std::string_view text) {
  TaskInfo info = TRY(task.Info());
  // Only a thread of the same process may rename another.
  TaskHandle current = task.view().Current();
  TaskInfo caller;
  if (current && (!task.view().GetInfo(*current, false, &caller) || caller.tgid != info.tgid)) return Err(EINVAL);
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  return task.view().SetName(task.task(), std::string(text.substr(0, 15)));
}

Result<std::string> TaskLimits(const TaskRef& task) {
  TRY(task.Info());
  struct Row {
    const char* name;
    int resource;
    const char* unit;
  };
  // In the kernel's order.
  static constexpr Row kRows[] = {
      {"Max cpu time", RLIMIT_CPU, "seconds"},         {"Max file size", RLIMIT_FSIZE, "bytes"},
      {"Max data size", RLIMIT_DATA, "bytes"},         {"Max stack size", RLIMIT_STACK, "bytes"},
      {"Max core file size", RLIMIT_CORE, "bytes"},    {"Max resident set", RLIMIT_RSS, "bytes"},
      {"Max processes", RLIMIT_NPROC, "processes"},    {"Max open files", RLIMIT_NOFILE, "files"},
      {"Max locked memory", RLIMIT_MEMLOCK, "bytes"},  {"Max address space", RLIMIT_AS, "bytes"},
      {"Max file locks", RLIMIT_LOCKS, "locks"},       {"Max pending signals", RLIMIT_SIGPENDING, "signals"},
      {"Max msgqueue size", RLIMIT_MSGQUEUE, "bytes"}, {"Max nice priority", RLIMIT_NICE, ""},
      {"Max realtime priority", RLIMIT_RTPRIO, ""},    {"Max realtime timeout", RLIMIT_RTTIME, "us"},
  };
  std::array<limits::Limit, RLIM_NLIMITS> limits = task.view().GetLimits(task.task());
  std::string s = fmt::format("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
  for (const Row& r : kRows) {
    s += fmt::format("{:<25} {:<20} {:<20} {:<10}\n", r.name, LimitValue(limits[r.resource].soft),
                     LimitValue(limits[r.resource].hard), r.unit);
  }
  return s;
}

Result<std::string> TaskMounts(const TaskRef& task) {
  TRY(task.Info());
  TaskPlaces places = task.view().GetPlaces(task.task());
  if (!places.mounts) return Err(EINVAL);
  return FormatMounts(*places.mounts, places.root);
}

Result<std::string> TaskMountInfo(const TaskRef& task) {
  TRY(task.Info());
  TaskPlaces places = task.view().GetPlaces(task.task());
  if (!places.mounts) return Err(EINVAL);
  return FormatMountInfo(*places.mounts, places.root);
}

Result<std::string> TaskCgroup(const TaskRef& task) {
  TRY(task.Info());
  return std::string("0::/\n");
}

Result<std::string> TaskOomScore(const TaskRef& task) {
  TaskInfo info = TRY(task.Info());
  RefPtr<mm::MemoryManager> mm = task.view().GetMemory(task.task());
  const uint64_t total = std::max<uint64_t>(task.view().GetSystemInfo().memory_total, 1);
  // Per mille of all memory, moved by the adjustment, as oom_badness counts it.
  const int64_t share = mm ? static_cast<int64_t>(mm->resident_size() / (total / 1000 + 1)) : 0;
  return fmt::format("{}\n", std::clamp<int64_t>((share + 1000 + info.oom_score_adj) * 2 / 3, 0, 2000));
}

Result<std::string> TaskOomScoreAdj(const TaskRef& task) { return fmt::format("{}\n", TRY(task.Info()).oom_score_adj); }

Result<> StoreOomScoreAdj(const TaskRef& task, std::string_view text) {
  TaskInfo info = TRY(task.Info());
  text = Trim(text);
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < -1000 || value > 1000) return Err(EINVAL);
  // Making oneself less likely to be killed is a privilege.
  if (value < info.oom_score_adj && !vfs::CurrentIsCapable(CAP_SYS_RESOURCE)) return Err(EACCES);
  return task.view().SetOomScoreAdj(task.task(), value);
}

constexpr char kAllIds[] = "         0          0 4294967295\n";

Result<std::string> TaskUidMap(const TaskRef& task) {
  const TaskInfo info = TRY(task.Info());
  return info.user_namespace ? info.user_namespace->UidMap() : kAllIds;
}

Result<std::string> TaskGidMap(const TaskRef& task) {
  const TaskInfo info = TRY(task.Info());
  return info.user_namespace ? info.user_namespace->GidMap() : kAllIds;
}

// Of a new user namespace it is empty until it is written.
Result<std::string> TaskProjidMap(const TaskRef& task) {
  const TaskInfo info = TRY(task.Info());
  return info.user_namespace ? "" : kAllIds;
}

Result<std::string> TaskSetgroups(const TaskRef& task) {
  TRY(task.Info());
  return std::string("allow\n");
}

Result<std::string> TaskLoginUid(const TaskRef& task) {
  TRY(task.Info());
  return std::string("4294967295");
}

Result<std::string> TaskSessionId(const TaskRef& task) { return TaskLoginUid(task); }

Result<std::string> TaskPersonality(const TaskRef& task) {
  return fmt::format("{:08x}\n", TRY(task.Info()).personality);
}

Result<std::string> TaskSchedstat(const TaskRef& task) {
  TaskInfo info = TRY(task.Info());
  return fmt::format("{} 0 {}\n", info.user_ns + info.system_ns, info.voluntary_switches + info.involuntary_switches);
}

Result<std::string> TaskTimerSlack(const TaskRef& task) { return fmt::format("{}\n", TRY(task.Info()).timer_slack); }

Result<std::string> TaskWchan(const TaskRef& task) {
  TRY(task.Info());
  return std::string("0");
}

}  // namespace redoubt::proc
