#include "runsc/sandbox/network.h"

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

constexpr char kOwn[] = "/proc/self/ns/net";

using specutils::Expected;
using specutils::NetworkConfig;

// Runs `f` on a thread inside the namespace (setns(2) is of threads), so that this one never leaves its own.
template <typename T>
Expected<T> InNamespace(int netns_fd, const std::function<Expected<T>()>& f) {
  if (netns_fd < 0) return f();
  Expected<T> result = std::unexpected(std::string());
  std::thread([&] {
    if (setns(netns_fd, CLONE_NEWNET) != 0) {
      result = std::unexpected(
          fmt::format("--network=sandbox: cannot enter the network namespace: {}", std::strerror(errno)));
      return;
    }
    result = f();
  }).join();
  return result;
}

Expected<TakenNetwork> Take(const NamespaceId& id, const NoteNetwork& note) {
  TakenNetwork taken;
  Expected<NetworkConfig> config = ReadHostNetwork();
  if (!config) return std::unexpected(config.error());
  taken.config = std::move(*config);
  taken.config.namespace_device = id.device;
  taken.config.namespace_inode = id.inode;
  for (const specutils::NetworkLink& link : taken.config.links) {
    Expected<UniqueFd> socket = OpenPacketSocket(link);
    if (!socket) return std::unexpected(socket.error());
    taken.sockets.push_back(std::move(*socket));
  }
  if (note) {
    if (Expected<void> r = note(taken.config); !r) return std::unexpected(r.error());
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

Expected<TakenNetwork> TakeNetwork(int netns_fd, const NoteNetwork& note) {
  NamespaceEvidence evidence{
      .target = {}, .target_is_initial = {}, .machine = NamespaceOfMachine(), .caller = NamespaceOfFile(kOwn)};
  evidence.target = netns_fd < 0 ? evidence.caller : NamespaceOfFd(netns_fd);
  const NamespaceChoice choice = netns_fd < 0 ? NamespaceChoice::kCurrent : NamespaceChoice::kPath;
  return InNamespace<TakenNetwork>(netns_fd, [&]() -> Expected<TakenNetwork> {
    evidence.target_is_initial = InInitialNamespace();
    if (Expected<void> may = CheckTakeable(choice, evidence); !may) return std::unexpected(may.error());
    Expected<TakenNetwork> taken = Take(*evidence.target, note);
    if (!taken) return std::unexpected(Named(taken.error()));
    return taken;
  });
}

Expected<void> GiveBackNetwork(int netns_fd, const NetworkConfig& config) {
  const NamespaceId origin{config.namespace_device, config.namespace_inode};
  const std::optional<NamespaceId> there = netns_fd < 0 ? NamespaceOfFile(kOwn) : NamespaceOfFd(netns_fd);
  if (there != origin) return {};
  return InNamespace<void>(netns_fd, [&]() -> Expected<void> {
    Expected<void> r = RestoreAddresses(config);
    if (!r) return std::unexpected(Named(r.error()));
    return r;
  });
}

Expected<BorrowedNetwork> BorrowedNetwork::Borrow() {
  Expected<TakenNetwork> taken = TakeNetwork(-1);
  if (!taken) return std::unexpected(taken.error());
  return BorrowedNetwork(std::move(*taken));
}

BorrowedNetwork::BorrowedNetwork(BorrowedNetwork&& o) noexcept : taken_(std::exchange(o.taken_, std::nullopt)) {}

BorrowedNetwork::~BorrowedNetwork() {
  if (!taken_) return;
  // Before the host answers again, so that no packet is answered twice.
  taken_->sockets.clear();
  if (Expected<void> r = GiveBackNetwork(-1, taken_->config); !r) fmt::print(stderr, "runsc: {}\n", r.error());
}

}  // namespace redoubt::sandbox
