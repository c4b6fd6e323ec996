#include "pkg/gofer/filter.h"

#include "pkg/gofer/filter_program.h"
#include "pkg/seccomp/seccomp.h"

namespace redoubt::gofer {

Result<> InstallFilter() { return seccomp::Install(kFilterProgram); }

}  // namespace redoubt::gofer
