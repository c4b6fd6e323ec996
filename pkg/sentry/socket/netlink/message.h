// Netlink messages as bytes: netlink(7), netlink(3), rtnetlink(3). Parsing of hostile ones, and building.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_NETLINK_MESSAGE_H_
#define REDOUBT_PKG_SENTRY_SOCKET_NETLINK_MESSAGE_H_

#include <linux/netlink.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "pkg/errors/errors.h"

namespace redoubt::netlink {

using Bytes = std::span<const std::byte>;

inline constexpr size_t AlignUp(size_t n) { return (n + NLMSG_ALIGNTO - 1) & ~size_t{NLMSG_ALIGNTO - 1}; }

// One message of a guest: borrowed bytes, of which nothing but the lengths has been checked.
struct Message {
  nlmsghdr header{};
  Bytes whole;    // with the header
  Bytes payload;  // what follows it

  bool Has(uint16_t flag) const { return (header.nlmsg_flags & flag) != 0; }
  // A family's own header, zeros beyond the payload's end. Programs send as little as a byte of it (struct rtgenmsg).
  template <typename T>
  T Header() const {
    T value{};
    std::memcpy(&value, payload.data(), std::min(sizeof(T), payload.size()));
    return value;
  }
};
// Takes the first message off `rest`. nullopt at the end, and where a header lies about its length.
std::optional<Message> NextMessage(Bytes& rest);

// The attributes behind a family's header of `header_size` bytes, by type; of several of one type the last.
class Attributes final {
 public:
  static constexpr size_t kMax = 64;  // types; larger ones are passed over

  // EINVAL if one does not fit.
  static Result<Attributes> Parse(const Message& message, size_t header_size);
  static Result<Attributes> Parse(Bytes bytes);

  bool Has(uint16_t type) const { return type < kMax && present_[type]; }
  Bytes Get(uint16_t type) const { return Has(type) ? values_[type] : Bytes(); }
  // `absent` if it is not there; EINVAL if it is too short.
  template <typename T>
  Result<T> ValueOr(uint16_t type, const T& absent) const {
    T value = absent;
    if (!Has(type)) return value;
    if (values_[type].size() < sizeof(T)) return Err(EINVAL);
    std::memcpy(&value, values_[type].data(), sizeof(T));
    return value;
  }
  // A text up to its zero, if there is one.
  std::string_view Text(uint16_t type) const;

 private:
  Bytes values_[kMax];
  bool present_[kMax] = {};
};

// Builds messages one behind the other, as datagrams of about the size that readers have room for.
class Writer final {
 public:
  // Linux makes dumps no larger than a page less its overhead, and getifaddrs(3) reads a page at a time.
  static constexpr size_t kDatagram = 3776;

  // Begins a message; the one before is complete.
  template <typename Header>
  void Begin(uint16_t type, uint16_t flags, uint32_t sequence, uint32_t port, const Header& header) {
    BeginBare(type, flags, sequence, port);
    Put(AsBytes(header));
  }
  void BeginBare(uint16_t type, uint16_t flags, uint32_t sequence, uint32_t port);
  void Put(Bytes bytes);  // padded
  void Attribute(uint16_t type, Bytes value);
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void Attribute(uint16_t type, const T& value) {
    Attribute(type, AsBytes(value));
  }
  void Text(uint16_t type, std::string_view text);  // with its zero
  // Attributes between these two are within one of `type`.
  size_t BeginNest(uint16_t type);
  void EndNest(size_t at);
  // Takes back the message begun last.
  void Drop();
  // All of them, in datagrams.
  std::vector<std::vector<std::byte>> Take();
  bool empty() const { return bytes_.empty(); }

  template <typename T>
  static Bytes AsBytes(const T& value) {
    return std::as_bytes(std::span<const T, 1>(&value, 1));
  }

 private:
  void Finish();

  std::vector<std::byte> bytes_;
  std::vector<size_t> starts_;  // of each message
};

}  // namespace redoubt::netlink

#endif  // REDOUBT_PKG_SENTRY_SOCKET_NETLINK_MESSAGE_H_
