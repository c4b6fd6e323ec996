// Which driver serves which device number: Linux's cdev_map. Device nodes of any file system open through it.
#ifndef REDOUBT_PKG_SENTRY_VFS_DEVICE_H_
#define REDOUBT_PKG_SENTRY_VFS_DEVICE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/path.h"

namespace redoubt::vfs {

// Opens the device at `path` (the node). `flags` are open(2)'s.
using DeviceOpener = std::function<Result<RefPtr<FileDescription>>(const Path& path, uint32_t minor, int flags)>;

// Serves minors [first, first + count) of a character device's major; `name` is what /proc/devices shows. Later
// registrations win. Thread-safe.
void RegisterCharDevice(uint32_t major, uint32_t first, uint32_t count, std::string name, DeviceOpener opener);
// ENXIO if nobody serves it.
Result<RefPtr<FileDescription>> OpenCharDevice(const Path& path, uint64_t rdev, int flags);

// One line of /proc/devices.
struct DeviceInfo {
  uint32_t major;
  std::string name;
};
std::vector<DeviceInfo> CharDevices();

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_DEVICE_H_
