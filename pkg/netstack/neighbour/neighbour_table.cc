#include "pkg/netstack/neighbour/neighbour_table.h"

#include <algorithm>
#include <utility>

namespace redoubt::netstack {

struct NeighbourTable::Actions {
  struct Solicitation {
    Address target;
    std::optional<LinkAddress> link;
  };
  std::vector<Solicitation> solicitations;
  PacketList resolved;
  LinkAddress to;
  PacketList failed;
  std::vector<Change> changes;
};

NeighbourTable::NeighbourTable(Clock& clock, RandomSource& random, TimerQueue& timers, const RefCounted& owner,
                               Delegate& delegate)
    : clock_(clock),
      random_(random),
      delegate_(delegate),
      mu_(sync::Rank::kNetNeighbours),
      timer_(timers, owner, [](void* self, Time now) { static_cast<NeighbourTable*>(self)->OnTimer(now); }, this) {}

void NeighbourTable::Send(const Address& next_hop, PacketPtr packet) {
  Time now = clock_.Now();
  Actions actions;
  LinkAddress to;
  {
    sync::MutexLock lock(mu_);
    Entry* entry = GetOrCreateLocked(next_hop, now);
    if (entry == nullptr) {
      dropped_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    entry->used = now;
    switch (entry->info.state) {
      case NeighbourState::kFailed:
        if (now < entry->deadline) {
          // Asked moments ago without an answer.
          actions.failed.PushBack(std::move(packet));
          break;
        }
        SetStateLocked(*entry, NeighbourState::kIncomplete, now);
        [[fallthrough]];
      case NeighbourState::kIncomplete:
        EnqueueLocked(*entry, std::move(packet));
        if (entry->solicitations == 0) {
          entry->solicitations = 1;
          actions.solicitations.push_back({next_hop, std::nullopt});
        }
        break;
      case NeighbourState::kReachable:
        // The timer is lazy: an entry ages when it is used.
        if (now >= entry->deadline) {
          SetStateLocked(*entry, NeighbourState::kStale, now);
          TellLocked(entry->info, now);
        }
        if (entry->info.state == NeighbourState::kReachable) {
          to = entry->info.link;
          break;
        }
        [[fallthrough]];
      case NeighbourState::kStale:
        SetStateLocked(*entry, NeighbourState::kDelay, now);
        [[fallthrough]];
      default:
        to = entry->info.link;
        break;
    }
  }
  if (packet != nullptr) {
    delegate_.SendResolved(to, std::move(packet));
    return;
  }
  Run(actions);
}

void NeighbourTable::HandleSolicitation(const Address& from, const LinkAddress& link, bool create) {
  Time now = clock_.Now();
  Actions actions;
  {
    sync::MutexLock lock(mu_);
    auto it = entries_.find(from);
    if (it == entries_.end() && !create) return;
    Entry* entry = it != entries_.end() ? &it->second : GetOrCreateLocked(from, now);
    if (entry == nullptr || entry->info.state == NeighbourState::kPermanent) return;
    if (entry->info.link != link || entry->info.state == NeighbourState::kIncomplete ||
        entry->info.state == NeighbourState::kFailed) {
      ResolveLocked(*entry, link, NeighbourState::kStale, now, actions);
    }
  }
  Run(actions);
}

void NeighbourTable::HandleAdvertisement(const Address& from, std::optional<LinkAddress> link, bool solicited,
                                         bool override, bool router) {
  Time now = clock_.Now();
  Actions actions;
  {
    sync::MutexLock lock(mu_);
    auto it = entries_.find(from);
    if (it == entries_.end()) return;  // nobody asked
    Entry& entry = it->second;
    switch (entry.info.state) {
      case NeighbourState::kPermanent:
        return;
      case NeighbourState::kIncomplete:
      case NeighbourState::kFailed:
        if (!link) return;
        entry.info.is_router = router;
        ResolveLocked(entry, *link, solicited ? NeighbourState::kReachable : NeighbourState::kStale, now, actions);
        break;
      default: {
        bool changed = link && *link != entry.info.link;
        if (changed && !override) {
          if (entry.info.state == NeighbourState::kReachable) {
            SetStateLocked(entry, NeighbourState::kStale, now);
            TellLocked(entry.info, now);
          }
          return;
        }
        entry.info.is_router = router;
        if (changed || solicited) {
          ResolveLocked(entry, changed ? *link : entry.info.link,
                        solicited ? NeighbourState::kReachable : NeighbourState::kStale, now, actions);
        }
      }
    }
  }
  Run(actions);
}

void NeighbourTable::Confirm(const Address& address) {
  Time now = clock_.Now();
  sync::MutexLock lock(mu_);
  auto it = entries_.find(address);
  if (it == entries_.end()) return;
  const NeighbourState before = it->second.info.state;
  switch (before) {
    case NeighbourState::kReachable:
    case NeighbourState::kStale:
    case NeighbourState::kDelay:
    case NeighbourState::kProbe:
      SetStateLocked(it->second, NeighbourState::kReachable, now);
      if (before != NeighbourState::kReachable) TellLocked(it->second.info, now);
      break;
    default:
      break;
  }
}

void NeighbourTable::SetTimes(Time reachable, Time retransmit) {
  sync::MutexLock lock(mu_);
  if (reachable != 0) reachable_time_ = reachable;
  if (retransmit != 0) retransmit_time_ = std::max(retransmit, 100 * kMillisecond);
}

Result<> NeighbourTable::AddPermanent(const Address& address, const LinkAddress& link) {
  Time now = clock_.Now();
  Actions actions;
  {
    sync::MutexLock lock(mu_);
    Entry* entry = GetOrCreateLocked(address, now);
    if (entry == nullptr) return Err(ENOSPC);
    ResolveLocked(*entry, link, NeighbourState::kPermanent, now, actions);
  }
  Run(actions);
  return {};
}

Result<> NeighbourTable::Remove(const Address& address) {
  PacketList dropped;
  const Time now = clock_.Now();
  sync::MutexLock lock(mu_);
  auto it = entries_.find(address);
  if (it == entries_.end()) return Err(ENOENT);
  TakeQueueLocked(it->second, dropped);
  // As Linux tells it: it has failed, and then it goes.
  NeighbourInfo& info = it->second.info;
  info.link = {};
  const bool failed = std::exchange(info.state, NeighbourState::kFailed) == NeighbourState::kFailed;
  if (!failed) TellLocked(info, now);
  TellLocked(info, now, true);
  entries_.erase(it);
  return {};
}

void NeighbourTable::Flush(bool keep_permanent) {
  PacketList dropped;
  const Time now = clock_.Now();
  bool tell;
  {
    sync::MutexLock lock(mu_);
    for (auto it = entries_.begin(); it != entries_.end();) {
      if (keep_permanent && it->second.info.state == NeighbourState::kPermanent) {
        ++it;
        continue;
      }
      TakeQueueLocked(it->second, dropped);
      TellLocked(Seen(it->second, now), now, true);
      it = entries_.erase(it);
    }
    tell = !changes_.empty();
  }
  if (!tell) timer_.Cancel();
}

std::vector<NeighbourInfo> NeighbourTable::Entries() const {
  const Time now = clock_.Now();
  sync::MutexLock lock(mu_);
  std::vector<NeighbourInfo> r;
  r.reserve(entries_.size());
  for (const auto& [address, entry] : entries_) r.push_back(Seen(entry, now));
  return r;
}

std::optional<NeighbourInfo> NeighbourTable::Find(const Address& address) const {
  const Time now = clock_.Now();
  sync::MutexLock lock(mu_);
  auto it = entries_.find(address);
  if (it == entries_.end()) return std::nullopt;
  return Seen(it->second, now);
}

NeighbourInfo NeighbourTable::Seen(const Entry& entry, Time now) {
  NeighbourInfo info = entry.info;
  if (info.state == NeighbourState::kReachable && now >= entry.deadline) info.state = NeighbourState::kStale;
  return info;
}

// Whoever changes an entry may hold locks of its own: the timer holds none.
void NeighbourTable::TellLocked(const NeighbourInfo& info, Time now, bool removed) {
  if (!delegate_.WantsChanges() || changes_.size() >= kMaxChanges) return;
  changes_.push_back({info, removed});
  ArmLocked(now);
}

void NeighbourTable::OnTimer(Time now) {
  Actions actions;
  {
    sync::MutexLock lock(mu_);
    Time next = kNever;
    actions.changes.swap(changes_);
    for (auto& [address, entry] : entries_) {
      NeighbourInfo& info = entry.info;
      // Reachable and failed entries change when they are next used.
      if (info.state != NeighbourState::kIncomplete && info.state != NeighbourState::kDelay &&
          info.state != NeighbourState::kProbe) {
        continue;
      }
      if (now >= entry.deadline) {
        if (info.state == NeighbourState::kDelay) {
          SetStateLocked(entry, NeighbourState::kProbe, now);
          actions.changes.push_back({info, false});
          entry.solicitations = 1;
          actions.solicitations.push_back({address, info.link});
        } else if (entry.solicitations < kMaxSolicitations) {
          entry.solicitations++;
          entry.deadline = now + retransmit_time_;
          actions.solicitations.push_back(
              {address, info.state == NeighbourState::kProbe ? std::optional<LinkAddress>(info.link) : std::nullopt});
        } else {
          SetStateLocked(entry, NeighbourState::kFailed, now);
          info.link = {};
          actions.changes.push_back({info, false});
          TakeQueueLocked(entry, actions.failed);
          continue;
        }
      }
      next = std::min(next, entry.deadline);
    }
    if (next != kNever) ArmLocked(next);
  }
  Run(actions);
}

NeighbourTable::Entry* NeighbourTable::GetOrCreateLocked(const Address& address, Time now) {
  auto it = entries_.find(address);
  if (it != entries_.end()) return &it->second;
  if (entries_.size() >= kMaxEntries && !EvictLocked()) return nullptr;
  Entry& entry = entries_[address];
  entry.info.address = address;
  entry.used = now;
  SetStateLocked(entry, NeighbourState::kIncomplete, now);
  return &entry;
}

// Makes room by forgetting the entry that was used longest ago; what is being resolved stays, so that a flood of new
// destinations cannot undo the resolution of others, and neither does it grow the table.
bool NeighbourTable::EvictLocked() {
  auto victim = entries_.end();
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    NeighbourState s = it->second.info.state;
    if (s == NeighbourState::kPermanent || s == NeighbourState::kIncomplete) continue;
    if (victim == entries_.end() || it->second.used < victim->second.used) victim = it;
  }
  if (victim == entries_.end()) return false;
  const Time now = clock_.Now();
  TellLocked(Seen(victim->second, now), now, true);
  entries_.erase(victim);
  return true;
}

void NeighbourTable::ResolveLocked(Entry& entry, const LinkAddress& link, NeighbourState state, Time now,
                                   Actions& actions) {
  entry.info.link = link;
  bool had_packets = entry.queued != 0;
  TakeQueueLocked(entry, actions.resolved);
  actions.to = link;
  SetStateLocked(entry, state, now);
  TellLocked(entry.info, now);
  // The packets that waited are uses of the entry.
  if (had_packets && state == NeighbourState::kStale) SetStateLocked(entry, NeighbourState::kDelay, now);
}

void NeighbourTable::SetStateLocked(Entry& entry, NeighbourState state, Time now) {
  entry.info.state = state;
  entry.info.updated = now;
  entry.deadline = kNever;
  entry.solicitations = 0;
  switch (state) {
    case NeighbourState::kIncomplete:
    case NeighbourState::kProbe:
      entry.deadline = now + retransmit_time_;
      ArmLocked(entry.deadline);
      break;
    case NeighbourState::kReachable:
      // Section 6.3.2: uniformly between 0.5 and 1.5 times, so that hosts do not fall into step.
      entry.deadline = now + reachable_time_ / 2 + reachable_time_ / 1024 * random_.Below(1024);
      break;
    case NeighbourState::kDelay:
      entry.deadline = now + kDelayFirstProbe;
      ArmLocked(entry.deadline);
      break;
    case NeighbourState::kFailed:
      entry.deadline = now + kFailedTime;
      break;
    default:
      break;
  }
}

void NeighbourTable::EnqueueLocked(Entry& entry, PacketPtr packet) {
  size_t size = packet->data.size();
  if (queued_bytes_ + size > kMaxQueuedBytes && entry.queued == 0) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  entry.queue.PushBack(std::move(packet));
  entry.queued++;
  entry.queued_bytes += size;
  queued_bytes_ += size;
  while (entry.queued > kMaxQueuedPackets || (queued_bytes_ > kMaxQueuedBytes && entry.queued > 1)) {
    PacketPtr oldest = entry.queue.PopFront();
    entry.queued--;
    entry.queued_bytes -= oldest->data.size();
    queued_bytes_ -= oldest->data.size();
    dropped_.fetch_add(1, std::memory_order_relaxed);
  }
}

void NeighbourTable::TakeQueueLocked(Entry& entry, PacketList& into) {
  queued_bytes_ -= entry.queued_bytes;
  entry.queued = entry.queued_bytes = 0;
  while (PacketPtr p = entry.queue.PopFront()) into.PushBack(std::move(p));
}

void NeighbourTable::ArmLocked(Time deadline) {
  if (deadline < timer_.deadline()) timer_.Schedule(deadline);
}

void NeighbourTable::Run(Actions& actions) {
  for (const Actions::Solicitation& s : actions.solicitations) {
    delegate_.SendSolicitation(s.target, s.link ? &*s.link : nullptr);
  }
  while (PacketPtr p = actions.resolved.PopFront()) delegate_.SendResolved(actions.to, std::move(p));
  if (!actions.failed.empty()) delegate_.Unresolved(std::move(actions.failed));
  for (const Change& c : actions.changes) delegate_.Changed(c.removed, c.info);
}

}  // namespace redoubt::netstack
