// The lists that filters are made from, as data: for reports, and for the tests that ask which rules are ever used.
#ifndef REDOUBT_PKG_SECCOMP_RULE_H_
#define REDOUBT_PKG_SECCOMP_RULE_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace redoubt::seccomp {

// In a filter made at build time, the number of the process that will install it.
inline constexpr uint32_t kSelf = 0x5e1f5e1f;

inline constexpr size_t kMaxConditions = 3;

// (argument & mask) == value.
struct Condition {
  int argument = 0;
  uint64_t mask = 0;
  uint64_t value = 0;
};

// A line of a list (write_filter_main.cc). A call is allowed if all conditions of one of its lines hold.
struct Rule {
  const char* name;
  int number;
  int error;  // not 0: the answer, and the call is not made
  bool rare;  // no test of the whole makes it
  size_t conditions;
  Condition condition[kMaxConditions];

  constexpr bool Matches(long nr, const uint64_t (&arguments)[6], uint32_t self) const {
    if (nr != number) return false;
    for (size_t i = 0; i < conditions; i++) {
      const Condition& c = condition[i];
      const uint64_t value = c.value == kSelf ? self : c.value;
      if ((arguments[c.argument] & c.mask) != value) return false;
    }
    return true;
  }
};

// How many calls a list lets through, however many lines each has.
constexpr size_t CountCalls(std::span<const Rule> rules) {
  size_t n = 0;
  for (size_t i = 0; i < rules.size(); i++) {
    if (rules[i].error != 0) continue;
    bool first = true;
    for (size_t j = 0; j < i; j++) first = first && (rules[j].error != 0 || rules[j].number != rules[i].number);
    n += first ? 1 : 0;
  }
  return n;
}

}  // namespace redoubt::seccomp

#endif  // REDOUBT_PKG_SECCOMP_RULE_H_
