#include "pkg/netstack/stack/frame_batch.h"

#include <utility>
#include <vector>

#include "pkg/netstack/stack/interface.h"

namespace redoubt::netstack {
namespace {

struct Outbox {
  RefPtr<Interface> interface;
  PacketList frames;
  size_t count = 0;
};
struct Deferred {
  RefPtr<RefCounted> owner;
  DeferredSender* sender;
};
// What the thread's batch holds; empty outside of one. The lists are used again, so that a batch allocates nothing.
struct State {
  int depth = 0;
  std::vector<Outbox> outboxes;
  std::vector<Deferred> deferred;
};

State& OfThread() {
  thread_local State state;
  return state;
}

void WriteAll(State& s) {
  // By index: a link may send while it writes.
  for (size_t i = 0; i < s.outboxes.size(); i++) {
    Outbox box = std::move(s.outboxes[i]);
    if (box.interface) box.interface->WriteFrames(std::move(box.frames), box.count);
  }
  s.outboxes.clear();
}

}  // namespace

FrameBatch::FrameBatch() { OfThread().depth++; }

FrameBatch::~FrameBatch() {
  State& s = OfThread();
  if (s.depth > 1) {
    s.depth--;
    return;
  }
  while (!s.deferred.empty()) {
    // More may come while these send.
    size_t n = s.deferred.size();
    for (size_t i = 0; i < n; i++) s.deferred[i].sender->SendDeferred();
    WriteAll(s);
    size_t kept = 0;
    for (size_t i = 0; i < s.deferred.size(); i++) {
      if (i < n && !s.deferred[i].sender->DeferredSent()) continue;
      if (kept != i) s.deferred[kept] = std::move(s.deferred[i]);
      kept++;
    }
    s.deferred.resize(kept);
  }
  WriteAll(s);
  s.depth--;
}

bool FrameBatch::Active() { return OfThread().depth > 0; }

void FrameBatch::Defer(RefPtr<RefCounted> owner, DeferredSender& sender) {
  OfThread().deferred.push_back({std::move(owner), &sender});
}

bool FrameBatch::Take(Interface& interface, PacketPtr& frame) {
  State& s = OfThread();
  if (s.depth == 0) return false;
  Outbox* box = nullptr;
  for (Outbox& b : s.outboxes) {
    if (b.interface.get() == &interface) box = &b;
  }
  if (box == nullptr) box = &s.outboxes.emplace_back(Outbox{.interface = RefPtr(&interface), .frames = {}, .count = 0});
  box->frames.PushBack(std::move(frame));
  if (++box->count == kMaxFrames) interface.WriteFrames(std::move(box->frames), std::exchange(box->count, 0));
  return true;
}

}  // namespace redoubt::netstack
