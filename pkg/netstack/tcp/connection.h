// One TCP connection without I/O: segments, calls of the user and the passing of time go in; segments and events come
// out.
#ifndef REDOUBT_PKG_NETSTACK_TCP_CONNECTION_H_
#define REDOUBT_PKG_NETSTACK_TCP_CONNECTION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "pkg/errors/errors.h"
#include "pkg/netstack/buffer/buffer.h"
#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/tcp/congestion.h"
#include "pkg/netstack/tcp/receive_queue.h"
#include "pkg/netstack/tcp/rtt.h"
#include "pkg/netstack/tcp/scoreboard.h"
#include "pkg/netstack/tcp/segment.h"
#include "pkg/netstack/tcp/seq.h"

namespace redoubt::netstack::tcp {

// RFC 9293 section 3.3.2, with the numbers of /proc/net/tcp and tcpi_state.
enum class State : uint8_t {
  kEstablished = 1,
  kSynSent = 2,
  kSynReceived = 3,
  kFinWait1 = 4,
  kFinWait2 = 5,
  kTimeWait = 6,
  kClosed = 7,
  kCloseWait = 8,
  kLastAck = 9,
  kListen = 10,
  kClosing = 11,
};

// Takes what a connection sends, in order. Called from within the connection's functions.
class SegmentSink {
 public:
  virtual ~SegmentSink() = default;
  virtual void Emit(Segment& segment) = 0;
};

// What the user sets, at any time; man 7 tcp. Defaults are Linux's.
struct Settings {
  bool nodelay = false;
  bool cork = false;
  bool keepalive = false;
  bool oob_inline = false;
  bool fixed_receive_buffer = false;  // SO_RCVBUF was set: no auto-tuning
  bool fixed_send_buffer = false;
  uint8_t syn_retries = 6;      // TCP_SYNCNT
  uint8_t syn_ack_retries = 5;  // tcp_synack_retries
  uint8_t orphan_retries = 8;
  uint8_t retries = 15;
  uint8_t keep_count = 9;
  Time keep_idle = 7200 * kSecond;
  Time keep_interval = 75 * kSecond;
  Time user_timeout = 0;                  // RFC 5482; 0: by the number of retries
  Time fin_wait2_timeout = 60 * kSecond;  // of a connection its user has closed
  uint32_t window_clamp = 0;              // 0: none
};

// Of the path and the stack, when the connection is made.
struct Config {
  uint32_t mtu = 1480;       // bytes of the largest TCP header and payload in one packet
  uint32_t gso_max = 0;      // bytes of the largest TCP header and payload in a super-segment; 0: none
  uint16_t max_segment = 0;  // TCP_MAXSEG: at most so many bytes of payload; 0: no limit of the user's
  bool timestamps = true;
  bool sack = true;
  bool window_scaling = true;
  bool ecn = false;
  // Payload bytes: at first, and as far as auto-tuning goes (half of tcp_rmem and tcp_wmem).
  uint32_t receive_buffer = 65536;
  uint32_t max_receive_buffer = 3 * 1024 * 1024;
  uint32_t send_buffer = 65536;
  uint32_t max_send_buffer = 4 * 1024 * 1024;
  uint32_t ts_offset = 0;  // added to the timestamp clock, so that it tells nothing of the uptime
  CongestionAlgorithm congestion = CongestionAlgorithm::kCubic;
};

// Has happened since the last TakeEvents; what is now the case is to be asked.
inline constexpr uint32_t kEventReadable = 1 << 0;    // bytes, end of stream
inline constexpr uint32_t kEventWritable = 1 << 1;    // room after there was too little
inline constexpr uint32_t kEventConnected = 1 << 2;   // the handshake is complete
inline constexpr uint32_t kEventPeerClosed = 1 << 3;  // FIN
inline constexpr uint32_t kEventUrgent = 1 << 4;      // a new urgent mark: SIGURG
inline constexpr uint32_t kEventUrgentByte = 1 << 7;  // the byte itself has come
inline constexpr uint32_t kEventError = 1 << 5;       // error() is set
inline constexpr uint32_t kEventClosed =
    1 << 6;  // the state is kClosed (or kTimeWait): the user has nothing more to wait for

struct ConnectionStats {
  uint64_t bytes_acked = 0, bytes_received = 0, bytes_sent = 0, bytes_retransmitted = 0;
  uint32_t segments_in = 0, segments_out = 0, data_segments_in = 0, data_segments_out = 0;
  uint32_t retransmissions = 0, dsack_duplicates = 0, out_of_order = 0;
};

// Not thread-safe: its endpoint locks. Small when idle: queues take memory when there is something in them.
class Connection final {
 public:
  // 2 MSL, as Linux has it (RFC 9293 says 4 minutes).
  static constexpr Time kTimeWaitLength = 60 * kSecond;
  static constexpr Time kDelayedAck = 40 * kMillisecond;
  static constexpr Time kCorkLimit = 200 * kMillisecond;

