// The multicast groups of one endpoint, and whose packets it takes of them (RFC 3376 section 2, RFC 3678).
#ifndef REDOUBT_PKG_NETSTACK_TRANSPORT_MEMBERSHIPS_H_
#define REDOUBT_PKG_NETSTACK_TRANSPORT_MEMBERSHIPS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"

namespace redoubt::netstack {

// The values of MCAST_EXCLUDE and MCAST_INCLUDE (linux/in.h).
enum class SourceMode : uint8_t { kExclude = 0, kInclude = 1 };

struct SourceFilter {
  SourceMode mode = SourceMode::kExclude;
  std::vector<Address> sources;  // in the order in which they came
  bool fixed = false;            // had sources, one by one: as on Linux its mode stays, though they have gone
  bool Allows(const Address& source) const;
};

// Not thread-safe. Bounded: kMax groups with so many sources each. The errors are Linux's.
class Memberships final {
 public:
  static constexpr size_t kMax = 20;  // net.ipv4.igmp_max_memberships
  // net.ipv4.igmp_max_msf, net.ipv6.mld_max_msf.
  static constexpr size_t MaxSources(Family family) { return family == Family::kIpv4 ? 10 : 64; }

  struct Membership {
    Address group;
    uint32_t interface_index = 0;
    SourceFilter filter = {};
  };

  // EADDRINUSE, ENOBUFS.
  Result<> Add(const Address& group, uint32_t interface_index, SourceMode mode);
  // `interface_index` 0: on whichever. Says on which it was. EADDRNOTAVAIL.
  Result<uint32_t> Remove(const Address& group, uint32_t interface_index);
  const Membership* Find(const Address& group, uint32_t interface_index) const;
  std::vector<Membership>& all() { return all_; }

  enum class Change : uint8_t { kAdd, kRemove };
  enum class Outcome : uint8_t { kChanged, kLastRemoved };
  // One source of a filter in `mode`; a filter without sources becomes one in that mode. kLastRemoved: nothing is
  // included any more, the group is to be left. EINVAL (no member, other mode), EADDRNOTAVAIL (there already, not
  // there), ENOBUFS.
  Result<Outcome> ChangeSource(const Address& group, uint32_t interface_index, const Address& source, SourceMode mode,
                               Change change);
  // The whole filter. EINVAL, ENOBUFS.
  Result<> SetFilter(const Address& group, uint32_t interface_index, SourceFilter filter);

 private:
  Membership* FindMutable(const Address& group, uint32_t interface_index);

  std::vector<Membership> all_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_TRANSPORT_MEMBERSHIPS_H_
