#include "pkg/sentry/socket/socket.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <algorithm>
#include <bit>
#include <boost/intrusive/list.hpp>
#include <cstring>

#include "pkg/sentry/time/clock.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::socket {

namespace {

constexpr size_t kFamilies = 64;
constinit std::atomic<Family*> families[kFamilies];
constinit std::atomic<DeviceIoctls*> device_ioctls;
constinit std::atomic<uint64_t> next_cookie{1};

// Every socket, so that they can be listed. Never destroyed, as sockets may outlive main.
struct Table {
  sync::Mutex mu{sync::Rank::kLeaf};
  boost::intrusive::list<Socket> sockets GUARDED_BY(mu);
};
Table& All() {
  static Table* const table = new Table;
  return *table;
}

// Linux's SOCK_MIN_SNDBUF and SOCK_MIN_RCVBUF.
constexpr uint32_t kMinSendBuffer = 4608;
constexpr uint32_t kMinReceiveBuffer = 2304;

// Options that are a switch and no more than remembered here; a family that gives one a meaning asks option_on.
constexpr bool IsSwitch(int name) {
  switch (name) {
    case SO_DEBUG:
    case SO_REUSEADDR:
    case SO_DONTROUTE:
    case SO_BROADCAST:
    case SO_KEEPALIVE:
    case SO_OOBINLINE:
    case SO_NO_CHECK:
    case SO_REUSEPORT:
    case SO_PASSCRED:
    case SO_TIMESTAMP:
    case SO_TIMESTAMPNS:
    case SO_PASSSEC:
    case SO_RXQ_OVFL:
    case SO_WIFI_STATUS:
    case SO_LOCK_FILTER:
    case SO_SELECT_ERR_QUEUE:
    case SO_ZEROCOPY:
      return true;
    default:
      return false;
  }
}

Result<int64_t> TimeOption(std::span<const std::byte> value) {
  if (value.size() < sizeof(timeval)) return Err(EINVAL);
  timeval tv;
  std::memcpy(&tv, value.data(), sizeof(tv));
  if (tv.tv_usec < 0 || tv.tv_usec >= 1'000'000) return Err(EDOM);
  // Negative: at once (Linux's sock_set_timeout makes it 0, "no time").
  if (tv.tv_sec < 0) return int64_t{1};
  return clock::FromTimespec({.tv_sec = tv.tv_sec, .tv_nsec = tv.tv_usec * 1000});
}

timeval ToTimeval(int64_t ns) { return {.tv_sec = ns / 1'000'000'000, .tv_usec = ns % 1'000'000'000 / 1000}; }

fiber::Time After(int64_t timeout) {
  if (timeout == 0) return fiber::kForever;
  fiber::Time deadline = 0;
  return __builtin_add_overflow(fiber::Now(), timeout, &deadline) ? fiber::kForever : deadline;
}

}  // namespace

void RegisterFamily(int number, Family& family) {
  CHECK(number >= 0 && static_cast<size_t>(number) < kFamilies, "no such address family");
  families[number].store(&family, std::memory_order_release);
}

Result<Family*> FindFamily(int number) {
  if (number < 0 || static_cast<size_t>(number) >= kFamilies) return Err(EAFNOSUPPORT);
  Family* family = families[number].load(std::memory_order_acquire);
  if (family == nullptr) return Err(EAFNOSUPPORT);
  return family;
}

void RegisterDeviceIoctls(DeviceIoctls& devices) { device_ioctls.store(&devices, std::memory_order_release); }

Result<uint64_t> Socket::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  DeviceIoctls* devices = device_ioctls.load(std::memory_order_acquire);
  if (devices == nullptr) return Err(ENOTTY);
  return devices->Ioctl(io, command, arg);
}

vfs::Path MakeSocketPath(const auth::Credentials& creds) {
  return vfs::MakeNumberedPath("socket", S_IFSOCK | 0777, creds.fsuid, creds.fsgid);
}

Result<int> IntOption(std::span<const std::byte> value) {
  int result;
  if (value.size() < sizeof(result)) return Err(EINVAL);
  std::memcpy(&result, value.data(), sizeof(result));
  return result;
}

bool Socket::Knows(int name, int value) const {
  const bool internet = family_ == AF_INET || family_ == AF_INET6;
  switch (name) {
    case SO_PASSCRED:
    case SO_PASSSEC:
      return family_ == AF_UNIX || family_ == AF_NETLINK;
    case SO_REUSEPORT:
      return internet || value == 0;
    case SO_ZEROCOPY:
      return internet && type_ != SOCK_RAW;
    default:
      return true;
  }
}

Socket::Socket(vfs::Path path, int family, int type, int protocol, int flags)
    : FileDescription(std::move(path), O_RDWR | flags),
      family_(family),
      type_(type),
      protocol_(protocol),
      cookie_(next_cookie.fetch_add(1, std::memory_order_relaxed)) {
  Table& all = All();
  sync::MutexLock lock(all.mu);
  all.sockets.push_back(*this);
}

