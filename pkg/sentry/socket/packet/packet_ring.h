// Private to packet: PACKET_RX_RING: frames in memory that the guest has mapped (packet(7) and the kernel's
// Documentation/networking/packet_mmap.rst).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_PACKET_PACKET_RING_H_
#define REDOUBT_PKG_SENTRY_SOCKET_PACKET_PACKET_RING_H_

#include <linux/if_packet.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "pkg/errors/errors.h"
#include "pkg/netstack/raw/packet_endpoint.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sync/mutex.h"

namespace redoubt::packetsock {

// A frame's place belongs to the Sentry while its status is 0, and to the guest from when the Sentry has written that
// until the guest writes 0 again. The guest may lie, to nobody's harm but its own: of the memory nothing is read but
// that word. Held by its socket, by the endpoint it takes frames of, and by its mappings.
class PacketRing final : public memmap::MappingIdentity, public memmap::Mappable {
 public:
  // Of a ring of TPACKET_V1 or V2 with `reserve` bytes before each frame, for an endpoint of `kind`. EINVAL by
  // packet_mmap.rst's rules, ENOMEM.
  static Result<RefPtr<PacketRing>> Create(pgalloc::MemoryFile& memory_file, const tpacket_req& request, int version,
                                           uint32_t reserve, netstack::PacketEndpoint::Kind kind);
  ~PacketRing() override;

  uint64_t size() const { return pages_.length(); }
  // The last place that was filled has not been given back: what poll(2) waits for.
  bool HasUnread() const EXCLUDES(mu_);
  bool mapped() const { return mapped_bytes_.load(std::memory_order_relaxed) != 0; }
  // What puts frames here.
  static std::shared_ptr<netstack::FrameSink> MakeSink(RefPtr<PacketRing> ring);

  Result<> AddMapping(memmap::MappingSpace&, AddrRange range, uint64_t, bool) override;
  void RemoveMapping(memmap::MappingSpace&, AddrRange range, uint64_t, bool) override;
  Result<memmap::FileRange> Translate(uint64_t offset, uint64_t length, AccessType access) override;
  std::string MappedName() const override { return "socket:[packet]"; }
  uint64_t MappedDevice() const override { return 0; }
  uint64_t MappedInode() const override { return 0; }
  Result<> MappedSync(uint64_t, uint64_t) override { return {}; }

 private:
  class Sink;
  template <typename T, typename... Args>
  friend RefPtr<T> redoubt::MakeRef(Args&&... args);
  PacketRing(pgalloc::MemoryFile& memory_file, memmap::FileRange pages, const tpacket_req& request, int version,
             uint32_t reserve, netstack::PacketEndpoint::Kind kind);

  bool Take(const netstack::Packet& frame, size_t network) EXCLUDES(mu_);
  std::byte* Place(uint32_t index) const;
  bool IsFree(const std::byte* place) const;

  pgalloc::MemoryFile& memory_file_;
  const memmap::FileRange pages_;
  const tpacket_req request_;
  const int version_;
  const uint32_t reserve_;
  const netstack::PacketEndpoint::Kind kind_;
  std::atomic<uint64_t> mapped_bytes_{0};
  mutable sync::Mutex mu_{sync::Rank::kLeaf};
  uint32_t next_ GUARDED_BY(mu_) = 0;
  bool losing_ GUARDED_BY(mu_) = false;
};

// Bytes before the frame itself that a ring's place has at least: TPACKET_HDRLEN, TPACKET2_HDRLEN.
constexpr uint32_t RingHeader(int version) { return version == TPACKET_V1 ? TPACKET_HDRLEN : TPACKET2_HDRLEN; }

}  // namespace redoubt::packetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_PACKET_PACKET_RING_H_
