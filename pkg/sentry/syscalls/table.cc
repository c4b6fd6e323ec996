#include "pkg/sentry/syscalls/table.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>

#include "pkg/log/log.h"
#include "pkg/sentry/syscalls/call_counts.h"
#include "pkg/sentry/syscalls/handlers.h"
#include "pkg/sync/mutex.h"

namespace redoubt::syscalls {
namespace {

struct Row {
  uint64_t number;
  Entry entry;
};

// Numbers and names are those of asm/unistd_64.h and, past what Debian 12's headers know, of Linux 6.10's table.
// clang-format off
constexpr Row kRows[] = {
    {0, {"read", "fBu", Read}},
    {1, {"write", "fbu", Write}},
    {2, {"open", "sOo", Open}},
    {3, {"close", "f", Close}},
    {4, {"stat", "sT", Stat}},
    {5, {"fstat", "fT", Fstat}},
    {6, {"lstat", "sT", Lstat}},
    {7, {"poll", "pud", Poll}},
    {8, {"lseek", "fdd", Lseek}},
    {9, {"mmap", "xxMxfx", Mmap}},
    {10, {"mprotect", "xxM", Mprotect}},
    {11, {"munmap", "xx", Munmap}},
    {12, {"brk", "x", Brk}},
    {13, {"rt_sigaction", "Sppu", RtSigaction}},
    {14, {"rt_sigprocmask", "dppu", RtSigprocmask}},
    {15, {"rt_sigreturn", "", RtSigreturn}},
    {16, {"ioctl", "fxx", Ioctl}},
    {17, {"pread64", "fBud", Pread64}},
    {18, {"pwrite64", "fbud", Pwrite64}},
    {19, {"readv", "fpu", Readv}},
    {20, {"writev", "fpu", Writev}},
    {21, {"access", "so", Access}},
    {22, {"pipe", "p", Pipe}},
    {23, {"select", "dpppp", Select}},
    {24, {"sched_yield", "", SchedYield}},
    {25, {"mremap", "xxxxx", Mremap}},
    {26, {"msync", "xxx", Msync}},
    {27, {"mincore", "xxp", Mincore}},
    {28, {"madvise", "xxd", Madvise}},
    {29, {"shmget", "xux", Shmget}},
    {30, {"shmat", "dpx", Shmat}},
    {31, {"shmctl", "ddp", Shmctl}},
    {32, {"dup", "f", Dup}},
    {33, {"dup2", "ff", Dup2}},
    {34, {"pause", "", Pause}},
    {35, {"nanosleep", "tp", Nanosleep}},
    {36, {"getitimer", "dp", Getitimer}},
    {37, {"alarm", "u", Alarm}},
    {38, {"setitimer", "dpp", Setitimer}},
    {39, {"getpid", "", Getpid}},
    {40, {"sendfile", "ffpu", Sendfile}},
    {41, {"socket", "ddd", Socket}},
    {42, {"connect", "fpu", Connect}},
    {43, {"accept", "fpp", Accept}},
    {44, {"sendto", "fbuxpu", Sendto}},
    {45, {"recvfrom", "fBuxpp", Recvfrom}},
    {46, {"sendmsg", "fpx", Sendmsg}},
    {47, {"recvmsg", "fpx", Recvmsg}},
    {48, {"shutdown", "fd", Shutdown}},
    {49, {"bind", "fpu", Bind}},
    {50, {"listen", "fd", Listen}},
    {51, {"getsockname", "fpp", Getsockname}},
    {52, {"getpeername", "fpp", Getpeername}},
    {53, {"socketpair", "dddp", Socketpair}},
    {54, {"setsockopt", "fddpu", Setsockopt}},
    {55, {"getsockopt", "fddpp", Getsockopt}},
    {56, {"clone", "xpppx", Clone}},
    {57, {"fork", "", Fork}},
    {58, {"vfork", "", Vfork}},
    {59, {"execve", "sVV", Execve}},
    {60, {"exit", "d", Exit}},
    {61, {"wait4", "dpxp", Wait4}},
    {62, {"kill", "dS", Kill}},
    {63, {"uname", "p", Uname}},
    {64, {"semget", "xdx", Semget}},
    {65, {"semop", "dpu", Semop}},
    {66, {"semctl", "dddx", Semctl}},
    {67, {"shmdt", "p", Shmdt}},
    {68, {"msgget", "xx", Msgget}},
    {69, {"msgsnd", "dpux", Msgsnd}},
    {70, {"msgrcv", "dpudx", Msgrcv}},
    {71, {"msgctl", "ddx", Msgctl}},
    {72, {"fcntl", "fdx", Fcntl}},
    {73, {"flock", "fd", Flock}},
    {74, {"fsync", "f", Fsync}},
    {75, {"fdatasync", "f", Fdatasync}},
    {76, {"truncate", "su", Truncate}},
    {77, {"ftruncate", "fu", Ftruncate}},
    {78, {"getdents", "fpu", Getdents}},
    {79, {"getcwd", "Bu", Getcwd}},
    {80, {"chdir", "s", Chdir}},
    {81, {"fchdir", "f", Fchdir}},
    {82, {"rename", "ss", Rename}},
    {83, {"mkdir", "so", Mkdir}},
    {84, {"rmdir", "s", Rmdir}},
    {85, {"creat", "so", Creat}},
    {86, {"link", "ss", Link}},
    {87, {"unlink", "s", Unlink}},
    {88, {"symlink", "ss", Symlink}},
    {89, {"readlink", "sBu", Readlink}},
    {90, {"chmod", "so", Chmod}},
    {91, {"fchmod", "fo", Fchmod}},
    {92, {"chown", "sdd", Chown}},
    {93, {"fchown", "fdd", Fchown}},
    {94, {"lchown", "sdd", Lchown}},
    {95, {"umask", "o", Umask}},
    {96, {"gettimeofday", "pp", Gettimeofday}},
    {97, {"getrlimit", "dp", Getrlimit}},
    {98, {"getrusage", "dp", Getrusage}},
    {99, {"sysinfo", "p", Sysinfo}},
    {100, {"times", "p", Times}},
    {101, {"ptrace", "ddxx", Ptrace}},
    {102, {"getuid", "", Getuid}},
    {103, {"syslog", "dpd", Syslog}},
    {104, {"getgid", "", Getgid}},
    {105, {"setuid", "d", Setuid}},
    {106, {"setgid", "d", Setgid}},
    {107, {"geteuid", "", Geteuid}},
    {108, {"getegid", "", Getegid}},
    {109, {"setpgid", "dd", Setpgid}},
    {110, {"getppid", "", Getppid}},
    {111, {"getpgrp", "", Getpgrp}},
    {112, {"setsid", "", Setsid}},
    {113, {"setreuid", "dd", Setreuid}},
    {114, {"setregid", "dd", Setregid}},
    {115, {"getgroups", "dp", Getgroups}},
    {116, {"setgroups", "dp", Setgroups}},
    {117, {"setresuid", "ddd", Setresuid}},
    {118, {"getresuid", "ppp", Getresuid}},
    {119, {"setresgid", "ddd", Setresgid}},
    {120, {"getresgid", "ppp", Getresgid}},
    {121, {"getpgid", "d", Getpgid}},
    {122, {"setfsuid", "d", Setfsuid}},
    {123, {"setfsgid", "d", Setfsgid}},
    {124, {"getsid", "d", Getsid}},
    {125, {"capget", "pp", Capget}},
    {126, {"capset", "pp", Capset}},
    {127, {"rt_sigpending", "pu", RtSigpending}},
    {128, {"rt_sigtimedwait", "pptu", RtSigtimedwait}},
    {129, {"rt_sigqueueinfo", "dSp", RtSigqueueinfo}},
    {130, {"rt_sigsuspend", "pu", RtSigsuspend}},
    {131, {"sigaltstack", "pp", Sigaltstack}},
    {132, {"utime", "sp", Utime}},
    {133, {"mknod", "sox", Mknod}},
    {134, {"uselib", "xxxxxx", nullptr}},
    {135, {"personality", "x", Personality}},
    {136, {"ustat", "xxxxxx", nullptr}},
    {137, {"statfs", "sp", Statfs}},
    {138, {"fstatfs", "fp", Fstatfs}},
    {139, {"sysfs", "xxxxxx", nullptr}},
    {140, {"getpriority", "dd", Getpriority}},
    {141, {"setpriority", "ddd", Setpriority}},
    {142, {"sched_setparam", "", SchedSetparam}},
    {143, {"sched_getparam", "", SchedGetparam}},
    {144, {"sched_setscheduler", "", SchedSetscheduler}},
    {145, {"sched_getscheduler", "", SchedGetscheduler}},
    {146, {"sched_get_priority_max", "", SchedGetPriorityMax}},
    {147, {"sched_get_priority_min", "", SchedGetPriorityMin}},
    {148, {"sched_rr_get_interval", "xxxxxx", nullptr}},
    {149, {"mlock", "", Mlock}},
    {150, {"munlock", "", Munlock}},
    {151, {"mlockall", "", Mlockall}},
    {152, {"munlockall", "", Munlockall}},
    {153, {"vhangup", "xxxxxx", nullptr}},
    {154, {"modify_ldt", "xxxxxx", nullptr}},
    {155, {"pivot_root", "", PivotRoot}},
    {156, {"_sysctl", "xxxxxx", nullptr}},
    {157, {"prctl", "dxxxx", Prctl}},
    {158, {"arch_prctl", "xx", ArchPrctl}},
    {159, {"adjtimex", "", Adjtimex}},
    {160, {"setrlimit", "dp", Setrlimit}},
    {161, {"chroot", "s", Chroot}},
    {162, {"sync", "", Sync}},
    {163, {"acct", "xxxxxx", nullptr}},
    {164, {"settimeofday", "", Settimeofday}},
    {165, {"mount", "sssxs", Mount}},
    {166, {"umount2", "sx", Umount2}},
    {167, {"swapon", "xxxxxx", nullptr}},
    {168, {"swapoff", "xxxxxx", nullptr}},
    {169, {"reboot", "xxxxxx", nullptr}},
    {170, {"sethostname", "bu", Sethostname}},
    {171, {"setdomainname", "bu", Setdomainname}},
    {172, {"iopl", "xxxxxx", nullptr}},
    {173, {"ioperm", "xxxxxx", nullptr}},
    {174, {"create_module", "xxxxxx", nullptr}},
    {175, {"init_module", "xxxxxx", nullptr}},
    {176, {"delete_module", "xxxxxx", nullptr}},
    {177, {"get_kernel_syms", "xxxxxx", nullptr}},
    {178, {"query_module", "xxxxxx", nullptr}},
    {179, {"quotactl", "xxxxxx", nullptr}},
    {180, {"nfsservctl", "xxxxxx", nullptr}},
    {181, {"getpmsg", "xxxxxx", nullptr}},
    {182, {"putpmsg", "xxxxxx", nullptr}},
    {183, {"afs_syscall", "xxxxxx", nullptr}},
    {184, {"tuxcall", "xxxxxx", nullptr}},
    {185, {"security", "xxxxxx", nullptr}},
    {186, {"gettid", "", Gettid}},
    {187, {"readahead", "fuu", Readahead}},
    {188, {"setxattr", "ssbux", Setxattr}},
    {189, {"lsetxattr", "", Lsetxattr}},
    {190, {"fsetxattr", "", Fsetxattr}},
    {191, {"getxattr", "ssBu", Getxattr}},
    {192, {"lgetxattr", "", Lgetxattr}},
    {193, {"fgetxattr", "", Fgetxattr}},
    {194, {"listxattr", "spu", Listxattr}},
    {195, {"llistxattr", "", Llistxattr}},
    {196, {"flistxattr", "", Flistxattr}},
    {197, {"removexattr", "", Removexattr}},
    {198, {"lremovexattr", "", Lremovexattr}},
    {199, {"fremovexattr", "", Fremovexattr}},
    {200, {"tkill", "dS", Tkill}},
    {201, {"time", "p", Time}},
    {202, {"futex", "pxutpx", Futex}},
    {203, {"sched_setaffinity", "dup", SchedSetaffinity}},
    {204, {"sched_getaffinity", "dup", SchedGetaffinity}},
    {205, {"set_thread_area", "xxxxxx", nullptr}},
    {206, {"io_setup", "xxxxxx", nullptr}},
    {207, {"io_destroy", "xxxxxx", nullptr}},
    {208, {"io_getevents", "xxxxxx", nullptr}},
    {209, {"io_submit", "xxxxxx", nullptr}},
    {210, {"io_cancel", "xxxxxx", nullptr}},
    {211, {"get_thread_area", "xxxxxx", nullptr}},
    {212, {"lookup_dcookie", "xxxxxx", nullptr}},
    {213, {"epoll_create", "d", EpollCreate}},
    {214, {"epoll_ctl_old", "xxxxxx", nullptr}},
    {215, {"epoll_wait_old", "xxxxxx", nullptr}},
    {216, {"remap_file_pages", "xxxxxx", nullptr}},
    {217, {"getdents64", "fpu", Getdents64}},
    {218, {"set_tid_address", "p", SetTidAddress}},
    {219, {"restart_syscall", "", RestartSyscall}},
    {220, {"semtimedop", "dput", Semtimedop}},
    {221, {"fadvise64", "fddd", Fadvise64}},
    {222, {"timer_create", "dpp", TimerCreate}},
    {223, {"timer_settime", "ddpp", TimerSettime}},
    {224, {"timer_gettime", "dp", TimerGettime}},
    {225, {"timer_getoverrun", "d", TimerGetoverrun}},
    {226, {"timer_delete", "d", TimerDelete}},
    {227, {"clock_settime", "dt", ClockSettime}},
    {228, {"clock_gettime", "dp", ClockGettime}},
    {229, {"clock_getres", "dp", ClockGetres}},
    {230, {"clock_nanosleep", "ddtp", ClockNanosleep}},
    {231, {"exit_group", "d", ExitGroup}},
    {232, {"epoll_wait", "fpdd", EpollWait}},
    {233, {"epoll_ctl", "fdfp", EpollCtl}},
    {234, {"tgkill", "ddS", Tgkill}},
    {235, {"utimes", "sp", Utimes}},
    {236, {"vserver", "xxxxxx", nullptr}},
    {237, {"mbind", "xxxxxx", nullptr}},
    {238, {"set_mempolicy", "xxxxxx", nullptr}},
    {239, {"get_mempolicy", "xxxxxx", nullptr}},
    {240, {"mq_open", "sOop", MqOpen}},
    {241, {"mq_unlink", "s", MqUnlink}},
    {242, {"mq_timedsend", "fbuut", MqTimedsend}},
    {243, {"mq_timedreceive", "fBupt", MqTimedreceive}},
    {244, {"mq_notify", "fp", MqNotify}},
    {245, {"mq_getsetattr", "fpp", MqGetsetattr}},
    {246, {"kexec_load", "xxxxxx", nullptr}},
    {247, {"waitid", "ddpxp", Waitid}},
    {248, {"add_key", "xxxxxx", nullptr}},
    {249, {"request_key", "xxxxxx", nullptr}},
    {250, {"keyctl", "xxxxxx", nullptr}},
    {251, {"ioprio_set", "xxxxxx", nullptr}},
    {252, {"ioprio_get", "xxxxxx", nullptr}},
    {253, {"inotify_init", "", InotifyInit}},
    {254, {"inotify_add_watch", "fsx", InotifyAddWatch}},
    {255, {"inotify_rm_watch", "fd", InotifyRmWatch}},
    {256, {"migrate_pages", "xxxxxx", nullptr}},
    {257, {"openat", "asOo", Openat}},
    {258, {"mkdirat", "aso", Mkdirat}},
    {259, {"mknodat", "asox", Mknodat}},
    {260, {"fchownat", "asddx", Fchownat}},
    {261, {"futimesat", "asp", Futimesat}},
    {262, {"newfstatat", "asTx", Newfstatat}},
    {263, {"unlinkat", "asx", Unlinkat}},
    {264, {"renameat", "asas", Renameat}},
    {265, {"linkat", "asasx", Linkat}},
    {266, {"symlinkat", "sas", Symlinkat}},
    {267, {"readlinkat", "asBu", Readlinkat}},
    {268, {"fchmodat", "aso", Fchmodat}},
    {269, {"faccessat", "aso", Faccessat}},
    {270, {"pselect6", "dppppp", Pselect6}},
    {271, {"ppoll", "puppu", Ppoll}},
    {272, {"unshare", "x", Unshare}},
    {273, {"set_robust_list", "pu", SetRobustList}},
    {274, {"get_robust_list", "dpp", GetRobustList}},
    {275, {"splice", "fpfpux", Splice}},
    {276, {"tee", "xxxxxx", nullptr}},
    {277, {"sync_file_range", "fuux", SyncFileRange}},
    {278, {"vmsplice", "xxxxxx", nullptr}},
    {279, {"move_pages", "xxxxxx", nullptr}},
    {280, {"utimensat", "aspx", Utimensat}},
    {281, {"epoll_pwait", "fpddpu", EpollPwait}},
    {282, {"signalfd", "fpu", Signalfd}},
    {283, {"timerfd_create", "dx", TimerfdCreate}},
    {284, {"eventfd", "u", Eventfd}},
    {285, {"fallocate", "fduu", Fallocate}},
    {286, {"timerfd_settime", "fdpp", TimerfdSettime}},
    {287, {"timerfd_gettime", "fp", TimerfdGettime}},
    {288, {"accept4", "fppx", Accept4}},
    {289, {"signalfd4", "fpux", Signalfd4}},
    {290, {"eventfd2", "ux", Eventfd2}},
    {291, {"epoll_create1", "x", EpollCreate1}},
    {292, {"dup3", "ffx", Dup3}},
    {293, {"pipe2", "px", Pipe2}},
    {294, {"inotify_init1", "x", InotifyInit1}},
    {295, {"preadv", "fpud", Preadv}},
    {296, {"pwritev", "fpud", Pwritev}},
    {297, {"rt_tgsigqueueinfo", "", RtTgsigqueueinfo}},
    {298, {"perf_event_open", "xxxxxx", nullptr}},
    {299, {"recvmmsg", "fpuxp", Recvmmsg}},
    {300, {"fanotify_init", "xxxxxx", nullptr}},
    {301, {"fanotify_mark", "xxxxxx", nullptr}},
    {302, {"prlimit64", "dupp", Prlimit64}},
    {303, {"name_to_handle_at", "xxxxxx", nullptr}},
    {304, {"open_by_handle_at", "xxxxxx", nullptr}},
    {305, {"clock_adjtime", "dp", ClockAdjtime}},
    {306, {"syncfs", "", Syncfs}},
    {307, {"sendmmsg", "fpux", Sendmmsg}},
    {308, {"setns", "fx", Setns}},
    {309, {"getcpu", "pp", Getcpu}},
    {310, {"process_vm_readv", "dpupux", ProcessVmReadv}},
    {311, {"process_vm_writev", "dpupux", ProcessVmWritev}},
    {312, {"kcmp", "xxxxxx", nullptr}},
    {313, {"finit_module", "xxxxxx", nullptr}},
    {314, {"sched_setattr", "xxxxxx", nullptr}},
    {315, {"sched_getattr", "xxxxxx", nullptr}},
    {316, {"renameat2", "asasx", Renameat2}},
    {317, {"seccomp", "uxp", Seccomp}},
    {318, {"getrandom", "pux", Getrandom}},
    {319, {"memfd_create", "sx", MemfdCreate}},
    {320, {"kexec_file_load", "xxxxxx", nullptr}},
    {321, {"bpf", "xxxxxx", nullptr}},
    {322, {"execveat", "asVVx", Execveat}},
    {323, {"userfaultfd", "xxxxxx", nullptr}},
    {324, {"membarrier", "dxd", Membarrier}},
    {325, {"mlock2", "xxx", Mlock2}},
    {326, {"copy_file_range", "fpfpux", CopyFileRange}},
    {327, {"preadv2", "fpudxx", Preadv2}},
    {328, {"pwritev2", "fpudxx", Pwritev2}},
    {329, {"pkey_mprotect", "xxxxxx", nullptr}},
    {330, {"pkey_alloc", "xxxxxx", nullptr}},
    {331, {"pkey_free", "xxxxxx", nullptr}},
    {332, {"statx", "asxxp", Statx}},
    {333, {"io_pgetevents", "xxxxxx", nullptr}},
    {334, {"rseq", "puxx", nullptr}},
    {424, {"pidfd_send_signal", "fSpx", PidfdSendSignal}},
    {425, {"io_uring_setup", "xxxxxx", nullptr}},
    {426, {"io_uring_enter", "xxxxxx", nullptr}},
    {427, {"io_uring_register", "xxxxxx", nullptr}},
    {428, {"open_tree", "xxxxxx", nullptr}},
    {429, {"move_mount", "xxxxxx", nullptr}},
    {430, {"fsopen", "xxxxxx", nullptr}},
    {431, {"fsconfig", "xxxxxx", nullptr}},
    {432, {"fsmount", "xxxxxx", nullptr}},
    {433, {"fspick", "xxxxxx", nullptr}},
    {434, {"pidfd_open", "dx", PidfdOpen}},
    {435, {"clone3", "pu", Clone3}},
    {436, {"close_range", "uux", CloseRange}},
    {437, {"openat2", "aspu", Openat2}},
    {438, {"pidfd_getfd", "xxxxxx", nullptr}},
    {439, {"faccessat2", "asxx", Faccessat2}},
    {440, {"process_madvise", "xxxxxx", nullptr}},
    {441, {"epoll_pwait2", "fpdtpu", EpollPwait2}},
    {442, {"mount_setattr", "xxxxxx", nullptr}},
    {443, {"quotactl_fd", "xxxxxx", nullptr}},
    {444, {"landlock_create_ruleset", "xxxxxx", nullptr}},
    {445, {"landlock_add_rule", "xxxxxx", nullptr}},
    {446, {"landlock_restrict_self", "xxxxxx", nullptr}},
    {447, {"memfd_secret", "xxxxxx", nullptr}},
    {448, {"process_mrelease", "xxxxxx", nullptr}},
    {449, {"futex_waitv", "xxxxxx", nullptr}},
    {450, {"set_mempolicy_home_node", "xxxxxx", nullptr}},
    {451, {"cachestat", "xxxxxx", nullptr}},
    {452, {"fchmodat2", "", Fchmodat2}},
    {453, {"map_shadow_stack", "xxxxxx", nullptr}},
    {454, {"futex_wake", "xxxxxx", nullptr}},
    {455, {"futex_wait", "xxxxxx", nullptr}},
    {456, {"futex_requeue", "xxxxxx", nullptr}},
    {457, {"statmount", "xxxxxx", nullptr}},
    {458, {"listmount", "xxxxxx", nullptr}},
    {459, {"lsm_get_self_attr", "xxxxxx", nullptr}},
    {460, {"lsm_set_self_attr", "xxxxxx", nullptr}},
    {461, {"lsm_list_modules", "xxxxxx", nullptr}},
    {462, {"mseal", "xxxxxx", nullptr}},
};
// clang-format on

constexpr std::array<Entry, kTableSize> MakeTable() {
  std::array<Entry, kTableSize> table{};
  for (const Row& row : kRows) table[row.number] = row.entry;
  return table;
}
constexpr std::array<Entry, kTableSize> kTable = MakeTable();

constexpr Entry kNoEntry{};

constinit sync::Mutex missing_mu{sync::Rank::kLeaf};
// By number; those past the table are one.
std::map<uint64_t, MissingCall> missing GUARDED_BY(missing_mu);
std::atomic<Tracer> tracer{nullptr};

void CountMissing(kernel::Task& task, uint64_t number, const Entry& entry) {
  std::string program = task.GetName();
  {
    sync::MutexLock lock(missing_mu);
    MissingCall& call = missing[std::min(number, kTableSize)];
    if (call.count++ > 0) return;
    call.name = !entry.name.empty()   ? std::string(entry.name)
                : number < kTableSize ? std::to_string(number)
                                      : "numbers past the table";
    call.program = program;
  }
  LOG_INFO("task {} ({}): syscall {} ({}) is not implemented: ENOSYS", task.tid(), program, number,
           entry.name.empty() ? "unknown" : entry.name);
}

}  // namespace

const Entry& Lookup(uint64_t number) { return number < kTableSize ? kTable[number] : kNoEntry; }

void SetTracer(Tracer t) { tracer.store(t); }

namespace {

Result<uint64_t> Make(kernel::Task& task, uint64_t number, const kernel::SyscallArgs& args) {
  const Entry& entry = Lookup(number);
  Tracer trace = tracer.load(std::memory_order_relaxed);
  if (entry.handler == nullptr) [[unlikely]] {
    CountMissing(task, number, entry);
    Result<uint64_t> result = Err(ENOSYS);
    if (trace != nullptr) trace(task, number, entry, args, &result);
    return result;
  }
  if (trace != nullptr) [[unlikely]] {
    trace(task, number, entry, args, nullptr);
    Result<uint64_t> result = entry.handler(task, args);
    trace(task, number, entry, args, &result);
    return result;
  }
  return entry.handler(task, args);
}

}  // namespace

Result<uint64_t> Dispatch(kernel::Task& task, uint64_t number, const kernel::SyscallArgs& args) {
  if (number < kTableSize) CountCall(number);
  if (task.seccomp_mode() == 0) [[likely]]
    return Make(task, number, args);
  kernel::SyscallArgs checked = args;
  if (std::optional<Result<uint64_t>> instead = task.CheckSeccomp(&number, &checked)) {
    if (Tracer trace = tracer.load(std::memory_order_relaxed); trace != nullptr) {
      trace(task, number, Lookup(number), checked, &*instead);
    }
    return *instead;
  }
  return Make(task, number, checked);
}

std::vector<MissingCall> MissingCalls() {
  std::vector<MissingCall> calls;
  sync::MutexLock lock(missing_mu);
  for (const auto& [number, call] : missing) calls.push_back(call);
  return calls;
}

}  // namespace redoubt::syscalls
