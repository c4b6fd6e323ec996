// Signal numbers, sets, actions and queues: signal(7). No locking: ThreadGroup and Task guard theirs.
#ifndef REDOUBT_PKG_SENTRY_SIGNAL_SIGNAL_H_
#define REDOUBT_PKG_SENTRY_SIGNAL_SIGNAL_H_

#include <signal.h>

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "pkg/hostarch/hostarch.h"

namespace redoubt {

inline constexpr int kMaxSignal = 64;
inline constexpr int kFirstRealtimeSignal = 32;

// Bit n-1 is signal n: the kernel's sigset_t.
using SignalSet = uint64_t;
constexpr SignalSet SignalBit(int sig) { return SignalSet{1} << (sig - 1); }
inline constexpr SignalSet kUnblockable = SignalBit(SIGKILL) | SignalBit(SIGSTOP);
inline constexpr SignalSet kStopSignals =
    SignalBit(SIGSTOP) | SignalBit(SIGTSTP) | SignalBit(SIGTTIN) | SignalBit(SIGTTOU);
// Delivered before others, as they speak of the instruction that ran (signal(7)).
inline constexpr SignalSet kSynchronous = SignalBit(SIGSEGV) | SignalBit(SIGBUS) | SignalBit(SIGILL) |
                                          SignalBit(SIGTRAP) | SignalBit(SIGFPE) | SignalBit(SIGSYS);
constexpr bool IsValidSignal(int sig) { return sig >= 1 && sig <= kMaxSignal; }

// The kernel's struct sigaction (rt_sigaction(2)).
struct SignalAction {
  uint64_t handler = 0;  // SIG_DFL, SIG_IGN or an address
  uint64_t flags = 0;
  uint64_t restorer = 0;
  SignalSet mask = 0;

  bool is_default() const { return handler == reinterpret_cast<uint64_t>(SIG_DFL); }
  bool is_ignored() const { return handler == reinterpret_cast<uint64_t>(SIG_IGN); }
  bool has_handler() const { return !is_default() && !is_ignored(); }
};
static_assert(sizeof(SignalAction) == 32);

enum class DefaultAction { kTerminate, kCore, kIgnore, kStop, kContinue };
DefaultAction DefaultActionOf(int sig);

// SS_AUTODISARM of sigaltstack(2), which glibc's headers lack.
inline constexpr int32_t kAutodisarm = INT32_MIN;

// The kernel's stack_t (sigaltstack(2)).
struct SignalStack {
  Addr address = 0;
  int32_t flags = SS_DISABLE;
  int32_t pad = 0;
  uint64_t size = 0;

  bool enabled() const { return (flags & SS_DISABLE) == 0; }
  // An exclusive start: a stack pointer at the very base has left the stack.
  bool Contains(Addr sp) const { return enabled() && sp > address && sp - address <= size; }
};
static_assert(sizeof(SignalStack) == 24);

// Signals sent and not yet taken. Standard signals are held once, real-time ones queue.
//
// Real-time signals that may fail are charged to a user (RLIMIT_SIGPENDING) as long as they are here.
class PendingSignals final {
 public:
  PendingSignals() = default;
  ~PendingSignals() { Discard(~SignalSet{0}); }
  PendingSignals(const PendingSignals&) = delete;
  PendingSignals& operator=(const PendingSignals&) = delete;

  SignalSet set() const { return set_; }
  size_t queued() const { return queue_.size(); }
  // False: a standard signal that was pending already (dropped).
  bool Add(const siginfo_t& info) { return Add(info, std::nullopt); }
  // One that has been charged to `owner` (limits::PendingSignalsOfUsers).
  bool Add(const siginfo_t& info, std::optional<uint32_t> owner);
  // The next in delivery order among `allowed` (synchronous first, then lowest number), removed.
  std::optional<siginfo_t> Take(SignalSet allowed);
  // At most `most` of them, in the order they were sent, after the first `skip`.
  std::vector<siginfo_t> Peek(uint64_t skip, size_t most) const;
  std::optional<siginfo_t> TakeTimer(int sig, int timer_id);
  void Discard(SignalSet signals);

 private:
  SignalSet set_ = 0;
  struct Entry {
    siginfo_t info;
    std::optional<uint32_t> owner;
  };
  static void Uncharge(const Entry& entry);

  std::deque<Entry> queue_;
};

// siginfo of kill(2)-like origins.
siginfo_t MakeSigInfo(int sig, int code);
siginfo_t MakeKillInfo(int sig, int code, int pid, uint32_t uid);

}  // namespace redoubt

#endif  // REDOUBT_PKG_SENTRY_SIGNAL_SIGNAL_H_
