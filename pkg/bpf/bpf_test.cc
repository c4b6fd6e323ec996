#include "pkg/bpf/bpf.h"

#include <gtest/gtest.h>

#include <array>

namespace redoubt::bpf {
namespace {

using Code = std::vector<sock_filter>;
constexpr size_t kWords = 16;
constexpr sock_filter kReturnA = BPF_STMT(BPF_RET | BPF_A, 0);

sock_filter Stmt(int code, uint32_t k = 0) { return {static_cast<uint16_t>(code), 0, 0, k}; }
sock_filter Jump(int code, uint32_t k, uint8_t on_true, uint8_t on_false) {
  return {static_cast<uint16_t>(code), on_true, on_false, k};
}

uint32_t Evaluate(const Code& code, std::array<uint32_t, kWords> record = {}) {
  Result<Program> program = Program::Create(code, kWords);
  EXPECT_TRUE(program);
  return program ? program->Run(record.data()) : 0xdead;
}
bool IsGood(const Code& code) {
  Result<Program> program = Program::Create(code, kWords);
  EXPECT_TRUE(program || program.error() == Errno(EINVAL));
  return program.has_value();
}

TEST(Bpf, ReturnsConstantsAndTheAccumulator) {
  EXPECT_EQ(Evaluate({Stmt(BPF_RET | BPF_K, 7)}), 7u);
  EXPECT_EQ(Evaluate({kReturnA}), 0u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_IMM, 9), kReturnA}), 9u);
}

TEST(Bpf, LoadsWordsAndTheLength) {
  EXPECT_EQ(
      Evaluate({Stmt(BPF_LD | BPF_W | BPF_ABS, 60), kReturnA}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}),
      15u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_W | BPF_LEN), kReturnA}), 64u);
  EXPECT_EQ(Evaluate({Stmt(BPF_LDX | BPF_W | BPF_LEN), Stmt(BPF_MISC | BPF_TXA), kReturnA}), 64u);
}

TEST(Bpf, CalculatesModuloTwoToThe32) {
  struct Case {
    uint16_t op;
    uint32_t a, b, result;
  };
  for (const Case& c :
       {Case{BPF_ADD, 0xffffffff, 2, 1}, Case{BPF_SUB, 1, 2, 0xffffffff}, Case{BPF_MUL, 0x10000, 0x10001, 0x10000},
        Case{BPF_DIV, 100, 7, 14}, Case{BPF_AND, 0xff0, 0x0ff, 0x0f0}, Case{BPF_OR, 0xf00, 0x00f, 0xf0f},
        Case{BPF_XOR, 0xff, 0x0f, 0xf0}, Case{BPF_LSH, 3, 31, 0x80000000}, Case{BPF_RSH, 0x80000000, 31, 1}}) {
    EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_IMM, c.a), Stmt(BPF_ALU | c.op | BPF_K, c.b), kReturnA}), c.result) << c.op;
    EXPECT_EQ(
        Evaluate({Stmt(BPF_LDX | BPF_IMM, c.b), Stmt(BPF_LD | BPF_IMM, c.a), Stmt(BPF_ALU | c.op | BPF_X), kReturnA}),
        c.result)
        << c.op;
  }
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_IMM, 5), Stmt(BPF_ALU | BPF_NEG), kReturnA}), 0xfffffffbu);
  // By the processor's rule.
  EXPECT_EQ(
      Evaluate({Stmt(BPF_LDX | BPF_IMM, 33), Stmt(BPF_LD | BPF_IMM, 1), Stmt(BPF_ALU | BPF_LSH | BPF_X), kReturnA}),
      2u);
}

TEST(Bpf, DivisionByZeroReturnsZero) {
  EXPECT_EQ(Evaluate({Stmt(BPF_LDX | BPF_IMM, 0), Stmt(BPF_LD | BPF_IMM, 5), Stmt(BPF_ALU | BPF_DIV | BPF_X),
                      Stmt(BPF_RET | BPF_K, 1)}),
            0u);
}