  // `sink` outlives the connection.
  Connection(const Config& config, const Settings& settings, SegmentSink& sink);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Openings. From kClosed; each is called once.
  // Sends a SYN, with `data` and the cookie (or a request for one) if given (RFC 7413); nothing but the start of
  // `data` fits.
  void Connect(Time now, Seq iss, std::optional<FastOpenCookie> cookie, Buffer data);
  // Answers `syn` with SYN and ACK. `accept_data`: its cookie was good, so its payload counts at once. `reply_cookie`
  // goes back.
  void Accept(Time now, Seq iss, Segment& syn, bool accept_data, std::optional<FastOpenCookie> reply_cookie);
  // A connection whose SYN was answered with a cookie and forgotten; `ack` completes it, `syn_options` are those the
  // cookie kept.
  void AcceptCookie(Time now, Seq iss, const Segment& ack, const Options& syn_options);

  enum class Verdict : uint8_t {
    kDone,
    kReuse,  // a SYN that may replace this connection in TIME_WAIT (RFC 6191): pass it to a listener. Not consumed.
  };
  Verdict OnSegment(Time now, Segment& segment);
  // When OnTimer has something to do; kNever if nothing.
  Time NextDeadline() const;
  void OnTimer(Time now);

  // Bytes that a Write may bring; 0 also when nothing can be written any more.
  size_t SendRoom() const;
  // Is there enough room to say so (a third of the buffer, as Linux)? WantRoom asks for kEventWritable when there is
  // again.
  bool Writable() const { return send_.size() <= send_limit_ / 3 * 2; }
  void WantRoom() { want_room_ = true; }
  // Queues `data` and sends what may be sent. `more`: MSG_MORE; `urgent`: the last byte is urgent. EPIPE after
  // Shutdown or reset. The caller keeps to SendRoom; a little more does no harm.
  Result<> Write(Time now, Buffer data, bool more = false, bool urgent = false);
  // Bytes to read now (up to an urgent mark); at_end: the peer has closed and all is read.
  size_t Readable() const;
  // All bytes in order that nobody has read; how many there ever were is in the statistics.
  size_t unread() const { return receive_.readable().size(); }
  bool at_end(size_t offset = 0) const { return fin_received_ && receive_.readable().size() <= offset; }
  // Takes at most `n` bytes. May send a window update.
  Buffer Read(Time now, size_t n);
  // The same bytes without taking them.
  Buffer Peek(size_t offset, size_t n) const {
    return receive_.readable().Slice(offset + (UrgentByteIsNext() ? 1 : 0), n);
  }
  // Puts bytes back that the caller could not deliver.
  void Unread(Buffer data);
  // RFC 6093: the urgent byte, once. EINVAL if there is none (or inline), EAGAIN if it has not come yet.
  Result<std::byte> ReadUrgent(bool peek);
  bool AtUrgentMark() const;
  bool has_urgent() const { return urgent_ == Urgent::kArrived; }

  // No more writes; a FIN follows the data.
  void Shutdown(Time now);
  // The user lets go: shuts down; data not read or still coming resets the connection (RFC 2525 section 2.17).
  void Close(Time now);
  // Sends a reset, unless there is nobody to tell, and ends.
  void Abort(Time now);
  // Ends without a word, with `error` pending (0: none).
  void Kill(int error);

  // An ICMP error about a segment at `seq`, which the caller knows to be ours (RFC 5927 section 4): ignored unless in
  // flight. `hard` ends a connection that is being made, a soft error is remembered (RFC 1122 section 4.2.3.9).
  void OnIcmpError(Time now, Seq seq, int error, bool hard);
  // The path takes packets of `mtu` (as Config::mtu): smaller ones are sent from now on, and what was too large again.
  void OnPathMtu(Time now, uint32_t mtu, bool resend);

  Settings& settings() { return settings_; }
  const Settings& settings() const { return settings_; }
  // After settings() were changed.
  void OnSettings(Time now);
  void SetReceiveBuffer(Time now, uint32_t bytes);
  void SetSendBuffer(uint32_t bytes);
  // TCP_QUICKACK.
  void SetQuickAck(Time now, bool on);
  bool quick_ack() const { return quick_acks_ > 0 && !ping_pong_; }

