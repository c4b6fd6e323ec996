#include "runsc/msgpack/msgpack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "test/fuzz/rounds.h"

namespace redoubt::msgpack {
namespace {

// 0x91 begins an array of one, 0x81 a map of one; 0xa1 'k' is a key, 0xc0 is nil.
std::string Nested(int depth, bool maps) {
  std::string s;
  for (int i = 0; i < depth; i++) s += maps ? "\x81\xa1k" : "\x91";
  return s + "\xc0";
}

TEST(Msgpack, AcceptsWhatMessagesHave) {
  for (bool maps : {false, true}) {
    EXPECT_TRUE(IsShallow(Nested(1, maps)));
    EXPECT_TRUE(IsShallow(Nested(kMaxDepth, maps)));
  }
  // Wide is not deep.
  EXPECT_TRUE(IsShallow(std::string("\xdc\x03\xe8", 3) + std::string(2000, '\x90')));
  // Malformed is the parser's business.
  EXPECT_TRUE(IsShallow("\xc1"));
  EXPECT_TRUE(IsShallow(""));
}

TEST(Msgpack, RefusesWhatIsTooDeep) {
  for (bool maps : {false, true}) {
    EXPECT_FALSE(IsShallow(Nested(kMaxDepth + 1, maps)));
    EXPECT_FALSE(IsShallow(Nested(5'000'000, maps)));
  }
}

nlohmann::json RandomValue(std::mt19937& random, int depth) {
  nlohmann::json value;
  switch (depth > 0 ? random() % 9 : random() % 6) {
    case 0:
      return nullptr;
    case 1:
      return static_cast<int64_t>(random()) - static_cast<int64_t>(random() % 70'000);
    case 2:
      return 1.5 * random();
    case 3:
      return std::string(random() % 300, 'x');
    case 4:
      return nlohmann::json::binary(std::vector<uint8_t>(random() % 300));
    case 5:
      return random() % 2 == 0;
    case 6:
      value = nlohmann::json::object();
      for (uint32_t n = random() % 4; n > 0; n--) value[std::to_string(n)] = RandomValue(random, depth - 1);
      return value;
    default:
      value = nlohmann::json::array();
      for (uint32_t n = random() % 20; n > 0; n--) value.push_back(RandomValue(random, n % 5 == 0 ? depth - 1 : 0));
      return value;
  }
}

int Depth(const nlohmann::json& value) {
  int depth = 0;
  if (!value.is_structured()) return 0;
  for (const nlohmann::json& v : value) depth = std::max(depth, Depth(v));
  return depth + 1;
}

// What is well formed is judged by its depth; what is not is read no further than it goes, and what passes can be
// parsed.
TEST(MsgpackFuzz, AgreesWithTheParser) {
  fuzz::Rounds(5000, [](uint64_t seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    nlohmann::json value = RandomValue(random, 4);
    for (uint32_t n = random() % (kMaxDepth + 8); n > 0; n--) {
      value = n % 2 == 0 ? nlohmann::json::array({value}) : nlohmann::json{{"k", value}};
    }
    std::string bytes;
    nlohmann::json::to_msgpack(value, bytes);
    EXPECT_EQ(IsShallow(bytes), Depth(value) <= kMaxDepth) << Depth(value);
    for (uint32_t n = 1 + random() % 4; n > 0; n--) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    bytes.shrink_to_fit();
    if (IsShallow(bytes)) {
      const nlohmann::json parsed = nlohmann::json::from_msgpack(bytes, true, false);
      if (!parsed.is_discarded()) {
        EXPECT_LE(Depth(parsed), kMaxDepth);
      }
    }
  });
}

}  // namespace
}  // namespace redoubt::msgpack
