#include "pkg/platform/ptrace/placement.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "pkg/platform/affinity.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::ptrace {
namespace {

constinit sync::Mutex g_mu{sync::Rank::kLeaf};
// Never destroyed: OS threads may end after main has returned.
std::vector<Placement*>& Placements() REQUIRES(g_mu) {
  static auto* placements = new std::vector<Placement*>;
  return *placements;
}
// A watchdog makes its rounds.
std::atomic<bool> g_watched{false};

int64_t Now() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1'000'000'000 + ts.tv_nsec;
}

}  // namespace

void Placement::Init() { AllCpus(); }

Placement::Placement() : os_thread_(gettid()) {
  // One processor: nothing to gain. None: there are more than the set holds.
  if (CPU_COUNT(&AllCpus()) < 2) enabled_ = false;
  sync::MutexLock lock(g_mu);
  Placements().push_back(this);
}

Placement::~Placement() {
  sync::MutexLock lock(g_mu);
  std::erase(Placements(), this);
}

Placement& Placement::OfCaller() {
  static thread_local Placement placement;
  return placement;
}

void Placement::Untie() {
  LetRoam(0);
  cpu_ = -1;
  tied_.store(false, std::memory_order_relaxed);
}

bool Placement::Tie(int64_t now) {
  int cpu = sched_getcpu();
  if (cpu < 0 || cpu >= CPU_SETSIZE || !TieTo(0, cpu)) {
    enabled_ = false;
    return false;
  }
  cpu_ = cpu;
  tied_at_ = now;
  return true;
}

void Placement::Publish(pid_t running, int64_t now, Host& host) {
  since_.store(now, std::memory_order_relaxed);
  running_.store(running, std::memory_order_relaxed);
  if (cpu_ < 0) return;
  tied_.store(true);
  if (!g_watched.load() && !g_watched.exchange(true)) host.Poke();
}

int Placement::TieWith(pid_t tid, Host& host) {
  if (!enabled_) return -1;
  int64_t now = Now();
  if (untied_by_watchdog_.exchange(false, std::memory_order_relaxed)) Untie();
  if (cpu_ < 0 && !Tie(now)) return -1;
  Publish(0, now, host);
  return TieTo(tid, cpu_) ? cpu_ : -1;
}

void Placement::Before(TracedThread& thread, Host& host) {
  if (!enabled_) return;
  int64_t now = Now();
  if (untied_by_watchdog_.exchange(false, std::memory_order_relaxed)) Untie();
  if (cpu_ >= 0) {
    if (now - tied_at_ > kRefresh) Untie();
  } else if (last_was_short_) {
    (void)Tie(now);
  }
  if (thread.cpu != cpu_) {
    if (cpu_ < 0) {
      LetRoam(thread.tid);
    } else {
      TieTo(thread.tid, cpu_);
    }
    thread.cpu = cpu_;
  }
  Publish(thread.tid, now, host);
}

void Placement::After(TracedThread& thread) {
  if (!enabled_) return;
  int64_t now = Now();
  running_.store(0, std::memory_order_relaxed);
  last_was_short_ = now - since_.load(std::memory_order_relaxed) < kShortTurn;
  since_.store(now, std::memory_order_relaxed);
  if (untied_by_watchdog_.exchange(false, std::memory_order_relaxed)) {
    Untie();
    thread.cpu = -1;
  }
}

bool Placement::Watch() {
  sync::MutexLock lock(g_mu);
  int64_t now = Now();
  bool any = false;
  for (Placement* p : Placements()) {
    if (!p->tied_.load()) continue;
    pid_t running = p->running_.load(std::memory_order_relaxed);
    int64_t age = now - p->since_.load(std::memory_order_relaxed);
    if (age < (running != 0 ? kWatchPeriod : kRefresh)) {
      any = true;
      continue;
    }
    // It may be coming back just now. Then it is not tied where it thinks it is, until the next refresh.
    p->untied_by_watchdog_.store(true, std::memory_order_relaxed);
    p->tied_.store(false, std::memory_order_relaxed);
    LetRoam(p->os_thread_);
    if (running != 0) LetRoam(running);
  }
  if (any) return true;
  g_watched.store(false);
  // Somebody may have been tied meanwhile and have seen a watchdog.
  for (Placement* p : Placements()) any |= p->tied_.load();
  return any && !g_watched.exchange(true);
}

}  // namespace redoubt::platform::ptrace
