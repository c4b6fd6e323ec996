#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "pkg/netstack/link/fd_link.h"

namespace redoubt::netstack {

namespace {

// virtio 1.2 section 5.1.6: struct virtio_net_hdr without num_buffers (linux/virtio_net.h is no C++). Host byte order,
// as tun has it by default on little-endian machines.
struct VirtioHeader {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
};
static_assert(sizeof(VirtioHeader) == 10);
constexpr uint8_t kNeedsChecksum = 1;
constexpr uint8_t kDataValid = 2;
constexpr uint8_t kGsoTcpV4 = 1;
constexpr uint8_t kGsoTcpV6 = 4;
constexpr uint8_t kGsoUdp = 5;  // VIRTIO_NET_HDR_GSO_UDP_L4; 3 would be one datagram in fragments
constexpr uint8_t kGsoEcn = 0x80;

constexpr size_t kEthernet = 14;
constexpr size_t kVlanTag = 4;  // a tagged frame is received whole, and dropped for its EtherType
constexpr size_t kMaxIov = 64;

VirtioHeader ToVirtio(const Packet& frame) {
  VirtioHeader h{};
  const Offload& o = frame.offload;
  if (o.checksum == ChecksumState::kPartial) {
    h.flags = kNeedsChecksum;
    h.csum_start = static_cast<uint16_t>(kEthernet + frame.transport_offset);
    h.csum_offset = o.checksum_offset;
  }
  if (o.gso != GsoKind::kNone) {
    h.gso_type = o.gso == GsoKind::kTcpV4 ? kGsoTcpV4 : o.gso == GsoKind::kTcpV6 ? kGsoTcpV6 : kGsoUdp;
    if (o.ecn) h.gso_type |= kGsoEcn;
    h.gso_size = o.segment_size;
    h.hdr_len = static_cast<uint16_t>(kEthernet + frame.transport_offset + o.transport_header_length);
  }
  return h;
}

// Nothing in the header is trusted beyond saying that checksums need not be verified: offsets are found again by
// parsing.
Offload FromVirtio(const VirtioHeader& h) {
  Offload o;
  if ((h.flags & kNeedsChecksum) != 0) {
    o.checksum = ChecksumState::kPartial;
    o.checksum_offset = static_cast<uint8_t>(std::min<uint16_t>(h.csum_offset, 255));
  } else if ((h.flags & kDataValid) != 0) {
    o.checksum = ChecksumState::kVerified;
  }
  switch (h.gso_type & ~kGsoEcn) {
    case kGsoTcpV4:
      o.gso = GsoKind::kTcpV4;
      break;
    case kGsoTcpV6:
      o.gso = GsoKind::kTcpV6;
      break;
    case kGsoUdp:
      o.gso = GsoKind::kUdp;
      break;
    default:
      break;
  }
  o.segment_size = h.gso_size;
  o.ecn = (h.gso_type & kGsoEcn) != 0;
  return o;
}

}  // namespace

// Room for a batch of frames. Each goes into a chunk of a frame's size first, and what is longer into a large chunk
// that is used again if it stayed empty, so that small packets do not hold large chunks.
struct FdLink::Slots {
  struct Slot {
    Buffer head;
    Buffer tail;
    VirtioHeader virtio;
    std::array<iovec, 8> iov;
    size_t iov_count = 0;
  };
  std::array<Slot, kBatch> slots;
  std::array<mmsghdr, kBatch> messages;

