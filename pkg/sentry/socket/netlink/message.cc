#include "pkg/sentry/socket/netlink/message.h"

namespace redoubt::netlink {

std::optional<Message> NextMessage(Bytes& rest) {
  Message m;
  if (rest.size() < sizeof(m.header)) return std::nullopt;
  std::memcpy(&m.header, rest.data(), sizeof(m.header));
  if (m.header.nlmsg_len < sizeof(m.header) || m.header.nlmsg_len > rest.size()) return std::nullopt;
  m.whole = rest.first(m.header.nlmsg_len);
  m.payload = m.whole.subspan(sizeof(m.header));
  rest = rest.subspan(std::min(AlignUp(m.header.nlmsg_len), rest.size()));
  return m;
}

Result<Attributes> Attributes::Parse(const Message& message, size_t header_size) {
  return Parse(message.payload.subspan(std::min(AlignUp(header_size), message.payload.size())));
}

Result<Attributes> Attributes::Parse(Bytes bytes) {
  Attributes result;
  while (bytes.size() >= sizeof(nlattr)) {
    nlattr a;
    std::memcpy(&a, bytes.data(), sizeof(a));
    if (a.nla_len < sizeof(a) || a.nla_len > bytes.size()) return Err(EINVAL);
    const uint16_t type = a.nla_type & NLA_TYPE_MASK;
    if (type < kMax) {
      result.values_[type] = bytes.subspan(sizeof(a), a.nla_len - sizeof(a));
      result.present_[type] = true;
    }
    bytes = bytes.subspan(std::min(AlignUp(a.nla_len), bytes.size()));
  }
  return result;
}

std::string_view Attributes::Text(uint16_t type) const {
  Bytes value = Get(type);
  // SAFETY: bytes as chars, of the same length.
  std::string_view text(reinterpret_cast<const char*>(value.data()), value.size());
  return text.substr(0, text.find('\0'));
}

void Writer::BeginBare(uint16_t type, uint16_t flags, uint32_t sequence, uint32_t port) {
  Finish();
  starts_.push_back(bytes_.size());
  nlmsghdr header{.nlmsg_len = 0, .nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = sequence, .nlmsg_pid = port};
  Put(AsBytes(header));
}

void Writer::Put(Bytes bytes) {
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  bytes_.resize(AlignUp(bytes_.size()));
}

void Writer::Attribute(uint16_t type, Bytes value) {
  nlattr a{.nla_len = static_cast<uint16_t>(sizeof(nlattr) + value.size()), .nla_type = type};
  Put(AsBytes(a));
  Put(value);
}

void Writer::Text(uint16_t type, std::string_view text) {
  std::vector<std::byte> value(text.size() + 1);
  std::memcpy(value.data(), text.data(), text.size());
  Attribute(type, Bytes(value));
}

size_t Writer::BeginNest(uint16_t type) {
  const size_t at = bytes_.size();
  Put(AsBytes(nlattr{.nla_len = sizeof(nlattr), .nla_type = type}));
  return at;
}

void Writer::EndNest(size_t at) {
  const auto length = static_cast<uint16_t>(bytes_.size() - at);
  std::memcpy(bytes_.data() + at, &length, sizeof(length));
}

void Writer::Finish() {
  if (starts_.empty()) return;
  const auto length = static_cast<uint32_t>(bytes_.size() - starts_.back());
  std::memcpy(bytes_.data() + starts_.back(), &length, sizeof(length));
}

void Writer::Drop() {
  bytes_.resize(starts_.back());
  starts_.pop_back();
}

std::vector<std::vector<std::byte>> Writer::Take() {
  Finish();
  std::vector<std::vector<std::byte>> datagrams;
  for (size_t i = 0; i < starts_.size(); i++) {
    const size_t end = i + 1 < starts_.size() ? starts_[i + 1] : bytes_.size();
    const size_t size = end - starts_[i];
    if (datagrams.empty() || datagrams.back().size() + size > kDatagram) datagrams.emplace_back();
    datagrams.back().insert(datagrams.back().end(), bytes_.begin() + static_cast<ptrdiff_t>(starts_[i]),
                            bytes_.begin() + static_cast<ptrdiff_t>(end));
  }
  bytes_.clear();
  starts_.clear();
  return datagrams;
}

}  // namespace redoubt::netlink
