// The platform contract as tests. A platform's test instantiates them:
//
//   INSTANTIATE_TEST_SUITE_P(Ptrace, PlatformConformance, testing::Values(PlatformFactory{"ptrace", ptrace::Create}));
#ifndef REDOUBT_PKG_PLATFORM_CONFORMANCE_H_
#define REDOUBT_PKG_PLATFORM_CONFORMANCE_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <ostream>
#include <span>
#include <string>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/platform/platform.h"

namespace redoubt::platform {

struct PlatformFactory {
  std::string name;
  Result<std::unique_ptr<Platform>> (*create)(const Requirements& requirements) = nullptr;

  friend void PrintTo(const PlatformFactory& f, std::ostream* os) { *os << f.name; }
};

// A memory file of kMemorySize bytes, a platform and an executor, each made when first asked for.
class PlatformConformance : public testing::TestWithParam<PlatformFactory> {
 public:
  static constexpr size_t kMemorySize = 64 << 20;
  // Where NewSpace maps things: file offset 0 holds the code, kDataOffset the data, shared by all spaces of the test.
  static constexpr Addr kCode = 0x400000;
  static constexpr Addr kData = 0x600000;
  static constexpr uint64_t kCodeSize = 16 * kPageSize;
  static constexpr uint64_t kDataOffset = kCodeSize;
  static constexpr uint64_t kDataSize = 1 << 20;

 protected:
  void SetUp() override;
  void TearDown() override;

  Platform& platform();
  // Runs `body` in a fiber, and every fiber that it spawns, to their ends.
  void Run(std::function<void()> body);
  void Spawn(std::function<void()> body);

  // Copies code into the code pages; its guest address.
  Addr AddCode(std::span<const std::byte> code);
  // A space with code (r-x) and data (rw-) mapped.
  RefPtr<AddressSpace> NewSpace();
  // Data in the Sentry's view.
  uint64_t& Word(uint64_t offset) { return *reinterpret_cast<uint64_t*>(memory_ + kDataOffset + offset); }
  std::byte* memory() { return memory_; }
  int memory_fd() const { return memory_fd_; }

 private:
  int memory_fd_ = -1;
  std::byte* memory_ = nullptr;
  uint64_t code_used_ = 0;
  std::unique_ptr<Platform> platform_;
  std::unique_ptr<fiber::Executor> executor_;
};

// For platforms whose guests run in child processes, which can be killed from outside: to be instantiated by those.
class StubConformance : public PlatformConformance {};

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_CONFORMANCE_H_
