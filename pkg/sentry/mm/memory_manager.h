// A guest address space: VMAs and the pages behind them, apart, as copy-on-write and fork need. Linux's mm_struct.
#ifndef REDOUBT_PKG_SENTRY_MM_MEMORY_MANAGER_H_
#define REDOUBT_PKG_SENTRY_MM_MEMORY_MANAGER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/platform.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/memmap/futex_key.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/memmap/mmap_options.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/usermem/usermem.h"

namespace redoubt::mm {

// One line of /proc/PID/maps (or smaps).
struct MapsEntry {
  AddrRange range;
  AccessType access;
  bool shared = false;
  uint64_t offset = 0;
  uint64_t device = 0;
  uint64_t inode = 0;
  std::string name;
  uint64_t rss = 0;  // bytes
};

struct Limits {
  uint64_t address_space = ~uint64_t{0};  // RLIMIT_AS
  uint64_t data = ~uint64_t{0};           // RLIMIT_DATA
  uint64_t stack = 8 << 20;               // RLIMIT_STACK
};

class MemoryManager final : public memmap::MappingSpace, public MemoryIo, public RefCounted {
 public:
  static Result<RefPtr<MemoryManager>> Create(platform::Platform& platform, pgalloc::MemoryFile& memory_file);
  // A copy-on-write copy with its own host address space (fork(2)).
  Result<RefPtr<MemoryManager>> Fork();

  // Tasks that run in this space. The last to leave unmaps everything and releases the platform's address space; references may
  // live longer (/proc/PID/maps), then see nothing mapped.
  void AddUser();
  void DropUser();

  platform::AddressSpace& address_space();

  // Set by the kernel whenever limits change (setrlimit) and at exec.
  void SetLimits(const Limits& limits);

  // mmap(2), munmap(2), ...: errors as there. Lengths and addresses come straight from the guest.
  Result<Addr> MMap(MMapOptions options);
  Result<> MUnmap(Addr addr, uint64_t length);
  Result<> MProtect(Addr addr, uint64_t length, AccessType access, bool grows_down);
  Result<Addr> MRemap(Addr old_addr, uint64_t old_size, uint64_t new_size, int flags, Addr new_addr);
  Result<> MAdvise(Addr addr, uint64_t length, int advice);
  Result<> MSync(Addr addr, uint64_t length, int flags);
  Result<std::vector<uint8_t>> MIncore(Addr addr, uint64_t length);
  Result<> MLock(Addr addr, uint64_t length, bool lock, bool on_fault);
  Result<> MLockAll(int flags);
  Result<> MUnlockAll();
  // The new break; the old one if it cannot be moved (brk(2) never fails towards the guest).
  Addr Brk(Addr addr);
  // exec: where the heap starts.
  void SetBrkStart(Addr addr);

  // A fault at `addr` by the guest itself. Maps the page(s). Error EFAULT: SIGSEGV with SEGV_MAPERR; EACCES: SIGSEGV with
  // SEGV_ACCERR; EIO (past the end of a file) or other: SIGBUS BUS_ADRERR; ENOMEM: out of memory, the task is to be killed.
  // `access_known` false: the platform could not tell reads from writes.
  Result<> HandleUserFault(Addr addr, AccessType access, bool access_known, Addr stack_pointer);

  // MemoryIo: respects the mappings' permissions as the guest's own accesses do.
  Result<size_t> CopyOut(Addr addr, std::span<const std::byte> src) override;
  Result<size_t> CopyIn(Addr addr, std::span<std::byte> dst) override;
  Result<size_t> ZeroOut(Addr addr, uint64_t length) override;
  Result<uint32_t> LoadU32(Addr addr) override;
  Result<uint32_t> SwapU32(Addr addr, uint32_t value) override;
  Result<uint32_t> CompareAndSwapU32(Addr addr, uint32_t expected, uint32_t value) override;
  // Ignores protection, as ptrace(2) and /proc/PID/mem do (FOLL_FORCE); breaks copy-on-write.
  Result<size_t> ForceCopyOut(Addr addr, std::span<const std::byte> src);
  Result<size_t> ForceCopyIn(Addr addr, std::span<std::byte> dst);

  // EFAULT if not mapped. For a shared key the page is brought in.
  Result<FutexKey> GetFutexKey(Addr addr, bool is_private);

  std::vector<MapsEntry> Maps();
  uint64_t virtual_size();   // bytes mapped
  uint64_t resident_size();  // bytes of pages present
  uint64_t max_resident_size();

  // What /proc/PID/{cmdline,environ,auxv,stat} read; set by exec.
  struct ExecInfo {
    AddrRange argv;  // the strings, NUL-separated
    AddrRange envv;
    std::vector<uint64_t> auxv;
    Addr start_stack = 0;
    AddrRange code;
    AddrRange data;
    Addr start_brk = 0;
    RefPtr<memmap::MappingIdentity> executable;  // /proc/PID/exe
  };
  void SetExecInfo(ExecInfo info);
  ExecInfo exec_info();

  // memmap::MappingSpace
  void Invalidate(AddrRange range, bool invalidate_private) override;
};

}  // namespace redoubt::mm

#endif  // REDOUBT_PKG_SENTRY_MM_MEMORY_MANAGER_H_
