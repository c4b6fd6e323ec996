#include "runsc/boot/stdio.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cstring>
#include <utility>

#include "pkg/hostio/hostio.h"
#include "pkg/sentry/fsimpl/host/host.h"

namespace redoubt::boot {

OrFailure<ImportedDescriptors> ImportDescriptors(std::vector<UniqueFd> fds, uint32_t uid, uint32_t gid) {
  ImportedDescriptors result{.table = MakeRef<FdTable>(), .terminal = nullptr};
  struct stat previous{};
  RefPtr<vfs::FileDescription> previous_file;
  for (size_t i = 0; i < fds.size(); i++) {
    const int number = static_cast<int>(i);
    struct stat st{};
    int flags = fcntl(fds[i].get(), F_GETFL);
    if (flags < 0 || !hostio::Stat(fds[i].get(), st)) {
      return Fail(fmt::format("cannot use descriptor {}: {}", number, strerror(errno)));
    }
    flags &= O_ACCMODE | O_APPEND;
    RefPtr<vfs::FileDescription> file;
    // One terminal on several is one description, so that job control sees one terminal.
    if (previous_file && S_ISCHR(st.st_mode) && st.st_dev == previous.st_dev && st.st_ino == previous.st_ino &&
        (previous_file->flags() & O_ACCMODE) == (flags & O_ACCMODE)) {
      file = previous_file;
    } else {
      Result<RefPtr<vfs::FileDescription>> imported = host::Import(fds[i].release(), flags, uid, gid);
      if (!imported) return Fail(fmt::format("cannot use descriptor {}: {}", number, imported.error().name()));
      file = *imported;
    }
    previous = st;
    previous_file = file;
    if (!result.terminal && i < 3) result.terminal = host::TerminalOf(*file);
    if (Result<> r = result.table->InstallAt(number, file, false, fds.size()); !r) {
      return Fail(fmt::format("cannot use descriptor {}: {}", number, r.error().name()));
    }
  }
  return result;
}

}  // namespace redoubt::boot
