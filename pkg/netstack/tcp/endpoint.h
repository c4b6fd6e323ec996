// A TCP socket without descriptor: connecting, listening, the stream, options, readiness (man 7 tcp).
#ifndef REDOUBT_PKG_NETSTACK_TCP_ENDPOINT_H_
#define REDOUBT_PKG_NETSTACK_TCP_ENDPOINT_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "pkg/bpf/bpf.h"
#include "pkg/errors/errors.h"
#include "pkg/netstack/address/socket_address.h"
#include "pkg/netstack/clock/timer.h"
#include "pkg/netstack/ports/port_manager.h"
#include "pkg/netstack/stack/frame_batch.h"
#include "pkg/netstack/stack/stack.h"
#include "pkg/netstack/tcp/connection.h"
#include "pkg/netstack/tcp/protocol.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::netstack::tcp {

// Options that are not the connection's (Settings); inherited by accepted endpoints.
struct EndpointOptions {
  uint32_t bound_interface = 0;  // SO_BINDTODEVICE
  uint32_t owner = 0;            // user id, for reuse_port
  uint8_t ttl = 0;               // 0: the stack's default
  uint8_t traffic_class = 0;     // IP_TOS, IPV6_TCLASS; the two ECN bits are the connection's
  bool v6_only = false;
  ForeignAddresses foreign = {};
  bool reuse_address = false;
  bool reuse_port = false;
  bool dont_fragment = true;    // path MTU discovery
  uint8_t mtu_discover = 1;     // IP_MTU_DISCOVER as it was given
  uint16_t max_segment = 0;     // TCP_MAXSEG
  uint32_t receive_buffer = 0;  // SO_RCVBUF as doubled by the kernel; 0: tuned
  uint32_t send_buffer = 0;
  uint32_t receive_low_water = 1;                 // SO_RCVLOWAT
  uint32_t not_sent_low_water = 0;                // TCP_NOTSENT_LOWAT; 0: none
  uint32_t fast_open_queue = 0;                   // TCP_FASTOPEN of a listener
  Time defer_accept = 0;                          // TCP_DEFER_ACCEPT
  bool stamp_received = false;                    // SO_TIMESTAMPING: RX_SOFTWARE; SO_TIMESTAMP
  bool number_stamps = false;                     // OPT_ID
  bool stamps_have_frames = true;                 // not OPT_TSONLY
  std::optional<CongestionAlgorithm> congestion;  // TCP_CONGESTION; the stack's default
};

struct WriteFlags {
  bool more = false;       // MSG_MORE
  bool urgent = false;     // MSG_OOB
  StampPlaces stamps = 0;  // of the last byte's way
};

// When what was read had come.
struct ReadTime {
  std::optional<Time> received;  // the segment that ended last in what was read; none if none did
};

// Thread-safe; every call may send packets, so no lock of another endpoint, nor one that packet delivery takes, may
// be held. Never blocks: EAGAIN and EINPROGRESS say that `waiters` will tell when to try again. While its connection
// is not over, the protocol holds a reference, whoever else does; the owner must call Close().
class Endpoint final : public RefCounted, private SegmentSink, private DeferredSender, private StampReceiver {
 public:
  static RefPtr<Endpoint> Create(TcpProtocol& protocol, Family family);
  ~Endpoint() override;

  waiter::Queue& waiters() { return waiters_; }
  // What poll(2) reports, exactly as Linux's tcp_poll.
  waiter::EventMask Readiness() EXCLUDES(mu_);

