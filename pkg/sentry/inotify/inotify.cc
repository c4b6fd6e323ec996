#include "pkg/sentry/inotify/inotify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cstring>
#include <ranges>
#include <utility>
#include <vector>

#include "pkg/sentry/inotify/instance.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::inotify {

namespace {

constexpr uint32_t kKept = IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT;

limits::UserCount& InstancesOfUsers() {
  static auto* const count = new limits::UserCount();
  return *count;
}

}  // namespace

Inotify::Inotify(uint32_t owner, int flags)
    : FileDescription(vfs::MakeAnonymousPath("anon_inode:inotify"), O_RDONLY | flags),
      instance_(MakeRef<Instance>(owner)) {}

Inotify::~Inotify() {
  instance_->Close();
  for (const RefPtr<Mark>& mark : instance_->Marks()) (void)vfs::Watches::Remove(*mark);
  InstancesOfUsers().Uncharge(instance_->owner(), 1);
}

Result<RefPtr<Inotify>> Inotify::Create(uint32_t owner, int flags) {
  const auto most = static_cast<uint64_t>(limits::System::Get().inotify_max_instances.load());
  if (!InstancesOfUsers().Charge(owner, 1, most)) return Err(EMFILE);
  return RefPtr<Inotify>(new Inotify(owner, flags));
}

Result<int> Inotify::AddWatch(const vfs::Path& path, uint32_t mask) {
  fiber::MutexLock lock(add_mu_);
  if (RefPtr<vfs::Watch> watch = vfs::Watches::Find(path.inode(), instance_.get())) {
    if ((mask & IN_MASK_CREATE) != 0) return Err(EEXIST);
    auto& known = static_cast<Mark&>(*watch);
    known.set_mask(((mask & IN_MASK_ADD) != 0 ? known.mask() : 0) | (mask & kKept));
    return known.descriptor();
  }
  RefPtr<Mark> mark = MakeRef<Mark>(path, instance_, mask & kKept);
  TRY(instance_->Register(mark));
  const int descriptor = mark->descriptor();
  if (Result<> added = vfs::Watches::Add(mark); !added) {
    instance_->Unregister(*mark);
    return Err(added.error());
  }
  return descriptor;
}

Result<> Inotify::RemoveWatch(int descriptor) {
  RefPtr<Mark> mark = instance_->Find(descriptor);
  if (!mark || !vfs::Watches::Remove(*mark)) return Err(EINVAL);
  return {};
}

Result<size_t> Inotify::Read(IoSequence& dst, vfs::IoFlags) {
  size_t done = 0;
  std::vector<std::byte> bytes;
  while (true) {
    Result<Event> event = instance_->Take(dst.remaining());
    if (!event) {
      if (done > 0) return done;
      return Err(event.error());
    }
    const inotify_event header{.wd = event->descriptor,
                               .mask = event->mask,
                               .cookie = event->cookie,
                               .len = static_cast<uint32_t>(event->NameSize())};
    bytes.assign(event->Size(), std::byte{0});
    std::memcpy(bytes.data(), &header, sizeof(header));
    std::memcpy(bytes.data() + sizeof(header), event->name.data(), event->name.size());
    Result<size_t> copied = dst.CopyOut(bytes);
    // As on Linux, an event that could not be copied is lost.
    if (!copied || *copied < bytes.size()) {
      if (done > 0) return done;
      return Err(EFAULT);
    }
    done += bytes.size();
  }
}

Result<uint64_t> Inotify::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  if (command != FIONREAD) return Err(ENOTTY);
  TRY(io.CopyOutObject(arg, static_cast<int32_t>(std::min<size_t>(instance_->queued_bytes(), INT32_MAX))));
  return 0;
}

// Without file handles, which cannot be asked for here.
std::string Inotify::FdInfo() {
  std::string lines;
  // The newest first, as Linux has them.
  for (const RefPtr<Mark>& mark : std::views::reverse(instance_->Marks())) {
    Result<vfs::Attributes> attrs = mark->inode().GetAttributes();
    if (!attrs) continue;
    // The kernel's own numbering of devices.
    const uint32_t device = major(attrs->dev) << 20 | minor(attrs->dev);
    lines += fmt::format("inotify wd:{:x} ino:{:x} sdev:{:x} mask:{:x} ignored_mask:0 \n", mark->descriptor(),
                         attrs->ino, device, mark->mask());
  }
  return lines;
}

waiter::EventMask Inotify::Readiness(waiter::EventMask mask) {
  return instance_->queued_bytes() > 0 ? mask & (waiter::kIn | waiter::kRdNorm) : 0;
}

void Inotify::RegisterWaiter(waiter::Entry& entry) { instance_->waiters().Register(entry); }
void Inotify::UnregisterWaiter(waiter::Entry& entry) { instance_->waiters().Unregister(entry); }

}  // namespace redoubt::inotify
