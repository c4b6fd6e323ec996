// Filters that guests put before their own system calls: seccomp(2), Linux's struct seccomp_filter.
#ifndef REDOUBT_PKG_SENTRY_SECCOMP_SECCOMP_FILTER_H_
#define REDOUBT_PKG_SENTRY_SECCOMP_SECCOMP_FILTER_H_

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "pkg/bpf/bpf.h"
#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/seccomp/seccomp_listener.h"

namespace redoubt {

// One filter and, by reference, those that were there before it: the filters of a task are the newest. Shared by the
// tasks that inherited it. Immutable once it is attached, so that it is read without a lock.
class SeccompFilter final : public RefCounted {
 public:
  // MAX_INSNS_PER_PATH: of all filters of a task together, each of which counts for four instructions more than it has.
  static constexpr size_t kMaxPath = 32768;
  static constexpr size_t kPenalty = 4;

  // EINVAL: no program that seccomp(2) takes. `log`: SECCOMP_FILTER_FLAG_LOG.
  static Result<RefPtr<SeccompFilter>> Create(std::span<const sock_filter> code, bool log);

  // Before Attach: calls that it answers with SECCOMP_RET_USER_NOTIF are for that one.
  void SetListener(RefPtr<SeccompListener> listener) { listener_ = std::move(listener); }
  // Whether it or one that was there before it has a listener.
  bool HasListener() const;
  // Once, before others see it: it comes before `older` (null: there is none). ENOMEM: they are too long together.
  Result<> Attach(RefPtr<const SeccompFilter> older);

  // Whether all of them allow the call whatever its arguments are. Of `number` as in seccomp_data::nr, made for x86-64.
  bool AlwaysAllows(uint32_t number) const { return number < kNumbers && always_[number]; }

  struct Verdict {
    uint32_t action = SECCOMP_RET_ALLOW;  // SECCOMP_RET_*, KILL_PROCESS for one that is not known
    uint16_t data = 0;                    // SECCOMP_RET_DATA
    bool log = false;                     // the filter that decided was added with SECCOMP_FILTER_FLAG_LOG
    SeccompListener* listener = nullptr;  // of the filter that decided, which lives as long as that
  };
  // All of them run, the newest first; the action of the highest precedence counts, and the first that gave it.
  Verdict Run(const seccomp_data& data) const;

  // Whether one of them looks at seccomp_data::instruction_pointer.
  bool LoadsInstructionPointer() const { return loads_instruction_pointer_; }
  // Whether it is `newer`, or one that was there before it.
  bool IsPartOf(const SeccompFilter* newer) const;
  // How many they are.
  size_t count() const { return count_; }

 private:
  // Numbers for which verdicts are kept: all that are system calls.
  static constexpr size_t kNumbers = 512;

  SeccompFilter(bpf::Program program, bool log);
  ~SeccompFilter() override;
  void OnZeroRefs() override;

  const bpf::Program program_;
  const bool log_;
  RefPtr<SeccompListener> listener_;
  RefPtr<const SeccompFilter> older_;
  std::bitset<kNumbers> always_;
  bool loads_instruction_pointer_;
  size_t path_;
  size_t count_ = 1;
};

}  // namespace redoubt

#endif  // REDOUBT_PKG_SENTRY_SECCOMP_SECCOMP_FILTER_H_