TEST(Bpf, JumpsGoWhereTheConditionSays) {
  struct Case {
    uint16_t op;
    uint32_t a, b;
    bool taken;
  };
  for (const Case& c : {Case{BPF_JEQ, 1, 1, true}, Case{BPF_JEQ, 1, 2, false}, Case{BPF_JGT, 0x80000000, 1, true},
                        Case{BPF_JGT, 1, 1, false}, Case{BPF_JGE, 1, 1, true}, Case{BPF_JGE, 0, 0xffffffff, false},
                        Case{BPF_JSET, 6, 2, true}, Case{BPF_JSET, 6, 1, false}}) {
    const Code tail = {Stmt(BPF_RET | BPF_K, 100), Stmt(BPF_RET | BPF_K, 0), Stmt(BPF_RET | BPF_K, 1)};
    Code with_k = {Stmt(BPF_LD | BPF_IMM, c.a), Jump(BPF_JMP | c.op | BPF_K, c.b, 2, 1)};
    with_k.insert(with_k.end(), tail.begin(), tail.end());
    EXPECT_EQ(Evaluate(with_k), c.taken ? 1u : 0u) << c.op;
    Code with_x = {Stmt(BPF_LDX | BPF_IMM, c.b), Stmt(BPF_LD | BPF_IMM, c.a), Jump(BPF_JMP | c.op | BPF_X, 0, 2, 1)};
    with_x.insert(with_x.end(), tail.begin(), tail.end());
    EXPECT_EQ(Evaluate(with_x), c.taken ? 1u : 0u) << c.op;
  }
  EXPECT_EQ(Evaluate({Stmt(BPF_JMP | BPF_JA, 1), Stmt(BPF_RET | BPF_K, 1), Stmt(BPF_RET | BPF_K, 2)}), 2u);
}

TEST(Bpf, MemoryKeepsWords) {
  EXPECT_EQ(Evaluate({Stmt(BPF_LD | BPF_IMM, 3), Stmt(BPF_ST, 15), Stmt(BPF_LDX | BPF_IMM, 4), Stmt(BPF_STX, 0),
                      Stmt(BPF_LD | BPF_MEM, 0), Stmt(BPF_LDX | BPF_MEM, 15), Stmt(BPF_ALU | BPF_MUL | BPF_X),
                      Stmt(BPF_ALU | BPF_ADD | BPF_K, 1), kReturnA}),
            13u);
}

TEST(Bpf, LengthsOutOfRangeAreRefused) {
  EXPECT_FALSE(IsGood({}));
  Code code(kMaxInstructions - 1, Stmt(BPF_LD | BPF_IMM, 1));
  code.push_back(kReturnA);
  EXPECT_TRUE(IsGood(code));
  code.insert(code.begin(), Stmt(BPF_LD | BPF_IMM, 1));
  EXPECT_FALSE(IsGood(code));
}

TEST(Bpf, UnknownInstructionsAreRefused) {
  // Of socket filters, of no kind of BPF at all, and eBPF's.
  for (int code : {BPF_LD | BPF_H | BPF_ABS, BPF_LD | BPF_B | BPF_ABS, BPF_LD | BPF_W | BPF_IND,
                   BPF_LDX | BPF_B | BPF_MSH, BPF_ALU | BPF_MOD | BPF_K, BPF_ALU | BPF_MOD | BPF_X, BPF_RET | BPF_X,
                   BPF_MISC | 0x40, 0xffff, 0x100, BPF_JMP | 0x50, BPF_ST | BPF_MEM, BPF_ALU | BPF_NEG | BPF_X}) {
    EXPECT_FALSE(IsGood({Stmt(code, 4), kReturnA})) << code;
  }
}

