// Receive offload in software: segments of a stream that come one after the other in a batch of frames go to their
// connection as one, so that its lock, its look at the acknowledgement and its own answer are paid for once. What Linux
// calls GRO, here behind the demultiplexer: no header is made up, and what is forwarded is never joined.
#ifndef REDOUBT_PKG_NETSTACK_TCP_COALESCER_H_
#define REDOUBT_PKG_NETSTACK_TCP_COALESCER_H_

#include <array>
#include <cstddef>

#include "pkg/netstack/stack/frame_batch.h"
#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/netstack/tcp/segment.h"
#include "pkg/refs/refs.h"

namespace redoubt::netstack::tcp {

// A thread's. Holds nothing outside of a FrameBatch.
class Coalescer final : private DeferredSender {
 public:
  static constexpr size_t kConnections = 8;     // held at once; more push out the oldest
  static constexpr size_t kMaxPayload = 65535;  // of segments that were joined

  static Coalescer& OfThread();

  // In a FrameBatch: the next segment of `endpoint`. True if it was taken: its endpoint gets it by the end of the
  // batch, behind all that came before. False if it cannot be joined to others: it is the caller's, and what came
  // before is with the endpoint; so it is without `may_join`.
  bool Take(const RefPtr<Endpoint>& endpoint, Segment& segment, bool may_join);

 private:
  struct Held {
    RefPtr<Endpoint> endpoint;
    Segment segment;
  };

  void SendDeferred() override;
  bool DeferredSent() override;
  void HandOn(Held& held);

  std::array<Held, kConnections> held_;
  size_t next_ = 0;  // of held_, to be pushed out
  bool deferred_ = false;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_COALESCER_H_
