// Sockets: socket(2), bind(2), listen(2), accept(2), connect(2), send(2), recv(2), getsockopt(2), ... of whatever
// family.
#include <linux/filter.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <utility>

#include "pkg/bpf/bpf.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

// The guest's ABI is the host's (x86-64).
static_assert(sizeof(msghdr) == 56 && sizeof(mmsghdr) == 64 && sizeof(cmsghdr) == 16);

constexpr size_t kMaxControl = 20480;  // net.core.optmem_max
constexpr size_t kMaxOption = 1 << 16;
constexpr int kTypeMask = 0xf;         // SOCK_TYPE_MASK
constexpr int kTypes = 11;             // SOCK_MAX
constexpr size_t kMaxMessages = 1024;  // UIO_MAXIOV, of sendmmsg(2)

// Who calls, for calls that may walk a path.
class PathCaller final {
 public:
  explicit PathCaller(Task& task) : state_(task.Walk()), caller_(Make(task, *state_.creds, state_.root, state_.cwd)) {
    caller_.umask = state_.umask;
  }
  const socket::Caller& get() const { return caller_; }
  static socket::Caller Make(Task& task, const auth::Credentials& creds, const vfs::Path& root, const vfs::Path& cwd) {
    return {.creds = creds,
            .pid = task.group().pid.get(),
            .root = root,
            .cwd = cwd,
            .descriptor_limit = task.GetLimit(RLIMIT_NOFILE).soft,
            .network_space = &task.kernel()};
  }

 private:
  Task::WalkState state_;
  socket::Caller caller_;
};

// The same for calls that do not.
const vfs::Path& NoPath() {
  static const vfs::Path* const path = new vfs::Path();
  return *path;
}
socket::Caller PlainCaller(Task& task) { return PathCaller::Make(task, task.creds(), NoPath(), NoPath()); }

Result<RefPtr<socket::Socket>> GetSocket(Task& task, int fd) {
  FdTable::File file = TRY(task.File(fd));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  RefPtr<socket::Socket> s = RefCast<socket::Socket>(file);
  if (!s) return Err(ENOTSOCK);
  return s;
}

Result<socket::AddressBytes> CopyInAddress(Task& task, Addr addr, int length) {
  if (length < 0 || static_cast<size_t>(length) > sizeof(sockaddr_storage)) return Err(EINVAL);
  return task.mm().CopyInVector<std::byte>(addr, static_cast<size_t>(length));
}

// Cut to the room that *length_addr says, where the real length is then written.
Result<> CopyOutAddress(Task& task, const socket::AddressBytes& address, Addr addr, Addr length_addr) {
  const int room = TRY(task.mm().CopyInObject<int>(length_addr));
  if (room < 0) return Err(EINVAL);
  const size_t n = std::min(address.size(), static_cast<size_t>(room));
  TRY(task.mm().CopyOutAll(addr, std::span(address).first(n)));
  return task.mm().CopyOutObject<int>(length_addr, static_cast<int>(address.size()));
}

