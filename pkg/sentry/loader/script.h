// `#!` scripts (execve(2), "Interpreter scripts").
#ifndef REDOUBT_PKG_SENTRY_LOADER_SCRIPT_H_
#define REDOUBT_PKG_SENTRY_LOADER_SCRIPT_H_

#include <optional>
#include <string>
#include <string_view>

#include "pkg/errors/errors.h"

namespace redoubt::loader {

// How much of the first line counts.
inline constexpr size_t kMaxScriptLine = 256;

struct ScriptLine {
  std::string interpreter;
  std::optional<std::string> argument;  // one, however many words
};

// `start`: the file's first kMaxScriptLine bytes, or all if it has fewer. Nothing if it is no script; ENOEXEC if it
// names no interpreter or the name is cut off.
Result<std::optional<ScriptLine>> ParseScript(std::string_view start);

}  // namespace redoubt::loader

#endif  // REDOUBT_PKG_SENTRY_LOADER_SCRIPT_H_
