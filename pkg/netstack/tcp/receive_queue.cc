#include "pkg/netstack/tcp/receive_queue.h"

#include <algorithm>

namespace redoubt::netstack::tcp {

ReceiveQueue::Added ReceiveQueue::Insert(Seq seq, Buffer data) {
  Added added;
  Seq end = seq + static_cast<Seq>(data.size());
  if (SeqLt(seq, next_)) {
    added.duplicate = {seq, SeqMin(end, next_)};
    data.TrimFront(next_ - seq);
    seq = SeqMin(end, next_);
  }
  if (data.empty()) return added;
  insertions_++;
  if (seq == next_ && !has_holes()) {
    added.in_order = static_cast<uint32_t>(data.size());
    next_ = end;
    readable_.AppendCompact(std::move(data));
    return added;
  }
  if (pieces_ == nullptr) pieces_ = std::make_unique<std::vector<Piece>>();
  std::vector<Piece>& pieces = *pieces_;
  // The pieces that it touches, [first, last).
  auto first = std::ranges::find_if(pieces, [&](const Piece& p) { return SeqGe(p.end(), seq); });
  auto last = std::find_if(first, pieces.end(), [&](const Piece& p) { return SeqGt(p.start, end); });
  if (first == last) {
    if (seq != next_ && pieces.size() >= kMaxPieces) {
      added.dropped = true;
      return added;
    }
    out_of_order_bytes_ += static_cast<uint32_t>(data.size());
    data.Compact();
    first = pieces.insert(first, Piece{seq, insertions_, std::move(data)});
  } else {
    // What is there stays; of the new bytes only those before, between and after are taken. Whatever a sender does, a
    // byte once acknowledged or reported does not change.
    Seq old_bytes = 0;
    for (auto p = first; p != last; ++p) {
      old_bytes += static_cast<Seq>(p->data.size());
      SeqRange overlap{SeqMax(p->start, seq), SeqMin(p->end(), end)};
      if (SeqLt(overlap.start, overlap.end) && added.duplicate.start == added.duplicate.end) added.duplicate = overlap;
    }
    Piece joined{SeqMin(seq, first->start), insertions_, Buffer()};
    Seq at = seq;
    for (auto p = first; p != last; ++p) {
      if (SeqLt(at, p->start)) {
        uint32_t gap = p->start - at;
        joined.data.AppendCompact(data.SplitFront(gap));
      }
      Seq piece_end = p->end();
      joined.data.AppendCompact(std::move(p->data));
      if (SeqGt(piece_end, at)) {
        data.TrimFront(piece_end - SeqMax(at, p->start));
        at = piece_end;
      }
    }
    joined.data.AppendCompact(std::move(data));
    out_of_order_bytes_ += static_cast<uint32_t>(joined.data.size()) - old_bytes;
    *first = std::move(joined);
    pieces.erase(first + 1, last);
  }
  if (first->start == next_) {
    // The first piece always, since all lie behind next_.
    added.in_order = static_cast<uint32_t>(first->data.size());
    out_of_order_bytes_ -= added.in_order;
    next_ = first->end();
    readable_.AppendCompact(std::move(first->data));
    pieces.erase(first);
    if (pieces.empty()) pieces_.reset();
  } else {
    added.out_of_order = true;
  }
  return added;
}

size_t ReceiveQueue::memory() const {
  size_t n = readable_.memory();
  if (pieces_ != nullptr) {
    for (const Piece& p : *pieces_) n += p.data.memory();
  }
  return n;
}

size_t ReceiveQueue::SackBlocks(std::span<SeqRange> out) const {
  if (pieces_ == nullptr) return 0;
  size_t n = 0;
  uint32_t below = 0;  // age of the last one taken; ages are different
  while (n < out.size()) {
    const Piece* best = nullptr;
    uint32_t best_age = 0;
    for (const Piece& p : *pieces_) {
      uint32_t age = insertions_ - p.touched + 1;
      if (age > below && (best == nullptr || age < best_age)) best = &p, best_age = age;
    }
    if (best == nullptr) break;
    out[n++] = {best->start, best->end()};
    below = best_age;
  }
  return n;
}

void ReceiveQueue::Clear() {
  readable_ = Buffer();
  pieces_.reset();
  out_of_order_bytes_ = 0;
}

}  // namespace redoubt::netstack::tcp
