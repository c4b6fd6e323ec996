#include "runsc/msgpack/msgpack.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace redoubt::msgpack
