// For tests: plays a connection's peer from a script, under virtual time.
//
// One statement a line; '#' begins a comment. Our sequence numbers count from our ISS, the peer's from its own.
//   config KEY=N ...        before opening: mtu, gso, ts, sack, ws, ecn, rcv, snd, reno
//   set KEY=N ...           nodelay, cork, keepalive, idle, interval, count, user_timeout, oob_inline (times in ms)
//   connect | listen        opens; after listen the first segment from the peer must be a SYN
//   connect fo N [write M]  fast open (RFC 7413): with a cookie of N bytes (0: asks for one), and M bytes of data
//   listen [fo N] [data]    a listener that answers with a cookie of N bytes; that has found the SYN's good
//   write N [more] [urgent], read N, unread_urgent, shutdown, close, abort, icmp SEQ ERRNO, mtu N
//   < FLAGS SEQ+LEN [ack N] [win N] [mss N] [ws N] [sackok] [ts V E] [sack A-B ...] [urg N] [ce] [fo N]
//                           the peer sends
//   > FLAGS SEQ+LEN [the same]      the connection has sent this next; only what is written is compared
//   any                     forget what it has sent
//   +N{us|ms|s}             time passes
//   state NAME | error N | readable N | cwnd N (segments) | in_flight N | mss N | rto N (ms) | cookie N (bytes)
//                           is so
// What the connection has sent must be named before the next thing happens: no line means nothing was sent.
#ifndef REDOUBT_PKG_NETSTACK_TCP_SCRIPT_H_
#define REDOUBT_PKG_NETSTACK_TCP_SCRIPT_H_

#include <deque>
#include <memory>
#include <optional>
#include <sstream>
#include <string>

#include "pkg/netstack/tcp/connection.h"

namespace redoubt::netstack::tcp {

class Script final : public SegmentSink {
 public:
  // Empty if the connection did as the script says, else where it did not.
  static std::string Run(const std::string& text);

 private:
  static constexpr Seq kIss = 0xffffff00;  // both wrap soon
  static constexpr Seq kPeerIss = 0xfffffe00;

  void Emit(Segment& s) override;
  std::string Line(const std::string& line);
  std::string Open(bool listen, std::istringstream& in);
  std::string Configure(std::istringstream& in);
  std::string Set(std::istringstream& in);
  std::string Incoming(std::istringstream& in);
  std::string Expect(std::istringstream& in);
  std::string Assert(const std::string& what, std::istringstream& in);
  void Pass(Time t);
  static std::string Describe(const Segment& s);

  Config config_;
  Settings settings_;
  std::unique_ptr<Connection> connection_;
  std::deque<Segment> sent_;
  Time now_ = 100 * kSecond;
  bool listening_ = false, accept_data_ = false;
  std::optional<FastOpenCookie> reply_cookie_;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_SCRIPT_H_
