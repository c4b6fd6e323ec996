#include "runsc/boot/confine.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstring>

#include "pkg/log/log.h"
#include "pkg/platform/kvm/kvm.h"
#include "pkg/seccomp/seccomp.h"
#include "pkg/sentry/fsimpl/host/host.h"
#include "pkg/sentry/syscalls/table.h"
#include "runsc/boot/filter/filter.h"
#include "runsc/box/box.h"
#include "runsc/sandbox/layout.h"

namespace redoubt::boot {

specutils::Expected<void> EnterBox(const specutils::SandboxOptions& options) {
  auto missing = box::EnterSentryBox({.allow_weak = options.allow_weak_box,
                                      .parent_pidfd = fcntl(sandbox::kParentFd, F_GETFD) >= 0 ? sandbox::kParentFd : -1,
                                      .first_closed = sandbox::kFirstClosedFd,
                                      .keep_network = options.network == specutils::NetworkMode::kHost});
  if (!missing) return std::unexpected(missing.error());
  if (options.network == specutils::NetworkMode::kHost) {
    LOG_WARNING("--network=host: the sandbox is in a network namespace that is not its own, as asked for");
  }
  for (const std::string& wall : *missing) LOG_ERROR("--allow-weak-box: the sandbox goes without: {}", wall);
  for (int fd : {sandbox::kParentFd, sandbox::kKvmFd}) fcntl(fd, F_SETFD, FD_CLOEXEC);
  platform::kvm::UseDevice(options.kvm_device == 0 ? sandbox::kKvmFd : -options.kvm_device);
  return {};
}

specutils::Expected<void> Confine(std::string_view platform, std::string_view network) {
  const Filter* filter = FindFilter(platform, network);
  if (filter == nullptr) {
    return std::unexpected(fmt::format("no system-call filter for platform {} and network {}", platform, network));
  }
  host::Prepare();
  OpenWhatIsOpenedLate();
  // Not earlier: the ptrace platform's template is a copy of this process, and must be traced.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return std::unexpected(fmt::format("cannot make the sandbox undumpable: {}", std::strerror(errno)));
  }
  if (Result<> r = seccomp::Install(filter->program); !r) {
    return std::unexpected(fmt::format(
        "cannot install the system-call filter of the sandbox: {}; the host's kernel needs CONFIG_SECCOMP_FILTER",
        std::strerror(r.error().value())));
  }
  return {};
}

// The guest's numbers are the host's.
std::string_view SyscallName(uint64_t number) {
  return number < syscalls::kTableSize ? syscalls::Lookup(number).name : std::string_view();
}

}  // namespace redoubt::boot
