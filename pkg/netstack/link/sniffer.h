// Writes what passes a link into a capture file (pcap, draft-ietf-opsawg-pcap), for tshark and its kin.
#ifndef REDOUBT_PKG_NETSTACK_LINK_SNIFFER_H_
#define REDOUBT_PKG_NETSTACK_LINK_SNIFFER_H_

#include <atomic>
#include <memory>

#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/link/link_endpoint.h"

namespace redoubt::netstack {

// For debugging: each frame costs one host call, which may block on a slow disk. Checksums left to the link are
// captured as the sum of the pseudo header, as by tcpdump on Linux.
class Sniffer final : public LinkEndpoint, private LinkDispatcher {
 public:
  struct Options {
    int fd = -1;                    // borrowed; the file header is written at once
    Time epoch = 0;                 // nanoseconds since 1970 when the clock was 0
    uint32_t snap_length = 262144;  // bytes kept of each frame
    uint64_t max_bytes = 1 << 30;   // of the file; then it captures no more
  };
  Sniffer(std::unique_ptr<LinkEndpoint> below, Clock& clock, const Options& options);

  uint32_t mtu() const override { return below_->mtu(); }
  LinkCaps caps() const override { return below_->caps(); }
  uint32_t gso_max() const override { return below_->gso_max(); }
  size_t header_size() const override { return below_->header_size(); }
  LinkAddress address() const override { return below_->address(); }
  uint16_t hardware_type() const override { return below_->hardware_type(); }
  void Attach(LinkDispatcher* dispatcher) override;
  size_t Write(PacketList frames) override;

  LinkEndpoint& below() { return *below_; }

 private:
  void DeliverFrame(PacketPtr frame) override;
  void Record(const Packet& frame);

  const std::unique_ptr<LinkEndpoint> below_;
  Clock& clock_;
  const Options options_;
  std::atomic<LinkDispatcher*> above_{nullptr};
  std::atomic<uint64_t> written_{0};
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_LINK_SNIFFER_H_
