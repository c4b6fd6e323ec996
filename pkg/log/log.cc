#include "pkg/log/log.h"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iterator>

namespace redoubt::log {
namespace {

std::atomic<int> g_fd{STDERR_FILENO};
std::atomic<int> g_level{static_cast<int>(Level::kWarning)};
std::atomic<const char*> g_process{"-"};
std::atomic<void (*)(std::string_view)> g_fatal_hook{nullptr};

const char* BaseName(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

}  // namespace

void Configure(int fd, Level level) {
  g_fd.store(fd, std::memory_order_relaxed);
  g_level.store(static_cast<int>(level), std::memory_order_relaxed);
}

void SetProcessName(const char* name) { g_process.store(name, std::memory_order_relaxed); }

bool Enabled(Level level) { return static_cast<int>(level) >= g_level.load(std::memory_order_relaxed); }

void Write(Level level, const char* file, int line, std::string_view text) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  // Not gmtime_r(3), which reads /etc/localtime first and takes a lock: a process in a box cannot open it.
  const std::chrono::sys_seconds time{std::chrono::seconds(now.tv_sec)};
  const std::chrono::sys_days day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  fmt::memory_buffer buf;
  fmt::format_to(std::back_inserter(buf), "{}{:02}{:02} {:02}:{:02}:{:02}.{:06} {} {} {}:{}] {}\n",
                 "DIWE"[static_cast<int>(level)], static_cast<unsigned>(date.month()),
                 static_cast<unsigned>(date.day()), clock.hours().count(), clock.minutes().count(),
                 clock.seconds().count(), now.tv_nsec / 1000, g_process.load(std::memory_order_relaxed),
                 syscall(SYS_gettid), BaseName(file), line, text);
  // A log that cannot be written has nowhere to complain.
  ssize_t ignored = write(g_fd.load(std::memory_order_relaxed), buf.data(), buf.size());
  (void)ignored;
}

void SetFatalHook(void (*hook)(std::string_view)) { g_fatal_hook.store(hook); }

void Fatal(const char* file, int line, std::string_view text) {
  Write(Level::kError, file, line, text);
  if (auto* hook = g_fatal_hook.exchange(nullptr); hook != nullptr) hook(text);
  abort();
}

}  // namespace redoubt::log
