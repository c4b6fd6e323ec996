// Names, connections, shutdown, readiness.
#include "pkg/sentry/socket/unix/endpoint.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace redoubt::unixsock {

namespace {

// Both locks, in the order of their addresses.
class PairLock final {
 public:
  PairLock(sync::Mutex& a, sync::Mutex& b) NO_THREAD_SAFETY_ANALYSIS : first_(&a), second_(&b) {
    if (std::less<sync::Mutex*>()(second_, first_)) std::swap(first_, second_);
    first_->Lock();
    second_->LockNested();
  }
  ~PairLock() NO_THREAD_SAFETY_ANALYSIS {
    second_->Unlock();
    first_->Unlock();
  }

 private:
  sync::Mutex* first_;
  sync::Mutex* second_;
};

constexpr waiter::EventMask kReadable = waiter::kIn | waiter::kRdNorm;
constexpr waiter::EventMask kWritable = waiter::kOut | waiter::kWrNorm | waiter::kWrBand;
constexpr waiter::EventMask kEnded = kReadable | kWritable | waiter::kRdHup | waiter::kHup;

}  // namespace

Name Endpoint::name() const {
  sync::MutexLock lock(mu_);
  return name_;
}

void Endpoint::SetFilter(std::shared_ptr<const bpf::Program> filter) {
  sync::MutexLock lock(filter_mu_);
  filter_.swap(filter);
}

std::shared_ptr<const bpf::Program> Endpoint::filter() {
  sync::MutexLock lock(filter_mu_);
  return filter_;
}

void Endpoint::SetName(Name name) {
  sync::MutexLock lock(mu_);
  name_ = std::move(name);
}

RefPtr<Endpoint> Endpoint::peer() const {
  sync::MutexLock lock(mu_);
  return peer_;
}

Result<Name> Endpoint::PeerName() const {
  RefPtr<Endpoint> p = peer();
  if (!p) return Err(ENOTCONN);
  return p->name();
}

Identity Endpoint::PeerCredentials() const {
  sync::MutexLock lock(mu_);
  return peer_creds_;
}

void Endpoint::MakePair(Endpoint& a, Endpoint& b) NO_THREAD_SAFETY_ANALYSIS {
  PairLock lock(a.mu_, b.mu_);
  a.peer_ = RefPtr<Endpoint>(&b);
  b.peer_ = RefPtr<Endpoint>(&a);
  a.peer_creds_ = b.creator_;
  b.peer_creds_ = a.creator_;
  a.state_ = b.state_ = State::kConnected;
}

Result<> Endpoint::Listen(int backlog, Identity listener) {
  {
    sync::MutexLock lock(mu_);
    if (name_.empty()) return Err(EINVAL);
    if (state_ != State::kUnconnected && state_ != State::kListening) return Err(EINVAL);
    state_ = State::kListening;
    // SOMAXCONN of net.core.somaxconn; negative means as many as possible.
    backlog_ = std::min<uint32_t>(static_cast<uint32_t>(backlog), 4096);
    listener_ = listener;
  }
  space_.Notify(waiter::kOut);
  return {};
}

bool Endpoint::listening() const {
  sync::MutexLock lock(mu_);
  return state_ == State::kListening;
}

Result<> Endpoint::Connect(Endpoint& listener, Identity client) NO_THREAD_SAFETY_ANALYSIS {
  if (&listener == this) return Err(listening() ? EINVAL : ECONNREFUSED);
  if (listener.type_ != type_) return Err(EPROTOTYPE);
  RefPtr<Endpoint> server = MakeRef<Endpoint>(type_, client);
  {
    PairLock lock(mu_, listener.mu_);
    if (state_ == State::kConnected) return Err(EISCONN);
    if (state_ != State::kUnconnected) return Err(EINVAL);
    if (listener.state_ != State::kListening || listener.receive_shutdown_) return Err(ECONNREFUSED);
    if (listener.pending_.size() > listener.backlog_) return Err(EAGAIN);
    // Nobody else knows `server` yet, so its fields need no lock.
    server->name_ = listener.name_;
    server->peer_ = RefPtr<Endpoint>(this);
    server->peer_creds_ = client;
    server->state_ = State::kConnected;
    peer_ = server;
    peer_creds_ = listener.listener_;
    state_ = State::kConnected;
    listener.pending_.push_back(std::move(server));
  }
  listener.events_.Notify(kReadable);
  events_.Notify(kWritable);
  return {};
}

Result<RefPtr<Endpoint>> Endpoint::Accept() {
  RefPtr<Endpoint> accepted;
  {
    sync::MutexLock lock(mu_);
    if (state_ != State::kListening || receive_shutdown_) return Err(EINVAL);
    if (pending_.empty()) return Err(EAGAIN);
    accepted = std::move(pending_.front());
    pending_.pop_front();
  }
  space_.Notify(waiter::kOut);
  return accepted;
}

// Registered on the peer's queue while connected: its room is what poll of this socket asks about.
void Endpoint::Relayed(RefPtr<Endpoint> peer) {
  RefPtr<Endpoint> old;  // after the lock
  fiber::MutexLock lock(relay_mu_);
  if (relayed_) relayed_->space_.Unregister(relay_);
  old = std::exchange(relayed_, std::move(peer));
  if (relayed_) relayed_->space_.Register(relay_);
}

