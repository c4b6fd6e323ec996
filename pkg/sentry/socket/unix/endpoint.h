// Private to unix: one end of a connection, a listener, or a datagram socket. Linux's struct unix_sock.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_UNIX_ENDPOINT_H_
#define REDOUBT_PKG_SENTRY_SOCKET_UNIX_ENDPOINT_H_

#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pkg/bpf/bpf.h"
#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/socket/unix/address.h"
#include "pkg/sentry/socket/unix/rights.h"
#include "pkg/sentry/socket/unix/unix.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::unixsock {

using socket::Identity;

// Held by its UnixSocket, by its peer, by the inode it is bound to and, until accepted, by a listener's queue. Ends
// with Close, when its UnixSocket ends; what else holds it then sees it closed.
//
// Locks: io_mu_ (fiber locks: one sender, one receiver at a time; guest memory is copied under them), then mu_ of this
// or of another endpoint, both only in the order of their addresses (connecting). Queues are notified with no lock
// held.
class Endpoint final : public RefCounted {
 public:
  Endpoint(int type, Identity creator) : type_(type), creator_(std::move(creator)) {}

  int type() const { return type_; }
  bool connection_based() const { return type_ != SOCK_DGRAM; }
  Name name() const EXCLUDES(mu_);
  // ENOTCONN.
  Result<Name> PeerName() const EXCLUDES(mu_);
  Identity PeerCredentials() const EXCLUDES(mu_);
  void SetName(Name name) EXCLUDES(mu_);
  // Which packets are received, and how much of them; null: all. Streams are not filtered.
  void SetFilter(std::shared_ptr<const bpf::Program> filter) EXCLUDES(filter_mu_);
  void SetSendLimit(uint32_t bytes) { send_limit_.store(bytes, std::memory_order_relaxed); }

  static void MakePair(Endpoint& a, Endpoint& b);
  Result<> Listen(int backlog, Identity listener) EXCLUDES(mu_);
  bool listening() const EXCLUDES(mu_);
  // EAGAIN: the listener's queue is full; wait for its space().
  Result<> Connect(Endpoint& listener, Identity client) EXCLUDES(mu_);
  // Of datagram sockets; null undoes it. EPERM if `peer` is connected to another.
  Result<> SetPeer(RefPtr<Endpoint> peer) EXCLUDES(mu_);
  Result<RefPtr<Endpoint>> Accept() EXCLUDES(mu_);

  // Some of a stream. EAGAIN: wait for events().
  Result<size_t> SendStream(IoSequence& data, Rights& rights, const Identity& creds);
  // A packet to `to`, null: to the peer. EAGAIN: wait for events() or, with `to`, for its space().
  Result<size_t> SendPacket(Endpoint* to, IoSequence& data, Rights& rights, const Identity& creds);
  enum class WantCreds { kNo, kYes };
  // `offset`: SO_PEEK_OFF of the receiver, which one call after the other moves.
  Result<size_t> ReceiveStream(socket::InMessage& message, int flags, WantCreds want, socket::PeekOffset& offset);
  Result<size_t> ReceivePacket(socket::InMessage& message, int flags, WantCreds want, socket::PeekOffset& offset);
  void Shutdown(int how) EXCLUDES(mu_);
  void Close() EXCLUDES(mu_);

  waiter::EventMask Readiness() EXCLUDES(mu_);
  waiter::Queue& events() { return events_; }
  waiter::Queue& space() { return space_; }
  int TakeError() EXCLUDES(mu_);
  // SIOCINQ, SIOCOUTQ; EINVAL of a listener.
  Result<size_t> Readable() const EXCLUDES(mu_);
  Result<size_t> Unread() const EXCLUDES(mu_);

  // The inode of the socket that this is of.
  void SetIno(uint64_t ino) { ino_.store(ino, std::memory_order_relaxed); }
  // All but the owner.
  void Describe(SocketInfo& info) const EXCLUDES(mu_);

  // For garbage collection.
  void ForEachQueued(const std::function<void(const Rights&)>& f) EXCLUDES(mu_);
  void TakeRights(std::vector<Rights>& out) EXCLUDES(mu_);

