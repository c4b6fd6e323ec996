// Private to bpf: instructions as they are run.
#ifndef REDOUBT_PKG_BPF_OP_H_
#define REDOUBT_PKG_BPF_OP_H_

#include "pkg/bpf/bpf.h"

namespace redoubt::bpf {

enum class Program::Op : uint8_t {
  kLoadWord,  // of a record
  // Of a packet, big-endian: at k, or at X + k.
  kLoadPacket4,
  kLoadPacket2,
  kLoadPacket1,
  kLoadPacketX4,
  kLoadPacketX2,
  kLoadPacketX1,
  kLoadHeaderLength,  // X = 4 times the low four bits of the byte at k
  kLoadAncillary,     // what SKF_AD_OFF + k names
  kLoadLength,
  kLoadIndexLength,
  kLoadConstant,
  kLoadMemory,
  kLoadIndexConstant,
  kLoadIndexMemory,
  kStore,
  kStoreIndex,
  kAddK,
  kAddX,
  kSubK,
  kSubX,
  kMulK,
  kMulX,
  kDivK,
  kDivX,
  kModK,
  kModX,
  kAndK,
  kAndX,
  kOrK,
  kOrX,
  kXorK,
  kXorX,
  kShiftLeftK,
  kShiftLeftX,
  kShiftRightK,
  kShiftRightX,
  kNegate,
  kJump,
  kJumpEqualK,
  kJumpEqualX,
  kJumpGreaterK,
  kJumpGreaterX,
  kJumpGreaterOrEqualK,
  kJumpGreaterOrEqualX,
  kJumpSetK,
  kJumpSetX,
  kReturnK,
  kReturnA,
  kToIndex,
  kFromIndex,
};

}  // namespace redoubt::bpf

#endif  // REDOUBT_PKG_BPF_OP_H_
