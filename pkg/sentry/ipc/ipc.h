// An IPC namespace: all System V objects and POSIX message queues of a sandbox (sysvipc(7), mq_overview(7)).
#ifndef REDOUBT_PKG_SENTRY_IPC_IPC_H_
#define REDOUBT_PKG_SENTRY_IPC_IPC_H_

#include "pkg/refs/refs.h"
#include "pkg/sentry/fsimpl/mqueue/mqueue.h"
#include "pkg/sentry/ipc/message_queue.h"
#include "pkg/sentry/ipc/semaphore.h"
#include "pkg/sentry/ipc/shared_memory.h"
#include "pkg/sentry/pgalloc/memory_file.h"

namespace redoubt::ipc {

// Lock order: the tables (kIpc) > segments, sets and queues (kMappable) > undo lists, wait queues.
struct Namespace final : public RefCounted {
  explicit Namespace(pgalloc::MemoryFile& memory_file) : shared_memory(memory_file) {}
  SharedMemory shared_memory;
  Semaphores semaphores;
  MessageQueues message_queues;
  mqueue::Queues posix_queues;
};

}  // namespace redoubt::ipc

#endif  // REDOUBT_PKG_SENTRY_IPC_IPC_H_
