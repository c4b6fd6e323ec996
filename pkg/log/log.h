// The Sentry's log: lines to one descriptor opened before confinement, and the CHECK that names a broken invariant.
// Safe from any thread or fiber; takes no lock that a fiber may hold, opens nothing, reads no time zone.
#ifndef REDOUBT_PKG_LOG_LOG_H_
#define REDOUBT_PKG_LOG_LOG_H_

#include <fmt/core.h>

#include <atomic>
#include <string_view>

namespace redoubt::log {

enum class Level : int { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };

// Lines of at least `level` go to `fd` (borrowed, stays open for the life of the process). Initially warnings go to
// stderr.
void Configure(int fd, Level level);
// As every line's third field, after time and level; e.g. "boot" or "gofer". Static storage.
void SetProcessName(const char* name);

bool Enabled(Level level);
// One write(2) a line: "I0102 15:04:05.678901 boot 1234 task.cc:42] text\n", UTC.
void Write(Level level, const char* file, int line, std::string_view text);

// Called with the message before a failed CHECK aborts; crash reports hook in here. At most one hook.
void SetFatalHook(void (*hook)(std::string_view message));
[[noreturn]] void Fatal(const char* file, int line, std::string_view text);

}  // namespace redoubt::log

#define LOG_AT(level, ...)                                                          \
  do {                                                                              \
    if (::redoubt::log::Enabled(level)) [[unlikely]]                                \
      ::redoubt::log::Write(level, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__)); \
  } while (0)
#define LOG_DEBUG(...) LOG_AT(::redoubt::log::Level::kDebug, __VA_ARGS__)
#define LOG_INFO(...) LOG_AT(::redoubt::log::Level::kInfo, __VA_ARGS__)
#define LOG_WARNING(...) LOG_AT(::redoubt::log::Level::kWarning, __VA_ARGS__)
#define LOG_ERROR(...) LOG_AT(::redoubt::log::Level::kError, __VA_ARGS__)

// A broken invariant of the kernel itself, never a guest's mistake.
#define CHECK(condition, ...)                                                                 \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::redoubt::log::Fatal(__FILE__, __LINE__, "CHECK failed: " #condition " " __VA_ARGS__); \
  } while (0)
#define UNREACHABLE() ::redoubt::log::Fatal(__FILE__, __LINE__, "unreachable")

#endif  // REDOUBT_PKG_LOG_LOG_H_
