#include "runsc/sandbox/network.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>

#include "runsc/sandbox/host_network.h"
#include "runsc/sandbox/namespace_guard.h"

namespace redoubt::sandbox {
namespace {

using specutils::Expected;
using specutils::NetworkConfig;

// Runs `f` on a thread inside the namespace (setns(2) is of threads), so that this one never leaves its own.
template <typename T>
Expected<T> InNamespace(int netns_fd, const std::function<Expected<T>()>& f) {
  if (netns_fd < 0) return f();
  Expected<T> result = std::unexpected(std::string());
  std::thread([&] {
    if (setns(netns_fd, CLONE_NEWNET) != 0) {
      result = std::unexpected(fmt::format("cannot enter the network namespace: {}", std::strerror(errno)));
      return;
    }
    result = f();
  }).join();
  return result;
}

Expected<TakenNetwork> Take(const BeforeChange& before_change) {
  TakenNetwork taken;
  Expected<NetworkConfig> config = ReadHostNetwork(Wanted::kTakeable);
  if (!config) return std::unexpected(config.error());
  taken.config = std::move(*config);
  for (const specutils::NetworkLink& link : taken.config.links) {
    Expected<UniqueFd> socket = OpenPacketSocket(link);
    if (!socket) return std::unexpected(socket.error());
    taken.sockets.push_back(std::move(*socket));
  }
  if (before_change) {
    if (Expected<void> r = before_change(taken.config); !r) return std::unexpected(r.error());
  }
  // The first change. Whatever reaches an interface from here on waits in its socket.
  if (Expected<void> r = RemoveAddresses(taken.config); !r) {
    (void)RestoreAddresses(taken.config);
    return std::unexpected(r.error());
  }
  return taken;
}

std::string Named(const std::string& error) { return "--network=sandbox: " + error; }

}  // namespace

Expected<TakenNetwork> TakeNetwork(int netns_fd, const BeforeChange& before_change) {
  NamespaceEvidence evidence{.target = {},
                             .target_is_initial = {},
                             .machine = NamespaceOfMachine(),
                             .caller = NamespaceOfFile("/proc/self/ns/net")};
  evidence.target = netns_fd < 0 ? evidence.caller : NamespaceOfFd(netns_fd);
  const NamespaceChoice choice = netns_fd < 0 ? NamespaceChoice::kCurrent : NamespaceChoice::kPath;
  // Errors of the choice have the flag's name already.
  Expected<void> may;
  Expected<TakenNetwork> taken = InNamespace<TakenNetwork>(netns_fd, [&]() -> Expected<TakenNetwork> {
    evidence.target_is_initial = InInitialNamespace();
    may = CheckTakeable(choice, evidence);
    if (!may) return std::unexpected(may.error());
    return Take(before_change);
  });
  if (!taken && may) return std::unexpected(Named(taken.error()));
  return taken;
}

Expected<NetworkConfig> LookAtNetwork(int netns_fd) {
  // Without privileges nobody enters a namespace, not even his own.
  const std::optional<NamespaceId> own = NamespaceOfFile("/proc/self/ns/net");
  if (netns_fd >= 0 && own && NamespaceOfFd(netns_fd) == own) netns_fd = -1;
  Expected<NetworkConfig> seen = InNamespace<NetworkConfig>(netns_fd, [] { return ReadHostNetwork(Wanted::kAll); });
  if (!seen) return std::unexpected("--network=host: " + seen.error());
  return seen;
}

Expected<void> GiveBackNetwork(int netns_fd, const NetworkConfig& config) {
  Expected<void> r = InNamespace<void>(netns_fd, [&] { return RestoreAddresses(config); });
  if (!r) return std::unexpected(Named(r.error()));
  return r;
}

Expected<BorrowedNetwork> BorrowedNetwork::Borrow(const std::string& path) {
  UniqueFd ns;
  if (!path.empty()) {
    ns = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!ns) return std::unexpected(Named(fmt::format("network namespace {}: {}", path, std::strerror(errno))));
    if (!NamespaceOfFd(ns.get())) return std::unexpected(Named(fmt::format("{} is no namespace", path)));
  }
  Expected<TakenNetwork> taken = TakeNetwork(ns ? ns.get() : -1);
  if (!taken) return std::unexpected(taken.error());
  return BorrowedNetwork(std::move(ns), std::move(*taken));
}

BorrowedNetwork::BorrowedNetwork(BorrowedNetwork&& o) noexcept
    : ns_(std::move(o.ns_)), taken_(std::exchange(o.taken_, std::nullopt)) {}

BorrowedNetwork::~BorrowedNetwork() {
  if (!taken_) return;
  // Before the host answers again, so that no packet is answered twice.
  taken_->sockets.clear();
  if (Expected<void> r = GiveBackNetwork(ns_ ? ns_.get() : -1, taken_->config); !r) {
    fmt::print(stderr, "runsc: {}; the namespace's interfaces were left without addresses\n", r.error());
  }
}

}  // namespace redoubt::sandbox
