#include "runsc/specutils/id_mappings.h"

#include <gtest/gtest.h>

namespace redoubt::specutils {
namespace {

TEST(IdMappings, WhatLinuxRefusesIsInvalid) {
  EXPECT_EQ(WhyInvalid({{0, 100000, 65536}, {65536, 1000, 1}}), "");
  EXPECT_EQ(WhyInvalid({{0, 0, 4294967295}}), "");
  EXPECT_EQ(WhyInvalid({}), "must not be empty");
  EXPECT_EQ(WhyInvalid({{0, 1, 0}}), "a size is 0");
  EXPECT_EQ(WhyInvalid({{1, 0, 4294967295}}), "containerID 1: its IDs go past 4294967294");
  EXPECT_EQ(WhyInvalid({{0, 4294967295, 1}}), "hostID 4294967295: its IDs go past 4294967294");
  EXPECT_EQ(WhyInvalid({{10, 100, 5}, {0, 200, 11}}), "containerID 10 is mapped twice");
  EXPECT_EQ(WhyInvalid({{0, 100, 5}, {5, 104, 1}}), "hostID 104 is mapped twice");
  std::vector<IdMapping> many;
  for (uint32_t i = 0; i <= kMaxIdMappings; i++) many.push_back({2 * i, 2 * i, 1});
  EXPECT_EQ(WhyInvalid(many), "more than 340 mappings");
  many.pop_back();
  EXPECT_EQ(WhyInvalid(many), "");
}

TEST(IdMappings, TextIsThatOfProc) {
  const std::vector<IdMapping> mappings = {{0, 100000, 65536}, {65536, 1000, 1}};
  EXPECT_EQ(MapText(mappings), "0 100000 65536\n65536 1000 1\n");
  EXPECT_EQ(ParseMapText(MapText(mappings)), mappings);
  EXPECT_EQ(ParseMapText("         0          0 4294967295\n"), std::vector<IdMapping>({{0, 0, 4294967295}}));
  EXPECT_EQ(ParseMapText(""), std::vector<IdMapping>());
  for (const char* wrong : {"0 1\n", "a b c\n", "0 1 2 3\n", "0 1 4294967296\n", "\n"}) {
    EXPECT_EQ(ParseMapText(wrong), std::nullopt) << wrong;
  }
}

TEST(IdMappings, IdsAreFound) {
  const std::vector<IdMapping> mappings = {{10, 100, 5}, {0, 7, 1}};
  uint32_t outside = 0;
  EXPECT_TRUE(ToOutside(mappings, 14, &outside));
  EXPECT_EQ(outside, 104u);
  EXPECT_FALSE(ToOutside(mappings, 15, &outside));
  EXPECT_FALSE(HasInside(mappings, 9));
  EXPECT_TRUE(HasOutside(mappings, 7));
  EXPECT_FALSE(HasOutside(mappings, 105));
  EXPECT_EQ(ServingId(mappings), 0u);
  EXPECT_EQ(ServingId({{10, 100, 5}}), 10u);
}

}  // namespace
}  // namespace redoubt::specutils
