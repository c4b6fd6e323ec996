#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pkg/platform/conformance.h"

namespace redoubt::platform {

void PlatformConformance::SetUp() {
  memory_fd_ = memfd_create("conformance", MFD_CLOEXEC);
  ASSERT_GE(memory_fd_, 0);
  ASSERT_EQ(ftruncate(memory_fd_, kMemorySize), 0);
  void* p = mmap(nullptr, kMemorySize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory_fd_, 0);
  ASSERT_NE(p, MAP_FAILED);
  memory_ = static_cast<std::byte*>(p);
}

void PlatformConformance::TearDown() {
  executor_.reset();
  platform_.reset();
  munmap(memory_, kMemorySize);
  close(memory_fd_);
}

Platform& PlatformConformance::platform() {
  if (platform_ == nullptr) {
    auto made = GetParam().create(Requirements{.memory_fd = memory_fd_});
    CHECK(made.has_value(), "no platform");
    platform_ = *std::move(made);
  }
  return *platform_;
}

void PlatformConformance::Run(std::function<void()> body) {
  platform();
  if (executor_ == nullptr)
    executor_ = fiber::ThreadedExecutor::Create(
        {.slots = 2, .thread_name = "conformance", .events = platform_->event_source()});
  executor_->Spawn(std::move(body));
  fiber::Join(*executor_);
}

void PlatformConformance::Spawn(std::function<void()> body) { executor_->Spawn(std::move(body)); }

Addr PlatformConformance::AddCode(std::span<const std::byte> code) {
  Addr addr = kCode + code_used_;
  CHECK(code_used_ + code.size() <= kCodeSize);
  memcpy(memory_ + code_used_, code.data(), code.size());
  code_used_ = (code_used_ + code.size() + 63) & ~uint64_t{63};
  return addr;
}

RefPtr<AddressSpace> PlatformConformance::NewSpace() {
  Result<RefPtr<AddressSpace>> space = platform().NewAddressSpace();
  CHECK(space.has_value(), "no address space");
  AccessType code{.read = true, .execute = true};
  CHECK((*space)->MapFile(kCode, memory_fd_, 0, kCodeSize, code, false).has_value());
  CHECK((*space)->MapFile(kData, memory_fd_, kDataOffset, kDataSize, kReadWrite, false).has_value());
  return *space;
}

}  // namespace redoubt::platform
