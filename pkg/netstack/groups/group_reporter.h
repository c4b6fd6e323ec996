// The host's part of multicast membership: when to report what, for IGMPv1-3 (RFC 1112, 2236, 3376) and MLDv1-2 (RFC
// 2710, 3810), which differ in their messages only. Messages are the delegate's.
#ifndef REDOUBT_PKG_NETSTACK_GROUPS_GROUP_REPORTER_H_
#define REDOUBT_PKG_NETSTACK_GROUPS_GROUP_REPORTER_H_

#include <map>
#include <vector>

#include "pkg/netstack/address/address.h"
#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/clock/timer.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// Thread-safe. All memberships are of any source (EXCLUDE mode with an empty list): source filters are not supported.
class GroupReporter final : public RefCounted {
 public:
  // The querier's version; MLDv1 counts as 2 and MLDv2 as 3.
  enum class Version : uint8_t { k1 = 1, k2 = 2, k3 = 3 };
  // Record types of version 3 (RFC 3376 section 4.2.12).
  enum class Record : uint8_t { kIsExclude = 2, kToInclude = 3, kToExclude = 4 };
  static constexpr int kRobustness = 2;
  // Without news of an older querier for this long, version 3 is spoken again (RFC 3376 section 8.12).
  static constexpr Time kOlderVersionPresent = 400 * kSecond;

  // Called with no lock held.
  class Delegate {
   public:
    virtual void SendReport(uint32_t interface_index, Version version, const Address& group, Record record) = 0;
    virtual void SendLeave(uint32_t interface_index, const Address& group) = 0;  // version 2

   protected:
    ~Delegate() = default;
  };

  // `delegate` outlives Close().
  GroupReporter(Clock& clock, RandomSource& random, TimerQueue& timers, Delegate& delegate);

  void Joined(uint32_t interface_index, const Address& group) EXCLUDES(mu_);
  void Left(uint32_t interface_index, const Address& group) EXCLUDES(mu_);
  // A query has come: for `group`, or all if it is unspecified; answers come within `max_response`.
  void Query(uint32_t interface_index, Version version, const Address& group, Time max_response) EXCLUDES(mu_);
  // Somebody else has reported `group`: in versions 1 and 2 that will do.
  void HeardReport(uint32_t interface_index, const Address& group) EXCLUDES(mu_);
  void InterfaceDown(uint32_t interface_index) EXCLUDES(mu_);
  void Close() EXCLUDES(mu_);

 private:
  struct Key {
    uint32_t interface_index;
    Address group;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  struct Membership {
    Time deadline = kNever;
    int repeats = 0;       // state changes still to be told
    bool leaving = false;  // tells that it has left, then goes
  };
  struct Querier {
    Version version = Version::k3;
    Time until = 0;
  };
  void OnTimer(Time now) EXCLUDES(mu_);
  Version VersionLocked(uint32_t interface_index, Time now) REQUIRES(mu_);
  Time RandomLocked(Time below) REQUIRES(mu_);
  void ArmLocked(Time deadline) REQUIRES(mu_);

  Clock& clock_;
  RandomSource& random_;
  Delegate& delegate_;
  sync::Mutex mu_;
  std::map<Key, Membership> members_ GUARDED_BY(mu_);
  std::map<uint32_t, Querier> queriers_ GUARDED_BY(mu_);
  Timer timer_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_GROUPS_GROUP_REPORTER_H_
