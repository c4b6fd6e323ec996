#include "pkg/p9/protocol.h"

#include <gtest/gtest.h>

#include <random>

#include "test/fuzz/rounds.h"

namespace redoubt::p9 {
namespace {

TEST(Protocol, FieldsRoundTrip) {
  Writer w(Type::kTwalk, 7);
  Attributes a;
  a.mode = 0100644;
  a.size = 1ull << 40;
  a.btime_nsec = 5;
  w.U32(0xdeadbeef).String("name").Put(Qid{kQidDirectory, 3, 99}).Put(a);
  w.Put(DirectoryEntry{{kQidFile, 0, 1}, 42, 8, "entry"});
  std::span<const std::byte> bytes = w.Finish();
  Header h = ParseHeader(bytes.first(kHeaderSize));
  EXPECT_EQ(h.size, bytes.size());
  EXPECT_EQ(h.type, Type::kTwalk);
  EXPECT_EQ(h.tag, 7);
  Reader r(bytes.subspan(kHeaderSize));
  EXPECT_EQ(r.U32(), 0xdeadbeefu);
  EXPECT_EQ(r.String(), "name");
  EXPECT_EQ(r.GetQid().path, 99u);
  Attributes b = r.GetAttributes();
  EXPECT_EQ(b.size, a.size);
  EXPECT_EQ(b.btime_nsec, 5u);
  DirectoryEntry e = r.GetDirectoryEntry();
  EXPECT_EQ(e.name, "entry");
  EXPECT_EQ(e.offset, 42u);
  EXPECT_TRUE(r.ok());
  EXPECT_TRUE(r.at_end());
}

TEST(Protocol, ShortMessagesTurnNotOk) {
  Writer w(Type::kTwalk, 1);
  w.String("hello");
  std::span<const std::byte> bytes = w.Finish();
  for (size_t cut = kHeaderSize; cut < bytes.size(); cut++) {
    Reader r(bytes.subspan(kHeaderSize, cut - kHeaderSize));
    EXPECT_EQ(r.String(), "");
    EXPECT_FALSE(r.ok());
    EXPECT_EQ(r.U64(), 0u);
  }
}

TEST(Protocol, NamesAreSingleComponents) {
  EXPECT_TRUE(IsValidName("a"));
  EXPECT_TRUE(IsValidName("..."));
  EXPECT_FALSE(IsValidName(""));
  EXPECT_FALSE(IsValidName("."));
  EXPECT_FALSE(IsValidName(".."));
  EXPECT_FALSE(IsValidName("a/b"));
  EXPECT_FALSE(IsValidName(std::string_view("a\0b", 3)));
  EXPECT_FALSE(IsValidName(std::string(256, 'x')));
}

TEST(Protocol, RandomBytesNeverReadPastTheEnd) {
  fuzz::Rounds(20'000, [](uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::byte> bytes(random() % 200);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    Reader r(bytes);
    (void)r.String();
    (void)r.GetDirectoryEntry();
    (void)r.GetAttributes();
    (void)r.String();
    (void)r.GetStatfs();
    EXPECT_LE(r.remaining(), bytes.size());
  });
}

}  // namespace
}  // namespace redoubt::p9
