#include "pkg/sentry/ipc/shared_memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "pkg/sentry/time/clock.h"

namespace redoubt::ipc {

namespace {

int64_t Now() { return clock::Realtime() / 1'000'000'000; }

// linux/shm.h; not in the C library's header under its default macros.
constexpr uint32_t kDestroyed = 01000;  // SHM_DEST

}  // namespace

Segment::Segment(SharedMemory& owner, pgalloc::MemoryFile& memory_file, int id, uint64_t size,
                 const Permissions& permissions, int creator)
    : id(id),
      owner_(owner),
      size_(size),
      key_(permissions.key),
      creator_(creator),
      pages_(MakeRef<mm::SharedAnonymous>(memory_file, MustPageRoundUp(size))),
      permissions_(permissions),
      change_time_(Now()) {
  sync::MutexLock lock(mu_);
  permissions_.id = id;
}

Result<> Segment::CheckUse(const auth::Credentials& creds, int flags) {
  sync::MutexLock lock(mu_);
  const auto mode = static_cast<uint32_t>(flags);
  return permissions_.Check(creds, (mode >> 6 | mode >> 3 | mode) & 7);
}

Result<> Segment::Attach(const auth::Credentials& creds, bool write, int pid) {
  sync::MutexLock lock(mu_);
  TRY(permissions_.Check(creds, write ? 6 : 4));
  last_pid_ = pid;
  attach_time_ = Now();
  return {};
}

void Segment::Detached(int pid) {
  sync::MutexLock lock(mu_);
  last_pid_ = pid;
  detach_time_ = Now();
}

std::vector<AddrRange> Segment::AttachedAt(const memmap::MappingSpace& space, Addr addr) {
  sync::MutexLock lock(mu_);
  auto it = attachments_.find(AttachmentKey(const_cast<memmap::MappingSpace*>(&space), addr));
  return it != attachments_.end() ? it->second : std::vector<AddrRange>();
}

Result<shmid_ds> Segment::Stat(const auth::Credentials& creds, bool check) {
  sync::MutexLock lock(mu_);
  if (check) TRY(permissions_.Check(creds, 4));
  shmid_ds ds = {};
  ds.shm_perm = permissions_.ToGuest();
  if (removed_) ds.shm_perm.mode |= kDestroyed;
  ds.shm_segsz = size_;
  ds.shm_atime = attach_time_;
  ds.shm_dtime = detach_time_;
  ds.shm_ctime = change_time_;
  ds.shm_cpid = creator_;
  ds.shm_lpid = last_pid_;
  ds.shm_nattch = attachments_.size();
  return ds;
}

Result<> Segment::Set(const auth::Credentials& creds, const ipc_perm& p) {
  sync::MutexLock lock(mu_);
  TRY(permissions_.CheckOwner(creds));
  permissions_.uid = p.uid;
  permissions_.gid = p.gid;
  permissions_.mode = p.mode & 0777;
  change_time_ = Now();
  return {};
}

Result<> Segment::Remove(const auth::Credentials& creds) {
  bool unused;
  {
    sync::MutexLock lock(mu_);
    TRY(permissions_.CheckOwner(creds));
    removed_ = true;
    permissions_.key = IPC_PRIVATE;
    unused = attachments_.empty();
  }
  // Still there for those who know the identifier, until the last has let go.
  owner_.table_.ForgetKey(id);
  if (unused) owner_.table_.Remove(id);
  return {};
}

Result<> Segment::AddMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool) {
  sync::MutexLock lock(mu_);
  attachments_[AttachmentKey(&space, range.start - offset)].push_back(range);
  return {};
}

void Segment::RemoveMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool) {
  bool gone = false;
  {
    sync::MutexLock lock(mu_);
    auto it = attachments_.find(AttachmentKey(&space, range.start - offset));
    if (it == attachments_.end()) return;
    std::vector<AddrRange> kept;
    for (const AddrRange& r : it->second) {
      if (!r.Overlaps(range)) {
        kept.push_back(r);
        continue;
      }
      if (r.start < range.start) kept.push_back({r.start, range.start});
      if (r.end > range.end) kept.push_back({range.end, r.end});
    }
    it->second = std::move(kept);
    if (it->second.empty()) {
      attachments_.erase(it);
      gone = removed_ && attachments_.empty();
    }
  }
  if (gone) owner_.table_.Remove(id);
}

Result<memmap::FileRange> Segment::Translate(uint64_t offset, uint64_t length, AccessType access) {
  return pages_->Translate(offset, length, access);
}

std::string Segment::MappedName() const { return fmt::format("/SYSV{:08x} (deleted)", static_cast<uint32_t>(key_)); }

Result<RefPtr<Segment>> SharedMemory::Get(key_t key, uint64_t size, int flags, const auth::Credentials& creds,
                                          int pid) {
  return table_.Get(
      key, flags, kMaxSegments,
      [&](int id) -> Result<RefPtr<Segment>> {
        if (size == 0 || size > kMaxSize) return Err(EINVAL);
        return MakeRef<Segment>(*this, memory_file_, id, size,
                                Permissions::Of(key, static_cast<uint32_t>(flags), creds), pid);
      },
      [&](Segment& segment) -> Result<> {
        if (size > segment.size()) return Err(EINVAL);
        return segment.CheckUse(creds, flags);
      });
}

}  // namespace redoubt::ipc
