// What procfs asks of the kernel: snapshots, by handles to tasks, with the numbers of one PID namespace. The kernel
// implements it; procfs knows nothing else of tasks.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_PROC_KERNEL_VIEW_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_PROC_KERNEL_VIEW_H_

#include <sys/resource.h>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/auth/user_namespace.h"
#include "pkg/sentry/fdtable/fd_table.h"
#include "pkg/sentry/limits/limits.h"
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/vfs/path.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::proc {

// One thread: the kernel's Task. Stays good (and dead) after the task is gone, so that a reused number is not taken for
// it.
using TaskHandle = RefPtr<RefCounted>;

// /proc/PID/stat and status, for a thread; what the documentation of proc(5) sums over the process is of the whole
// process if the snapshot was asked for so.
struct TaskInfo {
  int tid = 0, tgid = 0, ppid = 0;
  int process_group = 0, session = 0;
  // From the namespace of the view inwards: NSpid and its kin. Empty: as above, once.
  std::vector<int> ns_tid, ns_tgid, ns_process_group, ns_session;
  int tracer = 0;
  char state = 'R';  // R, S, D, T, t, Z, X
  std::string name;  // comm
  int exit_signal = 0;
  int exit_code = 0;  // as wait(2) encodes it; zombies
  int threads = 1;

  RefPtr<const auth::Credentials> creds;             // never null
  RefPtr<const auth::UserNamespace> user_namespace;  // null: the first
  uint32_t umask = 022;
  bool dumpable = true;
  bool no_new_privs = false;
  int seccomp = 0;  // 0, 1 (strict), 2 (filter)
  int seccomp_filters = 0;

  int64_t start_time = 0;  // CLOCK_BOOTTIME, ns
  uint64_t user_ns = 0, system_ns = 0, children_user_ns = 0, children_system_ns = 0;
  uint64_t minor_faults = 0, major_faults = 0, children_minor_faults = 0, children_major_faults = 0;
  uint64_t voluntary_switches = 0, involuntary_switches = 0;
  int nice = 0;
  uint64_t cpu_mask = 1;
  int last_cpu = 0;
  uint32_t personality = 0;

  // Signal n is bit n - 1.
  uint64_t pending = 0, shared_pending = 0, blocked = 0, ignored = 0, caught = 0;
  uint64_t queued_signals = 0;

  // The controlling terminal: its device number (0: none) and foreground process group (-1: none).
  uint64_t terminal = 0;
  int terminal_foreground = -1;

  int oom_score_adj = 0;
  uint64_t timer_slack = 50'000;  // ns
};

// Where a task stands. Null places after it has exited.
struct TaskPlaces {
  vfs::Path root, cwd;
  RefPtr<vfs::MountNamespace> mounts;
};

struct SystemInfo {
  uint64_t memory_total = 0, memory_free = 0;  // bytes, as the guest is to see them
  uint64_t memory_cached = 0;                  // of those not free
  int cpus = 1;
  int64_t boot_time = 0;                             // CLOCK_REALTIME, ns
  int64_t uptime = 0;                                // ns
  uint64_t user_ns = 0, system_ns = 0, idle_ns = 0;  // over all CPUs
  uint64_t context_switches = 0, forks = 0;
  int running = 1, tasks = 1;
  int last_pid = 0, pid_max = 4194304;
  double load[3] = {0, 0, 0};
};

// Thread-safe; may block the fiber only where it says so. Handles are what Find and Current returned.
class KernelView {
 public:
  virtual ~KernelView() = default;

  // Leaders of processes, zombies included, in rising order.
  virtual std::vector<int> Processes() = 0;
  // Of a process, in rising order; empty if it is gone.
  virtual std::vector<int> Threads(int tgid) = 0;
  // The thread with that number (a leader's is its process's); null if none.
  virtual TaskHandle Find(int tid) = 0;
  // The thread that runs on this fiber; null if none does.
  virtual TaskHandle Current() = 0;

  // False if the task has been reaped, or has no number in this view. `whole_process`: times, faults and switches of
  // all its threads, living and dead.
  virtual bool GetInfo(RefCounted& task, bool whole_process, TaskInfo* info) = 0;
  // Null for zombies.
  virtual RefPtr<mm::MemoryManager> GetMemory(RefCounted& task) = 0;
  virtual RefPtr<FdTable> GetFds(RefCounted& task) = 0;
  virtual TaskPlaces GetPlaces(RefCounted& task) = 0;
  virtual std::array<limits::Limit, RLIM_NLIMITS> GetLimits(RefCounted& task) = 0;
  // Whether the current task may look into `task` as ptrace(2), PTRACE_MODE_READ, says: EACCES.
  virtual Result<> CheckAccess(RefCounted& task) = 0;
  // /proc/PID/comm, oom_score_adj, timerslack_ns; permission has been checked.
  virtual Result<> SetName(RefCounted& task, std::string name) = 0;
  virtual Result<> SetOomScoreAdj(RefCounted& task, int value) = 0;
  // The number in /proc/PID/ns/KIND ("mnt:[N]"), also for pid_for_children and its kin; the default is one of each.
  virtual uint64_t NamespaceId(RefCounted& task, std::string_view kind);
  // The namespace itself, for setns(2); null for kinds of which there is only one.
  virtual RefPtr<RefCounted> Namespace(RefCounted& task, std::string_view kind) { return nullptr; }

  virtual SystemInfo GetSystemInfo() = 0;
  // uname(2)'s.
  virtual std::string Release() = 0;
  virtual std::string Version() = 0;
  virtual std::string Hostname() = 0;
  virtual std::string Domainname() = 0;
  virtual Result<> SetHostname(std::string name) = 0;
  virtual Result<> SetDomainname(std::string name) = 0;
  // Types mount(2) knows, with "nodev\t" before those that need no device, in the order of /proc/filesystems.
  virtual std::vector<std::string> Filesystems() = 0;
  // Lines of /proc/net/NAME after its heading ("tcp", "udp", "unix", "dev", "route", ...). Default: none.
  virtual std::string NetTable(std::string_view name) { return {}; }
  // The number behind /proc/sys/net/NAME, if the network obeys it ("ipv4/tcp_fastopen"). Default: none is.
  struct NetSetting {
    std::function<int64_t()> get;
    std::function<void(int64_t)> set;
  };
  virtual std::optional<NetSetting> FindNetSetting(std::string_view name) { return std::nullopt; }
};

}  // namespace redoubt::proc

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_PROC_KERNEL_VIEW_H_
