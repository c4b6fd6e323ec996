// The Sentry's own seccomp filter: what of the host's calls it may make once guests run. Lists, one file for each thing
// that asks, in this folder; base.txt says most.
#ifndef REDOUBT_RUNSC_BOOT_FILTER_FILTER_H_
#define REDOUBT_RUNSC_BOOT_FILTER_FILTER_H_

#include <linux/filter.h>

#include <span>
#include <string_view>

#include "pkg/errors/errors.h"
#include "pkg/seccomp/rule.h"

namespace redoubt::boot {

struct Filter {
  std::string_view platform;  // "systrap", "ptrace", "kvm"
  std::string_view network;   // "none", "sandbox", "host", "host"
  std::span<const sock_filter> program;
  std::span<const seccomp::Rule> rules;
};

// All there are.
std::span<const Filter> Filters();

// Null if there is none for the two.
const Filter* FindFilter(std::string_view platform, std::string_view network);

// What libc would open at the first need is opened before a filter forbids it. Once; quicker when it is not the main
// thread that calls.
void OpenWhatIsOpenedLate();

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_FILTER_FILTER_H_
