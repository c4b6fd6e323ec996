// What will work on this host, found out by trying, and why not and what to do about it.
#ifndef REDOUBT_RUNSC_DOCTOR_DOCTOR_H_
#define REDOUBT_RUNSC_DOCTOR_DOCTOR_H_

#include <string>
#include <vector>

namespace redoubt::doctor {

enum class Verdict {
  kWorks,
  kPoor,     // works, slower or with less
  kMissing,  // something else stands in for it, or a feature is not to be had
};

struct Finding {
  std::string what;
  Verdict verdict = Verdict::kWorks;
  std::string detail;  // what was seen
  std::string remedy;  // empty: none is needed, or none is known
};

// Changes nothing. Starts a sandbox on each platform (a second or two).
std::vector<Finding> Examine();

// One line a finding.
std::string Format(const std::vector<Finding>& findings);
// Whether a sandbox can be had at all.
bool AnyPlatformWorks(const std::vector<Finding>& findings);

}  // namespace redoubt::doctor

#endif  // REDOUBT_RUNSC_DOCTOR_DOCTOR_H_
