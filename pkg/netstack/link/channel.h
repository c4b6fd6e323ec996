// A link for tests and for embedders that move packets themselves: frames sent are kept until read, frames received are
// injected.
#ifndef REDOUBT_PKG_NETSTACK_LINK_CHANNEL_H_
#define REDOUBT_PKG_NETSTACK_LINK_CHANNEL_H_

#include "pkg/netstack/link/link_endpoint.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

class Channel final : public LinkEndpoint {
 public:
  struct Options {
    uint32_t mtu = 1500;
    // Unspecified: a link without headers and addresses (ARPHRD_NONE), whose packets begin at the network header.
    LinkAddress address;
    size_t queue = 1024;  // frames; more are dropped
    LinkCaps caps = 0;    // beside kCapResolution, which follows from the address
    uint32_t gso_max = 0;
  };
  explicit Channel(const Options& options) : options_(options), mu_(sync::Rank::kNetLink) {}

  uint32_t mtu() const override { return options_.mtu; }
  LinkCaps caps() const override { return options_.caps | (has_header() ? kCapResolution : 0); }
  uint32_t gso_max() const override { return options_.gso_max; }
  size_t header_size() const override { return has_header() ? 14 : 0; }
  LinkAddress address() const override { return options_.address; }
  uint16_t hardware_type() const override { return has_header() ? 1 : 0xfffe; }  // ARPHRD_ETHER, ARPHRD_NONE
  void Attach(LinkDispatcher* dispatcher) override {
    sync::MutexLock lock(mu_);
    dispatcher_ = dispatcher;
  }
  size_t Write(PacketList frames) override {
    sync::MutexLock lock(mu_);
    writes_++;
    size_t taken = 0;
    while (queued_ < options_.queue) {
      PacketPtr p = frames.PopFront();
      if (p == nullptr) break;
      sent_.PushBack(std::move(p));
      queued_++;
      taken++;
    }
    return taken;
  }

  // The oldest frame sent, or null.
  PacketPtr Read() EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    PacketPtr p = sent_.PopFront();
    if (p != nullptr) queued_--;
    return p;
  }
  size_t queued() const EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return queued_;
  }
  // Calls of Write so far.
  size_t writes() const EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return writes_;
  }
  // As if `frame` came from the wire. Without a link header, frame->ethertype must be set.
  void Inject(PacketPtr frame) EXCLUDES(mu_) {
    LinkDispatcher* dispatcher;
    {
      sync::MutexLock lock(mu_);
      dispatcher = dispatcher_;
    }
    if (dispatcher != nullptr) dispatcher->DeliverFrame(std::move(frame));
  }

 private:
  bool has_header() const { return !options_.address.IsUnspecified(); }

  const Options options_;
  mutable sync::Mutex mu_;
  LinkDispatcher* dispatcher_ GUARDED_BY(mu_) = nullptr;
  PacketList sent_ GUARDED_BY(mu_);
  size_t queued_ GUARDED_BY(mu_) = 0;
  size_t writes_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_LINK_CHANNEL_H_
