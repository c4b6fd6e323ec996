#include "pkg/sentry/tty/job_control.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <utility>

#include "pkg/sentry/vfs/special_nodes.h"

namespace redoubt::tty {

namespace {

constinit JobControl* job_control = nullptr;

JobControl::Ids Current() { return job_control != nullptr ? job_control->Current() : JobControl::Ids{}; }

int ToGuest(int id) { return job_control != nullptr ? job_control->ToGuest(id) : id; }

}  // namespace

void SetJobControl(JobControl* j) { job_control = j; }

int Terminal::session() const {
  sync::MutexLock lock(job_mu_);
  return session_;
}

int Terminal::foreground_process_group() const {
  sync::MutexLock lock(job_mu_);
  return foreground_;
}

void Terminal::SetForeground(int session, int process_group) {
  sync::MutexLock lock(job_mu_);
  session_ = session;
  foreground_ = process_group;
}

void Terminal::SignalForeground(int sig) {
  const int group = foreground_process_group();
  if (group != 0 && job_control != nullptr) job_control->SignalProcessGroup(group, sig);
}

Result<> Terminal::BecomeControlling(bool steal) {
  const JobControl::Ids ids = Current();
  if (ids.session == 0) return Err(EPERM);
  int robbed = 0;
  {
    sync::MutexLock lock(job_mu_);
    if (ids.session_leader && session_ == ids.session) return {};
    if (!ids.session_leader || ids.controlling_tty) return Err(EPERM);
    if (session_ != 0) {
      if (!steal || !vfs::CurrentIsCapable(CAP_SYS_ADMIN)) return Err(EPERM);
      robbed = session_;
    }
    session_ = ids.session;
    foreground_ = ids.process_group;
  }
  if (robbed != 0) job_control->ClearControllingTerminal(robbed);
  job_control->SetControllingTerminal(RefPtr<RefCounted>(this));
  return {};
}

void Terminal::MaybeBecomeControlling(int open_flags) {
  if (open_flags & (O_NOCTTY | O_PATH)) return;
  if (session() != 0) return;
  (void)BecomeControlling(false);
}

Result<> Terminal::CheckForeground(int sig) {
  const JobControl::Ids ids = Current();
  if (ids.session == 0 || ids.controlling_tty.get() != this) return {};
  {
    sync::MutexLock lock(job_mu_);
    if (foreground_ == 0 || foreground_ == ids.process_group) return {};
  }
  return job_control->BackgroundAccess(sig);
}

void Terminal::Disconnect() {
  int session, group;
  {
    sync::MutexLock lock(job_mu_);
    session = std::exchange(session_, 0);
    group = std::exchange(foreground_, 0);
  }
  if (job_control == nullptr) return;
  if (session != 0) {
    job_control->HangUpSessionLeader(session);
    job_control->ClearControllingTerminal(session);
  }
  if (group != 0) {
    job_control->SignalProcessGroup(group, SIGHUP);
    job_control->SignalProcessGroup(group, SIGCONT);
  }
}

void Terminal::HangUp() {
  int session, group;
  {
    sync::MutexLock lock(job_mu_);
    session = std::exchange(session_, 0);
    group = std::exchange(foreground_, 0);
  }
  if (job_control == nullptr) return;
  if (group != 0) {
    job_control->SignalProcessGroup(group, SIGHUP);
    job_control->SignalProcessGroup(group, SIGCONT);
  }
  if (session != 0) job_control->ClearControllingTerminal(session);
}

std::optional<Result<uint64_t>> Terminal::JobControlIoctl(MemoryIo& io, uint32_t command, uint64_t arg, Side side) {
  auto result = [&]() -> Result<uint64_t> {
    const JobControl::Ids ids = Current();
    const bool controlling = ids.controlling_tty.get() == this;
    switch (command) {
      case TIOCSCTTY:
        if (side == Side::kMaster) return Err(EINVAL);
        TRY(BecomeControlling(arg == 1));
        return 0;
      case TIOCNOTTY:
        if (!controlling) return Err(ENOTTY);
        if (ids.session_leader) {
          HangUp();
        } else {
          job_control->GiveUpTerminal();
        }
        return 0;
      case TIOCGPGRP:
        if (side == Side::kTerminal && !controlling) return Err(ENOTTY);
        TRY(io.CopyOutObject<int32_t>(arg, ToGuest(foreground_process_group())));
        return 0;
      case TIOCSPGRP: {
        if (!controlling || session() != ids.session) return Err(ENOTTY);
        TRY(CheckForeground(SIGTTOU));
        const int32_t asked = TRY(io.CopyInObject<int32_t>(arg));
        if (asked < 0) return Err(EINVAL);
        const int group = job_control->FromGuest(asked);
        TRY(job_control->CheckProcessGroup(group, ids.session));
        sync::MutexLock lock(job_mu_);
        foreground_ = group;
        return 0;
      }
      case TIOCGSID:
        if (side == Side::kTerminal && !controlling) return Err(ENOTTY);
        if (session() == 0) return Err(ENOTTY);
        TRY(io.CopyOutObject<int32_t>(arg, ToGuest(session())));
        return 0;
      default:
        return Err(ENOTTY);
    }
  };
  switch (command) {
    case TIOCSCTTY:
    case TIOCNOTTY:
    case TIOCGPGRP:
    case TIOCSPGRP:
    case TIOCGSID:
      return result();
    default:
      return std::nullopt;
  }
}

}  // namespace redoubt::tty
