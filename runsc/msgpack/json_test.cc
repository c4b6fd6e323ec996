#include "runsc/msgpack/json.h"

#include <gtest/gtest.h>

namespace redoubt::msgpack {
namespace {

enum class Kind : uint8_t { kOne, kTwo };

std::expected<Kind, std::string> Parse(const Json& json) {
  return Unpack<Kind>(Pack(json), [](const Json& j, Kind& kind) { kind = EnumFrom(j.at(0), Kind::kTwo); });
}

TEST(MsgpackJson, EnumerationsHaveTheirValuesOnly) {
  EXPECT_EQ(Parse(Json::array({0})), Kind::kOne);
  EXPECT_EQ(Parse(Json::array({1})), Kind::kTwo);
  for (const Json& bad : {Json(2), Json(256), Json(257), Json(-1), Json("0"), Json(nullptr)}) {
    EXPECT_FALSE(Parse(Json::array({bad}))) << bad;
  }
}

TEST(MsgpackJson, WhatCannotBeReadIsAnError) {
  EXPECT_FALSE(Parse(Json::array()));
  EXPECT_FALSE((Unpack<int>("\xc1", [](const Json&, int&) {})));
  const std::string deep(kMaxDepth + 1, '\x91');
  EXPECT_EQ((Unpack<int>(deep + "\xc0", [](const Json&, int&) {})).error(), "nested too deep");
}

TEST(MsgpackJson, BytesNeedNotBeText) {
  const std::string bytes("\xff\x00\x80", 3);
  auto back = Unpack<std::string>(Pack(Json(bytes)), [](const Json& j, std::string& s) { s = j.get<std::string>(); });
  EXPECT_EQ(back, bytes);
}

}  // namespace
}  // namespace redoubt::msgpack