Socket::~Socket() {
  Table& all = All();
  sync::MutexLock lock(all.mu);
  all.sockets.erase(all.sockets.iterator_to(*this));
}

std::vector<RefPtr<Socket>> SocketsOf(int family) {
  std::vector<RefPtr<Socket>> found;
  Table& all = All();
  sync::MutexLock lock(all.mu);
  for (Socket& s : all.sockets) {
    // One that is being made, or ends, has no reference.
    if (s.family() == family && s.TryIncRef()) found.push_back(RefPtr<Socket>::Adopt(&s));
  }
  return found;
}

SocketOwner OwnerOf(const Socket& socket) {
  Result<vfs::Attributes> a = socket.inode().GetAttributes();
  if (!a) return {};
  return {.ino = a->ino, .uid = a->uid};
}

SocketOwners::SocketOwners(int family) {
  for (const RefPtr<Socket>& s : SocketsOf(family)) {
    if (const void* key = s->EndpointKey()) owners_.emplace(key, OwnerOf(*s));
  }
}

SocketOwner SocketOwners::Of(const void* endpoint) const {
  auto it = owners_.find(endpoint);
  return it != owners_.end() ? it->second : SocketOwner();
}

Result<> Socket::SetFilterOption(int name, std::span<const std::byte> value) {
  sync::MutexLock lock(filter_mu_);
  if (option_on(SO_LOCK_FILTER)) return Err(EPERM);
  if (name == SO_DETACH_FILTER) {
    if (filter_.empty()) return Err(ENOENT);
    TRY(AttachFilter(nullptr));
    filter_.clear();
    return {};
  }
  std::vector<sock_filter> code(value.size() / sizeof(sock_filter));
  std::memcpy(code.data(), value.data(), code.size() * sizeof(sock_filter));
  bpf::Program program = TRY(bpf::Program::CreateForPackets(code));
  TRY(AttachFilter(std::make_shared<const bpf::Program>(std::move(program))));
  filter_ = std::move(code);
  return {};
}

void Socket::InheritOptions(const Socket& listener) {
  auto copy = [](auto& to, const auto& from) {
    to.store(from.load(std::memory_order_relaxed), std::memory_order_relaxed);
  };
  copy(send_buffer_, listener.send_buffer_);
  copy(receive_buffer_, listener.receive_buffer_);
  copy(send_timeout_, listener.send_timeout_);
  copy(receive_timeout_, listener.receive_timeout_);
  copy(options_, listener.options_);
  copy(linger_, listener.linger_);
  copy(priority_, listener.priority_);
  copy(mark_, listener.mark_);
  peek_offset_.Set(listener.peek_offset_.value());
  std::vector<sock_filter> filter;
  {
    sync::MutexLock lock(listener.filter_mu_);
    filter = listener.filter_;
  }
  sync::MutexLock lock(filter_mu_);
  filter_ = std::move(filter);
}

fiber::Time Socket::ReceiveDeadline(int flags) const {
  if (nonblocking() || (flags & MSG_DONTWAIT)) return kNoWait;
  return After(receive_timeout_.load(std::memory_order_relaxed));
}

fiber::Time Socket::SendDeadline(int flags) const {
  if (nonblocking() || (flags & MSG_DONTWAIT)) return kNoWait;
  return After(send_timeout_.load(std::memory_order_relaxed));
}

