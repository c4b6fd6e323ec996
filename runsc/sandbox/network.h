// --network=sandbox: the interfaces of a network namespace, taken from the host's stack for the sandbox's own. (For
// --network=host they are only looked at.)
//
// What the host has on each Ethernet interface that is up (veth, macvlan, a TAP, a card) is read by rtnetlink(7); a
// packet(7) socket is opened on it, with virtio-net headers so that checksums and super-segments pass unmade in both
// directions; then the host's addresses go, and with them its routes and its answers. The interface stays as it is
// otherwise. Needs CAP_NET_ADMIN, CAP_NET_RAW and, for another namespace, CAP_SYS_ADMIN.
#ifndef REDOUBT_RUNSC_SANDBOX_NETWORK_H_
#define REDOUBT_RUNSC_SANDBOX_NETWORK_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pkg/fd/unique_fd.h"
#include "runsc/specutils/network.h"
#include "runsc/specutils/spec.h"

namespace redoubt::sandbox {

struct TakenNetwork {
  specutils::NetworkConfig config;
  std::vector<UniqueFd> sockets;  // one for each of config.links
};

// Takes over the namespace that `netns_fd` names, or the caller's own if it is -1. The machine's own is refused
// (namespace_guard.h). A failure leaves the namespace as it was. The calling thread stays in its namespace.
// `before_change` gets what will be taken while nothing has been changed yet, to write it down: whoever is killed
// afterwards leaves a note of what is to be given back. Its error ends the attempt.
using BeforeChange = std::function<specutils::Expected<void>(const specutils::NetworkConfig&)>;
specutils::Expected<TakenNetwork> TakeNetwork(int netns_fd, const BeforeChange& before_change = {});

// Gives the host's stack its addresses and routes again, when the sandbox has ended and the namespace lives on. What is
// there already stays.
specutils::Expected<void> GiveBackNetwork(int netns_fd, const specutils::NetworkConfig& config);

// --network=host: what the guest is to see of the namespace that `netns_fd` names, or of the caller's own if it is -1:
// all interfaces, addresses and routes, as they are now. Changes nothing.
specutils::Expected<specutils::NetworkConfig> LookAtNetwork(int netns_fd);

// A network that goes back to its namespace with the end of this object.
class BorrowedNetwork final {
 public:
  // The namespace at `path`, or the caller's own if that is empty.
  static specutils::Expected<BorrowedNetwork> Borrow(const std::string& path);
  BorrowedNetwork(BorrowedNetwork&& o) noexcept;
  BorrowedNetwork& operator=(BorrowedNetwork&&) = delete;
  ~BorrowedNetwork();

  const specutils::NetworkConfig& config() const { return taken_->config; }
  const std::vector<UniqueFd>& sockets() const { return taken_->sockets; }

 private:
  BorrowedNetwork(UniqueFd ns, TakenNetwork taken) : ns_(std::move(ns)), taken_(std::move(taken)) {}

  UniqueFd ns_;  // none: the caller's own
  std::optional<TakenNetwork> taken_;
};

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_NETWORK_H_
