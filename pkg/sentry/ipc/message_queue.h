// System V message queues: msgget(2), msgop(2), msgctl(2).
#ifndef REDOUBT_PKG_SENTRY_IPC_MESSAGE_QUEUE_H_
#define REDOUBT_PKG_SENTRY_IPC_MESSAGE_QUEUE_H_

#include <sys/msg.h>

#include <cstddef>
#include <cstdint>
#include <list>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/ipc/permissions.h"
#include "pkg/sentry/ipc/table.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::ipc {

struct Message {
  int64_t type = 0;
  std::vector<std::byte> text;
};

// One queue. Who has to wait does so on its events and tries again. Thread-safe.
class MessageQueue final : public RefCounted {
 public:
  MessageQueue(int id, uint64_t capacity, const Permissions& permissions);
  ~MessageQueue() override;

  const int id;

  // msgsnd(2), one try: EAGAIN if there is no room, EACCES, EIDRM, ENOMEM. Takes the message only if it succeeds.
  Result<> Send(Message& message, const auth::Credentials& creds, int pid) EXCLUDES(mu_);
  // msgrcv(2), one try: EAGAIN if there is none such, E2BIG, EACCES, EIDRM. `flags`: MSG_NOERROR, MSG_EXCEPT, MSG_COPY,
  // with which `type` counts from the first message.
  Result<Message> Receive(size_t room, int64_t type, int flags, const auth::Credentials& creds, int pid) EXCLUDES(mu_);

  // msgctl(2).
  Result<msqid_ds> Stat(const auth::Credentials& creds, bool check) EXCLUDES(mu_);
  Result<> Set(const auth::Credentials& creds, const msqid_ds& ds) EXCLUDES(mu_);
  Result<> CheckRemove(const auth::Credentials& creds) EXCLUDES(mu_);
  void Remove() EXCLUDES(mu_);
  Result<> CheckUse(const auth::Credentials& creds, int flags) EXCLUDES(mu_);
  uint64_t bytes() EXCLUDES(mu_);
  uint64_t messages() EXCLUDES(mu_);

  // For wait::Retry. kIn: a message came; kOut: there is more room; both: the queue has changed or gone.
  void RegisterWaiter(waiter::Entry& entry) { queue_.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) { queue_.Unregister(entry); }

 private:
  using Messages = std::list<Message>;
  Messages::iterator FindLocked(int64_t type, int flags) REQUIRES(mu_);
  void ForgetLocked(const Message& message) REQUIRES(mu_);

  sync::Mutex mu_{sync::Rank::kMappable};  // the table's lock comes before it
  Permissions permissions_ GUARDED_BY(mu_);
  Messages messages_ GUARDED_BY(mu_);
  uint64_t bytes_ GUARDED_BY(mu_) = 0;
  uint64_t count_ GUARDED_BY(mu_) = 0;
  uint64_t capacity_ GUARDED_BY(mu_);  // msg_qbytes
  int last_sender_ GUARDED_BY(mu_) = 0, last_receiver_ GUARDED_BY(mu_) = 0;
  int64_t send_time_ GUARDED_BY(mu_) = 0, receive_time_ GUARDED_BY(mu_) = 0, change_time_ GUARDED_BY(mu_);
  bool removed_ GUARDED_BY(mu_) = false;
  waiter::Queue queue_;
};

// All queues of a namespace.
class MessageQueues final {
 public:
  // msgget(2): EACCES, EEXIST, ENOENT, ENOSPC.
  Result<RefPtr<MessageQueue>> Get(key_t key, int flags, const auth::Credentials& creds);
  Table<MessageQueue>& table() { return table_; }

 private:
  Table<MessageQueue> table_;
};

}  // namespace redoubt::ipc

#endif  // REDOUBT_PKG_SENTRY_IPC_MESSAGE_QUEUE_H_