Result<> Endpoint::SetPeer(RefPtr<Endpoint> peer) {
  if (peer) {
    if (peer->type_ != type_) return Err(EPROTOTYPE);
    sync::MutexLock lock(peer->mu_);
    if (peer->state_ == State::kClosed) return Err(ECONNREFUSED);
    if (peer->peer_ && peer->peer_.get() != this) return Err(EPERM);
  }
  RefPtr<Endpoint> old;
  {
    sync::MutexLock lock(mu_);
    if (state_ == State::kClosed) return Err(EINVAL);
    old = std::exchange(peer_, peer);
    peer_creds_ = peer ? peer->creator_ : Identity();
    state_ = peer ? State::kConnected : State::kUnconnected;
  }
  Relayed(std::move(peer));
  events_.Notify(kWritable);
  return {};
}

void Endpoint::Shutdown(int how) {
  const bool receive = how == SHUT_RD || how == SHUT_RDWR;
  const bool send = how == SHUT_WR || how == SHUT_RDWR;
  RefPtr<Endpoint> other;
  {
    sync::MutexLock lock(mu_);
    receive_shutdown_ |= receive;
    send_shutdown_ |= send;
    if (connection_based()) other = peer_;
  }
  events_.Notify(kEnded);
  space_.Notify(waiter::kOut);
  if (!other) return;
  {
    sync::MutexLock lock(other->mu_);
    other->receive_shutdown_ |= send;
    other->send_shutdown_ |= receive;
  }
  other->events_.Notify(kEnded);
}

void Endpoint::PeerClosed(bool reset) {
  {
    sync::MutexLock lock(mu_);
    receive_shutdown_ = send_shutdown_ = true;
    if (reset) error_ = ECONNRESET;
  }
  events_.Notify(kEnded | (reset ? waiter::kErr : 0));
}

void Endpoint::Close() {
  RefPtr<Endpoint> peer;
  std::deque<Message> queue;
  std::deque<RefPtr<Endpoint>> pending;
  bool embryo_or_unread;
  {
    sync::MutexLock lock(mu_);
    if (state_ == State::kClosed) return;
    state_ = State::kClosed;
    receive_shutdown_ = send_shutdown_ = true;
    peer.reset();
    std::swap(peer, peer_);
    queue.swap(queue_);
    pending.swap(pending_);
    charged_ = bytes_ = 0;
    embryo_or_unread = !queue.empty();
  }
  if (type_ == SOCK_DGRAM) Relayed(nullptr);
  events_.Notify(kEnded);
  // Senders of datagrams and connecting sockets that wait for room find out that there will be none.
  space_.Notify(waiter::kOut);
  if (peer && connection_based()) peer->PeerClosed(embryo_or_unread);
  for (const RefPtr<Endpoint>& p : pending) {
    if (RefPtr<Endpoint> client = p->peer()) client->PeerClosed(true);
    p->Close();
  }
}

waiter::EventMask Endpoint::Readiness() {
  waiter::EventMask ready = 0;
  RefPtr<Endpoint> to;
  {
    sync::MutexLock lock(mu_);
    if (error_ != 0) ready |= waiter::kErr;
    if (receive_shutdown_ && send_shutdown_) ready |= waiter::kHup;
    if (receive_shutdown_) ready |= waiter::kRdHup | kReadable;
    if (!queue_.empty() || !pending_.empty()) ready |= kReadable;
    if (connection_based() && (state_ == State::kUnconnected || state_ == State::kClosed)) ready |= waiter::kHup;
    if (state_ == State::kListening) return ready;
    to = peer_;
  }
  if (!to) return ready | kWritable;
  sync::MutexLock lock(to->mu_);
  const bool writable = connection_based() ? to->charged_ * 4 <= send_limit()  // Linux's unix_writable
                                           : to->HasRoomForPacketLocked(*this);
  return writable ? ready | kWritable : ready;
}

int Endpoint::TakeError() {
  sync::MutexLock lock(mu_);
  return std::exchange(error_, 0);
}

Result<size_t> Endpoint::Readable() const {
  sync::MutexLock lock(mu_);
  if (state_ == State::kListening) return Err(EINVAL);
  if (connection_based()) return bytes_;
  return queue_.empty() ? 0 : queue_.front().length();
}

Result<size_t> Endpoint::Unread() const {
  if (listening()) return Err(EINVAL);
  RefPtr<Endpoint> to = peer();
  if (!to || !connection_based()) return 0;
  sync::MutexLock lock(to->mu_);
  return to->bytes_;
}

void Endpoint::ForEachQueued(const std::function<void(const Rights&)>& f) {
  std::vector<RefPtr<Endpoint>> pending;
  {
    sync::MutexLock lock(mu_);
    for (const Message& m : queue_) {
      if (!m.rights.empty()) f(m.rights);
    }
    pending.assign(pending_.begin(), pending_.end());
  }
  for (const RefPtr<Endpoint>& p : pending) p->ForEachQueued(f);
}

void Endpoint::TakeRights(std::vector<Rights>& out) {
  std::vector<RefPtr<Endpoint>> pending;
  {
    sync::MutexLock lock(mu_);
    for (Message& m : queue_) {
      if (!m.rights.empty()) out.push_back(std::move(m.rights));
    }
    pending.assign(pending_.begin(), pending_.end());
  }
  for (const RefPtr<Endpoint>& p : pending) p->TakeRights(out);
}

}  // namespace redoubt::unixsock
