// The memory that a platform shares with its stubs: one sparse memfd, mapped whole into the Sentry. Each stub has an
// area: its slots, which it can write, and its command page, which it can only read; all can read the global page.
//
// What a stub can write, its guest can write at any time. The Sentry reads each field once and trusts none.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_CONTROL_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_CONTROL_H_

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/systrap/stub_layout.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::systrap {

inline constexpr Addr kSlots = STUB_SLOTS;
inline constexpr Addr kStubText = STUB_TEXT;
inline constexpr uint64_t kStubTextSize = STUB_TEXT_SIZE;
inline constexpr int kMaxSlots = STUB_MAX_SLOTS;
inline constexpr uint64_t kSlotSize = STUB_SLOT_SIZE;
// What guests may map ends where the stub begins.
inline constexpr Addr kMaxUserAddress = kSlots;
inline constexpr Addr kMinUserAddress = 0x10000;

// The first page of a slot: one thread of a stub and what it and the Sentry say to each other. Lines are written by one
// side each.
struct SlotControl {
  // The guest's side. `event` counts; what follows was written before it.
  std::atomic<uint32_t> event;
  uint32_t kind;  // KIND_*
  uint64_t rax, rdi, rsi, rdx, r10, r8, r9;
  uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip;
  uint64_t rcx, r11, eflags, cs, fs_base, gs_base, trampoline;
  uint64_t unused0;
  // KIND_SIGNAL: of siginfo_t and sigcontext.
  uint32_t signo;
  int32_t signal_code;
  uint64_t signal_addr, trapno, error, cr2;
  uint32_t signal_arch;  // a new thread's id, before its first event
  uint32_t unused1;
  uint64_t self;
  uint64_t doorbell;  // the address of this thread's
  alignas(64) std::atomic<uint32_t> sleeping;
  uint32_t unused2[3];
  std::atomic<uint32_t> done;  // the manager's, in the first slot

  // The Sentry's. `command` is the number of the event that it answers; what follows was written before it.
  alignas(64) std::atomic<uint32_t> command;
  uint32_t operation;  // OP_*
  uint64_t result;
  std::atomic<uint64_t> quiet;              // QUIET_*: the thread is to sleep at once, as its processor is needed
  alignas(64) std::atomic<uint32_t> taken;  // the last event that the Sentry has seen
  alignas(64) std::atomic<uint32_t> interrupt;
  alignas(64) struct Resume {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t fs_base, gs_base;
    uint64_t load_fp;
    uint64_t rip, cs, eflags, rsp, ss;
  } resume;
};
static_assert(offsetof(SlotControl, event) == SLOT_EVENT && offsetof(SlotControl, kind) == SLOT_KIND);
static_assert(offsetof(SlotControl, rax) == SLOT_RAX && offsetof(SlotControl, r9) == SLOT_R9);
static_assert(offsetof(SlotControl, rbx) == SLOT_RBX && offsetof(SlotControl, rip) == SLOT_RIP);
static_assert(offsetof(SlotControl, rcx) == SLOT_RCX && offsetof(SlotControl, cs) == SLOT_CS);
static_assert(offsetof(SlotControl, fs_base) == SLOT_FS_BASE && offsetof(SlotControl, gs_base) == SLOT_GS_BASE);
static_assert(offsetof(SlotControl, trampoline) == SLOT_TRAMPOLINE && offsetof(SlotControl, signo) == SLOT_SIGNO);
static_assert(offsetof(SlotControl, signal_code) == SLOT_SI_CODE && offsetof(SlotControl, signal_addr) == SLOT_SI_ADDR);
static_assert(offsetof(SlotControl, trapno) == SLOT_TRAPNO && offsetof(SlotControl, error) == SLOT_ERROR);
static_assert(offsetof(SlotControl, cr2) == SLOT_CR2 && offsetof(SlotControl, signal_arch) == SLOT_SI_ARCH);
static_assert(offsetof(SlotControl, self) == SLOT_SELF && offsetof(SlotControl, doorbell) == SLOT_DOORBELL);
static_assert(offsetof(SlotControl, sleeping) == SLOT_SLEEPING && offsetof(SlotControl, done) == SLOT_DONE);
static_assert(offsetof(SlotControl, command) == SLOT_COMMAND && offsetof(SlotControl, operation) == SLOT_OPERATION);
static_assert(offsetof(SlotControl, result) == SLOT_RESULT && offsetof(SlotControl, quiet) == SLOT_QUIET);
static_assert(offsetof(SlotControl, taken) == SLOT_TAKEN);
static_assert(offsetof(SlotControl, interrupt) == SLOT_INTERRUPT && offsetof(SlotControl, resume) == SLOT_RESUME);
static_assert(offsetof(SlotControl, resume.rip) == RESUME_IRET && offsetof(SlotControl, resume.r15) == RESUME_R15);
static_assert(offsetof(SlotControl, resume.rcx) == RESUME_RCX && offsetof(SlotControl, resume.r11) == RESUME_R11);
static_assert(offsetof(SlotControl, resume.fs_base) == RESUME_FS_BASE);
static_assert(offsetof(SlotControl, resume.load_fp) == RESUME_LOAD_FP);

struct GlobalPage {
  // Nobody in the Sentry looks at events: who posts one must write to the wake descriptor.
  std::atomic<uint32_t> asleep;
  // How often a guest thread looks for its answer before it sleeps.
  alignas(64) std::atomic<uint32_t> spins;
};
static_assert(offsetof(GlobalPage, asleep) == GLOBAL_ASLEEP && offsetof(GlobalPage, spins) == GLOBAL_SPINS);

struct CommandPage {
  std::atomic<uint32_t> sequence;  // counts; what follows was written before it
  uint32_t operation;
  uint32_t count;
  uint32_t unused;
  uint64_t slot, stack;
  uint64_t ring;
  uint64_t unused1;
  uint64_t slots_offset, command_offset;
  struct Stack {
    uint64_t address;
    uint32_t flags, unused;
    uint64_t size;
  };  // stack_t
  alignas(128) Stack stacks[STUB_MAX_SLOTS];
  struct Op {
    uint64_t addr, length, protection, flags, offset;
  };
  Op ops[COMMAND_MAX_OPS];
};
static_assert(offsetof(CommandPage, operation) == COMMAND_OPERATION && offsetof(CommandPage, count) == COMMAND_COUNT);
static_assert(offsetof(CommandPage, slot) == COMMAND_SLOT && offsetof(CommandPage, stack) == COMMAND_STACK);
static_assert(offsetof(CommandPage, slots_offset) == COMMAND_SLOTS_OFFSET && offsetof(CommandPage, ops) == COMMAND_OPS);
static_assert(offsetof(CommandPage, ring) == COMMAND_RING);
static_assert(offsetof(CommandPage, command_offset) == COMMAND_COMMAND_OFFSET);
static_assert(offsetof(CommandPage, stacks) == COMMAND_STACKS && sizeof(CommandPage::Stack) == 24);
static_assert(sizeof(CommandPage::Op) == MAP_OP_SIZE && sizeof(CommandPage) <= kPageSize);

// The memfd and who has which area. Thread-safe.
class ControlFile final {
 public:
  static Result<std::unique_ptr<ControlFile>> Create();
  ~ControlFile();
  ControlFile(const ControlFile&) = delete;
  ControlFile& operator=(const ControlFile&) = delete;

  // Areas are numbered from 0. ENOMEM if all are in use. A new area holds zeroes.
  Result<int> Allocate();
  // Nobody may have it mapped any more.
  void Free(int area);

  int fd() const { return fd_; }
  GlobalPage& global() const { return *reinterpret_cast<GlobalPage*>(base_); }
  CommandPage& command(int area) const { return *reinterpret_cast<CommandPage*>(base_ + CommandOffset(area)); }
  SlotControl& slot(int area, int index) const {
    return *reinterpret_cast<SlotControl*>(base_ + SlotsOffset(area) + index * kSlotSize);
  }
  std::byte* slot_fp(int area, int index) const { return base_ + SlotsOffset(area) + index * kSlotSize + STUB_SLOT_FP; }
  // The word on which the thread of a slot sleeps. All stubs can read all of them, so that threads can wake each other.
  std::atomic<uint32_t>& doorbell(int area, int index) const {
    return reinterpret_cast<std::atomic<uint32_t>*>(base_ + kDoorbells)[area * kMaxSlots + index];
  }
  static Addr DoorbellAddress(int area, int index) {
    return STUB_DOORBELLS + (area * kMaxSlots + index) * sizeof(uint32_t);
  }
  static constexpr uint64_t kDoorbells = 0x10000;
  static uint64_t SlotsOffset(int area) { return kFirst + area * kAreaSize; }
  static uint64_t CommandOffset(int area) { return SlotsOffset(area) + kMaxSlots * kSlotSize; }

 private:
  static constexpr uint64_t kFirst = kDoorbells + STUB_DOORBELLS_SIZE;
  static constexpr uint64_t kAreaSize = kMaxSlots * kSlotSize + 0x10000;
  static constexpr int kMaxAreas = STUB_DOORBELLS_SIZE / sizeof(uint32_t) / kMaxSlots;

  ControlFile(int fd, std::byte* base) : fd_(fd), base_(base) {}

  const int fd_;
  std::byte* const base_;
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::vector<int> free_ GUARDED_BY(mu_);
  int used_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_CONTROL_H_