  State state() const { return state_; }
  bool synchronized() const {
    return state_ != State::kClosed && state_ != State::kSynSent && state_ != State::kSynReceived;
  }
  uint32_t TakeEvents() { return std::exchange(events_, 0); }
  // The pending error, cleared (SO_ERROR); 0 if there is none.
  int TakeError() { return std::exchange(error_, 0); }
  int error() const { return error_; }
  bool write_shut() const { return write_shut_; }
  bool fin_received() const { return fin_received_; }

  // For TCP_INFO, SIOCOUTQ and tests.
  Seq snd_una() const { return snd_una_; }
  Seq snd_nxt() const { return snd_nxt_; }
  Seq rcv_nxt() const { return receive_.next(); }
  Seq iss() const { return iss_; }
  uint32_t send_window() const { return snd_wnd_; }
  uint32_t receive_window() const { return WindowLeft(); }
  uint32_t unsent() const { return DataEnd() - SeqMin(snd_nxt_, DataEnd()); }
  size_t queued() const { return send_.size(); }
  uint32_t mss() const { return mss_; }
  uint32_t peer_mss() const { return peer_mss_; }
  uint32_t advertised_mss() const;
  uint32_t receive_buffer() const { return receive_limit_; }
  uint32_t send_buffer() const { return send_limit_; }
  uint32_t receive_mss() const { return rcv_mss_; }
  // Bytes of TCP header and payload that the path takes.
  uint32_t path_mtu() const { return config_.mtu; }
  Time last_received() const { return last_received_; }
  // What a connection with `config` offers.
  static uint8_t WindowScale(const Config& config);
  uint32_t backoff() const { return backoff_; }
  uint8_t recovery_state() const { return static_cast<uint8_t>(recovery_); }
  bool timestamps() const { return use_timestamps_; }
  bool sack() const { return use_sack_; }
  bool ecn() const { return use_ecn_; }
  bool window_scaling() const { return use_scaling_; }
  uint8_t send_scale() const { return snd_scale_; }
  uint8_t receive_scale() const { return rcv_scale_; }
  bool syn_data_acked() const { return syn_data_acked_; }
  const std::optional<FastOpenCookie>& fast_open_cookie() const { return received_cookie_; }
  Time last_data_sent() const { return last_data_sent_; }
  Time last_data_received() const { return last_data_received_; }
  const Scoreboard& scoreboard() const { return board_; }
  const ReceiveQueue& receive_queue() const { return receive_; }
  Congestion& congestion() { return congestion_; }
  const Congestion& congestion() const { return congestion_; }
  const RttEstimator& rtt() const { return rtt_; }
  const ConnectionStats& stats() const { return stats_; }

 private:
  // Numbers of tcpi_ca_state.
  enum class Recovery : uint8_t { kOpen = 0, kCwr = 2, kFast = 3, kLoss = 4 };
  enum class Probe : uint8_t { kNone, kTimeout, kTailLoss, kPersist };
  enum class Urgent : uint8_t { kNone, kExpected, kArrived, kRead };

  // connection.cc
  void TakeSynOptions(const Options& options, bool syn_ack);
  void SetMss();
  void Establish(Time now);
  void EnterTimeWait(Time now);
  void Finish(int error);
  Seq DataEnd() const { return send_base_ + static_cast<Seq>(send_.size()); }
  Seq HeadSeq() const {
    return receive_.next() - (fin_received_ ? 1 : 0) - static_cast<Seq>(receive_.readable().size());
  }
  bool UrgentByteIsNext() const;
  uint32_t Pipe() const;
  void TuneReceive(Time now, size_t read);
  void TuneSend();
  void NoteRoom();

  // connection_input.cc
  void OnSynSent(Time now, Segment& s);
  bool CheckSequence(Time now, Segment& s);
  bool CheckAck(Time now, const Segment& s);
  void OnAck(Time now, const Segment& s);
  void ProcessSack(Time now, const Segment& s, AckSummary& summary);
  void OnUrgent(const Segment& s);
  void TakeUrgentByte();
  void OnData(Time now, Segment& s);
  void OnFin(Time now);
  void UpdateRecovery(Time now, const Segment& s, const AckSummary& summary, uint32_t lost, uint32_t prior_flight);
  void ChallengeAck(Time now, const Segment& s);

