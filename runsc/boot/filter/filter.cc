#include "runsc/boot/filter/filter.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <thread>

#include "runsc/boot/filter/kvm_host_filter.h"
#include "runsc/boot/filter/kvm_none_filter.h"
#include "runsc/boot/filter/kvm_sandbox_filter.h"
#include "runsc/boot/filter/ptrace_host_filter.h"
#include "runsc/boot/filter/ptrace_none_filter.h"
#include "runsc/boot/filter/ptrace_sandbox_filter.h"
#include "runsc/boot/filter/systrap_host_filter.h"
#include "runsc/boot/filter/systrap_none_filter.h"
#include "runsc/boot/filter/systrap_sandbox_filter.h"

namespace redoubt::boot {
namespace {

constexpr Filter kFilters[] = {
    {"systrap", "none", kSystrapNoneProgram, kSystrapNoneRules},
    {"systrap", "sandbox", kSystrapSandboxProgram, kSystrapSandboxRules},
    {"systrap", "host", kSystrapHostProgram, kSystrapHostRules},
    {"ptrace", "none", kPtraceNoneProgram, kPtraceNoneRules},
    {"ptrace", "sandbox", kPtraceSandboxProgram, kPtraceSandboxRules},
    {"ptrace", "host", kPtraceHostProgram, kPtraceHostRules},
    {"kvm", "none", kKvmNoneProgram, kKvmNoneRules},
    {"kvm", "sandbox", kKvmSandboxProgram, kKvmSandboxRules},
    {"kvm", "host", kKvmHostProgram, kKvmHostRules},
};

}  // namespace

std::span<const Filter> Filters() { return kFilters; }

const Filter* FindFilter(std::string_view platform, std::string_view network) {
  for (const Filter& f : kFilters) {
    if (f.platform == platform && f.network == network) return &f;
  }
  return nullptr;
}

void OpenWhatIsOpenedLate() {
  // glibc's own limit, which it would ask sched_getaffinity(2) for when it has eight arenas.
  constexpr int kArenasPerCpu = 8;
  mallopt(M_ARENA_MAX, kArenasPerCpu * static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  // glibc's malloc looks into /proc/sys/vm/overcommit_memory when an arena that is not the main thread's shrinks for
  // the first time. These blocks are smaller than what malloc maps alone, and together more than an arena keeps free.
  auto shrink_arena = [] {
    constexpr size_t kBlock = 100 << 10;
    std::array<std::unique_ptr<char[]>, 8> blocks;
    for (auto& b : blocks) b.reset(new char[kBlock]);
    // From the last on: each is joined to the free end of the arena.
    for (size_t i = blocks.size(); i > 0; i--) blocks[i - 1].reset();
  };
  if (gettid() != getpid()) {
    shrink_arena();
  } else {
    std::thread(shrink_arena).join();
  }
}

}  // namespace redoubt::boot
