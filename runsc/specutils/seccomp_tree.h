// Decides system calls by number alone, in a few steps of BPF: what most rules of a profile come to.
#ifndef REDOUBT_RUNSC_SPECUTILS_SECCOMP_TREE_H_
#define REDOUBT_RUNSC_SPECUTILS_SECCOMP_TREE_H_

#include <linux/filter.h>

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace redoubt::specutils {

// SECCOMP_RET_* for a number; nothing: what follows decides, by arguments.
using Decision = std::optional<uint32_t>;

// Appends to `code` a program that returns what `decisions` say, and `otherwise` for numbers below `end` that are not
// there, and goes on behind itself where there is no decision and from `end` on. To be loaded before: the number.
void AppendDecisions(const std::map<uint32_t, Decision>& decisions, Decision otherwise, uint32_t end,
                     std::vector<sock_filter>* code);

}  // namespace redoubt::specutils

#endif  // REDOUBT_RUNSC_SPECUTILS_SECCOMP_TREE_H_
