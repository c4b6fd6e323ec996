#include "pkg/sentry/socket/netlink/netlink_socket.h"

#include <linux/capability.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <utility>

namespace redoubt::netlink {

using socket::Caller;
using socket::OptionBytes;

namespace {

Result<sockaddr_nl> ParseAddress(socket::Address address) {
  sockaddr_nl a{};
  if (address.size() < sizeof(a)) return Err(EINVAL);
  std::memcpy(&a, address.data(), sizeof(a));
  if (a.nl_family != AF_NETLINK) return Err(EINVAL);
  return a;
}

socket::AddressBytes FormatAddress(uint32_t port, uint32_t groups) {
  sockaddr_nl a{};
  a.nl_family = AF_NETLINK;
  a.nl_pid = port;
  a.nl_groups = groups;
  return OptionBytes(a);
}

uint32_t FirstGroups(uint64_t groups) { return static_cast<uint32_t>(groups); }

}  // namespace

NetlinkSocket::NetlinkSocket(Protocol& protocol, int number, int type, const Caller& opener, int flags)
    : Socket(socket::MakeSocketPath(opener.creds), AF_NETLINK, type, number, flags),
      protocol_(protocol),
      opener_may_change_(opener.creds.HasCapability(CAP_NET_ADMIN)),
      port_(MakeRef<Port>()) {
  port_->set_limit(receive_buffer());
}

NetlinkSocket::~NetlinkSocket() { protocol_.ports().Remove(*port_); }

Result<> NetlinkSocket::EnsureNumber(uint32_t pid) {
  if (port_->number.load() != 0) return {};
  return protocol_.ports().Add(*port_, 0, pid);
}

Result<> NetlinkSocket::Bind(const Caller& caller, socket::Address address) {
  const sockaddr_nl a = TRY(ParseAddress(address));
  if (port_->number.load() != 0) {
    if (a.nl_pid != port_->number.load()) return Err(EINVAL);
  } else {
    TRY(protocol_.ports().Add(*port_, a.nl_pid, static_cast<uint32_t>(caller.pid_number())));
  }
  // The first 32 groups; those above are memberships of their own (NETLINK_ADD_MEMBERSHIP).
  const uint64_t known = protocol_.groups() >= 32 ? ~uint32_t{0} : (uint64_t{1} << protocol_.groups()) - 1;
  port_->groups.store((port_->groups.load() & ~uint64_t{0xffffffff}) | (a.nl_groups & known));
  return {};
}

Result<> NetlinkSocket::Connect(const Caller& caller, socket::Address address, fiber::Time) {
  uint16_t family = AF_NETLINK;
  if (address.size() < sizeof(family)) return Err(EINVAL);
  std::memcpy(&family, address.data(), sizeof(family));
  if (family == AF_UNSPEC) {
    peer_ = peer_groups_ = 0;
    return {};
  }
  const sockaddr_nl a = TRY(ParseAddress(address));
  if ((a.nl_pid != 0 || a.nl_groups != 0) && !caller.creds.HasCapability(CAP_NET_ADMIN)) return Err(EPERM);
  TRY(EnsureNumber(static_cast<uint32_t>(caller.pid_number())));
  peer_ = a.nl_pid;
  peer_groups_ = a.nl_groups;
  return {};
}

Result<size_t> NetlinkSocket::Send(const Caller& caller, socket::OutMessage& message, int flags, fiber::Time) {
  if ((flags & MSG_OOB) != 0) return Err(EOPNOTSUPP);
  uint32_t to = peer_.load(), groups = peer_groups_.load();
  if (!message.to.empty()) {
    const sockaddr_nl a = TRY(ParseAddress(message.to));
    to = a.nl_pid;
    groups = a.nl_groups;
  }
  if (to != 0 || groups != 0) {
    if (!caller.creds.HasCapability(CAP_NET_ADMIN)) return Err(EPERM);
    return Err(ECONNREFUSED);
  }
  return SendBytes(opener_may_change_ && caller.creds.HasCapability(CAP_NET_ADMIN),
                   static_cast<uint32_t>(caller.pid_number()), message.data);
}

Result<size_t> NetlinkSocket::SendBytes(bool may_change, uint32_t pid, IoSequence& data) {
  const size_t n = data.remaining();
  if (n > std::min<size_t>(kMaxSend, send_buffer())) return Err(EMSGSIZE);
  TRY(EnsureNumber(pid));
  std::vector<std::byte> bytes(n);
  if (n > 0 && TRY(data.CopyIn(bytes)) < n) return Err(EFAULT);
  Bytes rest(bytes);
  while (std::optional<Message> m = NextMessage(rest)) {
    // netlink(7): what is no request, and control messages, are passed over, yet acknowledged.
    Answer(may_change, *m);
  }
  return n;
}

void NetlinkSocket::Answer(bool may_change, const Message& message) {
  const nlmsghdr& h = message.header;
  Writer writer;
  Request request{.message = message,
                  .may_change = may_change,
                  .port = port_->number.load(),
                  .reply = writer,
                  .strict = on(NETLINK_GET_STRICT_CHK),
                  .explanation = {}};
  Result<> done;
  const bool asks = message.Has(NLM_F_REQUEST) && h.nlmsg_type >= NLMSG_MIN_TYPE;
  if (asks) done = protocol_.Handle(request);
  const bool explains = on(NETLINK_EXT_ACK);
  if (done && asks && request.is_dump()) {
    const int32_t zero = 0;
    writer.Begin(NLMSG_DONE, NLM_F_MULTI, h.nlmsg_seq, request.port, zero);
  } else if (!done || message.Has(NLM_F_ACK)) {
    if (!done) (void)writer.Take();  // nothing of a failed request is sent
    nlmsgerr error{.error = done ? 0 : -done.error().value(), .msg = h};
    const bool whole = !done && !on(NETLINK_CAP_ACK);
    const bool text = explains && !request.explanation.empty();
    uint16_t flags = whole ? 0 : NLM_F_CAPPED;
    if (text) flags |= NLM_F_ACK_TLVS;
    writer.Begin(NLMSG_ERROR, flags, h.nlmsg_seq, request.port, error);
    if (whole) writer.Put(message.payload);
    if (text) writer.Text(NLMSGERR_ATTR_MSG, request.explanation);
  }
  port_->Deliver(writer.Take(), 0);
}

Result<size_t> NetlinkSocket::Write(IoSequence& src, vfs::IoFlags) {
  // Whoever writes is not known here, only whoever has opened the socket; so it may ask and not change.
  return SendBytes(false, 0, src);
}

Result<size_t> NetlinkSocket::ReceiveOnce(socket::InMessage& message, int flags) {
  Datagram d = TRY(port_->Take((flags & MSG_PEEK) != 0));
  const size_t n = std::min<size_t>(d.bytes.size(), message.data.remaining());
  if (n > 0 && TRY(message.data.CopyOut(Bytes(d.bytes).first(n))) < n) return Err(EFAULT);
  if (message.want_from) {
    message.from = FormatAddress(0, d.group == 0 || d.group > 32 ? 0 : uint32_t{1} << (d.group - 1));
  }
  if (on(NETLINK_PKTINFO)) {
    message.control.push_back(
        {.level = SOL_NETLINK, .type = NETLINK_PKTINFO, .data = OptionBytes(nl_pktinfo{.group = d.group})});
  }
  if (option_on(SO_PASSCRED)) message.creds = socket::Identity{.uid = 0, .gid = 0};  // the kernel's
  if (d.bytes.size() > n) message.flags |= MSG_TRUNC;
  return (flags & MSG_TRUNC) != 0 ? d.bytes.size() : n;
}

Result<size_t> NetlinkSocket::Receive(socket::InMessage& message, int flags, fiber::Time deadline) {
  if ((flags & (MSG_OOB | MSG_ERRQUEUE)) != 0) return Err((flags & MSG_OOB) != 0 ? EOPNOTSUPP : EAGAIN);
  return socket::Blocking(*this, waiter::kIn | waiter::kErr, deadline, [&] { return ReceiveOnce(message, flags); });
}

Result<size_t> NetlinkSocket::Read(IoSequence& dst, vfs::IoFlags) {
  socket::InMessage message{.data = std::move(dst)};
  Result<size_t> n = ReceiveOnce(message, 0);
  dst = std::move(message.data);
  return n;
}

waiter::EventMask NetlinkSocket::Readiness(waiter::EventMask mask) {
  waiter::EventMask ready = waiter::kOut | waiter::kWrNorm;
  if (port_->Readable()) ready |= waiter::kIn | waiter::kRdNorm;
  return ready & mask;
}

Result<socket::AddressBytes> NetlinkSocket::LocalName() {
  return FormatAddress(port_->number.load(), FirstGroups(port_->groups.load()));
}

Result<socket::AddressBytes> NetlinkSocket::PeerName() { return FormatAddress(peer_.load(), peer_groups_.load()); }

Result<> NetlinkSocket::SetOption(const Caller& caller, int level, int name, std::span<const std::byte> value) {
  if (level != SOL_NETLINK) return Socket::SetOption(caller, level, name, value);
  const int v = TRY(socket::IntOption(value));
  switch (name) {
    case NETLINK_ADD_MEMBERSHIP:
    case NETLINK_DROP_MEMBERSHIP: {
      if (v <= 0 || static_cast<uint32_t>(v) > protocol_.groups()) return Err(EINVAL);
      const uint64_t bit = uint64_t{1} << (v - 1);
      if (name == NETLINK_ADD_MEMBERSHIP) {
        TRY(EnsureNumber(static_cast<uint32_t>(caller.pid_number())));
        port_->groups.fetch_or(bit);
      } else {
        port_->groups.fetch_and(~bit);
      }
      return {};
    }
    case NETLINK_NO_ENOBUFS:
      port_->no_enobufs = v != 0;
      break;
    case NETLINK_PKTINFO:
    case NETLINK_CAP_ACK:
    case NETLINK_EXT_ACK:
    case NETLINK_GET_STRICT_CHK:
    case NETLINK_BROADCAST_ERROR:
      break;
    default:
      return Err(ENOPROTOOPT);
  }
  if (v != 0) {
    options_.fetch_or(1u << name);
  } else {
    options_.fetch_and(~(1u << name));
  }
  return {};
}

Result<std::vector<std::byte>> NetlinkSocket::GetOption(const Caller& caller, int level, int name) {
  if (level != SOL_NETLINK) return Socket::GetOption(caller, level, name);
  switch (name) {
    case NETLINK_LIST_MEMBERSHIPS: {
      const uint64_t groups = port_->groups.load();
      std::vector<std::byte> bytes = OptionBytes(groups);
      bytes.resize((protocol_.groups() + 31) / 32 * 4);
      return bytes;
    }
    case NETLINK_PKTINFO:
    case NETLINK_NO_ENOBUFS:
    case NETLINK_CAP_ACK:
    case NETLINK_EXT_ACK:
    case NETLINK_GET_STRICT_CHK:
    case NETLINK_BROADCAST_ERROR:
      return OptionBytes(int{on(name)});
    default:
      return Err(ENOPROTOOPT);
  }
}

Result<uint64_t> NetlinkSocket::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  if (command != FIONREAD) return Socket::Ioctl(io, command, arg);
  TRY(io.CopyOutObject<int32_t>(arg, static_cast<int32_t>(port_->FirstSize())));
  return 0;
}

}  // namespace redoubt::netlink
