#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "pkg/sentry/socket/packet/link_address.h"
#include "pkg/sentry/socket/packet/packet_ring.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::packetsock {

using netstack::Packet;
using netstack::PacketEndpoint;

namespace {
template <typename T>
const std::byte* Bytes(const T& value) {
  return std::as_bytes(std::span<const T, 1>(&value, 1)).data();
}
}  // namespace

class PacketRing::Sink final : public netstack::FrameSink {
 public:
  explicit Sink(RefPtr<PacketRing> ring) : ring_(std::move(ring)) {}
  bool Take(const Packet& frame, size_t network) override { return ring_->Take(frame, network); }

 private:
  const RefPtr<PacketRing> ring_;
};

std::shared_ptr<netstack::FrameSink> PacketRing::MakeSink(RefPtr<PacketRing> ring) {
  return std::make_shared<Sink>(std::move(ring));
}

Result<RefPtr<PacketRing>> PacketRing::Create(pgalloc::MemoryFile& memory_file, const tpacket_req& r, int version,
                                              uint32_t reserve, PacketEndpoint::Kind kind) {
  if (static_cast<int>(r.tp_block_size) <= 0 || !IsPageAligned(r.tp_block_size)) return Err(EINVAL);
  if (r.tp_frame_size < uint64_t{RingHeader(version)} + reserve || r.tp_frame_size % TPACKET_ALIGNMENT != 0) {
    return Err(EINVAL);
  }
  const uint32_t per_block = r.tp_block_size / r.tp_frame_size;
  if (per_block == 0 || uint64_t{per_block} * r.tp_block_nr != r.tp_frame_nr) return Err(EINVAL);
  // Both factors are below 2^32.
  const uint64_t size = uint64_t{r.tp_block_size} * r.tp_block_nr;
  if (size == 0) return Err(EINVAL);
  if (size > memory_file.limit()) return Err(ENOMEM);
  Result<memmap::FileRange> pages = memory_file.Allocate(size);
  if (!pages) return Err(ENOMEM);
  return MakeRef<PacketRing>(memory_file, *pages, r, version, reserve, kind);
}

PacketRing::PacketRing(pgalloc::MemoryFile& memory_file, memmap::FileRange pages, const tpacket_req& request,
                       int version, uint32_t reserve, PacketEndpoint::Kind kind)
    : memory_file_(memory_file), pages_(pages), request_(request), version_(version), reserve_(reserve), kind_(kind) {}

PacketRing::~PacketRing() { memory_file_.DecRef(pages_); }

// The last place of a block ends before the block does, if its size is no divisor.
std::byte* PacketRing::Place(uint32_t index) const {
  const uint32_t per_block = request_.tp_block_size / request_.tp_frame_size;
  return memory_file_.At(pages_.start + uint64_t{index / per_block} * request_.tp_block_size +
                         uint64_t{index % per_block} * request_.tp_frame_size);
}

bool PacketRing::IsFree(const std::byte* place) const {
  // SAFETY: places are aligned to 16 bytes within pages that this holds a reference on; the status comes first, and the
  // guest may write it at any time.
  auto* word = const_cast<std::byte*>(place);
  if (version_ == TPACKET_V1) {
    return std::atomic_ref(*reinterpret_cast<unsigned long*>(word)).load(std::memory_order_acquire) == TP_STATUS_KERNEL;
  }
  return std::atomic_ref(*reinterpret_cast<uint32_t*>(word)).load(std::memory_order_acquire) == TP_STATUS_KERNEL;
}

bool PacketRing::HasUnread() const {
  sync::MutexLock lock(mu_);
  return !IsFree(Place((next_ + request_.tp_frame_nr - 1) % request_.tp_frame_nr));
}

bool PacketRing::Take(const Packet& frame, size_t network) {
  const bool cooked = kind_ == PacketEndpoint::Kind::kCooked;
  const uint32_t header = RingHeader(version_);
  const auto link_header = static_cast<uint32_t>(network);
  const uint32_t network_at =
      (cooked ? TPACKET_ALIGN(header) + 16 : TPACKET_ALIGN(header + std::max(link_header, 16u))) + reserve_;
  const uint32_t frame_at = cooked ? network_at : network_at - link_header;
  if (network_at > UINT16_MAX) return false;
  const uint32_t room = request_.tp_frame_size > frame_at ? request_.tp_frame_size - frame_at : 0;
  const uint32_t kept = std::min(static_cast<uint32_t>(frame.data.size()), room);
  const timespec now = clock::ToTimespec(clock::Realtime());

  sync::MutexLock lock(mu_);
  std::byte* place = Place(next_);
  if (!IsFree(place)) {
    losing_ = true;
    return false;
  }
  next_ = (next_ + 1) % request_.tp_frame_nr;
  uint32_t status = ChecksumStatus(frame) | TP_STATUS_USER;
  if (std::exchange(losing_, false)) status |= TP_STATUS_LOSING;
  const sockaddr_ll from = LinkName(frame);
  if (kept > 0) frame.data.CopyOut(0, {place + frame_at, kept});
  // SAFETY: as above; Create has seen that both structures fit. The status is written last, for the guest to see.
  if (version_ == TPACKET_V1) {
    tpacket_hdr h{.tp_status = 0,
                  .tp_len = frame.whole_size,
                  .tp_snaplen = kept,
                  .tp_mac = static_cast<uint16_t>(frame_at),
                  .tp_net = static_cast<uint16_t>(network_at),
                  .tp_sec = static_cast<uint32_t>(now.tv_sec),
                  .tp_usec = static_cast<uint32_t>(now.tv_nsec / 1000)};
    std::memcpy(place + sizeof(h.tp_status), Bytes(h) + sizeof(h.tp_status), sizeof(h) - sizeof(h.tp_status));
    std::memcpy(place + TPACKET_ALIGN(sizeof(h)), &from, sizeof(from));
    std::atomic_ref(*reinterpret_cast<unsigned long*>(place)).store(status, std::memory_order_release);
    return true;
  }
  tpacket2_hdr h{};
  h.tp_len = frame.whole_size;
  h.tp_snaplen = kept;
  h.tp_mac = static_cast<uint16_t>(frame_at);
  h.tp_net = static_cast<uint16_t>(network_at);
  h.tp_sec = static_cast<uint32_t>(now.tv_sec);
  h.tp_nsec = static_cast<uint32_t>(now.tv_nsec);
  std::memcpy(place + sizeof(h.tp_status), Bytes(h) + sizeof(h.tp_status), sizeof(h) - sizeof(h.tp_status));
  std::memcpy(place + TPACKET_ALIGN(sizeof(h)), &from, sizeof(from));
  std::atomic_ref(*reinterpret_cast<uint32_t*>(place)).store(status, std::memory_order_release);
  return true;
}

Result<> PacketRing::AddMapping(memmap::MappingSpace&, AddrRange range, uint64_t, bool) {
  mapped_bytes_.fetch_add(range.length(), std::memory_order_relaxed);
  return {};
}

void PacketRing::RemoveMapping(memmap::MappingSpace&, AddrRange range, uint64_t, bool) {
  mapped_bytes_.fetch_sub(range.length(), std::memory_order_relaxed);
}

Result<memmap::FileRange> PacketRing::Translate(uint64_t offset, uint64_t length, AccessType) {
  if (offset >= size()) return Err(EIO);
  const memmap::FileRange range{pages_.start + offset, pages_.start + std::min(offset + length, size())};
  memory_file_.IncRef(range);
  return range;
}

}  // namespace redoubt::packetsock
