// System V message queues: msgget(2), msgop(2), msgctl(2).
#include <sys/ipc.h>
#include <sys/msg.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "pkg/sentry/ipc/ipc.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"
#include "pkg/sentry/syscalls/ipc_namespace.h"

namespace redoubt::syscalls {
namespace {

// The C library's structures are the kernel's on x86-64.
static_assert(sizeof(msqid_ds) == 120 && sizeof(msginfo) == 32);

// linux/msg.h: newer than the C library's headers, or hidden there.
constexpr int kMsgStatAny = 13;
constexpr int kReceiveFlags = IPC_NOWAIT | MSG_NOERROR | MSG_EXCEPT | MSG_COPY;

// msgop(2): a stop or a signal without a handler does not end the waiting, one with a handler always does.
Errno AfterWaiting(Errno error) { return error == kErestartsys ? kErestartnohand : error; }

msginfo Info(ipc::Table<ipc::MessageQueue>& table, bool used) {
  msginfo info = {};
  const limits::System& system = limits::System::Get();
  info.msgmax = static_cast<int>(system.msgmax.load());
  info.msgmnb = static_cast<int>(system.msgmnb.load());
  info.msgmni = static_cast<int>(system.msgmni.load());
  // Of no meaning to Linux either (linux/msg.h).
  info.msgssz = 16;
  info.msgseg = 0xffff;
  if (used) {
    for (const RefPtr<ipc::MessageQueue>& q : table.All()) {
      info.msgpool++;
      info.msgmap += static_cast<int>(q->messages());
      info.msgtql += static_cast<int>(q->bytes());
    }
  } else {
    info.msgpool = static_cast<int>(int64_t{info.msgmni} * info.msgmnb / 1024);
    info.msgmap = info.msgtql = info.msgmnb;
  }
  return info;
}

}  // namespace

Result<uint64_t> Msgget(Task& task, const SyscallArgs& a) {
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  return TRY(ns->message_queues.Get(a.I32(0), a.I32(1), task.creds()))->id;
}

Result<uint64_t> Msgsnd(Task& task, const SyscallArgs& a) {
  const int id = a.I32(0);
  ipc::Message message;
  message.type = TRY(task.mm().CopyInObject<int64_t>(a.Pointer(1)));
  if (id < 0 || a.Size(2) > static_cast<uint64_t>(limits::System::Get().msgmax.load()) || message.type < 1) {
    return Err(EINVAL);
  }
  message.text = TRY(task.mm().CopyInVector<std::byte>(a.Pointer(1) + sizeof(int64_t), a.Size(2)));
  RefPtr<ipc::MessageQueue> queue = TRY(IpcNamespace(task)->message_queues.table().Find(id));
  auto attempt = [&] { return queue->Send(message, task.creds(), task.group().id); };
  if ((a.I32(3) & IPC_NOWAIT) != 0) {
    TRY(attempt());
  } else if (Result<> sent = wait::Retry(*queue, waiter::kOut, fiber::kForever, attempt); !sent) {
    return Err(AfterWaiting(sent.error()));
  }
  return 0;
}

Result<uint64_t> Msgrcv(Task& task, const SyscallArgs& a) {
  const int id = a.I32(0), flags = a.I32(4);
  const size_t room = a.Size(2);
  const auto type = static_cast<int64_t>(a.U64(3));
  if (id < 0 || room > static_cast<size_t>(std::numeric_limits<int64_t>::max())) return Err(EINVAL);
  const bool waits = (flags & IPC_NOWAIT) == 0;
  if ((flags & MSG_COPY) != 0 && (waits || (flags & MSG_EXCEPT) != 0)) return Err(EINVAL);
  RefPtr<ipc::MessageQueue> queue = TRY(IpcNamespace(task)->message_queues.table().Find(id));
  auto attempt = [&] { return queue->Receive(room, type, flags & kReceiveFlags, task.creds(), task.group().id); };
  Result<ipc::Message> message = waits ? wait::Retry(*queue, waiter::kIn, fiber::kForever, attempt) : attempt();
  if (!message && !waits && message.error() == Errno(EAGAIN)) return Err(ENOMSG);
  if (!message) return Err(AfterWaiting(message.error()));
  // It is gone, even if it cannot be told.
  TRY(task.mm().CopyOutObject(a.Pointer(1), message->type));
  const size_t length = std::min(room, message->text.size());
  TRY(task.mm().CopyOutAll(a.Pointer(1) + sizeof(int64_t), std::span(message->text).first(length)));
  return length;
}

Result<uint64_t> Msgctl(Task& task, const SyscallArgs& a) {
  const int id = a.I32(0), command = a.I32(1);
  const Addr out = a.Pointer(2);
  if (id < 0 || command < 0) return Err(EINVAL);
  RefPtr<ipc::Namespace> ns = IpcNamespace(task);
  ipc::Table<ipc::MessageQueue>& table = ns->message_queues.table();
  switch (command) {
    case IPC_INFO:
    case MSG_INFO:
      TRY(task.mm().CopyOutObject(out, Info(table, command == MSG_INFO)));
      return table.MaxSlot();
    case IPC_STAT:
    case MSG_STAT:
    case kMsgStatAny: {
      RefPtr<ipc::MessageQueue> queue = TRY(command == IPC_STAT ? table.Find(id) : table.FindSlot(id));
      msqid_ds ds = TRY(queue->Stat(task.creds(), command != kMsgStatAny));
      ds.msg_lspid = task.pid_ns().FromRoot(ds.msg_lspid);
      ds.msg_lrpid = task.pid_ns().FromRoot(ds.msg_lrpid);
      TRY(task.mm().CopyOutObject(out, ds));
      return command == IPC_STAT ? 0 : queue->id;
    }
    case IPC_SET: {
      const auto ds = TRY(task.mm().CopyInObject<msqid_ds>(out));
      RefPtr<ipc::MessageQueue> queue = TRY(table.Find(id));
      TRY(CheckIpcOwner(task, ds.msg_perm));
      TRY(queue->Set(task.creds(), ds));
      return 0;
    }
    case IPC_RMID: {
      RefPtr<ipc::MessageQueue> queue = TRY(table.Find(id));
      TRY(queue->CheckRemove(task.creds()));
      table.Remove(id);
      queue->Remove();
      return 0;
    }
    default:
      return Err(EINVAL);
  }
}

}  // namespace redoubt::syscalls
