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
    endpoint_->Disconnect();
    return {};
  }
  const netstack::SocketAddress peer = TRY(ParseAddress(family(), address));
  // The first answer says why a call that does not wait failed: just begun, or still going on. As in Linux that is so
  // even where, on the loopback, the handshake is complete already.
  Result<> first = endpoint_->Connect(peer);
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

Result<RefPtr<socket::Socket>> StreamSocket::Accept(const Caller& caller, int flags, fiber::Time deadline) {
  RefPtr<Endpoint> accepted = TRY(Wait(*this, waiter::kIn, deadline, [&] { return endpoint_->Accept(); }));
  RefPtr<StreamSocket> s =
      MakeRef<StreamSocket>(network_, socket::MakeSocketPath(caller.creds), family(), flags, std::move(accepted));
  s->InheritOptions(*this);
  return RefPtr<Socket>(std::move(s));
}

Result<size_t> StreamSocket::SendOnce(IoSequence& data, int flags) {
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
  // The last byte of the call is the urgent one.
  return endpoint_->Write(std::move(bytes),
                          {.more = (flags & MSG_MORE) != 0, .urgent = (flags & MSG_OOB) != 0 && data.empty()});
}

Result<size_t> StreamSocket::Send(const Caller&, socket::OutMessage& message, int flags, fiber::Time deadline) {
  if ((flags & MSG_FASTOPEN) != 0) return Err(EOPNOTSUPP);
  size_t total = 0;
  do {
    Result<size_t> n = Wait(*this, waiter::kOut, deadline, [&] { return SendOnce(message.data, flags); });
    if (!n) {
      if (total > 0) break;
      return n;
    }
    total += *n;
  } while (!message.data.empty());
  return total;
}

Result<size_t> StreamSocket::ReceiveOnce(IoSequence& data, int flags) {
  const bool peek = (flags & MSG_PEEK) != 0;
  const size_t wanted = data.remaining();
  if (wanted == 0) {
    TRY(endpoint_->Read(1, true));
    return size_t{0};
  }
  netstack::Buffer bytes = TRY(endpoint_->Read(wanted, peek));
  if ((flags & MSG_TRUNC) != 0) {  // tcp(7): thrown away
    data.DropFirst(bytes.size());
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
    return done;
  }
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
  if ((flags & MSG_ERRQUEUE) != 0) return Err(EAGAIN);
  if ((flags & MSG_OOB) != 0) return ReceiveUrgent(message, flags);
  const bool all = (flags & MSG_WAITALL) != 0 && (flags & MSG_PEEK) == 0;
  size_t total = 0;
  while (true) {
    Result<size_t> n =
        Wait(*this, waiter::kIn | waiter::kRdHup, deadline, [&] { return ReceiveOnce(message.data, flags); });
    if (!n) {
      if (total > 0) return total;
      return n;
    }
    total += *n;
    if (!all || *n == 0 || message.data.empty()) return total;
  }
}

Result<size_t> StreamSocket::Read(IoSequence& dst, vfs::IoFlags) {
  if (dst.empty()) return size_t{0};
  return ReceiveOnce(dst, 0);
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
