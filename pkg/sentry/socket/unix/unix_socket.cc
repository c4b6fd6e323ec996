#include "pkg/sentry/socket/unix/unix_socket.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "pkg/sentry/socket/unix/unix.h"

namespace redoubt::unixsock {

using socket::Blocking;
using socket::Caller;

namespace {
Identity (*current_identity)() = nullptr;
}  // namespace

void SetCurrentIdentity(Identity (*current)()) { current_identity = current; }

UnixSocket::UnixSocket(vfs::Path path, int flags, RefPtr<Endpoint> endpoint, Identity owner)
    : Socket(std::move(path), AF_UNIX, endpoint->type(), 0, flags),
      endpoint_(std::move(endpoint)),
      owner_(std::move(owner)) {
  endpoint_->SetIno(socket::OwnerOf(*this).ino);
}

UnixSocket::~UnixSocket() {
  const Name name = endpoint_->name();
  if (IsAbstract(name)) {
    fiber::MutexLock lock(bind_mu_);
    // Accepted sockets share the name of their listener, which owns it.
    if (abstract_space_ != nullptr) AbstractNames::Get().Remove(abstract_space_, name);
  }
  endpoint_->Close();
  SocketEnded();
}

Result<> UnixSocket::BindPath(const Caller& caller, const Name& name) {
  const vfs::At at{.start = caller.cwd, .name = name, .follow = false};
  Result<> made = vfs::Mknod(caller.walker(), at, S_IFSOCK | 0777, 0);
  if (!made) return Err(made.error() == Errno(EEXIST) ? Errno(EADDRINUSE) : made.error());
  vfs::Path path = TRY(vfs::Lookup(caller.walker(), at));
  Result<> bound = path.inode().type() == S_IFSOCK ? path.inode().set_bound_socket(endpoint_) : Err(EADDRINUSE);
  if (!bound) (void)vfs::Unlink(caller.walker(), at);
  return bound;
}

Result<> UnixSocket::Bind(const Caller& caller, socket::Address address) {
  Name name = TRY(ParseAddress(address));
  fiber::MutexLock lock(bind_mu_);
  if (!endpoint_->name().empty()) {
    // Binding to no name in particular is done already.
    return address.size() == sizeof(sa_family_t) ? Result<>() : Err(EINVAL);
  }
  const void* space = caller.network_space != nullptr ? caller.network_space : this;
  if (address.size() == sizeof(sa_family_t)) {
    name = TRY(AbstractNames::Get().AddAny(space, *endpoint_));
    abstract_space_ = space;
  } else if (IsAbstract(name)) {
    TRY(AbstractNames::Get().Add(space, name, *endpoint_));
    abstract_space_ = space;
  } else {
    if (name.empty()) return Err(EINVAL);
    TRY(BindPath(caller, name));
  }
  endpoint_->SetName(std::move(name));
  return {};
}

Result<> UnixSocket::Listen(const Caller& caller, int backlog) {
  if (!endpoint_->connection_based()) return Err(EOPNOTSUPP);
  return endpoint_->Listen(backlog, caller.identity());
}

Result<RefPtr<Endpoint>> UnixSocket::Find(const Caller& caller, socket::Address address) const {
  Name name = TRY(ParseAddress(address));
  RefPtr<Endpoint> found;
  if (name.empty()) {
    return Err(address.size() == sizeof(sa_family_t) ? EINVAL : ENOENT);
  } else if (IsAbstract(name)) {
    found = TRY(AbstractNames::Get().Find(caller.network_space, name));
  } else {
    vfs::Path path = TRY(vfs::Lookup(caller.walker(), {.start = caller.cwd, .name = name}));
    TRY(path.inode().CheckPermission(caller.creds, W_OK));
    if (path.inode().type() != S_IFSOCK) return Err(ECONNREFUSED);
    RefPtr<RefCounted> bound = TRY(path.inode().bound_socket());
    found = RefCast<Endpoint>(bound);
    if (!found) return Err(ECONNREFUSED);
  }
  if (found->type() != type()) return Err(EPROTOTYPE);
  return found;
}

Result<> UnixSocket::Connect(const Caller& caller, socket::Address address, fiber::Time deadline) {
  sa_family_t family = AF_UNSPEC;
  if (address.size() < sizeof(family)) return Err(EINVAL);
  std::memcpy(&family, address.data(), sizeof(family));
  if (type() == SOCK_DGRAM) {
    if (family == AF_UNSPEC) return endpoint_->SetPeer(nullptr);
    return endpoint_->SetPeer(TRY(Find(caller, address)));
  }
  RefPtr<Endpoint> listener = TRY(Find(caller, address));
  SpaceOf space{*listener};
  return Blocking(space, waiter::kOut, deadline, [&] { return endpoint_->Connect(*listener, caller.identity()); });
}

Result<RefPtr<socket::Socket>> UnixSocket::Accept(const Caller& caller, int flags, fiber::Time deadline) {
  if (!endpoint_->connection_based()) return Err(EOPNOTSUPP);
  RefPtr<Endpoint> accepted = TRY(Blocking(*this, waiter::kIn, deadline, [&] { return endpoint_->Accept(); }));
  return RefPtr<Socket>(
      MakeRef<UnixSocket>(socket::MakeSocketPath(caller.creds), flags, std::move(accepted), caller.identity()));
}

Result<size_t> UnixSocket::Send(const Caller& caller, socket::OutMessage& message, int flags, fiber::Time deadline) {
  if (flags & MSG_OOB) return Err(EOPNOTSUPP);
  RefPtr<Endpoint> to;
  if (!message.to.empty() && type() == SOCK_STREAM) {
    return Err(endpoint_->PeerName() ? EISCONN : EOPNOTSUPP);
  }
  if (!message.to.empty() && type() == SOCK_DGRAM) to = TRY(Find(caller, message.to));
  Rights rights = TRY(Rights::Launch(std::move(message.files), caller.creds.HasCapability(CAP_SYS_RESOURCE)
                                                                   ? Rights::kMaxInFlight
                                                                   : caller.descriptor_limit));
  const Identity creds = message.creds.value_or(caller.identity());
  if (type() != SOCK_STREAM) {
    auto attempt = [&] { return endpoint_->SendPacket(to.get(), message.data, rights, creds); };
    if (!to) return Blocking(*this, waiter::kOut, deadline, attempt);
    SpaceOf space{*to};
    return Blocking(space, waiter::kOut, deadline, attempt);
  }
  size_t total = 0;
  do {
    Result<size_t> n =
        Blocking(*this, waiter::kOut, deadline, [&] { return endpoint_->SendStream(message.data, rights, creds); });
    if (!n) {
      if (total > 0) break;
      return n;
    }
    total += *n;
  } while (!message.data.empty());
  return total;
}

Result<size_t> UnixSocket::ReceiveOnce(socket::InMessage& message, int flags) {
  const auto want = option_on(SO_PASSCRED) ? Endpoint::WantCreds::kYes : Endpoint::WantCreds::kNo;
  return type() == SOCK_STREAM ? endpoint_->ReceiveStream(message, flags, want, peek_offset_)
                               : endpoint_->ReceivePacket(message, flags, want, peek_offset_);
}

Result<size_t> UnixSocket::Receive(socket::InMessage& message, int flags, fiber::Time deadline) {
  if (flags & MSG_OOB) return Err(EOPNOTSUPP);
  if (message.want_from && endpoint_->connection_based()) {
    if (Result<Name> peer = endpoint_->PeerName(); peer && !peer->empty()) message.from = FormatAddress(*peer);
  }
  const bool all = type() == SOCK_STREAM && (flags & MSG_WAITALL) && !(flags & MSG_PEEK);
  size_t total = 0;
  while (true) {
    Result<size_t> n = Blocking(*this, waiter::kIn, deadline, [&] { return ReceiveOnce(message, flags); });
    if (!n) {
      if (total > 0) return total;
      return n;
    }
    total += *n;
    if (!all || *n == 0 || message.data.empty() || !message.files.empty()) return total;
  }
}

Result<> UnixSocket::Shutdown(int how) {
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return Err(EINVAL);
  endpoint_->Shutdown(how);
  return {};
}

Result<socket::AddressBytes> UnixSocket::PeerName() { return FormatAddress(TRY(endpoint_->PeerName())); }

Result<> UnixSocket::SetOption(const Caller& caller, int level, int name, std::span<const std::byte> value) {
  if (level != SOL_SOCKET) return Err(EOPNOTSUPP);
  return Socket::SetOption(caller, level, name, value);
}

Result<std::vector<std::byte>> UnixSocket::GetOption(const Caller& caller, int level, int name) {
  if (level != SOL_SOCKET) return Err(EOPNOTSUPP);
  if (name == SO_PEERCRED) return socket::OptionBytes(caller.Sees(endpoint_->PeerCredentials()));
  return Socket::GetOption(caller, level, name);
}

Result<size_t> UnixSocket::Read(IoSequence& dst, vfs::IoFlags) {
  socket::InMessage message{.data = std::move(dst)};
  Result<size_t> n = ReceiveOnce(message, 0);
  dst = std::move(message.data);
  // read(2) has no place for descriptors.
  if (!message.files.empty()) Bury(std::move(message.files));
  return n;
}

Result<size_t> UnixSocket::Write(IoSequence& src, vfs::IoFlags) {
  Rights none;
  const Identity writer = current_identity != nullptr ? current_identity() : owner_;
  return type() == SOCK_STREAM ? endpoint_->SendStream(src, none, writer)
                               : endpoint_->SendPacket(nullptr, src, none, writer);
}

Result<uint64_t> UnixSocket::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  size_t bytes;
  switch (command) {
    case FIONREAD:
      bytes = TRY(endpoint_->Readable());
      break;
    case SIOCOUTQ:
      bytes = TRY(endpoint_->Unread());
      break;
    default:
      return Socket::Ioctl(io, command, arg);
  }
  TRY(io.CopyOutObject<int32_t>(arg, static_cast<int32_t>(bytes)));
  return 0;
}

