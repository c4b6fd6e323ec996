// A platform whose guest is the test: it remembers what is mapped where, and accesses that memory as a guest would.
#ifndef REDOUBT_PKG_SENTRY_MM_FAKE_PLATFORM_H_
#define REDOUBT_PKG_SENTRY_MM_FAKE_PLATFORM_H_

#include <cstdint>
#include <map>
#include <span>

#include "pkg/platform/platform.h"
#include "pkg/sentry/pgalloc/memory_file.h"

namespace redoubt::mm {

class FakeAddressSpace final : public platform::AddressSpace {
 public:
  struct Page {
    uint64_t offset;
    AccessType access;
  };
  Result<> MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access, bool populate) override;
  Result<> Unmap(Addr addr, uint64_t length) override;
  Result<> Batch(std::span<const platform::MapOp> ops) override;
  void Release() override {
    pages.clear();
    released = true;
  }

  explicit FakeAddressSpace(bool remember = true) : remember(remember) {}

  const bool remember;  // keep `pages`
  std::map<Addr, Page> pages;
  AddrRange last_map;  // of the last MapFile for writing
  bool released = false;
  bool fail_maps = false;
  int maps_left = -1;  // MapFiles that work before all others fail; negative: all work
  int calls = 0;       // of the three above; a batch is one
  int batches = 0;
  int faults = 0;  // counted by whoever plays the guest
};

class FakePlatform final : public platform::Platform {
 public:
  static constexpr Addr kMin = 0x10000;
  static constexpr Addr kMax = 0x7fff'ffff'f000;

  // `remember` false: address spaces only count, for benchmarks.
  explicit FakePlatform(bool remember = true) : remember_(remember) {}
  std::string_view name() const override { return "fake"; }
  Result<RefPtr<platform::AddressSpace>> NewAddressSpace() override { return MakeRef<FakeAddressSpace>(remember_); }
  Result<std::unique_ptr<platform::Context>> NewContext() override { return Err(ENOSYS); }
  Addr min_user_address() const override { return kMin; }
  Addr max_user_address() const override { return kMax; }

 private:
  const bool remember_;
};

}  // namespace redoubt::mm

#endif  // REDOUBT_PKG_SENTRY_MM_FAKE_PLATFORM_H_
