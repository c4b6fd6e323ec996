// Extended register state: sizes and features from cpuid and xgetbv, and the sanitizing that makes guest bytes
// loadable.
#include <cpuid.h>

#include <algorithm>
#include <cstring>

#include "pkg/platform/fp_state_host.h"
#include "pkg/platform/platform.h"

namespace redoubt::platform {
namespace {

// Offsets in the XSAVE area (SDM vol. 1, 13.4).
constexpr size_t kFcw = 0;
constexpr size_t kMxcsr = 24;
constexpr size_t kMxcsrMask = 28;
constexpr size_t kLegacySize = 512;
constexpr size_t kHeader = 512;
constexpr size_t kHeaderSize = 64;
constexpr uint64_t kFeatureX87 = 1;
constexpr uint64_t kFeatureSse = 2;
// Protection keys' rights (SDM vol. 1, 13.5.7). Guests have no keys: what they write there with WRPKRU holds until the
// next state that is given, and a state that took away the rights to memory would stop the stub that loads it.
constexpr uint64_t kFeaturePkru = 1 << 9;
// AMX's tiles. A process has them only once it has asked (arch_prctl(2), ARCH_REQ_XCOMP_PERM), which guests cannot: the
// host would answer a state that names them with SIGILL.
constexpr uint64_t kFeatureTiles = 3 << 17;

struct Features {
  size_t size = kLegacySize + kHeaderSize;       // with the features of guests
  size_t host_size = kLegacySize + kHeaderSize;  // with all that the host has enabled
  uint64_t xcr0 = kFeatureX87 | kFeatureSse;
  uint32_t mxcsr_mask = 0xffbf;
};

Features Detect() {
  Features f;
  uint32_t a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE) != 0) {
    // SAFETY: OSXSAVE says that xgetbv is enabled; leaf 0xd exists wherever it is.
    uint32_t lo, hi;
    asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    f.xcr0 = ((uint64_t{hi} << 32) | lo) & ~(kFeaturePkru | kFeatureTiles);
    __cpuid_count(0xd, 0, a, b, c, d);
    f.host_size = std::max<size_t>(f.host_size, b);
    // Each component's size and place, from the third on (SDM vol. 1, 13.2).
    for (uint32_t i = 2; i < 63; i++) {
      if ((f.xcr0 & (uint64_t{1} << i)) == 0) continue;
      __cpuid_count(0xd, i, a, b, c, d);
      f.size = std::max<size_t>(f.size, size_t{a} + b);
    }
  }
  // SAFETY: fxsave writes 512 bytes to an aligned buffer of that size and changes nothing else.
  alignas(16) std::byte area[kLegacySize] = {};
  asm volatile("fxsave %0" : "=m"(area));
  uint32_t mask;
  memcpy(&mask, area + kMxcsrMask, sizeof(mask));
  if (mask != 0) f.mxcsr_mask = mask;
  return f;
}

const Features& Host() {
  static const Features features = Detect();
  return features;
}

template <typename T>
T Load(const FpState& s, size_t offset) {
  T v;
  memcpy(&v, s.bytes.data() + offset, sizeof(v));
  return v;
}

template <typename T>
void Store(FpState& s, size_t offset, T v) {
  memcpy(s.bytes.data() + offset, &v, sizeof(v));
}

}  // namespace

size_t FpStateSize() { return Host().size; }
size_t FpStateHostSize() { return Host().host_size; }
uint64_t FpStateFeatures() { return Host().xcr0; }
uint32_t FpStateMxcsrMask() { return Host().mxcsr_mask; }

FpState InitialFpState() {
  FpState s;
  s.bytes.resize(FpStateSize());
  Store<uint16_t>(s, kFcw, 0x37f);
  Store<uint32_t>(s, kMxcsr, 0x1f80);
  Store<uint32_t>(s, kMxcsrMask, FpStateMxcsrMask());
  // Named as present, so that a loader which merges takes FCW and MXCSR from here and not from its last state.
  Store<uint64_t>(s, kHeader, kFeatureX87 | kFeatureSse);
  return s;
}

void SanitizeFpState(FpState& s) {
  if (s.bytes.empty()) return;
  size_t given = s.bytes.size();
  s.bytes.resize(FpStateSize());
  uint64_t present = 0;
  if (given >= kHeader + sizeof(present)) {
    // Present are only the supported features that the bytes reach: a short area ends with zeros, not with garbage.
    present = Load<uint64_t>(s, kHeader) & FpStateFeatures();
    if (given < FpStateSize()) present &= kFeatureX87 | kFeatureSse;
  } else if (given >= kLegacySize) {
    present = kFeatureX87 | kFeatureSse;
  } else {
    s = InitialFpState();
    return;
  }
  // AVX state lies on top of SSE's; MXCSR is taken only along with it.
  if ((present & ~kFeatureX87) != 0) present |= kFeatureSse;
  Store<uint32_t>(s, kMxcsr, Load<uint32_t>(s, kMxcsr) & FpStateMxcsrMask());
  Store<uint32_t>(s, kMxcsrMask, FpStateMxcsrMask());
  memset(s.bytes.data() + kHeader, 0, kHeaderSize);  // xcomp_bv and the reserved bytes must be zero
  Store<uint64_t>(s, kHeader, present);
}

}  // namespace redoubt::platform
