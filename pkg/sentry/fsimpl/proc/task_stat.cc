// /proc/PID/stat, statm, status: proc(5), field by field.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "pkg/sentry/fsimpl/proc/task_directory.h"

namespace redoubt::proc {

namespace {

constexpr uint64_t kNsPerTick = 10'000'000;  // USER_HZ is 100

// The kernel's encoding of a device number in 32 bits.
uint32_t EncodeDevice(uint64_t device) {
  const uint32_t ma = major(device), mi = minor(device);
  return (mi & 0xff) | (ma << 8) | ((mi & ~0xffu) << 12);
}

struct Memory {
  uint64_t size = 0, resident = 0, peak_resident = 0;
  uint64_t data = 0, stack = 0, text = 0, library = 0, anonymous = 0, file = 0;
  mm::MemoryManager::ExecInfo exec;
};

Memory GetMemory(const TaskRef& task) {
  Memory m;
  RefPtr<mm::MemoryManager> mm = task.view().GetMemory(task.task());
  if (!mm) return m;
  m.size = mm->virtual_size();
  m.resident = mm->resident_size();
  m.peak_resident = std::max(mm->max_resident_size(), m.resident);
  m.exec = mm->exec_info();
  for (const mm::MapsEntry& e : mm->Maps()) {
    const uint64_t length = e.range.length();
    const bool is_file = e.inode != 0;
    (is_file ? m.file : m.anonymous) += e.rss;
    if (e.name == "[stack]") {
      m.stack += length;
    } else if (e.access.execute && is_file) {
      (m.exec.code.Overlaps(e.range) ? m.text : m.library) += length;
    } else if (e.access.write && !e.shared) {
      m.data += length;
    }
  }
  return m;
}

std::string_view StateName(char state) {
  switch (state) {
    case 'R':
      return "running";
    case 'S':
      return "sleeping";
    case 'D':
      return "disk sleep";
    case 'T':
      return "stopped";
    case 't':
      return "tracing stop";
    case 'Z':
      return "zombie";
    default:
      return "dead";
  }
}

// As Linux prints CPU masks: 32 bits at a time.
std::string Mask(uint64_t mask) {
  if (mask >> 32 == 0) return fmt::format("{:x}", mask);
  return fmt::format("{:x},{:08x}", mask >> 32, mask & 0xffffffff);
}
std::string MaskList(uint64_t mask) {
  std::string out;
  for (int i = 0; i < 64; i++) {
    if (!(mask >> i & 1)) continue;
    int last = i;
    while (last < 63 && (mask >> (last + 1) & 1)) last++;
    if (!out.empty()) out += ',';
    out += last > i ? fmt::format("{}-{}", i, last) : fmt::format("{}", i);
    i = last;
  }
  return out;
}

// Control characters in a name would break the line.
std::string EscapeName(std::string_view name) { return EscapeOctal(name, "\n\\"); }

}  // namespace

Result<std::string> TaskStat(const TaskRef& task) {
  TaskInfo t = TRY(task.Info());
  Memory m;
  // Addresses are for those who may look inside; others see 0, as in Linux.
  if (t.state != 'Z') m = GetMemory(task);
  const bool see = task.view().CheckAccess(task.task()).has_value();
  if (!see) m.exec = {};
  std::array<limits::Limit, RLIM_NLIMITS> limits = task.view().GetLimits(task.task());
  std::string s =
      fmt::format("{} ({}) {} {} {} {} {} {} {}", t.tid, t.name, t.state, t.ppid, t.process_group, t.session,
                  static_cast<int32_t>(EncodeDevice(t.terminal)), t.terminal_foreground, 0x400000 /* flags */);
  s += fmt::format(" {} {} {} {}", t.minor_faults, t.children_minor_faults, t.major_faults, t.children_major_faults);
  s += fmt::format(" {} {} {} {}", t.user_ns / kNsPerTick, t.system_ns / kNsPerTick, t.children_user_ns / kNsPerTick,
                   t.children_system_ns / kNsPerTick);
  s += fmt::format(" {} {} {} 0 {}", 20 + t.nice, t.nice, t.threads, static_cast<uint64_t>(t.start_time) / kNsPerTick);
  s += fmt::format(" {} {} {}", m.size, m.resident / kPageSize, limits[RLIMIT_RSS].soft);
  s += fmt::format(" {} {} {} 0 0", m.exec.code.start, m.exec.code.end, m.exec.start_stack);
  s += fmt::format(" {} {} {} {}", t.pending & 0x7fffffff, t.blocked & 0x7fffffff, t.ignored & 0x7fffffff,
                   t.caught & 0x7fffffff);
  s += fmt::format(" 0 0 0 {} {} 0 0 0 0 0", t.exit_signal, t.last_cpu);
  s += fmt::format(" {} {} {} {} {} {} {} {}\n", m.exec.data.start, m.exec.data.end, m.exec.start_brk,
                   m.exec.argv.start, m.exec.argv.end, m.exec.envv.start, m.exec.envv.end, see ? t.exit_code : 0);
  return s;
}

Result<std::string> TaskStatm(const TaskRef& task) {
  TRY(task.Info());
  Memory m = GetMemory(task);
  return fmt::format("{} {} {} {} 0 {} 0\n", m.size / kPageSize, m.resident / kPageSize, m.file / kPageSize,
                     m.text / kPageSize, (m.data + m.stack) / kPageSize);
}

Result<std::string> TaskStatus(const TaskRef& task) {
  TaskInfo t = TRY(task.Info());
  const auth::Credentials& c = *t.creds;
  RefPtr<FdTable> fds = task.view().GetFds(task.task());
  size_t fd_size = 0;
  if (fds) {
    for (const FdTable::Info& f : fds->List()) fd_size = std::max(fd_size, static_cast<size_t>(f.fd) + 1);
    fd_size = std::max<size_t>(64, (fd_size + 63) / 64 * 64);
  }
  std::string s = fmt::format("Name:\t{}\n", EscapeName(t.name));
  if (t.state != 'Z') s += fmt::format("Umask:\t{:04o}\n", t.umask);
  s += fmt::format("State:\t{} ({})\nTgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t{}\n", t.state,
                   StateName(t.state), t.tgid, t.tid, t.ppid, t.tracer);
  s += fmt::format("Uid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\nFDSize:\t{}\nGroups:\t", c.ruid, c.euid, c.suid,
                   c.fsuid, c.rgid, c.egid, c.sgid, c.fsgid, fd_size);
  for (uint32_t g : c.groups) s += fmt::format("{} ", g);
  if (c.groups.empty()) s += ' ';
  auto numbers = [&s](std::string_view name, const std::vector<int>& in_each, int here) {
    s += fmt::format("\n{}:\t{}", name,
                     in_each.empty() ? std::to_string(here) : fmt::format("{}", fmt::join(in_each, "\t")));
  };
  numbers("NStgid", t.ns_tgid, t.tgid);
  numbers("NSpid", t.ns_tid, t.tid);
  numbers("NSpgid", t.ns_process_group, t.process_group);
  numbers("NSsid", t.ns_session, t.session);
  s += "\nKthread:\t0\n";
  if (t.state != 'Z' && task.view().GetMemory(task.task())) {
    Memory m = GetMemory(task);
    auto kb = [&s](std::string_view name, uint64_t bytes) { s += fmt::format("{}:\t{:8} kB\n", name, bytes / 1024); };
    kb("VmPeak", m.size);
    kb("VmSize", m.size);
    kb("VmLck", 0);
    kb("VmPin", 0);
    kb("VmHWM", m.peak_resident);
    kb("VmRSS", m.resident);
    kb("RssAnon", m.anonymous);
    kb("RssFile", m.file);
    kb("RssShmem", 0);
    kb("VmData", m.data);
    kb("VmStk", m.stack);
    kb("VmExe", m.text);
    kb("VmLib", m.library);
    kb("VmPTE", m.resident / 512);
    kb("VmSwap", 0);
    kb("HugetlbPages", 0);
    s += "CoreDumping:\t0\nTHP_enabled:\t0\n";
  }
  std::array<limits::Limit, RLIM_NLIMITS> limits = task.view().GetLimits(task.task());
  s += fmt::format("Threads:\t{}\nSigQ:\t{}/{}\n", t.threads, t.queued_signals, limits[RLIMIT_SIGPENDING].soft);
  s += fmt::format("SigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
                   t.pending, t.shared_pending, t.blocked, t.ignored, t.caught);
  s += fmt::format("CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\n",
                   c.inheritable, c.permitted, c.effective, c.bounding, c.ambient);
  s += fmt::format("NoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\n", t.no_new_privs ? 1 : 0, t.seccomp,
                   t.seccomp_filters);
  s += "Speculation_Store_Bypass:\tnot vulnerable\nSpeculationIndirectBranch:\tunknown\n";
  s += fmt::format("Cpus_allowed:\t{}\nCpus_allowed_list:\t{}\nMems_allowed:\t1\nMems_allowed_list:\t0\n",
                   Mask(t.cpu_mask), MaskList(t.cpu_mask));
  s += fmt::format("voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n", t.voluntary_switches,
                   t.involuntary_switches);
  return s;
}

}  // namespace redoubt::proc
