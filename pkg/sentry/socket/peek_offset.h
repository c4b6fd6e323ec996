// SO_PEEK_OFF (socket(7)): MSG_PEEK that goes on where the last one ended.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_PEEK_OFFSET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_PEEK_OFFSET_H_

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>

namespace redoubt::socket {

// Of one socket. Thread-safe; receivers that must not see each other's move hold a lock of their own around both.
class PeekOffset final {
 public:
  // As it is set and got: below zero, it is off. Any number will do, as in Linux.
  void Set(int offset) { offset_.store(offset, std::memory_order_relaxed); }
  int value() const { return offset_.load(std::memory_order_relaxed); }

  // Whether a receive with these flags looks behind an offset, and how many bytes it passes over.
  bool Applies(int flags) const { return (flags & MSG_PEEK) != 0 && value() >= 0; }
  size_t Begin(int flags) const { return Applies(flags) ? static_cast<size_t>(value()) : 0; }

  // What a receive with these flags got: peeked bytes move it on, those taken from the queue move it back.
  void Moved(size_t bytes, int flags) {
    int now = value();
    const int64_t by = static_cast<int64_t>(std::min<size_t>(bytes, INT_MAX));
    int64_t then;
    do {
      if (now < 0) return;
      then = std::clamp<int64_t>((flags & MSG_PEEK) != 0 ? now + by : now - by, 0, INT_MAX);
    } while (!offset_.compare_exchange_weak(now, static_cast<int>(then), std::memory_order_relaxed));
  }

 private:
  std::atomic<int> offset_{-1};
};

}  // namespace redoubt::socket

#endif  // REDOUBT_PKG_SENTRY_SOCKET_PEEK_OFFSET_H_
