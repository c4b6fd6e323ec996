// Where packet filters look at packets: the five places of netfilter (linux/netfilter.h, NF_INET_*).
#ifndef REDOUBT_PKG_NETSTACK_STACK_PACKET_HOOKS_H_
#define REDOUBT_PKG_NETSTACK_STACK_PACKET_HOOKS_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "pkg/netstack/packet/packet.h"

namespace redoubt::netstack {

class Interface;

enum class HookPlace : uint8_t { kPrerouting = 0, kInput = 1, kForward = 2, kOutput = 3, kPostrouting = 4 };
enum class HookVerdict : uint8_t { kAccept, kDrop };

// Filters registered while the stack is composed, before the first interface is added, and called in order of priority.
// A filter whose rules change guards them itself.
class PacketHooks final {
 public:
  // `packet.data` begins at the network header, whose fields are checked and set in the packet; a filter may rewrite
  // the bytes and fields. `in` or `out` is null where there is none yet. Called with no lock held, on many threads.
  using Hook = std::function<HookVerdict(HookPlace, Packet& packet, const Interface* in, const Interface* out)>;

  // Lower priorities first (NF_IP_PRI_*).
  void Register(HookPlace place, int priority, Hook hook) {
    auto& list = hooks_[static_cast<size_t>(place)];
    auto at = std::ranges::find_if(list, [priority](const Entry& e) { return e.priority > priority; });
    list.insert(at, {priority, std::move(hook)});
  }
  HookVerdict Run(HookPlace place, Packet& packet, const Interface* in, const Interface* out) const {
    for (const Entry& e : hooks_[static_cast<size_t>(place)]) {
      if (e.hook(place, packet, in, out) == HookVerdict::kDrop) return HookVerdict::kDrop;
    }
    return HookVerdict::kAccept;
  }

 private:
  struct Entry {
    int priority;
    Hook hook;
  };
  std::array<std::vector<Entry>, 5> hooks_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_STACK_PACKET_HOOKS_H_
