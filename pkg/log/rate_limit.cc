#include "pkg/log/rate_limit.h"

#include <fmt/format.h>
#include <time.h>

namespace redoubt::log {

std::optional<uint64_t> RateLimit::Take(int64_t now) {
  int64_t from = from_.load(std::memory_order_relaxed);
  const bool over = from == INT64_MIN || now - from >= kInterval;
  if (over && from_.compare_exchange_strong(from, now, std::memory_order_relaxed)) {
    written_.store(0, std::memory_order_relaxed);
  }
  // Not counted on and on, which would come round to 0.
  if (written_.load(std::memory_order_relaxed) < kBurst && written_.fetch_add(1, std::memory_order_relaxed) < kBurst) {
    return left_out_.exchange(0, std::memory_order_relaxed);
  }
  left_out_.fetch_add(1, std::memory_order_relaxed);
  return std::nullopt;
}

void WriteLimited(RateLimit& limit, Level level, const char* file, int line, std::string_view text) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::optional<uint64_t> left_out = limit.Take(int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec);
  if (!left_out) return;
  if (*left_out == 0) return Write(level, file, line, text);
  Write(level, file, line, fmt::format("{} (and {} lines like this before it, left out)", text, *left_out));
}

}  // namespace redoubt::log
