#include "pkg/sentry/mm/fake_platform.h"

#include "pkg/log/log.h"

namespace redoubt::mm {

Result<> FakeAddressSpace::MapFile(Addr addr, int, uint64_t offset, uint64_t length, AccessType access, bool) {
  CHECK(!released && access.any() && length > 0 && IsPageAligned(addr | offset | length), "a bad MapFile");
  CHECK(addr >= FakePlatform::kMin && addr + length <= FakePlatform::kMax, "a MapFile out of bounds");
  calls++;
  if (fail_maps || maps_left == 0) return Err(ENOMEM);
  if (maps_left > 0) maps_left--;
  if (access.write) last_map = {addr, addr + length};
  if (!remember) return {};
  for (uint64_t i = 0; i < length; i += kPageSize) pages[addr + i] = {offset + i, access};
  return {};
}

Result<> FakeAddressSpace::Unmap(Addr addr, uint64_t length) {
  CHECK(!released && length > 0 && IsPageAligned(addr | length), "a bad Unmap");
  calls++;
  if (last_map.Overlaps({addr, addr + length})) last_map = {};
  pages.erase(pages.lower_bound(addr), pages.lower_bound(addr + length));
  return {};
}

Result<> FakeAddressSpace::Batch(std::span<const platform::MapOp> ops) {
  CHECK(!ops.empty(), "an empty batch");
  const int before = calls;
  Result<> r = AddressSpace::Batch(ops);
  calls = before + 1;
  batches++;
  return r;
}

}  // namespace redoubt::mm