namespace {

class Unix final : public socket::Family {
 public:
  Result<RefPtr<socket::Socket>> Create(const Caller& caller, int type, int protocol, int flags) override {
    TRY(Check(type, protocol));
    return Make(caller, flags, MakeRef<Endpoint>(type, caller.identity()));
  }
  Result<std::pair<RefPtr<socket::Socket>, RefPtr<socket::Socket>>> CreatePair(const Caller& caller, int type,
                                                                               int protocol, int flags) override {
    TRY(Check(type, protocol));
    RefPtr<Endpoint> a = MakeRef<Endpoint>(type, caller.identity());
    RefPtr<Endpoint> b = MakeRef<Endpoint>(type, caller.identity());
    // Datagram sockets are connected to each other one after the other, which also watches the other's room.
    if (type == SOCK_DGRAM) {
      TRY(a->SetPeer(b));
      TRY(b->SetPeer(a));
    } else {
      Endpoint::MakePair(*a, *b);
    }
    return std::pair(Make(caller, flags, std::move(a)), Make(caller, flags, std::move(b)));
  }

 private:
  static Result<> Check(int& type, int protocol) {
    if (protocol != 0 && protocol != PF_UNIX) return Err(EPROTONOSUPPORT);
    // Linux: the same as datagrams.
    if (type == SOCK_RAW) type = SOCK_DGRAM;
    if (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET) return Err(ESOCKTNOSUPPORT);
    return {};
  }
  static RefPtr<socket::Socket> Make(const Caller& caller, int flags, RefPtr<Endpoint> endpoint) {
    return MakeRef<UnixSocket>(socket::MakeSocketPath(caller.creds), flags, std::move(endpoint), caller.identity());
  }
};

}  // namespace

socket::Family& UnixFamily() {
  static Unix* const family = new Unix();
  return *family;
}

}  // namespace redoubt::unixsock
