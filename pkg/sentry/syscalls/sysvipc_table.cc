// /proc/sysvipc: proc(5).
#include <fmt/format.h>

#include <iterator>
#include <string>
#include <string_view>

#include "pkg/sentry/ipc/ipc.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/syscalls/ipc_namespace.h"

namespace redoubt::syscalls {
namespace {

std::string Owners(const ipc_perm& p) { return fmt::format("{:5} {:5} {:5} {:5}", p.uid, p.gid, p.cuid, p.cgid); }

std::string Start(const ipc_perm& p, int id) { return fmt::format("{:10} {:10}  {:4o}", p.__key, id, p.mode); }

}  // namespace

std::string SysvipcTable(RefCounted& reader, std::string_view kind) {
  auto& task = static_cast<kernel::Task&>(reader);
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  const kernel::PidNamespace& pids = task.pid_ns();
  const auth::Credentials& creds = task.creds();
  std::string text;
  auto out = std::back_inserter(text);
  // All see all: proc(5) asks for no rights.
  if (kind == "msg") {
    for (const RefPtr<ipc::MessageQueue>& queue : ns->message_queues.table().All()) {
      const Result<msqid_ds> ds = queue->Stat(creds, false);
      if (!ds) continue;
      fmt::format_to(out, "{}  {:10} {:10} {:5} {:5} {} {:10} {:10} {:10}\n", Start(ds->msg_perm, queue->id),
                     ds->__msg_cbytes, ds->msg_qnum, pids.FromRoot(ds->msg_lspid), pids.FromRoot(ds->msg_lrpid),
                     Owners(ds->msg_perm), ds->msg_stime, ds->msg_rtime, ds->msg_ctime);
    }
  } else if (kind == "sem") {
    for (const RefPtr<ipc::SemaphoreSet>& set : ns->semaphores.table().All()) {
      const Result<semid_ds> ds = set->Stat(creds, false);
      if (!ds) continue;
      fmt::format_to(out, "{} {:10} {} {:10} {:10}\n", Start(ds->sem_perm, set->id), ds->sem_nsems,
                     Owners(ds->sem_perm), ds->sem_otime, ds->sem_ctime);
    }
  } else {
    for (const RefPtr<ipc::Segment>& segment : ns->shared_memory.table().All()) {
      const Result<shmid_ds> ds = segment->Stat(creds, false);
      if (!ds) continue;
      // What of it is in memory is not counted by segment.
      fmt::format_to(out, "{} {:21} {:5} {:5}  {:5} {} {:10} {:10} {:10} {:21} {:21}\n",
                     Start(ds->shm_perm, segment->id), ds->shm_segsz, pids.FromRoot(ds->shm_cpid),
                     pids.FromRoot(ds->shm_lpid), ds->shm_nattch, Owners(ds->shm_perm), ds->shm_atime, ds->shm_dtime,
                     ds->shm_ctime, 0, 0);
    }
  }
  return text;
}

}  // namespace redoubt::syscalls
