// Sequence numbers: arithmetic modulo 2^32 (RFC 9293 section 3.4).
#ifndef REDOUBT_PKG_NETSTACK_TCP_SEQ_H_
#define REDOUBT_PKG_NETSTACK_TCP_SEQ_H_

#include <cstdint>

namespace redoubt::netstack::tcp {

using Seq = uint32_t;

// How far `a` is ahead of `b`; negative if it is behind. Meaningful for distances below 2^31.
constexpr int32_t SeqDiff(Seq a, Seq b) { return static_cast<int32_t>(a - b); }
constexpr bool SeqLt(Seq a, Seq b) { return SeqDiff(a, b) < 0; }
constexpr bool SeqLe(Seq a, Seq b) { return SeqDiff(a, b) <= 0; }
constexpr bool SeqGt(Seq a, Seq b) { return SeqDiff(a, b) > 0; }
constexpr bool SeqGe(Seq a, Seq b) { return SeqDiff(a, b) >= 0; }
constexpr Seq SeqMax(Seq a, Seq b) { return SeqGt(a, b) ? a : b; }
constexpr Seq SeqMin(Seq a, Seq b) { return SeqLt(a, b) ? a : b; }

// Sequence numbers [start, end).
struct SeqRange {
  Seq start = 0;
  Seq end = 0;
  friend constexpr bool operator==(const SeqRange&, const SeqRange&) = default;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_SEQ_H_
