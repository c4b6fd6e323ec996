#include "runsc/boot/control_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>

#include "pkg/log/log.h"

namespace redoubt::boot {
namespace {

constexpr uint64_t kListenerId = 0;
constexpr uint64_t kWakeId = ~uint64_t{0};
constexpr uint32_t kForRequests = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;
constexpr uint32_t kForTheEnd = EPOLLRDHUP | EPOLLONESHOT;
// When there were no descriptors left: looked at again after so many ms, if no connection was closed before.
constexpr int kRetry = 100;

}  // namespace

void Peer::Reply(const control::Reply& reply) {
  Result<> sent = connection_.Send(control::Serialize(reply));
  if (!sent && sent.error() == Errno(E2BIG)) {
    sent = connection_.Send(control::Serialize(control::Reply{.error = "the answer is too long to be sent"}));
  }
  if (!sent) {
    LOG_INFO("control: an answer could not be sent: {}", sent.error().name());
    server_.Close(*this);
    return;
  }
  server_.Resume(*this);
}

void Peer::Attach(OnSignal on_signal, Gone gone) {
  sync::MutexLock lock(server_.mu_);
  attached_ = true;
  on_signal_ = std::move(on_signal);
  gone_ = std::move(gone);
  server_.ListenLocked();
}

void Peer::AnswersLater(Gone gone) {
  sync::MutexLock lock(server_.mu_);
  // It may have been answered meanwhile.
  if (state_ != State::kBusy) return;
  state_ = State::kLater;
  gone_ = std::move(gone);
  server_.Watch(*this, kForTheEnd, false);
  server_.ListenLocked();
}

void Peer::Finish(const control::Reply& reply) {
  if (Result<> sent = connection_.Send(control::Serialize(reply)); !sent) {
    LOG_INFO("control: an end could not be told of: {}", sent.error().name());
  }
  sync::MutexLock lock(server_.mu_);
  gone_ = nullptr;
  server_.CloseLocked(*this);
}

ControlServer::ControlServer(fiber::Executor& executor, UniqueFd listener, Handler handler)
    : executor_(executor),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      listener_(std::move(listener)),
      handler_(std::move(handler)) {
  CHECK(epoll_ && wake_, "no descriptor for the control server");
  epoll_event woken{.events = EPOLLIN, .data = {.u64 = kWakeId}};
  CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &woken) == 0);
  if (!listener_) return;
  // accept(2) would wait if whoever came has left again.
  fcntl(listener_.get(), F_SETFL, O_NONBLOCK);
  epoll_event event{.events = 0, .data = {.u64 = kListenerId}};
  CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), &event) == 0);
  sync::MutexLock lock(mu_);
  ListenLocked();
}

RefPtr<Peer> ControlServer::Add(control::Connection connection, Peer::Gone gone) {
  sync::MutexLock lock(mu_);
  RefPtr<Peer> peer(new Peer(*this, std::move(connection), next_id_++));
  peer->gone_ = std::move(gone);
  peers_[peer->id_] = peer;
  Watch(*peer, kForRequests, true);
  return peer;
}

void ControlServer::Watch(Peer& peer, uint32_t events, bool fresh) {
  epoll_event event{.events = events, .data = {.u64 = peer.id_}};
  if (epoll_ctl(epoll_.get(), fresh ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, peer.connection_.fd(), &event) != 0) {
    LOG_WARNING("control: epoll_ctl: {}", Errno(errno).name());
    CloseLocked(peer);
  }
}

void ControlServer::CloseLocked(Peer& peer) {
  if (peer.state_ == Peer::State::kClosed) return;
  peer.state_ = Peer::State::kClosed;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, peer.connection_.fd(), nullptr);
  // The other end sees it now, whoever holds this one. What it had sent is thrown away: a socket that is closed with
  // something unread makes its peer lose what he has not read yet (ECONNRESET).
  shutdown(peer.connection_.fd(), SHUT_RDWR);
  char byte = 0;
  while (read(peer.connection_.fd(), &byte, 1) > 0) {
  }
  if (peer.gone_) {
    gone_.push_back(std::exchange(peer.gone_, nullptr));
    eventfd_write(wake_.get(), 1);
  }
  peer.on_signal_ = nullptr;
  peers_.erase(peer.id_);
  ListenLocked();
}

void ControlServer::Close(Peer& peer) {
  RefPtr<Peer> keep(&peer);
  sync::MutexLock lock(mu_);
  CloseLocked(peer);
}

