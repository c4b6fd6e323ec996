#include <sys/random.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "pkg/bpf/packet.h"
#include "pkg/sentry/socket/filter.h"

namespace redoubt::socket {

namespace {

// A message of no network: it has no headers, no protocol and no interface.
class Message final : public bpf::Packet {
 public:
  explicit Message(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint32_t size() const override { return static_cast<uint32_t>(bytes_.size()); }
  bool Load(Base base, uint32_t offset, std::span<std::byte> out) const override {
    if (base != Base::kData || offset > bytes_.size() || bytes_.size() - offset < out.size()) return false;
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return true;
  }
  uint32_t random() const override {
    uint32_t value = 0;
    // SAFETY: the kernel writes at most sizeof(value) bytes to `value`.
    return ::getrandom(&value, sizeof(value), 0) == sizeof(value) ? value : 0;
  }

 private:
  const std::span<const std::byte> bytes_;
};

}  // namespace

std::optional<size_t> RunFilter(const bpf::Program& filter, std::span<const std::byte> message) {
  const uint32_t kept = filter.Run(Message(message));
  if (kept == 0) return std::nullopt;
  return std::min<size_t>(kept, message.size());
}

}  // namespace redoubt::socket