Result<> Socket::SetOption(const Caller& caller, int level, int name, std::span<const std::byte> value) {
  if (level != SOL_SOCKET) return Err(ENOPROTOOPT);
  switch (name) {
    case SO_RCVTIMEO:
      receive_timeout_.store(TRY(TimeOption(value)), std::memory_order_relaxed);
      return {};
    case SO_SNDTIMEO:
      send_timeout_.store(TRY(TimeOption(value)), std::memory_order_relaxed);
      return {};
    case SO_LINGER: {
      if (value.size() < sizeof(linger)) return Err(EINVAL);
      linger l;
      std::memcpy(&l, value.data(), sizeof(l));
      linger_.store(std::bit_cast<uint64_t>(l), std::memory_order_relaxed);
      return {};
    }
    case SO_ATTACH_FILTER:
    case SO_DETACH_FILTER:
      return SetFilterOption(name, value);
    case SO_TYPE:
    case SO_PROTOCOL:
    case SO_DOMAIN:
    case SO_ERROR:
    case SO_ACCEPTCONN:
      return Err(ENOPROTOOPT);
    default:
      break;
  }
  const int number = TRY(IntOption(value));
  const uint32_t size = number < 0 ? UINT32_MAX / 4 : static_cast<uint32_t>(number);
  switch (name) {
    case SO_SNDBUFFORCE:
    case SO_RCVBUFFORCE:
      if (!caller.creds.HasCapability(CAP_NET_ADMIN)) return Err(EPERM);
      [[fallthrough]];
    case SO_SNDBUF:
    case SO_RCVBUF: {
      // socket(7): twice what was asked for, within limits. Forced sizes are limited too: the memory is the Sentry's.
      const bool force = name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE;
      const uint32_t asked = std::min(size, force ? kMaxBuffer * 16 : kMaxBuffer) * 2;
      if (name == SO_SNDBUF || name == SO_SNDBUFFORCE) {
        send_buffer_.store(std::max(asked, kMinSendBuffer), std::memory_order_relaxed);
      } else {
        receive_buffer_.store(std::max(asked, kMinReceiveBuffer), std::memory_order_relaxed);
      }
      BuffersChanged();
      return {};
    }
    case SO_PRIORITY:
      // socket(7): others than 0 to 6 are for who manages the network. Nothing here queues by it.
      if ((number < 0 || number > 6) && !caller.creds.HasCapability(CAP_NET_ADMIN) &&
          !caller.creds.HasCapability(CAP_NET_RAW)) {
        return Err(EPERM);
      }
      priority_.store(number, std::memory_order_relaxed);
      return {};
    case SO_MARK:
      // Nothing here routes or filters by it.
      if (!caller.creds.HasCapability(CAP_NET_ADMIN) && !caller.creds.HasCapability(CAP_NET_RAW)) return Err(EPERM);
      mark_.store(number, std::memory_order_relaxed);
      return {};
    case SO_PEEK_OFF:
      if (!HasPeekOffset()) return Err(EOPNOTSUPP);
      peek_offset_.Set(number);
      return {};
    case SO_RCVLOWAT:
    case SO_INCOMING_CPU:
    case SO_BUSY_POLL:
    case SO_BSDCOMPAT:
      return {};
    default:
      break;
  }
  if (!IsSwitch(name)) return Err(ENOPROTOOPT);
  if (!Knows(name, number)) return Err(EOPNOTSUPP);
  // Once on, it stays on.
  if (name == SO_LOCK_FILTER && number == 0 && option_on(name)) return Err(EPERM);
  const uint64_t bit = uint64_t{1} << name;
  if (number != 0) {
    options_.fetch_or(bit, std::memory_order_relaxed);
  } else {
    options_.fetch_and(~bit, std::memory_order_relaxed);
  }
  return {};
}

Result<std::vector<std::byte>> Socket::GetOption(const Caller&, int level, int name) {
  if (level != SOL_SOCKET) return Err(ENOPROTOOPT);
  switch (name) {
    case SO_TYPE:
      return OptionBytes<int>(type_);
    case SO_DOMAIN:
      return OptionBytes<int>(family_);
    case SO_PROTOCOL:
      return OptionBytes<int>(protocol_);
    case SO_ERROR:
      return OptionBytes<int>(TakeError());
    case SO_ACCEPTCONN:
      return OptionBytes<int>(IsListening() ? 1 : 0);
    case SO_SNDBUF:
      return OptionBytes<int>(static_cast<int>(send_buffer()));
    case SO_RCVBUF:
      return OptionBytes<int>(static_cast<int>(receive_buffer()));
    case SO_RCVTIMEO:
      return OptionBytes(ToTimeval(receive_timeout_.load(std::memory_order_relaxed)));
    case SO_SNDTIMEO:
      return OptionBytes(ToTimeval(send_timeout_.load(std::memory_order_relaxed)));
    case SO_LINGER:
      return OptionBytes(linger_.load(std::memory_order_relaxed));
    case SO_RCVLOWAT:
    case SO_SNDLOWAT:
      return OptionBytes<int>(1);
    case SO_PRIORITY:
      return OptionBytes<int>(priority_.load(std::memory_order_relaxed));
    case SO_MARK:
      return OptionBytes<int>(mark_.load(std::memory_order_relaxed));
    case SO_PEEK_OFF:
      if (!HasPeekOffset()) return Err(EOPNOTSUPP);
      return OptionBytes<int>(peek_offset_.value());
    case SO_BSDCOMPAT:
    case SO_BUSY_POLL:
      return OptionBytes<int>(0);
    case SO_INCOMING_CPU:
      return OptionBytes<int>(-1);
    case SO_COOKIE:
      return OptionBytes<uint64_t>(cookie_);
    case SO_PEERCRED:
      // Of a socket without a peer on this machine: nobody's.
      return OptionBytes(ucred{.pid = 0, .uid = UINT32_MAX, .gid = UINT32_MAX});
    case SO_BPF_EXTENSIONS:
      return OptionBytes<int>(SKF_AD_MAX);
    case SO_GET_FILTER: {
      sync::MutexLock lock(filter_mu_);
      auto bytes = std::as_bytes(std::span(filter_));
      return std::vector<std::byte>(bytes.begin(), bytes.end());
    }
    default:
      if (!IsSwitch(name)) return Err(ENOPROTOOPT);
      if ((name == SO_PASSCRED || name == SO_PASSSEC) && !Knows(name, 1)) return Err(EOPNOTSUPP);
      return OptionBytes<int>(option_on(name) ? 1 : 0);
  }
}

}  // namespace redoubt::socket
