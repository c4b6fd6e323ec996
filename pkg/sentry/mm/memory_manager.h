// A guest address space: VMAs and the pages behind them, apart, as copy-on-write and fork need. Linux's mm_struct.
//
// Lock order:
//   mapping_mu_ (fiber::Mutex: may be held while a page comes from the gofer)
//     a Mappable's locks (kMappable)
//       active_mu_ (kActivePages; a fork takes the child's under the parent's)
//         the platform's address space, the memory file
//
// Faults by the guest and by the Sentry's own copies end in the same place, Fault: it makes pages present and maps
// them. Copies try without it first, under active_mu_ alone. Pages are never given up while the guest can still reach
// them: first the platform unmaps, then the references go.
#ifndef REDOUBT_PKG_SENTRY_MM_MEMORY_MANAGER_H_
#define REDOUBT_PKG_SENTRY_MM_MEMORY_MANAGER_H_

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/platform.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/memmap/futex_key.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/memmap/mmap_options.h"
#include "pkg/sentry/mm/first_touch.h"
#include "pkg/sentry/mm/hot_pages.h"
#include "pkg/sentry/mm/map_batch.h"
#include "pkg/sentry/mm/text_patch.h"
#include "pkg/sentry/mm/vma.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sync/mutex.h"

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
  // A copy-on-write copy with its own host address space (fork(2)). `written`: what will be written at once, so that
  // its pages are better copied now.
  Result<RefPtr<MemoryManager>> Fork(std::initializer_list<Addr> written = {});
  // A guest is about to run here for the first time, or the first time since exec: what it will need is mapped now, in
  // one call, where its first fault would ask for it anyway. Only a help.
  void GuestStarts();

  // Tasks that run in this space. The last to leave unmaps everything and releases the platform's address space;
  // references may live longer (/proc/PID/maps), then see nothing mapped.
  void AddUser();
  void DropUser();

  platform::AddressSpace& address_space();

  // Set by the kernel whenever limits change (setrlimit) and at exec.
  void SetLimits(const Limits& limits);
  // Above the mapping area there is room for a stack of RLIMIT_STACK that lies so many bytes lower than it could.
  static constexpr uint64_t kMostStackRandom = uint64_t{16} << 30;
  // Mappings begin `bytes` lower than they could. For an address space that has none.
  void LowerMappings(uint64_t bytes);

  // mmap(2), munmap(2), ...: errors as there. Lengths and addresses come straight from the guest. A stack (grows_down)
  // without an address goes to the top of the address space, everything else below the room that RLIMIT_STACK leaves
  // for it.
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

  // A fault at `addr` by the guest itself. Maps the page(s). Error EFAULT: SIGSEGV with SEGV_MAPERR; EACCES: SIGSEGV
  // with SEGV_ACCERR; EIO (past the end of a file) or other: SIGBUS BUS_ADRERR; ENOMEM: out of memory, the task is to
  // be killed. `access_known` false: the platform could not tell reads from writes.
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

  // For a platform that rewrites guest text. The text's pages are the guest's, so a debugger, mremap and mprotect see
  // what would be there without us: they undo patches first, or read around them.
  //
  // Maps `length` bytes (whole pages) of private zero memory that the guest may read and execute, and only WriteHidden
  // writes, within `reach` of `near`, where nothing is and little is likely to come. The guest's calls take its
  // addresses for unmapped, but put nothing there, except where the guest insists (MAP_FIXED, MREMAP_FIXED, brk, a
  // growing stack): then all patches that lead into it are undone, and it goes. ENOMEM if there is no room.
  Result<AddrRange> MapHidden(Addr near, uint64_t length, uint64_t reach);
  // EFAULT if not all of it is hidden memory.
  Result<> WriteHidden(Addr addr, std::span<const std::byte> bytes);
  // Replaces `expected` by `bytes` (as many, at most TextPatch::kMaxLength, within one page) in private, executable,
  // not writable memory of a file (EACCES otherwise, EFAULT if not mapped), in a copy of the page that then takes the
  // page's place: other threads may be running there. `hidden`: any address of the hidden range that the new bytes lead
  // to; EINVAL if there is none. EAGAIN: the bytes are not `expected`, or partly another patch's.
  Result<> PatchText(Addr addr, std::span<const std::byte> expected, std::span<const std::byte> bytes, Addr hidden);
  // All patches are undone and all hidden memory goes.
  void DropHidden();
  // The live patch that holds the byte at `addr`.
  std::optional<TextPatch> FindPatch(Addr addr);

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

  // For tests: fatal if the two maps contradict each other, the counters or the memory file.
  void CheckInvariants();

 private:
  using VmaIterator = internal::VmaMap::iterator;
  using PmaIterator = internal::PmaMap::iterator;
  // kForce: protection does not matter, only max_access (FOLL_FORCE).
  enum class Mode { kNormal, kForce };
  // Changes in one call to the platform: it is not to keep the guest's other threads waiting for long.
  static constexpr size_t kMaxBatch = 64;
  static constexpr size_t kMaxInherited = 32;

  MemoryManager(platform::Platform& platform, pgalloc::MemoryFile& memory_file, RefPtr<platform::AddressSpace> as);
  ~MemoryManager() override;
  // Unmaps everything and releases the platform's address space.
  void Teardown() EXCLUDES(mapping_mu_, active_mu_);

  // mmap.cc
  Result<Addr> MMapLocked(MMapOptions& options) REQUIRES(mapping_mu_);
  Result<Addr> ChooseAddress(const MMapOptions& options, uint64_t length) REQUIRES(mapping_mu_);
  Result<Addr> FindGapBelow(Addr low, Addr high, uint64_t length) REQUIRES(mapping_mu_);
  Result<Addr> FindGap(uint64_t length) REQUIRES(mapping_mu_);
  // There are no VMAs at `range` any more.
  void GapHasGrown(AddrRange range) REQUIRES(mapping_mu_);
  // No VMA there, hidden ones included.
  bool IsFree(AddrRange range) REQUIRES(mapping_mu_);
  Result<> CheckRange(Addr addr, uint64_t length, int overflow_error, AddrRange* out) const;
  // ENOMEM if `added` more bytes break RLIMIT_AS or, for data, RLIMIT_DATA; `replaced` are given up in exchange.
  Result<> CheckLimits(uint64_t added, bool data, AddrRange replaced) REQUIRES(mapping_mu_);
  // A new mapping is given its pages if it will probably want them.
  void ExpectTouch(AddrRange range, const MMapOptions& options) REQUIRES(mapping_mu_) EXCLUDES(active_mu_);
  // Leaves hidden ranges where they are.
  Result<> UnmapLocked(AddrRange range) REQUIRES(mapping_mu_);
  Result<> UnmapVisible(AddrRange range) REQUIRES(mapping_mu_);
  size_t VisibleVmas() REQUIRES(mapping_mu_) { return vmas_.size() - hidden_ranges_; }
  void InsertVma(AddrRange range, internal::Vma vma) REQUIRES(mapping_mu_);
  void CountVma(AddrRange range, const internal::Vma& vma) REQUIRES(mapping_mu_);
  // Brings in all pages of the range that can be; errors are ignored, as MAP_POPULATE does.
  void Populate(AddrRange range, bool for_write) REQUIRES(mapping_mu_);

  // protect.cc, remap.cc
  // Gives the pages in the range the access that their VMAs now have.
  void ReprotectPmas(AddrRange range) REQUIRES(mapping_mu_);
  Result<Addr> Move(VmaIterator vma, AddrRange from, AddrRange to, bool keep_old) REQUIRES(mapping_mu_);

  // advise.cc
  // Calls f(vma, part) for each VMA's part of the range. ENOMEM afterwards if some of the range is not mapped.
  template <typename F>
  Result<> ForEachVma(AddrRange range, F&& f) REQUIRES(mapping_mu_);
  // As above with the VMAs split at the range's ends, for `f` to change, and merged again.
  template <typename F>
  Result<> ChangeVmas(AddrRange range, F&& f) REQUIRES(mapping_mu_);
  void DropPages(AddrRange range) REQUIRES(mapping_mu_) EXCLUDES(active_mu_);
  Result<> AdvisePopulate(AddrRange range, bool for_write) REQUIRES(mapping_mu_);

  // text_patch.cc
  Result<Addr> FindHiddenGap(Addr near, uint64_t length, uint64_t reach) REQUIRES(mapping_mu_);
  // Removes the hidden ranges that overlap `range`, and undoes the patches that lead there.
  void DisplaceHidden(AddrRange range) REQUIRES(mapping_mu_) EXCLUDES(active_mu_);
  // Undoes the patches in `text` that lead into `hidden`.
  void RestorePatches(AddrRange text, AddrRange hidden) REQUIRES(active_mu_);
  void RestorePage(Addr page, std::span<const TextPatch> patches) REQUIRES(active_mu_);
  // Puts the original bytes into what was read from `text`.
  void HidePatches(AddrRange text, std::byte* read) REQUIRES(active_mu_);
  // The pages of `text` are gone, and the patches with them.
  void ForgetPatches(AddrRange text) REQUIRES(active_mu_);
  std::map<Addr, TextPatch>::iterator FirstPatchIn(AddrRange text) REQUIRES(active_mu_);
  // A copy of the page at `page` of `pma`, for InstallPages: `copy` describes it. Returns its bytes.
  Result<std::byte*> CopyPage(PmaIterator pma, Addr page, internal::Pma* copy) REQUIRES(active_mu_);

  // fault.cc
  // Makes the page at `addr` present and mapped such that `want` is possible. Errors as HandleUserFault.
  Result<> Fault(Addr addr, AccessType want, Mode mode) REQUIRES(mapping_mu_) EXCLUDES(active_mu_);
  Result<> FaultIn(VmaIterator vma, Addr page, AccessType want, Mode mode) REQUIRES(mapping_mu_) EXCLUDES(active_mu_);
  VmaIterator FindOrGrowStack(Addr addr) REQUIRES(mapping_mu_);
  // The largest part of `bounds` around `page` that holds no pages.
  AddrRange GapAround(Addr page, AddrRange bounds) REQUIRES(active_mu_);
  Result<> FaultAnonymous(Addr page, VmaIterator vma) REQUIRES(active_mu_);
  // Zero pages for `range` of private memory, where there are none. ENOMEM: none could be had.
  Result<> AddPages(AddrRange range, AccessType access) REQUIRES(active_mu_);
  Result<> FaultMappable(Addr page, VmaIterator vma, AccessType want) REQUIRES(mapping_mu_) EXCLUDES(active_mu_);
  // Makes the private page at `page`, present but not writable, writable: in place if nobody else has it, or by a copy.
  Result<> BreakCopyOnWrite(Addr page, PmaIterator pma, VmaIterator vma) REQUIRES(active_mu_);
  // Puts pages at `range`, over what was there. `around`, if not empty: a part of one segment of pages, which holds
  // `range`, to be mapped as it is otherwise.
  Result<> InstallPages(AddrRange range, internal::Pma pma, AddrRange around = {}) REQUIRES(active_mu_);
  // Has the platform map `range`, all present in one segment. ENOMEM: it is not mapped.
  Result<> MapSegment(AddrRange range, const internal::Pma& pma) REQUIRES(active_mu_);
  Result<> MapAround(Addr page, PmaIterator pma) REQUIRES(active_mu_);

  // pages.cc
  // Has the platform forget the range. False if it could not: then the pages there must not be given up.
  bool UnmapFromGuest(AddrRange range) REQUIRES(active_mu_);
  // As UnmapFromGuest, without asking the platform for what it does not map. The pages stay.
  bool UnmapPmas(AddrRange range) REQUIRES(active_mu_);
  // The platform forgets the range, as far as it can, after something else has failed. The pages stay. The segments at
  // its ends are taken to be wholly in it.
  void ForgetMapped(AddrRange range) REQUIRES(active_mu_);
  // The platform makes the changes, kMaxBatch in a call. After an error some may be made.
  Result<> Apply(const internal::MapBatch& batch) REQUIRES(active_mu_);
  void DropPmas(AddrRange range) REQUIRES(active_mu_);
  // Drops all pages in `all`; those that the platform maps lie in `mapped`.
  void DropRun(AddrRange all, AddrRange mapped) REQUIRES(active_mu_);
  // Drops those for which f(pma).
  template <typename F>
  void DropPmasIf(AddrRange range, F&& f) REQUIRES(active_mu_);
  void AddResident(uint64_t bytes) REQUIRES(active_mu_);
  void CopyPagesToChild(MemoryManager& child) REQUIRES(mapping_mu_);
  // Makes hot pages that are the parent's own segments of their own, and returns them in order with the offsets of
  // their copies.
  std::vector<std::pair<Addr, uint64_t>> CopyHotPages(MemoryManager& child) REQUIRES(mapping_mu_);
  void Inherit(AddrRange range) REQUIRES(active_mu_);
  // True if it has changed what is mapped.
  bool MapInherited() REQUIRES(active_mu_);

  // io.cc
  // Calls move(pointer, n, done) on the pieces of [addr, addr + length). `read`: where it puts what it reads, or null.
  template <typename F>
  Result<size_t> Access(Addr addr, uint64_t length, AccessType want, Mode mode, std::byte* read, F&& move)
      EXCLUDES(active_mu_);
  template <typename F>
  Result<uint32_t> AccessWord(Addr addr, AccessType want, F&& f) EXCLUDES(active_mu_);

  platform::Platform& platform_;
  pgalloc::MemoryFile& memory_file_;
  const RefPtr<platform::AddressSpace> as_;
  std::atomic<int> users_{0};
  std::atomic<uint64_t> virtual_size_{0};  // written under mapping_mu_
  std::atomic<uint64_t> resident_{0};      // written under active_mu_
  std::atomic<uint64_t> max_resident_{0};  // as above

  fiber::Mutex mapping_mu_;
  internal::VmaMap vmas_ GUARDED_BY(mapping_mu_);
  uint64_t data_size_ GUARDED_BY(mapping_mu_) = 0;  // bytes in VMAs that is_data()
  Limits limits_ GUARDED_BY(mapping_mu_);
  Addr mmap_top_ GUARDED_BY(mapping_mu_) = 0;
  // Between gap_top_, which is the top of a gap, and mmap_top_ no gap is longer than longest_gap_. 0: not known.
  Addr gap_top_ GUARDED_BY(mapping_mu_) = 0;
  uint64_t longest_gap_ GUARDED_BY(mapping_mu_) = 0;
  AddrRange brk_ GUARDED_BY(mapping_mu_);             // start and current break
  bool lock_future_ GUARDED_BY(mapping_mu_) = false;  // mlockall(MCL_FUTURE)
  bool torn_down_ GUARDED_BY(mapping_mu_) = false;
  size_t hidden_ranges_ GUARDED_BY(mapping_mu_) = 0;
  std::atomic<uint64_t> hidden_size_{0};  // bytes; written under mapping_mu_; all present, always
  ExecInfo exec_info_ GUARDED_BY(mapping_mu_);

  sync::Mutex active_mu_;
  internal::PmaMap pmas_ GUARDED_BY(active_mu_);
  // Counts calls of Invalidate: what Translate returned before one may be stale after it.
  uint64_t invalidations_ GUARDED_BY(active_mu_) = 0;
  // The guest has had a fault, as it must before it can do anything. Until then nothing is mapped in the platform, but
  // only put down: where the fork's parent had pages mapped, or what exec has written.
  bool guest_runs_ GUARDED_BY(active_mu_) = false;
  Addr last_spurious_ GUARDED_BY(active_mu_) = 0;  // the page of the last fault for which there was nothing to do
  std::vector<AddrRange> inherited_ GUARDED_BY(active_mu_);
  // Of this space and its children, from its first fork on; of its parent and that one's children. Null: none.
  internal::FirstTouch first_touch_ GUARDED_BY(active_mu_);
  RefPtr<internal::HotPages> hot_ GUARDED_BY(active_mu_), parents_hot_ GUARDED_BY(active_mu_);
  // By address, disjoint. Each lies in a private copy that is present.
  std::map<Addr, TextPatch> patches_ GUARDED_BY(active_mu_);
};

}  // namespace redoubt::mm

#endif  // REDOUBT_PKG_SENTRY_MM_MEMORY_MANAGER_H_
