// Why a container or a process could not be made.
#ifndef REDOUBT_RUNSC_BOOT_FAILURE_H_
#define REDOUBT_RUNSC_BOOT_FAILURE_H_

#include <expected>
#include <string>

#include "runsc/sandbox/layout.h"

namespace redoubt::boot {

// For a person: one line, without the container's name; and what `run` exits with (runsc/sandbox/layout.h).
struct Failure {
  std::string text;
  int code = sandbox::kSetupFailed;
};

template <typename T>
using OrFailure = std::expected<T, Failure>;

inline std::unexpected<Failure> Fail(std::string text, int code = sandbox::kSetupFailed) {
  return std::unexpected(Failure{.text = std::move(text), .code = code});
}

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_FAILURE_H_
