// /proc/cpuinfo from cpuid, since the guest runs on the very same processors.
#include <cpuid.h>
#include <fmt/format.h>

#include <cstring>
#include <string>

#include "pkg/sentry/fsimpl/proc/filesystem.h"

namespace redoubt::proc {

namespace {

struct Regs {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

Regs Cpuid(uint32_t leaf, uint32_t sub = 0) {
  Regs r;
  // SAFETY: cpuid has no effect beyond its four registers; leaves beyond the last are zero.
  if (__get_cpuid_max(leaf & 0x80000000, nullptr) >= leaf) __cpuid_count(leaf, sub, r.a, r.b, r.c, r.d);
  return r;
}

// Names in the order of Linux's cpufeatures.h; "" for bits without a name there.
constexpr const char* kLeaf1Edx[32] = {"fpu",  "vme",   "de",   "pse",     "tsc",  "msr", "pae",  "mce",
                                       "cx8",  "apic",  "",     "sep",     "mtrr", "pge", "mca",  "cmov",
                                       "pat",  "pse36", "pn",   "clflush", "",     "dts", "acpi", "mmx",
                                       "fxsr", "sse",   "sse2", "ss",      "ht",   "tm",  "ia64", "pbe"};
constexpr const char* kExt1Edx[32] = {
    "", "", "", "",   "",   "", "",       "", "", "",         "",        "syscall", "", "",   "",         "",
    "", "", "", "mp", "nx", "", "mmxext", "", "", "fxsr_opt", "pdpe1gb", "rdtscp",  "", "lm", "3dnowext", "3dnow"};
constexpr const char* kLeaf1Ecx[32] = {"pni",    "pclmulqdq", "dtes64", "monitor", "ds_cpl",
                                       "vmx",    "smx",       "est",    "tm2",     "ssse3",
                                       "cid",    "sdbg",      "fma",    "cx16",    "xtpr",
                                       "pdcm",   "",          "pcid",   "dca",     "sse4_1",
                                       "sse4_2", "x2apic",    "movbe",  "popcnt",  "tsc_deadline_timer",
                                       "aes",    "xsave",     "",       "avx",     "f16c",
                                       "rdrand", "hypervisor"};
constexpr const char* kExt1Ecx[32] = {"lahf_lm",
                                      "cmp_legacy",
                                      "svm",
                                      "extapic",
                                      "cr8_legacy",
                                      "abm",
                                      "sse4a",
                                      "misalignsse",
                                      "3dnowprefetch",
                                      "osvw",
                                      "ibs",
                                      "xop",
                                      "skinit",
                                      "wdt",
                                      "",
                                      "lwp",
                                      "fma4",
                                      "tce",
                                      "",
                                      "nodeid_msr",
                                      "",
                                      "tbm",
                                      "topoext",
                                      "perfctr_core",
                                      "perfctr_nb",
                                      "",
                                      "bpext",
                                      "ptsc",
                                      "perfctr_llc",
                                      "mwaitx",
                                      "",
                                      ""};
constexpr const char* kLeaf7Ebx[32] = {
    "fsgsbase", "tsc_adjust", "",         "bmi1",     "hle",      "avx2",       "",         "smep",
    "bmi2",     "erms",       "invpcid",  "rtm",      "cqm",      "",           "mpx",      "rdt_a",
    "avx512f",  "avx512dq",   "rdseed",   "adx",      "smap",     "avx512ifma", "",         "clflushopt",
    "clwb",     "intel_pt",   "avx512pf", "avx512er", "avx512cd", "sha_ni",     "avx512bw", "avx512vl"};
constexpr const char* kLeaf7Ecx[32] = {"",
                                       "avx512vbmi",
                                       "umip",
                                       "pku",
                                       "ospke",
                                       "waitpkg",
                                       "avx512_vbmi2",
                                       "",
                                       "gfni",
                                       "vaes",
                                       "vpclmulqdq",
                                       "avx512_vnni",
                                       "avx512_bitalg",
                                       "tme",
                                       "avx512_vpopcntdq",
                                       "",
                                       "la57",
                                       "",
                                       "",
                                       "",
                                       "",
                                       "",
                                       "rdpid",
                                       "",
                                       "bus_lock_detect",
                                       "cldemote",
                                       "",
                                       "movdiri",
                                       "movdir64b",
                                       "enqcmd",
                                       "",
                                       ""};
constexpr const char* kLeaf7Edx[32] = {"",
                                       "",
                                       "avx512_4vnniw",
                                       "avx512_4fmaps",
                                       "fsrm",
                                       "",
                                       "",
                                       "",
                                       "avx512_vp2intersect",
                                       "",
                                       "md_clear",
                                       "",
                                       "",
                                       "",
                                       "serialize",
                                       "",
                                       "tsxldtrk",
                                       "",
                                       "pconfig",
                                       "arch_lbr",
                                       "ibt",
                                       "",
                                       "amx_bf16",
                                       "avx512_fp16",
                                       "amx_tile",
                                       "amx_int8",
                                       "",
                                       "",
                                       "flush_l1d",
                                       "arch_capabilities",
                                       "",
                                       ""};

void AddFlags(std::string& flags, uint32_t bits, const char* const (&names)[32]) {
  for (int i = 0; i < 32; i++) {
    if ((bits >> i & 1) == 0 || names[i][0] == '\0') continue;
    if (!flags.empty()) flags += ' ';
    flags += names[i];
  }
}

std::string Brand() {
  std::string s;
  for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++) {
    Regs r = Cpuid(leaf);
    char part[16];
    std::memcpy(part, &r, sizeof(part));
    s.append(part, sizeof(part));
  }
  s.resize(std::min(s.find('\0'), s.size()));
  while (!s.empty() && s.back() == ' ') s.pop_back();
  while (!s.empty() && s.front() == ' ') s.erase(0, 1);
  return s;
}

}  // namespace

std::string FormatCpu(int index, int cpus) {
  const Regs max = Cpuid(0), one = Cpuid(1), seven = Cpuid(7), ext = Cpuid(0x80000001), sizes = Cpuid(0x80000008);
  char vendor[12];
  std::memcpy(vendor, &max.b, 4);
  std::memcpy(vendor + 4, &max.d, 4);
  std::memcpy(vendor + 8, &max.c, 4);
  uint32_t family = one.a >> 8 & 0xf, model = one.a >> 4 & 0xf;
  if (family == 0xf || family == 6) model |= (one.a >> 16 & 0xf) << 4;
  if (family == 0xf) family += one.a >> 20 & 0xff;
  std::string flags;
  AddFlags(flags, one.d, kLeaf1Edx);
  AddFlags(flags, ext.d, kExt1Edx);
  flags += " constant_tsc rep_good nopl xtopology cpuid";
  AddFlags(flags, one.c, kLeaf1Ecx);
  AddFlags(flags, ext.c, kExt1Ecx);
  AddFlags(flags, seven.b, kLeaf7Ebx);
  if (one.c >> 26 & 1) {
    const Regs xsave = Cpuid(0xd, 1);
    if (xsave.a & 1) flags += " xsaveopt";
    if (xsave.a & 2) flags += " xsavec";
    if (xsave.a & 4) flags += " xgetbv1";
    if (xsave.a & 8) flags += " xsaves";
  }
  AddFlags(flags, seven.c, kLeaf7Ecx);
  AddFlags(flags, seven.d, kLeaf7Edx);
  // Nominal: from the frequency leaf where there is one.
  const Regs frequency = Cpuid(0x16);
  const uint32_t mhz = (frequency.a & 0xffff) != 0 ? frequency.a & 0xffff : 2000;
  const Regs l2 = Cpuid(0x80000006);

  std::string s = fmt::format(
      "processor\t: {}\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\nstepping\t: {}\n", index,
      std::string_view(vendor, 12), family, model, Brand(), one.a & 0xf);
  s += fmt::format(
      "microcode\t: 0xffffffff\ncpu MHz\t\t: {}.000\ncache size\t: {} KB\nphysical id\t: 0\nsiblings\t: {}\n"
      "core id\t\t: {}\ncpu cores\t: {}\napicid\t\t: {}\ninitial apicid\t: {}\n",
      mhz, l2.c >> 16, cpus, index, cpus, index, index);
  s += fmt::format(
      "fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\nflags\t\t: {}\nbugs\t\t:\nbogomips\t: "
      "{}.00\n",
      max.a, flags, mhz * 2);
  s += fmt::format(
      "clflush size\t: {0}\ncache_alignment\t: {0}\naddress sizes\t: {1} bits physical, {2} bits virtual\n"
      "power management:\n\n",
      (one.b >> 8 & 0xff) * 8, sizes.a & 0xff, sizes.a >> 8 & 0xff);
  return s;
}

}  // namespace redoubt::proc
