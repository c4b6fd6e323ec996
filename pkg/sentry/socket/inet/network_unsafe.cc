#include <sys/random.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "pkg/sentry/socket/inet/network.h"

namespace redoubt::inetsock {

void Network::HostRandom::Fill(std::span<std::byte> out) {
  while (!out.empty()) {
    // SAFETY: the kernel writes at most out.size() bytes to `out`.
    ssize_t n = ::getrandom(out.data(), out.size(), 0);
    CHECK(n > 0 || errno == EINTR, "the host's getrandom failed");
    if (n > 0) out = out.subspan(static_cast<size_t>(n));
  }
}

Network::Network(fiber::Executor& executor)
    : clock_(executor), stack_(clock_, random_), timer_(executor, [this] { OnTimer(); }) {
  stack_.timers().SetEarlierDeadlineHook([this](netstack::Time deadline) { ArmAt(deadline); });
  ObserveChanges();
  inet_ = netstack::RegisterInet(stack_);
  auto tcp = std::make_unique<netstack::tcp::TcpProtocol>(stack_);
  tcp_ = tcp.get();
  stack_.RegisterTransport(std::move(tcp));
}

Network::~Network() {
  stack_.Close();
  timer_.Disarm();
}

void Network::ObserveChanges() {
  using Change = netstack::Stack::Change;
  stack_.SetChangeHook(
      [this](Change change, netstack::Interface& interface, const netstack::InterfaceAddress* address) {
        NetworkObserver* observer = observer_.load(std::memory_order_acquire);
        if (observer == nullptr) return;
        if (address != nullptr) {
          observer->OnAddress(change == Change::kAddressRemoved, interface, *address);
        } else {
          observer->OnLink(change == Change::kLinkRemoved, interface);
        }
      });
  using RouteChange = netstack::RoutingTable::Change;
  stack_.routes().SetChangeHook([this](RouteChange change, const netstack::RouteEntry& route) {
    if (NetworkObserver* observer = observer_.load(std::memory_order_acquire)) observer->OnRoute(change, route);
  });
  stack_.SetNeighbourHook([this](bool gone, netstack::Interface& interface, const netstack::NeighbourInfo& neighbour) {
    NetworkObserver* observer = observer_.load(std::memory_order_acquire);
    if (observer != nullptr) observer->OnNeighbour(gone, interface, neighbour);
  });
}

Result<> Network::AddLoopback() {
  TRY(netstack::AddLoopback(stack_));
  return {};
}

void Network::ArmAt(netstack::Time deadline) {
  if (deadline == netstack::kNever) return;
  sync::MutexLock lock(timer_mu_);
  if (deadline >= armed_) return;
  armed_ = deadline;
  timer_.Arm(deadline);
}

void Network::OnTimer() {
  {
    sync::MutexLock lock(timer_mu_);
    armed_ = netstack::kNever;
  }
  stack_.timers().RunTimers(stack_.Now());
  ArmAt(stack_.timers().NextDeadline());
}

}  // namespace redoubt::inetsock
