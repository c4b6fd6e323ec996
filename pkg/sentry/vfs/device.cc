#include "pkg/sentry/vfs/device.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "pkg/sync/mutex.h"

namespace redoubt::vfs {

namespace {

struct Range {
  uint32_t major, first, count;
  std::string name;
  std::shared_ptr<const DeviceOpener> opener;
};

struct Registry {
  sync::Mutex mu{sync::Rank::kLeaf};
  std::vector<Range> ranges GUARDED_BY(mu);
};

Registry& Get() {
  static Registry* const registry = new Registry();
  return *registry;
}

}  // namespace

void RegisterCharDevice(uint32_t major, uint32_t first, uint32_t count, std::string name, DeviceOpener opener) {
  Range range{major, first, count, std::move(name), std::make_shared<const DeviceOpener>(std::move(opener))};
  Registry& registry = Get();
  sync::MutexLock lock(registry.mu);
  std::erase_if(registry.ranges,
                [&](const Range& r) { return r.major == major && r.first == first && r.count == count; });
  registry.ranges.push_back(std::move(range));
}

Result<RefPtr<FileDescription>> OpenCharDevice(const Path& path, uint64_t rdev, int flags) {
  const uint32_t major_number = major(rdev), minor_number = minor(rdev);
  std::shared_ptr<const DeviceOpener> opener;
  {
    Registry& registry = Get();
    sync::MutexLock lock(registry.mu);
    for (auto it = registry.ranges.rbegin(); it != registry.ranges.rend(); ++it) {
      if (it->major == major_number && minor_number >= it->first && minor_number - it->first < it->count) {
        opener = it->opener;
        break;
      }
    }
  }
  if (!opener) return Err(ENXIO);
  return (*opener)(path, minor_number, flags);
}

std::vector<DeviceInfo> CharDevices() {
  std::vector<DeviceInfo> result;
  {
    sync::MutexLock lock(Get().mu);
    for (const Range& r : Get().ranges) result.push_back({r.major, r.name});
  }
  std::ranges::sort(result, [](const DeviceInfo& a, const DeviceInfo& b) {
    return std::pair(a.major, std::string_view(a.name)) < std::pair(b.major, std::string_view(b.name));
  });
  auto same = [](const DeviceInfo& a, const DeviceInfo& b) { return a.major == b.major && a.name == b.name; };
  result.erase(std::unique(result.begin(), result.end(), same), result.end());
  return result;
}

}  // namespace redoubt::vfs
