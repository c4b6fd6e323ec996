// PID namespaces and the numbers in them: pid_namespaces(7).
#ifndef REDOUBT_PKG_SENTRY_KERNEL_PID_NAMESPACE_H_
#define REDOUBT_PKG_SENTRY_KERNEL_PID_NAMESPACE_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::kernel {

class PidNamespace;
class ThreadGroup;

inline constexpr int kMaxPidNamespaceLevel = 32;  // pid_namespaces(7): how deep they nest

// What a thread, a process, a process group or a session is called: Linux's struct pid. It has a number in its
// namespace and one in each namespace above. They stay taken for as long as anybody holds it, the process' life or
// longer, so a number means the same to all who remember it. Does not change once Allocate has returned it.
class Pid final : public RefCounted {
 public:
  // Its own namespace, the innermost it can be seen in.
  PidNamespace& ns() const { return *ns_; }
  // As it is called there: what getpid(2) says to the process itself.
  int number() const;
  // As it is called in the outermost: what the Sentry's own tables go by.
  int root_number() const { return numbers_[0]; }
  // As those in `ns` see it; 0 if they do not.
  int In(const PidNamespace& ns) const;
  // From `ns` inwards (proc(5), NSpid); empty if it cannot be seen there.
  std::vector<int> NumbersFrom(const PidNamespace& ns) const;

 private:
  friend class PidNamespace;
  explicit Pid(RefPtr<PidNamespace> ns);
  ~Pid() override;

  const RefPtr<PidNamespace> ns_;
  std::array<int, kMaxPidNamespaceLevel + 1> numbers_{};  // by level
};

// Held by the numbers in it, the namespaces below and whoever is to make processes in it. Thread-safe.
class PidNamespace final : public RefCounted {
 public:
  // Within `parent`, whose level is below kMaxPidNamespaceLevel; null: outermost.
  explicit PidNamespace(RefPtr<PidNamespace> parent);
  // For a process of the user's, who has only so many. ENOSPC, also for too deep a nest.
  static Result<RefPtr<PidNamespace>> Create(RefPtr<PidNamespace> parent, uint32_t uid);
  ~PidNamespace() override;

  PidNamespace* parent() const { return parent_.get(); }
  int level() const { return level_; }  // 0: outermost
  // /proc/PID/ns/pid: no other has it.
  uint64_t inode() const { return inode_; }
  bool IsWithin(const PidNamespace& ancestor) const;

  // EAGAIN: here or above all numbers are taken.
  Result<RefPtr<Pid>> Allocate();
  // Null: nobody has that number.
  RefPtr<Pid> Find(int number) const EXCLUDES(mu_);
  // Between numbers here and those of the outermost namespace; 0 stays 0, and is the answer where there is none. In the
  // outermost any number is its own answer.
  int ToRoot(int number) const;
  int FromRoot(int root_number) const;
  // The one given last; 0 before the first.
  int last() const EXCLUDES(mu_);

  // Guarded by Kernel::mu, which cannot be named here.
  ThreadGroup* init = nullptr;  // who has number 1, while it lives; nobody is that in the outermost
  bool ended = false;           // init has ended or is about to: there will be no other process

 private:
  friend class Pid;
  const PidNamespace& root() const;
  // Takes a number that Find does not know before Publish; 0: there is none left.
  int Reserve() EXCLUDES(mu_);
  void Publish(int number, Pid& pid) EXCLUDES(mu_);
  void Release(int number) EXCLUDES(mu_);

  const RefPtr<PidNamespace> parent_;
  const int level_;
  const uint64_t inode_;
  std::optional<uint32_t> charged_;  // to whom; set before others can see it
  mutable sync::Mutex mu_{sync::Rank::kPidNumbers};
  std::map<int, Pid*> numbers_ GUARDED_BY(mu_);  // null: reserved
  int last_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_PID_NAMESPACE_H_