void ControlServer::Resume(Peer& peer) {
  RefPtr<Peer> keep(&peer);
  sync::MutexLock lock(mu_);
  if (peer.state_ == Peer::State::kClosed) return;
  if (!peer.attached_) peer.gone_ = nullptr;
  peer.state_ = Peer::State::kIdle;
  peer.used_ = ++requests_;
  Watch(peer, kForRequests, false);
  ListenLocked();
}

bool ControlServer::MakeRoomLocked() {
  if (peers_.size() >= kMaxPeers) return false;
  size_t others = 0;
  Peer* oldest = nullptr;
  for (auto& [id, peer] : peers_) {
    if (!IsOther(*peer)) continue;
    others++;
    if (peer->state_ == Peer::State::kIdle && (oldest == nullptr || peer->used_ < oldest->used_)) oldest = peer.get();
  }
  if (others < kMaxOthers) return true;
  if (oldest == nullptr) return false;
  RefPtr<Peer> keep(oldest);
  CloseLocked(*oldest);
  return true;
}

void ControlServer::ListenLocked() {
  if (!listener_ || listening_) return;
  listening_ = true;
  epoll_event event{.events = EPOLLIN, .data = {.u64 = kListenerId}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.get(), &event);
}

void ControlServer::Accept() {
  RefPtr<Peer> peer;
  sync::MutexLock lock(mu_);
  bool full = !MakeRoomLocked();
  if (!full) {
    UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) {
      peer = RefPtr<Peer>(new Peer(*this, control::Connection(std::move(socket)), next_id_++));
      peer->used_ = ++requests_;
      peers_[peer->id_] = peer;
      Watch(*peer, kForRequests, true);
      return;
    }
    full = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
  }
  if (!full) return;
  listening_ = false;
  epoll_event event{.events = 0, .data = {.u64 = kListenerId}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.get(), &event);
}

void ControlServer::Receive(uint64_t id, uint32_t events) {
  RefPtr<Peer> peer;
  Peer::OnSignal on_signal;
  {
    sync::MutexLock lock(mu_);
    auto it = peers_.find(id);
    if (it == peers_.end()) return;
    peer = it->second;
    // Its answer is still to come, and it does not wait for it.
    if (peer->state_ == Peer::State::kLater) {
      CloseLocked(*peer);
      return;
    }
    if (peer->state_ != Peer::State::kIdle) return;
    peer->state_ = Peer::State::kBusy;
    on_signal = peer->on_signal_;
  }
  Result<control::Packet> packet = peer->connection_.Receive(MSG_DONTWAIT);
  if (!packet && packet.error() == Errno(EAGAIN)) {
    Resume(*peer);
    return;
  }
  Result<control::Request> request = packet ? control::ParseRequest(packet->bytes) : Err(packet.error());
  // A process's connection carries signals only.
  if (request && on_signal && request->method != control::Method::kSignal) request = Err(EBADMSG);
  if (!request) {
    if (request.error() != Errno(ENOTCONN)) LOG_INFO("control: a connection is closed: {}", request.error().name());
    Close(*peer);
    return;
  }
  auto fds = std::make_shared<std::vector<UniqueFd>>(std::move(packet->fds));
  auto shared = std::make_shared<control::Request>(std::move(*request));
  if (on_signal) {
    executor_.Spawn([this, peer, shared, on_signal] {
      on_signal(*shared);
      Resume(*peer);
    });
    return;
  }
  executor_.Spawn([this, peer, shared, fds] { handler_(peer, std::move(*shared), std::move(*fds)); });
}

void ControlServer::TellOfTheGone() {
  eventfd_t count = 0;
  eventfd_read(wake_.get(), &count);
  std::vector<Peer::Gone> gone;
  {
    sync::MutexLock lock(mu_);
    gone.swap(gone_);
  }
  for (Peer::Gone& f : gone) executor_.Spawn(std::move(f));
}

void ControlServer::Run() {
  epoll_event events[16];
  while (true) {
    int timeout = -1;
    {
      sync::MutexLock lock(mu_);
      if (listener_ && !listening_) timeout = kRetry;
    }
    int n = epoll_wait(epoll_.get(), events, 16, timeout);
    if (n == 0) {
      sync::MutexLock lock(mu_);
      ListenLocked();
    }
    for (int i = 0; i < n; i++) {
      if (events[i].data.u64 == kListenerId) {
        Accept();
      } else if (events[i].data.u64 == kWakeId) {
        TellOfTheGone();
      } else {
        Receive(events[i].data.u64, events[i].events);
      }
    }
  }
}

}  // namespace redoubt::boot
