// What has arrived: bytes in order for the reader, and pieces behind holes (RFC 9293 section 3.10.7.4, RFC 2018, RFC
// 2883).
#ifndef REDOUBT_PKG_NETSTACK_TCP_RECEIVE_QUEUE_H_
#define REDOUBT_PKG_NETSTACK_TCP_RECEIVE_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pkg/netstack/buffer/buffer.h"
#include "pkg/netstack/tcp/seq.h"

namespace redoubt::netstack::tcp {

// Not thread-safe; part of a Connection. Bounded: the caller lets in only what is within the window, pieces number at
// most kMaxPieces, and small segments are copied together, so that the memory held stays within a small multiple of
// the bytes.
class ReceiveQueue final {
 public:
  static constexpr size_t kMaxPieces = 256;

  // The next byte expected. Set once, before the first Insert.
  void Start(Seq next) { next_ = next; }
  Seq next() const { return next_; }

  // Adds bytes at `seq`, which the caller has cut to the window (they may begin before next()). Returns how many
  // bytes the stream has grown by in order.
  struct Added {
    uint32_t in_order = 0;      // bytes that next() has moved by
    bool out_of_order = false;  // went behind a hole
    bool dropped = false;       // there was no room for another piece
    SeqRange duplicate;         // the first bytes that were there already, for DSACK; empty if none
  };
  Added Insert(Seq seq, Buffer data);
  // The FIN at next() is taken.
  void Advance(uint32_t n) { next_ += n; }

  // Bytes in order, for the reader; the queue's owner trims and splits it.
  Buffer& readable() { return readable_; }
  const Buffer& readable() const { return readable_; }

  bool has_holes() const { return pieces_ != nullptr && !pieces_->empty(); }
  size_t piece_count() const { return pieces_ == nullptr ? 0 : pieces_->size(); }
  // Bytes behind holes.
  uint32_t out_of_order_bytes() const { return out_of_order_bytes_; }
  // Memory of both parts.
  size_t memory() const;
  // The blocks to report, the piece that grew last first (RFC 2018 section 4). Returns how many.
  size_t SackBlocks(std::span<SeqRange> out) const;
  // Gives all memory back.
  void Clear();

 private:
  struct Piece {
    Seq start;
    uint32_t touched;  // when it last grew, in insertions
    Buffer data;
    Seq end() const { return start + static_cast<Seq>(data.size()); }
  };

  Seq next_ = 0;
  uint32_t out_of_order_bytes_ = 0;
  uint32_t insertions_ = 0;
  Buffer readable_;
  std::unique_ptr<std::vector<Piece>> pieces_;  // in order, apart from each other; null until the first
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_RECEIVE_QUEUE_H_
