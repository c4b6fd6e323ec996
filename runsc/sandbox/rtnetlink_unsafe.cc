#include <fmt/core.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "runsc/sandbox/rtnetlink.h"

namespace redoubt::sandbox {
namespace {

// netlink(7): a dump's datagrams are of at most 32 KiB, or of the size of the reader's buffer if that is larger.
constexpr size_t kReceiveSize = 1 << 18;
constexpr size_t kAlign = 4;

size_t Aligned(size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

}  // namespace

void ForEachAttribute(Bytes bytes, const std::function<void(uint16_t, Bytes)>& f) {
  while (bytes.size() >= sizeof(rtattr)) {
    auto attribute = ReadAs<rtattr>(bytes);
    if (attribute.rta_len < sizeof(rtattr) || attribute.rta_len > bytes.size()) return;
    f(attribute.rta_type & NLA_TYPE_MASK, bytes.subspan(sizeof(rtattr), attribute.rta_len - sizeof(rtattr)));
    bytes = bytes.subspan(std::min(Aligned(attribute.rta_len), bytes.size()));
  }
}

void RtRequest::Put(Bytes bytes) {
  // SAFETY: bytes as chars.
  text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  text_.resize(Aligned(text_.size()));
}

void RtRequest::Attribute(uint16_t type, Bytes value) {
  rtattr attribute{.rta_len = static_cast<unsigned short>(sizeof(rtattr) + value.size()), .rta_type = type};
  Put(std::as_bytes(std::span(&attribute, 1)));
  Put(value);
}

specutils::Expected<Rtnetlink> Rtnetlink::Open() {
  UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!fd) return std::unexpected(fmt::format("cannot open a netlink socket: {}", std::strerror(errno)));
  return Rtnetlink(std::move(fd));
}

int Rtnetlink::Exchange(RtRequest& request, uint16_t flags, const std::function<void(uint16_t, Bytes)>& f) {
  auto header = ReadAs<nlmsghdr>(std::as_bytes(std::span(request.text_)));
  header.nlmsg_len = static_cast<uint32_t>(request.text_.size());
  header.nlmsg_flags |= flags;
  header.nlmsg_seq = ++sequence_;
  std::memcpy(request.text_.data(), &header, sizeof(header));
  // SAFETY: the message is alive during the call.
  if (send(fd_.get(), request.text_.data(), request.text_.size(), 0) < 0) return errno;
  std::vector<std::byte> buffer(kReceiveSize);
  while (true) {
    // SAFETY: at most the buffer's size is written.
    ssize_t n = recv(fd_.get(), buffer.data(), buffer.size(), MSG_TRUNC);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n == 0 ? EIO : errno;
    if (static_cast<size_t>(n) > buffer.size()) return EMSGSIZE;
    Bytes rest = std::span(buffer).first(static_cast<size_t>(n));
    while (rest.size() >= sizeof(nlmsghdr)) {
      auto answer = ReadAs<nlmsghdr>(rest);
      if (answer.nlmsg_len < sizeof(nlmsghdr) || answer.nlmsg_len > rest.size()) return EIO;
      Bytes body = rest.subspan(sizeof(nlmsghdr), answer.nlmsg_len - sizeof(nlmsghdr));
      rest = rest.subspan(std::min(Aligned(answer.nlmsg_len), rest.size()));
      if (answer.nlmsg_seq != sequence_) continue;
      if (answer.nlmsg_type == NLMSG_ERROR) return -ReadAs<nlmsgerr>(body).error;
      if (answer.nlmsg_type == NLMSG_DONE) return -ReadAs<int32_t>(body);
      f(answer.nlmsg_type, body);
    }
  }
}

specutils::Expected<void> Rtnetlink::Dump(RtRequest request, const std::function<void(uint16_t, Bytes)>& f) {
  int error = Exchange(request, NLM_F_DUMP, f);
  if (error != 0) return std::unexpected(fmt::format("netlink does not tell: {}", std::strerror(error)));
  return {};
}

int Rtnetlink::Do(RtRequest request) {
  return Exchange(request, NLM_F_ACK, [](uint16_t, Bytes) {});
}

}  // namespace redoubt::sandbox
