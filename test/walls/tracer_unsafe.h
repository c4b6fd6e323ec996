// Runs runsc under ptrace(2) and says which rules of their filters its Sentry and its gofer have made use of, without a
// change to either: what the host sees is what counts.
#ifndef REDOUBT_TEST_WALLS_TRACER_UNSAFE_H_
#define REDOUBT_TEST_WALLS_TRACER_UNSAFE_H_

#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "pkg/seccomp/rule.h"

namespace redoubt::walls {

// A filter's rules, and which of them were used, by index.
struct Coverage {
  std::span<const seccomp::Rule> rules;
  std::set<size_t> used;
};

struct Command {
  std::vector<std::string> argv;
  std::function<void()> in_child;  // before it executes: redirections
};

// Runs it to its end and adds what it used after the filters were installed; the exit status as of wait(2).
int Trace(const Command& command, Coverage& sentry, Coverage& gofer);

}  // namespace redoubt::walls

#endif  // REDOUBT_TEST_WALLS_TRACER_UNSAFE_H_
