#include "pkg/sentry/kernel/pid_namespace.h"

#include <atomic>
#include <utility>

#include "pkg/log/log.h"
#include "pkg/sentry/limits/system.h"

namespace redoubt::kernel {
namespace {

constexpr int kPidMax = 1 << 22;    // /proc/sys/kernel/pid_max on a 64-bit Linux
constexpr int kReservedPids = 300;  // Linux leaves these to its own threads when it wraps
// As the initial namespace on Linux has it, and beyond those that procfs shows of the other kinds.
constexpr uint64_t kRootInode = 4026531836;
constexpr uint64_t kFirstInode = 4026532200;

uint64_t NextInode() {
  static std::atomic<uint64_t> next{kFirstInode};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

Pid::Pid(RefPtr<PidNamespace> ns) : ns_(std::move(ns)) {}

Pid::~Pid() {
  for (PidNamespace* ns = ns_.get(); ns != nullptr; ns = ns->parent()) {
    if (int number = numbers_[ns->level()]; number != 0) ns->Release(number);
  }
}

int Pid::number() const { return numbers_[ns_->level()]; }

int Pid::In(const PidNamespace& ns) const { return ns_->IsWithin(ns) ? numbers_[ns.level()] : 0; }

std::vector<int> Pid::NumbersFrom(const PidNamespace& ns) const {
  if (!ns_->IsWithin(ns)) return {};
  return {numbers_.begin() + ns.level(), numbers_.begin() + ns_->level() + 1};
}

PidNamespace::PidNamespace(RefPtr<PidNamespace> parent)
    : parent_(std::move(parent)),
      level_(parent_ ? parent_->level() + 1 : 0),
      inode_(parent_ ? NextInode() : kRootInode) {
  CHECK(level_ <= kMaxPidNamespaceLevel, "PID namespaces nested too deep");
}

Result<RefPtr<PidNamespace>> PidNamespace::Create(RefPtr<PidNamespace> parent, uint32_t uid) {
  if (parent->level() >= kMaxPidNamespaceLevel) return Err(ENOSPC);
  const auto most = static_cast<uint64_t>(limits::System::Get().max_pid_namespaces.load());
  if (!limits::PidNamespacesOfUsers().Charge(uid, 1, most)) return Err(ENOSPC);
  RefPtr<PidNamespace> ns = MakeRef<PidNamespace>(std::move(parent));
  ns->charged_ = uid;
  return ns;
}

PidNamespace::~PidNamespace() {
  if (charged_) limits::PidNamespacesOfUsers().Uncharge(*charged_, 1);
}

bool PidNamespace::IsWithin(const PidNamespace& ancestor) const {
  const PidNamespace* ns = this;
  while (ns->level() > ancestor.level()) ns = ns->parent();
  return ns == &ancestor;
}

const PidNamespace& PidNamespace::root() const {
  const PidNamespace* ns = this;
  while (ns->parent() != nullptr) ns = ns->parent();
  return *ns;
}

Result<RefPtr<Pid>> PidNamespace::Allocate() {
  RefPtr<Pid> pid(new Pid(RefPtr<PidNamespace>(this)));
  for (PidNamespace* ns = this; ns != nullptr; ns = ns->parent()) {
    int number = ns->Reserve();
    if (number == 0) return Err(EAGAIN);
    pid->numbers_[ns->level()] = number;
  }
  // Found only now that it is whole.
  for (PidNamespace* ns = this; ns != nullptr; ns = ns->parent()) ns->Publish(pid->numbers_[ns->level()], *pid);
  return pid;
}

RefPtr<Pid> PidNamespace::Find(int number) const {
  sync::MutexLock lock(mu_);
  auto it = numbers_.find(number);
  // On its way out it may still be there, and waits for mu_ to take itself out.
  if (it == numbers_.end() || it->second == nullptr || !it->second->TryIncRef()) return nullptr;
  return RefPtr<Pid>::Adopt(it->second);
}

int PidNamespace::ToRoot(int number) const {
  if (level_ == 0) return number;
  RefPtr<Pid> pid = Find(number);
  return pid ? pid->root_number() : 0;
}

int PidNamespace::FromRoot(int root_number) const {
  if (level_ == 0) return root_number;
  RefPtr<Pid> pid = root().Find(root_number);
  return pid ? pid->In(*this) : 0;
}

int PidNamespace::last() const {
  sync::MutexLock lock(mu_);
  return last_;
}

int PidNamespace::Reserve() {
  sync::MutexLock lock(mu_);
  for (int i = 1; i < kPidMax; i++) {
    int number = last_ + i;
    if (number >= kPidMax) number = kReservedPids + (number - kPidMax);
    if (!numbers_.try_emplace(number, nullptr).second) continue;
    last_ = number;
    return number;
  }
  return 0;
}

void PidNamespace::Publish(int number, Pid& pid) {
  sync::MutexLock lock(mu_);
  numbers_[number] = &pid;
}

void PidNamespace::Release(int number) {
  sync::MutexLock lock(mu_);
  numbers_.erase(number);
  // The first process of a namespace is number 1, also if the first that was to be made failed.
  if (numbers_.empty()) last_ = 0;
}

}  // namespace redoubt::kernel
