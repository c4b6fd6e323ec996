#include "pkg/sentry/pipe/pipe.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::pipe {
namespace {

constexpr uint64_t kSeeds = 2000;

// A buffer whose every copy is a point where another fiber may run, as a page fault would be.
class YieldingIo final : public MemoryIo {
 public:
  explicit YieldingIo(std::span<std::byte> buffer) : io_(buffer) {}
  Result<size_t> CopyOut(Addr addr, std::span<const std::byte> src) override {
    fiber::Yield();
    return io_.CopyOut(addr, src);
  }
  Result<size_t> CopyIn(Addr addr, std::span<std::byte> dst) override {
    fiber::Yield();
    return io_.CopyIn(addr, dst);
  }
  Result<size_t> ZeroOut(Addr, uint64_t) override { return Err(EFAULT); }
  Result<uint32_t> LoadU32(Addr) override { return Err(EFAULT); }
  Result<uint32_t> SwapU32(Addr, uint32_t) override { return Err(EFAULT); }
  Result<uint32_t> CompareAndSwapU32(Addr, uint32_t, uint32_t) override { return Err(EFAULT); }

 private:
  BufferIo io_;
};

Result<size_t> ReadSome(vfs::FileDescription& file, std::vector<std::byte>& out, size_t size) {
  out.resize(size);
  YieldingIo io(out);
  IoSequence dst(io, 0, size);
  Result<size_t> n =
      wait::Retry(file, waiter::kIn, fiber::kForever, [&]() -> Result<size_t> { return file.Read(dst, 0); });
  out.resize(n.value_or(0));
  return n;
}

// All of it, as write(2) does.
Result<size_t> WriteAll(vfs::FileDescription& file, std::span<std::byte> data) {
  YieldingIo io(data);
  IoSequence src(io, 0, data.size());
  while (!src.empty()) {
    TRY(wait::Retry(file, waiter::kOut, fiber::kForever, [&]() -> Result<size_t> { return file.Write(src, 0); }));
  }
  return data.size();
}

struct Ends {
  RefPtr<vfs::FileDescription> reader;
  RefPtr<vfs::FileDescription> writer;
};

Ends MakeEnds(size_t size = 4096, int flags = 0) {
  auto [r, w] = *MakePipe(flags, *auth::Credentials::Root());
  EXPECT_TRUE(r->Fcntl(F_SETPIPE_SZ, size));
  return {std::move(r), std::move(w)};
}

// Two writers of small (atomic) records and two readers through a pipe that holds a few: nothing lost, doubled, torn or
// stuck.
TEST(PipeSchedules, RecordsArriveWholeAndOnce) {
  constexpr size_t kRecord = 1000;
  constexpr int kRecords = 6;
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    Ends ends = MakeEnds();
    int writers = 2;
    int seen[2][kRecords] = {};
    int bad = 0;
    for (int id = 0; id < 2; id++) {
      executor->Spawn([&, id] {
        for (int i = 0; i < kRecords; i++) {
          std::vector<std::byte> record(kRecord, static_cast<std::byte>(id * 16 + i));
          bad += !WriteAll(*ends.writer, record);
        }
        if (--writers == 0) ends.writer.reset();
      });
      executor->Spawn([&, reader = ends.reader] {
        std::vector<std::byte> got;
        // Reads of whole records stay on their borders, since writes are atomic.
        for (;;) {
          Result<size_t> n = ReadSome(*reader, got, kRecord);
          bad += !n;
          if (!n || *n == 0) break;
          bad += *n != kRecord || std::count(got.begin(), got.end(), got[0]) != static_cast<long>(kRecord);
          seen[static_cast<int>(got[0]) / 16][static_cast<int>(got[0]) % 16]++;
        }
      });
    }
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << seed;
    ASSERT_EQ(bad, 0) << seed;
    for (auto& of : seen) {
      for (int n : of) ASSERT_EQ(n, 1) << seed;
    }
  }
}

// A transfer far larger than the pipe keeps its order.
TEST(PipeSchedules, AStreamKeepsItsOrder) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    Ends ends = MakeEnds();
    std::vector<std::byte> sent(20000);
    for (size_t i = 0; i < sent.size(); i++) sent[i] = static_cast<std::byte>(i * 31 + i / 256);
    std::vector<std::byte> received;
    executor->Spawn([&] {
      EXPECT_EQ(WriteAll(*ends.writer, sent), sent.size());
      ends.writer.reset();
    });
    executor->Spawn([&] {
      std::vector<std::byte> got;
      for (uint64_t r = seed;; r = r * 6364136223846793005 + 1) {
        Result<size_t> n = ReadSome(*ends.reader, got, 1 + (r >> 33) % 9000);
        if (!n || *n == 0) break;
        received.insert(received.end(), got.begin(), got.end());
      }
    });
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << seed;
    ASSERT_TRUE(received == sent) << seed;
  }
}

// A writer that waits for room learns that the last reader went.
TEST(PipeSchedules, ABlockedWriterGetsEpipe) {
  for (uint64_t seed = 0; seed < kSeeds; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    Ends ends = MakeEnds();
    Result<size_t> outcome = 0;
    executor->Spawn([&] {
      std::vector<std::byte> data(10000);
      outcome = WriteAll(*ends.writer, data);
    });
    executor->Spawn([&] {
      std::vector<std::byte> got;
      EXPECT_TRUE(ReadSome(*ends.reader, got, 100));
      ends.reader.reset();
    });
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << seed;
    ASSERT_FALSE(outcome) << seed;
    ASSERT_EQ(outcome.error(), Errno(EPIPE)) << seed;
  }
}

TEST(Pipe, EmptyIsEagainWithWritersAndTheEndWithout) {
  auto executor = fiber::MakeDeterministicExecutor(1);
  executor->Spawn([] {
    Ends ends = MakeEnds();
    std::byte byte{};
    BufferIo io(std::span(&byte, 1));
    IoSequence dst(io, 0, 1);
    EXPECT_EQ(ends.reader->Read(dst, 0).error(), Errno(EAGAIN));
    EXPECT_EQ(ends.reader->Readiness(waiter::kAll) & (waiter::kIn | waiter::kHup), 0u);
    ends.writer.reset();
    EXPECT_EQ(*ends.reader->Read(dst, 0), 0u);
    EXPECT_NE(ends.reader->Readiness(waiter::kAll) & waiter::kHup, 0u);
  });
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u);
}

TEST(Pipe, ResizeBelowTheContentIsEbusy) {
  auto executor = fiber::MakeDeterministicExecutor(1);
  executor->Spawn([] {
    Ends ends = MakeEnds(16384);
    std::vector<std::byte> data(10000);
    EXPECT_TRUE(WriteAll(*ends.writer, data));
    EXPECT_EQ(ends.reader->Fcntl(F_SETPIPE_SZ, 4096).error(), Errno(EBUSY));
    EXPECT_EQ(*ends.reader->Fcntl(F_GETPIPE_SZ, 0), 16384u);
  });
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u);
}

}  // namespace
}  // namespace redoubt::pipe
