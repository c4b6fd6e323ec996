#include "pkg/netstack/fragmentation/reassembler.h"

#include <cstring>

namespace redoubt::netstack {

size_t Reassembler::KeyHash::operator()(const Key& k) const {
  std::array<std::byte, 37> bytes{};
  std::memcpy(bytes.data(), k.source.bytes().data(), k.source.size());
  std::memcpy(bytes.data() + 16, k.destination.bytes().data(), k.destination.size());
  std::memcpy(bytes.data() + 32, &k.id, sizeof(k.id));
  bytes[36] = std::byte{k.protocol};
  return SipHash(key, bytes);
}

Reassembler::Reassembler(Clock& clock, RandomSource& random, TimerQueue& timers, Time timeout, Expired expired)
    : clock_(clock),
      timeout_(timeout),
      expired_(std::move(expired)),
      mu_(sync::Rank::kNetReassembly),
      by_key_(16, KeyHash{NewHashKey(random)}),
      timer_(timers, *this, [](void* self, Time now) { static_cast<Reassembler*>(self)->OnTimer(now); }, this) {}

Reassembler::Added Reassembler::Add(const Key& key, PacketPtr fragment, size_t payload_at, size_t offset, bool more) {
  Time now = clock_.Now();
  size_t length = fragment->data.size() - payload_at;
  size_t end = offset + length;
  sync::MutexLock lock(mu_);
  if (closed_) return {Outcome::kDropped, nullptr};
  auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    if (datagrams_.size() >= kMaxDatagrams) {
      failures_.fetch_add(1, std::memory_order_relaxed);
      EraseLocked(datagrams_.begin());
    }
    datagrams_.push_back({.key = key, .deadline = now + timeout_});
    found = by_key_.emplace(key, std::prev(datagrams_.end())).first;
    if (timer_.deadline() == kNever) timer_.Schedule(datagrams_.front().deadline);
  }
  List::iterator it = found->second;
  Datagram& d = *it;
  if (d.poisoned) return {Outcome::kDropped, nullptr};

  // Only the last may have a length that is no multiple of 8; an empty one adds nothing and is an attempt at something.
  bool bad = length == 0 || (more && length % 8 != 0) || end > kMaxDatagramSize ||
             (d.total != 0 && (end > d.total || (!more && end != d.total))) || d.pieces.size() >= kMaxFragments;
  auto next = d.pieces.lower_bound(offset);
  if (!bad && next != d.pieces.end() && next->first == offset && next->second.end == end) {
    return {Outcome::kWaiting, nullptr};  // a duplicate
  }
  if (next != d.pieces.end() && next->first < end) bad = true;
  if (next != d.pieces.begin() && std::prev(next)->second.end > offset) bad = true;
  if (!more && !d.pieces.empty() && std::prev(d.pieces.end())->second.end > end) bad = true;
  if (bad) {
    PoisonLocked(d);
    return {Outcome::kDropped, nullptr};
  }
  if (!more) d.total = end;
  d.received += length;
  size_t memory = fragment->data.memory() + sizeof(Packet);
  d.memory += memory;
  memory_ += memory;
  d.pieces.emplace_hint(next, offset, Piece{end, std::move(fragment), payload_at});
  if (d.total == 0 || d.received != d.total) {
    while (memory_ > kMaxMemory && !datagrams_.empty()) {
      failures_.fetch_add(1, std::memory_order_relaxed);
      EraseLocked(datagrams_.begin());
    }
    return {Outcome::kWaiting, nullptr};
  }
  // Whole: no overlaps and as many bytes as the end says.
  PacketPtr first;
  for (auto& [at, piece] : d.pieces) {
    if (first == nullptr) {
      first = std::move(piece.packet);
      continue;
    }
    piece.packet->data.TrimFront(piece.payload_at);
    first->data.Append(std::move(piece.packet->data));
  }
  EraseLocked(it);
  return {Outcome::kComplete, std::move(first)};
}

size_t Reassembler::memory() const {
  sync::MutexLock lock(mu_);
  return memory_;
}

void Reassembler::Close() {
  {
    sync::MutexLock lock(mu_);
    closed_ = true;
    while (!datagrams_.empty()) EraseLocked(datagrams_.begin());
  }
  timer_.Cancel();
}

void Reassembler::OnTimer(Time now) {
  PacketList firsts;
  {
    sync::MutexLock lock(mu_);
    while (!datagrams_.empty() && datagrams_.front().deadline <= now) {
      Datagram& d = datagrams_.front();
      if (!d.poisoned) failures_.fetch_add(1, std::memory_order_relaxed);
      if (!d.pieces.empty() && d.pieces.begin()->first == 0) {
        firsts.PushBack(std::move(d.pieces.begin()->second.packet));
      }
      EraseLocked(datagrams_.begin());
    }
    if (!datagrams_.empty()) timer_.Schedule(datagrams_.front().deadline);
  }
  while (PacketPtr p = firsts.PopFront()) expired_(std::move(p));
}

void Reassembler::PoisonLocked(Datagram& d) {
  failures_.fetch_add(1, std::memory_order_relaxed);
  d.poisoned = true;
  d.pieces.clear();
  memory_ -= d.memory;
  d.memory = 0;
}

void Reassembler::EraseLocked(List::iterator it) {
  memory_ -= it->memory;
  by_key_.erase(it->key);
  datagrams_.erase(it);
}

}  // namespace redoubt::netstack
