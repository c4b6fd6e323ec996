#include "pkg/sentry/mm/map_batch.h"

#include <gtest/gtest.h>

namespace redoubt::mm::internal {
namespace {

constexpr uint64_t k = kPageSize;

TEST(MapBatch, JoinsWhatContinues) {
  MapBatch batch;
  EXPECT_TRUE(batch.empty());
  batch.Map({10 * k, 12 * k}, {.offset = 100 * k, .access = kRead});
  batch.Map({12 * k, 13 * k}, {.offset = 102 * k, .access = kRead});
  ASSERT_EQ(batch.ops().size(), 1u);
  EXPECT_EQ(batch.ops()[0].addr, 10 * k);
  EXPECT_EQ(batch.ops()[0].length, 3 * k);
  EXPECT_EQ(batch.ops()[0].offset, 100 * k);
  batch.Map({13 * k, 14 * k}, {.offset = 104 * k, .access = kRead});
  batch.Map({14 * k, 15 * k}, {.offset = 105 * k, .access = kReadWrite});
  batch.Map({16 * k, 17 * k}, {.offset = 106 * k, .access = kReadWrite});
  EXPECT_EQ(batch.ops().size(), 4u) << "other pages, other access, a gap";
}

TEST(MapBatch, UnmapsAcrossGapsButNotAcrossWhatStays) {
  MapBatch batch;
  batch.Unmap({10 * k, 11 * k});
  batch.Unmap({20 * k, 21 * k});
  ASSERT_EQ(batch.ops().size(), 1u);
  EXPECT_EQ(batch.ops()[0].length, 11 * k);
  EXPECT_FALSE(batch.ops()[0].access.any());
  batch.Keep();
  batch.Unmap({30 * k, 31 * k});
  batch.Map({31 * k, 32 * k}, {.access = kRead});
  batch.Unmap({32 * k, 33 * k});
  EXPECT_EQ(batch.ops().size(), 4u);
}

}  // namespace
}  // namespace redoubt::mm::internal
