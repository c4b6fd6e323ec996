// Linux's errno as a type, and the result of whatever can fail as Linux fails.
#ifndef REDOUBT_PKG_ERRORS_ERRORS_H_
#define REDOUBT_PKG_ERRORS_ERRORS_H_

#include <cerrno>
#include <cstdint>
#include <expected>
#include <string_view>
#include <utility>

namespace redoubt {

// A Linux errno value (errno(3)), never 0. The kernel-internal restart codes of the signal path are values of the
// same type; only the syscall dispatcher turns them into EINTR or a restart, no guest ever sees them.
class [[nodiscard]] Errno {
 public:
  constexpr explicit Errno(int value) : value_(value) {}

  constexpr int value() const { return value_; }
  // What a syscall returns in rax for this error.
  constexpr uint64_t AsReturnValue() const { return static_cast<uint64_t>(-static_cast<int64_t>(value_)); }
  // "ENOENT"; "E?" for an unknown value. Static storage.
  std::string_view name() const;

  friend constexpr bool operator==(Errno, Errno) = default;

 private:
  int value_;
};

// Interrupted: what a blocking operation returns when its task has a signal to look at. signal(7) says which calls
// restart after a handler with SA_RESTART.
inline constexpr Errno kErestartsys{512};           // restarts with SA_RESTART or without a handler; else EINTR
inline constexpr Errno kErestartnointr{513};        // always restarts
inline constexpr Errno kErestartnohand{514};        // restarts only if no handler ran; else EINTR
inline constexpr Errno kErestartRestartblock{516};  // as 514, through restart_syscall(2) with adjusted time-outs

template <typename T = void>
using Result = std::expected<T, Errno>;

// `return Err(ENOENT);` from any function that returns a Result.
constexpr std::unexpected<Errno> Err(int value) { return std::unexpected<Errno>(Errno(value)); }
constexpr std::unexpected<Errno> Err(Errno e) { return std::unexpected<Errno>(e); }
// The host's errno of a call that has just failed.
inline std::unexpected<Errno> ErrFromHost() { return Err(errno); }

}  // namespace redoubt

// The value of a Result, or return its error from the enclosing function:
//   RefPtr<File> file = TRY(task.GetFile(fd));
//   TRY(Check());
#define TRY(...)                                                       \
  ({                                                                   \
    auto _try_result = (__VA_ARGS__);                                  \
    if (!_try_result) [[unlikely]]                                     \
      return ::std::unexpected<::redoubt::Errno>(_try_result.error()); \
    ::redoubt::internal::Unwrap(std::move(_try_result));               \
  })

namespace redoubt::internal {
template <typename T>
constexpr T Unwrap(std::expected<T, Errno>&& r) {
  return *std::move(r);
}
inline void Unwrap(std::expected<void, Errno>&&) {}
}  // namespace redoubt::internal

#endif  // REDOUBT_PKG_ERRORS_ERRORS_H_
