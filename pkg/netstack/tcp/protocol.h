// TCP as a transport of the stack: which endpoint takes which segment, and what no endpoint takes.
#ifndef REDOUBT_PKG_NETSTACK_TCP_PROTOCOL_H_
#define REDOUBT_PKG_NETSTACK_TCP_PROTOCOL_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/stack/stack.h"
#include "pkg/netstack/stack/transport_protocol.h"
#include "pkg/netstack/tcp/congestion.h"
#include "pkg/netstack/tcp/cookie.h"
#include "pkg/netstack/tcp/segment.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack::tcp {

class Endpoint;

// Names as in /proc/net/snmp and /proc/net/netstat.
struct TcpStats {
  std::atomic<uint64_t> active_opens{0}, passive_opens{0}, attempt_fails{0}, in_segments{0}, out_segments{0},
      in_errors{0}, in_checksum_errors{0}, out_resets{0}, listen_overflows{0}, listen_drops{0}, syn_cookies_sent{0},
      syn_cookies_received{0}, syn_cookies_failed{0}, time_wait_reused{0}, fast_open_active{0}, fast_open_passive{0};
};

// The counterparts of net.ipv4.tcp_*; set before endpoints are made, or at any time for those to come.
struct Sysctls {
  std::atomic<bool> timestamps{true}, sack{true}, window_scaling{true}, syn_cookies{true};
  std::atomic<uint8_t> ecn{2};        // 0 never, 1 always, 2 when asked
  std::atomic<uint8_t> fast_open{1};  // bits: 1 client, 2 server
  std::atomic<uint32_t> max_syn_backlog{1024};
  std::atomic<uint32_t> max_time_wait{16384};                                 // tcp_max_tw_buckets
  std::atomic<uint32_t> receive_buffer{131072}, max_receive_buffer{6 << 20};  // tcp_rmem, of which half is window
  std::atomic<uint32_t> send_buffer{65536}, max_send_buffer{4 << 20};
  std::atomic<CongestionAlgorithm> congestion{CongestionAlgorithm::kCubic};
};

// Registered with Stack::RegisterTransport. Thread-safe.
class TcpProtocol final : public TransportProtocol {
 public:
  explicit TcpProtocol(Stack& stack);
  ~TcpProtocol() override;

  uint8_t number() const override;
  size_t minimum_header_size() const override { return kHeaderSize; }
  Disposition HandlePacket(Packet& packet, const FourTuple& id) override;
  void HandleError(const FourTuple& id, const TransportError& error, std::span<const std::byte> quoted) override;
  void Close() override;

  Stack& stack() { return stack_; }
  TcpStats& stats() { return stats_; }
  Sysctls& sysctls() { return sysctls_; }
  const CookieJar& cookies() const { return cookies_; }

  // All connections and listeners, for /proc/net/tcp and sock_diag.
  std::vector<RefPtr<Endpoint>> Endpoints();

 private:
  friend class Endpoint;

  // Of a connection. Insert answers false if the four-tuple is taken.
  bool Insert(const FourTuple& id, Endpoint& endpoint);
  void Remove(const FourTuple& id, const Endpoint& endpoint);
  RefPtr<Endpoint> Find(const FourTuple& id);
  bool Has(const FourTuple& id);
  // Of a listener.
  struct Listener {
    RefPtr<Endpoint> endpoint;
    Address address;  // none: of both IP versions
    uint32_t interface_index = 0;
    bool reuse_port = false;
  };
  void InsertListener(uint16_t port, Listener listener) EXCLUDES(listeners_mu_);
  void RemoveListener(uint16_t port, const Endpoint& endpoint) EXCLUDES(listeners_mu_);
  RefPtr<Endpoint> FindListener(const FourTuple& id, uint32_t interface_index) EXCLUDES(listeners_mu_);

  // SO_ATTACH_FILTER; false: the segment is lost. Asked once any endpoint has had a filter.
  bool Filter(Packet& packet, const FourTuple& id);
  // Answers a segment that belongs to no connection (RFC 9293 section 3.10.7.1).
  void SendReset(const FourTuple& id, const Segment& to);
  // Sends one segment outside of a connection.
  void SendAlone(const FourTuple& id, Segment& segment);

  // The client's memory of servers' fast open cookies.
  std::optional<FastOpenCookie> OpenCookieOf(const Address& server) EXCLUDES(open_mu_);
  void RememberOpenCookie(const Address& server, const FastOpenCookie& cookie) EXCLUDES(open_mu_);

  struct TupleHash {
    const HashKey* key;
    size_t operator()(const FourTuple& id) const { return HashTuple(*key, id); }
  };
  struct Shard {
    explicit Shard(const HashKey* key) : mu(sync::Rank::kNetDemux), connections(0, TupleHash{key}) {}
    sync::Mutex mu;
    std::unordered_map<FourTuple, RefPtr<Endpoint>, TupleHash> connections GUARDED_BY(mu);
  };
  static constexpr size_t kShards = 16;
  static constexpr size_t kMaxOpenCookies = 1024;
  // Only spreads locks: a peer that fills one shard makes no look-up longer.
  Shard& ShardOf(const FourTuple& id) { return *shards_[(id.local_port ^ id.remote_port) % kShards]; }

  Stack& stack_;
  TcpStats stats_;
  Sysctls sysctls_;
  std::atomic<uint32_t> time_wait_count_{0};
  std::atomic<bool> filtered_{false};
  const HashKey hash_key_;
  const CookieJar cookies_;
  std::array<std::unique_ptr<Shard>, kShards> shards_;
  sync::Mutex listeners_mu_;
  std::unordered_map<uint16_t, std::vector<Listener>> listeners_ GUARDED_BY(listeners_mu_);
  sync::Mutex open_mu_;
  std::unordered_map<Address, FastOpenCookie, AddressHash> open_cookies_ GUARDED_BY(open_mu_);
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_PROTOCOL_H_
