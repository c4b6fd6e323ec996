#include "runsc/boot/inspect.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>

#include <algorithm>
#include <iterator>
#include <span>

#include "pkg/p9/client.h"
#include "pkg/sentry/fdtable/fd_table.h"
#include "pkg/sentry/kernel/proc_view.h"
#include "pkg/sentry/strace/strace.h"
#include "pkg/sentry/syscalls/table.h"
#include "pkg/sentry/time/clock.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::boot {
namespace {

// A process may have gigabytes of arguments; a list of processes is for people.
constexpr uint64_t kMaxCommandLine = 4096;
constexpr uint64_t kMaxPolled = 16;

// Of proc(5), /proc/PID/cmdline, with spaces for NULs. Empty if there is none to be read.
std::string CommandLine(mm::MemoryManager& memory) {
  const AddrRange arguments = memory.exec_info().argv;
  std::string text(std::min(arguments.length(), kMaxCommandLine), '\0');
  Result<size_t> n = memory.ForceCopyIn(arguments.start, std::as_writable_bytes(std::span(text)));
  text.resize(n.value_or(0));
  while (!text.empty() && text.back() == '\0') text.pop_back();
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

// A program names itself as it likes, and this goes to terminals.
std::string Visible(std::string name) {
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, '?');
  return name;
}

std::string NameOf(FdTable& fds, int fd) {
  Result<FdTable::File> file = fds.Get(fd);
  if (!file) return "not open";
  return vfs::PathName(vfs::Path(), (*file)->path()).name;
}

// As the container's PID namespace has it.
int NumberIn(kernel::Kernel& kernel, const kernel::Container& container, const kernel::Pid& pid) {
  return pid.In(container.pid_ns ? *container.pid_ns : kernel.root_pid_ns());
}

// What its arguments lead to: files by their names, a futex's word.
std::string Details(kernel::Kernel& kernel, const kernel::Container& container, kernel::Task& task,
                    const kernel::Task::Activity& a, std::string_view kinds, mm::MemoryManager& memory) {
  std::string text;
  kernel::ProcView view(kernel, container.pid_ns, nullptr);
  RefPtr<FdTable> fds = view.GetFds(task);
  for (size_t i = 0; fds && i < kinds.size() && i < std::size(a.args.v); i++) {
    if (kinds[i] == 'f') text += fmt::format("; {} is {}", a.args.I32(i), NameOf(*fds, a.args.I32(i)));
  }
  const Addr first = a.args.v[0];
  if (a.syscall_number == SYS_futex) {
    if (Result<uint32_t> word = memory.CopyInObject<uint32_t>(first)) {
      text += fmt::format("; futex {:#x} holds {:#x}", first, *word);
    }
  } else if (a.syscall_number == SYS_poll || a.syscall_number == SYS_ppoll) {
    for (uint64_t i = 0; fds && i < std::min<uint64_t>(a.args.v[1], kMaxPolled); i++) {
      Result<pollfd> p = memory.CopyInObject<pollfd>(first + i * sizeof(pollfd));
      if (p) text += fmt::format("; {} is {}", p->fd, NameOf(*fds, p->fd));
    }
  } else if (a.syscall_number == SYS_wait4 || a.syscall_number == SYS_waitid) {
    std::string children;
    for (const RefPtr<kernel::ThreadGroup>& group : kernel.GroupsOf(container)) {
      proc::TaskInfo info;
      proc::TaskHandle leader = kernel.FindTask(group->id);
      if (leader && view.GetInfo(*leader, false, &info) &&
          info.ppid == NumberIn(kernel, container, *task.group().pid)) {
        children += fmt::format(" {}", info.tgid);
      }
    }
    text += children.empty() ? "; it has no children" : "; its children are" + children;
  }
  return text;
}

std::string Doing(kernel::Kernel& kernel, const kernel::Container& container, kernel::Task& task) {
  const kernel::Task::Activity a = task.GetActivity();
  std::string place = a.registers_known ? fmt::format("; rip {:#x}, rsp {:#x}", a.rip, a.rsp) : std::string();
  if (a.in_guest) return "runs in the guest";
  if (a.frozen) return "frozen" + place;
  if (a.stopped) return "stopped by a signal" + place;
  if (!a.asleep) return "at work in the Sentry" + place;
  if (a.syscall_number >= syscalls::kTableSize) return "asleep, not in a system call" + place;
  RefPtr<mm::MemoryManager> memory = task.GetMm();
  if (!memory) return "ending";
  const syscalls::Entry& entry = syscalls::Lookup(a.syscall_number);
  return "waits in " + strace::Format(*memory, a.syscall_number, entry, a.args, nullptr) +
         Details(kernel, container, task, a, entry.arguments, *memory) + place;
}

}  // namespace

