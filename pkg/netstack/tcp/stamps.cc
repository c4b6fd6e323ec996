// When bytes left, were acknowledged and came: SO_TIMESTAMPING of a stream.
#include "pkg/netstack/tcp/stamps.h"

#include <algorithm>
#include <utility>

#include "pkg/netstack/tcp/endpoint_use.h"

namespace redoubt::netstack::tcp {

std::optional<Stamp> Endpoint::TakeStamp() {
  sync::MutexLock lock(mu_);
  return stamps_ != nullptr ? stamps_->told.Take() : std::nullopt;
}

Result<> Endpoint::StartStampNumbers(bool from_next) {
  sync::MutexLock lock(mu_);
  if (listening_ || !connection_ || connection_->state() == State::kClosed) return Err(EINVAL);
  if (stamps_ == nullptr) stamps_ = std::make_unique<Stamps>();
  stamps_->base = connection_->snd_una();
  if (from_next) stamps_->base += static_cast<Seq>(connection_->queued());
  return {};
}

void Endpoint::NoteWrite(size_t n, StampPlaces places) {
  if (n == 0) return;
  if (stamps_ == nullptr) stamps_ = std::make_unique<Stamps>();
  if (stamps_->sent.size() >= Stamps::kMaxSent) return;
  const Seq end = connection_->snd_una() + static_cast<Seq>(connection_->queued() + n);
  stamps_->sent.push_back({.end = end, .key = options_.number_stamps ? end - 1 - stamps_->base : 0, .left = places});
}

// A segment has the stamp of the last call whose last byte is in it, as Linux's have, and only the first time.
StampRequest Endpoint::StampOf(const Segment& s) {
  constexpr StampPlaces kOnTheWay = StampBit(StampPlace::kScheduled) | StampBit(StampPlace::kSent);
  StampRequest request;
  const Seq end = s.seq + static_cast<Seq>(s.payload.size());
  for (Stamps::Sent& sent : stamps_->sent) {
    if ((sent.left & kOnTheWay) == 0 || !SeqGt(sent.end, s.seq) || SeqGt(sent.end, end)) continue;
    request.key = sent.key;
    request.places = sent.left & kOnTheWay;
    sent.left &= static_cast<StampPlaces>(~kOnTheWay);
  }
  if (request.places == 0) return {};
  request.owner = RefPtr<RefCounted>(this);
  request.receiver = this;
  return request;
}

bool Endpoint::NoteAcknowledged() {
  std::vector<Stamps::Sent>& sent = stamps_->sent;
  const Seq una = connection_->snd_una();
  auto first_left = std::ranges::find_if(sent, [&](const Stamps::Sent& s) { return SeqGt(s.end, una); });
  if (first_left == sent.begin()) return false;
  bool told = false;
  for (auto s = sent.begin(); s != first_left; ++s) {
    if ((s->left & StampBit(StampPlace::kAcknowledged)) == 0) continue;
    stamps_->told.Push({.place = StampPlace::kAcknowledged, .key = s->key, .at = Now()}, 0);
    told = true;
  }
  sent.erase(sent.begin(), first_left);
  return told;
}

void Endpoint::Stamped(StampPlace place, uint32_t key, const Packet& frame, size_t link_header) {
  {
    sync::MutexLock lock(mu_);
    if (stamps_ == nullptr || closed_) return;
    constexpr size_t kMaxFrames = 256 << 10;
    stamps_->told.Push(MakeStamp(place, key, Now(), frame, link_header, options_.stamps_have_frames), kMaxFrames);
  }
  waiters_.Notify(waiter::kErr);
}

void Endpoint::NoteReceived() {
  const uint64_t end = connection_->stats().bytes_received;
  if (connection_->unread() == 0) return;
  if (stamps_ == nullptr) stamps_ = std::make_unique<Stamps>();
  std::vector<Stamps::Received>& received = stamps_->received;
  if (!received.empty() && received.back().end >= end) return;
  if (received.size() >= Stamps::kMaxReceived) {
    received.back() = {end, Now()};
  } else {
    received.push_back({end, Now()});
  }
}

// Of `n` bytes behind the first `offset` that are to be read.
std::optional<Time> Endpoint::ReceiveTime(size_t offset, size_t n, bool peek) {
  std::vector<Stamps::Received>& received = stamps_->received;
  const uint64_t from = connection_->stats().bytes_received - connection_->unread() + offset;
  std::optional<Time> last;
  auto it = received.begin();
  for (; it != received.end() && it->end <= from + n; ++it) {
    if (it->end > from) last = it->at;
  }
  if (!peek) received.erase(received.begin(), it);
  return last;
}

}  // namespace redoubt::netstack::tcp
