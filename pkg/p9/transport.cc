#include "pkg/p9/transport.h"

#include <algorithm>
#include <cstring>

#include "pkg/hostio/hostio.h"

namespace redoubt::p9 {

Result<> SendMessage(int socket, std::span<const std::byte> message) {
  while (!message.empty()) message = message.subspan(TRY(hostio::Send(socket, message)));
  return {};
}

bool MessageReader::HasNext() const {
  const size_t have = end_ - begin_;
  return have >= kHeaderSize && have >= ParseHeader(std::span(buffer_).subspan(begin_, kHeaderSize)).size;
}

Result<std::span<const std::byte>> MessageReader::Next(int socket, uint32_t max_size) {
  while (true) {
    size_t have = end_ - begin_;
    size_t want = kHeaderSize;
    if (have >= kHeaderSize) {
      want = ParseHeader(std::span(buffer_).subspan(begin_, kHeaderSize)).size;
      if (want < kHeaderSize || want > max_size) return Err(EPROTO);
      if (have >= want) {
        std::span<const std::byte> message = std::span<const std::byte>(buffer_).subspan(begin_, want);
        begin_ += want;
        return message;
      }
    }
    if (begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, have);
      begin_ = 0;
      end_ = have;
    }
    if (buffer_.size() < std::max<size_t>(want, kMinMessageSize))
      buffer_.resize(std::max<size_t>(want, kMinMessageSize));
    size_t n = TRY(hostio::Receive(socket, std::span(buffer_).subspan(end_)));
    if (n == 0) return Err(EPIPE);
    end_ += n;
  }
}

}  // namespace redoubt::p9
