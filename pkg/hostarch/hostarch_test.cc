#include "pkg/hostarch/hostarch.h"

#include <gtest/gtest.h>

namespace redoubt {
namespace {

TEST(Hostarch, RoundingDetectsOverflow) {
  uint64_t out = 0;
  EXPECT_TRUE(PageRoundUp(1, &out));
  EXPECT_EQ(out, kPageSize);
  EXPECT_TRUE(PageRoundUp(kPageSize, &out));
  EXPECT_EQ(out, kPageSize);
  EXPECT_FALSE(PageRoundUp(~uint64_t{0}, &out));
  EXPECT_EQ(PageRoundDown(kPageSize + 5), kPageSize);
}

TEST(Hostarch, RangesIntersectAndDetectWrap) {
  AddrRange r;
  EXPECT_FALSE(ToRange(~uint64_t{0}, 2, &r));
  EXPECT_TRUE(ToRange(0x1000, 0x2000, &r));
  EXPECT_TRUE(r.Contains(0x2fff));
  EXPECT_FALSE(r.Contains(0x3000));
  EXPECT_FALSE(r.Overlaps({0x3000, 0x4000}));
  EXPECT_EQ(r.Intersect({0x2000, 0x9000}), (AddrRange{0x2000, 0x3000}));
  EXPECT_TRUE(r.Intersect({0x5000, 0x9000}).empty());
}

TEST(Hostarch, AccessTypes) {
  EXPECT_TRUE(kReadWrite.Allows(kWrite));
  EXPECT_FALSE(kRead.Allows(kReadWrite));
  EXPECT_EQ(kReadWrite.Intersect(kRead), kRead);
}

}  // namespace
}  // namespace redoubt
