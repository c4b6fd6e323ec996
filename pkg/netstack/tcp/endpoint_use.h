// Private to Endpoint: the scope in which it is locked, and what follows when the lock is gone.
#ifndef REDOUBT_PKG_NETSTACK_TCP_ENDPOINT_USE_H_
#define REDOUBT_PKG_NETSTACK_TCP_ENDPOINT_USE_H_

#include <vector>

#include "pkg/netstack/tcp/endpoint.h"

namespace redoubt::netstack::tcp {

// What was emitted, on its way to the link. By one thread at a time, that which has set the endpoint's sending_.
class Endpoint::Sending final {
 public:
  explicit Sending(Endpoint& e) : e_(e) {}
  ~Sending();
  Sending(const Sending&) = delete;
  Sending& operator=(const Sending&) = delete;

  // Under the endpoint's lock: takes what was emitted. False if there is nothing.
  bool Begin() NO_THREAD_SAFETY_ANALYSIS;
  // Without it.
  void Send();

 private:
  Endpoint& e_;
  WriteOptions write_;
  std::vector<Outgoing> batch_;
};

// Locks the endpoint. At its end, in this order: what the connection did is noted and the timer moved; the lock is
// released; waiters are told; emitted segments are sent, by one thread at a time, so that they keep their order. On a
// loopback that may run the peer's side, and ours again in it, which finds `sending_` set and leaves its segments to
// us: the depth is bounded. In a FrameBatch, which delivers received frames, sending is left to its end: by then one
// acknowledgement may do for many segments.
class SCOPED_CAPABILITY Endpoint::Use final {
 public:
  explicit Use(Endpoint& e) ACQUIRE(e.mu_) : e_(e), sending_(e) { e.mu_.Lock(); }
  ~Use() RELEASE();
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  void Notify(waiter::EventMask mask) { notify_ |= mask; }

 private:
  void NoteEvents() NO_THREAD_SAFETY_ANALYSIS;

  Endpoint& e_;
  waiter::EventMask notify_ = 0;
  RefPtr<Endpoint> parent_;  // to be told that the endpoint is ready, or just let go
  bool tell_parent_ = false;
  bool remove_ = false;
  FourTuple id_;
  Sending sending_;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_ENDPOINT_USE_H_
