#include "pkg/sentry/kernel/job_control.h"

namespace redoubt::kernel {

tty::JobControl::Ids KernelJobControl::Current() {
  Task* task = Task::Current();
  if (task == nullptr) return {};
  sync::MutexLock lock(kernel_.mu);
  const RefPtr<ProcessGroup>& pg = task->group().process_group;
  if (!pg) return {};
  return {.session = pg->session->id,
          .process_group = pg->id,
          .session_leader = pg->session->id == task->group().id,
          .controlling_tty = task->group().ControllingTtyLocked()};
}

int KernelJobControl::ToGuest(int id) {
  Task* task = Task::Current();
  return task != nullptr ? task->pid_ns().FromRoot(id) : id;
}

int KernelJobControl::FromGuest(int id) {
  Task* task = Task::Current();
  return task != nullptr ? task->pid_ns().ToRoot(id) : id;
}

void KernelJobControl::GiveUpTerminal() {
  Task* task = Task::Current();
  if (task == nullptr) return;
  sync::MutexLock lock(kernel_.mu);
  task->group().gave_up_tty = true;
}

void KernelJobControl::SetControllingTerminal(RefPtr<RefCounted> terminal) {
  Task* task = Task::Current();
  if (task == nullptr) return;
  // The old one is released after the lock.
  sync::MutexLock lock(kernel_.mu);
  if (task->group().process_group) std::swap(task->group().process_group->session->controlling_tty, terminal);
}

void KernelJobControl::ClearControllingTerminal(int session) {
  RefPtr<RefCounted> old;
  sync::MutexLock lock(kernel_.mu);
  kernel_.ForEachProcessGroupLocked([&](ProcessGroup& pg) {
    if (pg.session->id == session && pg.session->controlling_tty) old = std::move(pg.session->controlling_tty);
  });
}

Result<> KernelJobControl::CheckProcessGroup(int process_group, int session) {
  sync::MutexLock lock(kernel_.mu);
  RefPtr<ProcessGroup> pg = kernel_.FindProcessGroupLocked(process_group);
  if (!pg) return Err(ESRCH);
  if (pg->session->id != session) return Err(EPERM);
  return {};
}

void KernelJobControl::SignalProcessGroup(int process_group, int sig) {
  (void)kernel_.SendToProcessGroup(process_group, MakeSigInfo(sig, SI_KERNEL));
}

void KernelJobControl::HangUpSessionLeader(int session) {
  RefPtr<ThreadGroup> leader = kernel_.FindGroup(session);
  if (!leader) return;
  (void)kernel_.SendToGroup(*leader, MakeSigInfo(SIGHUP, SI_KERNEL));
  (void)kernel_.SendToGroup(*leader, MakeSigInfo(SIGCONT, SI_KERNEL));
}

Result<> KernelJobControl::BackgroundAccess(int sig) {
  Task* task = Task::Current();
  if (task == nullptr) return {};
  sync::MutexLock lock(kernel_.mu);
  const RefPtr<ProcessGroup> pg = task->group().process_group;
  if (!pg) return Err(EIO);
  bool suppressed = (task->signal_mask() & SignalBit(sig)) != 0 || (*task->group().handlers)[sig].is_ignored();
  if (suppressed) {
    if (sig == SIGTTIN) return Err(EIO);
    return {};
  }
  if (kernel_.IsOrphanedLocked(*pg)) return Err(EIO);
  std::vector<ThreadGroup*> members = pg->members;
  for (ThreadGroup* member : members) (void)kernel_.SendLocked(*member, nullptr, MakeSigInfo(sig, SI_KERNEL));
  return Err(kErestartsys);
}

}  // namespace redoubt::kernel
