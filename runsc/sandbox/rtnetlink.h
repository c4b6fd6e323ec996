// Questions and orders to the host's rtnetlink(7).
#ifndef REDOUBT_RUNSC_SANDBOX_RTNETLINK_H_
#define REDOUBT_RUNSC_SANDBOX_RTNETLINK_H_

#include <linux/rtnetlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>

#include "pkg/fd/unique_fd.h"
#include "runsc/specutils/spec.h"

namespace redoubt::sandbox {

using Bytes = std::span<const std::byte>;

// The value of a fixed size at the start of `bytes`; zeros if they are too short.
template <typename T>
T ReadAs(Bytes bytes) {
  T value{};
  if (bytes.size() >= sizeof(T)) std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}
// Calls `f` with type (flags masked) and value of each attribute. Ends at the first that does not fit.
void ForEachAttribute(Bytes bytes, const std::function<void(uint16_t, Bytes)>& f);

// One message to the kernel: a header of the family's own, then attributes.
class RtRequest final {
 public:
  template <typename Header>
  RtRequest(uint16_t type, uint16_t flags, const Header& header) {
    nlmsghdr h{.nlmsg_len = 0, .nlmsg_type = type, .nlmsg_flags = static_cast<uint16_t>(flags | NLM_F_REQUEST)};
    Put(std::as_bytes(std::span(&h, 1)));
    Put(std::as_bytes(std::span(&header, 1)));
  }
  void Attribute(uint16_t type, Bytes value);
  template <typename T>
    requires std::is_arithmetic_v<T>
  void Attribute(uint16_t type, T value) {
    Attribute(type, std::as_bytes(std::span(&value, 1)));
  }

 private:
  friend class Rtnetlink;
  void Put(Bytes bytes);  // padded to 4 bytes

  std::string text_;
};

// A socket in the network namespace of the thread that opens it. Not thread-safe. Errors are of errno's text.
class Rtnetlink final {
 public:
  static specutils::Expected<Rtnetlink> Open();

  // Sends a dump request and calls `f` with each answer: its type, and what follows its header.
  specutils::Expected<void> Dump(RtRequest request, const std::function<void(uint16_t, Bytes)>& f);
  // Sends an order and awaits the acknowledgement; the errno, 0 for success.
  int Do(RtRequest request);

 private:
  explicit Rtnetlink(UniqueFd fd) : fd_(std::move(fd)) {}
  // 0, or an errno.
  int Exchange(RtRequest& request, uint16_t flags, const std::function<void(uint16_t, Bytes)>& f);

  UniqueFd fd_;
  uint32_t sequence_ = 0;
};

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_RTNETLINK_H_
