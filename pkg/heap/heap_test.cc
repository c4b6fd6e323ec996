#include "pkg/heap/heap.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace redoubt::heap {
namespace {

TEST(Heap, CountsWhatIsHeld) {
  const uint64_t before = Used();
  auto bytes = std::make_unique<std::byte[]>(10 << 20);
  EXPECT_GE(Used(), before + (10 << 20));
  EXPECT_LT(Used(), before + (11 << 20));
  bytes.reset();
  EXPECT_LT(Used(), before + (1 << 20));
}

TEST(Heap, AlignedMemoryCounts) {
  struct alignas(4096) Page {
    std::byte bytes[4096];
  };
  const uint64_t before = Used();
  std::vector<Page> pages(256);
  EXPECT_GE(Used(), before + (1 << 20));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(pages.data()) % 4096, 0u);
}

TEST(Heap, GrowthIsToldOnce) {
  while (HasGrown()) {
  }
  auto little = std::make_unique<std::byte[]>(100);
  auto much = std::make_unique<std::byte[]>(3 << 20);
  EXPECT_TRUE(HasGrown());
  EXPECT_FALSE(HasGrown());
}

TEST(Heap, WhatAnotherThreadFreesIsFree) {
  const uint64_t before = Used();
  std::vector<std::unique_ptr<std::byte[]>> all;
  std::thread maker([&] {
    for (int i = 0; i < 1000; i++) all.push_back(std::make_unique<std::byte[]>(10'000));
  });
  maker.join();
  EXPECT_GE(Used(), before + 10'000'000);
  std::thread([&] { all.clear(); }).join();
  EXPECT_LT(Used(), before + 1'000'000);
}

}  // namespace
}  // namespace redoubt::heap
