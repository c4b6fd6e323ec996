// Neighbours of one interface and IP version: who has which link address, and who is still there. RFC 4861 section 7,
// used for ARP too. Linux's neighbour tables.
#ifndef REDOUBT_PKG_NETSTACK_NEIGHBOUR_NEIGHBOUR_TABLE_H_
#define REDOUBT_PKG_NETSTACK_NEIGHBOUR_NEIGHBOUR_TABLE_H_

#include <atomic>
#include <optional>
#include <unordered_map>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/clock/timer.h"
#include "pkg/netstack/packet/packet.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// RFC 4861 section 7.3.2, and Linux's NUD_FAILED and NUD_PERMANENT.
enum class NeighbourState : uint8_t { kIncomplete, kReachable, kStale, kDelay, kProbe, kFailed, kPermanent };

struct NeighbourInfo {
  Address address;
  LinkAddress link;  // unspecified while incomplete or failed
  NeighbourState state = NeighbourState::kIncomplete;
  bool is_router = false;
  Time updated = 0;
};

class NeighbourTable final {
 public:
  // RFC 4861 section 10.
  static constexpr Time kReachableTime = 30 * kSecond;  // times 0.5 to 1.5
  static constexpr Time kRetransmitTime = kSecond;
  static constexpr Time kDelayFirstProbe = 5 * kSecond;
  static constexpr int kMaxSolicitations = 3;
  // How long a failure is remembered before the next packet asks again.
  static constexpr Time kFailedTime = 3 * kSecond;
  static constexpr size_t kMaxEntries = 1024;
  static constexpr size_t kMaxQueuedPackets = 64;        // per entry; the oldest goes first
  static constexpr size_t kMaxQueuedBytes = 256 * 1024;  // of all entries
  static constexpr size_t kMaxChanges = 4096;            // that are still to be told; later ones are not told

  // Called with no lock held.
  class Delegate {
   public:
    virtual void SendSolicitation(const Address& target, const LinkAddress* link) = 0;
    virtual void SendResolved(const LinkAddress& to, PacketPtr packet) = 0;
    virtual void Unresolved(PacketList packets) = 0;
    // Whether Changed is to be called. This one is called under the table's lock, and takes none.
    virtual bool WantsChanges() const { return false; }
    // What others may want to know of an entry: RTM_NEWNEIGH, RTM_DELNEIGH. Told of by the timer, soon after, in order.
    virtual void Changed(bool removed, const NeighbourInfo& neighbour) {}

   protected:
    ~Delegate() = default;
  };

  // `owner` keeps `delegate` and the table alive while a timer is queued.
  NeighbourTable(Clock& clock, RandomSource& random, TimerQueue& timers, const RefCounted& owner, Delegate& delegate);
  NeighbourTable(const NeighbourTable&) = delete;
  NeighbourTable& operator=(const NeighbourTable&) = delete;

  // Sends through the delegate at once if the neighbour is known, else queues and asks. Dropped silently if the table
  // is full of entries that are being resolved.
  void Send(const Address& next_hop, PacketPtr packet) EXCLUDES(mu_);

  // What a neighbour said of itself when it asked for us (RFC 4861 section 7.2.3, RFC 826): its link address. `create`:
  // we were asked, and so will soon have to answer.
  void HandleSolicitation(const Address& from, const LinkAddress& link, bool create) EXCLUDES(mu_);
  // Section 7.2.5. For ARP: `solicited` if the reply was to us, `override` true.
  void HandleAdvertisement(const Address& from, std::optional<LinkAddress> link, bool solicited, bool override,
                           bool router) EXCLUDES(mu_);
  // Section 7.3.1: the upper layer knows that the neighbour is there.
  void Confirm(const Address& address) EXCLUDES(mu_);
  // Times from router advertisements (section 6.3.4); 0 leaves one as it is.
  void SetTimes(Time reachable, Time retransmit) EXCLUDES(mu_);

  // RTM_NEWNEIGH with NUD_PERMANENT, RTM_DELNEIGH. ENOSPC; ENOENT.
  Result<> AddPermanent(const Address& address, const LinkAddress& link) EXCLUDES(mu_);
  Result<> Remove(const Address& address) EXCLUDES(mu_);
  // Forgets all but, if `keep_permanent`, the permanent ones; queued packets are dropped.
  void Flush(bool keep_permanent) EXCLUDES(mu_);
  std::vector<NeighbourInfo> Entries() const EXCLUDES(mu_);
  std::optional<NeighbourInfo> Find(const Address& address) const EXCLUDES(mu_);
  // Packets dropped because a queue or the table was full.
  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    NeighbourInfo info;
    Time deadline = kNever;  // when the state changes by itself
    Time used = 0;
    int solicitations = 0;
    PacketList queue;
    size_t queued = 0;
    size_t queued_bytes = 0;
  };
  // What is to be done once the lock is released.
  struct Actions;

  void OnTimer(Time now) EXCLUDES(mu_);
  Entry* GetOrCreateLocked(const Address& address, Time now) REQUIRES(mu_);
  bool EvictLocked() REQUIRES(mu_);
  void ResolveLocked(Entry& entry, const LinkAddress& link, NeighbourState state, Time now, Actions& actions)
      REQUIRES(mu_);
  void SetStateLocked(Entry& entry, NeighbourState state, Time now) REQUIRES(mu_);
  void EnqueueLocked(Entry& entry, PacketPtr packet) REQUIRES(mu_);
  void TakeQueueLocked(Entry& entry, PacketList& into) REQUIRES(mu_);
  void TellLocked(const NeighbourInfo& info, Time now, bool removed = false) REQUIRES(mu_);
  // As others see it: what has aged while nobody used it is stale.
  static NeighbourInfo Seen(const Entry& entry, Time now);
  void ArmLocked(Time deadline) REQUIRES(mu_);
  void Run(Actions& actions) EXCLUDES(mu_);

  Clock& clock_;
  RandomSource& random_;
  Delegate& delegate_;
  std::atomic<uint64_t> dropped_{0};

  mutable sync::Mutex mu_;
  std::unordered_map<Address, Entry, AddressHash> entries_ GUARDED_BY(mu_);
  Time reachable_time_ GUARDED_BY(mu_) = kReachableTime;
  Time retransmit_time_ GUARDED_BY(mu_) = kRetransmitTime;
  size_t queued_bytes_ GUARDED_BY(mu_) = 0;
  struct Change {
    NeighbourInfo info;
    bool removed;
  };
  std::vector<Change> changes_ GUARDED_BY(mu_);
  Timer timer_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_NEIGHBOUR_NEIGHBOUR_TABLE_H_
