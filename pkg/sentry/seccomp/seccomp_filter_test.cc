#include "pkg/sentry/seccomp/seccomp_filter.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <stddef.h>

#include <vector>

namespace redoubt {
namespace {

using Code = std::vector<sock_filter>;

constexpr sock_filter kLoadNumber = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));

sock_filter Return(uint32_t value) { return BPF_STMT(BPF_RET | BPF_K, value); }
// `action` for the number, else allowed.
Code For(uint32_t number, uint32_t action) {
  return {kLoadNumber, BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), Return(action), Return(SECCOMP_RET_ALLOW)};
}
seccomp_data Call(int number) {
  return {.nr = number, .arch = AUDIT_ARCH_X86_64, .instruction_pointer = 0x1234'5678'9abc, .args = {}};
}
RefPtr<SeccompFilter> Make(const Code& code, RefPtr<const SeccompFilter> older = nullptr, bool log = false) {
  Result<RefPtr<SeccompFilter>> filter = SeccompFilter::Create(code, log);
  EXPECT_TRUE(filter);
  EXPECT_TRUE((*filter)->Attach(std::move(older)));
  return *filter;
}

TEST(SeccompFilter, CallsThatAreAlwaysAllowedAreKnown) {
  RefPtr<SeccompFilter> f = Make(For(39, SECCOMP_RET_KILL_PROCESS));
  EXPECT_FALSE(f->AlwaysAllows(39));
  EXPECT_TRUE(f->AlwaysAllows(40));
  EXPECT_FALSE(f->AlwaysAllows(512));
  EXPECT_FALSE(f->AlwaysAllows(0x4000'0000 + 40));
  // One that depends on an argument, and on a filter that was there before.
  RefPtr<SeccompFilter> g =
      Make({kLoadNumber, BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 40, 0, 2),
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), Return(SECCOMP_RET_ALLOW), Return(SECCOMP_RET_ERRNO | 1)},
           f);
  EXPECT_FALSE(g->AlwaysAllows(39));
  EXPECT_FALSE(g->AlwaysAllows(40));
  EXPECT_TRUE(g->AlwaysAllows(41));
  EXPECT_FALSE(g->LoadsInstructionPointer());
}

TEST(SeccompFilter, OtherArchitecturesDoNotCount) {
  RefPtr<SeccompFilter> f = Make({BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
                                  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 1),
                                  Return(SECCOMP_RET_ALLOW), Return(SECCOMP_RET_KILL_PROCESS)});
  EXPECT_TRUE(f->AlwaysAllows(0));
}

TEST(SeccompFilter, TheActionOfTheHighestPrecedenceCounts) {
  constexpr uint32_t kInOrder[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP,
                                   SECCOMP_RET_ERRNO,        SECCOMP_RET_USER_NOTIF,  SECCOMP_RET_TRACE,
                                   SECCOMP_RET_LOG,          SECCOMP_RET_ALLOW};
  for (uint32_t a : kInOrder) {
    for (uint32_t b : kInOrder) {
      RefPtr<SeccompFilter> f = Make(For(1, a | 5));
      f = Make(For(1, b | 7), f);
      const bool older_counts = static_cast<int32_t>(a) < static_cast<int32_t>(b);
      SeccompFilter::Verdict v = f->Run(Call(1));
      EXPECT_EQ(v.action, older_counts ? a : b);
      if (v.action != SECCOMP_RET_ALLOW) {
        EXPECT_EQ(v.data, older_counts ? 5 : 7);
      }
    }
  }
}

TEST(SeccompFilter, AnUnknownActionKills) {
  EXPECT_EQ(Make(For(1, 0x7fe0'0000))->Run(Call(1)).action, SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Make(For(1, 0x0001'0000))->Run(Call(1)).action, SECCOMP_RET_KILL_PROCESS);
}

TEST(SeccompFilter, LogsIfTheFilterThatDecidedWantsIt) {
  RefPtr<SeccompFilter> f = Make(For(1, SECCOMP_RET_ERRNO | 1), nullptr, true);
  EXPECT_TRUE(f->Run(Call(1)).log);
  EXPECT_FALSE(f->Run(Call(2)).log);
  EXPECT_FALSE(Make(For(1, SECCOMP_RET_KILL_PROCESS), f)->Run(Call(1)).log);
}

TEST(SeccompFilter, TheInstructionPointerIsSeen) {
  RefPtr<SeccompFilter> f = Make({BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, instruction_pointer) + 4),
                                  BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO), BPF_STMT(BPF_RET | BPF_A, 0)});
  EXPECT_TRUE(f->LoadsInstructionPointer());
  EXPECT_EQ(f->Run(Call(1)).data, 0x1234);
  EXPECT_TRUE(Make(For(1, SECCOMP_RET_LOG), f)->LoadsInstructionPointer());
}

TEST(SeccompFilter, ItIsPartOfThoseThatCameAfterIt) {
  RefPtr<SeccompFilter> a = Make(For(1, SECCOMP_RET_LOG));
  RefPtr<SeccompFilter> b = Make(For(1, SECCOMP_RET_LOG), a);
  RefPtr<SeccompFilter> c = Make(For(1, SECCOMP_RET_LOG), a);
  EXPECT_TRUE(a->IsPartOf(a.get()));
  EXPECT_TRUE(a->IsPartOf(b.get()));
  EXPECT_FALSE(b->IsPartOf(a.get()));
  EXPECT_FALSE(b->IsPartOf(c.get()));
  EXPECT_FALSE(a->IsPartOf(nullptr));
  EXPECT_EQ(b->count(), 2u);
}

TEST(SeccompFilter, AllTogetherAreBounded) {
  Code code(bpf::kMaxInstructions, Return(SECCOMP_RET_ALLOW));
  RefPtr<SeccompFilter> f;
  for (int i = 0; i < 7; i++) f = Make(code, f);
  Result<RefPtr<SeccompFilter>> one_more = SeccompFilter::Create(code, false);
  ASSERT_TRUE(one_more);
  EXPECT_EQ((*one_more)->Attach(f).error(), Errno(ENOMEM));
}

TEST(SeccompFilter, ManyGoWithoutRecursion) {
  const Code code = {Return(SECCOMP_RET_ALLOW)};
  RefPtr<SeccompFilter> f;
  size_t n = 0;
  while (true) {
    Result<RefPtr<SeccompFilter>> next = SeccompFilter::Create(code, false);
    ASSERT_TRUE(next);
    if (!(*next)->Attach(f)) break;
    f = *next;
    n++;
  }
  EXPECT_EQ(n, SeccompFilter::kMaxPath / (1 + SeccompFilter::kPenalty) + 1);
  EXPECT_EQ(f->count(), n);
  EXPECT_EQ(f->Run(Call(1)).action, SECCOMP_RET_ALLOW);
}

TEST(SeccompFilter, BadProgramsAreRefused) {
  EXPECT_EQ(SeccompFilter::Create({}, false).error(), Errno(EINVAL));
  const Code out_of_range = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, sizeof(seccomp_data)), Return(0)};
  EXPECT_EQ(SeccompFilter::Create(out_of_range, false).error(), Errno(EINVAL));
}

}  // namespace
}  // namespace redoubt
