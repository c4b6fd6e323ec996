#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "pkg/log/log.h"
#include "pkg/netstack/link/sniffer.h"

namespace redoubt::netstack {

namespace {

constexpr uint32_t kMagicNanoseconds = 0xa1b23c4d;
constexpr uint32_t kLinkTypeEthernet = 1;
constexpr uint32_t kLinkTypeRaw = 101;  // begins with the IP header

struct FileHeader {
  uint32_t magic = kMagicNanoseconds;
  uint16_t major = 2, minor = 4;
  uint32_t reserved[2] = {0, 0};
  uint32_t snap_length;
  uint32_t link_type;
};
struct RecordHeader {
  uint32_t seconds, nanoseconds, captured, original;
};

}  // namespace

Sniffer::Sniffer(std::unique_ptr<LinkEndpoint> below, Clock& clock, const Options& options)
    : below_(std::move(below)), clock_(clock), options_(options) {
  FileHeader h{.snap_length = options.snap_length,
               .link_type = below_->header_size() != 0 ? kLinkTypeEthernet : kLinkTypeRaw};
  // SAFETY: a struct without padding, written whole.
  if (write(options_.fd, &h, sizeof(h)) != static_cast<ssize_t>(sizeof(h)))
    LOG_WARNING("netstack: cannot write the capture file");
  written_ = sizeof(h);
}

void Sniffer::Attach(LinkDispatcher* dispatcher) {
  above_.store(dispatcher, std::memory_order_release);
  below_->Attach(dispatcher != nullptr ? this : nullptr);
}

size_t Sniffer::Write(PacketList frames) {
  PacketList on;
  while (PacketPtr p = frames.PopFront()) {
    Record(*p);
    on.PushBack(std::move(p));
  }
  return below_->Write(std::move(on));
}

void Sniffer::DeliverFrame(PacketPtr frame) {
  Record(*frame);
  LinkDispatcher* above = above_.load(std::memory_order_acquire);
  if (above != nullptr) above->DeliverFrame(std::move(frame));
}

void Sniffer::Record(const Packet& frame) {
  size_t size = frame.data.size();
  size_t kept = std::min<size_t>(size, options_.snap_length);
  if (written_.fetch_add(sizeof(RecordHeader) + kept, std::memory_order_relaxed) + sizeof(RecordHeader) + kept >
      options_.max_bytes) {
    return;
  }
  Time now = options_.epoch + clock_.Now();
  RecordHeader h{.seconds = static_cast<uint32_t>(now / kSecond),
                 .nanoseconds = static_cast<uint32_t>(now % kSecond),
                 .captured = static_cast<uint32_t>(kept),
                 .original = static_cast<uint32_t>(size)};
  // One call, so that records of several threads do not mix.
  Buffer bytes = frame.data.Slice(0, kept);
  std::array<iovec, 64> iov;
  iov[0] = {&h, sizeof(h)};
  if (bytes.view_count() > iov.size() - 1) (void)bytes.PullUp(std::min(kept, Buffer::kMaxContiguous));
  size_t n = 1 + bytes.ToIovec(0, std::span(iov).subspan(1));
  // SAFETY: the iovecs name the header above and bytes that `bytes` holds references to.
  (void)!pwritev2(options_.fd, iov.data(), static_cast<int>(n), -1, 0);
}

}  // namespace redoubt::netstack
