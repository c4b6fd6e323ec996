// Resource limits of a thread group: getrlimit(2).
#ifndef REDOUBT_PKG_SENTRY_LIMITS_LIMITS_H_
#define REDOUBT_PKG_SENTRY_LIMITS_LIMITS_H_

#include <sys/resource.h>

#include <array>
#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/sync/mutex.h"

namespace redoubt::limits {

struct Limit {
  uint64_t soft = RLIM64_INFINITY;
  uint64_t hard = RLIM64_INFINITY;
};

// /proc/sys/fs/nr_open (setrlimit(2), RLIMIT_NOFILE): what a guest can make the Sentry hold by numbers of descriptors.
inline constexpr uint64_t kMaxFiles = 1 << 20;

// Thread-safe.
class LimitSet final {
 public:
  // Linux's defaults for a first process (8 MiB of stack, 1024 / 1048576 descriptors, ...).
  LimitSet();
  LimitSet(const LimitSet&) = delete;
  LimitSet& operator=(const LimitSet&) = delete;
  // Takes all of another's limits (fork).
  void CopyFrom(const LimitSet& other);

  std::array<Limit, RLIM_NLIMITS> All() const;
  Limit Get(int resource) const;  // resource < RLIM_NLIMITS
  // EINVAL if soft > hard; EPERM if the hard limit is raised and not `privileged` (CAP_SYS_RESOURCE), or, of
  // RLIMIT_NOFILE, above kMaxFiles by anybody.
  Result<> Set(int resource, Limit limit, bool privileged);

 private:
  mutable sync::Mutex mu_;
  std::array<Limit, RLIM_NLIMITS> limits_ GUARDED_BY(mu_);
};

}  // namespace redoubt::limits

#endif  // REDOUBT_PKG_SENTRY_LIMITS_LIMITS_H_
