#include <poll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "pkg/sentry/socket/hostinet/descriptor.h"

namespace redoubt::hostinet {

namespace {

// Room for all that DecodeControl lets through, at once.
constexpr size_t kControlRoom = 512;

constinit std::atomic<int64_t> most_open{0};
constinit std::atomic<int64_t> open_now{0};

// A place among those that may be open.
bool Reserve() {
  if (open_now.fetch_add(1, std::memory_order_relaxed) < most_open.load(std::memory_order_relaxed)) return true;
  open_now.fetch_sub(1, std::memory_order_relaxed);
  return false;
}

// As of a call that makes a descriptor, for which there is a place, which is given back if there is none.
Result<int> Made(int fd) {
  if (fd >= 0) return fd;
  const int error = errno;
  open_now.fetch_sub(1, std::memory_order_relaxed);
  // The guest's own table has room.
  return Err(error == EMFILE ? ENFILE : error);
}

Result<> Done(int result) {
  if (result != 0) return ErrFromHost();
  return {};
}

// SAFETY: every socket address may be passed as a sockaddr with its size.
const sockaddr* AsSockaddr(socket::Address address) { return reinterpret_cast<const sockaddr*>(address.data()); }

template <typename Call>
Result<socket::AddressBytes> Name(Call&& call) {
  socket::AddressBytes name(sizeof(sockaddr_storage));
  auto length = static_cast<socklen_t>(name.size());
  // SAFETY: the kernel writes at most `length` bytes.
  if (call(reinterpret_cast<sockaddr*>(name.data()), &length) != 0) return ErrFromHost();
  name.resize(std::min<size_t>(length, name.size()));
  return name;
}

}  // namespace

void Descriptor::SetMost(int64_t most) { most_open.store(most, std::memory_order_relaxed); }

Result<Descriptor> Descriptor::Open(int family, int type, int protocol) {
  if (!Reserve()) return Err(ENFILE);
  return Descriptor(TRY(Made(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol))));
}

Descriptor::~Descriptor() {
  if (fd_) open_now.fetch_sub(1, std::memory_order_relaxed);
}

Result<> Descriptor::Bind(socket::Address address) const {
  return Done(::bind(fd(), AsSockaddr(address), static_cast<socklen_t>(address.size())));
}

Result<> Descriptor::Listen(int backlog) const { return Done(::listen(fd(), backlog)); }

Result<> Descriptor::Connect(socket::Address address) const {
  return Done(::connect(fd(), AsSockaddr(address), static_cast<socklen_t>(address.size())));
}

Result<Descriptor> Descriptor::Accept() const {
  if (!Reserve()) return Err(ENFILE);
  return Descriptor(TRY(Made(::accept4(fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK))));
}

Result<> Descriptor::Shutdown(int how) const { return Done(::shutdown(fd(), how)); }

Result<socket::AddressBytes> Descriptor::LocalName() const {
  return Name([this](sockaddr* name, socklen_t* length) { return ::getsockname(fd(), name, length); });
}

Result<socket::AddressBytes> Descriptor::PeerName() const {
  return Name([this](sockaddr* name, socklen_t* length) { return ::getpeername(fd(), name, length); });
}

Result<size_t> Descriptor::Send(std::span<const std::byte> data, socket::Address to, std::span<const std::byte> control,
                                int flags) const {
  // SAFETY: the kernel only reads what a message to be sent names.
  iovec iov{const_cast<std::byte*>(data.data()), data.size()};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  if (!to.empty()) {
    message.msg_name = const_cast<std::byte*>(to.data());
    message.msg_namelen = static_cast<socklen_t>(to.size());
  }
  if (!control.empty()) {
    message.msg_control = const_cast<std::byte*>(control.data());
    message.msg_controllen = control.size();
  }
  const ssize_t n = ::sendmsg(fd(), &message, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n < 0) return ErrFromHost();
  return static_cast<size_t>(n);
}

Result<Descriptor::Received> Descriptor::Receive(std::span<std::byte> data, int flags) const {
  std::array<std::byte, sizeof(sockaddr_storage)> name;
  alignas(cmsghdr) std::array<std::byte, kControlRoom> control;
  iovec iov{data.data(), data.size()};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_name = name.data();
  message.msg_namelen = name.size();
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  // SAFETY: the kernel writes at most the sizes given.
  const ssize_t n = ::recvmsg(fd(), &message, flags | MSG_DONTWAIT);
  if (n < 0) return ErrFromHost();
  auto bytes = [](const auto& from, size_t length) {
    return std::vector(from.begin(), from.begin() + static_cast<ptrdiff_t>(std::min(length, from.size())));
  };
  return Received{.bytes = static_cast<size_t>(n),
                  .flags = message.msg_flags,
                  .from = bytes(name, message.msg_namelen),
                  .control = bytes(control, message.msg_controllen)};
}

Result<> Descriptor::SetOption(int level, int name, std::span<const std::byte> value) const {
  return Done(::setsockopt(fd(), level, name, value.data(), static_cast<socklen_t>(value.size())));
}

Result<size_t> Descriptor::GetOption(int level, int name, std::span<std::byte> value) const {
  auto length = static_cast<socklen_t>(value.size());
  // SAFETY: the kernel writes at most `length` bytes.
  if (::getsockopt(fd(), level, name, value.data(), &length) != 0) return ErrFromHost();
  return std::min<size_t>(length, value.size());
}

Result<int> Descriptor::IntIoctl(uint32_t command) const {
  int value = 0;
  // SAFETY: only commands that write an int are asked.
  if (::ioctl(fd(), command, &value) != 0) return ErrFromHost();
  return value;
}

waiter::EventMask Descriptor::Poll(waiter::EventMask mask) const {
  pollfd p{.fd = fd(), .events = static_cast<short>(mask & 0x7fff), .revents = 0};
  constexpr timespec kNow{};
  if (::ppoll(&p, 1, &kNow, nullptr) <= 0) return 0;
  return static_cast<unsigned short>(p.revents);
}

}  // namespace redoubt::hostinet
