// Sending and receiving.
#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "pkg/sentry/socket/filter.h"
#include "pkg/sentry/socket/unix/endpoint.h"

namespace redoubt::unixsock {

namespace {

constexpr waiter::EventMask kReadable = waiter::kIn | waiter::kRdNorm;
constexpr waiter::EventMask kWritable = waiter::kOut | waiter::kWrNorm | waiter::kWrBand;

void TakeFiles(std::vector<File> files, socket::InMessage& message) {
  std::move(files.begin(), files.end(), std::back_inserter(message.files));
}

}  // namespace

void Endpoint::PushLocked(Message message) {
  charged_ += message.charge();
  bytes_ += message.length();
  queue_.push_back(std::move(message));
}

Endpoint::Message Endpoint::PopLocked() {
  Message message = std::move(queue_.front());
  queue_.pop_front();
  charged_ -= message.charge();
  bytes_ -= message.length();
  return message;
}

// A sender hears about room when half of what it may have on its way is free, and when all is.
void Endpoint::NotifySpace(RefPtr<Endpoint> sender, size_t still_queued) {
  if (!connection_based()) {
    space_.Notify(waiter::kOut);
  } else if (sender && (still_queued == 0 || still_queued * 2 <= sender->send_limit())) {
    sender->events_.Notify(kWritable);
  }
}

Result<size_t> Endpoint::SendStream(IoSequence& data, Rights& rights, const Identity& creds) {
  fiber::MutexLock sending(send_mu_);
  RefPtr<Endpoint> to;
  {
    sync::MutexLock lock(mu_);
    if (send_shutdown_) return Err(EPIPE);
    if (state_ != State::kConnected) return Err(ENOTCONN);
    to = peer_;
  }
  const size_t limit = send_limit();
  size_t room;
  {
    sync::MutexLock lock(to->mu_);
    if (to->state_ == State::kClosed || to->receive_shutdown_) return Err(EPIPE);
    if (data.empty()) return 0;
    if (to->charged_ >= limit) return Err(EAGAIN);
    room = limit - to->charged_;
  }
  // Only this endpoint sends to that one, so the room stays; it is exceeded by no more than a small buffer.
  const size_t n = std::min<size_t>({data.remaining(), kStreamPiece, std::max(room, kSmall)});
  Message message;
  std::byte small[kSmall / 2];
  std::byte* bytes = small;
  if (n > sizeof(small)) {
    message.capacity = n;
    message.data = std::make_unique_for_overwrite<std::byte[]>(n);
    bytes = message.data.get();
  }
  const size_t copied = TRY(data.CopyIn(std::span(bytes, n)));
  {
    sync::MutexLock lock(to->mu_);
    if (to->state_ == State::kClosed || to->receive_shutdown_) return Err(EPIPE);
    Message* last = to->queue_.empty() ? nullptr : &to->queue_.back();
    if (n <= sizeof(small) && rights.empty() && last != nullptr && last->rights.empty() &&
        last->capacity - last->end >= copied && last->creds == creds) {
      // Where the receiver may be reading is before `end`.
      std::memcpy(last->data.get() + last->end, small, copied);
      last->end += copied;
      to->bytes_ += copied;
    } else {
      if (n <= sizeof(small)) {
        message.capacity = kSmall;
        message.data = std::make_unique_for_overwrite<std::byte[]>(kSmall);
        std::memcpy(message.data.get(), small, copied);
      }
      message.end = copied;
      message.creds = creds;
      message.rights = std::move(rights);
      to->PushLocked(std::move(message));
    }
  }
  to->events_.Notify(kReadable);
  return copied;
}

// What is queued is bounded by the sender's limit, whoever else sends.
bool Endpoint::HasRoomForPacketLocked(const Endpoint& sender) const {
  if (queue_.empty() || state_ == State::kClosed || receive_shutdown_) return true;
  return queue_.size() < kMaxPackets && charged_ < sender.send_limit();
}

Result<size_t> Endpoint::SendPacket(Endpoint* to, IoSequence& data, Rights& rights, const Identity& creds) {
  fiber::MutexLock sending(send_mu_);
  RefPtr<Endpoint> target(to);
  Message message;
  {
    sync::MutexLock lock(mu_);
    if (send_shutdown_) return Err(EPIPE);
    if (connection_based() && state_ != State::kConnected) return Err(ENOTCONN);
    if (!target) target = peer_;
    if (!target) return Err(ENOTCONN);
    message.from = name_;
  }
  const size_t n = data.remaining();
  // Linux keeps this much for itself.
  if (n > send_limit() - 32) return Err(EMSGSIZE);
  auto check = [&]() -> Result<> {
    target->mu_.AssertHeld();
    if (target->state_ == State::kClosed) return Err(connection_based() ? EPIPE : ECONNREFUSED);
    if (!connection_based() && target->peer_ && target->peer_.get() != this) return Err(EPERM);
    if (target->receive_shutdown_) return Err(EPIPE);
    if (!target->HasRoomForPacketLocked(*this)) return Err(EAGAIN);
    return {};
  };
  Result<> allowed;
  {
    sync::MutexLock lock(target->mu_);
    allowed = check();
  }
  if (!allowed && allowed.error() == Errno(ECONNREFUSED) && to == nullptr) {
    // The peer of a datagram socket has gone: told once, then there is none.
    (void)SetPeer(nullptr);
  }
  TRY(allowed);
  message.capacity = message.end = n;
  message.data = std::make_unique_for_overwrite<std::byte[]>(n);
  message.creds = creds;
  if (n > 0) {
    // All or nothing; a packet cut by a fault is not sent.
    if (TRY(data.CopyIn(std::span(message.data.get(), n))) < n) return Err(EFAULT);
  }
  if (const std::shared_ptr<const bpf::Program> filter = target->filter()) {
    // Who sends does not hear of it; descriptors of a message that is lost are.
    const std::optional<size_t> kept = socket::RunFilter(*filter, std::span(message.data.get(), n));
    if (!kept) return n;
    message.end = *kept;
  }
  {
    sync::MutexLock lock(target->mu_);
    if (target->state_ == State::kClosed || target->receive_shutdown_) return Err(EPIPE);
    message.rights = std::move(rights);
    target->PushLocked(std::move(message));
  }
  target->events_.Notify(kReadable);
  return n;
}

Result<size_t> Endpoint::ReceiveStream(socket::InMessage& m, int flags, WantCreds want, socket::PeekOffset& offset) {
  const bool peek = flags & MSG_PEEK;
  fiber::MutexLock receiving(receive_mu_);
  size_t skip = offset.Begin(flags);  // of the bytes from `index` on
  size_t total = 0;
  size_t index = 0;  // of the message looked at: with MSG_PEEK they stay
  bool first = true;
  while (true) {
    const std::byte* from;
    size_t n;
    std::vector<File> files;  // dropped without the lock
    {
      sync::MutexLock lock(mu_);
      if (state_ != State::kConnected) return Err(EINVAL);
      while (index < queue_.size() && skip >= queue_[index].length()) skip -= queue_[index++].length();
      if (index >= queue_.size()) {
        if (total > 0 || m.data.empty()) break;
        if (error_ != 0) return Err(std::exchange(error_, 0));
        if (receive_shutdown_) break;
        return Err(EAGAIN);
      }
      Message& message = queue_[index];
      // Bytes of different senders are not mixed where the receiver wants to know who sent them.
      if (want == WantCreds::kYes) {
        if (!first && m.creds && *m.creds != message.creds) break;
        m.creds = message.creds;
      }
      first = false;
      from = message.data.get() + message.begin + skip;
      n = message.length() - skip;
      skip = 0;
    }
    if (m.data.empty()) break;
    Result<size_t> copied = m.data.CopyOut(std::span(from, std::min<size_t>(n, m.data.remaining())));
    if (!copied) {
      if (total > 0) break;
      return copied;
    }
    total += *copied;
    offset.Moved(*copied, flags);
    bool had_rights = false;
    bool taken_whole = false;
    RefPtr<Endpoint> sender;
    size_t left = 0;
    Message done;  // its buffer goes without the lock
    Rights landing;
    {
      sync::MutexLock lock(mu_);
      Message& message = queue_[index];
      had_rights = !message.rights.empty();
      if (peek) {
        files = message.rights.files();
        ++index;
        taken_whole = *copied == n;
      } else {
        landing = std::move(message.rights);
        message.begin += *copied;
        bytes_ -= *copied;
        taken_whole = message.begin == message.end;
        if (taken_whole) {
          done = PopLocked();
          sender = peer_;
          left = charged_;
        }
      }
    }
    TakeFiles(peek ? std::move(files) : landing.Land(), m);
    if (taken_whole && !peek) NotifySpace(std::move(sender), left);
    // Descriptors end what one call receives.
    if (had_rights || *copied < n || m.data.empty()) break;
  }
  return total;
}

Result<size_t> Endpoint::ReceivePacket(socket::InMessage& m, int flags, WantCreds want, socket::PeekOffset& offset) {
  const bool peek = flags & MSG_PEEK;
  fiber::MutexLock receiving(receive_mu_);
  size_t skip = 0;
  size_t index = 0;
  const std::byte* from;
  size_t length;
  {
    sync::MutexLock lock(mu_);
    if (connection_based() && state_ != State::kConnected) return Err(ENOTCONN);
    if (offset.Applies(flags)) {
      // Whole packets are passed over, an empty one if it was seen before.
      skip = offset.Begin(flags);
      while (index < queue_.size() && skip >= queue_[index].length() && (skip > 0 || queue_[index].peeked)) {
        skip -= queue_[index++].length();
      }
    }
    if (index >= queue_.size()) {
      if (error_ != 0) return Err(std::exchange(error_, 0));
      if (receive_shutdown_) return 0;
      return Err(EAGAIN);
    }
    Message& message = queue_[index];
    if (peek && message.length() == 0) message.peeked = true;
    from = message.data.get() + skip;
    length = message.length() - skip;
    if (want == WantCreds::kYes) m.creds = message.creds;
    if (m.want_from && !message.from.empty() && !connection_based()) m.from = FormatAddress(message.from);
  }
  const size_t n = std::min<size_t>(length, m.data.remaining());
  Result<size_t> copied = n > 0 ? m.data.CopyOut(std::span(from, n)) : Result<size_t>(0);
  if (copied && *copied < n) copied = Err(EFAULT);
  std::vector<File> files;
  Message done;
  RefPtr<Endpoint> sender;
  size_t left = 0;
  {
    sync::MutexLock lock(mu_);
    if (peek) {
      if (copied) files = queue_[index].rights.files();
    } else {
      // As on Linux a packet that could not be copied is lost.
      done = PopLocked();
      sender = peer_;
      left = charged_;
    }
  }
  if (!peek) {
    NotifySpace(std::move(sender), left);
    if (copied) files = done.rights.Land();
  }
  TRY(copied);
  offset.Moved(peek ? n : length, flags);
  TakeFiles(std::move(files), m);
  if (length > n) m.flags |= MSG_TRUNC;
  return flags & MSG_TRUNC ? length : n;
}

}  // namespace redoubt::unixsock
