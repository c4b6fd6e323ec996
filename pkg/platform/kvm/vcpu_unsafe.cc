#include "pkg/platform/kvm/vcpu_unsafe.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "pkg/log/rate_limit.h"
#include "pkg/platform/registers_amd64.h"
#include "pkg/ring0/ring0.h"

namespace redoubt::platform::kvm {
namespace {

// Takes a thread out of KVM_RUN. Does nothing by itself; whoever else is interrupted by it restarts.
constexpr int kKickSignal = SIGURG;

std::atomic<uint64_t> g_next_id{1};

void InstallKickHandler() {
  static const bool installed = [] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    return sigaction(kKickSignal, &action, nullptr) == 0;
  }();
  CHECK(installed);
}

// This OS thread, ready to be kicked. Not inlined: a fiber may have moved since the caller last asked.
[[gnu::noinline]] pid_t ThisThread() {
  static thread_local const pid_t tid = [] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, kKickSignal);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    return gettid();
  }();
  return tid;
}

kvm_segment Segment(uint16_t selector, uint8_t type, bool code) {
  kvm_segment s{};
  s.limit = 0xffffffff;
  s.selector = selector;
  s.type = type;
  s.present = 1;
  s.dpl = selector & 3;
  s.db = code ? 0 : 1;
  s.s = 1;
  s.l = code ? 1 : 0;
  s.g = 1;
  return s;
}

// SDM vol. 3, table 3-1; accessed.
constexpr uint8_t kCodeSegment = 11;
constexpr uint8_t kDataSegment = 3;
constexpr uint8_t kBusyTss = 11;

void ToRing0(kvm_sregs& s) {
  s.cs = Segment(RING0_KERNEL_CS, kCodeSegment, true);
  s.ss = Segment(RING0_KERNEL_DS, kDataSegment, false);
}

uint64_t Features(std::span<const std::byte> area) {
  uint64_t present;
  memcpy(&present, area.data() + 512, sizeof(present));
  return present;
}

void SetFeatures(std::span<std::byte> area, uint64_t present) { memcpy(area.data() + 512, &present, sizeof(present)); }

// Page-fault error code (SDM vol. 3, 4.7).
constexpr uint64_t kFetch = 16;

}  // namespace

GuestTables::GuestTables(ring0::pagetables::PageTables t)
    : tables(std::move(t)), id(g_next_id.fetch_add(1, std::memory_order_relaxed)) {}

Result<std::unique_ptr<Vcpu>> Vcpu::Create(Vm& vm, int index, std::span<std::byte, kPageSize> page) {
  InstallKickHandler();
  std::unique_ptr<Vcpu> vcpu(new Vcpu(vm, index, page));
  TRY(vcpu->Init());
  return vcpu;
}

Vcpu::~Vcpu() {
  if (run_ != nullptr) munmap(run_, vm_.run_size());
}

