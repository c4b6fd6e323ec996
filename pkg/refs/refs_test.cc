#include "pkg/refs/refs.h"

#include <gtest/gtest.h>

namespace redoubt {
namespace {

struct Counted : RefCounted {
  explicit Counted(int* alive) : alive(alive) { ++*alive; }
  ~Counted() override { --*alive; }
  int* alive;
};
struct Derived : Counted {
  using Counted::Counted;
};

TEST(Refs, LastReferenceDeletes) {
  int alive = 0;
  {
    RefPtr<Counted> a = MakeRef<Derived>(&alive);
    RefPtr<Counted> b = a;
    EXPECT_EQ(a->RefCount(), 2);
    a.reset();
    EXPECT_EQ(alive, 1);
    RefPtr<Derived> d = RefCast<Derived>(b);
    EXPECT_TRUE(d);
    EXPECT_EQ(b->RefCount(), 2);
  }
  EXPECT_EQ(alive, 0);
}

TEST(Refs, SelfAssignmentAndMove) {
  int alive = 0;
  RefPtr<Counted> a = MakeRef<Counted>(&alive);
  RefPtr<Counted>& alias = a;
  a = alias;
  EXPECT_EQ(alive, 1);
  RefPtr<Counted> b = std::move(a);
  EXPECT_FALSE(a);
  Counted* raw = b.Release();
  EXPECT_EQ(raw->RefCount(), 1);
  EXPECT_TRUE(raw->TryIncRef());
  raw->DecRef();
  b = RefPtr<Counted>::Adopt(raw);
  b.reset();
  EXPECT_EQ(alive, 0);
}

}  // namespace
}  // namespace redoubt
