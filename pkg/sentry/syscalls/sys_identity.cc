// Identity: getuid(2), setuid(2), setreuid(2), setresuid(2), setfsuid(2), the same for groups, getgroups(2), capget(2).
#include <linux/capability.h>

#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

constexpr uint32_t kKeep = ~uint32_t{0};  // -1: leave unchanged
constexpr size_t kMaxGroups = 65536;      // NGROUPS_MAX

bool HasUid(const Task& task, uint32_t uid) { return task.group().container->HasUid(uid); }
bool HasGid(const Task& task, uint32_t gid) { return task.group().container->HasGid(gid); }

Result<uint64_t> InstallUids(Task& task, RefPtr<auth::Credentials> next) {
  next->FixCapabilitiesAfterSetuid(task.creds());
  task.SetCreds(std::move(next));
  return 0;
}

}  // namespace

Result<uint64_t> Getuid(Task& t, const SyscallArgs&) { return t.creds().ruid; }
Result<uint64_t> Geteuid(Task& t, const SyscallArgs&) { return t.creds().euid; }
Result<uint64_t> Getgid(Task& t, const SyscallArgs&) { return t.creds().rgid; }
Result<uint64_t> Getegid(Task& t, const SyscallArgs&) { return t.creds().egid; }

Result<uint64_t> Setuid(Task& task, const SyscallArgs& a) {
  uint32_t uid = a.U32(0);
  const auth::Credentials& c = task.creds();
  if (!HasUid(task, uid)) return Err(EINVAL);
  RefPtr<auth::Credentials> next = c.Clone();
  if (c.HasCapability(CAP_SETUID)) {
    next->ruid = next->euid = next->suid = uid;
  } else if (uid == c.ruid || uid == c.suid) {
    next->euid = uid;
  } else {
    return Err(EPERM);
  }
  next->fsuid = next->euid;
  return InstallUids(task, std::move(next));
}

Result<uint64_t> Setreuid(Task& task, const SyscallArgs& a) {
  uint32_t r = a.U32(0);
  uint32_t e = a.U32(1);
  const auth::Credentials& c = task.creds();
  bool privileged = c.HasCapability(CAP_SETUID);
  if ((r != kKeep && !HasUid(task, r)) || (e != kKeep && !HasUid(task, e))) return Err(EINVAL);
  if (r != kKeep && !privileged && r != c.ruid && r != c.euid) return Err(EPERM);
  if (e != kKeep && !privileged && e != c.ruid && e != c.euid && e != c.suid) return Err(EPERM);
  RefPtr<auth::Credentials> next = c.Clone();
  if (r != kKeep) next->ruid = r;
  if (e != kKeep) next->euid = e;
  if (r != kKeep || (e != kKeep && e != c.ruid)) next->suid = next->euid;
  next->fsuid = next->euid;
  return InstallUids(task, std::move(next));
}

Result<uint64_t> Setresuid(Task& task, const SyscallArgs& a) {
  const auth::Credentials& c = task.creds();
  bool privileged = c.HasCapability(CAP_SETUID);
  for (int i = 0; i < 3; i++) {
    if (a.U32(i) != kKeep && !HasUid(task, a.U32(i))) return Err(EINVAL);
  }
  for (int i = 0; i < 3; i++) {
    uint32_t id = a.U32(i);
    if (id != kKeep && !privileged && id != c.ruid && id != c.euid && id != c.suid) return Err(EPERM);
  }
  RefPtr<auth::Credentials> next = c.Clone();
  if (a.U32(0) != kKeep) next->ruid = a.U32(0);
  if (a.U32(1) != kKeep) next->euid = a.U32(1);
  if (a.U32(2) != kKeep) next->suid = a.U32(2);
  next->fsuid = next->euid;
  return InstallUids(task, std::move(next));
}

Result<uint64_t> Getresuid(Task& task, const SyscallArgs& a) {
  const auth::Credentials& c = task.creds();
  TRY(task.mm().CopyOutObject(a.Pointer(0), c.ruid));
  TRY(task.mm().CopyOutObject(a.Pointer(1), c.euid));
  TRY(task.mm().CopyOutObject(a.Pointer(2), c.suid));
  return 0;
}

