// What the options of a mount of config.json say.
#ifndef REDOUBT_RUNSC_BOOT_MOUNT_OPTIONS_H_
#define REDOUBT_RUNSC_BOOT_MOUNT_OPTIONS_H_

#include <cstdint>
#include <string>

#include "runsc/specutils/spec.h"

namespace redoubt::boot {

struct MountOptions {
  uint64_t flags = 0;  // MS_* of mount(2)
  std::string data;    // the file system's own, comma-separated
  bool copy_up = false;
  // Whether `data` has an option of that name.
  bool Has(const std::string& name) const;
};

// Those of config.md, "Linux mount options", and mount(8). The error names the option that cannot be had. Options that
// set attributes recursively mean the same as the others: a bind mount is one mount here, whatever is mounted below its
// source on the host.
specutils::Expected<MountOptions> ParseMountOptions(const specutils::Mount& mount);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_MOUNT_OPTIONS_H_
