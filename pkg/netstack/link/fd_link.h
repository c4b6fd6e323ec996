// A link over a descriptor: a TAP device (Documentation/networking/tuntap) or an AF_PACKET socket (man 7 packet).
#ifndef REDOUBT_PKG_NETSTACK_LINK_FD_LINK_H_
#define REDOUBT_PKG_NETSTACK_LINK_FD_LINK_H_

#include <atomic>
#include <memory>

#include "pkg/netstack/link/link_endpoint.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

class FdLink final : public LinkEndpoint {
 public:
  enum class Kind : uint8_t {
    kTap,     // one read or write a frame: tun descriptors take no recvmmsg
    kSocket,  // AF_PACKET SOCK_RAW, or any socket that keeps frames apart: recvmmsg and sendmmsg
  };
  struct Options {
    int fd = -1;  // borrowed, stays open longer than the link; made non-blocking by the caller
    Kind kind = Kind::kTap;
    uint32_t mtu = 1500;
    LinkAddress address;
    // Frames begin with a struct virtio_net_hdr (IFF_VNET_HDR, PACKET_VNET_HDR): checksums and segmentation are left to
    // the other side.
    bool virtio_header = false;
  };
  // Host calls made and frames moved, so that a test can count calls per frame.
  struct Stats {
    std::atomic<uint64_t> receive_calls{0}, received{0}, send_calls{0}, sent{0}, truncated{0}, send_errors{0};
  };
  static constexpr size_t kBatch = 32;            // frames per host call
  static constexpr size_t kMaxPerDispatch = 256;  // frames

  explicit FdLink(const Options& options);
  ~FdLink() override;

  uint32_t mtu() const override { return options_.mtu; }
  LinkCaps caps() const override;
  uint32_t gso_max() const override { return options_.virtio_header ? 65535 : 0; }
  size_t header_size() const override { return 14; }
  LinkAddress address() const override { return options_.address; }
  uint16_t hardware_type() const override { return 1; }  // ARPHRD_ETHER
  void Attach(LinkDispatcher* dispatcher) override;
  size_t Write(PacketList frames) override;

  // The descriptor is readable: receives and delivers `most` frames or a batch more. True if there may be more. Called
  // by one thread at a time.
  bool DispatchReady(size_t most = kMaxPerDispatch) EXCLUDES(receive_mu_);
  const Stats& stats() const { return stats_; }

 private:
  struct Slots;
  size_t Receive(PacketList& into) REQUIRES(receive_mu_);
  size_t WriteTap(PacketList& frames);
  size_t WriteSocket(PacketList& frames);

  const Options options_;
  Stats stats_;
  std::atomic<LinkDispatcher*> dispatcher_{nullptr};
  sync::Mutex receive_mu_;
  std::unique_ptr<Slots> slots_ GUARDED_BY(receive_mu_);
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_LINK_FD_LINK_H_
