#include "pkg/netstack/link/loopback.h"

namespace redoubt::netstack {

Loopback::Loopback(Clock& clock, TimerQueue& timers) : core_(MakeRef<Core>(clock, timers)) {}
Loopback::~Loopback() { core_->Attach(nullptr); }
void Loopback::Attach(LinkDispatcher* dispatcher) { core_->Attach(dispatcher); }
size_t Loopback::Write(PacketList frames) { return core_->Write(std::move(frames)); }

Loopback::Core::Core(Clock& clock, TimerQueue& timers)
    : clock_(clock),
      mu_(sync::Rank::kNetLink),
      timer_(timers, *this, [](void* self, Time) { static_cast<Core*>(self)->Drain(); }, this) {}

void Loopback::Core::Attach(LinkDispatcher* dispatcher) {
  PacketList dropped;
  {
    sync::MutexLock lock(mu_);
    dispatcher_ = dispatcher;
    if (dispatcher == nullptr) {
      dropped = std::move(queue_);
      queued_ = 0;
    }
  }
  if (dispatcher == nullptr) timer_.Cancel();
}

size_t Loopback::Core::Write(PacketList frames) {
  size_t taken = 0;
  {
    sync::MutexLock lock(mu_);
    if (dispatcher_ == nullptr) return 0;
    while (queued_ < kMaxQueued) {
      PacketPtr p = frames.PopFront();
      if (p == nullptr) break;
      // What the sender knew is not what the receiver knows.
      p->type = PacketType::kHost;
      p->transport_offset = 0;
      p->options_length = 0;
      p->router_alert = false;
      queue_.PushBack(std::move(p));
      queued_++;
      taken++;
    }
    if (draining_ || queued_ == 0) return taken;
  }
  Drain();
  return taken;
}

void Loopback::Core::Drain() {
  for (size_t delivered = 0;;) {
    PacketList batch;
    LinkDispatcher* dispatcher;
    {
      sync::MutexLock lock(mu_);
      if (delivered == 0 && draining_) return;  // somebody else is at it
      if (queued_ == 0 || dispatcher_ == nullptr || delivered >= kMaxPerCall) {
        draining_ = false;
        if (queued_ != 0 && dispatcher_ != nullptr) timer_.Schedule(clock_.Now());
        return;
      }
      draining_ = true;
      dispatcher = dispatcher_;
      if (queued_ <= kMaxPerCall - delivered) {
        batch = std::move(queue_);
        delivered += queued_;
        queued_ = 0;
      } else {
        while (delivered < kMaxPerCall) {
          batch.PushBack(queue_.PopFront());
          queued_--;
          delivered++;
        }
      }
    }
    while (PacketPtr p = batch.PopFront()) dispatcher->DeliverFrame(std::move(p));
  }
}

}  // namespace redoubt::netstack
