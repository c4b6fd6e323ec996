// The sandbox's own network: a netstack Stack with TCP, driven by the Sentry's executor. Linux's network namespace
// (network_namespaces(7)).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_NETWORK_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_NETWORK_H_

#include <atomic>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/inet/inet.h"
#include "pkg/netstack/stack/stack.h"
#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/netstack/tcp/protocol.h"
#include "pkg/sync/mutex.h"

namespace redoubt::inetsock {

// Is told what changes in a Network: rtnetlink(7)'s groups. Called with no lock held, on any thread.
class NetworkObserver {
 public:
  virtual void OnLink(bool gone, netstack::Interface& interface) = 0;
  virtual void OnAddress(bool gone, netstack::Interface& interface, const netstack::InterfaceAddress& address) = 0;
  virtual void OnRoute(netstack::RoutingTable::Change change, const netstack::RouteEntry& route) = 0;
  virtual void OnNeighbour(bool gone, netstack::Interface& interface, const netstack::NeighbourInfo& neighbour) = 0;

 protected:
  ~NetworkObserver() = default;
};

// Thread-safe. Outlives its sockets; in a sandbox it is never destroyed. Timers run on an executor thread outside any
// fiber, which nothing in the netstack minds: it takes only sync::Mutexes and never waits.
class Network final {
 public:
  // Without an interface. `executor` outlives it.
  explicit Network(fiber::Executor& executor);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // "lo" with 127.0.0.1/8 and ::1/128, up: all that --network=none has. EEXIST.
  Result<> AddLoopback();

  // At most one; null for none. Lives as long as the network unless taken off while nothing changes.
  void SetObserver(NetworkObserver* observer) { observer_.store(observer, std::memory_order_release); }

  // From now on nobody changes interfaces, addresses and routes from inside (EPERM): they are a picture of the host's,
  // whose sockets are used.
  void SetReadOnly() { read_only_.store(true, std::memory_order_relaxed); }
  bool read_only() const { return read_only_.load(std::memory_order_relaxed); }

  netstack::Stack& stack() { return stack_; }
  netstack::UdpProtocol& udp() { return *inet_.udp; }
  netstack::tcp::TcpProtocol& tcp() { return *tcp_; }
  netstack::PingProtocol& ping(netstack::Family family) {
    return family == netstack::Family::kIpv4 ? *inet_.ping4 : *inet_.ping6;
  }

 private:
  class ExecutorClock final : public netstack::Clock {
   public:
    explicit ExecutorClock(fiber::Executor& executor) : executor_(executor) {}
    netstack::Time Now() const override { return executor_.Now(); }

   private:
    fiber::Executor& executor_;
  };
  // getrandom(2) of the host: ports, sequence numbers and cookies must not be guessed.
  class HostRandom final : public netstack::RandomSource {
   public:
    void Fill(std::span<std::byte> out) override;
  };

  void ArmAt(netstack::Time deadline) EXCLUDES(timer_mu_);
  void OnTimer();

  void ObserveChanges();

  std::atomic<NetworkObserver*> observer_{nullptr};
  std::atomic<bool> read_only_{false};
  ExecutorClock clock_;
  HostRandom random_;
  netstack::Stack stack_;
  netstack::Inet inet_;
  netstack::tcp::TcpProtocol* tcp_ = nullptr;  // the stack's
  // Arm calls of one fiber::Timer are to be serialized. Under it only the executor's locks are taken.
  sync::Mutex timer_mu_{sync::Rank::kLeaf};
  fiber::Timer timer_;
  netstack::Time armed_ GUARDED_BY(timer_mu_) = netstack::kNever;
};

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_NETWORK_H_
