// Out of memory: what guest pages and the Sentry's own objects take together has reached what the sandbox was given.
#include <algorithm>

#include "pkg/heap/heap.h"
#include "pkg/log/rate_limit.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/task.h"

namespace redoubt::kernel {
namespace {

// What a task has touched of its fiber's stack, and what a descriptor may stand for (a pipe's or a socket's buffer):
// guesses.
constexpr uint64_t kTaskBytes = 16 << 10;
constexpr uint64_t kDescriptorBytes = 4 << 10;
constexpr fiber::Time kPatience = 2'000'000'000;  // ns, until the next is killed too
constexpr fiber::Time kLook = 1'000'000;

}  // namespace

uint64_t Kernel::MemoryUsed() { return memory_file().usage() + heap::Used() + TaskCount() * kTaskBytes; }

void Kernel::CheckMemory(Task& caller) {
  if (!heap::HasGrown() || MemoryUsed() <= memory_file().limit()) return;
  OutOfMemory(caller);
}

RefPtr<ThreadGroup> Kernel::ChooseVictim() {
  RefPtr<ThreadGroup> chosen;
  int64_t most = INT64_MIN;
  for (RefPtr<ThreadGroup>& group : Groups()) {
    uint64_t bytes = 0;
    RefPtr<Task> leader;
    {
      sync::MutexLock lock(mu);
      if (group->zombie || group->exiting || group->tasks.empty()) continue;
      bytes = group->tasks.size() * kTaskBytes;
      leader = RefPtr<Task>(group->tasks.front());
    }
    const int adjustment = group->oom_score_adj.load();
    if (adjustment == -1000) continue;
    if (RefPtr<mm::MemoryManager> mm = leader->GetMm()) bytes += mm->resident_size();
    if (RefPtr<FdTable> fds = leader->GetFds()) bytes += fds->Count() * kDescriptorBytes;
    // proc(5), oom_score_adj: per mille of all memory.
    const int64_t badness =
        static_cast<int64_t>(bytes) + static_cast<int64_t>(memory_size() / 1000) * static_cast<int64_t>(adjustment);
    // Of equals the younger, as Groups() has them by number.
    if (badness >= most) {
      most = badness;
      chosen = group;
    }
  }
  return chosen;
}

void Kernel::OutOfMemory(Task& caller) {
  RefPtr<ThreadGroup> victim;
  {
    // One at a time: its memory may be enough.
    sync::MutexLock lock(mu);
    if (oom_victim_ && !oom_victim_->zombie && fiber::Now() < oom_deadline_) victim = oom_victim_;
  }
  if (!victim) {
    victim = ChooseVictim();
    if (!victim) victim = RefPtr<ThreadGroup>(&caller.group());
    RefPtr<Task> task = FindTask(victim->id);
    const std::string name = task ? task->GetName() : "";
    LOG_WARNING_LIMITED("out of memory ({} of {} bytes): killing process {} ({})", MemoryUsed(), memory_file().limit(),
                        victim->id, name);
    sync::MutexLock lock(mu);
    oom_victim_ = victim;
    oom_deadline_ = fiber::Now() + kPatience;
    KillGroupLocked(*victim, SIGKILL);
  }
  const fiber::Time end = fiber::Now() + kPatience;
  while (fiber::Now() < end) {
    {
      sync::MutexLock lock(mu);
      if (victim->zombie || caller.group().exiting) break;
    }
    fiber::Park(fiber::Now() + kLook);
  }
  sync::MutexLock lock(mu);
  if (oom_victim_ == victim && victim->zombie) oom_victim_ = nullptr;
}

}  // namespace redoubt::kernel
