#include "pkg/bpf/bpf.h"

#include <array>

#include "pkg/log/log.h"

namespace redoubt::bpf {

enum class Program::Op : uint8_t {
  kLoadWord,
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

}  // namespace

Result<Program> Program::Create(std::span<const sock_filter> code, size_t words) {
  CHECK(words <= kMaxWords, "a record is too long");
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
    switch (f.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        in.op = Op::kLoadWord;
        good = f.k % sizeof(uint32_t) == 0 && f.k / sizeof(uint32_t) < words;
        in.k = f.k / sizeof(uint32_t);
        if (good) program.loads_ |= uint64_t{1} << in.k;
        break;
      case BPF_LD | BPF_W | BPF_LEN:
        in.op = Op::kLoadConstant;
        in.k = static_cast<uint32_t>(words * sizeof(uint32_t));
        break;
      case BPF_LDX | BPF_W | BPF_LEN:
        in.op = Op::kLoadIndexConstant;
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

// False: a word past `words` is wanted (kPrefix).
template <bool kPrefix>
bool Program::Execute(const uint32_t* record, size_t words, uint32_t* result) const {
  uint32_t a = 0, x = 0;
  std::array<uint32_t, BPF_MEMWORDS> memory;  // nothing is read that was not written
  for (const Instruction* in = code_.data();; in++) {
    bool condition = false;
    switch (in->op) {
      case Op::kLoadWord:
        if (kPrefix && in->k >= words) return false;
        a = record[in->k];
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
  Execute<false>(record, 0, &result);
  return result;
}

std::optional<uint32_t> Program::RunPrefix(std::span<const uint32_t> known) const {
  uint32_t result = 0;
  if (!Execute<true>(known.data(), known.size(), &result)) return std::nullopt;
  return result;
}

}  // namespace redoubt::bpf
