// --network=sandbox: the interfaces of a network namespace, taken from the host's stack for the sandbox's own.
//
// What the host has on each Ethernet interface that is up (veth, macvlan, a TAP, a card) is read by rtnetlink(7); a
// packet(7) socket is opened on it, with virtio-net headers so that checksums and super-segments pass unmade in both
// directions; then the host's addresses go, and with them its routes and its answers. The interface stays as it is
// otherwise. Needs CAP_NET_ADMIN, CAP_NET_RAW and, for another namespace, CAP_SYS_ADMIN.
#ifndef REDOUBT_RUNSC_SANDBOX_NETWORK_H_
#define REDOUBT_RUNSC_SANDBOX_NETWORK_H_

#include <functional>
#include <optional>
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
// (namespace_guard.h). `note` is told what will be taken before anything is, so that it can be given back by whoever
// comes after this process; its error ends the attempt. A failure leaves the namespace as it was. The calling thread
// stays in its namespace.
using NoteNetwork = std::function<specutils::Expected<void>(const specutils::NetworkConfig&)>;
specutils::Expected<TakenNetwork> TakeNetwork(int netns_fd, const NoteNetwork& note = {});

// Gives the host's stack its addresses and routes again, when the sandbox has ended and the namespace lives on. What is
// there already stays. Does nothing if the namespace (the caller's own for -1) is not the one they were taken from.
specutils::Expected<void> GiveBackNetwork(int netns_fd, const specutils::NetworkConfig& config);

// The caller's own namespace, taken over for as long as this lives.
class BorrowedNetwork final {
 public:
  static specutils::Expected<BorrowedNetwork> Borrow();
  BorrowedNetwork(BorrowedNetwork&& o) noexcept;
  BorrowedNetwork& operator=(BorrowedNetwork&&) = delete;
  ~BorrowedNetwork();

  const TakenNetwork& taken() const { return *taken_; }

 private:
  explicit BorrowedNetwork(TakenNetwork taken) : taken_(std::move(taken)) {}

  std::optional<TakenNetwork> taken_;
};

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_NETWORK_H_
