#include "pkg/segment/interval_map.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <vector>

namespace redoubt::segment {
namespace {

// Counts up with the key, as file offsets do.
struct Offset {
  uint64_t offset;
  int tag;
  Offset After(uint64_t delta) const { return {offset + delta, tag}; }
  bool Continues(const Offset& previous, uint64_t length) const {
    return tag == previous.tag && offset == previous.offset + length;
  }
};
using Map = IntervalMap<Offset>;

TEST(IntervalMap, FindsWhatContainsAKey) {
  Map m;
  m.Insert(10, 20, {0, 1});
  m.Insert(30, 40, {0, 2});
  EXPECT_EQ(m.Find(9), m.end());
  EXPECT_EQ(Map::Start(m.Find(10)), 10u);
  EXPECT_EQ(Map::Start(m.Find(19)), 10u);
  EXPECT_EQ(m.Find(20), m.end());
  EXPECT_EQ(Map::Start(m.FirstEndingAfter(20)), 30u);
  EXPECT_EQ(m.FirstEndingAfter(40), m.end());
  EXPECT_TRUE(m.Overlaps(0, 11));
  EXPECT_FALSE(m.Overlaps(20, 30));
}

TEST(IntervalMap, MergesOnlyWhatContinues) {
  Map m;
  m.Insert(0, 10, {100, 1});
  m.Insert(20, 30, {120, 1});
  m.Insert(10, 20, {110, 1});
  EXPECT_EQ(m.size(), 1u);
  m.Insert(30, 40, {0, 1});
  m.Insert(40, 50, {10, 2});
  EXPECT_EQ(m.size(), 3u);
}

TEST(IntervalMap, SplitsCarryTheirOffset) {
  Map m;
  m.Insert(0, 100, {1000, 1});
  std::vector<uint64_t> removed;
  m.Remove(40, 60, [&](uint64_t s, uint64_t e, const Offset& o) { removed = {s, e, o.offset}; });
  EXPECT_EQ(removed, (std::vector<uint64_t>{40, 60, 1040}));
  EXPECT_EQ(m.size(), 2u);
  EXPECT_EQ(m.Find(70)->second.value.offset, 1060u);
}

TEST(IntervalMapDeathTest, OverlappingInsertIsFatal) {
  Map m;
  m.Insert(0, 10, {0, 1});
  EXPECT_DEATH(m.Insert(9, 12, {0, 1}), "bad segment");
}

// Random operations against an array with one entry a key.
TEST(IntervalMap, AgreesWithAModel) {
  constexpr uint64_t kKeys = 64;
  for (uint32_t seed = 0; seed < 50; seed++) {
    std::mt19937 random(seed);
    Map m;
    std::vector<std::optional<Offset>> model(kKeys);
    for (int step = 0; step < 200; step++) {
      uint64_t start = random() % kKeys;
      uint64_t stop = start + 1 + random() % (kKeys - start);
      m.Remove(start, stop, [&](uint64_t s, uint64_t e, const Offset& o) {
        for (uint64_t k = s; k < e; k++) {
          ASSERT_TRUE(model[k]);
          EXPECT_EQ(model[k]->offset, o.offset + (k - s));
          model[k].reset();
        }
      });
      for (uint64_t k = start; k < stop; k++) ASSERT_FALSE(model[k]);
      switch (random() % 3) {
        case 0: {
          Offset o{start % 2 == 0 ? start : random() % 8, static_cast<int>(random() % 2)};
          m.Insert(start, stop, o);
          for (uint64_t k = start; k < stop; k++) model[k] = o.After(k - start);
          break;
        }
        case 1:
          m.SplitAt(random() % kKeys);
          break;
        case 2:
          m.MergeRange(start, stop);
          break;
      }
      uint64_t previous = 0;
      for (auto it = m.begin(); it != m.end(); ++it) {
        ASSERT_LE(previous, Map::Start(it));
        ASSERT_LT(Map::Start(it), Map::End(it));
        previous = Map::End(it);
      }
      for (uint64_t k = 0; k < kKeys; k++) {
        auto it = m.Find(k);
        ASSERT_EQ(it != m.end(), model[k].has_value());
        if (model[k]) {
          ASSERT_EQ(it->second.value.offset + (k - Map::Start(it)), model[k]->offset);
        }
      }
    }
  }
}

TEST(IntervalMap, AppendMerges) {
  Map m;
  m.Append(0, 10, {100, 1});
  m.Append(10, 20, {110, 1});
  EXPECT_EQ(m.size(), 1u);
  m.Append(30, 40, {130, 1});
  EXPECT_EQ(m.size(), 2u);
  EXPECT_EQ(Map::End(m.begin()), 20u);
}

}  // namespace
}  // namespace redoubt::segment
