#include "pkg/sentry/usermem/usermem.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace redoubt {
namespace {

std::span<const std::byte> Bytes(const char* s) { return std::as_bytes(std::span(s, strlen(s))); }

TEST(Usermem, BufferBoundsAreEfault) {
  std::array<std::byte, 8> buf{};
  BufferIo io(buf);
  EXPECT_EQ(io.CopyOut(4, Bytes("abcdefgh")), 4u);
  EXPECT_EQ(io.CopyOut(8, Bytes("x")).error(), Errno(EFAULT));
  EXPECT_EQ(io.CopyOutAll(4, Bytes("abcdefgh")).error(), Errno(EFAULT));
  EXPECT_EQ(io.CopyInObject<uint64_t>(1).error(), Errno(EFAULT));
}

TEST(Usermem, VectorsAreBounded) {
  std::array<std::byte, 8> buf{};
  BufferIo io(buf);
  EXPECT_EQ(io.CopyInVector<uint32_t>(0, 2)->size(), 2u);
  EXPECT_EQ(io.CopyInVector<uint64_t>(0, 2).error(), Errno(EFAULT));
  EXPECT_EQ(io.CopyInVector<uint64_t>(0, MemoryIo::kMaxVector / 8 + 1).error(), Errno(ENOMEM));
  EXPECT_EQ(io.CopyInVector<uint64_t>(0, SIZE_MAX).error(), Errno(ENOMEM));
}

TEST(Usermem, StringsEndAtNulOrLimit) {
  std::array<std::byte, 16> buf{};
  BufferIo io(buf);
  ASSERT_TRUE(io.CopyOutAll(0, Bytes("hello")));
  EXPECT_EQ(io.CopyInString(0, 16), "hello");
  EXPECT_EQ(io.CopyInString(0, 6), "hello");
  EXPECT_EQ(io.CopyInString(0, 5).error(), Errno(ENAMETOOLONG));
  ASSERT_TRUE(io.CopyOutAll(0, Bytes("0123456789abcdef")));
  EXPECT_EQ(io.CopyInString(0, 64).error(), Errno(EFAULT));
}

TEST(Usermem, SequencesConsumeAcrossRanges) {
  std::array<std::byte, 16> buf{};
  BufferIo io(buf);
  IoSequence s(io, std::vector<AddrRange>{{0, 3}, {5, 5}, {8, 12}});
  EXPECT_EQ(s.remaining(), 7u);
  EXPECT_EQ(s.CopyOut(Bytes("abcde")), 5u);
  EXPECT_EQ(s.remaining(), 2u);
  EXPECT_EQ(s.CopyOut(Bytes("fgh")), 2u);
  EXPECT_TRUE(s.empty());
  EXPECT_EQ(memcmp(buf.data(), "abc\0\0\0\0\0defg", 12), 0);
}

TEST(Usermem, SequencesStopAtTheFirstBadAddress) {
  std::array<std::byte, 4> buf{};
  BufferIo io(buf);
  IoSequence s(io, std::vector<AddrRange>{{2, 4}, {100, 104}});
  EXPECT_EQ(s.CopyOut(Bytes("abcdef")), 2u);
  EXPECT_EQ(s.CopyOut(Bytes("x")).error(), Errno(EFAULT));
}

TEST(Usermem, FirstAndDrop) {
  std::array<std::byte, 8> buf{};
  BufferIo io(buf);
  IoSequence s(io, 0, 8);
  EXPECT_EQ(s.First(3).remaining(), 3u);
  s.DropFirst(6);
  EXPECT_EQ(s.remaining(), 2u);
}

}  // namespace
}  // namespace redoubt