std::vector<control::ProcessInfo> Processes(kernel::Kernel& kernel, const kernel::Container& container) {
  kernel::ProcView view(kernel, container.pid_ns, nullptr);
  std::vector<control::ProcessInfo> list;
  for (const RefPtr<kernel::ThreadGroup>& group : kernel.GroupsOf(container)) {
    proc::TaskHandle leader = kernel.FindTask(group->id);
    proc::TaskInfo info;
    if (!leader || !view.GetInfo(*leader, true, &info)) continue;
    control::ProcessInfo p{.pid = info.tgid,
                           .parent = info.ppid,
                           .uid = info.creds->euid,
                           .threads = info.threads,
                           .state = info.state,
                           .cpu_ns = info.user_ns + info.system_ns,
                           .started_ns = info.start_time + (clock::Realtime() - clock::Boottime())};
    if (RefPtr<mm::MemoryManager> memory = view.GetMemory(*leader)) {
      p.resident = memory->resident_size();
      p.command_line = CommandLine(*memory);
    }
    if (p.command_line.empty()) p.command_line = "[" + info.name + "]";
    list.push_back(std::move(p));
  }
  return list;
}

control::Stats Stats(kernel::Kernel& kernel, const kernel::Container& container, uint64_t memory_limit) {
  const kernel::CpuTimes cpu = kernel.CpuOf(container);
  control::Stats stats{.cpu_user_ns = cpu.user,
                       .cpu_system_ns = cpu.system,
                       .memory = kernel.memory_file().usage(),
                       .memory_limit = memory_limit};
  for (const RefPtr<kernel::ThreadGroup>& group : kernel.GroupsOf(container)) {
    stats.processes++;
    stats.threads += std::max<size_t>(1, kernel.TasksOf(*group).size());
  }
  return stats;
}

std::vector<control::Metric> Metrics(kernel::Kernel& kernel, const kernel::Container& container,
                                     uint64_t memory_limit) {
  const control::Stats stats = Stats(kernel, container, memory_limit);
  uint64_t faults = 0;
  kernel::ProcView view(kernel, container.pid_ns, nullptr);
  for (const RefPtr<kernel::ThreadGroup>& group : kernel.GroupsOf(container)) {
    proc::TaskHandle leader = kernel.FindTask(group->id);
    proc::TaskInfo info;
    if (leader && view.GetInfo(*leader, true, &info)) faults += info.minor_faults + info.major_faults;
  }
  auto seconds = [](uint64_t ns) { return static_cast<double>(ns) / 1e9; };
  auto number = [](uint64_t n) { return static_cast<double>(n); };
  std::vector<control::Metric> metrics = {
      {"cpu_seconds_total", "mode", "user", seconds(stats.cpu_user_ns)},
      {"cpu_seconds_total", "mode", "system", seconds(stats.cpu_system_ns)},
      {"processes", "", "", number(stats.processes)},
      {"threads", "", "", number(stats.threads)},
      {"page_faults_total", "", "", number(faults)},
      {"memory_bytes", "", "", number(stats.memory)},
      {"memory_limit_bytes", "", "", number(stats.memory_limit)},
      {"gofer_messages_total", "", "", number(p9::Client::TotalMessages())},
  };
  for (const auto& [name, count] : syscalls::Calls()) {
    metrics.push_back({"syscalls_total", "name", name.empty() ? "unknown" : std::string(name), number(count)});
  }
  for (const syscalls::MissingCall& call : syscalls::MissingCalls()) {
    metrics.push_back({"syscalls_missing_total", "name", call.name, number(call.count)});
  }
  return metrics;
}

std::string MissingText() {
  std::string text;
  for (const syscalls::MissingCall& call : syscalls::MissingCalls()) {
    text += fmt::format("runsc: not implemented: {} ({} calls, the first by {})\n", call.name, call.count,
                        Visible(call.program));
  }
  return text;
}

std::string Summary(kernel::Kernel& kernel, const kernel::Container& container) {
  uint64_t made = 0;
  for (const auto& [name, count] : syscalls::Calls()) made += count;
  const kernel::CpuTimes cpu = kernel.CpuOf(container);
  auto seconds = [](auto ns) { return static_cast<double>(ns) / 1e9; };
  return fmt::format("runsc: {} system calls; {:.2f} s of processor time in programs, {:.2f} s in their calls\n{}",
                     made, seconds(cpu.user), seconds(cpu.system), MissingText());
}

std::string Stacks(kernel::Kernel& kernel, const kernel::Container& container) {
  std::string text;
  for (const RefPtr<kernel::ThreadGroup>& group : kernel.GroupsOf(container)) {
    for (const RefPtr<kernel::Task>& task : kernel.TasksOf(*group)) {
      const char state = task->GetState();
      int tid = 0;
      {
        sync::MutexLock lock(kernel.mu);
        tid = NumberIn(kernel, container, task->pid());
      }
      text += fmt::format("pid {} tid {} ({}) {}: {}\n", NumberIn(kernel, container, *group->pid), tid, task->GetName(),
                          state, state == 'Z' ? "has ended" : Doing(kernel, container, *task));
    }
  }
  return text;
}

}  // namespace redoubt::boot
