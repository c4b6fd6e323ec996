// Programs at random, most of them good, of the instructions that are likely to be mistaken for one another.
#ifndef REDOUBT_PKG_BPF_RANDOM_PROGRAM_H_
#define REDOUBT_PKG_BPF_RANDOM_PROGRAM_H_

#include <linux/filter.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

namespace redoubt::bpf {

using Code = std::vector<sock_filter>;

class RandomProgram final {
 public:
  enum class Loads : bool { kWords, kBytes };
  // Loads are of a record of that many words, or of a packet of about that many.
  RandomProgram(uint64_t seed, uint32_t words, Loads loads = Loads::kWords)
      : random_(seed), words_(words), loads_(loads) {}

  uint32_t Number() {
    switch (random_() % 6) {
      case 0:
        return 0;
      case 1:
        return static_cast<uint32_t>(random_() % 40);
      case 2:
        return uint32_t{1} << random_() % 32;
      case 3:
        return ~uint32_t{0} - static_cast<uint32_t>(random_() % 3);
      default:
        return static_cast<uint32_t>(random_());
    }
  }

  Code Make(size_t length) {
    Code code;
    for (size_t at = 0; at + 1 < length; at++) code.push_back(One(length - at - 1));
    code.push_back(random_() % 4 == 0 ? Stmt(BPF_RET | BPF_K, Number()) : Stmt(BPF_RET | BPF_A, 0));
    return code;
  }

  // Changes that make a program wrong more often than not.
  void Mutate(Code* code) {
    for (uint64_t n = 1 + random_() % 3; n > 0 && !code->empty(); n--) {
      sock_filter& f = (*code)[random_() % code->size()];
      switch (random_() % 7) {
        case 0:
          f.code = static_cast<uint16_t>(random_() % 256);
          break;
        case 1:
          f.code = static_cast<uint16_t>(random_());
          break;
        case 2:
          f.k = Number();
          break;
        case 3:
          f.jt = static_cast<uint8_t>(random_() % 24);
          f.jf = static_cast<uint8_t>(random_());
          break;
        case 4:
          code->erase(code->begin() + static_cast<ptrdiff_t>(random_() % code->size()));
          break;
        case 5:
          code->insert(code->begin() + static_cast<ptrdiff_t>(random_() % code->size()), One(code->size()));
          break;
        default:
          code->resize(random_() % (code->size() + 1));
      }
    }
  }

  uint64_t operator()() { return random_(); }

 private:
  static sock_filter Stmt(uint16_t code, uint32_t k) { return {code, 0, 0, k}; }

  // Of bytes, few of them beyond the end; and of what is known beside them, where that is the same everywhere.
  sock_filter Load() {
    constexpr uint16_t kSizes[] = {BPF_W, BPF_H, BPF_B};
    constexpr uint32_t kBeside[] = {SKF_AD_MARK,    SKF_AD_QUEUE,    SKF_AD_RXHASH,           SKF_AD_ALU_XOR_X,
                                    SKF_AD_PKTTYPE, SKF_AD_VLAN_TAG, SKF_AD_VLAN_TAG_PRESENT, SKF_AD_NLATTR};
    const uint16_t size = kSizes[random_() % std::size(kSizes)];
    const auto at = static_cast<uint32_t>(random_() % (random_() % 16 == 0 ? words_ * 4 + 8 : words_ * 4 - 3));
    switch (random_() % 8) {
      case 0:
        return Stmt(BPF_LDX | BPF_B | BPF_MSH, at);
      case 1:
        return Stmt(static_cast<uint16_t>(BPF_LD | size | BPF_ABS),
                    static_cast<uint32_t>(SKF_AD_OFF) + kBeside[random_() % std::size(kBeside)]);
      case 2:
      case 3:
        // X is small after the length of a header, and often 0.
        return Stmt(static_cast<uint16_t>(BPF_LD | size | BPF_IND), at / 2);
      default:
        return Stmt(static_cast<uint16_t>(BPF_LD | size | BPF_ABS), at);
    }
  }

