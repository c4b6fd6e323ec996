#include "runsc/boot/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "pkg/sentry/kernel/proc_view.h"
#include "pkg/sentry/strace/strace.h"
#include "pkg/sentry/syscalls/table.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::boot {
namespace {

// A process may have gigabytes of arguments; a list of processes is for people.
constexpr uint64_t kMaxCommandLine = 4096;

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

std::string Doing(kernel::Task& task) {
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
  return "waits in " + strace::Format(*memory, a.syscall_number, entry, a.args, nullptr) + place;
}

}  // namespace

std::vector<control::ProcessInfo> Processes(kernel::Kernel& kernel, const kernel::Container& container) {
  kernel::ProcView view(kernel, nullptr);
  std::vector<control::ProcessInfo> list;
  for (const RefPtr<kernel::ThreadGroup>& group : kernel.GroupsOf(container)) {
    proc::TaskHandle leader = view.Find(group->id);
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

std::string Stacks(kernel::Kernel& kernel, const kernel::Container& container) {
  std::string text;
  for (const RefPtr<kernel::ThreadGroup>& group : kernel.GroupsOf(container)) {
    for (const RefPtr<kernel::Task>& task : kernel.TasksOf(*group)) {
      const char state = task->GetState();
      text += fmt::format("pid {} tid {} ({}) {}: {}\n", group->id, task->tid(), task->GetName(), state,
                          state == 'Z' ? "has ended" : Doing(*task));
    }
  }
  return text;
}

}  // namespace redoubt::boot