  // EINVAL (bound already, other family), EADDRNOTAVAIL, EADDRINUSE.
  Result<> Bind(const SocketAddress& address) EXCLUDES(mu_);
  // Starts: EINPROGRESS; while it goes on EALREADY; then nothing, once, or what went wrong; then EISCONN. Errors of
  // Stack::FindRoute, EADDRNOTAVAIL (no port left), EADDRINUSE, EAFNOSUPPORT, ECONNREFUSED, ETIMEDOUT, ... `data`
  // with fast open (MSG_FASTOPEN): the bytes are queued, and leave with the SYN if a cookie is known.
  Result<> Connect(const SocketAddress& peer, bool fast_open = false, Buffer data = {}) EXCLUDES(mu_);
  // Whether a Connect with data would send that at once: EOPNOTSUPP where fast open is off.
  Result<bool> KnowsOpenCookie(const SocketAddress& peer) EXCLUDES(mu_);
  // connect(2) to AF_UNSPEC: resets, and the endpoint may connect again.
  void Disconnect() EXCLUDES(mu_);
  // Binds if need be. EINVAL (connected), EADDRINUSE. Again: changes the backlog.
  Result<> Listen(uint32_t backlog) EXCLUDES(mu_);
  // EAGAIN, EINVAL (not listening).
  Result<RefPtr<Endpoint>> Accept() EXCLUDES(mu_);

  // Bytes that a Write may bring now, at least 1. EAGAIN, EPIPE, a pending error once. If there are fewer than
  // `wanted` the waiters hear kOut when there is room again, as after a short write in Linux.
  Result<size_t> WriteRoom(size_t wanted = 1) EXCLUDES(mu_);
  // Takes all; to be bounded by WriteRoom. Returns how many bytes.
  Result<size_t> Write(Buffer data, WriteFlags flags = {}) EXCLUDES(mu_);
  // Up to `n` bytes by `copy(std::span<std::byte>) -> Result<size_t>`, which is called without a lock held.
  template <typename Copy>
  Result<size_t> WriteFrom(size_t n, Copy&& copy, WriteFlags flags = {}) {
    n = std::min(n, TRY(WriteRoom(n)));
    Buffer data;
    TRY(data.AppendFrom(n, copy));
    return Write(std::move(data), flags);
  }
  // At most `n` bytes, not empty; empty at the end of the stream. EAGAIN, ENOTCONN, a pending error once. When peeking,
  // those behind the first `offset` ones.
  // `time`, if not null, is told when it came, which is noted with options().stamp_received only.
  Result<Buffer> Read(size_t n, bool peek = false, size_t offset = 0, ReadTime* time = nullptr) EXCLUDES(mu_);
  // Bytes that the reader could not deliver go back, in front of what has come meanwhile.
  void Unread(Buffer data) EXCLUDES(mu_);
  // MSG_OOB. EINVAL, EAGAIN.
  Result<std::byte> ReadUrgent(bool peek = false) EXCLUDES(mu_);
  bool AtUrgentMark() EXCLUDES(mu_);  // SIOCATMARK

  // shutdown(2). ENOTCONN.
  Result<> Shutdown(bool read, bool write) EXCLUDES(mu_);
  // The owner lets go. `abort`: SO_LINGER with 0 seconds. A longer linger waits for is_over() after it.
  void Close(bool abort = false) EXCLUDES(mu_);
  bool is_over() EXCLUDES(mu_);

  SocketAddress local() EXCLUDES(mu_);
  std::optional<SocketAddress> peer() EXCLUDES(mu_);  // none: ENOTCONN
  Family family() const { return family_; }
  State state() EXCLUDES(mu_);
  int TakeError() EXCLUDES(mu_);  // SO_ERROR
  // The stamps of what was sent, by the number of the last byte of each call from `StartStampNumbers` on: counted from
  // what is sent next, or from what the peer has not acknowledged. The latter EINVAL before there is a connection.
  std::optional<Stamp> TakeStamp() EXCLUDES(mu_);
  Result<> StartStampNumbers(bool from_next) EXCLUDES(mu_);