  // connection_output.cc
  void Output(Time now);
  bool SendNew(Time now, bool force);
  bool MaySendSmall(Time now, bool last);
  void Retransmit(Time now, const SentRange& range, uint32_t limit);
  void EmitRange(Time now, Seq start, uint32_t length, bool retransmission);
  void SendSyn(Time now);
  void SendAck(Time now);
  void SendProbe(Time now);
  void SendReset(Seq seq, std::optional<Seq> ack);
  void Fill(Time now, Segment& s);
  void Send(Segment& s);
  uint16_t TakeWindow(bool syn);
  uint32_t WindowSpace() const;
  uint32_t WindowLeft() const;
  uint32_t PayloadPerSegment() const;
  uint32_t PayloadPerSend() const;
  bool MayWindowUpdate() const;
  uint32_t Timestamp(Time now) const { return static_cast<uint32_t>(now / kMillisecond) + config_.ts_offset; }

  // connection_timers.cc
  void ArmRetransmission(Time now, bool restart);
  void ArmPersist(Time now);
  void OnRetransmissionTimeout(Time now);
  void OnTailLossProbe(Time now);
  void OnPersist(Time now);
  void OnKeepalive(Time now);
  void ArmKeepalive(Time now);
  bool TimedOut(Time now, Time since, uint32_t tries) const;

  Config config_;
  Settings settings_;
  SegmentSink& sink_;
  ConnectionStats stats_;

  State state_ = State::kClosed;
  Recovery recovery_ = Recovery::kOpen;
  Probe probe_ = Probe::kNone;
  Urgent urgent_ = Urgent::kNone;
  bool orphan_ = false;  // the user has closed
  bool write_shut_ = false, fin_sent_ = false, fin_received_ = false;
  bool syn_acked_ = false, syn_passive_ = false, fast_opened_ = false, syn_data_acked_ = false;
  bool use_timestamps_ = false, use_sack_ = false, use_scaling_ = false, use_ecn_ = false;
  bool ack_now_ = false, ping_pong_ = false, more_ = false, push_ = false, want_room_ = false;
  bool ece_ = false;          // echo marks until CWR comes
  bool cwr_pending_ = false;  // say so with the next new data
  bool tlp_retransmitted_ = false, tlp_outstanding_ = false;
  bool urgent_sent_ = false;  // snd_up_ is ahead of SND.UNA
  bool dsack_pending_ = false;
  bool fin_pending_ = false;  // a FIN came behind a hole, at fin_seq_
  uint8_t snd_scale_ = 0, rcv_scale_ = 0;
  uint8_t quick_acks_ = 16;  // segments to acknowledge at once, at the start and after a loss
  uint8_t dup_acks_ = 0;
  uint8_t keep_probes_ = 0;
  std::byte urgent_byte_{};
  int error_ = 0, soft_error_ = 0;
  uint32_t events_ = 0;
  uint32_t backoff_ = 0;

  // Send side (RFC 9293 section 3.3.1).
  Seq iss_ = 0, snd_una_ = 0, snd_nxt_ = 0, snd_wl1_ = 0, snd_wl2_ = 0, snd_up_ = 0;
  uint32_t snd_wnd_ = 0, max_snd_wnd_ = 0;
  Seq small_end_ = 0;  // end of the last segment smaller than the maximum (Minshall's variant of Nagle's rule)
  Seq send_base_ = 0;  // of the first byte in send_
  Seq recovery_end_ = 0;
  Seq tlp_end_ = 0;
  uint32_t mss_ = 536, peer_mss_ = 536;
  uint32_t send_limit_;
  uint32_t syn_data_ = 0;  // bytes that went with the SYN
  Buffer send_;
  Scoreboard board_;
  Congestion congestion_;
  RttEstimator rtt_;

  // Receive side.
  Seq irs_ = 0, rcv_edge_ = 0, rcv_up_ = 0;  // rcv_edge_: the right edge of the window, as promised
  Seq last_ack_sent_ = 0;
  uint32_t ts_recent_ = 0;
  Time ts_recent_set_ = 0;
  uint32_t unacked_ = 0;  // bytes since the last ACK
  uint32_t rcv_mss_ = 536;
  uint32_t receive_limit_;
  SeqRange dsack_;
  Seq fin_seq_ = 0;
  ReceiveQueue receive_;
  uint64_t tune_read_ = 0, tune_last_ = 0;
  Time tune_since_ = 0;

  // Deadlines; kNever if not armed.
  Time probe_deadline_ = kNever, reorder_deadline_ = kNever, ack_deadline_ = kNever, keep_deadline_ = kNever,
       end_deadline_ = kNever, cork_deadline_ = kNever;
  Time timeout_deadline_ = kNever;  // of the retransmission, while a tail loss probe may come before it
  Time syn_sent_ = 0, timeout_since_ = 0, last_data_sent_ = 0, last_data_received_ = 0, last_received_ = 0;
  Time challenge_sent_ = -kSecond;
  std::optional<FastOpenCookie> cookie_, received_cookie_;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_CONNECTION_H_
