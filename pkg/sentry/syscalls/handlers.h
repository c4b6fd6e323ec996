// Every syscall handler, by family. The table (table.cc) gives each its number.
#ifndef REDOUBT_PKG_SENTRY_SYSCALLS_HANDLERS_H_
#define REDOUBT_PKG_SENTRY_SYSCALLS_HANDLERS_H_

#include "pkg/sentry/syscalls/table.h"

namespace redoubt::syscalls {

#define HANDLER(name) Result<uint64_t> name(kernel::Task& task, const kernel::SyscallArgs& args)

// sys_event.cc
HANDLER(Pipe);
HANDLER(Pipe2);
HANDLER(Eventfd);
HANDLER(Eventfd2);
HANDLER(Signalfd);
HANDLER(Signalfd4);
HANDLER(EpollCreate);
HANDLER(EpollCreate1);
HANDLER(EpollCtl);
HANDLER(EpollWait);
HANDLER(EpollPwait);
HANDLER(EpollPwait2);
HANDLER(TimerfdCreate);
HANDLER(TimerfdSettime);
HANDLER(TimerfdGettime);

// sys_fd.cc
HANDLER(Open);
HANDLER(Openat);
HANDLER(Creat);
HANDLER(Openat2);
HANDLER(Close);
HANDLER(CloseRange);
HANDLER(Dup);
HANDLER(Dup2);
HANDLER(Dup3);
HANDLER(Fcntl);
HANDLER(Ioctl);
HANDLER(Getdents);
HANDLER(Getdents64);
HANDLER(Flock);

// sys_futex.cc
HANDLER(Futex);

// sys_identity.cc
HANDLER(Getuid);
HANDLER(Geteuid);
HANDLER(Getgid);
HANDLER(Getegid);
HANDLER(Setuid);
HANDLER(Setreuid);
HANDLER(Setresuid);
HANDLER(Getresuid);
HANDLER(Setfsuid);
HANDLER(Setgid);
HANDLER(Setregid);
HANDLER(Setresgid);
HANDLER(Getresgid);
HANDLER(Setfsgid);
HANDLER(Getgroups);
HANDLER(Setgroups);
HANDLER(Capget);
HANDLER(Capset);

// sys_inotify.cc
HANDLER(InotifyInit);
HANDLER(InotifyInit1);
HANDLER(InotifyAddWatch);
HANDLER(InotifyRmWatch);

// sys_io.cc
HANDLER(Read);
HANDLER(Write);
HANDLER(Pread64);
HANDLER(Pwrite64);
HANDLER(Readv);
HANDLER(Writev);
HANDLER(Preadv);
HANDLER(Pwritev);
HANDLER(Preadv2);
HANDLER(Pwritev2);
HANDLER(Lseek);
HANDLER(Fsync);
HANDLER(Fdatasync);
HANDLER(Sync);
HANDLER(Syncfs);
HANDLER(SyncFileRange);
HANDLER(Ftruncate);
HANDLER(Truncate);
HANDLER(Fallocate);
HANDLER(Fadvise64);
HANDLER(Readahead);
HANDLER(Sendfile);
HANDLER(CopyFileRange);
HANDLER(Splice);

// sys_ipc.cc
HANDLER(Shmget);
HANDLER(Shmat);
HANDLER(Shmdt);
HANDLER(Shmctl);
HANDLER(Semget);
HANDLER(Msgget);
HANDLER(Msgsnd);
HANDLER(Msgrcv);
HANDLER(Msgctl);
HANDLER(MqOpen);
HANDLER(MqUnlink);
HANDLER(MqTimedsend);
HANDLER(MqTimedreceive);
HANDLER(MqNotify);
HANDLER(MqGetsetattr);
HANDLER(Semop);
HANDLER(Semtimedop);
HANDLER(Semctl);

// sys_mm.cc
HANDLER(Mmap);
HANDLER(Munmap);
HANDLER(Mprotect);
HANDLER(Mremap);
HANDLER(Brk);
HANDLER(Madvise);
HANDLER(Msync);
HANDLER(Mincore);
HANDLER(Mlock);
HANDLER(Mlock2);
HANDLER(Munlock);
HANDLER(Mlockall);
HANDLER(Munlockall);
HANDLER(Ptrace);
HANDLER(ProcessVmReadv);
HANDLER(ProcessVmWritev);
HANDLER(MemfdCreate);

// sys_path.cc
HANDLER(Mkdir);
HANDLER(Mkdirat);
HANDLER(Mknod);
HANDLER(Mknodat);
HANDLER(Rmdir);
HANDLER(Unlink);
HANDLER(Unlinkat);
HANDLER(Rename);
HANDLER(Renameat);
HANDLER(Renameat2);
HANDLER(Link);
HANDLER(Linkat);
HANDLER(Symlink);
HANDLER(Symlinkat);
HANDLER(Readlink);
HANDLER(Readlinkat);
HANDLER(Chmod);
HANDLER(Fchmodat);
HANDLER(Fchmodat2);
HANDLER(Fchmod);
HANDLER(Chown);
HANDLER(Lchown);
HANDLER(Fchownat);
HANDLER(Fchown);
HANDLER(Access);
HANDLER(Faccessat);
HANDLER(Faccessat2);
HANDLER(Utimensat);
HANDLER(Utimes);
HANDLER(Futimesat);
HANDLER(Utime);
HANDLER(Chdir);
HANDLER(Fchdir);
HANDLER(Chroot);
HANDLER(PivotRoot);
HANDLER(Getcwd);
HANDLER(Umask);
HANDLER(Mount);
HANDLER(Umount2);
HANDLER(Getxattr);
HANDLER(Lgetxattr);
HANDLER(Fgetxattr);
HANDLER(Setxattr);
HANDLER(Lsetxattr);
HANDLER(Fsetxattr);
HANDLER(Listxattr);
HANDLER(Llistxattr);
HANDLER(Flistxattr);
HANDLER(Removexattr);
HANDLER(Lremovexattr);
HANDLER(Fremovexattr);

// sys_poll.cc
HANDLER(Poll);
HANDLER(Ppoll);
HANDLER(Select);
HANDLER(Pselect6);

// sys_process.cc
HANDLER(Fork);
HANDLER(Vfork);
HANDLER(Clone);
HANDLER(Clone3);
HANDLER(Execve);
HANDLER(Execveat);
HANDLER(Exit);
HANDLER(ExitGroup);
HANDLER(Wait4);
HANDLER(Waitid);
HANDLER(Getpid);
HANDLER(Gettid);
HANDLER(Getppid);
HANDLER(Getpgrp);
HANDLER(Getpgid);
HANDLER(Getsid);
HANDLER(Setsid);
HANDLER(Setns);
HANDLER(Setpgid);
HANDLER(SetTidAddress);
HANDLER(SetRobustList);
HANDLER(GetRobustList);
HANDLER(ArchPrctl);
HANDLER(Prctl);
HANDLER(Unshare);
HANDLER(PidfdOpen);
HANDLER(PidfdSendSignal);
HANDLER(Getrusage);
HANDLER(Times);

// sys_seccomp.cc
HANDLER(Seccomp);

// sys_signal.cc
HANDLER(RtSigaction);
HANDLER(RtSigprocmask);
HANDLER(RtSigpending);
HANDLER(RtSigsuspend);
HANDLER(Pause);
HANDLER(RtSigtimedwait);
HANDLER(RtSigreturn);
HANDLER(Sigaltstack);
HANDLER(Kill);
HANDLER(Tgkill);
HANDLER(Tkill);
HANDLER(RtSigqueueinfo);
HANDLER(RtTgsigqueueinfo);

// sys_socket.cc
HANDLER(Socket);
HANDLER(Socketpair);
HANDLER(Bind);
HANDLER(Listen);
HANDLER(Accept);
HANDLER(Accept4);
HANDLER(Connect);
HANDLER(Getsockname);
HANDLER(Getpeername);
HANDLER(Sendto);
HANDLER(Sendmsg);
HANDLER(Sendmmsg);
HANDLER(Recvfrom);
HANDLER(Recvmsg);
HANDLER(Recvmmsg);
HANDLER(Shutdown);
HANDLER(Setsockopt);
HANDLER(Getsockopt);

// sys_stat.cc
HANDLER(Stat);
HANDLER(Lstat);
HANDLER(Newfstatat);
HANDLER(Fstat);
HANDLER(Statx);
HANDLER(Statfs);
HANDLER(Fstatfs);

// sys_system.cc
HANDLER(Uname);
HANDLER(Sethostname);
HANDLER(Setdomainname);
HANDLER(Sysinfo);
HANDLER(Syslog);
HANDLER(Getrandom);
HANDLER(Prlimit64);
HANDLER(Getrlimit);
HANDLER(Setrlimit);
HANDLER(SchedYield);
HANDLER(SchedGetaffinity);
HANDLER(SchedSetaffinity);
HANDLER(SchedGetscheduler);
HANDLER(SchedSetscheduler);
HANDLER(SchedGetparam);
HANDLER(SchedSetparam);
HANDLER(SchedGetPriorityMax);
HANDLER(SchedGetPriorityMin);
HANDLER(Getpriority);
HANDLER(Setpriority);
HANDLER(Getcpu);
HANDLER(Personality);
HANDLER(Membarrier);

// sys_time.cc
HANDLER(ClockGettime);
HANDLER(ClockGetres);
HANDLER(ClockSettime);
HANDLER(Gettimeofday);
HANDLER(Settimeofday);
HANDLER(Time);
HANDLER(Adjtimex);
HANDLER(ClockAdjtime);
HANDLER(Nanosleep);
HANDLER(ClockNanosleep);
HANDLER(RestartSyscall);
HANDLER(Getitimer);
HANDLER(Setitimer);
HANDLER(Alarm);
HANDLER(TimerCreate);
HANDLER(TimerSettime);
HANDLER(TimerGettime);
HANDLER(TimerGetoverrun);
HANDLER(TimerDelete);

#undef HANDLER

}  // namespace redoubt::syscalls

#endif  // REDOUBT_PKG_SENTRY_SYSCALLS_HANDLERS_H_