  EndpointOptions options() EXCLUDES(mu_);
  void SetOptions(const EndpointOptions& options) EXCLUDES(mu_);
  Settings settings() EXCLUDES(mu_);
  void SetSettings(const Settings& settings) EXCLUDES(mu_);
  void SetQuickAck(bool on) EXCLUDES(mu_);
  // SO_ATTACH_FILTER: which segments there are; null: all. Those who connect to a listener have its filter.
  void SetFilter(std::shared_ptr<const bpf::Program> filter) EXCLUDES(mu_);
  std::shared_ptr<const bpf::Program> filter() EXCLUDES(mu_);
  uint32_t receive_buffer() EXCLUDES(mu_);  // as SO_RCVBUF shows it
  uint32_t send_buffer() EXCLUDES(mu_);
  uint32_t max_segment() EXCLUDES(mu_);   // TCP_MAXSEG
  size_t Readable() EXCLUDES(mu_);        // SIOCINQ
  size_t Unacknowledged() EXCLUDES(mu_);  // SIOCOUTQ
  size_t Unsent() EXCLUDES(mu_);          // SIOCOUTQNSD
  // TCP_INFO: as much of Linux's struct tcp_info (linux/tcp.h) as fits. Returns its bytes. (As bytes, since that
  // header and netinet/tcp.h, whose struct is older, exclude each other.)
  size_t Info(std::span<std::byte> out) EXCLUDES(mu_);
  // Changed when a new urgent mark came, since the last time: the owner sends SIGURG.
  std::atomic<uint32_t>& urgent_marks() { return urgent_marks_; }

 private:
  friend class TcpProtocol;
  friend class Coalescer;
  template <typename T, typename... Args>
  friend RefPtr<T> redoubt::MakeRef(Args&&... args);

  // Holds the lock; at its end sends what was emitted, tells the waiters, moves the timer, without the lock.
  class Use;
  class Sending;

  struct Outgoing {
    Buffer data;
    Offload offload;
    Ecn ecn = Ecn::kNotEct;
    // An acknowledgement and nothing else, which one that acknowledges more may replace, and how many it has replaced.
    bool only_ack = false;
    uint8_t replaced = 0;
    Seq ack = 0;
    StampRequest stamp = {};
  };

  Endpoint(TcpProtocol& protocol, Family family);

  // From TcpProtocol. False if a SYN may replace this connection (TIME_WAIT).
  bool HandleSegment(Segment& segment) EXCLUDES(mu_);
  void HandleIcmp(const TransportError& error, Seq seq) EXCLUDES(mu_);
  // listener.cc: a segment for a listener, of no connection.
  void HandleListen(const FourTuple& id, Segment& segment, uint32_t interface_index) EXCLUDES(mu_);
  void HandleSyn(const FourTuple& id, Segment& segment, uint32_t interface_index) EXCLUDES(mu_);
  void HandleCookie(const FourTuple& id, Segment& segment, uint32_t interface_index) EXCLUDES(mu_);
  void SendSynCookie(const FourTuple& id, const Segment& syn, const Config& config);
  RefPtr<Endpoint> MakeChild(const FourTuple& id, uint32_t interface_index) EXCLUDES(mu_);
  void ChildReady(RefPtr<Endpoint> child) EXCLUDES(mu_);
  // False if it did not listen.
  bool StopListening() EXCLUDES(mu_);

