// The loopback link: what is sent comes back. Linux's drivers/net/loopback.
#ifndef REDOUBT_PKG_NETSTACK_LINK_LOOPBACK_H_
#define REDOUBT_PKG_NETSTACK_LINK_LOOPBACK_H_

#include <memory>

#include "pkg/netstack/clock/timer.h"
#include "pkg/netstack/link/link_endpoint.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// Super-segments pass whole and checksums are not made. Write queues, and the outermost caller delivers: a packet that
// is sent while one is being delivered waits its turn, so the stack's depth is bounded whatever the protocols answer,
// and packets keep their order among all threads. A caller delivers at most kMaxPerCall packets; a timer goes on with
// the rest.
class Loopback final : public LinkEndpoint {
 public:
  static constexpr uint32_t kMtu = 65536;
  static constexpr size_t kMaxQueued = 4096;  // packets; more are dropped
  static constexpr size_t kMaxPerCall = 512;

  Loopback(Clock& clock, TimerQueue& timers);
  ~Loopback() override;

  uint32_t mtu() const override { return kMtu; }
  LinkCaps caps() const override { return kCapTxChecksum | kCapRxChecksum | kCapLoopback | kCapTcpGso; }
  uint32_t gso_max() const override { return 65535; }  // IPv4's total length
  size_t header_size() const override { return 0; }
  uint16_t hardware_type() const override { return 772; }  // ARPHRD_LOOPBACK
  void Attach(LinkDispatcher* dispatcher) override;
  size_t Write(PacketList frames) override;

 private:
  // Outlives the link while its timer is queued.
  class Core final : public RefCounted {
   public:
    Core(Clock& clock, TimerQueue& timers);
    void Attach(LinkDispatcher* dispatcher) EXCLUDES(mu_);
    size_t Write(PacketList frames) EXCLUDES(mu_);

   private:
    void Drain() EXCLUDES(mu_);

    Clock& clock_;
    sync::Mutex mu_;
    LinkDispatcher* dispatcher_ GUARDED_BY(mu_) = nullptr;
    PacketList queue_ GUARDED_BY(mu_);
    size_t queued_ GUARDED_BY(mu_) = 0;
    bool draining_ GUARDED_BY(mu_) = false;
    Timer timer_;
  };
  const RefPtr<Core> core_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_LINK_LOOPBACK_H_