  // One that `left` others follow.
  sock_filter One(size_t left) {
    constexpr uint16_t kAlu[] = {BPF_ADD, BPF_SUB, BPF_MUL, BPF_AND, BPF_OR, BPF_XOR, BPF_DIV, BPF_LSH, BPF_RSH};
    constexpr uint16_t kJumps[] = {BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET};
    const auto source = static_cast<uint16_t>(random_() % 2 == 0 ? BPF_K : BPF_X);
    const auto skip = [&] { return static_cast<uint8_t>(random_() % std::min<size_t>(left, 8)); };
    const auto word = static_cast<uint32_t>(random_() % BPF_MEMWORDS);
    switch (random_() % 16) {
      case 0:
      case 1:
      case 2:
        if (loads_ == Loads::kBytes) return Load();
        return Stmt(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(random_() % words_) * 4);
      case 3:
        return Stmt(random_() % 2 == 0 ? BPF_LD | BPF_IMM : BPF_LDX | BPF_IMM, Number());
      case 4:
        return Stmt(random_() % 2 == 0 ? BPF_LD | BPF_W | BPF_LEN : BPF_LDX | BPF_W | BPF_LEN, 0);
      case 5:
        return Stmt(random_() % 2 == 0 ? BPF_ST : BPF_STX, word % 3);
      case 6:
        return Stmt(random_() % 2 == 0 ? BPF_LD | BPF_MEM : BPF_LDX | BPF_MEM, word % 3);
      case 7:
        return Stmt(random_() % 3 == 0 ? BPF_MISC | BPF_TXA : BPF_MISC | BPF_TAX, 0);
      case 8:
        return Stmt(BPF_ALU | BPF_NEG, 0);
      case 9:
      case 10:
      case 11: {
        uint16_t op = kAlu[random_() % std::size(kAlu)];
        if (op == BPF_DIV && loads_ == Loads::kBytes && random_() % 2 == 0) op = BPF_MOD;
        uint32_t k = Number();
        if (op == BPF_LSH || op == BPF_RSH) k %= 32;
        if ((op == BPF_DIV || op == BPF_MOD) && k == 0) k = 3;
        return Stmt(static_cast<uint16_t>(BPF_ALU | op | source), k);
      }
      case 12:
        return Stmt(BPF_JMP | BPF_JA, skip());
      case 13:
        if (random_() % 3 == 0) return Stmt(BPF_RET | BPF_A, 0);
        [[fallthrough]];
      default:
        return {static_cast<uint16_t>(BPF_JMP | kJumps[random_() % std::size(kJumps)] | source), skip(), skip(),
                Number()};
    }
  }

  std::mt19937_64 random_;
  const uint32_t words_;
  const Loads loads_;
};

// Instead of returning a value the program goes on to its end, where all 32 bits of it, folded into twelve, are in A.
inline void AppendFolded(const Code& program, Code& code) {
  for (size_t i = 0; i < program.size(); i++) {
    sock_filter f = program[i];
    if (f.code == (BPF_RET | BPF_A) || f.code == (BPF_RET | BPF_K)) {
      f = BPF_STMT(BPF_JMP | BPF_JA, static_cast<uint32_t>(program.size() - i - 1));
    }
    code.push_back(f);
  }
  const sock_filter fold[] = {
      BPF_STMT(BPF_ST, 15),
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 12),
      BPF_STMT(BPF_LDX | BPF_MEM, 15),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_ST, 14),
      BPF_STMT(BPF_LD | BPF_MEM, 15),
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 24),
      BPF_STMT(BPF_LDX | BPF_MEM, 14),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xfff),
  };
  code.insert(code.end(), std::begin(fold), std::end(fold));
}

}  // namespace redoubt::bpf

#endif  // REDOUBT_PKG_BPF_RANDOM_PROGRAM_H_
