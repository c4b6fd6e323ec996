#include "pkg/sentry/socket/hostinet/host_socket.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <utility>

#include "pkg/sentry/fsimpl/host/poller.h"
#include "pkg/sentry/socket/hostinet/options.h"
#include "pkg/sentry/socket/hostinet/piece.h"

namespace redoubt::hostinet {

using socket::Caller;

namespace {

constexpr size_t kMaxDatagram = 0xffff;  // udp(7); longer ones are EMSGSIZE there too
constexpr size_t kMinIpv6 = 24;          // RFC 2133's sockaddr_in6, without the scope

constexpr int kSendFlags = MSG_OOB | MSG_MORE | MSG_EOR | MSG_CONFIRM | MSG_DONTROUTE;
constexpr int kReceiveFlags = MSG_OOB | MSG_PEEK | MSG_TRUNC | MSG_ERRQUEUE;
constexpr int kFlagsToGuest = MSG_OOB | MSG_EOR | MSG_TRUNC | MSG_ERRQUEUE;

constexpr waiter::EventMask kEnds = waiter::kErr | waiter::kHup;

}  // namespace

Result<RefPtr<HostSocket>> HostSocket::Make(const Caller& caller, Descriptor descriptor, int family, int type,
                                            int protocol, int flags) {
  RefPtr<HostSocket> s(
      new HostSocket(socket::MakeSocketPath(caller.creds), std::move(descriptor), family, type, protocol, flags));
  s->poll_id_ = host::Poller::Get().Add(s->descriptor_.fd(), s->queue_);
  // The host's fs.epoll.max_user_watches: nobody would ever be told.
  if (s->poll_id_ == 0) return Err(ENOBUFS);
  return s;
}

HostSocket::HostSocket(vfs::Path path, Descriptor descriptor, int family, int type, int protocol, int flags)
    : Socket(std::move(path), family, type, protocol, flags), descriptor_(std::move(descriptor)) {}

HostSocket::~HostSocket() { host::Poller::Get().Remove(poll_id_, descriptor_.fd()); }

Result<> HostSocket::CheckAddress(socket::Address address) const {
  sa_family_t given;
  if (address.size() < sizeof(given)) return Err(EINVAL);
  std::memcpy(&given, address.data(), sizeof(given));
  if (given == AF_UNSPEC || given == AF_INET || given == AF_INET6) return {};
  if (address.size() < (family() == AF_INET ? sizeof(sockaddr_in) : kMinIpv6)) return Err(EINVAL);
  return Err(EAFNOSUPPORT);
}

Result<> HostSocket::Bind(const Caller&, socket::Address address) {
  TRY(CheckAddress(address));
  return descriptor_.Bind(address);
}

Result<> HostSocket::Listen(const Caller&, int backlog) { return descriptor_.Listen(backlog); }

Result<> HostSocket::Connect(const Caller&, socket::Address address, fiber::Time deadline) {
  TRY(CheckAddress(address));
  // The first answer is that of a call that does not wait.
  Result<> first = descriptor_.Connect(address);
  auto going_on = [](const Result<>& r) {
    return !r && (r.error() == Errno(EINPROGRESS) || r.error() == Errno(EALREADY));
  };
  if (!going_on(first) || deadline == socket::kNoWait) return first;
  // Asked again, the host says how it ended, once.
  Result<> done = socket::Wait(*this, waiter::kOut, deadline, [&]() -> Result<> {
    Result<> r = descriptor_.Connect(address);
    if (going_on(r)) return Err(EAGAIN);
    return r;
  });
  // socket(7): a connect that SO_SNDTIMEO ends goes on.
  if (!done && done.error() == Errno(EAGAIN)) return Err(EINPROGRESS);
  return done;
}

Result<RefPtr<socket::Socket>> HostSocket::Accept(const Caller& caller, int flags, fiber::Time deadline) {
  Descriptor accepted = TRY(socket::Wait(*this, waiter::kIn, deadline, [&] { return descriptor_.Accept(); }));
  RefPtr<HostSocket> s = TRY(Make(caller, std::move(accepted), family(), type(), protocol(), flags));
  s->InheritOptions(*this);
  s->low_water_.store(low_water_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  return RefPtr<Socket>(std::move(s));
}

Result<size_t> HostSocket::SendOnce(IoSequence& data, socket::Address to, std::span<const std::byte> control,
                                    int flags) {
  const size_t left = data.remaining();
  if (!is_stream() && left > kMaxDatagram) return Err(EMSGSIZE);
  if (full_.load(std::memory_order_relaxed) && descriptor_.Poll(waiter::kOut) == 0) return Err(EAGAIN);
  Piece piece(std::min(left, Piece::kMost));
  IoSequence part = data.First(piece.bytes().size());
  const size_t n = TRY(part.CopyIn(piece.bytes()));
  if (n < piece.bytes().size() && !is_stream()) return Err(EFAULT);
  // The last byte of the call is the urgent one.
  if (n < left) flags &= ~MSG_OOB;
  Result<size_t> sent = descriptor_.Send(piece.bytes().first(n), to, control, flags);
  full_.store(!sent && sent.error() == Errno(EAGAIN), std::memory_order_relaxed);
  if (sent) data.DropFirst(*sent);
  return sent;
}

Result<size_t> HostSocket::Send(const Caller&, socket::OutMessage& message, int flags, fiber::Time deadline) {
  if ((flags & MSG_FASTOPEN) != 0) return Err(EOPNOTSUPP);
  if (!message.to.empty()) TRY(CheckAddress(message.to));
  // Stamps of what is sent are the Sentry's own stack's (SO_TIMESTAMPING).
  for (const socket::Control& c : message.control) {
    if (c.level == SOL_SOCKET) return Err(EINVAL);
  }
  std::vector<std::byte> control;
  if (!is_stream()) control = TRY(EncodeControl(family(), message.control));
  const int host_flags = flags & kSendFlags;
  size_t total = 0;
  do {
    Result<size_t> n = socket::Wait(*this, waiter::kOut, deadline,
                                    [&] { return SendOnce(message.data, message.to, control, host_flags); });
    if (!n) {
      if (total > 0) break;
      return n;
    }
    total += *n;
  } while (is_stream() && !message.data.empty());
  if (total > 0 && (flags & MSG_ZEROCOPY) != 0 && option_on(SO_ZEROCOPY)) {
    zerocopy_.Count();
    queue_.Notify(waiter::kErr);
  }
  return total;
}

Result<size_t> HostSocket::Write(IoSequence& src, vfs::IoFlags) { return SendOnce(src, {}, {}, 0); }

Result<size_t> HostSocket::TakeUnread(socket::InMessage& message, int flags) {
  const size_t n = std::min<size_t>(unread_.size(), message.data.remaining());
  size_t taken = n;
  if ((flags & MSG_TRUNC) != 0) {  // tcp(7): thrown away
    message.data.DropFirst(n);
  } else {
    taken = TRY(message.data.CopyOut(std::span(unread_).first(n)));
  }
  if ((flags & MSG_PEEK) == 0) {
    unread_.erase(unread_.begin(), unread_.begin() + static_cast<ptrdiff_t>(taken));
    unread_size_.store(unread_.size(), std::memory_order_release);
  }
  return taken;
}

Result<size_t> HostSocket::ReceiveOnce(socket::InMessage& message, int flags, bool waits) {
  fiber::MutexLock lock(receive_mu_);
  const size_t wanted = message.data.remaining();
  if (!unread_.empty() && (flags & (MSG_OOB | MSG_ERRQUEUE)) == 0) return TakeUnread(message, flags);
  // The host's calls, which do not wait, do not heed it.
  const auto low_water = static_cast<size_t>(low_water_.load(std::memory_order_relaxed));
  if (is_stream() && waits && low_water > 1 && wanted >= low_water &&
      descriptor_.Poll(waiter::kIn | waiter::kRdHup) == 0) {
    return Err(EAGAIN);
  }
  Piece piece(std::min(wanted, Piece::kMost));
  const std::span<std::byte> bytes = piece.bytes();
  Descriptor::Received got = TRY(descriptor_.Receive(bytes, flags));
  message.flags |= got.flags & kFlagsToGuest;
  if (message.want_from) message.from = std::move(got.from);
  message.control = DecodeControl(got.control);
  if (is_stream() && (flags & MSG_TRUNC) != 0 && (flags & MSG_ERRQUEUE) == 0) {  // tcp(7): thrown away
    message.data.DropFirst(got.bytes);
    return got.bytes;
  }
  const size_t n = std::min(got.bytes, bytes.size());
  Result<size_t> copied = n > 0 ? message.data.CopyOut(bytes.first(n)) : Result<size_t>(size_t{0});
  if (copied && *copied == n) return got.bytes;
  // A bad address. As on Linux a datagram is lost then, and of a stream nothing.
  if (!is_stream()) return Err(EFAULT);
  const size_t delivered = copied.value_or(0);
  if ((flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)) == 0) {
    unread_.assign(bytes.begin() + static_cast<ptrdiff_t>(delivered), bytes.begin() + static_cast<ptrdiff_t>(n));
    unread_size_.store(unread_.size(), std::memory_order_release);
    queue_.Notify(waiter::kIn | waiter::kRdNorm);
  }
  if (delivered == 0) return Err(EFAULT);
  return delivered;
}

Result<size_t> HostSocket::Receive(socket::InMessage& message, int flags, fiber::Time deadline) {
  const int host_flags = flags & kReceiveFlags;
  if ((flags & MSG_ERRQUEUE) != 0 && zerocopy_.pending()) return zerocopy_.Take(family(), message);
  // Neither waits, whatever the socket's flags are (tcp(7), "Out-of-band data"; recv(2)).
  if ((flags & (MSG_OOB | MSG_ERRQUEUE)) != 0) return ReceiveOnce(message, host_flags, false);
  const bool all = is_stream() && (flags & MSG_WAITALL) != 0 && (flags & MSG_PEEK) == 0;
  const bool waits = deadline != socket::kNoWait;
  size_t total = 0;
  while (true) {
    Result<size_t> n = socket::Wait(*this, waiter::kIn | waiter::kRdHup, deadline,
                                    [&] { return ReceiveOnce(message, host_flags, waits); });
    if (!n) {
      if (total > 0) return total;
      return n;
    }
    total += *n;
    if (!all || *n == 0 || message.data.empty()) return total;
  }
}

Result<size_t> HostSocket::Read(IoSequence& dst, vfs::IoFlags) {
  if (dst.empty()) return size_t{0};
  socket::InMessage message{.data = std::move(dst)};
  Result<size_t> n = ReceiveOnce(message, 0, !nonblocking());
  dst = std::move(message.data);
  return n;
}

Result<> HostSocket::Shutdown(int how) {
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return Err(EINVAL);
  return descriptor_.Shutdown(how);
}

Result<> HostSocket::SetOption(const Caller& caller, int level, int name, std::span<const std::byte> value) {
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_RCVTIMEO:
      case SO_SNDTIMEO:
      case SO_DEBUG:
      case SO_PASSCRED:
      case SO_PASSSEC:
      case SO_BSDCOMPAT:
      case SO_BUSY_POLL:
      case SO_INCOMING_CPU:
      // Data is copied into the Sentry whatever MSG_ZEROCOPY says, as in its own network.
      case SO_ZEROCOPY:
        return Socket::SetOption(caller, level, name, value);
      case SO_LINGER: {
        TRY(Socket::SetOption(caller, level, name, value));
        // With a time, close(2) would wait for it, with all that this thread has to do.
        const linger asked = linger_option();
        const linger host{.l_onoff = asked.l_onoff != 0 && asked.l_linger == 0, .l_linger = 0};
        return descriptor_.SetOption(level, name, std::as_bytes(std::span(&host, 1)));
      }
      case SO_SNDBUFFORCE:
      case SO_RCVBUFFORCE:
      case SO_MARK:
        return Err(EPERM);  // of the host's CAP_NET_ADMIN, which there is none of
      default:
        break;
    }
  }
  const Option* option = FindOption(level, name);
  if (option == nullptr || option->most == 0) return Err(ENOPROTOOPT);
  if (value.size() < option->least) return Err(EINVAL);
  value = value.first(std::min<size_t>(value.size(), option->most));
  TRY(descriptor_.SetOption(level, name, value));
  if (level == SOL_SOCKET && name == SO_RCVLOWAT) {
    const int n = TRY(socket::IntOption(value));
    low_water_.store(n < 0 ? INT_MAX : std::max(n, 1), std::memory_order_relaxed);
  }
  return {};
}

