// Frames that leave together: what a thread sends while it delivers a batch of received frames, or while a transport
// sends several segments, reaches each link in one call. Linux's xmit_more and the batches of NAPI.
#ifndef REDOUBT_PKG_NETSTACK_STACK_FRAME_BATCH_H_
#define REDOUBT_PKG_NETSTACK_STACK_FRAME_BATCH_H_

#include <cstddef>

#include "pkg/netstack/packet/packet.h"
#include "pkg/refs/refs.h"

namespace redoubt::netstack {

class Interface;

// Has something to send, and puts it off to the end of a batch, when it may have more or can do with less: an
// acknowledgement of all that came.
class DeferredSender {
 public:
  virtual ~DeferredSender() = default;
  // Sends what it has by now.
  virtual void SendDeferred() = 0;
  // What was sent has reached the links. True if there is more meanwhile: both are called again.
  virtual bool DeferredSent() = 0;
};

// A scope of one thread, which must not park in it. Only the outermost one does anything; at its end the deferred
// senders send, and then the frames are written. Nothing is held back that goes to a loopback.
class FrameBatch final {
 public:
  static constexpr size_t kMaxFrames = 32;  // of one link; then they are written at once

  FrameBatch();
  ~FrameBatch();
  FrameBatch(const FrameBatch&) = delete;
  FrameBatch& operator=(const FrameBatch&) = delete;

  // Is this thread in one?
  static bool Active();
  // In one only. `owner` keeps `sender` alive. Called with no lock held.
  static void Defer(RefPtr<RefCounted> owner, DeferredSender& sender);

 private:
  friend class Interface;
  // Takes the frame, if this thread is in a batch.
  static bool Take(Interface& interface, PacketPtr& frame);
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_STACK_FRAME_BATCH_H_
