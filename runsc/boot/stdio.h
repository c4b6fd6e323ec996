// Host descriptors as a guest process's first ones.
#ifndef REDOUBT_RUNSC_BOOT_STDIO_H_
#define REDOUBT_RUNSC_BOOT_STDIO_H_

#include <cstdint>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/fdtable/fd_table.h"
#include "pkg/sentry/tty/job_control.h"
#include "runsc/boot/failure.h"

namespace redoubt::boot {

struct ImportedDescriptors {
  RefPtr<FdTable> table;
  RefPtr<tty::Terminal> terminal;  // among stdin, stdout and stderr; null if none is one
};

// `fds` become 0, 1, 2, ...; taken over.
OrFailure<ImportedDescriptors> ImportDescriptors(std::vector<UniqueFd> fds, uint32_t uid, uint32_t gid);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_STDIO_H_
