// Processes: fork(2), clone(2), clone3(2), execve(2), exit(2), wait4(2), waitid(2), getpid(2), setsid(2), setpgid(2),
// prctl(2), arch_prctl(2), unshare(2), setns(2), pidfds.
#include <asm/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cstring>

#include "pkg/sentry/fsimpl/proc/namespace_file.h"
#include "pkg/sentry/kernel/pidfd.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

namespace redoubt::syscalls {
namespace {

// execve(2): at most 32 pages a string, and a quarter of the stack limit in all; counted as read so that a hostile
// vector cannot make the Sentry grow.
constexpr size_t kMaxStringLength = 32 * kPageSize;

Result<std::vector<std::string>> CopyInStrings(Task& task, Addr vector, uint64_t* budget) {
  std::vector<std::string> strings;
  if (vector == 0) return strings;
  for (Addr p = vector;; p += sizeof(uint64_t)) {
    uint64_t pointer = TRY(task.mm().CopyInObject<uint64_t>(p));
    if (pointer == 0) return strings;
    Result<std::string> s = task.mm().CopyInString(pointer, kMaxStringLength);
    if (!s) return Err(s.error() == Errno(ENAMETOOLONG) ? Errno(E2BIG) : s.error());
    uint64_t cost = s->size() + 1 + sizeof(uint64_t);
    if (cost > *budget) return Err(E2BIG);
    *budget -= cost;
    strings.push_back(std::move(*s));
  }
}

Result<uint64_t> DoExec(Task& task, vfs::Path start, std::string filename, Addr argv_addr, Addr envv_addr, int flags) {
  uint64_t stack = task.GetLimit(RLIMIT_STACK).soft;
  uint64_t budget = std::min<uint64_t>(std::max<uint64_t>(stack / 4, 32 * kPageSize), 6 << 20);
  std::vector<std::string> argv = TRY(CopyInStrings(task, argv_addr, &budget));
  std::vector<std::string> envv = TRY(CopyInStrings(task, envv_addr, &budget));
  // Since 5.18 an empty vector becomes one empty string.
  if (argv.empty()) argv.emplace_back();
  TRY(task.Exec(std::move(start), std::move(filename), std::move(argv), std::move(envv), flags));
  return 0;
}

Result<uint64_t> DoClone(Task& task, const kernel::CloneArgs& args) { return TRY(task.Clone(args)); }

Result<> CopyOutRusage(Task& task, Addr addr, const kernel::Usage& usage) {
  if (addr == 0) return {};
  struct rusage ru;
  std::memset(&ru, 0, sizeof(ru));
  auto to_timeval = [](uint64_t ns) {
    return timeval{.tv_sec = static_cast<time_t>(ns / 1'000'000'000),
                   .tv_usec = static_cast<suseconds_t>(ns % 1'000'000'000 / 1000)};
  };
  ru.ru_utime = to_timeval(usage.cpu.user);
  ru.ru_stime = to_timeval(usage.cpu.system);
  ru.ru_maxrss = static_cast<long>(usage.max_rss / 1024);
  ru.ru_minflt = static_cast<long>(usage.minor_faults);
  ru.ru_nvcsw = static_cast<long>(usage.voluntary_switches);
  ru.ru_nivcsw = static_cast<long>(usage.involuntary_switches);
  return task.mm().CopyOutObject(addr, ru);
}

Result<RefPtr<kernel::ThreadGroup>> GroupOfPidfd(Task& task, int fd) {
  FdTable::File file = TRY(task.File(fd));
  auto* pidfd = dynamic_cast<kernel::Pidfd*>(file.get());
  if (pidfd == nullptr) return Err(EBADF);
  return RefPtr<kernel::ThreadGroup>(&pidfd->group());
}

kernel::Usage GroupUsage(Task& task) {
  kernel::Usage usage;
  {
    sync::MutexLock lock(task.kernel().mu);
    usage = task.group().usage;
  }
  for (const auto& t : task.kernel().TasksOf(task.group())) {
    kernel::Usage u = t->GetUsage();
    usage.cpu += u.cpu;
    usage.minor_faults += u.minor_faults;
    usage.voluntary_switches += u.voluntary_switches;
  }
  usage.max_rss = std::max(usage.max_rss, task.mm().max_resident_size());
  return usage;
}

}  // namespace

Result<uint64_t> Fork(Task& task, const SyscallArgs&) { return DoClone(task, {.exit_signal = SIGCHLD}); }

Result<uint64_t> Vfork(Task& task, const SyscallArgs&) {
  return DoClone(task, {.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD});
}

Result<uint64_t> Clone(Task& task, const SyscallArgs& a) {
  kernel::CloneArgs args;
  args.flags = a.U64(0) & 0xffffffffULL & ~uint64_t{CSIGNAL};
  args.exit_signal = static_cast<int>(a.U64(0) & CSIGNAL);
  args.stack = a.Pointer(1);
  args.parent_tid = a.Pointer(2);
  args.child_tid = a.Pointer(3);
  args.tls = a.U64(4);
  args.pidfd = a.Pointer(2);
  // clone(2): the pidfd and the parent's TID share one argument.
  if ((args.flags & CLONE_PIDFD) != 0 && (args.flags & CLONE_PARENT_SETTID) != 0) return Err(EINVAL);
  return DoClone(task, args);
}

Result<uint64_t> Clone3(Task& task, const SyscallArgs& a) {
  size_t size = a.Size(1);
  if (size < CLONE_ARGS_SIZE_VER0) return Err(EINVAL);
  if (size > kPageSize) return Err(E2BIG);
  std::vector<std::byte> raw = TRY(task.mm().CopyInVector<std::byte>(a.Pointer(0), size));
  struct clone_args in;
  std::memset(&in, 0, sizeof(in));
  std::memcpy(&in, raw.data(), std::min(size, sizeof(in)));
  for (size_t i = sizeof(in); i < size; i++) {
    if (raw[i] != std::byte{0}) return Err(E2BIG);
  }
  if ((in.flags & (CLONE_DETACHED | CSIGNAL)) != 0 || in.exit_signal > 0xff) return Err(EINVAL);
  if ((in.flags & (CLONE_THREAD | CLONE_PARENT)) != 0 && in.exit_signal != 0) return Err(EINVAL);
  if ((in.stack == 0) != (in.stack_size == 0)) return Err(EINVAL);
  // Choosing a TID, or a cgroup, is not to be had.
  if (in.set_tid_size != 0) return Err(in.set_tid_size > 32 ? EINVAL : EPERM);
  if ((in.flags & CLONE_INTO_CGROUP) != 0) return Err(EOPNOTSUPP);
  kernel::CloneArgs args;
  args.flags = in.flags;
  args.exit_signal = static_cast<int>(in.exit_signal);
  args.stack = in.stack + in.stack_size;
  args.parent_tid = in.parent_tid;
  args.child_tid = in.child_tid;
  args.pidfd = in.pidfd;
  args.tls = in.tls;
  return DoClone(task, args);
}

Result<uint64_t> Execve(Task& task, const SyscallArgs& a) {
  std::string filename = TRY(CopyInPath(task, a.Pointer(0)));
  return DoExec(task, task.fs().cwd(), std::move(filename), a.Pointer(1), a.Pointer(2), 0);
}

Result<uint64_t> Execveat(Task& task, const SyscallArgs& a) {
  int flags = a.I32(4);
  if ((flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) != 0) return Err(EINVAL);
  std::string filename = TRY(CopyInPath(task, a.Pointer(1)));
  vfs::Path start = TRY(task.AtStart(task.Walk(), a.I32(0), filename));
  return DoExec(task, std::move(start), std::move(filename), a.Pointer(2), a.Pointer(3), flags);
}

Result<uint64_t> Exit(Task& task, const SyscallArgs& a) {
  task.Exit((a.I32(0) & 0xff) << 8);
  return 0;
}

Result<uint64_t> ExitGroup(Task& task, const SyscallArgs& a) {
  task.ExitGroup((a.I32(0) & 0xff) << 8);
  return 0;
}

Result<uint64_t> Wait4(Task& task, const SyscallArgs& a) {
  int options = a.I32(2);
  constexpr uint32_t kOptions = WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL;
  if ((static_cast<uint32_t>(options) & ~kOptions) != 0) return Err(EINVAL);
  int pid = a.I32(0);
  if (pid == INT32_MIN) return Err(ESRCH);
  kernel::Kernel::WaitArgs args{.id_type = P_ALL, .id = 0, .options = options | WEXITED};
  if (pid > 0) {
    args.id_type = P_PID;
    args.id = pid;
  } else if (pid < -1) {
    args.id_type = P_PGID;
    args.id = -pid;
  } else if (pid == 0) {
    args.id_type = P_PGID;
  }
  kernel::Kernel::WaitResult r = TRY(task.kernel().Wait(task, args));
  if (r.pid == 0) return 0;
  if (a.Pointer(1) != 0) TRY(task.mm().CopyOutObject<int32_t>(a.Pointer(1), r.status));
  TRY(CopyOutRusage(task, a.Pointer(3), r.usage));
  return r.pid;
}

Result<uint64_t> Waitid(Task& task, const SyscallArgs& a) {
  int options = a.I32(3);
  constexpr uint32_t kOptions = WNOHANG | WEXITED | WSTOPPED | WCONTINUED | WNOWAIT | __WNOTHREAD | __WCLONE | __WALL;
  if ((static_cast<uint32_t>(options) & ~kOptions) != 0) return Err(EINVAL);
  if ((options & (WEXITED | WSTOPPED | WCONTINUED)) == 0) return Err(EINVAL);
  kernel::Kernel::WaitArgs args{.id_type = a.I32(0), .id = a.I32(1), .options = options};
  switch (args.id_type) {
    case P_ALL:
      break;
    case P_PID:
      if (args.id <= 0) return Err(EINVAL);
      break;
    case P_PGID:
      if (args.id < 0) return Err(EINVAL);
      break;
    case P_PIDFD: {
      if (args.id < 0) return Err(EINVAL);
      FdTable::File file = TRY(task.File(args.id));
      args.id = TRY(GroupOfPidfd(task, args.id))->id;
      if (file->nonblocking()) args.options |= WNOHANG;
      break;
    }
    default:
      return Err(EINVAL);
  }
  kernel::Kernel::WaitResult r = TRY(task.kernel().Wait(task, args));
  siginfo_t info = MakeSigInfo(0, 0);
  if (r.pid != 0) {
    info = MakeSigInfo(SIGCHLD, 0);
    info.si_pid = r.pid;
    info.si_uid = r.uid;
    if (r.status == 0xffff) {
      info.si_code = CLD_CONTINUED;
      info.si_status = SIGCONT;
    } else if ((r.status & 0xff) == 0x7f) {
      info.si_code = r.traced ? CLD_TRAPPED : CLD_STOPPED;
      info.si_status = r.status >> 8;
    } else if ((r.status & 0x7f) == 0) {
      info.si_code = CLD_EXITED;
      info.si_status = r.status >> 8;
    } else {
      info.si_code = (r.status & 0x80) != 0 ? CLD_DUMPED : CLD_KILLED;
      info.si_status = r.status & 0x7f;
    }
  } else if ((args.options & WNOHANG) != 0 && (options & WNOHANG) == 0) {
    return Err(EAGAIN);  // a non-blocking pidfd
  }
  if (a.Pointer(2) != 0) TRY(task.mm().CopyOutObject(a.Pointer(2), info));
  if (r.pid != 0) TRY(CopyOutRusage(task, a.Pointer(4), r.usage));
  return 0;
}

Result<uint64_t> Getpid(Task& task, const SyscallArgs&) { return task.group().pid->number(); }
Result<uint64_t> Gettid(Task& task, const SyscallArgs&) { return task.pid().number(); }
Result<uint64_t> Getppid(Task& task, const SyscallArgs&) {
  return task.group().parent_id.load(std::memory_order_relaxed);
}
Result<uint64_t> Getpgrp(Task& task, const SyscallArgs&) { return task.kernel().GetPgid(task.group(), 0); }
Result<uint64_t> Getpgid(Task& task, const SyscallArgs& a) { return task.kernel().GetPgid(task.group(), a.I32(0)); }
Result<uint64_t> Getsid(Task& task, const SyscallArgs& a) { return task.kernel().GetSid(task.group(), a.I32(0)); }
Result<uint64_t> Setsid(Task& task, const SyscallArgs&) { return task.kernel().SetSid(task.group()); }
Result<uint64_t> Setpgid(Task& task, const SyscallArgs& a) {
  if (a.I32(0) < 0) return Err(ESRCH);
  TRY(task.kernel().SetPgid(task.group(), a.I32(0), a.I32(1)));
  return 0;
}

Result<uint64_t> SetTidAddress(Task& task, const SyscallArgs& a) {
  task.clear_child_tid = a.Pointer(0);
  return task.pid().number();
}

Result<uint64_t> SetRobustList(Task& task, const SyscallArgs& a) {
  if (a.Size(1) != 24) return Err(EINVAL);  // sizeof(struct robust_list_head)
  task.robust_list = a.Pointer(0);
  task.robust_list_length = a.Size(1);
  return 0;
}

Result<uint64_t> GetRobustList(Task& task, const SyscallArgs& a) {
  if (a.I32(0) != 0 && a.I32(0) != task.pid().number()) return Err(task.FindTask(a.I32(0)) ? EPERM : ESRCH);
  TRY(task.mm().CopyOutObject<uint64_t>(a.Pointer(1), task.robust_list));
  TRY(task.mm().CopyOutObject<uint64_t>(a.Pointer(2), task.robust_list_length));
  return 0;
}

Result<uint64_t> ArchPrctl(Task& task, const SyscallArgs& a) {
  switch (a.I32(0)) {
    case ARCH_SET_FS:
    case ARCH_SET_GS:
      if (a.U64(1) >= task.kernel().platform().max_user_address()) return Err(EPERM);
      if (a.I32(0) == ARCH_SET_GS && a.U64(1) != 0) {
        // Rewritten calls find their thread by gs.
        if (platform::Rewriter* rewriter = task.mm().address_space().rewriter(); rewriter != nullptr) {
          rewriter->Disable();
          task.mm().DropHidden();
        }
      }
      (a.I32(0) == ARCH_SET_FS ? task.regs().fs_base : task.regs().gs_base) = a.U64(1);
      return 0;
    case ARCH_GET_FS:
      TRY(task.mm().CopyOutObject<uint64_t>(a.Pointer(1), task.regs().fs_base));
      return 0;
    case ARCH_GET_GS:
      TRY(task.mm().CopyOutObject<uint64_t>(a.Pointer(1), task.regs().gs_base));
      return 0;
    default:
      return Err(EINVAL);
  }
}

Result<uint64_t> Prctl(Task& task, const SyscallArgs& a) {
  auto change = [&](auto&& f) {
    RefPtr<auth::Credentials> creds = task.creds().Clone();
    f(*creds);
    task.SetCreds(std::move(creds));
  };
  switch (a.I32(0)) {
    case PR_SET_NAME: {
      Result<std::string> name = task.mm().CopyInString(a.Pointer(1), 16);
      if (!name && name.error() == Errno(ENAMETOOLONG)) {
        auto raw = TRY(task.mm().CopyInObject<std::array<char, 15>>(a.Pointer(1)));
        name = std::string(raw.data(), raw.size());
      }
      task.SetName(TRY(std::move(name)));
      return 0;
    }
    case PR_GET_NAME: {
      std::array<char, 16> out{};
      std::string name = task.GetName();
      std::memcpy(out.data(), name.data(), std::min<size_t>(name.size(), 15));
      TRY(task.mm().CopyOutObject(a.Pointer(1), out));
      return 0;
    }
    case PR_SET_PDEATHSIG:
      if (a.U64(1) > kMaxSignal) return Err(EINVAL);
      task.parent_death_signal.store(a.I32(1));
      return 0;
    case PR_GET_PDEATHSIG:
      TRY(task.mm().CopyOutObject<int32_t>(a.Pointer(1), task.parent_death_signal.load()));
      return 0;
    case PR_SET_DUMPABLE:
      if (a.U64(1) > 1) return Err(EINVAL);
      task.group().dumpable.store(a.U64(1) == 1);
      return 0;
    case PR_GET_DUMPABLE:
      return task.group().dumpable.load() ? 1 : 0;
    case PR_SET_KEEPCAPS:
      if (a.U64(1) > 1) return Err(EINVAL);
      change([&](auth::Credentials& c) { c.keep_caps = a.U64(1) == 1; });
      return 0;
    case PR_GET_KEEPCAPS:
      return task.creds().keep_caps ? 1 : 0;
    case PR_SET_NO_NEW_PRIVS:
      if (a.U64(1) != 1 || a.U64(2) != 0 || a.U64(3) != 0 || a.U64(4) != 0) return Err(EINVAL);
      task.no_new_privs.store(true);
      return 0;
    case PR_GET_NO_NEW_PRIVS:
      if (a.U64(1) != 0 || a.U64(2) != 0 || a.U64(3) != 0 || a.U64(4) != 0) return Err(EINVAL);
      return task.no_new_privs.load() ? 1 : 0;
    case PR_CAPBSET_READ:
      if (a.U64(1) > CAP_LAST_CAP) return Err(EINVAL);
      return (task.creds().bounding & auth::CapabilityBit(a.I32(1))) != 0 ? 1 : 0;
    case PR_CAPBSET_DROP:
      if (a.U64(1) > CAP_LAST_CAP) return Err(EINVAL);
      if (!task.creds().HasCapability(CAP_SETPCAP)) return Err(EPERM);
      change([&](auth::Credentials& c) { c.bounding &= ~auth::CapabilityBit(a.I32(1)); });
      return 0;
    case PR_CAP_AMBIENT: {
      if (a.U64(1) == PR_CAP_AMBIENT_CLEAR_ALL) {
        change([](auth::Credentials& c) { c.ambient = 0; });
        return 0;
      }
      if (a.U64(2) > CAP_LAST_CAP) return Err(EINVAL);
      auth::CapabilitySet bit = auth::CapabilityBit(a.I32(2));
      switch (a.U64(1)) {
        case PR_CAP_AMBIENT_IS_SET:
          return (task.creds().ambient & bit) != 0 ? 1 : 0;
        case PR_CAP_AMBIENT_RAISE:
          if ((task.creds().permitted & task.creds().inheritable & bit) == 0) return Err(EPERM);
          change([&](auth::Credentials& c) { c.ambient |= bit; });
          return 0;
        case PR_CAP_AMBIENT_LOWER:
          change([&](auth::Credentials& c) { c.ambient &= ~bit; });
          return 0;
        default:
          return Err(EINVAL);
      }
    }
    case PR_GET_SECUREBITS:
      return task.creds().securebits;
    case PR_SET_SECUREBITS: {
      const uint32_t old = task.creds().securebits;
      const uint32_t locked = (old & SECURE_ALL_LOCKS) >> 1;
      if ((a.U64(1) & ~uint64_t{SECURE_ALL_BITS | SECURE_ALL_LOCKS}) != 0) return Err(EPERM);
      if ((locked & (old ^ a.U32(1))) != 0 || (old & SECURE_ALL_LOCKS & ~a.U32(1)) != 0) return Err(EPERM);
      if (!task.creds().HasCapability(CAP_SETPCAP)) return Err(EPERM);
      change([&](auth::Credentials& c) { c.securebits = a.U32(1); });
      return 0;
    }
    case PR_SET_CHILD_SUBREAPER: {
      sync::MutexLock lock(task.kernel().mu);
      task.group().child_subreaper = a.U64(1) != 0;
      return 0;
    }
    case PR_GET_CHILD_SUBREAPER: {
      int32_t value = 0;
      {
        sync::MutexLock lock(task.kernel().mu);
        value = task.group().child_subreaper ? 1 : 0;
      }
      TRY(task.mm().CopyOutObject(a.Pointer(1), value));
      return 0;
    }
    case PR_SET_TIMERSLACK:
      task.timer_slack = a.U64(1) == 0 ? task.default_timer_slack : a.U64(1);
      return 0;
    case PR_GET_TIMERSLACK:
      return task.timer_slack;
    case PR_GET_TIMING:
      return PR_TIMING_STATISTICAL;
    case PR_SET_TIMING:
      return a.U64(1) == PR_TIMING_STATISTICAL ? Result<uint64_t>(0) : Err(EINVAL);
    case PR_SET_THP_DISABLE:
      if (a.U64(2) != 0 || a.U64(3) != 0 || a.U64(4) != 0) return Err(EINVAL);
      task.group().no_huge_pages.store(a.U64(1) != 0);
      return 0;
    case PR_GET_THP_DISABLE:
      if (a.U64(1) != 0 || a.U64(2) != 0 || a.U64(3) != 0 || a.U64(4) != 0) return Err(EINVAL);
      return task.group().no_huge_pages.load() ? 1 : 0;
    case PR_GET_SECCOMP:
      return task.seccomp_mode();
    case PR_SET_SECCOMP:
      switch (a.U64(1)) {
        case SECCOMP_MODE_STRICT:
          return Seccomp(task, {{SECCOMP_SET_MODE_STRICT}});
        case SECCOMP_MODE_FILTER:
          return Seccomp(task, {{SECCOMP_SET_MODE_FILTER, 0, a.U64(2)}});
        default:
          return Err(EINVAL);
      }
    default:
      return Err(EINVAL);
  }
}

Result<uint64_t> Unshare(Task& task, const SyscallArgs& a) {
  uint64_t flags = a.U64(0);
  if ((flags & ~uint64_t{CLONE_FS | CLONE_FILES | CLONE_NEWNS | CLONE_NEWPID | CLONE_SYSVSEM}) != 0) return Err(EINVAL);
  if ((flags & (CLONE_NEWNS | CLONE_NEWPID)) != 0 && !task.creds().HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  if ((flags & CLONE_NEWPID) != 0) {
    RefPtr<kernel::PidNamespace> own = task.GetPidNamespaceForChildren();
    if (own.get() != &task.pid_ns()) return Err(EINVAL);
    task.SetPidNamespaceForChildren(TRY(kernel::PidNamespace::Create(std::move(own), task.creds().euid)));
  }
  if ((flags & (CLONE_FS | CLONE_NEWNS)) != 0) task.SetFs(task.fs().Clone());
  if ((flags & CLONE_NEWNS) != 0) {
    vfs::Path root = task.fs().root();
    vfs::Path cwd = task.fs().cwd();
    RefPtr<vfs::MountNamespace> copy = TRY(task.GetMountNamespace()->Copy({&root, &cwd}));
    task.fs().SetRoot(root);
    task.fs().SetCwd(cwd);
    task.SetMountNamespace(std::move(copy));
  }
  if ((flags & CLONE_FILES) != 0) task.SetFds(task.fds().Clone());
  return 0;
}

// Only PID namespaces can be joined.
Result<uint64_t> Setns(Task& task, const SyscallArgs& a) {
  const int type = a.I32(1);
  FdTable::File file = TRY(task.File(a.I32(0)));
  RefPtr<kernel::PidNamespace> ns;
  if (auto* pidfd = dynamic_cast<kernel::Pidfd*>(file.get()); pidfd != nullptr) {
    if (type != CLONE_NEWPID) return Err(EINVAL);
    {
      sync::MutexLock lock(task.kernel().mu);
      if (pidfd->group().zombie) return Err(ESRCH);
    }
    ns = RefPtr<kernel::PidNamespace>(&pidfd->group().pid->ns());
  } else if (auto* named = dynamic_cast<proc::NamespaceFile*>(file.get()); named != nullptr) {
    if (type != 0 && type != CLONE_NEWPID) return Err(EINVAL);
    ns = RefCast<kernel::PidNamespace>(named->object());
  }
  if (!ns) return Err(EINVAL);
  if (!task.creds().HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  // pid_namespaces(7): a process goes down or stays, never up.
  if (!ns->IsWithin(task.pid_ns())) return Err(EINVAL);
  task.SetPidNamespaceForChildren(std::move(ns));
  return 0;
}

Result<uint64_t> PidfdOpen(Task& task, const SyscallArgs& a) {
  if ((a.I32(1) & ~O_NONBLOCK) != 0 || a.I32(0) <= 0) return Err(EINVAL);
  RefPtr<kernel::ThreadGroup> group = task.FindGroup(a.I32(0));
  if (!group) return Err(task.FindTask(a.I32(0)) ? EINVAL : ESRCH);
  FdTable::File file = kernel::MakePidfd(std::move(group));
  TRY(file->SetStatusFlags(a.I32(1)));
  return TRY(task.InstallFd(std::move(file), true));
}

Result<uint64_t> PidfdSendSignal(Task& task, const SyscallArgs& a) {
  int sig = a.I32(1);
  if (a.U32(3) != 0) return Err(EINVAL);
  RefPtr<kernel::ThreadGroup> group = TRY(GroupOfPidfd(task, a.I32(0)));
  // pidfd_send_signal(2): the process is in the caller's PID namespace or below.
  if (group->pid->In(task.pid_ns()) == 0) return Err(EINVAL);
  if (a.Pointer(2) != 0) {
    siginfo_t info = TRY(task.mm().CopyInObject<siginfo_t>(a.Pointer(2)));
    if (info.si_signo != sig || !IsValidSignal(sig)) return Err(EINVAL);
    if (group.get() != &task.group() && (info.si_code >= 0 || info.si_code == SI_TKILL)) return Err(EPERM);
    {
      sync::MutexLock lock(task.kernel().mu);
      if (group->zombie) return Err(ESRCH);
    }
    TRY(task.kernel().SendToGroup(*group, info));
    return 0;
  }
  TRY(task.kernel().Kill(task, *group, sig));
  return 0;
}

Result<uint64_t> Getrusage(Task& task, const SyscallArgs& a) {
  kernel::Usage usage;
  switch (a.I32(0)) {
    case RUSAGE_SELF:
      usage = GroupUsage(task);
      break;
    case RUSAGE_THREAD:
      usage = task.GetUsage();
      usage.max_rss = task.mm().max_resident_size();
      break;
    case RUSAGE_CHILDREN: {
      sync::MutexLock lock(task.kernel().mu);
      usage = task.group().children_usage;
      break;
    }
    default:
      return Err(EINVAL);
  }
  if (a.Pointer(1) == 0) return Err(EFAULT);
  TRY(CopyOutRusage(task, a.Pointer(1), usage));
  return 0;
}

Result<uint64_t> Times(Task& task, const SyscallArgs& a) {
  constexpr uint64_t kTick = 10'000'000;  // USER_HZ 100
  if (a.Pointer(0) != 0) {
    kernel::Usage self = GroupUsage(task);
    kernel::Usage children;
    {
      sync::MutexLock lock(task.kernel().mu);
      children = task.group().children_usage;
    }
    int64_t t[4] = {static_cast<int64_t>(self.cpu.user / kTick), static_cast<int64_t>(self.cpu.system / kTick),
                    static_cast<int64_t>(children.cpu.user / kTick), static_cast<int64_t>(children.cpu.system / kTick)};
    TRY(task.mm().CopyOutAll(a.Pointer(0), std::as_bytes(std::span(t))));
  }
  return static_cast<uint64_t>(clock::Boottime()) / kTick;
}

}  // namespace redoubt::syscalls