Result<> Vcpu::Init() {
  ring0::BuildCpuPage(page_, index_);
  Api& api = vm_.api();
  fd_ = Fd(TRY(api.Ioctl(vm_.fd(), KVM_CREATE_VCPU, static_cast<uintptr_t>(index_))));
  // SAFETY: run_size() is KVM_GET_VCPU_MMAP_SIZE's; the mapping starts with a kvm_run.
  void* run = mmap(nullptr, vm_.run_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (run == MAP_FAILED) return ErrFromHost();
  run_ = static_cast<kvm_run*>(run);
  run_->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
  TRY(Ioctl(api, fd_.get(), kSetCpuid2, &vm_.cpuid()));
  MsrTable msrs{.count = 4,
                .entries = {{.index = ring0::kMsrStar, .data = ring0::kStar},
                            {.index = ring0::kMsrLstar, .data = ring0::kLstar},
                            {.index = ring0::kMsrCstar, .data = ring0::kCstar},
                            {.index = ring0::kMsrFmask, .data = ring0::kFmask}}};
  if (TRY(Ioctl(api, fd_.get(), kSetMsrs, &msrs)) != 4) return Err(EOPNOTSUPP);
  // The time-stamp counter is the host's: the vDSO's clock counts on it.
  uint64_t offset = 0;
  kvm_device_attr attribute{
      .flags = 0, .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = reinterpret_cast<uint64_t>(&offset)};
  if (Result<int> r = Ioctl(api, fd_.get(), KVM_SET_DEVICE_ATTR, &attribute); !r) {
    LOG_ERROR("kvm: the host's KVM cannot give guests its time-stamp counter (KVM_VCPU_TSC_OFFSET; Linux 5.16)");
    return Err(EOPNOTSUPP);
  }
  return {};
}

// What the host offers is tried, not read from cpuid: a KVM without hardware virtualization lists less than it can do.
Result<> Vcpu::SetControlRegisters(kvm_sregs& s) {
  constexpr uint64_t kNeeded =
      ring0::kCr4Pae | ring0::kCr4Osfxsr | ring0::kCr4Osxmmexcpt | ring0::kCr4Osxsave | ring0::kCr4Fsgsbase;
  const uint64_t pcid = vm_.pcid() ? ring0::kCr4Pcide : 0;
  Result<int> set;
  for (uint64_t wanted : {ring0::kCr4Smep | ring0::kCr4Smap, ring0::kCr4Smep, uint64_t{0}}) {
    s.cr4 = kNeeded | pcid | wanted;
    set = Ioctl(vm_.api(), fd_.get(), KVM_SET_SREGS, &s);
    if (set || set.error() != Errno(EINVAL)) break;
  }
  if (set) return {};
  if (set.error() == Errno(EINVAL)) {
    LOG_ERROR("kvm: the host's KVM gives its guests no XSAVE or no FSGSBASE");
    return Err(EOPNOTSUPP);
  }
  return Err(set.error());
}

// From whatever state to ring 0, at rest.
Result<> Vcpu::SetUp(uint64_t cr3) {
  Api& api = vm_.api();
  kvm_sregs& s = run_->s.regs.sregs;
  TRY(Ioctl(api, fd_.get(), KVM_GET_SREGS, &s));
  ToRing0(s);
  s.ds = s.es = s.fs = s.gs = Segment(0, kDataSegment, false);
  s.tr = kvm_segment{};
  s.tr.base = ring0::CpuPage(index_);
  s.tr.limit = ring0::kTssLimit;
  s.tr.selector = RING0_TSS;
  s.tr.type = kBusyTss;
  s.tr.present = 1;
  s.ldt = kvm_segment{};
  s.ldt.unusable = 1;
  s.gdt = {.base = ring0::kGdt, .limit = ring0::kGdtLimit, .padding = {}};
  s.idt = {.base = ring0::kIdt, .limit = ring0::kIdtLimit, .padding = {}};
  s.cr0 = ring0::kCr0;
  s.cr3 = cr3;
  s.efer = ring0::kEfer;
  memset(s.interrupt_bitmap, 0, sizeof(s.interrupt_bitmap));
  TRY(SetControlRegisters(s));
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = vm_.xcr0();
  TRY(Ioctl(api, fd_.get(), KVM_SET_XCRS, &xcrs));
  kvm_vcpu_events events{};
  TRY(Ioctl(api, fd_.get(), KVM_SET_VCPU_EVENTS, &events));
  broken_ = false;
  return {};
}

// Also says so if nothing must be flushed.
uint64_t Vcpu::Cr3For(const GuestTables& tables) {
  uint64_t cr3 = tables.tables.root_physical();
  if (!vm_.pcid()) return cr3;
  // Entries that go are flushed for all PCIDs (FileMemory::Forget), so one is good until another takes it.
  const uint64_t pcid = PcidOf(tables);
  cr3 |= pcid;
  if (std::exchange(pcid_owners_[pcid], tables.id) == tables.id) cr3 |= ring0::kCr3NoFlush;
  return cr3;
}

Result<> Vcpu::Prepare(const Registers& regs, const RefPtr<GuestTables>& tables) {
  kvm_sregs& s = run_->s.regs.sregs;
  if (broken_) {
    pcid_owners_ = {};
    TRY(SetUp(Cr3For(*tables) & ~ring0::kCr3NoFlush));
    loaded_ = tables;
  }
  // KVM clears these once it has taken them; what it has not taken, it still must.
  uint64_t dirty = run_->kvm_dirty_regs | KVM_SYNC_X86_REGS;
  if ((s.cs.selector & 3) != 0) {
    ToRing0(s);
    dirty |= KVM_SYNC_X86_SREGS;
  }
  if (s.fs.base != regs.fs_base || s.gs.base != regs.gs_base) {
    s.fs.base = regs.fs_base;
    s.gs.base = regs.gs_base;
    dirty |= KVM_SYNC_X86_SREGS;
  }
  kvm_regs& r = run_->s.regs.regs;
  r.rax = regs.rax;
  r.rbx = regs.rbx;
  r.rcx = regs.rcx;
  r.rdx = regs.rdx;
  r.rsi = regs.rsi;
  r.rdi = regs.rdi;
  r.rbp = regs.rbp;
  r.r8 = regs.r8;
  r.r9 = regs.r9;
  r.r10 = regs.r10;
  r.r11 = regs.r11;
  r.r12 = regs.r12;
  r.r13 = regs.r13;
  r.r14 = regs.r14;
  r.r15 = regs.r15;
  r.rflags = 2;  // ring 0's own: interrupts off
  uint64_t cr3 = 0;
  if (loaded_ != tables) {
    cr3 = Cr3For(*tables);
    next_ = tables;
    if ((dirty & KVM_SYNC_X86_SREGS) != 0) {
      s.cr3 = cr3 & ~ring0::kCr3NoFlush;
      cr3 = 0;
    }
  }
  if (cr3 == 0 && regs.rcx == regs.rip && regs.r11 == regs.eflags) {
    r.rip = ring0::kText + RING0_ENTER_SYSRET;
    r.rsp = regs.rsp;
  } else {
    r.rsp = ring0::WriteEnterFrame(
        page_, index_,
        {.rip = regs.rip, .cs = RING0_USER_CS, .rflags = regs.eflags, .rsp = regs.rsp, .ss = RING0_USER_DS}, regs.rax);
    r.rip = ring0::kText + RING0_ENTER_IRET;
    if (cr3 != 0) {
      r.rip = ring0::kText + RING0_ENTER_CR3_IRET;
      r.rsp -= sizeof(uint64_t);
      r.rax = cr3;
    }
  }
  run_->kvm_dirty_regs = dirty;
  return {};
}

void Vcpu::Run() {
  // Against Kick, which sets the flag and then looks for the thread: one of the two sees the other.
  thread_.store(ThisThread(), std::memory_order_seq_cst);
  runs_.store(runs_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  Result<int> r = vm_.api().Ioctl(fd_.get(), KVM_RUN, 0);
  run_error_ = r ? 0 : r.error().value();
  thread_.store(0, std::memory_order_relaxed);
}

void Vcpu::Kick() {
  std::atomic_ref(run_->immediate_exit).store(1, std::memory_order_seq_cst);
  const pid_t tid = thread_.load(std::memory_order_seq_cst);
  // It may have left meanwhile; then the signal does nothing.
  if (tid != 0) syscall(SYS_tgkill, getpid(), tid, kKickSignal);
}

void Vcpu::ClearKick() { std::atomic_ref(run_->immediate_exit).store(0, std::memory_order_seq_cst); }

Exit Vcpu::Fail(const char* what) {
  const kvm_regs& r = run_->s.regs.regs;
  const kvm_sregs& s = run_->s.regs.sregs;
  LOG_ERROR_LIMITED("kvm: {}: exit {}, errno {}, rip {:#x}, cs {:#x}, rsp {:#x}, cr2 {:#x}, cr3 {:#x}", what,
                    run_->exit_reason, run_error_, r.rip, s.cs.selector, r.rsp, s.cr2, s.cr3);
  broken_ = true;
  return {.kind = Exit::Kind::kFailed};
}

Exit Vcpu::Lost(Registers& regs, const char* what) {
  // A guest may do it as often as it likes.
  static std::atomic<int> logged{0};
  if (logged.fetch_add(1, std::memory_order_relaxed) < 10) (void)Fail(what);
  broken_ = true;
  CopyRegisters(regs);
  regs.rip = 0;
  return {.kind = Exit::Kind::kException, .vector = static_cast<int>(kTrapGeneralProtection)};
}

void Vcpu::CopyRegisters(Registers& regs) const {
  const kvm_regs& r = run_->s.regs.regs;
  const kvm_sregs& s = run_->s.regs.sregs;
  regs.rax = r.rax;
  regs.rbx = r.rbx;
  regs.rcx = r.rcx;
  regs.rdx = r.rdx;
  regs.rsi = r.rsi;
  regs.rdi = r.rdi;
  regs.rbp = r.rbp;
  regs.r8 = r.r8;
  regs.r9 = r.r9;
  regs.r10 = r.r10;
  regs.r11 = r.r11;
  regs.r12 = r.r12;
  regs.r13 = r.r13;
  regs.r14 = r.r14;
  regs.r15 = r.r15;
  regs.rip = r.rip;
  regs.rsp = r.rsp;
  regs.eflags = r.rflags;
  regs.cs = kUserCs;
  regs.ss = kUserDs;
  regs.fs_base = s.fs.base;
  regs.gs_base = s.gs.base;
}

// Without hardware virtualization `syscall` jumps to LSTAR in ring 3, which cannot fetch there. A guest that jumps
// there by itself makes a system call too, with the return address in rcx: nothing that it could not do otherwise.
bool Vcpu::AtLstar(Addr rip, Registers& regs) {
  // The last possible call returns to kTaskSize, which is a fault of its own.
  if (rip != ring0::kLstar || regs.rcx > kTaskSize) return false;
  regs.rip = regs.rcx;
  regs.eflags = regs.r11;
  return true;
}

Exit Vcpu::Syscall32(Registers& regs) const {
  CopyRegisters(regs);
  regs.rip = regs.rcx;
  regs.eflags = regs.r11;
  return {.kind = Exit::Kind::kException, .vector = static_cast<int>(kTrapGeneralProtection)};
}

Exit Vcpu::Finish(Registers& regs) {
  const kvm_regs& r = run_->s.regs.regs;
  const kvm_sregs& s = run_->s.regs.sregs;
  const bool interrupted = run_error_ == EINTR || run_error_ == EAGAIN;
  if (next_) {
    // Not so if a signal came before ring 0 had loaded it.
    if ((s.cr3 & ring0::pagetables::kAddressMask) == next_->tables.root_physical()) {
      loaded_ = next_;
    } else {
      pcid_owners_[PcidOf(*next_)] = 0;
    }
    next_.reset();
  }
  if (run_error_ != 0 && !interrupted) return Fail("the host cannot run a guest");

  if ((s.cs.selector & 3) != 0) {
    CopyRegisters(regs);
    if (interrupted) {
      kvm_vcpu_events events{};
      if (!Ioctl(vm_.api(), fd_.get(), KVM_GET_VCPU_EVENTS, &events)) return Fail("no events");
      if (events.exception.injected != 0 || events.exception.pending != 0) return {.kind = Exit::Kind::kOwes};
      // Where `syscall` stays in ring 3 (see below), a signal may come before the fetch at LSTAR faults.
      if (AtLstar(regs.rip, regs)) return {.kind = Exit::Kind::kSyscall};
      return {.kind = Exit::Kind::kInterrupted};
    }
    // An instruction of ring 3 that KVM had to emulate and does not know.
    if (run_->exit_reason == KVM_EXIT_INTERNAL_ERROR && run_->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
      return {.kind = Exit::Kind::kException, .vector = static_cast<int>(kTrapInvalidOpcode)};
    }
    return Fail("ring 3 has left the machine");
  }

  const ring0::Place place = ring0::PlaceOf(r.rip);
  // The stubs' `out` is the one exit there is; a signal may have come before it.
  const bool at_stub = interrupted || run_->exit_reason == KVM_EXIT_IO;
  if (place.kind == ring0::Place::Kind::kEntering && interrupted) return {.kind = Exit::Kind::kInterrupted};
  if (place.kind == ring0::Place::Kind::kSyscall && at_stub) {
    CopyRegisters(regs);
    regs.rip = regs.rcx;
    regs.eflags = regs.r11;
    return {.kind = Exit::Kind::kSyscall};
  }
  if (place.kind == ring0::Place::Kind::kSyscall32 && at_stub) return Syscall32(regs);
  if (place.kind != ring0::Place::Kind::kException || !at_stub) {
    const uint32_t reason = run_->exit_reason;
    const bool known =
        at_stub || reason == KVM_EXIT_SHUTDOWN || reason == KVM_EXIT_INTERNAL_ERROR || reason == KVM_EXIT_HLT;
    return known ? Lost(regs, "ring 0 is not in its code") : Fail("the host gave up");
  }

  const ring0::TrapFrame trap = ring0::ReadTrapFrame(page_, place.vector);
  if ((trap.frame.cs & 3) == 0 && trap.frame.rip == static_cast<uint32_t>(ring0::kCstar)) {
    // Without hardware virtualization: CSTAR cut to 32 bits, where nothing is, with ring 3's stack still in place.
    static_assert(static_cast<uint32_t>(ring0::kCstar) < kPageSize, "below all that guests may map");
    broken_ = true;
    const Exit exit = Syscall32(regs);
    regs.rsp = trap.frame.rsp;
    return exit;
  }
  if ((trap.frame.cs & 3) == 0) return Lost(regs, "an exception in ring 0");
  CopyRegisters(regs);
  regs.rsp = trap.frame.rsp;
  if (place.vector == static_cast<int>(kTrapPageFault) && (trap.error_code & kFetch) != 0 &&
      AtLstar(trap.frame.rip, regs)) {
    return {.kind = Exit::Kind::kSyscall};
  }
  regs.rip = trap.frame.rip;
  regs.eflags = trap.frame.rflags;
  return {
      .kind = Exit::Kind::kException, .vector = place.vector, .error_code = trap.error_code, .fault_address = s.cr2};
}

Result<> Vcpu::GetFpState(std::span<std::byte> area) {
  TRY(vm_.api().Ioctl(fd_.get(), kGetXsave2, reinterpret_cast<uintptr_t>(area.data())));
  // What is in its initial state is written as such, but MXCSR is its own even if the registers are initial. KVM names
  // protection keys' rights although this guest has none.
  SetFeatures(area, (Features(area) & vm_.xcr0()) | 3);
  return {};
}

Result<> Vcpu::SetFpState(std::span<const std::byte> area) {
  TRY(vm_.api().Ioctl(fd_.get(), kSetXsave, reinterpret_cast<uintptr_t>(area.data())));
  return {};
}

}  // namespace redoubt::platform::kvm
