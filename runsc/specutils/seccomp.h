// From the words of config-linux.md, "Seccomp", to a program for seccomp(2).
#ifndef REDOUBT_RUNSC_SPECUTILS_SECCOMP_H_
#define REDOUBT_RUNSC_SPECUTILS_SECCOMP_H_

#include <string>
#include <vector>

#include "runsc/specutils/spec.h"

namespace redoubt::specutils {

// Names of system calls that are not known are passed over, as they are of a newer kernel's; any other word that is not
// known is an error that names `file_name` and the field. Calls that are newer than all that the profile names get
// ENOSYS, not an error that would keep programs from doing without them.
Expected<SeccompProgram> CompileSeccomp(const Seccomp& seccomp, const std::string& file_name);

// The same, made by libseccomp alone, which takes ten times as long: what tests compare with.
Expected<SeccompProgram> CompileSeccompByLibrary(const Seccomp& seccomp, const std::string& file_name);

// The words that are understood, for `runsc features`.
std::vector<std::string> SeccompActions();
std::vector<std::string> SeccompOperators();
std::vector<std::string> SeccompArchitectures();
std::vector<std::string> SeccompFlags();

}  // namespace redoubt::specutils

#endif  // REDOUBT_RUNSC_SPECUTILS_SECCOMP_H_
