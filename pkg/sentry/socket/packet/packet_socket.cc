#include "pkg/sentry/socket/packet/packet_socket.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <utility>

#include "pkg/sentry/memmap/mmap_options.h"
#include "pkg/sentry/socket/inet/payload.h"
#include "pkg/sentry/socket/packet/link_address.h"

namespace redoubt::packetsock {

using netstack::LinkAddress;
using netstack::PacketEndpoint;
using netstack::PacketPtr;
using socket::Caller;
using socket::OptionBytes;

namespace {

constexpr size_t kHeadroom = 64;  // for a link's header

PacketEndpoint::Kind KindOf(int type) {
  return type == SOCK_RAW ? PacketEndpoint::Kind::kRaw : PacketEndpoint::Kind::kCooked;
}

}  // namespace

// `protocol`: in the network's byte order, as packet(7) has it.
PacketSocket::PacketSocket(inetsock::Network& network, pgalloc::MemoryFile& memory_file, vfs::Path path, int type,
                           int protocol, int flags)
    : Socket(std::move(path), AF_PACKET, type, protocol, flags),
      network_(network),
      memory_file_(memory_file),
      endpoint_(PacketEndpoint::Create(network.stack(), KindOf(type))) {
  (void)endpoint_->Bind(ntohs(static_cast<uint16_t>(protocol)), 0);  // to no interface in particular: cannot fail
}

PacketSocket::~PacketSocket() { endpoint_->Close(); }

Result<> PacketSocket::Bind(const Caller&, socket::Address address) {
  sockaddr_ll name;
  if (address.size() < sizeof(name)) return Err(EINVAL);
  std::memcpy(&name, address.data(), sizeof(name));
  if (name.sll_family != AF_PACKET) return Err(EINVAL);
  if (name.sll_ifindex < 0) return Err(ENODEV);
  const uint16_t ethertype = name.sll_protocol != 0 ? ntohs(name.sll_protocol) : endpoint_->ethertype();
  return endpoint_->Bind(ethertype, static_cast<uint32_t>(name.sll_ifindex));
}

Result<PacketSocket::Destination> PacketSocket::ParseDestination(socket::Address address) const {
  sockaddr_ll name;
  if (address.size() < sizeof(name)) return Err(EINVAL);
  std::memcpy(&name, address.data(), sizeof(name));
  if (address.size() < offsetof(sockaddr_ll, sll_addr) + name.sll_halen) return Err(EINVAL);
  if (name.sll_ifindex < 0) return Err(ENXIO);
  Destination to{.interface_index = static_cast<uint32_t>(name.sll_ifindex),
                 .ethertype = ntohs(name.sll_protocol),
                 .link = std::nullopt};
  if (name.sll_halen != 0) {
    to.link.emplace();
    std::memcpy(to.link->bytes.data(), name.sll_addr, ETH_ALEN);
  }
  return to;
}

Result<size_t> PacketSocket::SendBytes(IoSequence& data, const std::optional<Destination>& to) {
  Destination where = to.value_or(Destination{
      .interface_index = endpoint_->interface_index(), .ethertype = endpoint_->ethertype(), .link = std::nullopt});
  RefPtr<netstack::Interface> interface = network_.stack().FindInterface(where.interface_index);
  if (!interface) return Err(ENXIO);
  // Where there are addresses one must be named; the loopback's are zeros.
  if (type() == SOCK_DGRAM && !where.link && !interface->is_loopback()) return Err(EINVAL);
  const size_t n = data.remaining();
  if (n > kMaxFrame) return Err(EMSGSIZE);
  netstack::Buffer frame = TRY(inetsock::CopyInPayload(data, n, kHeadroom));
  return endpoint_->Send(std::move(frame), where.interface_index, where.link.value_or(LinkAddress{}), where.ethertype);
}

Result<size_t> PacketSocket::Send(const Caller&, socket::OutMessage& message, int, fiber::Time) {
  std::optional<Destination> to;
  if (!message.to.empty()) to = TRY(ParseDestination(message.to));
  return SendBytes(message.data, to);
}

Result<size_t> PacketSocket::ReceiveOnce(socket::InMessage& message, int flags) {
  PacketPtr frame = TRY(endpoint_->Receive((flags & MSG_PEEK) != 0));
  if (frame == nullptr) return size_t{0};
  const size_t size = frame->data.size();
  const size_t n = std::min<size_t>(size, message.data.remaining());
  TRY(inetsock::CopyOutPayload(frame->data, n, message.data));
  if (n < size) message.flags |= MSG_TRUNC;
  if (message.want_from) {
    const sockaddr_ll from = LinkName(*frame);
    auto bytes = std::as_bytes(std::span<const sockaddr_ll, 1>(&from, 1));
    message.from.assign(bytes.begin(), bytes.end());
  }
  if (auxdata_.load(std::memory_order_relaxed)) {
    const tpacket_auxdata aux{.tp_status = TP_STATUS_USER | ChecksumStatus(*frame),
                              .tp_len = frame->whole_size,
                              .tp_snaplen = static_cast<uint32_t>(size),
                              .tp_mac = 0,
                              .tp_net = static_cast<uint16_t>(type() == SOCK_RAW ? ETH_HLEN : 0),
                              .tp_vlan_tci = 0,
                              .tp_vlan_tpid = 0};
    message.control.push_back({.level = SOL_PACKET, .type = PACKET_AUXDATA, .data = OptionBytes(aux)});
  }
  return (flags & MSG_TRUNC) != 0 ? size : n;
}

Result<size_t> PacketSocket::Receive(socket::InMessage& message, int flags, fiber::Time deadline) {
  if ((flags & ~(MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_ERRQUEUE | MSG_CMSG_CLOEXEC)) != 0) return Err(EINVAL);
  if ((flags & MSG_ERRQUEUE) != 0) return Err(EAGAIN);
  return socket::Blocking(*this, waiter::kIn, deadline, [&] { return ReceiveOnce(message, flags); });
}

Result<size_t> PacketSocket::Read(IoSequence& dst, vfs::IoFlags) {
  socket::InMessage message;
  message.data = std::move(dst);
  Result<size_t> n = ReceiveOnce(message, 0);
  dst = std::move(message.data);
  return n;
}

Result<socket::AddressBytes> PacketSocket::LocalName() {
  sockaddr_ll name{};
  name.sll_family = AF_PACKET;
  name.sll_protocol = htons(endpoint_->ethertype());
  const uint32_t index = endpoint_->interface_index();
  name.sll_ifindex = static_cast<int>(index);
  if (RefPtr<netstack::Interface> interface = index != 0 ? network_.stack().FindInterface(index) : nullptr) {
    name.sll_hatype = interface->link().hardware_type();
    name.sll_halen = ETH_ALEN;
    std::memcpy(name.sll_addr, interface->link_address().bytes.data(), ETH_ALEN);
  }
  std::span<const std::byte> bytes = std::as_bytes(std::span<const sockaddr_ll, 1>(&name, 1));
  bytes = bytes.first(offsetof(sockaddr_ll, sll_addr) + name.sll_halen);
  return socket::AddressBytes(bytes.begin(), bytes.end());
}

Result<uint64_t> PacketSocket::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  size_t bytes = 0;
  switch (command) {
    case FIONREAD:
      bytes = endpoint_->ReceiveQueueBytes();
      break;
    case SIOCOUTQ:
      break;  // nothing waits here
    default:
      return Socket::Ioctl(io, command, arg);
  }
  TRY(io.CopyOutObject<int32_t>(arg, static_cast<int32_t>(std::min<size_t>(bytes, INT_MAX))));
  return 0;
}