Result<uint64_t> Setfsuid(Task& task, const SyscallArgs& a) {
  const auth::Credentials& c = task.creds();
  uint32_t old = c.fsuid;
  uint32_t uid = a.U32(0);
  if (uid == c.ruid || uid == c.euid || uid == c.suid || uid == c.fsuid || c.HasCapability(CAP_SETUID)) {
    if (HasUid(task, uid)) {
      RefPtr<auth::Credentials> next = c.Clone();
      next->fsuid = uid;
      TRY(InstallUids(task, std::move(next)));
    }
  }
  return old;
}

Result<uint64_t> Setgid(Task& task, const SyscallArgs& a) {
  uint32_t gid = a.U32(0);
  const auth::Credentials& c = task.creds();
  if (!HasGid(task, gid)) return Err(EINVAL);
  RefPtr<auth::Credentials> next = c.Clone();
  if (c.HasCapability(CAP_SETGID)) {
    next->rgid = next->egid = next->sgid = gid;
  } else if (gid == c.rgid || gid == c.sgid) {
    next->egid = gid;
  } else {
    return Err(EPERM);
  }
  next->fsgid = next->egid;
  task.SetCreds(std::move(next));
  return 0;
}

Result<uint64_t> Setregid(Task& task, const SyscallArgs& a) {
  uint32_t r = a.U32(0);
  uint32_t e = a.U32(1);
  const auth::Credentials& c = task.creds();
  bool privileged = c.HasCapability(CAP_SETGID);
  if ((r != kKeep && !HasGid(task, r)) || (e != kKeep && !HasGid(task, e))) return Err(EINVAL);
  if (r != kKeep && !privileged && r != c.rgid && r != c.egid) return Err(EPERM);
  if (e != kKeep && !privileged && e != c.rgid && e != c.egid && e != c.sgid) return Err(EPERM);
  RefPtr<auth::Credentials> next = c.Clone();
  if (r != kKeep) next->rgid = r;
  if (e != kKeep) next->egid = e;
  if (r != kKeep || (e != kKeep && e != c.rgid)) next->sgid = next->egid;
  next->fsgid = next->egid;
  task.SetCreds(std::move(next));
  return 0;
}

Result<uint64_t> Setresgid(Task& task, const SyscallArgs& a) {
  const auth::Credentials& c = task.creds();
  bool privileged = c.HasCapability(CAP_SETGID);
  for (int i = 0; i < 3; i++) {
    if (a.U32(i) != kKeep && !HasGid(task, a.U32(i))) return Err(EINVAL);
  }
  for (int i = 0; i < 3; i++) {
    uint32_t id = a.U32(i);
    if (id != kKeep && !privileged && id != c.rgid && id != c.egid && id != c.sgid) return Err(EPERM);
  }
  RefPtr<auth::Credentials> next = c.Clone();
  if (a.U32(0) != kKeep) next->rgid = a.U32(0);
  if (a.U32(1) != kKeep) next->egid = a.U32(1);
  if (a.U32(2) != kKeep) next->sgid = a.U32(2);
  next->fsgid = next->egid;
  task.SetCreds(std::move(next));
  return 0;
}

Result<uint64_t> Getresgid(Task& task, const SyscallArgs& a) {
  const auth::Credentials& c = task.creds();
  TRY(task.mm().CopyOutObject(a.Pointer(0), c.rgid));
  TRY(task.mm().CopyOutObject(a.Pointer(1), c.egid));
  TRY(task.mm().CopyOutObject(a.Pointer(2), c.sgid));
  return 0;
}

Result<uint64_t> Setfsgid(Task& task, const SyscallArgs& a) {
  const auth::Credentials& c = task.creds();
  uint32_t old = c.fsgid;
  uint32_t gid = a.U32(0);
  bool allowed = gid == c.rgid || gid == c.egid || gid == c.sgid || c.HasCapability(CAP_SETGID);
  if (allowed && HasGid(task, gid)) {
    RefPtr<auth::Credentials> next = c.Clone();
    next->fsgid = gid;
    task.SetCreds(std::move(next));
  }
  return old;
}

Result<uint64_t> Getgroups(Task& task, const SyscallArgs& a) {
  const auto& groups = task.creds().groups;
  if (a.I32(0) < 0) return Err(EINVAL);
  if (a.I32(0) == 0) return groups.size();
  if (static_cast<size_t>(a.I32(0)) < groups.size()) return Err(EINVAL);
  TRY(task.mm().CopyOutAll(a.Pointer(1), std::as_bytes(std::span(groups))));
  return groups.size();
}

