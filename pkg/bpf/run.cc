// What instructions do.
#include <array>
#include <bit>

#include "pkg/bpf/op.h"
#include "pkg/bpf/packet.h"

namespace redoubt::bpf {

namespace {

// Where loads go to. False: it cannot be told.
struct NoPacket {
  template <size_t>
  bool Load(uint32_t, uint32_t*) const {
    return false;
  }
  bool Ancillary(uint32_t, uint32_t, uint32_t*) const { return false; }
  uint32_t length() const { return 0; }
};

struct Record : NoPacket {
  const uint32_t* words;
  explicit Record(const uint32_t* record) : words(record) {}
  bool Word(uint32_t word, uint32_t* to) const {
    *to = words[word];
    return true;
  }
};

struct Prefix : NoPacket {
  std::span<const uint32_t> words;
  explicit Prefix(std::span<const uint32_t> known) : words(known) {}
  bool Word(uint32_t word, uint32_t* to) const {
    if (word >= words.size()) return false;
    *to = words[word];
    return true;
  }
};

struct PacketInput {
  const Packet& packet;
  bool Word(uint32_t, uint32_t*) const { return false; }
  template <size_t kSize>
  bool Load(uint32_t offset, uint32_t* to) const {
    std::array<std::byte, 4> bytes{};
    if (!LoadBytes(packet, offset, std::span(bytes).template last<kSize>())) return false;
    *to = __builtin_bswap32(std::bit_cast<uint32_t>(bytes));
    return true;
  }
  bool Ancillary(uint32_t which, uint32_t x, uint32_t* a) const { return LoadAncillary(packet, which, x, a); }
  uint32_t length() const { return packet.size(); }
};

}  // namespace

template <typename Input>
bool Program::Execute(const Input& input, uint32_t* result) const {
  uint32_t a = 0, x = 0;
  std::array<uint32_t, BPF_MEMWORDS> memory;  // nothing is read that was not written
  for (const Instruction* in = code_.data();; in++) {
    bool condition = false;
    switch (in->op) {
      case Op::kLoadWord:
        if (!input.Word(in->k, &a)) return false;
        continue;
      case Op::kLoadPacket4:
        if (!input.template Load<4>(in->k, &a)) return false;
        continue;
      case Op::kLoadPacket2:
        if (!input.template Load<2>(in->k, &a)) return false;
        continue;
      case Op::kLoadPacket1:
        if (!input.template Load<1>(in->k, &a)) return false;
        continue;
      case Op::kLoadPacketX4:
        if (!input.template Load<4>(x + in->k, &a)) return false;
        continue;
      case Op::kLoadPacketX2:
        if (!input.template Load<2>(x + in->k, &a)) return false;
        continue;
      case Op::kLoadPacketX1:
        if (!input.template Load<1>(x + in->k, &a)) return false;
        continue;
      case Op::kLoadHeaderLength:
        if (!input.template Load<1>(in->k, &x)) return false;
        x = (x & 15) * 4;
        continue;
      case Op::kLoadAncillary:
        if (!input.Ancillary(in->k, x, &a)) return false;
        continue;
      case Op::kLoadLength:
        a = input.length();
        continue;
      case Op::kLoadIndexLength:
        x = input.length();
        continue;
      case Op::kLoadConstant:
        a = in->k;
        continue;
      case Op::kLoadMemory:
        a = memory[in->k];
        continue;
      case Op::kLoadIndexConstant:
        x = in->k;
        continue;
      case Op::kLoadIndexMemory:
        x = memory[in->k];
        continue;
      case Op::kStore:
        memory[in->k] = a;
        continue;
      case Op::kStoreIndex:
        memory[in->k] = x;
        continue;
      case Op::kAddK:
        a += in->k;
        continue;
      case Op::kAddX:
        a += x;
        continue;
      case Op::kSubK:
        a -= in->k;
        continue;
      case Op::kSubX:
        a -= x;
        continue;
      case Op::kMulK:
        a *= in->k;
        continue;
      case Op::kMulX:
        a *= x;
        continue;
      case Op::kDivK:
        a /= in->k;
        continue;
      case Op::kDivX:
        if (x == 0) {
          *result = 0;
          return true;
        }
        a /= x;
        continue;
      case Op::kModK:
        a %= in->k;
        continue;
      case Op::kModX:
        if (x == 0) {
          *result = 0;
          return true;
        }
        a %= x;
        continue;
      case Op::kAndK:
        a &= in->k;
        continue;
      case Op::kAndX:
        a &= x;
        continue;
      case Op::kOrK:
        a |= in->k;
        continue;
      case Op::kOrX:
        a |= x;
        continue;
      case Op::kXorK:
        a ^= in->k;
        continue;
      case Op::kXorX:
        a ^= x;
        continue;
      case Op::kShiftLeftK:
        a <<= in->k;
        continue;
      // As the processor's: the low five bits count.
      case Op::kShiftLeftX:
        a <<= x & 31;
        continue;
      case Op::kShiftRightK:
        a >>= in->k;
        continue;
      case Op::kShiftRightX:
        a >>= x & 31;
        continue;
      case Op::kNegate:
        a = -a;
        continue;
      case Op::kToIndex:
        x = a;
        continue;
      case Op::kFromIndex:
        a = x;
        continue;
      case Op::kReturnK:
        *result = in->k;
        return true;
      case Op::kReturnA:
        *result = a;
        return true;
      case Op::kJump:
        in += in->k;
        continue;
      case Op::kJumpEqualK:
        condition = a == in->k;
        break;
      case Op::kJumpEqualX:
        condition = a == x;
        break;
      case Op::kJumpGreaterK:
        condition = a > in->k;
        break;
      case Op::kJumpGreaterX:
        condition = a > x;
        break;
      case Op::kJumpGreaterOrEqualK:
        condition = a >= in->k;
        break;
      case Op::kJumpGreaterOrEqualX:
        condition = a >= x;
        break;
      case Op::kJumpSetK:
        condition = (a & in->k) != 0;
        break;
      case Op::kJumpSetX:
        condition = (a & x) != 0;
        break;
    }
    in += condition ? in->on_true : in->on_false;
  }
}

uint32_t Program::Run(const uint32_t* record) const {
  uint32_t result = 0;
  Execute(Record{record}, &result);
  return result;
}

std::optional<uint32_t> Program::RunPrefix(std::span<const uint32_t> known) const {
  uint32_t result = 0;
  if (!Execute(Prefix{known}, &result)) return std::nullopt;
  return result;
}

uint32_t Program::Run(const Packet& packet) const {
  uint32_t result = 0;
  return Execute(PacketInput{packet}, &result) ? result : 0;
}

}  // namespace redoubt::bpf
