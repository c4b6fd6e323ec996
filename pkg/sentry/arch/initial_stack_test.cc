#include "pkg/sentry/arch/initial_stack.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <map>

#include "pkg/sentry/arch/hwcap.h"

namespace redoubt::arch {
namespace {

class InitialStackTest : public testing::Test {
 protected:
  uint64_t Word(Addr a) { return *io_.CopyInObject<uint64_t>(a); }
  std::string Str(Addr a) { return *io_.CopyInString(a, 4096); }

  std::vector<std::byte> memory_ = std::vector<std::byte>(64 << 10);
  BufferIo io_{memory_};
};

TEST_F(InitialStackTest, ArgumentsAreFoundFromTheStackPointer) {
  for (size_t count : {0, 1, 2, 7, 8}) {
    std::vector<std::string> argv, envv = {"A=1", "LONG=" + std::string(1000, 'x')};
    for (size_t i = 0; i < count; i++) argv.push_back("arg" + std::to_string(i));
    InitialStackArgs args{.top = memory_.size(), .argv = argv, .envv = envv, .filename = "/bin/prog"};
    args.random.fill(std::byte{0x5a});
    args.auxv = {{AT_PAGESZ, 4096}, {AT_UID, 7}};
    Result<InitialStack> s = BuildInitialStack(io_, args);
    ASSERT_TRUE(s.has_value());
    Addr sp = s->stack_pointer;
    EXPECT_EQ(sp % 16, 0u);
    EXPECT_GE(sp, memory_.size() - InitialStackSize(args));
    EXPECT_EQ(Word(sp), count);
    for (size_t i = 0; i < count; i++) EXPECT_EQ(Str(Word(sp + 8 + i * 8)), argv[i]);
    Addr p = sp + 8 + count * 8;
    EXPECT_EQ(Word(p), 0u);
    p += 8;
    EXPECT_EQ(Str(Word(p)), "A=1");
    EXPECT_EQ(Str(Word(p + 8)), envv[1]);
    EXPECT_EQ(Word(p + 16), 0u);
    p += 24;
    std::map<uint64_t, uint64_t> auxv;
    size_t index = 0;
    for (;; p += 16) {
      EXPECT_EQ(s->auxv[index++], Word(p));
      EXPECT_EQ(s->auxv[index++], Word(p + 8));
      if (Word(p) == AT_NULL) break;
      auxv[Word(p)] = Word(p + 8);
    }
    EXPECT_EQ(index, s->auxv.size());
    EXPECT_EQ(auxv[AT_PAGESZ], 4096u);
    EXPECT_EQ(auxv[AT_UID], 7u);
    EXPECT_EQ(Str(auxv[AT_EXECFN]), "/bin/prog");
    EXPECT_EQ(Str(auxv[AT_PLATFORM]), "x86_64");
    EXPECT_EQ(Word(auxv[AT_RANDOM]), 0x5a5a5a5a5a5a5a5au);
    EXPECT_EQ(Word(auxv[AT_RANDOM] + 8), 0x5a5a5a5a5a5a5a5au);
    // /proc/PID/cmdline and environ: contiguous, arguments first; the file name above them, then eight zero bytes.
    EXPECT_EQ(s->argv.end, s->envv.start);
    if (count > 0) {
      EXPECT_EQ(Word(sp + 8), s->argv.start);
    }
    EXPECT_EQ(auxv[AT_EXECFN], s->envv.end);
    EXPECT_EQ(Word(memory_.size() - 8), 0u);
    EXPECT_EQ(auxv[AT_EXECFN] + sizeof("/bin/prog"), memory_.size() - 8);
  }
}

TEST_F(InitialStackTest, SkipLowersTheVectors) {
  std::vector<std::string> argv = {"x"};
  InitialStackArgs args{.top = memory_.size(), .argv = argv, .filename = "f"};
  Addr without = BuildInitialStack(io_, args)->stack_pointer;
  args.skip = 4096;
  EXPECT_EQ(BuildInitialStack(io_, args)->stack_pointer, without - 4096);
}

TEST_F(InitialStackTest, TooSmallIsAFault) {
  std::vector<std::string> argv = {std::string(70000, 'x')};
  InitialStackArgs args{.top = memory_.size(), .argv = argv, .filename = "f"};
  EXPECT_EQ(BuildInitialStack(io_, args).error(), Errno(EFAULT));
}

TEST(InitialRegisters, AreZeroButForEntryAndStack) {
  platform::Registers r = InitialRegisters(0x401000, 0x7fff0000);
  EXPECT_EQ(r.rip, 0x401000u);
  EXPECT_EQ(r.rsp, 0x7fff0000u);
  EXPECT_EQ(r.eflags, 0x202u);
  EXPECT_EQ(r.rax | r.rdx | r.fs_base, 0u);
}

TEST(Hwcap, HasWhatEveryX86_64Has) { EXPECT_NE(Hwcap() & (1u << 26), 0u) << "SSE2"; }

}  // namespace
}  // namespace redoubt::arch