Result<int> TypeFlags(int type) {
  static_assert(SOCK_NONBLOCK == O_NONBLOCK);
  if ((type & ~(kTypeMask | SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) return Err(EINVAL);
  if ((type & kTypeMask) >= kTypes) return Err(EINVAL);
  return type & SOCK_NONBLOCK;
}

Result<uint64_t> DoAccept(Task& task, int fd, Addr addr, Addr length_addr, int flags) {
  if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) return Err(EINVAL);
  RefPtr<socket::Socket> listener = TRY(GetSocket(task, fd));
  RefPtr<socket::Socket> accepted =
      TRY(listener->Accept(PlainCaller(task), flags & SOCK_NONBLOCK, listener->ReceiveDeadline(0)));
  if (addr != 0) {
    socket::AddressBytes name = TRY(accepted->PeerName());
    TRY(CopyOutAddress(task, name, addr, length_addr));
  }
  return TRY(task.InstallFd(std::move(accepted), (flags & SOCK_CLOEXEC) != 0));
}

// unix(7), SCM_CREDENTIALS: EINVAL for an ID that there is not, EPERM for what is not the caller's, ESRCH for no
// process.
Result<socket::Identity> CheckCredentials(Task& task, const ucred& creds) {
  const auth::Credentials& c = task.creds();
  const kernel::Container& container = *task.group().container;
  if (!container.HasUid(creds.uid) || !container.HasGid(creds.gid)) return Err(EINVAL);
  const bool own = creds.pid == task.group().pid->number();
  if (!own && !c.HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  if (creds.uid != c.ruid && creds.uid != c.euid && creds.uid != c.suid && !c.HasCapability(CAP_SETUID))
    return Err(EPERM);
  if (creds.gid != c.rgid && creds.gid != c.egid && creds.gid != c.sgid && !c.HasCapability(CAP_SETGID))
    return Err(EPERM);
  RefPtr<kernel::Pid> pid = own ? task.group().pid : task.pid_ns().Find(creds.pid);
  if (!own && (!pid || !task.kernel().FindTask(pid->root_number()))) return Err(ESRCH);
  return socket::Identity{.pid = std::move(pid), .uid = creds.uid, .gid = creds.gid};
}

// cmsg(3): what comes with a message to be sent. Levels other than SOL_SOCKET are the protocol's.
Result<> ParseControl(Task& task, const socket::Socket& s, std::span<const std::byte> control,
                      socket::OutMessage& message) {
  const bool internet = s.family() == AF_INET || s.family() == AF_INET6;
  while (control.size() >= sizeof(cmsghdr)) {
    cmsghdr header;
    std::memcpy(&header, control.data(), sizeof(header));
    if (header.cmsg_len < sizeof(header) || header.cmsg_len > control.size()) return Err(EINVAL);
    std::span<const std::byte> data = control.subspan(sizeof(header), header.cmsg_len - sizeof(header));
    if (header.cmsg_level == SOL_SOCKET) {
      switch (header.cmsg_type) {
        case SCM_RIGHTS: {
          std::vector<int> fds(data.size() / sizeof(int));
          std::memcpy(fds.data(), data.data(), fds.size() * sizeof(int));
          for (int fd : fds) message.files.push_back(TRY(task.File(fd)));
          break;
        }
        case SCM_CREDENTIALS: {
          ucred creds;
          if (data.size() != sizeof(creds)) return Err(EINVAL);
          std::memcpy(&creds, data.data(), sizeof(creds));
          message.creds = TRY(CheckCredentials(task, creds));
          break;
        }
        default:
          // The internet's families have some that are about their packets.
          if (!internet) return Err(EINVAL);
          message.control.push_back(
              {.level = SOL_SOCKET, .type = header.cmsg_type, .data = std::vector(data.begin(), data.end())});
      }
    } else {
      message.control.push_back(
          {.level = header.cmsg_level, .type = header.cmsg_type, .data = std::vector(data.begin(), data.end())});
    }
    control = control.subspan(std::min(control.size(), CMSG_ALIGN(header.cmsg_len)));
  }
  return {};
}

Result<uint64_t> Send(Task& task, socket::Socket& s, socket::OutMessage& message, int flags) {
  const fiber::Time deadline = s.SendDeadline(flags);
  Result<size_t> n;
  if (message.to.empty()) {
    n = s.Send(PlainCaller(task), message, flags, deadline);
  } else {
    PathCaller caller(task);
    n = s.Send(caller.get(), message, flags, deadline);
  }
  if (!n && n.error() == Errno(EPIPE) && s.RaisesSigpipe() && (flags & MSG_NOSIGNAL) == 0) {
    (void)task.kernel().SendToTask(task, MakeKillInfo(SIGPIPE, SI_USER, task.group().pid->number(), task.creds().ruid));
  }
  if (!n) return Err(n.error());
  return *n;
}

Result<uint64_t> SendMessage(Task& task, socket::Socket& s, const msghdr& header, int flags) {
  const auto name_length = static_cast<int>(header.msg_namelen);
  if (name_length < 0) return Err(EINVAL);
  if (header.msg_iovlen > kMaxIovecs) return Err(EMSGSIZE);
  socket::AddressBytes to;
  if (header.msg_name != nullptr && name_length > 0) {
    to = TRY(CopyInAddress(task, reinterpret_cast<Addr>(header.msg_name),
                           std::min(name_length, static_cast<int>(sizeof(sockaddr_storage)))));
  }
  socket::OutMessage message;
  message.data = TRY(CopyInIovecs(task, reinterpret_cast<Addr>(header.msg_iov), header.msg_iovlen));
  message.to = to;
  if (header.msg_control != nullptr && header.msg_controllen > 0) {
    if (header.msg_controllen > kMaxControl) return Err(ENOBUFS);
    std::vector<std::byte> control =
        TRY(task.mm().CopyInVector<std::byte>(reinterpret_cast<Addr>(header.msg_control), header.msg_controllen));
    TRY(ParseControl(task, s, control, message));
  }
  return Send(task, s, message, flags);
}

// Ancillary data for the guest's buffer, cut to its room.
class ControlWriter final {
 public:
  explicit ControlWriter(size_t room) : room_(room) {}

  // How many bytes of data the next message may have.
  size_t DataRoom() const {
    return room_ > bytes_.size() + sizeof(cmsghdr) ? room_ - bytes_.size() - sizeof(cmsghdr) : 0;
  }
  void Add(int level, int type, std::span<const std::byte> data) {
    if (room_ < bytes_.size() + sizeof(cmsghdr)) {
      truncated_ = true;
      return;
    }
    if (data.size() > DataRoom()) {
      truncated_ = true;
      data = data.first(DataRoom());
    }
    cmsghdr header{.cmsg_len = sizeof(cmsghdr) + data.size(), .cmsg_level = level, .cmsg_type = type};
    const size_t at = bytes_.size();
    bytes_.resize(std::min(room_, at + CMSG_ALIGN(header.cmsg_len)));
    std::memcpy(bytes_.data() + at, &header, sizeof(header));
    std::memcpy(bytes_.data() + at + sizeof(header), data.data(), data.size());
  }
  void SetTruncated() { truncated_ = true; }
  bool truncated() const { return truncated_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  const size_t room_;
  std::vector<std::byte> bytes_;
  bool truncated_ = false;
};

// Installs as many of the descriptors as the guest has room for; the others are closed.
void DeliverFiles(Task& task, std::vector<RefPtr<vfs::FileDescription>> files, bool cloexec, ControlWriter& control) {
  std::vector<int> fds;
  const size_t room = control.DataRoom() / sizeof(int);
  for (RefPtr<vfs::FileDescription>& file : files) {
    if (fds.size() == room) break;
    Result<int> fd = task.InstallFd(std::move(file), cloexec);
    if (!fd) break;
    fds.push_back(*fd);
  }
  if (fds.size() < files.size()) control.SetTruncated();
  if (!fds.empty()) control.Add(SOL_SOCKET, SCM_RIGHTS, std::as_bytes(std::span(fds)));
}

Result<uint64_t> ReceiveMessage(Task& task, socket::Socket& s, Addr header_addr, int flags, fiber::Time deadline) {
  msghdr header = TRY(task.mm().CopyInObject<msghdr>(header_addr));
  if (static_cast<int>(header.msg_namelen) < 0) return Err(EINVAL);
  if (header.msg_iovlen > kMaxIovecs) return Err(EMSGSIZE);
  socket::InMessage message;
  message.data = TRY(CopyInIovecs(task, reinterpret_cast<Addr>(header.msg_iov), header.msg_iovlen));
  message.want_from = header.msg_name != nullptr;
  const size_t n = TRY(s.Receive(message, flags, deadline));
  ControlWriter control(header.msg_control != nullptr ? std::min(header.msg_controllen, kMaxControl) : 0);
  if (message.creds) {
    const ucred creds = PlainCaller(task).Sees(*message.creds);
    control.Add(SOL_SOCKET, SCM_CREDENTIALS, std::as_bytes(std::span<const ucred, 1>(&creds, 1)));
  }
  if (!message.files.empty()) {
    DeliverFiles(task, std::move(message.files), (flags & MSG_CMSG_CLOEXEC) != 0, control);
  }
  for (const socket::Control& c : message.control) control.Add(c.level, c.type, c.data);
  if (control.truncated()) message.flags |= MSG_CTRUNC;
  if (header.msg_name != nullptr) {
    const size_t length = std::min<size_t>(message.from.size(), header.msg_namelen);
    TRY(task.mm().CopyOutAll(reinterpret_cast<Addr>(header.msg_name), std::span(message.from).first(length)));
    header.msg_namelen = static_cast<socklen_t>(message.from.size());
    TRY(task.mm().CopyOutObject(header_addr + offsetof(msghdr, msg_namelen), header.msg_namelen));
  }
  if (!control.bytes().empty()) {
    TRY(task.mm().CopyOutAll(reinterpret_cast<Addr>(header.msg_control), control.bytes()));
  }
  const uint64_t control_length = control.bytes().size();
  TRY(task.mm().CopyOutObject(header_addr + offsetof(msghdr, msg_controllen), control_length));
  const int out_flags = message.flags | (flags & MSG_CMSG_CLOEXEC);
  TRY(task.mm().CopyOutObject(header_addr + offsetof(msghdr, msg_flags), out_flags));
  return n;
}

}  // namespace

Result<uint64_t> Socket(Task& task, const SyscallArgs& a) {
  const int flags = TRY(TypeFlags(a.I32(1)));
  socket::Family* family = TRY(socket::FindFamily(a.I32(0)));
  RefPtr<socket::Socket> s = TRY(family->Create(PlainCaller(task), a.I32(1) & kTypeMask, a.I32(2), flags));
  return TRY(task.InstallFd(std::move(s), (a.I32(1) & SOCK_CLOEXEC) != 0));
}

Result<uint64_t> Socketpair(Task& task, const SyscallArgs& a) {
  const int flags = TRY(TypeFlags(a.I32(1)));
  socket::Family* family = TRY(socket::FindFamily(a.I32(0)));
  auto [first, second] = TRY(family->CreatePair(PlainCaller(task), a.I32(1) & kTypeMask, a.I32(2), flags));
  const bool cloexec = (a.I32(1) & SOCK_CLOEXEC) != 0;
  std::array<int32_t, 2> fds{};
  fds[0] = TRY(task.InstallFd(std::move(first), cloexec));
  Result<int> fd = task.InstallFd(std::move(second), cloexec);
  if (!fd) {
    (void)task.fds().Close(fds[0]);
    return Err(fd.error());
  }
  fds[1] = *fd;
  if (Result<> r = task.mm().CopyOutObject(a.Pointer(3), fds); !r) {
    (void)task.fds().Close(fds[0]);
    (void)task.fds().Close(fds[1]);
    return Err(r.error());
  }
  return 0;
}

Result<uint64_t> Bind(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  socket::AddressBytes address = TRY(CopyInAddress(task, a.Pointer(1), a.I32(2)));
  PathCaller caller(task);
  TRY(s->Bind(caller.get(), address));
  return 0;
}

Result<uint64_t> Listen(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  TRY(s->Listen(PlainCaller(task), a.I32(1)));
  return 0;
}

Result<uint64_t> Accept(Task& task, const SyscallArgs& a) {
  return DoAccept(task, a.I32(0), a.Pointer(1), a.Pointer(2), 0);
}

Result<uint64_t> Accept4(Task& task, const SyscallArgs& a) {
  return DoAccept(task, a.I32(0), a.Pointer(1), a.Pointer(2), a.I32(3));
}

Result<uint64_t> Connect(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  socket::AddressBytes address = TRY(CopyInAddress(task, a.Pointer(1), a.I32(2)));
  PathCaller caller(task);
  TRY(s->Connect(caller.get(), address, s->SendDeadline(0)));
  return 0;
}

Result<uint64_t> Getsockname(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  socket::AddressBytes name = TRY(s->LocalName());
  TRY(CopyOutAddress(task, name, a.Pointer(1), a.Pointer(2)));
  return 0;
}

Result<uint64_t> Getpeername(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  socket::AddressBytes name = TRY(s->PeerName());
  TRY(CopyOutAddress(task, name, a.Pointer(1), a.Pointer(2)));
  return 0;
}

Result<uint64_t> Sendto(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  socket::AddressBytes to;
  if (a.Pointer(4) != 0) to = TRY(CopyInAddress(task, a.Pointer(4), a.I32(5)));
  socket::OutMessage message;
  message.data = TRY(Buffer(task, a.Pointer(1), a.Size(2)));
  message.to = to;
  return Send(task, *s, message, a.I32(3));
}

Result<uint64_t> Sendmsg(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  msghdr header = TRY(task.mm().CopyInObject<msghdr>(a.Pointer(1)));
  return SendMessage(task, *s, header, a.I32(2));
}

Result<uint64_t> Sendmmsg(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  const size_t count = std::min<size_t>(a.U32(2), kMaxMessages);
  size_t sent = 0;
  Errno failure{EAGAIN};
  while (sent < count) {
    const Addr addr = a.Pointer(1) + sent * sizeof(mmsghdr);
    Result<msghdr> header = task.mm().CopyInObject<msghdr>(addr);
    Result<uint64_t> n = header ? SendMessage(task, *s, *header, a.I32(3)) : Err(header.error());
    if (n) {
      if (Result<> r = task.mm().CopyOutObject(addr + offsetof(mmsghdr, msg_len), static_cast<uint32_t>(*n)); !r) {
        n = Err(r.error());
      }
    }
    if (!n) {
      failure = n.error();
      break;
    }
    sent++;
  }
  if (sent > 0 || count == 0) return sent;
  return Err(failure);
}

Result<uint64_t> Recvfrom(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  const int flags = a.I32(3);
  socket::InMessage message;
  message.data = TRY(Buffer(task, a.Pointer(1), a.Size(2)));
  message.want_from = a.Pointer(4) != 0;
  const size_t n = TRY(s->Receive(message, flags, s->ReceiveDeadline(flags)));
  if (a.Pointer(4) != 0) TRY(CopyOutAddress(task, message.from, a.Pointer(4), a.Pointer(5)));
  return n;
}

Result<uint64_t> Recvmsg(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  return ReceiveMessage(task, *s, a.Pointer(1), a.I32(2), s->ReceiveDeadline(a.I32(2)));
}

Result<uint64_t> Recvmmsg(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  const size_t count = std::min<size_t>(a.U32(2), kMaxMessages);
  int flags = a.I32(3);
  fiber::Time end = fiber::kForever;
  if (a.Pointer(4) != 0) end = DeadlineAfter(TRY(CopyInTimespec(task, a.Pointer(4))));
  size_t received = 0;
  Errno failure{EAGAIN};
  while (received < count) {
    const Addr addr = a.Pointer(1) + received * sizeof(mmsghdr);
    const fiber::Time deadline = std::min(s->ReceiveDeadline(flags), end);
    Result<uint64_t> n = ReceiveMessage(task, *s, addr, flags & ~MSG_WAITFORONE, deadline);
    if (n) {
      if (Result<> r = task.mm().CopyOutObject(addr + offsetof(mmsghdr, msg_len), static_cast<uint32_t>(*n)); !r) {
        n = Err(r.error());
      }
    }
    if (!n) {
      failure = n.error();
      break;
    }
    received++;
    if (flags & MSG_WAITFORONE) flags |= MSG_DONTWAIT;
    if (fiber::Now() >= end) break;
  }
  if (received > 0 || count == 0) return received;
  return Err(failure);
}

Result<uint64_t> Shutdown(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  TRY(s->Shutdown(a.I32(1)));
  return 0;
}

// The program that a struct sock_fprog names (socket(7), SO_ATTACH_FILTER).
Result<std::vector<std::byte>> CopyInFilter(Task& task, Addr addr, size_t size) {
  if (size != sizeof(sock_fprog)) return Err(EINVAL);
  const sock_fprog program = TRY(task.mm().CopyInObject<sock_fprog>(addr));
  if (program.filter == nullptr || program.len == 0 || program.len > bpf::kMaxInstructions) return Err(EINVAL);
  return task.mm().CopyInVector<std::byte>(reinterpret_cast<Addr>(program.filter), program.len * sizeof(sock_filter));
}

Result<uint64_t> Setsockopt(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  if (a.I32(4) < 0) return Err(EINVAL);
  if (a.I32(1) == SOL_SOCKET && a.I32(2) == SO_ATTACH_FILTER) {
    std::vector<std::byte> code = TRY(CopyInFilter(task, a.Pointer(3), a.U32(4)));
    TRY(s->SetOption(PlainCaller(task), SOL_SOCKET, SO_ATTACH_FILTER, code));
    return 0;
  }
  std::vector<std::byte> value =
      TRY(task.mm().CopyInVector<std::byte>(a.Pointer(3), std::min<size_t>(a.U32(4), kMaxOption)));
  TRY(s->SetOption(PlainCaller(task), a.I32(1), a.I32(2), value));
  return 0;
}

Result<uint64_t> Getsockopt(Task& task, const SyscallArgs& a) {
  RefPtr<socket::Socket> s = TRY(GetSocket(task, a.I32(0)));
  const int room = TRY(task.mm().CopyInObject<int>(a.Pointer(4)));
  if (room < 0) return Err(EINVAL);
  if (a.I32(1) == SOL_SOCKET && a.I32(2) == SO_GET_FILTER) {
    // Lengths are in instructions.
    std::vector<std::byte> code = TRY(s->GetOption(PlainCaller(task), SOL_SOCKET, SO_GET_FILTER));
    const size_t count = code.size() / sizeof(sock_filter);
    if (room != 0 && static_cast<size_t>(room) < count) return Err(EINVAL);
    if (room != 0) TRY(task.mm().CopyOutAll(a.Pointer(3), code));
    TRY(task.mm().CopyOutObject(a.Pointer(4), static_cast<int>(count)));
    return 0;
  }
  std::vector<std::byte> value;
  if (s->AsksWithOption(a.I32(1), a.I32(2))) {
    value =
        TRY(task.mm().CopyInVector<std::byte>(a.Pointer(3), std::min<size_t>(static_cast<size_t>(room), kMaxOption)));
    value = TRY(s->AnswerOption(PlainCaller(task), a.I32(1), a.I32(2), value));
  } else {
    value = TRY(s->GetOption(PlainCaller(task), a.I32(1), a.I32(2)));
  }
  const size_t n = std::min(value.size(), static_cast<size_t>(room));
  TRY(task.mm().CopyOutAll(a.Pointer(3), std::span(value).first(n)));
  TRY(task.mm().CopyOutObject(a.Pointer(4), static_cast<int>(n)));
  return 0;
}

}  // namespace redoubt::syscalls
