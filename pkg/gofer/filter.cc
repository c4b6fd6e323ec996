#include "pkg/gofer/filter.h"

#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include "pkg/gofer/filter_program.h"
#include "pkg/log/log.h"
#include "pkg/seccomp/seccomp.h"
#include "pkg/seccomp/violation.h"

namespace redoubt::gofer {

void PrepareForFilter(size_t threads) {
  seccomp::InstallViolationHandler({});
  // abort(3) would be a violation, and the report of it hide what was wrong.
  log::SetFatalHook([](std::string_view) { _exit(128 + SIGABRT); });
  mallopt(M_ARENA_MAX, static_cast<int>(threads) + 1);
}

Result<> InstallFilter() { return seccomp::Install(kFilterProgram); }

std::span<const seccomp::Rule> FilterRules() { return kFilterRules; }

}  // namespace redoubt::gofer
