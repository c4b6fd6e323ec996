// System V IPC: shmget(2), shmop(2), shmctl(2), semget(2), semop(2), semctl(2).
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "pkg/sentry/fsimpl/proc/proc.h"
#include "pkg/sentry/ipc/ipc.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"
#include "pkg/sentry/syscalls/ipc_namespace.h"

namespace redoubt::syscalls {
namespace {

// The C library's structures are the kernel's on x86-64.
static_assert(sizeof(shmid_ds) == 112 && sizeof(semid_ds) == 104 && sizeof(sembuf) == 6);

// linux/ipc.h, linux/shm.h, linux/sem.h: newer than the C library's headers, or hidden there.
constexpr int kShmStatAny = 15;
constexpr int kSemStatAny = 20;
constexpr int kShmExec = 0100000;

RefPtr<ipc::UndoList> Undo(Task& task) {
  sync::MutexLock lock(task.kernel().mu);
  RefPtr<RefCounted>& slot = task.group().sem_undo;
  if (!slot) slot = MakeRef<ipc::UndoList>(task.group().id);
  return RefPtr<ipc::UndoList>(static_cast<ipc::UndoList*>(slot.get()));
}

Result<uint64_t> DoSemop(Task& task, int id, Addr operations_addr, size_t count, fiber::Time deadline) {
  if (count == 0 || id < 0) return Err(EINVAL);
  if (count > ipc::Semaphores::kMaxOperations) return Err(E2BIG);
  std::vector<sembuf> operations = TRY(task.mm().CopyInVector<sembuf>(operations_addr, count));
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  RefPtr<ipc::SemaphoreSet> set = TRY(ns->semaphores.table().Find(id));
  const bool undoes = std::ranges::any_of(operations, [](const sembuf& op) { return (op.sem_flg & SEM_UNDO) != 0; });
  RefPtr<ipc::UndoList> undo = undoes ? Undo(task) : nullptr;
  auto attempt = [&] { return set->Operate(operations, task.creds(), task.group().id, undo.get()); };
  Result<ipc::SemaphoreSet::Outcome> outcome = attempt();
  if (!outcome && outcome.error() == Errno(EAGAIN)) {
    ipc::SemaphoreSet::Waiting waiting(*set);
    outcome = wait::Retry(*set, waiter::kIn, deadline, [&] {
      Result<ipc::SemaphoreSet::Outcome> again = attempt();
      if (!again && again.error() == Errno(EAGAIN)) waiting.Update(operations);
      return again;
    });
  }
  if (!outcome) {
    // semop(2): EAGAIN when the time is over; never restarted after a signal handler.
    if (outcome.error() == Errno(ETIMEDOUT)) return Err(EAGAIN);
    if (outcome.error() == kErestartsys) return Err(EINTR);
    return Err(outcome.error());
  }
  if (*outcome == ipc::SemaphoreSet::Outcome::kMustNotWait) return Err(EAGAIN);
  return 0;
}

}  // namespace

RefPtr<ipc::Namespace> IpcNamespace(kernel::Kernel& kernel) {
  sync::MutexLock lock(kernel.mu);
  if (!kernel.ipc_namespace) {
    kernel.ipc_namespace = MakeRef<ipc::Namespace>(kernel.memory_file());
    proc::SetSysvipcTable(SysvipcTable);
  }
  return RefPtr<ipc::Namespace>(static_cast<ipc::Namespace*>(kernel.ipc_namespace.get()));
}

Result<> CheckIpcOwner(Task& task, const ipc_perm& perm) {
  const kernel::Container& container = *task.group().container;
  if (!container.HasUid(perm.uid) || !container.HasGid(perm.gid)) return Err(EINVAL);
  return {};
}

Result<uint64_t> Shmget(Task& task, const SyscallArgs& a) {
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  RefPtr<ipc::Segment> segment =
      TRY(ns->shared_memory.Get(a.I32(0), a.U64(1), a.I32(2), task.creds(), task.group().id));
  return segment->id;
}

Result<uint64_t> Shmat(Task& task, const SyscallArgs& a) {
  Addr addr = a.Pointer(1);
  const int flags = a.I32(2);
  if (a.I32(0) < 0) return Err(EINVAL);
  if (addr != 0 && !IsPageAligned(addr)) {
    if ((flags & SHM_RND) == 0) return Err(EINVAL);
    addr = PageRoundDown(addr);
    if (addr == 0 && (flags & SHM_REMAP) != 0) return Err(EINVAL);
  } else if (addr == 0 && (flags & SHM_REMAP) != 0) {
    return Err(EINVAL);
  }
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  RefPtr<ipc::Segment> segment = TRY(ns->shared_memory.table().Find(a.I32(0)));
  const bool write = (flags & SHM_RDONLY) == 0;
  TRY(segment->Attach(task.creds(), write, task.group().id));
  mm::MMapOptions options;
  options.addr = addr;
  options.length = segment->size();
  options.fixed = addr != 0;
  options.no_replace = options.fixed && (flags & SHM_REMAP) == 0;
  options.shared = true;
  options.access = {.read = true, .write = write, .execute = (flags & kShmExec) != 0};
  options.max_access.write = write;
  options.mappable = segment.get();
  options.identity = segment;
  Result<Addr> at = task.mm().MMap(std::move(options));
  // Something is there already: shmat(2) calls that EINVAL.
  if (!at) return Err(at.error() == Errno(EEXIST) ? Errno(EINVAL) : at.error());
  return *at;
}

Result<uint64_t> Shmdt(Task& task, const SyscallArgs& a) {
  const Addr addr = a.Pointer(0);
  if (!IsPageAligned(addr)) return Err(EINVAL);
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  for (const RefPtr<ipc::Segment>& segment : ns->shared_memory.table().All()) {
    std::vector<AddrRange> ranges = segment->AttachedAt(task.mm(), addr);
    if (ranges.empty()) continue;
    segment->Detached(task.group().id);
    for (AddrRange r : ranges) TRY(task.mm().MUnmap(r.start, r.length()));
    return 0;
  }
  return Err(EINVAL);
}

Result<uint64_t> Shmctl(Task& task, const SyscallArgs& a) {
  const int id = a.I32(0), command = a.I32(1);
  const Addr out = a.Pointer(2);
  if (id < 0 || command < 0) return Err(EINVAL);
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  ipc::Table<ipc::Segment>& table = ns->shared_memory.table();
  switch (command) {
    case IPC_INFO: {
      shminfo info = {};
      info.shmmax = ipc::SharedMemory::kMaxSize;
      info.shmmin = 1;
      info.shmmni = info.shmseg = ipc::SharedMemory::kMaxSegments;
      info.shmall = ipc::SharedMemory::kMaxSize / kPageSize;
      TRY(task.mm().CopyOutObject(out, info));
      return table.MaxSlot();
    }
    case SHM_INFO: {
      shm_info info = {};
      for (const RefPtr<ipc::Segment>& s : table.All()) {
        info.used_ids++;
        info.shm_tot += MustPageRoundUp(s->size()) / kPageSize;
      }
      TRY(task.mm().CopyOutObject(out, info));
      return table.MaxSlot();
    }
    case IPC_STAT:
    case SHM_STAT:
    case kShmStatAny: {
      RefPtr<ipc::Segment> segment = TRY(command == IPC_STAT ? table.Find(id) : table.FindSlot(id));
      shmid_ds ds = TRY(segment->Stat(task.creds(), command != kShmStatAny));
      ds.shm_cpid = task.pid_ns().FromRoot(ds.shm_cpid);
      ds.shm_lpid = task.pid_ns().FromRoot(ds.shm_lpid);
      TRY(task.mm().CopyOutObject(out, ds));
      return command == IPC_STAT ? 0 : segment->id;
    }
    case IPC_SET: {
      shmid_ds ds = TRY(task.mm().CopyInObject<shmid_ds>(out));
      TRY(CheckIpcOwner(task, ds.shm_perm));
      TRY(TRY(table.Find(id))->Set(task.creds(), ds.shm_perm));
      return 0;
    }
    case IPC_RMID:
      TRY(TRY(table.Find(id))->Remove(task.creds()));
      return 0;
    case SHM_LOCK:
    case SHM_UNLOCK:
      // Nothing here is ever swapped.
      TRY(table.Find(id));
      return 0;
    default:
      return Err(EINVAL);
  }
}

Result<uint64_t> Semget(Task& task, const SyscallArgs& a) {
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  return TRY(ns->semaphores.Get(a.I32(0), a.I32(1), a.I32(2), task.creds()))->id;
}

Result<uint64_t> Semop(Task& task, const SyscallArgs& a) {
  return DoSemop(task, a.I32(0), a.Pointer(1), a.Size(2), fiber::kForever);
}

Result<uint64_t> Semtimedop(Task& task, const SyscallArgs& a) {
  fiber::Time deadline = fiber::kForever;
  if (a.Pointer(3) != 0) deadline = DeadlineAfter(TRY(CopyInTimespec(task, a.Pointer(3))));
  return DoSemop(task, a.I32(0), a.Pointer(1), a.Size(2), deadline);
}

Result<uint64_t> Semctl(Task& task, const SyscallArgs& a) {
  using What = ipc::SemaphoreSet::What;
  const int id = a.I32(0), index = a.I32(1), command = a.I32(2);
  const Addr out = a.Pointer(3);
  if (id < 0) return Err(EINVAL);
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  ipc::Table<ipc::SemaphoreSet>& table = ns->semaphores.table();
  const auth::Credentials& creds = task.creds();
  switch (command) {
    case IPC_INFO:
    case SEM_INFO: {
      seminfo info = {};
      info.semmni = ipc::Semaphores::kMaxSets;
      info.semmsl = ipc::Semaphores::kMaxPerSet;
      info.semmns = static_cast<int>(limits::System::Get().semmns.load());
      info.semopm = ipc::Semaphores::kMaxOperations;
      info.semvmx = info.semaem = ipc::SemaphoreSet::kMaxValue;
      if (command == SEM_INFO) {
        info.semusz = info.semaem = 0;
        for (const RefPtr<ipc::SemaphoreSet>& s : table.All()) {
          info.semusz++;
          info.semaem += static_cast<int>(s->size());
        }
      }
      TRY(task.mm().CopyOutObject(out, info));
      return table.MaxSlot();
    }
    case SEM_STAT:
    case kSemStatAny: {
      RefPtr<ipc::SemaphoreSet> set = TRY(table.FindSlot(id));
      TRY(task.mm().CopyOutObject(out, TRY(set->Stat(creds, command == SEM_STAT))));
      return set->id;
    }
    default:
      break;
  }
  RefPtr<ipc::SemaphoreSet> set = TRY(table.Find(id));
  switch (command) {
    case IPC_STAT:
      TRY(task.mm().CopyOutObject(out, TRY(set->Stat(creds, true))));
      return 0;
    case IPC_SET: {
      semid_ds ds = TRY(task.mm().CopyInObject<semid_ds>(out));
      TRY(CheckIpcOwner(task, ds.sem_perm));
      TRY(set->Set(creds, ds.sem_perm));
      return 0;
    }
    case IPC_RMID:
      TRY(set->CheckRemove(creds));
      table.Remove(id);
      set->Remove();
      return 0;
    case GETVAL:
      return static_cast<uint64_t>(TRY(set->GetOne(creds, index, What::kValue)));
    case GETPID:
      return static_cast<uint64_t>(task.pid_ns().FromRoot(TRY(set->GetOne(creds, index, What::kPid))));
    case GETNCNT:
      return static_cast<uint64_t>(TRY(set->GetOne(creds, index, What::kWaitingForIncrease)));
    case GETZCNT:
      return static_cast<uint64_t>(TRY(set->GetOne(creds, index, What::kWaitingForZero)));
    case GETALL: {
      std::vector<uint16_t> values = TRY(set->GetAll(creds));
      TRY(task.mm().CopyOutAll(out, std::as_bytes(std::span(values))));
      return 0;
    }
    case SETVAL:
      TRY(set->SetOne(creds, index, a.I32(3), task.group().id));
      return 0;
    case SETALL: {
      std::vector<uint16_t> values = TRY(task.mm().CopyInVector<uint16_t>(out, set->size()));
      TRY(set->SetAll(creds, values, task.group().id));
      return 0;
    }
    default:
      return Err(EINVAL);
  }
}

}  // namespace redoubt::syscalls
