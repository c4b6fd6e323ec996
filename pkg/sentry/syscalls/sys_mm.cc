// Memory: mmap(2), munmap(2), mprotect(2), mremap(2), brk(2), madvise(2), msync(2), mincore(2), mlock(2),
// process_vm_readv(2).
#include <sys/mman.h>
#include <sys/mount.h>

#include <algorithm>

#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/kernel/ptrace.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

namespace redoubt::syscalls {
namespace {

constexpr int kProtections = PROT_READ | PROT_WRITE | PROT_EXEC;

AccessType ToAccess(int prot) {
  return {.read = (prot & PROT_READ) != 0, .write = (prot & PROT_WRITE) != 0, .execute = (prot & PROT_EXEC) != 0};
}

}  // namespace

Result<uint64_t> Mmap(Task& task, const SyscallArgs& a) {
  int prot = a.I32(2);
  int flags = a.I32(3);
  uint64_t offset = a.U64(5);
  int type = flags & MAP_TYPE;
  if (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE) return Err(EINVAL);
  if (!IsPageAligned(offset)) return Err(EINVAL);
  mm::MMapOptions options;
  options.addr = a.Pointer(0);
  options.length = a.U64(1);
  options.fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
  options.no_replace = (flags & MAP_FIXED_NOREPLACE) != 0;
  options.shared = type != MAP_PRIVATE;
  options.grows_down = (flags & MAP_GROWSDOWN) != 0;
  options.populate = (flags & MAP_POPULATE) != 0 && (flags & MAP_NONBLOCK) == 0;
  options.locked = (flags & MAP_LOCKED) != 0;
  options.no_reserve = (flags & MAP_NORESERVE) != 0;
  options.map_32bit = (flags & MAP_32BIT) != 0;
  options.access = ToAccess(prot & kProtections);
  options.offset = offset;
  if ((flags & MAP_ANONYMOUS) != 0) {
    options.offset = 0;
    return task.mm().MMap(std::move(options));
  }
  FdTable::File file = TRY(task.File(a.I32(4)));
  // mmap(2), EACCES.
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  if (!file->readable()) return Err(EACCES);
  if (options.shared && !file->writable()) {
    if (options.access.write) return Err(EACCES);
    options.max_access.write = false;
  }
  if (file->path() && (vfs::MountFlags(file->path()) & MS_NOEXEC) != 0) {
    if (options.access.execute) return Err(EPERM);
    options.max_access.execute = false;
  }
  uint64_t end = 0;
  if (__builtin_add_overflow(offset, options.length, &end) || static_cast<int64_t>(end) < 0) return Err(EOVERFLOW);
  TRY(file->ConfigureMMap(options));
  return task.mm().MMap(std::move(options));
}

Result<uint64_t> Munmap(Task& task, const SyscallArgs& a) {
  TRY(task.mm().MUnmap(a.Pointer(0), a.U64(1)));
  return 0;
}

Result<uint64_t> Mprotect(Task& task, const SyscallArgs& a) {
  int prot = a.I32(2);
  if ((prot & ~(kProtections | PROT_GROWSDOWN | PROT_GROWSUP)) != 0) return Err(EINVAL);
  if ((prot & PROT_GROWSUP) != 0) return Err(EINVAL);
  TRY(task.mm().MProtect(a.Pointer(0), a.U64(1), ToAccess(prot), (prot & PROT_GROWSDOWN) != 0));
  return 0;
}

Result<uint64_t> Mremap(Task& task, const SyscallArgs& a) {
  return task.mm().MRemap(a.Pointer(0), a.U64(1), a.U64(2), a.I32(3), a.Pointer(4));
}

Result<uint64_t> Brk(Task& task, const SyscallArgs& a) { return task.mm().Brk(a.Pointer(0)); }

Result<uint64_t> Madvise(Task& task, const SyscallArgs& a) {
  TRY(task.mm().MAdvise(a.Pointer(0), a.U64(1), a.I32(2)));
  return 0;
}

Result<uint64_t> Msync(Task& task, const SyscallArgs& a) {
  TRY(task.mm().MSync(a.Pointer(0), a.U64(1), a.I32(2)));
  return 0;
}

Result<uint64_t> Mincore(Task& task, const SyscallArgs& a) {
  std::vector<uint8_t> present = TRY(task.mm().MIncore(a.Pointer(0), a.U64(1)));
  TRY(task.mm().CopyOutAll(a.Pointer(2), std::as_bytes(std::span(present))));
  return 0;
}

Result<uint64_t> Mlock(Task& task, const SyscallArgs& a) {
  TRY(task.mm().MLock(a.Pointer(0), a.U64(1), true, false));
  return 0;
}

Result<uint64_t> Mlock2(Task& task, const SyscallArgs& a) {
  if ((a.U32(2) & ~static_cast<uint32_t>(MLOCK_ONFAULT)) != 0) return Err(EINVAL);
  TRY(task.mm().MLock(a.Pointer(0), a.U64(1), true, (a.U32(2) & MLOCK_ONFAULT) != 0));
  return 0;
}

Result<uint64_t> Munlock(Task& task, const SyscallArgs& a) {
  TRY(task.mm().MLock(a.Pointer(0), a.U64(1), false, false));
  return 0;
}

Result<uint64_t> Mlockall(Task& task, const SyscallArgs& a) {
  TRY(task.mm().MLockAll(a.I32(0)));
  return 0;
}

Result<uint64_t> Munlockall(Task& task, const SyscallArgs& a) {
  TRY(task.mm().MUnlockAll());
  return 0;
}

Result<uint64_t> MemfdCreate(Task& task, const SyscallArgs& a) {
  constexpr uint32_t kNoexecSeal = 8, kExec = 0x10;  // MFD_NOEXEC_SEAL, MFD_EXEC: newer than the C library
  const uint32_t flags = a.U32(1);
  if ((flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | kNoexecSeal | kExec)) != 0) return Err(EINVAL);
  if ((flags & kExec) != 0 && (flags & kNoexecSeal) != 0) return Err(EINVAL);
  constexpr size_t kMaxName = 249;
  Result<std::string> name = task.mm().CopyInString(a.Pointer(0), kMaxName + 1);
  if (!name) return Err(name.error() == Errno(ENAMETOOLONG) ? Errno(EINVAL) : name.error());
  const bool sealing = (flags & (MFD_ALLOW_SEALING | kNoexecSeal)) != 0;
  RefPtr<vfs::FileDescription> file = TRY(tmpfs::CreateMemfd(
      task.kernel().memory_file(), *name, sealing ? tmpfs::Sealing::kAllowed : tmpfs::Sealing::kForbidden,
      task.creds().fsuid, task.creds().fsgid));
  if ((flags & kNoexecSeal) != 0) {
    TRY(file->SetAttributes({.mode = 0666}));
    TRY(tmpfs::AddSeals(file->inode(), tmpfs::kSealExec));
  }
  return TRY(task.InstallFd(std::move(file), (flags & MFD_CLOEXEC) != 0));
}

