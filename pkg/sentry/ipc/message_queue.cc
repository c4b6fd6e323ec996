#include "pkg/sentry/ipc/message_queue.h"

#include <linux/capability.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <utility>

#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::ipc {
namespace {

int64_t Now() { return clock::Realtime() / 1'000'000'000; }

// Messages of all queues, with what each costs besides its text: they outlive whoever sent them, so that killing a
// process would not give the memory back.
constexpr int64_t kMostInAll = 64 << 20;
constexpr int64_t kCost = 80;
constinit std::atomic<int64_t> in_all{0};

// kernel.msgmnb: of a queue, bytes, unless CAP_SYS_RESOURCE gives it more.
uint64_t Capacity() { return static_cast<uint64_t>(limits::System::Get().msgmnb.load(std::memory_order_relaxed)); }

int64_t CostOf(const Message& message) { return static_cast<int64_t>(message.text.size()) + kCost; }

}  // namespace

MessageQueue::MessageQueue(int id, uint64_t capacity, const Permissions& permissions)
    : id(id), permissions_(permissions), capacity_(capacity), change_time_(Now()) {
  sync::MutexLock lock(mu_);
  permissions_.id = id;
}

MessageQueue::~MessageQueue() {
  sync::MutexLock lock(mu_);
  for (const Message& m : messages_) in_all.fetch_sub(CostOf(m), std::memory_order_relaxed);
}

Result<> MessageQueue::CheckUse(const auth::Credentials& creds, int flags) {
  sync::MutexLock lock(mu_);
  const auto mode = static_cast<uint32_t>(flags);
  return permissions_.Check(creds, (mode >> 6 | mode >> 3 | mode) & 7);
}

Result<> MessageQueue::Send(Message& message, const auth::Credentials& creds, int pid) {
  {
    sync::MutexLock lock(mu_);
    if (removed_) return Err(EIDRM);
    TRY(permissions_.Check(creds, 2));
    // As many messages as bytes: empty ones take room too.
    if (bytes_ + message.text.size() > capacity_ || count_ + 1 > capacity_) return Err(EAGAIN);
    const int64_t cost = CostOf(message);
    if (in_all.fetch_add(cost, std::memory_order_relaxed) + cost > kMostInAll) {
      in_all.fetch_sub(cost, std::memory_order_relaxed);
      return Err(ENOMEM);
    }
    bytes_ += message.text.size();
    count_++;
    messages_.push_back(std::move(message));
    last_sender_ = pid;
    send_time_ = Now();
  }
  queue_.Notify(waiter::kIn);
  return {};
}

MessageQueue::Messages::iterator MessageQueue::FindLocked(int64_t type, int flags) {
  if ((flags & MSG_COPY) != 0) {
    if (type < 0 || static_cast<uint64_t>(type) >= count_) return messages_.end();
    return std::next(messages_.begin(), type);
  }
  if (type == 0) return messages_.begin();
  if (type < 0) {
    const int64_t most = type == std::numeric_limits<int64_t>::min() ? std::numeric_limits<int64_t>::max() : -type;
    // The first of the lowest type.
    auto lowest = std::ranges::min_element(messages_, {}, &Message::type);
    return lowest != messages_.end() && lowest->type <= most ? lowest : messages_.end();
  }
  const bool except = (flags & MSG_EXCEPT) != 0;
  return std::ranges::find_if(messages_, [&](const Message& m) { return (m.type == type) != except; });
}

void MessageQueue::ForgetLocked(const Message& message) {
  bytes_ -= message.text.size();
  count_--;
  in_all.fetch_sub(CostOf(message), std::memory_order_relaxed);
}

Result<Message> MessageQueue::Receive(size_t room, int64_t type, int flags, const auth::Credentials& creds, int pid) {
  Messages taken;
  {
    sync::MutexLock lock(mu_);
    if (removed_) return Err(EIDRM);
    TRY(permissions_.Check(creds, 4));
    auto found = FindLocked(type, flags);
    if (found == messages_.end()) return Err(EAGAIN);
    if (found->text.size() > room && (flags & MSG_NOERROR) == 0) return Err(E2BIG);
    if ((flags & MSG_COPY) != 0) return *found;
    ForgetLocked(*found);
    taken.splice(taken.begin(), messages_, found);
    last_receiver_ = pid;
    receive_time_ = Now();
  }
  queue_.Notify(waiter::kOut);
  return std::move(taken.front());
}

Result<msqid_ds> MessageQueue::Stat(const auth::Credentials& creds, bool check) {
  sync::MutexLock lock(mu_);
  if (check) TRY(permissions_.Check(creds, 4));
  msqid_ds ds = {};
  ds.msg_perm = permissions_.ToGuest();
  ds.msg_stime = send_time_;
  ds.msg_rtime = receive_time_;
  ds.msg_ctime = change_time_;
  ds.__msg_cbytes = bytes_;
  ds.msg_qnum = count_;
  ds.msg_qbytes = capacity_;
  ds.msg_lspid = last_sender_;
  ds.msg_lrpid = last_receiver_;
  return ds;
}

Result<> MessageQueue::Set(const auth::Credentials& creds, const msqid_ds& ds) {
  {
    sync::MutexLock lock(mu_);
    TRY(permissions_.CheckOwner(creds));
    if (ds.msg_qbytes > Capacity() && !creds.HasCapability(CAP_SYS_RESOURCE)) return Err(EPERM);
    permissions_.uid = ds.msg_perm.uid;
    permissions_.gid = ds.msg_perm.gid;
    permissions_.mode = ds.msg_perm.mode & 0777;
    capacity_ = ds.msg_qbytes;
    change_time_ = Now();
  }
  // Who waits may not any more, or has room now.
  queue_.Notify(waiter::kIn | waiter::kOut);
  return {};
}

Result<> MessageQueue::CheckRemove(const auth::Credentials& creds) {
  sync::MutexLock lock(mu_);
  return permissions_.CheckOwner(creds);
}

void MessageQueue::Remove() {
  Messages gone;
  {
    sync::MutexLock lock(mu_);
    removed_ = true;
    for (const Message& m : messages_) ForgetLocked(m);
    gone.swap(messages_);
  }
  queue_.Notify(waiter::kIn | waiter::kOut);
}

uint64_t MessageQueue::bytes() {
  sync::MutexLock lock(mu_);
  return bytes_;
}

uint64_t MessageQueue::messages() {
  sync::MutexLock lock(mu_);
  return count_;
}

Result<RefPtr<MessageQueue>> MessageQueues::Get(key_t key, int flags, const auth::Credentials& creds) {
  return table_.Get(
      key, flags, static_cast<size_t>(limits::System::Get().msgmni.load(std::memory_order_relaxed)),
      [&](int id) -> Result<RefPtr<MessageQueue>> {
        return MakeRef<MessageQueue>(id, Capacity(), Permissions::Of(key, static_cast<uint32_t>(flags), creds));
      },
      [&](MessageQueue& queue) -> Result<> { return queue.CheckUse(creds, flags); });
}

}  // namespace redoubt::ipc
