#include "pkg/netstack/groups/group_reporter.h"

#include <algorithm>

namespace redoubt::netstack {

GroupReporter::GroupReporter(Clock& clock, RandomSource& random, TimerQueue& timers, Delegate& delegate)
    : clock_(clock),
      random_(random),
      delegate_(delegate),
      mu_(sync::Rank::kNetGroups),
      timer_(timers, *this, [](void* self, Time now) { static_cast<GroupReporter*>(self)->OnTimer(now); }, this) {}

void GroupReporter::Joined(uint32_t interface_index, const Address& group) {
  Time now = clock_.Now();
  Version version;
  {
    sync::MutexLock lock(mu_);
    version = VersionLocked(interface_index, now);
    Membership& m = members_[{interface_index, group}];
    m.leaving = false;
    m.repeats = kRobustness - 1;
    m.deadline = now + RandomLocked(version == Version::k3 ? kSecond : 10 * kSecond);
    ArmLocked(m.deadline);
  }
  delegate_.SendReport(interface_index, version, group, Record::kToExclude);
}

void GroupReporter::Left(uint32_t interface_index, const Address& group) {
  Time now = clock_.Now();
  Version version;
  {
    sync::MutexLock lock(mu_);
    auto it = members_.find({interface_index, group});
    if (it == members_.end()) return;
    version = VersionLocked(interface_index, now);
    if (version == Version::k3) {
      it->second = {.deadline = now + RandomLocked(kSecond), .repeats = kRobustness - 1, .leaving = true};
      ArmLocked(it->second.deadline);
    } else {
      members_.erase(it);
    }
  }
  if (version == Version::k3) {
    delegate_.SendReport(interface_index, version, group, Record::kToInclude);
  } else if (version == Version::k2) {
    delegate_.SendLeave(interface_index, group);
  }
}

void GroupReporter::Query(uint32_t interface_index, Version version, const Address& group, Time max_response) {
  Time now = clock_.Now();
  max_response = std::max(max_response, kMillisecond);
  sync::MutexLock lock(mu_);
  if (version != Version::k3) {
    // The oldest one heard decides until it has been silent for long.
    Querier& q = queriers_[interface_index];
    if (q.until <= now || version <= q.version) q = {version, now + kOlderVersionPresent};
  }
  for (auto& [key, m] : members_) {
    if (key.interface_index != interface_index || m.leaving || (!group.IsUnspecified() && key.group != group)) continue;
    m.deadline = std::min(m.deadline, now + RandomLocked(max_response));
    ArmLocked(m.deadline);
  }
}

void GroupReporter::HeardReport(uint32_t interface_index, const Address& group) {
  Time now = clock_.Now();
  sync::MutexLock lock(mu_);
  auto it = members_.find({interface_index, group});
  if (it == members_.end() || it->second.leaving || VersionLocked(interface_index, now) == Version::k3) return;
  it->second.deadline = kNever;
  it->second.repeats = 0;
}

void GroupReporter::InterfaceDown(uint32_t interface_index) {
  sync::MutexLock lock(mu_);
  std::erase_if(members_, [=](const auto& m) { return m.first.interface_index == interface_index; });
  queriers_.erase(interface_index);
}

void GroupReporter::Close() {
  {
    sync::MutexLock lock(mu_);
    members_.clear();
  }
  timer_.Cancel();
}

void GroupReporter::OnTimer(Time now) {
  struct Due {
    Key key;
    Version version;
    Record record;
  };
  std::vector<Due> due;
  {
    sync::MutexLock lock(mu_);
    Time next = kNever;
    for (auto it = members_.begin(); it != members_.end();) {
      Membership& m = it->second;
      if (m.deadline <= now) {
        Record record = m.leaving ? Record::kToInclude : m.repeats > 0 ? Record::kToExclude : Record::kIsExclude;
        due.push_back({it->first, VersionLocked(it->first.interface_index, now), record});
        m.deadline = kNever;
        if (m.repeats > 0 && --m.repeats > 0) m.deadline = now + RandomLocked(kSecond);
        if (m.leaving && m.repeats == 0) {
          it = members_.erase(it);
          continue;
        }
      }
      next = std::min(next, m.deadline);
      ++it;
    }
    if (next != kNever) ArmLocked(next);
  }
  for (const Due& d : due) delegate_.SendReport(d.key.interface_index, d.version, d.key.group, d.record);
}

GroupReporter::Version GroupReporter::VersionLocked(uint32_t interface_index, Time now) {
  auto it = queriers_.find(interface_index);
  return it == queriers_.end() || it->second.until <= now ? Version::k3 : it->second.version;
}

Time GroupReporter::RandomLocked(Time below) {
  return static_cast<Time>(static_cast<uint64_t>(random_.U32()) * static_cast<uint64_t>(below / kMicrosecond) >> 32) *
         kMicrosecond;
}

void GroupReporter::ArmLocked(Time deadline) {
  if (deadline < timer_.deadline()) timer_.Schedule(deadline);
}

}  // namespace redoubt::netstack