TEST(Bpf, LoadsOutsideOfTheRecordAreRefused) {
  EXPECT_TRUE(IsGood({Stmt(BPF_LD | BPF_W | BPF_ABS, 60), kReturnA}));
  for (uint32_t k : {1u, 2u, 61u, 64u, 0xfffffffcu, static_cast<uint32_t>(SKF_AD_OFF)}) {
    EXPECT_FALSE(IsGood({Stmt(BPF_LD | BPF_W | BPF_ABS, k), kReturnA})) << k;
  }
}

TEST(Bpf, JumpsOutOfTheProgramAreRefused) {
  EXPECT_TRUE(IsGood({Jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 0), kReturnA}));
  EXPECT_FALSE(IsGood({Jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0), kReturnA}));
  EXPECT_FALSE(IsGood({Jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), kReturnA}));
  EXPECT_FALSE(IsGood({Stmt(BPF_JMP | BPF_JA, 1), kReturnA}));
  EXPECT_FALSE(IsGood({Stmt(BPF_JMP | BPF_JA, 0xffffffff), kReturnA}));
}

TEST(Bpf, AProgramMustEndWithAReturn) {
  EXPECT_FALSE(IsGood({kReturnA, Stmt(BPF_LD | BPF_IMM, 1)}));
  EXPECT_FALSE(IsGood({Stmt(BPF_JMP | BPF_JA, 0)}));
}

TEST(Bpf, ConstantsThatNoRunCouldUseAreRefused) {
  EXPECT_FALSE(IsGood({Stmt(BPF_ALU | BPF_DIV | BPF_K, 0), kReturnA}));
  EXPECT_FALSE(IsGood({Stmt(BPF_ALU | BPF_LSH | BPF_K, 32), kReturnA}));
  EXPECT_FALSE(IsGood({Stmt(BPF_ALU | BPF_RSH | BPF_K, 32), kReturnA}));
  EXPECT_TRUE(IsGood({Stmt(BPF_ALU | BPF_RSH | BPF_K, 31), kReturnA}));
  for (int code : {BPF_ST, BPF_STX, BPF_LD | BPF_MEM, BPF_LDX | BPF_MEM}) {
    EXPECT_FALSE(IsGood({Stmt(code, BPF_MEMWORDS), kReturnA})) << code;
  }
}

TEST(Bpf, MemoryThatMayNotHaveBeenWrittenIsNotRead) {
  EXPECT_FALSE(IsGood({Stmt(BPF_LD | BPF_MEM, 0), kReturnA}));
  EXPECT_TRUE(IsGood({Stmt(BPF_ST, 0), Stmt(BPF_LD | BPF_MEM, 0), kReturnA}));
  EXPECT_FALSE(IsGood({Stmt(BPF_ST, 0), Stmt(BPF_LD | BPF_MEM, 1), kReturnA}));
  // Written on one way only.
  EXPECT_FALSE(
      IsGood({Jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), Stmt(BPF_ST, 0), Stmt(BPF_LD | BPF_MEM, 0), kReturnA}));
  EXPECT_TRUE(IsGood({Jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 2, 0), Stmt(BPF_ST, 0), Stmt(BPF_JMP | BPF_JA, 1),
                      Stmt(BPF_STX, 0), Stmt(BPF_LD | BPF_MEM, 0), kReturnA}));
}

TEST(Bpf, APrefixThatDecidesIsTold) {
  const Code code = {Stmt(BPF_LD | BPF_W | BPF_ABS, 0), Jump(BPF_JMP | BPF_JEQ | BPF_K, 5, 0, 1),
                     Stmt(BPF_LD | BPF_W | BPF_ABS, 16), kReturnA};
  Result<Program> program = Program::Create(code, kWords);
  ASSERT_TRUE(program);
  const uint32_t five[] = {5}, six[] = {6};
  EXPECT_EQ(program->RunPrefix(five), std::nullopt);
  EXPECT_EQ(program->RunPrefix(six), 6u);
  EXPECT_TRUE(program->Loads(0));
  EXPECT_TRUE(program->Loads(4));
  EXPECT_FALSE(program->Loads(2));
}

}  // namespace
}  // namespace redoubt::bpf