  void Emit(Segment& segment) override;
  // stamps.cc
  void Stamped(StampPlace place, uint32_t key, const Packet& frame, size_t link_header) override EXCLUDES(mu_);
  void NoteWrite(size_t n, StampPlaces places) REQUIRES(mu_);
  StampRequest StampOf(const Segment& segment) REQUIRES(mu_);
  // True if there are stamps to tell.
  bool NoteAcknowledged() REQUIRES(mu_);
  void NoteReceived() REQUIRES(mu_);
  std::optional<Time> ReceiveTime(size_t offset, size_t n, bool peek) REQUIRES(mu_);
  void SendDeferred() override EXCLUDES(mu_);
  bool DeferredSent() override EXCLUDES(mu_);
  static void OnTimerFired(void* self, Time now);
  Result<> BindLocked(const SocketAddress& address) REQUIRES(mu_);
  Result<Address> ToWire(const Address& a) const REQUIRES(mu_);
  Address FromWire(const Address& a) const { return family_ == Family::kIpv6 ? a.ToV4Mapped() : a; }
  Config MakeConfig() REQUIRES(mu_);
  void SetRoute(Route route) REQUIRES(mu_);
  uint32_t PathMtu() REQUIRES(mu_);
  void RefreshRoute() REQUIRES(mu_);
  int TakeErrorLocked() REQUIRES(mu_);
  waiter::EventMask ReadinessLocked() REQUIRES(mu_);
  Time Now() const { return protocol_.stack().Now(); }

  TcpProtocol& protocol_;
  const Family family_;
  waiter::Queue waiters_;
  std::atomic<uint32_t> urgent_marks_{0};

  sync::Mutex mu_;
  EndpointOptions options_ GUARDED_BY(mu_);
  Settings settings_ GUARDED_BY(mu_);
  std::shared_ptr<const bpf::Program> filter_ GUARDED_BY(mu_);
  PortManager::Claim claim_ GUARDED_BY(mu_);
  SocketAddress bound_ GUARDED_BY(mu_);
  FourTuple id_ GUARDED_BY(mu_);  // on the wire, once connecting
  std::unique_ptr<Connection> connection_ GUARDED_BY(mu_);
  bool listening_ GUARDED_BY(mu_) = false;
  bool inserted_ GUARDED_BY(mu_) = false;    // in the protocol's table
  bool connecting_ GUARDED_BY(mu_) = false;  // Connect has not reported the outcome yet
  bool was_connected_ GUARDED_BY(mu_) = false;
  bool read_shut_ GUARDED_BY(mu_) = false;
  bool closed_ GUARDED_BY(mu_) = false;
  bool sending_ GUARDED_BY(mu_) = false;  // a thread is sending what was emitted
  bool route_changed_ GUARDED_BY(mu_) = false;
  int error_ GUARDED_BY(mu_) = 0;            // of an attempt whose connection is gone
  uint16_t pseudo_sum_ GUARDED_BY(mu_) = 0;  // addresses and protocol
  Route route_ GUARDED_BY(mu_);
  std::vector<Outgoing> out_ GUARDED_BY(mu_);
  Timer timer_;

  // Only whoever has set sending_ touches it.
  Route send_route_;

  // Of a listener.
  struct ListenState {
    std::vector<RefPtr<Endpoint>> ready;  // accepted connections, oldest first
    size_t ready_head = 0;
  };
  std::unique_ptr<ListenState> listen_ GUARDED_BY(mu_);
  std::atomic<uint32_t> backlog_{0};
  std::atomic<uint32_t> ready_count_{0};      // waiting for Accept
  std::atomic<uint32_t> syn_count_{0};        // children in SYN_RECEIVED
  std::atomic<uint32_t> fast_open_count_{0};  // of those, fast opened
  std::atomic<bool> listener_closed_{false};
  std::atomic<Time> cookie_sent_{-kNever};  // when the last SYN cookie was
  // Of a child that nobody has accepted: its listener, until the handshake is complete.
  RefPtr<Endpoint> parent_ GUARDED_BY(mu_);
  bool fast_opened_ GUARDED_BY(mu_) = false;
  bool in_time_wait_ GUARDED_BY(mu_) = false;
  // Bytes whose way out is to be stamped, in order, and when bytes came; null until somebody asks.
  struct Stamps;
  std::unique_ptr<Stamps> stamps_ GUARDED_BY(mu_);
  Time deferred_until_ GUARDED_BY(mu_) = 0;  // TCP_DEFER_ACCEPT: until then an ACK without data counts for nothing
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_ENDPOINT_H_
