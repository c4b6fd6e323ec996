// What is done to all processes of a container: freezing, signals, accounts.
#include "pkg/sentry/kernel/container.h"

#include <algorithm>

#include "pkg/log/log.h"
#include "pkg/sentry/kernel/kernel.h"

namespace redoubt::kernel {
namespace {

// How long a task may be at work in the Sentry (a read of many megabytes, a program being loaded) before freezing its
// container is given up.
constexpr fiber::Time kPatience = 10'000'000'000;
constexpr fiber::Time kFirstLook = 20'000;
constexpr fiber::Time kLastLook = 5'000'000;

}  // namespace

bool Task::MustFreezeLocked() const { return group_->held || group_->container->frozen; }

void Task::FreezeLocked() {
  interrupt_.fetch_or(kFreeze, std::memory_order_seq_cst);
  // Run() sets in_guest_ before it looks at interrupt_. A fiber that sleeps is let sleep.
  if (in_guest_.load(std::memory_order_seq_cst) && context_) context_->Interrupt();
}

void Task::ThawLocked() {
  RecomputeInterruptLocked();
  if (freeze_parked_ && fiber_) fiber_->Unpark();
}

bool Task::IsAtRestLocked() const {
  if (exited_) return true;
  // asleep_ may be outdated by a task that has just woken up, which then sees kFreeze before it enters the guest, or
  // has set in_guest_ before kFreeze was set.
  return asleep_.load(std::memory_order_seq_cst) && !in_guest_.load(std::memory_order_seq_cst);
}

// Kernel::mu is held on entry and exit, but not while parked.
void Task::ParkFrozenLocked() NO_THREAD_SAFETY_ANALYSIS {
  freeze_parked_ = true;
  while (MustFreezeLocked() && !group_->exiting && (group_->execing == nullptr || group_->execing == this)) {
    kernel_.mu.Unlock();
    FallAsleep();
    fiber::Park();
    WakeUp();
    kernel_.mu.Lock();
  }
  freeze_parked_ = false;
  RecomputeInterruptLocked();
}

Task::Activity Task::GetActivity() const {
  Activity a;
  sync::MutexLock lock(kernel_.mu);
  a.in_guest = in_guest_.load(std::memory_order_relaxed);
  a.asleep = asleep_.load(std::memory_order_relaxed);
  a.frozen = freeze_parked_;
  a.stopped = stop_parked_;
  // Words that the task may be writing: whole ones, of some moment.
  auto read = [](const auto& word) -> uint64_t { return __atomic_load_n(&word, __ATOMIC_RELAXED); };
  a.syscall_number = read(syscall_number_);
  a.args = {{read(regs_.rdi), read(regs_.rsi), read(regs_.rdx), read(regs_.r10), read(regs_.r8), read(regs_.r9)}};
  a.registers_known = !__atomic_load_n(&partial_, __ATOMIC_RELAXED);
  a.rip = read(regs_.rip);
  a.rsp = read(regs_.rsp);
  return a;
}

Result<> Kernel::Freeze(Container& container) {
  const fiber::Time deadline = fiber::Now() + kPatience;
  {
    sync::MutexLock lock(mu);
    container.frozen = true;
    for (auto& [tid, task] : tasks_) {
      if (task->group_->container.get() == &container) task->FreezeLocked();
    }
  }
  // Looked for and not told of: falling asleep is what tasks do all the time, and must not cost a look at this.
  for (fiber::Time pause = kFirstLook;; pause = std::min(2 * pause, kLastLook)) {
    int busy = 0;
    {
      sync::MutexLock lock(mu);
      // Somebody has thawed it meanwhile: that is what has come last.
      if (!container.frozen) return {};
      for (auto& [tid, task] : tasks_) {
        if (task->group_->container.get() == &container && !task->IsAtRestLocked()) busy = tid;
      }
    }
    if (busy == 0) return {};
    if (fiber::Now() >= deadline) {
      LOG_WARNING("container {}: task {} does not come to rest; not frozen", container.id, busy);
      Thaw(container);
      return Err(ETIMEDOUT);
    }
    fiber::Park(fiber::Now() + pause);
  }
}

void Kernel::Thaw(Container& container) {
  sync::MutexLock lock(mu);
  container.frozen = false;
  for (auto& [tid, task] : tasks_) {
    if (task->group_->container.get() == &container) task->ThawLocked();
  }
}

void Kernel::Release(ThreadGroup& group) {
  sync::MutexLock lock(mu);
  group.held = false;
  for (Task* task : group.tasks) task->ThawLocked();
}

size_t Kernel::SignalAll(Container& container, const siginfo_t& info) {
  size_t count = 0;
  // Under one hold of the lock, so that a program that forks all the time does not outrun it.
  sync::MutexLock lock(mu);
  for (auto& [tid, task] : tasks_) {
    ThreadGroup& group = *task->group_;
    if (group.leader != task.get() || group.container.get() != &container || group.zombie) continue;
    (void)SendLocked(group, nullptr, info);
    count++;
  }
  return count;
}

std::vector<RefPtr<ThreadGroup>> Kernel::GroupsOf(const Container& container) {
  std::vector<RefPtr<ThreadGroup>> groups;
  sync::MutexLock lock(mu);
  for (auto& [tid, task] : tasks_) {
    if (task->group_->leader == task.get() && task->group_->container.get() == &container) {
      groups.push_back(task->group_);
    }
  }
  return groups;
}

CpuTimes Kernel::CpuOf(const Container& container) {
  CpuTimes total;
  std::vector<RefPtr<Task>> tasks;
  {
    sync::MutexLock lock(mu);
    total = container.ended_cpu;
    for (auto& [tid, task] : tasks_) {
      if (task->group_->container.get() == &container && !task->exited_) tasks.push_back(task);
    }
  }
  for (const RefPtr<Task>& task : tasks) total += task->GetUsage().cpu;
  return total;
}

}  // namespace redoubt::kernel
