#include "pkg/bpf/bpf.h"

#include "pkg/bpf/op.h"
#include "pkg/log/log.h"

namespace redoubt::bpf {

namespace {

// Which of the BPF_MEMWORDS words were written on every way to an instruction. A return does not end a way: what
// follows it is held to the words that were written before it, as by the kernel.
class WrittenWords final {
 public:
  explicit WrittenWords(size_t instructions) : at_(instructions, kAll) {}

  void Enter(size_t at) { now_ &= at_[at]; }
  void Write(uint32_t word) { now_ |= Bit(word); }
  bool Has(uint32_t word) const { return (now_ & Bit(word)) != 0; }
  void Reach(size_t at) { at_[at] &= now_; }
  // What follows is reached by jumps only.
  void Leave() { now_ = kAll; }

 private:
  static constexpr uint32_t kAll = (uint32_t{1} << BPF_MEMWORDS) - 1;
  static constexpr uint32_t Bit(uint32_t word) { return uint32_t{1} << word; }
  std::vector<uint32_t> at_;
  uint32_t now_ = 0;
};

constexpr uint32_t kAncillary = static_cast<uint32_t>(SKF_AD_OFF);

// All there are: every fourth number, as far as SKF_AD_MAX.
constexpr bool IsAncillary(uint32_t which) { return which % 4 == 0 && which < SKF_AD_MAX; }

}  // namespace

Result<Program> Program::Create(std::span<const sock_filter> code, size_t words) {
  CHECK(words <= kMaxWords, "a record is too long");
  return Create(code, words, Kind::kRecords);
}

Result<Program> Program::CreateForPackets(std::span<const sock_filter> code) { return Create(code, 0, Kind::kPackets); }

Result<Program> Program::Create(std::span<const sock_filter> code, size_t words, Kind kind) {
  const bool packets = kind == Kind::kPackets;
  if (code.empty() || code.size() > kMaxInstructions) return Err(EINVAL);
  Program program;
  program.code_.reserve(code.size());
  WrittenWords written(code.size());
  for (size_t at = 0; at < code.size(); at++) {
    const sock_filter& f = code[at];
    const size_t left = code.size() - at - 1;  // instructions that follow
    written.Enter(at);
    Instruction in{.op = Op::kReturnK, .on_true = 0, .on_false = 0, .k = f.k};
    auto memory = [&](Op op) {
      in.op = op;
      return f.k < BPF_MEMWORDS;
    };
    auto jump = [&](Op op) {
      in.op = op;
      in.on_true = f.jt;
      in.on_false = f.jf;
      if (f.jt >= left || f.jf >= left) return false;
      written.Reach(at + 1 + f.jt);
      written.Reach(at + 1 + f.jf);
      written.Leave();
      return true;
    };
    bool good = true;
    auto packet = [&](Op op) {
      in.op = op;
      return packets;
    };
    auto absolute = [&](Op op) {
      // The last 4 KiB name no bytes.
      if (f.k < kAncillary) return packet(op);
      in.k = f.k - kAncillary;
      return packet(Op::kLoadAncillary) && IsAncillary(in.k);
    };
    switch (f.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (packets) {
          good = absolute(Op::kLoadPacket4);
          break;
        }
        in.op = Op::kLoadWord;
        good = f.k % sizeof(uint32_t) == 0 && f.k / sizeof(uint32_t) < words;
        in.k = f.k / sizeof(uint32_t);
        if (good) program.loads_ |= uint64_t{1} << in.k;
        break;
      case BPF_LD | BPF_H | BPF_ABS:
        good = absolute(Op::kLoadPacket2);
        break;
      case BPF_LD | BPF_B | BPF_ABS:
        good = absolute(Op::kLoadPacket1);
        break;
      case BPF_LD | BPF_W | BPF_IND:
        good = packet(Op::kLoadPacketX4);
        break;
      case BPF_LD | BPF_H | BPF_IND:
        good = packet(Op::kLoadPacketX2);
        break;
      case BPF_LD | BPF_B | BPF_IND:
        good = packet(Op::kLoadPacketX1);
        break;
      case BPF_LDX | BPF_B | BPF_MSH:
        good = packet(Op::kLoadHeaderLength);
        break;
      case BPF_LD | BPF_W | BPF_LEN:
        in.op = packets ? Op::kLoadLength : Op::kLoadConstant;
        in.k = static_cast<uint32_t>(words * sizeof(uint32_t));
        break;
      case BPF_LDX | BPF_W | BPF_LEN:
        in.op = packets ? Op::kLoadIndexLength : Op::kLoadIndexConstant;
        in.k = static_cast<uint32_t>(words * sizeof(uint32_t));
        break;
      case BPF_LD | BPF_IMM:
        in.op = Op::kLoadConstant;
        break;
      case BPF_LDX | BPF_IMM:
        in.op = Op::kLoadIndexConstant;
        break;
      case BPF_LD | BPF_MEM:
        good = memory(Op::kLoadMemory) && written.Has(f.k);
        break;
      case BPF_LDX | BPF_MEM:
        good = memory(Op::kLoadIndexMemory) && written.Has(f.k);
        break;
      case BPF_ST:
        good = memory(Op::kStore);
        if (good) written.Write(f.k);
        break;
      case BPF_STX:
        good = memory(Op::kStoreIndex);
        if (good) written.Write(f.k);
        break;
#define ALU(name, op_)         \
  case BPF_ALU | name | BPF_K: \
    in.op = Op::op_##K;        \
    break;                     \
  case BPF_ALU | name | BPF_X: \
    in.op = Op::op_##X;        \
    break
        ALU(BPF_ADD, kAdd);
        ALU(BPF_SUB, kSub);
        ALU(BPF_MUL, kMul);
        ALU(BPF_AND, kAnd);
        ALU(BPF_OR, kOr);
        ALU(BPF_XOR, kXor);
#undef ALU
      case BPF_ALU | BPF_DIV | BPF_K:
        in.op = Op::kDivK;
        good = f.k != 0;
        break;
      case BPF_ALU | BPF_DIV | BPF_X:
        in.op = Op::kDivX;
        break;
      case BPF_ALU | BPF_MOD | BPF_K:
        in.op = Op::kModK;
        good = packets && f.k != 0;
        break;
      case BPF_ALU | BPF_MOD | BPF_X:
        in.op = Op::kModX;
        good = packets;
        break;
      case BPF_ALU | BPF_LSH | BPF_K:
        in.op = Op::kShiftLeftK;
        good = f.k < 32;
        break;
      case BPF_ALU | BPF_LSH | BPF_X:
        in.op = Op::kShiftLeftX;
        break;
      case BPF_ALU | BPF_RSH | BPF_K:
        in.op = Op::kShiftRightK;
        good = f.k < 32;
        break;
      case BPF_ALU | BPF_RSH | BPF_X:
        in.op = Op::kShiftRightX;
        break;
      case BPF_ALU | BPF_NEG:
        in.op = Op::kNegate;
        break;
      case BPF_JMP | BPF_JA:
        in.op = Op::kJump;
        good = f.k < left;
        if (good) {
          written.Reach(at + 1 + f.k);
          written.Leave();
        }
        break;
#define JUMP(name, op_)        \
  case BPF_JMP | name | BPF_K: \
    good = jump(Op::op_##K);   \
    break;                     \
  case BPF_JMP | name | BPF_X: \
    good = jump(Op::op_##X);   \
    break
        JUMP(BPF_JEQ, kJumpEqual);
        JUMP(BPF_JGT, kJumpGreater);
        JUMP(BPF_JGE, kJumpGreaterOrEqual);
        JUMP(BPF_JSET, kJumpSet);
#undef JUMP
      case BPF_RET | BPF_K:
        in.op = Op::kReturnK;
        break;
      case BPF_RET | BPF_A:
        in.op = Op::kReturnA;
        break;
      case BPF_MISC | BPF_TAX:
        in.op = Op::kToIndex;
        break;
      case BPF_MISC | BPF_TXA:
        in.op = Op::kFromIndex;
        break;
      default:
        good = false;
    }
    if (!good) return Err(EINVAL);
    program.code_.push_back(in);
  }
  const Op last = program.code_.back().op;
  if (last != Op::kReturnK && last != Op::kReturnA) return Err(EINVAL);
  return program;
}

}  // namespace redoubt::bpf
