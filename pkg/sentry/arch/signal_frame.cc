#include "pkg/sentry/arch/signal_frame.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "pkg/platform/registers_amd64.h"

namespace redoubt::arch {
namespace {

// The kernel's structures, where glibc's differ (ucontext_t has a longer mask and an inline fpstate).
struct SigContext {
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
  uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
  uint16_t cs, gs, fs, ss;
  uint64_t err, trapno, oldmask, cr2;
  uint64_t fpstate;  // address of the XSAVE area
  uint64_t reserved[8];
};
static_assert(sizeof(SigContext) == 256);

struct UContext {
  uint64_t flags;
  uint64_t link;
  SignalStack stack;
  SigContext mcontext;
  SignalSet mask;
};
static_assert(sizeof(UContext) == 304);

struct Frame {
  uint64_t return_address;
  UContext uc;
  siginfo_t info;
};
static_assert(sizeof(Frame) == 440);

// At byte 464 of the XSAVE area.
struct SoftwareBytes {
  uint32_t magic1;
  uint32_t extended_size;  // with the second magic number
  uint64_t features;
  uint32_t xstate_size;
  uint32_t padding[7];
};
static_assert(sizeof(SoftwareBytes) == 48);

constexpr uint32_t kMagic1 = 0x46505853;
constexpr uint32_t kMagic2 = 0x46505845;
constexpr size_t kSoftwareBytes = 464;
constexpr size_t kMxcsr = 24;
constexpr size_t kFxsaveSize = 512;
constexpr size_t kXsaveHeader = 512;
constexpr size_t kXsaveMinimum = 576;
constexpr uint64_t kFeaturesX87Sse = 3;

// uc_flags.
constexpr uint64_t kHasXstate = 1;
constexpr uint64_t kHasSs = 2;
constexpr uint64_t kStrictSs = 4;

constexpr uint64_t kRestorer = 0x04000000;  // SA_RESTORER
constexpr int32_t kAutodisarm = INT32_MIN;  // SS_AUTODISARM
constexpr uint64_t kRedZone = 128;
constexpr uint64_t kXsaveAlignment = 64;

// SS_AUTODISARM: while a handler runs the stack counts as unused.
bool OnStack(const SignalStack& stack, Addr sp) { return (stack.flags & kAutodisarm) == 0 && stack.Contains(sp); }

template <typename T>
T Load(const std::vector<std::byte>& bytes, size_t offset) {
  T v;
  memcpy(&v, bytes.data() + offset, sizeof(v));
  return v;
}

template <typename T>
void Store(std::vector<std::byte>& bytes, size_t offset, const T& v) {
  memcpy(bytes.data() + offset, &v, sizeof(v));
}

// The area as it lies in the frame: marks in the bytes that hardware leaves to software, and magic number 2 at its end.
std::vector<std::byte> FrameXstate(const platform::FpState& fp) {
  std::vector<std::byte> area = fp.bytes.empty() ? platform::InitialFpState().bytes : fp.bytes;
  uint32_t size = static_cast<uint32_t>(area.size());
  SoftwareBytes software{
      .magic1 = kMagic1,
      .extended_size = size + static_cast<uint32_t>(sizeof(kMagic2)),
      .features = platform::FpStateFeatures(),
      .xstate_size = size,
      .padding = {},
  };
  Store(area, kSoftwareBytes, software);
  // A handler may change the legacy part without knowing of the header, so that part always counts.
  Store(area, kXsaveHeader, Load<uint64_t>(area, kXsaveHeader) | kFeaturesX87Sse);
  area.resize(size + sizeof(kMagic2));
  Store(area, size, kMagic2);
  return area;
}

Result<platform::FpState> ReadXstate(Addr addr, MemoryIo& memory) {
  if (addr == 0) return platform::FpState{};
  std::vector<std::byte> area(kFxsaveSize);
  TRY(memory.CopyInAll(addr, area));
  if ((Load<uint32_t>(area, kMxcsr) & ~platform::FpStateMxcsrMask()) != 0) return Err(EFAULT);
  SoftwareBytes software = Load<SoftwareBytes>(area, kSoftwareBytes);
  size_t size = software.xstate_size;
  bool extended = software.magic1 == kMagic1 && size >= kXsaveMinimum && size <= platform::FpStateSize() &&
                  software.extended_size >= size;
  if (extended) {
    Result<uint32_t> magic2 = memory.CopyInObject<uint32_t>(addr + size);
    extended = magic2 && *magic2 == kMagic2;
  }
  platform::FpState fp;
  if (extended) {
    area.resize(size);
    TRY(memory.CopyInAll(addr + kFxsaveSize, std::span(area).subspan(kFxsaveSize)));
    for (size_t i = kXsaveHeader + 8; i < kXsaveMinimum; i++) {
      if (area[i] != std::byte{0}) return Err(EFAULT);
    }
    uint64_t present = Load<uint64_t>(area, kXsaveHeader);
    if ((present & ~platform::FpStateFeatures()) != 0) return Err(EFAULT);
    Store(area, kXsaveHeader, present & software.features);
  }
  // Without the marks only the legacy part is restored and the rest is initial: SanitizeFpState's rule for a short
  // area. It also checks the rest again: the guest may have written between the two copies.
  fp.bytes = std::move(area);
  platform::SanitizeFpState(fp);
  return fp;
}

SigContext SaveRegisters(const platform::Registers& regs) {
  SigContext c{};
  c.r8 = regs.r8;
  c.r9 = regs.r9;
  c.r10 = regs.r10;
  c.r11 = regs.r11;
  c.r12 = regs.r12;
  c.r13 = regs.r13;
  c.r14 = regs.r14;
  c.r15 = regs.r15;
  c.rdi = regs.rdi;
  c.rsi = regs.rsi;
  c.rbp = regs.rbp;
  c.rbx = regs.rbx;
  c.rdx = regs.rdx;
  c.rax = regs.rax;
  c.rcx = regs.rcx;
  c.rsp = regs.rsp;
  c.rip = regs.rip;
  c.eflags = regs.eflags;
  c.cs = static_cast<uint16_t>(regs.cs);
  c.ss = static_cast<uint16_t>(regs.ss);
  return c;
}

void RestoreRegisters(const SigContext& c, platform::Registers& regs) {
  regs.r8 = c.r8;
  regs.r9 = c.r9;
  regs.r10 = c.r10;
  regs.r11 = c.r11;
  regs.r12 = c.r12;
  regs.r13 = c.r13;
  regs.r14 = c.r14;
  regs.r15 = c.r15;
  regs.rdi = c.rdi;
  regs.rsi = c.rsi;
  regs.rbp = c.rbp;
  regs.rbx = c.rbx;
  regs.rdx = c.rdx;
  regs.rax = c.rax;
  regs.rcx = c.rcx;
  regs.rsp = c.rsp;
  regs.rip = c.rip;
  regs.eflags = c.eflags;
  regs.cs = c.cs;
  platform::SanitizeRegisters(regs);
}

}  // namespace

Result<> PushSignalFrame(platform::Registers& regs, const platform::FpState& fp, MemoryIo& memory,
                         const SignalFrameArgs& args) {
  if ((args.action.flags & kRestorer) == 0) return Err(EFAULT);
  Addr sp = regs.rsp - kRedZone;
  bool on_stack = OnStack(args.stack, sp);
  if ((args.action.flags & SA_ONSTACK) != 0 && args.stack.enabled() && !on_stack) {
    sp = args.stack.address + args.stack.size;
    on_stack = true;
  }
  std::vector<std::byte> xstate = FrameXstate(fp);
  Addr fp_addr = (sp - xstate.size()) & ~(kXsaveAlignment - 1);
  // rsp + 8 is 16-byte aligned, as after a call.
  sp = ((fp_addr - sizeof(Frame)) & ~Addr{15}) - 8;
  if (fp_addr > regs.rsp && !on_stack) return Err(EFAULT);  // wrapped
  if (on_stack && !args.stack.Contains(sp)) return Err(EFAULT);

  Frame frame{};
  frame.return_address = args.action.restorer;
  frame.uc.flags = kHasXstate | kHasSs | kStrictSs;
  frame.uc.stack = args.stack;
  frame.uc.stack.pad = 0;
  frame.uc.mcontext = SaveRegisters(regs);
  frame.uc.mcontext.err = args.error_code;
  frame.uc.mcontext.trapno = args.trapno;
  frame.uc.mcontext.oldmask = args.mask;
  frame.uc.mcontext.cr2 = args.fault_address;
  frame.uc.mcontext.fpstate = fp_addr;
  frame.uc.mask = args.mask;
  if ((args.action.flags & SA_SIGINFO) != 0) frame.info = args.info;
  TRY(memory.CopyOutAll(fp_addr, xstate));
  TRY(memory.CopyOutObject(sp, frame));

  regs.rdi = static_cast<uint64_t>(args.info.si_signo);
  regs.rsi = sp + offsetof(Frame, info);
  regs.rdx = sp + offsetof(Frame, uc);
  regs.rax = 0;  // for a handler declared without a prototype: no vector arguments
  regs.rsp = sp;
  regs.rip = args.action.handler;
  regs.eflags &= ~(platform::kEflagsDf | platform::kEflagsRf | platform::kEflagsTf);
  platform::SanitizeRegisters(regs);
  return {};
}

Result<SigreturnState> PopSignalFrame(const platform::Registers& regs, MemoryIo& memory) {
  // The handler's return has popped return_address.
  UContext uc = TRY(memory.CopyInObject<UContext>(regs.rsp - sizeof(Frame::return_address) + offsetof(Frame, uc)));
  SigreturnState state;
  state.regs = regs;  // the segment bases are not in the frame
  RestoreRegisters(uc.mcontext, state.regs);
  state.regs.orig_rax = ~uint64_t{0};
  state.fp = TRY(ReadXstate(uc.mcontext.fpstate, memory));
  state.mask = uc.mask & ~kUnblockable;
  state.stack = uc.stack;
  return state;
}

uint64_t MaxSignalFrameSize() {
  uint64_t size = sizeof(Frame) + 15 + platform::FpStateSize() + sizeof(kMagic2) + (kXsaveAlignment - 1);
  return (size + 15) & ~uint64_t{15};
}

}  // namespace redoubt::arch
