#include "pkg/sentry/socket/inet/stream_socket.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <utility>

namespace redoubt::inetsock {

using netstack::tcp::Endpoint;
using netstack::tcp::State;
using socket::Caller;

StreamSocket::StreamSocket(Network& network, vfs::Path path, int family, int flags, RefPtr<Endpoint> endpoint)
    : InetSocket(network, std::move(path), family, SOCK_STREAM, IPPROTO_TCP, flags), endpoint_(std::move(endpoint)) {}

StreamSocket::~StreamSocket() {
  const linger l = linger_option();
  endpoint_->Close(l.l_onoff != 0 && l.l_linger == 0);
}

// As Linux: also where calls do not wait, and not longer than for the acknowledgement of the FIN; a signal, or the end
// of the process, ends it. Where another call still uses the socket, its end does not wait.
Result<> StreamSocket::OnClose() {
  const linger l = linger_option();
  if (l.l_onoff == 0 || l.l_linger == 0 || RefCount() != 1 || wait::CurrentSleeper() == nullptr) return {};
  endpoint_->Close();
  const fiber::Time until = fiber::Now() + int64_t{static_cast<uint32_t>(l.l_linger)} * netstack::kSecond;
  (void)wait::Retry(*this, waiter::kOut, until, [&]() -> Result<> {
    switch (endpoint_->state()) {
      case State::kFinWait1:
      case State::kClosing:
      case State::kLastAck:
        return Err(EAGAIN);
      default:
        return {};
    }
  });
  return {};
}

Result<> StreamSocket::Bind(const Caller& caller, socket::Address address) {
  const netstack::SocketAddress to = TRY(ParseAddress(family(), address));
  TRY(CheckPort(caller, to.port));
  return endpoint_->Bind(to);
}

Result<> StreamSocket::Listen(const Caller&, int backlog) {
  constexpr uint32_t kMaxBacklog = 4096;  // net.core.somaxconn
  // As Linux, a negative one is the largest.
  return endpoint_->Listen(std::min(static_cast<uint32_t>(backlog), kMaxBacklog));
}

Result<> StreamSocket::Connect(const Caller&, socket::Address address, fiber::Time deadline) {
  if (TRY(FamilyOf(address)) == AF_UNSPEC) {
    (void)TakePutOff();
    endpoint_->Disconnect();
    return {};
  }
  const netstack::SocketAddress peer = TRY(ParseAddress(family(), address));
  if (put_off_.load(std::memory_order_relaxed)) return Err(EISCONN);
  bool open = open_with_data_.load(std::memory_order_relaxed) && endpoint_->state() == State::kClosed;
  if (open) {
    Result<bool> known = endpoint_->KnowsOpenCookie(peer);
    open = known.has_value();
    if (open && *known) {
      sync::MutexLock lock(put_off_mu_);
      put_off_peer_ = peer;
      put_off_.store(true, std::memory_order_relaxed);
      return {};
    }
  }
  // The first answer says why a call that does not wait failed: just begun, or still going on. As in Linux that is so
  // even where, on the loopback, the handshake is complete already.
  return FinishConnect(peer, endpoint_->Connect(peer, open), deadline);
}

Result<> StreamSocket::FinishConnect(const netstack::SocketAddress& peer, Result<> first, fiber::Time deadline) {
  auto going_on = [](const Result<>& r) {
    return !r && (r.error() == Errno(EINPROGRESS) || r.error() == Errno(EALREADY));
  };
  if (!going_on(first) || deadline == socket::kNoWait) return first;
  Result<> done = Wait(*this, waiter::kOut, deadline, [&]() -> Result<> {
    Result<> r = endpoint_->Connect(peer);
    if (going_on(r)) return Err(EAGAIN);
    return r;
  });
  // socket(7): a connect that SO_SNDTIMEO ends goes on.
  if (!done && done.error() == Errno(EAGAIN)) return Err(EINPROGRESS);
  return done;
}

std::optional<netstack::SocketAddress> StreamSocket::TakePutOff() {
  if (!put_off_.load(std::memory_order_relaxed)) return std::nullopt;
  sync::MutexLock lock(put_off_mu_);
  if (!put_off_.exchange(false, std::memory_order_relaxed)) return std::nullopt;
  return put_off_peer_;
}

Result<size_t> StreamSocket::SendOpening(const netstack::SocketAddress& peer, IoSequence& data, fiber::Time deadline) {
  netstack::Buffer bytes;
  const size_t n = TRY(endpoint_->KnowsOpenCookie(peer)) ? std::min(data.remaining(), kOpening) : 0;
  if (n > 0) TRY(bytes.AppendFrom(n, [&](std::span<std::byte> to) { return data.CopyIn(to); }));
  const size_t taken = bytes.size();
  Result<> connected = FinishConnect(peer, endpoint_->Connect(peer, true, std::move(bytes)), deadline);
  if (!connected && (connected.error() != Errno(EINPROGRESS) || taken == 0)) return Err(connected.error());
  return taken;
}

Result<size_t> StreamSocket::Write(IoSequence& src, vfs::IoFlags) {
  if (std::optional<netstack::SocketAddress> peer = TakePutOff()) return SendOpening(*peer, src, socket::kNoWait);
  return SendOnce(src, 0, timestamping_.places(), socket::kNoWait);
}

waiter::EventMask StreamSocket::Readiness(waiter::EventMask mask) {
  if (put_off_.load(std::memory_order_relaxed)) return (waiter::kOut | waiter::kWrNorm) & mask;
  return (endpoint_->Readiness() | ZerocopyReadiness()) & mask;
}

Result<RefPtr<socket::Socket>> StreamSocket::Accept(const Caller& caller, int flags, fiber::Time deadline) {
  RefPtr<Endpoint> accepted = TRY(Wait(*this, waiter::kIn, deadline, [&] { return endpoint_->Accept(); }));
  RefPtr<StreamSocket> s =
      MakeRef<StreamSocket>(network_, socket::MakeSocketPath(caller.creds), family(), flags, std::move(accepted));
  s->InheritOptions(*this);
  s->timestamping_.Inherit(timestamping_);
  return RefPtr<Socket>(std::move(s));
}

Result<size_t> StreamSocket::SendOnce(IoSequence& data, int flags, netstack::StampPlaces stamps, fiber::Time deadline) {
  const size_t left = data.remaining();
  if (left == 0) {
    Result<size_t> room = endpoint_->WriteRoom();
    if (!room && room.error() != Errno(EAGAIN)) return room;
    return size_t{0};
  }
  const size_t wanted = std::min(left, kPiece);
  const size_t n = std::min(wanted, TRY(endpoint_->WriteRoom(wanted)));
  netstack::Buffer bytes;
  TRY(bytes.AppendFrom(n, [&](std::span<std::byte> to) { return data.CopyIn(to); }));
  // The last byte of the call is the urgent one, and the one to be stamped; the latter also where there is no room for
  // more and the call does not wait for it.
  const bool last = data.empty();
  return endpoint_->Write(std::move(bytes),
                          {.more = (flags & MSG_MORE) != 0,
                           .urgent = (flags & MSG_OOB) != 0 && last,
                           .stamps = last || (n < wanted && deadline == socket::kNoWait) ? stamps : uint8_t{0}});
}

Result<size_t> StreamSocket::Send(const Caller&, socket::OutMessage& message, int flags, fiber::Time deadline) {
  netstack::StampPlaces stamps = timestamping_.places();
  for (const socket::Control& c : message.control) {
    if (c.level == SOL_SOCKET) stamps = TRY(Timestamping::ParseControl(c));
  }
  size_t total = 0;
  std::optional<netstack::SocketAddress> opening = TakePutOff();
  if (!opening && (flags & MSG_FASTOPEN) != 0) {
    if (message.to.size() >= sizeof(sa_family_t) && TRY(FamilyOf(message.to)) == AF_UNSPEC) return Err(EOPNOTSUPP);
    opening = TRY(ParseAddress(family(), message.to));
  }
  if (opening) {
    total = TRY(SendOpening(*opening, message.data, deadline));
    if (message.data.empty() || deadline == socket::kNoWait) return total;
  }
  do {
    Result<size_t> n =
        Wait(*this, waiter::kOut, deadline, [&] { return SendOnce(message.data, flags, stamps, deadline); });
    if (!n) {
      if (total > 0) break;
      return n;
    }
    total += *n;
  } while (!message.data.empty());
  if (CompletesZerocopy(total, flags)) endpoint_->waiters().Notify(waiter::kErr);
  return total;
}

Result<size_t> StreamSocket::ReceiveOnce(IoSequence& data, int flags, netstack::tcp::ReadTime* time) {
  const bool peek = (flags & MSG_PEEK) != 0;
  const size_t wanted = data.remaining();
  if (wanted == 0) {
    TRY(endpoint_->Read(1, true));
    return size_t{0};
  }
  netstack::Buffer bytes = TRY(endpoint_->Read(wanted, peek, peek_offset_.Begin(flags), time));
  if ((flags & MSG_TRUNC) != 0) {  // tcp(7): thrown away
    data.DropFirst(bytes.size());
    peek_offset_.Moved(bytes.size(), flags);
    return bytes.size();
  }
  size_t done = 0;
  for (size_t i = 0; i < bytes.view_count(); ++i) {
    const std::span<const std::byte> view = bytes.view(i);
    Result<size_t> copied = data.CopyOut(view);
    done += copied.value_or(0);
    if (copied && *copied == view.size()) continue;
    // A bad address: what could not be delivered stays in the stream.
    if (!peek) {
      bytes.TrimFront(done);
      endpoint_->Unread(std::move(bytes));
    }
    if (done == 0) return Err(EFAULT);
    break;
  }
  peek_offset_.Moved(done, flags);
  return done;
}

Result<size_t> StreamSocket::ReceiveUrgent(socket::InMessage& message, int flags) {
  const std::byte byte = TRY(endpoint_->ReadUrgent((flags & MSG_PEEK) != 0));
  message.flags |= MSG_OOB;
  if (message.data.empty()) {
    message.flags |= MSG_TRUNC;
    return size_t{0};
  }
  return message.data.CopyOut(std::span(&byte, 1));
}

Result<size_t> StreamSocket::Receive(socket::InMessage& message, int flags, fiber::Time deadline) {
  if ((flags & MSG_ERRQUEUE) != 0) {
    const std::optional<netstack::Stamp> stamp = endpoint_->TakeStamp();
    return stamp ? timestamping_.AddSent(network_, family(), *stamp, message) : zerocopy_.Take(family(), message);
  }
  if ((flags & MSG_OOB) != 0) return ReceiveUrgent(message, flags);
  const bool all = (flags & MSG_WAITALL) != 0 && (flags & MSG_PEEK) == 0;
  netstack::tcp::ReadTime time;
  netstack::tcp::ReadTime* const noted = timestamping_.wants_received() ? &time : nullptr;
  size_t total = 0;
  while (true) {
    Result<size_t> n =
        Wait(*this, waiter::kIn | waiter::kRdHup, deadline, [&] { return ReceiveOnce(message.data, flags, noted); });
    if (!n && total == 0) return n;
    total += n.value_or(0);
    if (!n || !all || *n == 0 || message.data.empty()) break;
  }
  if (time.received) timestamping_.AddReceived(network_, *time.received, message);
  return total;
}

Result<size_t> StreamSocket::Read(IoSequence& dst, vfs::IoFlags) {
  if (dst.empty()) return size_t{0};
  return ReceiveOnce(dst, 0, nullptr);
}

Result<> StreamSocket::Shutdown(int how) {
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return Err(EINVAL);
  return endpoint_->Shutdown(how != SHUT_WR, how != SHUT_RD);
}

Result<socket::AddressBytes> StreamSocket::LocalName() {
  const netstack::SocketAddress a = endpoint_->local();
  return FormatAddress(family(), a.address, a.port, a.interface_index);
}

Result<socket::AddressBytes> StreamSocket::PeerName() {
  const std::optional<netstack::SocketAddress> a = endpoint_->peer();
  if (!a) return Err(ENOTCONN);
  return FormatAddress(family(), a->address, a->port, a->interface_index);
}

Result<size_t> StreamSocket::Readable() {
  if (IsListening()) return Err(EINVAL);
  return endpoint_->Readable();
}

Result<size_t> StreamSocket::Unsent() {
  if (IsListening()) return Err(EINVAL);
  return endpoint_->Unacknowledged();
}

Result<uint64_t> StreamSocket::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  switch (command) {
    case SIOCATMARK:
      TRY(io.CopyOutObject<int32_t>(arg, endpoint_->AtUrgentMark() ? 1 : 0));
      return 0;
    case SIOCOUTQNSD:
      TRY(io.CopyOutObject<int32_t>(arg, static_cast<int32_t>(endpoint_->Unsent())));
      return 0;
    default:
      return InetSocket::Ioctl(io, command, arg);
  }
}

}  // namespace redoubt::inetsock