 private:
  enum class State { kUnconnected, kListening, kConnected, kClosed };
  struct Message {
    std::unique_ptr<std::byte[]> data;
    size_t capacity = 0;
    size_t begin = 0, end = 0;
    bool peeked = false;  // empty, and MSG_PEEK has shown it: with SO_PEEK_OFF it does so once
    Name from;
    Identity creds;
    Rights rights;
    size_t length() const { return end - begin; }
    size_t charge() const { return capacity + kOverhead; }
  };
  // Passes on that the peer of a datagram socket has room.
  class Relay final : public waiter::Entry {
   public:
    explicit Relay(Endpoint& to) : Entry(waiter::kOut), to_(to) {}
    void Notify(waiter::EventMask events) override { to_.events_.NotifyNested(waiter::kOut | waiter::kWrNorm); }

   private:
    Endpoint& to_;
  };

  static constexpr size_t kOverhead = 256;  // of a message's own memory
  static constexpr size_t kSmall = 4096;    // small pieces of a stream share a buffer of this size
  static constexpr size_t kStreamPiece = 64 << 10;
  static constexpr size_t kMaxPackets = 512;  // waiting at a datagram socket

  uint32_t send_limit() const { return send_limit_.load(std::memory_order_relaxed); }
  RefPtr<Endpoint> peer() const EXCLUDES(mu_);
  bool HasRoomForPacketLocked(const Endpoint& sender) const REQUIRES(mu_);
  std::shared_ptr<const bpf::Program> filter() EXCLUDES(filter_mu_);
  void PushLocked(Message message) REQUIRES(mu_);
  Message PopLocked() REQUIRES(mu_);
  // The peer has ended, or this never got accepted.
  void PeerClosed(bool reset) EXCLUDES(mu_);
  void Relayed(RefPtr<Endpoint> peer);
  void NotifySpace(RefPtr<Endpoint> sender, size_t still_queued);

  const int type_;
  const Identity creator_;
  std::atomic<uint32_t> send_limit_{socket::Socket::kDefaultBuffer};
  std::atomic<uint64_t> ino_{0};
  fiber::Mutex send_mu_, receive_mu_;
  mutable sync::Mutex mu_{sync::Rank::kSocket};
  State state_ GUARDED_BY(mu_) = State::kUnconnected;
  Name name_ GUARDED_BY(mu_);
  RefPtr<Endpoint> peer_ GUARDED_BY(mu_);
  Identity peer_creds_ GUARDED_BY(mu_);
  Identity listener_ GUARDED_BY(mu_);
  std::deque<Message> queue_ GUARDED_BY(mu_);  // popped from only under receive_mu_, or when nobody can receive
  size_t charged_ GUARDED_BY(mu_) = 0;         // of all messages
  size_t bytes_ GUARDED_BY(mu_) = 0;           // of data
  std::deque<RefPtr<Endpoint>> pending_ GUARDED_BY(mu_);  // of a listener: connected, not accepted
  size_t backlog_ GUARDED_BY(mu_) = 0;
  bool receive_shutdown_ GUARDED_BY(mu_) = false;
  bool send_shutdown_ GUARDED_BY(mu_) = false;
  int error_ GUARDED_BY(mu_) = 0;
  // Taken with the socket's own lock of filters held.
  sync::Mutex filter_mu_{sync::Rank::kLeaf};
  std::shared_ptr<const bpf::Program> filter_ GUARDED_BY(filter_mu_);
  waiter::Queue events_;  // of this endpoint
  waiter::Queue space_;   // kOut: there is room in the queue or the backlog, for those who are not connected
  fiber::Mutex relay_mu_;
  Relay relay_{*this};
  RefPtr<Endpoint> relayed_ GUARDED_BY(relay_mu_);
};

// What wait::Retry waits on for another endpoint's room.
struct SpaceOf {
  Endpoint& endpoint;
  void RegisterWaiter(waiter::Entry& entry) { endpoint.space().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) { endpoint.space().Unregister(entry); }
};

}  // namespace redoubt::unixsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_UNIX_ENDPOINT_H_