Result<uint64_t> Setgroups(Task& task, const SyscallArgs& a) {
  if (!task.creds().HasCapability(CAP_SETGID)) return Err(EPERM);
  if (a.U32(0) > kMaxGroups) return Err(EINVAL);
  std::vector<uint32_t> groups = TRY(task.mm().CopyInVector<uint32_t>(a.Pointer(1), a.U32(0)));
  for (uint32_t gid : groups) {
    if (!HasGid(task, gid)) return Err(EINVAL);
  }
  RefPtr<auth::Credentials> next = task.creds().Clone();
  next->groups = std::move(groups);
  task.SetCreds(std::move(next));
  return 0;
}

namespace {

struct CapHeader {
  uint32_t version;
  int32_t pid;
};
struct CapData {
  uint32_t effective, permitted, inheritable;
};

// Words of 32 capabilities that a version has; EINVAL, with the preferred version written back, for an unknown one
// (capget(2)).
Result<int> CapWords(Task& task, Addr header_addr, CapHeader& header) {
  header = TRY(task.mm().CopyInObject<CapHeader>(header_addr));
  switch (header.version) {
    case _LINUX_CAPABILITY_VERSION_1:
      return 1;
    case _LINUX_CAPABILITY_VERSION_2:
    case _LINUX_CAPABILITY_VERSION_3:
      return 2;
    default:
      TRY(task.mm().CopyOutObject<uint32_t>(header_addr, _LINUX_CAPABILITY_VERSION_3));
      return Err(EINVAL);
  }
}

}  // namespace

Result<uint64_t> Capget(Task& task, const SyscallArgs& a) {
  CapHeader header;
  Result<int> words = CapWords(task, a.Pointer(0), header);
  if (!words) return a.Pointer(1) == 0 && words.error() == Errno(EINVAL) ? Result<uint64_t>(0) : Err(words.error());
  if (header.pid < 0) return Err(EINVAL);
  RefPtr<const auth::Credentials> creds(&task.creds());
  if (header.pid != 0 && header.pid != task.pid().number()) {
    RefPtr<Task> target = task.FindTask(header.pid);
    if (!target) return Err(ESRCH);
    creds = target->GetCreds();
  }
  if (a.Pointer(1) == 0) return 0;
  for (int w = 0; w < *words; w++) {
    CapData data{static_cast<uint32_t>(creds->effective >> (32 * w)),
                 static_cast<uint32_t>(creds->permitted >> (32 * w)),
                 static_cast<uint32_t>(creds->inheritable >> (32 * w))};
    TRY(task.mm().CopyOutObject(a.Pointer(1) + w * sizeof(CapData), data));
  }
  return 0;
}

Result<uint64_t> Capset(Task& task, const SyscallArgs& a) {
  CapHeader header;
  int words = TRY(CapWords(task, a.Pointer(0), header));
  if (header.pid != 0 && header.pid != task.pid().number()) return Err(EPERM);
  auth::CapabilitySet effective = 0, permitted = 0, inheritable = 0;
  for (int w = 0; w < words; w++) {
    CapData data = TRY(task.mm().CopyInObject<CapData>(a.Pointer(1) + w * sizeof(CapData)));
    effective |= uint64_t{data.effective} << (32 * w);
    permitted |= uint64_t{data.permitted} << (32 * w);
    inheritable |= uint64_t{data.inheritable} << (32 * w);
  }
  effective &= auth::kAllCapabilities;
  permitted &= auth::kAllCapabilities;
  inheritable &= auth::kAllCapabilities;
  const auth::Credentials& c = task.creds();
  // capset(2)'s four rules.
  if ((permitted & ~c.permitted) != 0) return Err(EPERM);
  if ((effective & ~permitted) != 0) return Err(EPERM);
  if ((inheritable & ~(c.inheritable | c.permitted)) != 0 && !c.HasCapability(CAP_SETPCAP)) return Err(EPERM);
  if ((inheritable & ~(c.inheritable | c.bounding)) != 0) return Err(EPERM);
  RefPtr<auth::Credentials> next = c.Clone();
  next->effective = effective;
  next->permitted = permitted;
  next->inheritable = inheritable;
  next->ambient &= permitted & inheritable;
  task.SetCreds(std::move(next));
  return 0;
}

}  // namespace redoubt::syscalls
