#include "pkg/sentry/loader/script.h"

namespace redoubt::loader {
namespace {

constexpr std::string_view kBlank = " \t";
constexpr std::string_view kTerminators{" \t\0", 3};

}  // namespace

Result<std::optional<ScriptLine>> ParseScript(std::string_view start) {
  start = start.substr(0, kMaxScriptLine);
  if (!start.starts_with("#!")) return std::nullopt;
  std::string_view line = start.substr(2);
  size_t newline = line.find('\n');
  if (newline != std::string_view::npos) {
    line = line.substr(0, newline);
  } else if (start.size() == kMaxScriptLine) {
    // No end in sight: at least the name must have ended. The last byte counts only as its end.
    size_t name = line.find_first_not_of(kBlank);
    if (name == std::string_view::npos || line.find_first_of(kTerminators, name) == std::string_view::npos) {
      return Err(ENOEXEC);
    }
    line.remove_suffix(1);
  }
  size_t last = line.find_last_not_of(kBlank);
  line = last == std::string_view::npos ? std::string_view() : line.substr(0, last + 1);
  size_t name = line.find_first_not_of(kBlank);
  if (name == std::string_view::npos) return Err(ENOEXEC);
  line.remove_prefix(name);
  size_t end = line.find_first_of(kTerminators);
  ScriptLine script;
  script.interpreter = line.substr(0, end);
  if (script.interpreter.empty()) return Err(ENOEXEC);
  if (end != std::string_view::npos && line[end] != '\0') {
    line.remove_prefix(end);
    size_t argument = line.find_first_not_of(kBlank);
    if (argument != std::string_view::npos) {
      line.remove_prefix(argument);
      script.argument = line.substr(0, line.find('\0'));
    }
  }
  return script;
}

}  // namespace redoubt::loader
