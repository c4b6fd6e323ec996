#include "pkg/sentry/syscalls/seccomp_notify.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/vfs/anon_inode.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::syscalls {
namespace {

bool IsZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// As the first kernels to have it had it (SECCOMP_IOCTL_NOTIF_ID_VALID_WRONG_DIR).
constexpr uint32_t kIdValidWrongDirection = _IOR('!', 2, uint64_t);

// What a command is but for the size of its argument, which may grow.
constexpr uint32_t WithoutSize(uint32_t command) { return command & ~(uint32_t{_IOC_SIZEMASK} << _IOC_SIZESHIFT); }

}  // namespace

SeccompNotifyDescription::SeccompNotifyDescription(RefPtr<SeccompListener> listener)
    : FileDescription(vfs::MakeAnonymousPath("anon_inode:seccomp notify"), O_RDWR), listener_(std::move(listener)) {}

SeccompNotifyDescription::~SeccompNotifyDescription() { listener_->Detach(); }

Result<uint64_t> SeccompNotifyDescription::Control(kernel::Task& task, uint32_t command, Addr arg) {
  switch (command) {
    case SECCOMP_IOCTL_NOTIF_RECV:
      return Receive(task, arg);
    case SECCOMP_IOCTL_NOTIF_SEND:
      return Send(task, arg);
    case SECCOMP_IOCTL_NOTIF_ID_VALID:
    case kIdValidWrongDirection: {
      const uint64_t id = TRY(task.mm().CopyInObject<uint64_t>(arg));
      if (!listener_->IsReceived(id)) return Err(ENOENT);
      return 0;
    }
    default:
      if (WithoutSize(command) == WithoutSize(SECCOMP_IOCTL_NOTIF_ADDFD)) return AddFd(task, _IOC_SIZE(command), arg);
      return Err(EINVAL);
  }
}

Result<uint64_t> SeccompNotifyDescription::Receive(kernel::Task& task, Addr arg) {
  // So that later versions can ask for something there.
  const auto given = TRY(task.mm().CopyInObject<seccomp_notif>(arg));
  if (!IsZero(std::as_bytes(std::span(&given, 1)))) return Err(EINVAL);
  // O_NONBLOCK does not count.
  SeccompListener::Question question =
      TRY(wait::Retry(*listener_, waiter::kIn, fiber::kForever,
                      [&]() -> Result<SeccompListener::Question> { return listener_->Receive(); }));
  seccomp_notif notif{};
  notif.id = question.id;
  notif.data = question.data;
  {
    // execve(2) may give a thread another number.
    sync::MutexLock lock(task.kernel().mu);
    notif.pid = static_cast<uint32_t>(static_cast<kernel::Task&>(*question.task).pid().In(task.pid_ns()));
  }
  if (Result<> copied = task.mm().CopyOutObject(arg, notif); !copied) {
    listener_->Return(question.id);
    return Err(copied.error());
  }
  return 0;
}

Result<uint64_t> SeccompNotifyDescription::Send(kernel::Task& task, Addr arg) {
  const auto response = TRY(task.mm().CopyInObject<seccomp_notif_resp>(arg));
  if ((response.flags & ~uint32_t{SECCOMP_USER_NOTIF_FLAG_CONTINUE}) != 0) return Err(EINVAL);
  const bool proceed = response.flags != 0;
  if (proceed && (response.error != 0 || response.val != 0)) return Err(EINVAL);
  TRY(listener_->Answer(response.id,
                        {.proceed = proceed, .value = response.error != 0 ? response.error : response.val}));
  return 0;
}

Result<uint64_t> SeccompNotifyDescription::AddFd(kernel::Task& task, uint32_t size, Addr arg) {
  constexpr uint32_t kMaxSize = 4096;
  if (size < sizeof(seccomp_notif_addfd) || size >= kMaxSize) return Err(EINVAL);
  std::vector<std::byte> bytes = TRY(task.mm().CopyInVector<std::byte>(arg, size));
  seccomp_notif_addfd request;
  std::memcpy(&request, bytes.data(), sizeof(request));
  if (!IsZero(std::span(bytes).subspan(sizeof(request)))) return Err(E2BIG);
  if ((request.newfd_flags & ~uint32_t{O_CLOEXEC}) != 0) return Err(EINVAL);
  if ((request.flags & ~uint32_t{SECCOMP_ADDFD_FLAG_SETFD | SECCOMP_ADDFD_FLAG_SEND}) != 0) return Err(EINVAL);
  const bool at = (request.flags & SECCOMP_ADDFD_FLAG_SETFD) != 0;
  if (request.newfd != 0 && !at) return Err(EINVAL);
  FdTable::File file = TRY(task.fds().Get(static_cast<int>(request.srcfd)));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  return static_cast<uint64_t>(TRY(listener_->Give(request.id, (request.flags & SECCOMP_ADDFD_FLAG_SEND) != 0,
                                                   [&](RefCounted& waiting) -> Result<int> {
                                                     auto& target = static_cast<kernel::Task&>(waiting);
                                                     RefPtr<FdTable> fds = target.GetFds();
                                                     const uint64_t limit = target.GetLimit(RLIMIT_NOFILE).soft;
                                                     const bool cloexec = request.newfd_flags != 0;
                                                     if (!at) return fds->Install(std::move(file), cloexec, limit);
                                                     const int number = static_cast<int>(request.newfd);
                                                     TRY(fds->InstallAt(number, std::move(file), cloexec, limit));
                                                     return number;
                                                   })));
}

}  // namespace redoubt::syscalls