RefPtr<PacketRing> PacketSocket::ring() const {
  sync::MutexLock lock(ring_mu_);
  return ring_;
}

waiter::EventMask PacketSocket::Readiness(waiter::EventMask mask) {
  waiter::EventMask ready = endpoint_->Readiness();
  if (RefPtr<PacketRing> r = ring(); r && r->HasUnread()) ready |= waiter::kIn | waiter::kRdNorm;
  return ready & mask;
}

// The ring whole, or nothing (packet_mmap.rst).
Result<> PacketSocket::ConfigureMMap(mm::MMapOptions& options) {
  RefPtr<PacketRing> r = ring();
  if (!r || options.offset != 0 || MustPageRoundUp(options.length) != r->size()) return Err(EINVAL);
  options.mappable = r.get();
  options.identity = std::move(r);
  return {};
}

void PacketSocket::BuffersChanged() {
  netstack::DatagramOptions options = endpoint_->options();
  options.receive_buffer = receive_buffer();
  endpoint_->SetOptions(options);
}

SocketInfo PacketSocket::Describe() const {
  return {.owner = socket::OwnerOf(*this),
          .type = type(),
          .ethertype = endpoint_->ethertype(),
          .interface_index = endpoint_->interface_index(),
          .queued = endpoint_->ReceiveQueueBytes()};
}

}  // namespace redoubt::packetsock