Result<std::vector<std::byte>> HostSocket::GetOption(const Caller& caller, int level, int name) {
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_TYPE:
      case SO_DOMAIN:
      case SO_PROTOCOL:
      case SO_RCVTIMEO:
      case SO_SNDTIMEO:
      case SO_LINGER:
      case SO_DEBUG:
      case SO_PASSCRED:
      case SO_PASSSEC:
      case SO_BSDCOMPAT:
      case SO_BUSY_POLL:
      case SO_COOKIE:
      case SO_PEERCRED:
      case SO_ZEROCOPY:
      case SO_MARK:
        return Socket::GetOption(caller, level, name);
      default:
        break;
    }
  }
  const Option* option = FindOption(level, name);
  if (option == nullptr || option->got == 0) return Err(ENOPROTOOPT);
  std::vector<std::byte> value(option->got);
  value.resize(TRY(descriptor_.GetOption(level, name, value)));
  return value;
}

Result<uint64_t> HostSocket::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  switch (command) {
    case FIONREAD:
    case SIOCOUTQ:
    case SIOCOUTQNSD:
    case SIOCATMARK:
      break;
    default:
      return Socket::Ioctl(io, command, arg);
  }
  int32_t value = TRY(descriptor_.IntIoctl(command));
  if (command == FIONREAD) value += static_cast<int32_t>(unread_size_.load(std::memory_order_acquire));
  TRY(io.CopyOutObject<int32_t>(arg, value));
  return 0;
}

waiter::EventMask HostSocket::Readiness(waiter::EventMask mask) {
  waiter::EventMask ready = descriptor_.Poll(mask);
  if (zerocopy_.pending()) ready |= waiter::kErr;
  if (unread_size_.load(std::memory_order_acquire) > 0) ready |= waiter::kIn | waiter::kRdNorm;
  return ready & (mask | kEnds);
}

}  // namespace redoubt::hostinet