  void Prepare(size_t i, bool virtio, size_t capacity) {
    Slot& s = slots[i];
    size_t head = std::min<size_t>(capacity, Chunk::kMedium);
    if (s.head.empty()) s.head = Buffer::Allocate(head);
    if (s.tail.empty() && capacity > head) s.tail = Buffer::Allocate(capacity - head);
    s.iov_count = 0;
    if (virtio) s.iov[s.iov_count++] = {&s.virtio, sizeof(s.virtio)};
    s.iov_count += s.head.ToIovec(0, std::span(s.iov).subspan(s.iov_count));
    s.iov_count += s.tail.ToIovec(0, std::span(s.iov).subspan(s.iov_count));
  }
  // The frame of `size` bytes that the slot has received, virtio header not counted.
  PacketPtr Take(size_t i, bool virtio, size_t size) {
    Slot& s = slots[i];
    Buffer data = std::move(s.head);
    if (size > data.size()) {
      s.tail.CapLength(size - data.size());
      data.Append(std::move(s.tail));
    } else {
      data.CapLength(size);
    }
    PacketPtr frame = NewPacket(std::move(data));
    if (virtio) frame->offload = FromVirtio(s.virtio);
    return frame;
  }
};

FdLink::FdLink(const Options& options)
    : options_(options), receive_mu_(sync::Rank::kNetLink), slots_(std::make_unique<Slots>()) {}

FdLink::~FdLink() = default;

LinkCaps FdLink::caps() const {
  return kCapResolution | (options_.virtio_header ? kCapTxChecksum | kCapRxChecksum | kCapTcpGso : 0);
}

void FdLink::Attach(LinkDispatcher* dispatcher) { dispatcher_.store(dispatcher, std::memory_order_release); }

bool FdLink::DispatchReady(size_t most) {
  for (size_t done = 0; done < most;) {
    PacketList frames;
    size_t n;
    {
      sync::MutexLock lock(receive_mu_);
      n = Receive(frames);
    }
    LinkDispatcher* dispatcher = dispatcher_.load(std::memory_order_acquire);
    if (dispatcher != nullptr && !frames.empty()) dispatcher->DeliverFrames(std::move(frames));
    if (n < kBatch) return false;
    done += n;
  }
  return true;
}

size_t FdLink::Receive(PacketList& into) {
  bool virtio = options_.virtio_header;
  size_t header = virtio ? sizeof(VirtioHeader) : 0;
  size_t capacity = (virtio ? 65535 : options_.mtu) + kEthernet + kVlanTag;
  Slots& s = *slots_;
  auto take = [&](size_t i, size_t size, bool truncated) {
    if (truncated || size < header || size - header > capacity) {
      stats_.truncated.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    into.PushBack(s.Take(i, virtio, size - header));
    stats_.received.fetch_add(1, std::memory_order_relaxed);
  };
  if (options_.kind == Kind::kTap) {
    size_t n = 0;
    for (; n < kBatch; n++) {
      s.Prepare(n, virtio, capacity);
      // SAFETY: the iovecs name this slot's own chunks and header, alive and unshared. preadv2(2) and pwritev2(2) at -1
      // are readv(2) and writev(2), of which the Sentry has no other use.
      ssize_t r = preadv2(options_.fd, s.slots[n].iov.data(), static_cast<int>(s.slots[n].iov_count), -1, 0);
      stats_.receive_calls.fetch_add(1, std::memory_order_relaxed);
      if (r <= 0) break;  // EAGAIN, or a device that is down or gone
      take(n, static_cast<size_t>(r), false);
    }
    return n;
  }
  for (size_t i = 0; i < kBatch; i++) {
    s.Prepare(i, virtio, capacity);
    s.messages[i] = {};
    s.messages[i].msg_hdr.msg_iov = s.slots[i].iov.data();
    s.messages[i].msg_hdr.msg_iovlen = s.slots[i].iov_count;
  }
  // SAFETY: as above.
  int r = recvmmsg(options_.fd, s.messages.data(), kBatch, MSG_DONTWAIT, nullptr);
  stats_.receive_calls.fetch_add(1, std::memory_order_relaxed);
  if (r <= 0) return 0;
  for (size_t i = 0; i < static_cast<size_t>(r); i++) {
    take(i, s.messages[i].msg_len, (s.messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0);
  }
  return static_cast<size_t>(r);
}

size_t FdLink::Write(PacketList frames) { return options_.kind == Kind::kTap ? WriteTap(frames) : WriteSocket(frames); }

size_t FdLink::WriteTap(PacketList& frames) {
  size_t sent = 0;
  while (PacketPtr frame = frames.PopFront()) {
    VirtioHeader virtio = ToVirtio(*frame);
    std::array<iovec, kMaxIov> iov;
    size_t first = 0;
    if (options_.virtio_header) iov[first++] = {&virtio, sizeof(virtio)};
    if (frame->data.view_count() > kMaxIov - first)
      (void)frame->data.PullUp(std::min(frame->data.size(), Buffer::kMaxContiguous));
    size_t n = first + frame->data.ToIovec(0, std::span(iov).subspan(first));
    // SAFETY: the iovecs name bytes that the packet holds references to.
    ssize_t r = pwritev2(options_.fd, iov.data(), static_cast<int>(n), -1, 0);
    stats_.send_calls.fetch_add(1, std::memory_order_relaxed);
    if (r < 0) {
      stats_.send_errors.fetch_add(1, std::memory_order_relaxed);
      if (errno == EAGAIN) break;  // the device's queue is full: the rest is dropped as well
      continue;
    }
    sent++;
  }
  stats_.sent.fetch_add(sent, std::memory_order_relaxed);
  return sent;
}

size_t FdLink::WriteSocket(PacketList& frames) {
  size_t sent = 0;
  while (!frames.empty()) {
    std::array<PacketPtr, kBatch> batch;
    std::array<VirtioHeader, kBatch> virtio;
    std::array<std::array<iovec, 16>, kBatch> iov;
    std::array<mmsghdr, kBatch> messages{};
    size_t n = 0;
    for (; n < kBatch; n++) {
      batch[n] = frames.PopFront();
      if (batch[n] == nullptr) break;
      size_t first = 0;
      if (options_.virtio_header) {
        virtio[n] = ToVirtio(*batch[n]);
        iov[n][first++] = {&virtio[n], sizeof(virtio[n])};
      }
      Buffer& data = batch[n]->data;
      if (data.view_count() > iov[n].size() - first) (void)data.PullUp(std::min(data.size(), Buffer::kMaxContiguous));
      messages[n].msg_hdr.msg_iov = iov[n].data();
      messages[n].msg_hdr.msg_iovlen = first + data.ToIovec(0, std::span(iov[n]).subspan(first));
    }
    // SAFETY: the iovecs name bytes that the batch holds references to.
    int r = sendmmsg(options_.fd, messages.data(), static_cast<unsigned>(n), MSG_DONTWAIT);
    stats_.send_calls.fetch_add(1, std::memory_order_relaxed);
    if (r < 0 || static_cast<size_t>(r) < n) stats_.send_errors.fetch_add(1, std::memory_order_relaxed);
    if (r <= 0) break;
    sent += static_cast<size_t>(r);
    if (static_cast<size_t>(r) < n) break;
  }
  stats_.sent.fetch_add(sent, std::memory_order_relaxed);
  return sent;
}

}  // namespace redoubt::netstack