// process_vm_readv(2), process_vm_writev(2): page by page through a buffer of the Sentry's, so that the two address
// spaces are never locked together.
Result<uint64_t> ProcessVm(Task& task, const SyscallArgs& a, bool write) {
  if (a.U64(5) != 0) return Err(EINVAL);
  std::vector<AddrRange> local = TRY(CopyInIovecRanges(task, a.Pointer(1), a.Size(2)));
  std::vector<AddrRange> remote = TRY(CopyInIovecRanges(task, a.Pointer(3), a.Size(4)));
  RefPtr<Task> target = task.FindTask(a.I32(0));
  if (!target) return Err(ESRCH);
  RefPtr<mm::MemoryManager> mm = target->GetMm();
  if (!mm) return Err(ESRCH);
  TRY(kernel::CheckPtraceAccess(task, *target, kernel::AccessBy::kRealIds));
  IoSequence here(task.mm(), std::move(local));
  IoSequence there(*mm, std::move(remote));
  IoSequence& from = write ? here : there;
  IoSequence& to = write ? there : here;
  uint64_t total = 0;
  std::byte buffer[kPageSize];
  while (!from.empty() && !to.empty()) {
    size_t want = std::min<uint64_t>({sizeof(buffer), from.remaining(), to.remaining()});
    Result<size_t> got = from.CopyIn(std::span(buffer, want));
    if (!got || *got == 0) return total > 0 ? Result<uint64_t>(total) : Err(EFAULT);
    Result<size_t> put = to.CopyOut(std::span(buffer, *got));
    if (!put) return total > 0 ? Result<uint64_t>(total) : Err(EFAULT);
    total += *put;
    if (*put < want) break;
  }
  return total;
}

Result<uint64_t> ProcessVmReadv(Task& task, const SyscallArgs& a) { return ProcessVm(task, a, false); }
Result<uint64_t> ProcessVmWritev(Task& task, const SyscallArgs& a) { return ProcessVm(task, a, true); }

}  // namespace redoubt::syscalls
