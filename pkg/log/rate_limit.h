// Lines that a guest, or who sends packets to it, can cause as often as it likes: a few of each, and how many there
// were.
#ifndef REDOUBT_PKG_LOG_RATE_LIMIT_H_
#define REDOUBT_PKG_LOG_RATE_LIMIT_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>

#include "pkg/log/log.h"

namespace redoubt::log {

// Of one cause. Linux's printk_ratelimit has the same numbers. Takes no lock; threads that race for the turn of an
// interval may write a line more.
class RateLimit final {
 public:
  static constexpr int64_t kInterval = 5'000'000'000;  // ns
  static constexpr uint32_t kBurst = 10;

  constexpr RateLimit() = default;
  RateLimit(const RateLimit&) = delete;
  RateLimit& operator=(const RateLimit&) = delete;

  // Nothing: the line is left out. Otherwise how many were since the last that was written. `now`: ns of any clock that
  // does not go back.
  std::optional<uint64_t> Take(int64_t now);

 private:
  std::atomic<int64_t> from_{INT64_MIN};
  std::atomic<uint32_t> written_{0};
  std::atomic<uint64_t> left_out_{0};
};

void WriteLimited(RateLimit& limit, Level level, const char* file, int line, std::string_view text);

}  // namespace redoubt::log

#define LOG_LIMITED_AT(level, ...)                                                                             \
  do {                                                                                                         \
    static constinit ::redoubt::log::RateLimit limit_of_this_line;                                             \
    if (::redoubt::log::Enabled(level)) [[unlikely]]                                                           \
      ::redoubt::log::WriteLimited(limit_of_this_line, level, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__)); \
  } while (0)
#define LOG_WARNING_LIMITED(...) LOG_LIMITED_AT(::redoubt::log::Level::kWarning, __VA_ARGS__)
#define LOG_ERROR_LIMITED(...) LOG_LIMITED_AT(::redoubt::log::Level::kError, __VA_ARGS__)

#endif  // REDOUBT_PKG_LOG_RATE_LIMIT_H_
