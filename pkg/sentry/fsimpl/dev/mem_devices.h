// null, zero, full, random and urandom. Private to dev.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_DEV_MEM_DEVICES_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_DEV_MEM_DEVICES_H_

#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::dev {

inline constexpr uint32_t kMemMajor = 1;
inline constexpr uint32_t kNullMinor = 3, kZeroMinor = 5, kFullMinor = 7, kRandomMinor = 8, kUrandomMinor = 9;

// ENXIO for a minor that is none of those.
Result<RefPtr<vfs::FileDescription>> OpenMemDevice(const vfs::Path& path, uint32_t minor, int flags);

}  // namespace redoubt::dev

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_DEV_MEM_DEVICES_H_
