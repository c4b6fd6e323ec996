#include "pkg/sentry/limits/limits.h"

namespace redoubt::limits {

LimitSet::LimitSet() : mu_(sync::Rank::kLeaf) {
  limits_[RLIMIT_STACK].soft = 8 << 20;
  limits_[RLIMIT_CORE].soft = 0;
  limits_[RLIMIT_NOFILE] = {1024, 1 << 20};
  limits_[RLIMIT_NPROC] = {1 << 16, 1 << 16};
  limits_[RLIMIT_MEMLOCK] = {8 << 20, 8 << 20};
  limits_[RLIMIT_SIGPENDING] = {1 << 16, 1 << 16};
  limits_[RLIMIT_MSGQUEUE] = {819200, 819200};
  limits_[RLIMIT_NICE] = {0, 0};
  limits_[RLIMIT_RTPRIO] = {0, 0};
}

void LimitSet::CopyFrom(const LimitSet& other) {
  std::array<Limit, RLIM_NLIMITS> copy = other.All();
  sync::MutexLock lock(mu_);
  limits_ = copy;
}

std::array<Limit, RLIM_NLIMITS> LimitSet::All() const {
  sync::MutexLock lock(mu_);
  return limits_;
}

Limit LimitSet::Get(int resource) const {
  sync::MutexLock lock(mu_);
  return limits_[resource];
}

Result<> LimitSet::Set(int resource, Limit limit, bool privileged) {
  if (limit.soft > limit.hard) return Err(EINVAL);
  sync::MutexLock lock(mu_);
  if (limit.hard > limits_[resource].hard && (!privileged || (resource == RLIMIT_NOFILE && limit.hard > kMaxFiles))) {
    return Err(EPERM);
  }
  limits_[resource] = limit;
  return {};
}

}  // namespace redoubt::limits
