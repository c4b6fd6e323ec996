#include "pkg/sentry/fdtable/fd_table.h"

#include <algorithm>
#include <atomic>

namespace redoubt {
namespace {

std::atomic<FdTable::CloseHook> close_hook{nullptr};

}  // namespace

void FdTable::SetCloseHook(CloseHook hook) { close_hook.store(hook); }

void FdTable::Closed(File file) {
  if (!file) return;
  if (CloseHook hook = close_hook.load(std::memory_order_relaxed); hook != nullptr) hook(*this, *file);
  // close(2) reports errors of a flush, but the descriptor is gone all the same.
  (void)file->OnClose();
}

Result<FdTable::File> FdTable::Get(int fd) const {
  sync::MutexLock lock(mu_);
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size() || !slots_[fd].file) return Err(EBADF);
  return slots_[fd].file;
}

Result<bool> FdTable::GetCloexec(int fd) const {
  sync::MutexLock lock(mu_);
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size() || !slots_[fd].file) return Err(EBADF);
  return slots_[fd].cloexec;
}

Result<> FdTable::SetCloexec(int fd, bool cloexec) {
  sync::MutexLock lock(mu_);
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size() || !slots_[fd].file) return Err(EBADF);
  slots_[fd].cloexec = cloexec;
  return {};
}

Result<int> FdTable::Install(File file, bool cloexec, uint64_t limit, int from) {
  int max = static_cast<int>(std::min<uint64_t>(limit, kMaxFds));
  if (from < 0 || (from > 0 && from >= max)) return Err(EINVAL);
  sync::MutexLock lock(mu_);
  int fd = std::max(from, first_free_hint_);
  while (static_cast<size_t>(fd) < slots_.size() && slots_[fd].file) fd++;
  if (fd >= max) return Err(EMFILE);
  if (static_cast<size_t>(fd) >= slots_.size()) slots_.resize(fd + 1);
  slots_[fd] = {std::move(file), cloexec};
  if (from <= first_free_hint_) first_free_hint_ = fd + 1;
  return fd;
}

Result<> FdTable::InstallAt(int fd, File file, bool cloexec, uint64_t limit) {
  if (fd < 0 || static_cast<uint64_t>(fd) >= std::min<uint64_t>(limit, kMaxFds)) return Err(EBADF);
  File old;
  {
    sync::MutexLock lock(mu_);
    if (static_cast<size_t>(fd) >= slots_.size()) slots_.resize(fd + 1);
    old = std::move(slots_[fd].file);
    slots_[fd] = {std::move(file), cloexec};
  }
  Closed(std::move(old));
  return {};
}

Result<> FdTable::Close(int fd) {
  File file;
  {
    sync::MutexLock lock(mu_);
    if (fd < 0 || static_cast<size_t>(fd) >= slots_.size() || !slots_[fd].file) return Err(EBADF);
    file = std::move(slots_[fd].file);
    slots_[fd] = {};
    first_free_hint_ = std::min(first_free_hint_, fd);
  }
  Closed(std::move(file));
  return {};
}

void FdTable::CloseRange(uint32_t first, uint32_t last, bool set_cloexec_only) {
  std::vector<File> closed;
  {
    sync::MutexLock lock(mu_);
    for (uint64_t fd = first; fd <= last && fd < slots_.size(); fd++) {
      if (!slots_[fd].file) continue;
      if (set_cloexec_only) {
        slots_[fd].cloexec = true;
        continue;
      }
      closed.push_back(std::move(slots_[fd].file));
      slots_[fd] = {};
      first_free_hint_ = std::min(first_free_hint_, static_cast<int>(fd));
    }
  }
  for (File& f : closed) Closed(std::move(f));
}

void FdTable::CloseOnExec() {
  std::vector<File> closed;
  {
    sync::MutexLock lock(mu_);
    for (size_t fd = 0; fd < slots_.size(); fd++) {
      if (!slots_[fd].file || !slots_[fd].cloexec) continue;
      closed.push_back(std::move(slots_[fd].file));
      slots_[fd] = {};
      first_free_hint_ = std::min(first_free_hint_, static_cast<int>(fd));
    }
  }
  for (File& f : closed) Closed(std::move(f));
}

RefPtr<FdTable> FdTable::Clone() const {
  RefPtr<FdTable> copy = MakeRef<FdTable>();
  sync::MutexLock lock(mu_);
  sync::MutexLockNested copy_lock(copy->mu_);  // not yet shared
  copy->slots_ = slots_;
  copy->first_free_hint_ = first_free_hint_;
  return copy;
}

void FdTable::AddUser() {
  sync::MutexLock lock(mu_);
  users_++;
}

void FdTable::DropUser() {
  {
    sync::MutexLock lock(mu_);
    if (--users_ > 0) return;
  }
  CloseRange(0, ~uint32_t{0}, false);
}

size_t FdTable::Count() const {
  sync::MutexLock lock(mu_);
  return static_cast<size_t>(std::ranges::count_if(slots_, [](const Slot& s) { return s.file != nullptr; }));
}

std::vector<FdTable::Info> FdTable::List() const {
  std::vector<Info> list;
  sync::MutexLock lock(mu_);
  for (size_t fd = 0; fd < slots_.size(); fd++) {
    if (slots_[fd].file) list.push_back({static_cast<int>(fd), slots_[fd].file, slots_[fd].cloexec});
  }
  return list;
}

}  // namespace redoubt
