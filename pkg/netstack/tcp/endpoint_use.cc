#include "pkg/netstack/tcp/endpoint_use.h"

#include <netinet/in.h>

#include <optional>
#include <utility>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/stack/frame_batch.h"
#include "pkg/netstack/tcp/stamps.h"

namespace redoubt::netstack::tcp {

namespace {

constexpr uint8_t kMaxReplaced = 3;

// A few lists of segments per thread go round (one for each endpoint whose sending is nested), so that neither
// sending allocates nor an idle endpoint holds a list. Not used across anything that could park.
template <typename T>
struct SpareLists {
  static constexpr size_t kMax = 4;
  static constexpr size_t kMaxCapacity = 256;

  static SpareLists& Local() {
    thread_local SpareLists spare;
    return spare;
  }
  std::vector<T> Take() { return count == 0 ? std::vector<T>() : std::move(lists[--count]); }
  void Give(std::vector<T>& list) {
    if (list.capacity() == 0 || list.capacity() > kMaxCapacity || count == kMax) return;
    list.clear();
    lists[count++] = std::move(list);
  }

  std::vector<T> lists[kMax];
  size_t count = 0;
};

}  // namespace

// Under the lock.
void Endpoint::Use::NoteEvents() {
  Connection* c = e_.connection_.get();
  if (c == nullptr) return;
  uint32_t events = c->TakeEvents();
  if (events != 0) {
    if (events & kEventConnected) {
      e_.was_connected_ = true;
      notify_ |= waiter::kOut | waiter::kWrNorm;
      if (e_.parent_) {
        tell_parent_ = !e_.fast_opened_;
        parent_ = std::move(e_.parent_);
        parent_->syn_count_.fetch_sub(1);
        if (e_.fast_opened_) parent_->fast_open_count_.fetch_sub(1);
      }
      if (c->fast_open_cookie() && c->fast_open_cookie()->length > 0) {
        e_.protocol_.RememberOpenCookie(e_.id_.remote, *c->fast_open_cookie());
      }
    }
    if (events & kEventReadable) notify_ |= waiter::kIn | waiter::kRdNorm;
    if (events & kEventWritable) notify_ |= waiter::kOut | waiter::kWrNorm;
    if (events & kEventPeerClosed) notify_ |= waiter::kIn | waiter::kRdNorm | waiter::kRdHup;
    if (events & kEventUrgent) e_.urgent_marks_.fetch_add(1);
    if (events & kEventUrgentByte) notify_ |= waiter::kPri;
    if (events & kEventError) notify_ |= waiter::kErr;
    if (events & kEventClosed) notify_ |= waiter::kHup | waiter::kRdHup | waiter::kIn | waiter::kOut;
    if (c->state() == State::kTimeWait && !e_.in_time_wait_) {
      // As Linux with tcp_max_tw_buckets: beyond the bound the wait is left out.
      e_.in_time_wait_ = true;
      if (e_.protocol_.time_wait_count_.fetch_add(1) >= e_.protocol_.sysctls_.max_time_wait) c->Kill(0);
    }
    if (c->state() == State::kClosed) {
      if (std::exchange(e_.in_time_wait_, false)) e_.protocol_.time_wait_count_.fetch_sub(1);
      if (e_.parent_) {
        parent_ = std::move(e_.parent_);
        parent_->syn_count_.fetch_sub(1);
        if (e_.fast_opened_) parent_->fast_open_count_.fetch_sub(1);
      }
      if (!e_.was_connected_) e_.protocol_.stats_.attempt_fails.fetch_add(1, std::memory_order_relaxed);
      remove_ = std::exchange(e_.inserted_, false);
      id_ = e_.id_;
      if (e_.closed_) e_.claim_.Release();
    }
  }
  if (e_.stamps_ != nullptr && e_.NoteAcknowledged()) notify_ |= waiter::kErr;
  Time deadline = c->NextDeadline();
  if (deadline != e_.timer_.deadline()) {
    if (deadline == kNever) {
      e_.timer_.Disarm();
    } else {
      e_.timer_.Schedule(deadline);
    }
  }
}

bool Endpoint::Sending::Begin() {
  if (e_.out_.empty()) return false;
  batch_.swap(e_.out_);
  if (std::exchange(e_.route_changed_, false)) e_.send_route_ = e_.route_;
  write_ = {.protocol = IPPROTO_TCP,
            .ttl = e_.options_.ttl,
            .traffic_class = static_cast<uint8_t>(e_.options_.traffic_class & ~3),
            .dont_fragment = e_.options_.dont_fragment};
  return true;
}

void Endpoint::Sending::Send() {
  // In one call of the link. What goes to a loopback is delivered at once, which is not to be put off.
  std::optional<FrameBatch> together;
  if (batch_.size() > 1 && !e_.send_route_.is_loopback()) together.emplace();
  uint8_t traffic_class = write_.traffic_class;
  for (Outgoing& o : batch_) {
    write_.offload = o.offload;
    write_.traffic_class = traffic_class | static_cast<uint8_t>(o.ecn);
    write_.stamp = std::move(o.stamp);
    // A packet that cannot be sent is lost, as in a network: the retransmission timer notices.
    (void)e_.send_route_.Write(std::move(o.data), write_);
  }
  e_.protocol_.stats_.out_segments.fetch_add(batch_.size(), std::memory_order_relaxed);
  batch_.clear();
}

Endpoint::Sending::~Sending() { SpareLists<Outgoing>::Local().Give(batch_); }

Endpoint::Use::~Use() {
  NoteEvents();
  bool mine = !e_.sending_ && !e_.out_.empty();
  bool defer = mine && FrameBatch::Active();
  bool send = mine && !defer && sending_.Begin();
  if (mine) e_.sending_ = true;
  e_.mu_.Unlock();
  // The endpoint may go with its table's reference, not before this scope has ended.
  RefPtr<Endpoint> self = remove_ || mine ? RefPtr(&e_) : nullptr;
  if (defer) FrameBatch::Defer(self, e_);
  if (notify_ != 0) e_.waiters_.Notify(notify_);
  while (send) {
    sending_.Send();
    e_.mu_.Lock();
    send = sending_.Begin();
    if (!send) e_.sending_ = false;
    e_.mu_.Unlock();
  }
  if (remove_) {
    e_.timer_.Cancel();
    e_.protocol_.Remove(id_, e_);
  }
  if (tell_parent_) parent_->ChildReady(RefPtr(&e_));
}

void Endpoint::SendDeferred() {
  Sending sending(*this);
  bool any;
  {
    sync::MutexLock lock(mu_);
    any = sending.Begin();
  }
  if (any) sending.Send();
}

bool Endpoint::DeferredSent() {
  sync::MutexLock lock(mu_);
  if (!out_.empty()) return true;
  sending_ = false;
  return false;
}

// From the connection, under the lock.
void Endpoint::Emit(Segment& s) NO_THREAD_SAFETY_ANALYSIS {
  if (out_.capacity() == 0) out_ = SpareLists<Outgoing>::Local().Take();
  size_t payload = s.payload.size();
  const bool only_ack = payload == 0 && s.flags == kAck && s.options.sack_count == 0;
  uint8_t replaced = 0;
  // The one before has not left yet, and says nothing that this one does not. Not all of many: the peer's clock are
  // our acknowledgements (RFC 5681 section 4.2).
  if (only_ack && !out_.empty() && out_.back().only_ack && out_.back().replaced < kMaxReplaced &&
      SeqGt(s.ack, out_.back().ack)) {
    replaced = static_cast<uint8_t>(out_.back().replaced + 1);
    out_.pop_back();
  }
  Outgoing& o = out_.emplace_back();
  o.only_ack = only_ack;
  o.replaced = replaced;
  o.ack = s.ack;
  o.ecn = s.ecn;
  o.offload.checksum = ChecksumState::kPartial;
  o.offload.checksum_offset = kChecksumOffset;
  if (s.segment_size != 0) {
    o.offload.gso = id_.remote.is_ipv4() ? GsoKind::kTcpV4 : GsoKind::kTcpV6;
    o.offload.segment_size = s.segment_size;
    o.offload.ecn = s.Has(kCwr);
  }
  if (stamps_ != nullptr && payload > 0) o.stamp = StampOf(s);
  if (s.Has(kRst)) protocol_.stats_.out_resets.fetch_add(1, std::memory_order_relaxed);
  o.data = BuildSegment(s, {id_.local_port, id_.remote_port}, route_.headroom());
  o.offload.transport_header_length = static_cast<uint8_t>(o.data.size() - payload);
  uint32_t length = static_cast<uint32_t>(o.data.size());
  uint16_t pseudo = FoldSum(uint64_t{pseudo_sum_} + (length >> 16) + (length & 0xffff));
  std::byte* field = o.data.MutableView(0).data() + kChecksumOffset;
  field[0] = static_cast<std::byte>(pseudo >> 8);
  field[1] = static_cast<std::byte>(pseudo);
}

}  // namespace redoubt::netstack::tcp
