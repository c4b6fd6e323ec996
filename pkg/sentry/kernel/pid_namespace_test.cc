#include "pkg/sentry/kernel/pid_namespace.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>
#include <vector>

#include "pkg/sentry/limits/system.h"

namespace redoubt::kernel {
namespace {

using Numbers = std::vector<int>;

TEST(PidNamespace, NumbersCountFromOneInEachNamespace) {
  RefPtr<PidNamespace> root = MakeRef<PidNamespace>(nullptr);
  RefPtr<Pid> a = *root->Allocate();
  RefPtr<PidNamespace> middle = MakeRef<PidNamespace>(root);
  RefPtr<PidNamespace> inner = MakeRef<PidNamespace>(middle);
  RefPtr<Pid> b = *middle->Allocate();
  RefPtr<Pid> c = *inner->Allocate();
  EXPECT_EQ(a->NumbersFrom(*root), Numbers({1}));
  EXPECT_EQ(b->NumbersFrom(*root), Numbers({2, 1}));
  EXPECT_EQ(c->NumbersFrom(*root), Numbers({3, 2, 1}));
  EXPECT_EQ(c->NumbersFrom(*middle), Numbers({2, 1}));
  EXPECT_EQ(c->number(), 1);
  EXPECT_EQ(c->root_number(), 3);
  EXPECT_EQ(inner->last(), 1);
  EXPECT_EQ(middle->last(), 2);
}

TEST(PidNamespace, OutsideIsNotSeen) {
  RefPtr<PidNamespace> root = MakeRef<PidNamespace>(nullptr);
  RefPtr<PidNamespace> x = MakeRef<PidNamespace>(root), y = MakeRef<PidNamespace>(root);
  RefPtr<Pid> outer = *root->Allocate(), in_x = *x->Allocate();
  EXPECT_EQ(outer->In(*x), 0);
  EXPECT_TRUE(outer->NumbersFrom(*x).empty());
  EXPECT_EQ(in_x->In(*y), 0);
  EXPECT_TRUE(x->IsWithin(*root) && x->IsWithin(*x));
  EXPECT_FALSE(x->IsWithin(*y) || root->IsWithin(*x));
  EXPECT_NE(x->inode(), y->inode());
  EXPECT_NE(x->inode(), root->inode());
}

TEST(PidNamespace, TranslatesBothWays) {
  RefPtr<PidNamespace> root = MakeRef<PidNamespace>(nullptr);
  RefPtr<PidNamespace> ns = MakeRef<PidNamespace>(root);
  RefPtr<Pid> outer = *root->Allocate(), inner = *ns->Allocate();
  EXPECT_EQ(ns->ToRoot(1), inner->root_number());
  EXPECT_EQ(ns->FromRoot(inner->root_number()), 1);
  EXPECT_EQ(ns->FromRoot(outer->root_number()), 0);
  for (int none : {0, -1, 2, INT32_MIN, INT32_MAX}) {
    EXPECT_EQ(ns->ToRoot(none), 0) << none;
    EXPECT_EQ(ns->FromRoot(none == 2 ? 77 : none), 0) << none;
  }
  // Whom they were of is for others to know there.
  EXPECT_EQ(root->ToRoot(4711), 4711);
  EXPECT_EQ(root->FromRoot(4711), 4711);
}

TEST(PidNamespace, NumbersAreGivenBackWithTheLastReference) {
  RefPtr<PidNamespace> root = MakeRef<PidNamespace>(nullptr);
  RefPtr<PidNamespace> ns = MakeRef<PidNamespace>(root);
  RefPtr<Pid> init = *ns->Allocate();
  RefPtr<Pid> a = *ns->Allocate();
  RefPtr<Pid> also_a = ns->Find(2);
  EXPECT_EQ(also_a, a);
  EXPECT_EQ(root->Find(2), a);
  a.reset();
  EXPECT_TRUE(ns->Find(2));
  also_a.reset();
  EXPECT_FALSE(ns->Find(2));
  EXPECT_FALSE(root->Find(2));
  EXPECT_EQ((*ns->Allocate())->number(), 3) << "not at once again";
  EXPECT_EQ(init->number(), 1);
}

// The process that was to be the first could not be made: the next one is number 1.
TEST(PidNamespace, AnEmptyOneStartsAtOneAgain) {
  RefPtr<PidNamespace> root = MakeRef<PidNamespace>(nullptr);
  RefPtr<Pid> outer = *root->Allocate();
  RefPtr<PidNamespace> ns = MakeRef<PidNamespace>(root);
  EXPECT_EQ((*ns->Allocate())->number(), 1);
  EXPECT_EQ((*ns->Allocate())->number(), 1);
}

TEST(PidNamespace, ANumberInUseIsNotGivenTwice) {
  RefPtr<PidNamespace> root = MakeRef<PidNamespace>(nullptr);
  RefPtr<PidNamespace> ns = MakeRef<PidNamespace>(root);
  std::mt19937 random(1);
  std::vector<RefPtr<Pid>> held;
  for (int i = 0; i < 20000; i++) {
    if (held.size() > 200 || (!held.empty() && random() % 3 == 0)) {
      std::swap(held[random() % held.size()], held.back());
      held.pop_back();
    } else {
      held.push_back(*(random() % 2 == 0 ? root : ns)->Allocate());
    }
    if (i % 500 != 0) continue;
    std::set<int> in_root, in_ns;
    size_t inner = 0;
    for (const RefPtr<Pid>& pid : held) {
      in_root.insert(pid->root_number());
      if (int n = pid->In(*ns); n != 0) {
        inner++;
        in_ns.insert(n);
        EXPECT_EQ(ns->Find(n), pid);
      }
    }
    EXPECT_EQ(in_root.size(), held.size());
    EXPECT_EQ(in_ns.size(), inner);
  }
}

TEST(PidNamespace, FindNeverSeesHalfAPid) {
  RefPtr<PidNamespace> root = MakeRef<PidNamespace>(nullptr);
  RefPtr<PidNamespace> ns = MakeRef<PidNamespace>(root);
  RefPtr<Pid> keep = *ns->Allocate();
  std::atomic<bool> done = false;
  std::thread finder([&] {
    while (!done) {
      for (int n = std::max(1, ns->last() - 3), end = n + 6; n < end; n++) {
        if (RefPtr<Pid> pid = ns->Find(n)) {
          EXPECT_EQ(pid->number(), n);
          EXPECT_GT(pid->root_number(), 0);
        }
      }
    }
  });
  for (int i = 0; i < 20000; i++) EXPECT_GT((*ns->Allocate())->number(), 1);
  done = true;
  finder.join();
}

TEST(PidNamespace, NestsThirtyTwoDeep) {
  RefPtr<PidNamespace> ns = MakeRef<PidNamespace>(nullptr);
  while (ns->level() < kMaxPidNamespaceLevel) ns = MakeRef<PidNamespace>(ns);
  EXPECT_EQ((*ns->Allocate())->NumbersFrom(*ns), Numbers({1}));
  EXPECT_EQ(PidNamespace::Create(ns, 0).error(), Errno(ENOSPC));
}

TEST(PidNamespace, AUserHasOnlySoMany) {
  limits::System::Get().max_pid_namespaces = 3;
  RefPtr<PidNamespace> root = MakeRef<PidNamespace>(nullptr);
  std::vector<RefPtr<PidNamespace>> made;
  for (int i = 0; i < 3; i++) made.push_back(*PidNamespace::Create(root, 7));
  EXPECT_EQ(PidNamespace::Create(root, 7).error(), Errno(ENOSPC));
  EXPECT_EQ(PidNamespace::Create(made[0], 7).error(), Errno(ENOSPC)) << "at any depth";
  EXPECT_TRUE(PidNamespace::Create(root, 8)) << "another user's count";
  made.pop_back();
  EXPECT_TRUE(PidNamespace::Create(root, 7)) << "one that is gone is not counted";
  made.clear();
  EXPECT_EQ(limits::PidNamespacesOfUsers().Of(7), 0u);
}

}  // namespace
}  // namespace redoubt::kernel
