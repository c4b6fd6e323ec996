#include "pkg/sentry/signal/signal.h"

#include <algorithm>
#include <cstring>

#include "pkg/sentry/limits/system.h"

namespace redoubt {

DefaultAction DefaultActionOf(int sig) {
  switch (sig) {
    case SIGCHLD:
    case SIGURG:
    case SIGWINCH:
      return DefaultAction::kIgnore;
    case SIGCONT:
      return DefaultAction::kContinue;
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
      return DefaultAction::kStop;
    case SIGQUIT:
    case SIGILL:
    case SIGTRAP:
    case SIGABRT:
    case SIGBUS:
    case SIGFPE:
    case SIGSEGV:
    case SIGXCPU:
    case SIGXFSZ:
    case SIGSYS:
      return DefaultAction::kCore;
    default:
      return DefaultAction::kTerminate;
  }
}

void PendingSignals::Uncharge(const Entry& entry) {
  if (entry.owner) limits::PendingSignalsOfUsers().Uncharge(*entry.owner, 1);
}

bool PendingSignals::Add(const siginfo_t& info, std::optional<uint32_t> owner) {
  int sig = info.si_signo;
  if (sig < kFirstRealtimeSignal && (set_ & SignalBit(sig)) != 0) return false;
  set_ |= SignalBit(sig);
  queue_.push_back({info, owner});
  return true;
}

std::optional<siginfo_t> PendingSignals::Take(SignalSet allowed) {
  SignalSet candidates = set_ & allowed;
  if (candidates == 0) return std::nullopt;
  if ((candidates & kSynchronous) != 0) candidates &= kSynchronous;
  int sig = __builtin_ctzll(candidates) + 1;
  std::optional<siginfo_t> taken;
  bool more = false;
  for (auto it = queue_.begin(); it != queue_.end();) {
    if (it->info.si_signo != sig) {
      ++it;
    } else if (!taken) {
      taken = it->info;
      Uncharge(*it);
      it = queue_.erase(it);
    } else {
      more = true;
      break;
    }
  }
  if (!more) set_ &= ~SignalBit(sig);
  return taken;
}

std::optional<siginfo_t> PendingSignals::TakeTimer(int sig, int timer_id) {
  for (auto it = queue_.begin(); it != queue_.end(); ++it) {
    if (it->info.si_signo != sig || it->info.si_code != SI_TIMER || it->info.si_timerid != timer_id) continue;
    siginfo_t info = it->info;
    Uncharge(*it);
    queue_.erase(it);
    bool more = false;
    for (const Entry& other : queue_) more = more || other.info.si_signo == sig;
    if (!more) set_ &= ~SignalBit(sig);
    return info;
  }
  return std::nullopt;
}

std::vector<siginfo_t> PendingSignals::Peek(uint64_t skip, size_t most) const {
  std::vector<siginfo_t> infos;
  for (size_t i = std::min<uint64_t>(skip, queue_.size()); i < queue_.size() && infos.size() < most; i++) {
    infos.push_back(queue_[i].info);
  }
  return infos;
}

void PendingSignals::Discard(SignalSet signals) {
  if ((set_ & signals) == 0) return;
  set_ &= ~signals;
  std::erase_if(queue_, [&](const Entry& entry) {
    const bool gone = (SignalBit(entry.info.si_signo) & signals) != 0;
    if (gone) Uncharge(entry);
    return gone;
  });
}

siginfo_t MakeSigInfo(int sig, int code) {
  siginfo_t info;
  std::memset(&info, 0, sizeof(info));
  info.si_signo = sig;
  info.si_code = code;
  return info;
}

siginfo_t MakeKillInfo(int sig, int code, int pid, uint32_t uid) {
  siginfo_t info = MakeSigInfo(sig, code);
  info.si_pid = pid;
  info.si_uid = uid;
  return info;
}

}  // namespace redoubt
