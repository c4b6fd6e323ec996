// What terminals ask of the process tree, and the part of every terminal that job control is about. credentials(7),
// tty_ioctl(4).
#ifndef REDOUBT_PKG_SENTRY_TTY_JOB_CONTROL_H_
#define REDOUBT_PKG_SENTRY_TTY_JOB_CONTROL_H_

#include <cstdint>
#include <optional>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/tty.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sync/mutex.h"

namespace redoubt::tty {

class Terminal;

// Implemented by the kernel; all but the signals are about the task that runs on the current fiber. Called without a
// terminal's lock.
class JobControl {
 public:
  virtual ~JobControl() = default;

  struct Ids {
    int session = 0;  // 0: no task runs here (the kernel itself)
    int process_group = 0;
    bool session_leader = false;
    RefPtr<RefCounted> controlling_tty;  // of the session, unless given up; a Terminal, or null
  };
  virtual Ids Current() = 0;
  // Between what sessions and process groups are called here and what the current task calls them. 0: it does not see
  // that one, or there is none.
  virtual int ToGuest(int id) = 0;
  virtual int FromGuest(int id) = 0;
  // The current process, no leader, has no controlling terminal any more: TIOCNOTTY.
  virtual void GiveUpTerminal() = 0;
  // The current session's controlling terminal becomes `terminal`, or none if null.
  virtual void SetControllingTerminal(RefPtr<RefCounted> terminal) = 0;
  // Session `session` loses its controlling terminal (hung up, or taken by another session).
  virtual void ClearControllingTerminal(int session) = 0;
  // Whether there is such a process group in the session. ESRCH: no such group; EPERM: in another session.
  virtual Result<> CheckProcessGroup(int process_group, int session) = 0;
  virtual void SignalProcessGroup(int process_group, int sig) = 0;
  // SIGHUP and SIGCONT to the session's leader.
  virtual void HangUpSessionLeader(int session) = 0;
  // The current task, of a background process group, wants to read (SIGTTIN) or to write or change the terminal
  // (SIGTTOU). Success: SIGTTOU is blocked or ignored, go on. EIO: the group is orphaned, or SIGTTIN is blocked or
  // ignored. Otherwise the group has been sent the signal: ERESTARTSYS.
  virtual Result<> BackgroundAccess(int sig) = 0;
};

// Set once by the composition root; null (the default): no job control, all access is foreground.
void SetJobControl(JobControl* job_control);

// The session and the foreground process group of one terminal: Linux's tty_struct.ctrl. Thread-safe.
class Terminal : public RefCounted, public kernel::HangsUp {
 public:
  // Opens the terminal itself at `path`, the /dev/tty or /dev/console that leads to it. `flags` are open(2)'s.
  virtual Result<RefPtr<vfs::FileDescription>> OpenTerminal(const vfs::Path& path, int flags) = 0;

  // Its number in /proc/PID/stat; 0 if it has none.
  virtual uint64_t device() const { return 0; }
  int session() const EXCLUDES(job_mu_);
  int foreground_process_group() const EXCLUDES(job_mu_);
  // Sets both: a container's first process starts with its terminal in hand.
  void SetForeground(int session, int process_group) EXCLUDES(job_mu_);
  // To the foreground process group, if there is one.
  void SignalForeground(int sig) EXCLUDES(job_mu_);

  // Open without O_NOCTTY: the current task's session takes the terminal if it leads one that has none and nobody else
  // has it.
  void MaybeBecomeControlling(int open_flags) EXCLUDES(job_mu_);
  // Whether the current task is in the foreground, or may go on although it is not (see BackgroundAccess).
  Result<> CheckForeground(int sig) EXCLUDES(job_mu_);
  // The connection is gone: SIGHUP to the leader and the foreground, and the session has no terminal any more.
  void Disconnect() EXCLUDES(job_mu_);
  // kernel::HangsUp: the session's leader has died, or gives the terminal up. SIGHUP and SIGCONT to the foreground.
  void HangUp() override EXCLUDES(job_mu_);

  // TIOCSCTTY, TIOCNOTTY, TIOCGPGRP, TIOCSPGRP, TIOCGSID: null for any other command. `master`: asked through a
  // pseudo-terminal's master, which need not be the caller's controlling terminal to be read.
  enum class Side { kTerminal, kMaster };
  std::optional<Result<uint64_t>> JobControlIoctl(MemoryIo& io, uint32_t command, uint64_t arg, Side side);

 private:
  Result<> BecomeControlling(bool steal) EXCLUDES(job_mu_);

  mutable sync::Mutex job_mu_{sync::Rank::kTty};
  int session_ GUARDED_BY(job_mu_) = 0;
  int foreground_ GUARDED_BY(job_mu_) = 0;
};

}  // namespace redoubt::tty

#endif  // REDOUBT_PKG_SENTRY_TTY_JOB_CONTROL_H_
