// Private to hostinet: memory through which bytes go between guest and host, a piece at a time.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_PIECE_H_
#define REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_PIECE_H_

#include <array>
#include <cstddef>
#include <memory>
#include <span>

namespace redoubt::hostinet {

// Small ones lie in the object itself, so on the stack; of the others a few are kept for the next. What is in a new one
// is not defined. Not guest memory itself: the guest may unmap that under the host's hands, and a fault there is a
// number of bytes here.
class Piece final {
 public:
  static constexpr size_t kMost = size_t{64} << 10;

  // At most kMost bytes.
  explicit Piece(size_t size);
  ~Piece();
  Piece(const Piece&) = delete;
  Piece& operator=(const Piece&) = delete;

  std::span<std::byte> bytes() { return {large_ ? large_.get() : small_.data(), size_}; }

 private:
  static constexpr size_t kSmall = 1024;

  const size_t size_;
  std::unique_ptr<std::byte[]> large_;
  std::array<std::byte, kSmall> small_;
};

}  // namespace redoubt::hostinet

#endif  // REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_PIECE_H_
