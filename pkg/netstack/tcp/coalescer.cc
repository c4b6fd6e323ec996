#include "pkg/netstack/tcp/coalescer.h"

#include <algorithm>
#include <utility>

namespace redoubt::netstack::tcp {

namespace {

// Data and nothing else that a connection would have to see by itself.
bool IsPlain(const Segment& s) {
  return (s.flags & ~kPsh) == kAck && !s.payload.empty() && s.options.sack_count == 0 && s.ecn != Ecn::kCe;
}

// Whether `s` says nothing that `before`, joined with its bytes, does not.
bool Continues(const Segment& before, const Segment& s) {
  return s.seq == before.end() && s.ack == before.ack && s.window == before.window && s.ecn == before.ecn &&
         s.options.timestamp == before.options.timestamp && s.options.ts_value == before.options.ts_value &&
         s.options.ts_echo == before.options.ts_echo && s.payload.size() <= before.segment_size &&
         before.payload.size() + s.payload.size() <= Coalescer::kMaxPayload;
}

}  // namespace

Coalescer& Coalescer::OfThread() {
  thread_local Coalescer coalescer;
  return coalescer;
}

bool Coalescer::Take(const RefPtr<Endpoint>& endpoint, Segment& s, bool may_join) {
  const bool plain = may_join && IsPlain(s);
  Held* held = std::ranges::find_if(held_, [&](const Held& h) { return h.endpoint.get() == endpoint.get(); });
  if (held != held_.end()) {
    if (plain && Continues(held->segment, s)) {
      // The last of a sender's burst is short, or says that it is the last.
      const bool last = s.payload.size() < held->segment.segment_size || s.Has(kPsh);
      held->segment.flags |= s.flags;
      held->segment.payload.Append(std::move(s.payload));
      if (last) HandOn(*held);
      return true;
    }
    HandOn(*held);
  }
  if (!plain || s.Has(kPsh)) return false;
  if (held == held_.end()) {
    held = std::ranges::find_if(held_, [](const Held& h) { return h.endpoint == nullptr; });
    if (held == held_.end()) {
      held = &held_[next_++ % kConnections];
      HandOn(*held);
    }
  }
  held->endpoint = endpoint;
  held->segment = std::move(s);
  held->segment.segment_size = static_cast<uint16_t>(held->segment.payload.size());
  if (!std::exchange(deferred_, true)) FrameBatch::Defer(endpoint, *this);
  return true;
}

void Coalescer::HandOn(Held& held) {
  RefPtr<Endpoint> endpoint = std::move(held.endpoint);
  Segment segment = std::move(held.segment);
  // What it answers matters only for a SYN.
  (void)endpoint->HandleSegment(segment);
}

void Coalescer::SendDeferred() {
  for (Held& h : held_) {
    if (h.endpoint) HandOn(h);
  }
}

bool Coalescer::DeferredSent() {
  deferred_ = std::ranges::any_of(held_, [](const Held& h) { return h.endpoint != nullptr; });
  return deferred_;
}

}  // namespace redoubt::netstack::tcp
