// Sockets of every family, as the socket calls see them: socket(2), socket(7). A family (unix, inet, netlink)
// implements Socket and registers a Family; the syscall layer knows no family.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_SOCKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_SOCKET_H_

#include <linux/filter.h>
#include <sys/socket.h>

#include <atomic>
#include <bit>
#include <boost/intrusive/list_hook.hpp>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pkg/bpf/bpf.h"
#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/kernel/pid_namespace.h"
#include "pkg/sentry/socket/peek_offset.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/vfs.h"
#include "pkg/sentry/wait/wait.h"
#include "pkg/sync/mutex.h"

namespace redoubt::socket {

// A socket address as the guest gave it, the family's two bytes first: at most sizeof(sockaddr_storage) bytes, hostile.
using Address = std::span<const std::byte>;
using AddressBytes = std::vector<std::byte>;

// Who a socket or a message is of: unix(7), SO_PEERCRED and SCM_CREDENTIALS. The process may have ended since.
struct Identity {
  RefPtr<kernel::Pid> pid;  // null: nobody's, or the kernel's
  uint32_t uid = UINT32_MAX, gid = UINT32_MAX;
  friend bool operator==(const Identity&, const Identity&) = default;
};

// Who makes the call. Borrowed for the call.
struct Caller {
  const auth::Credentials& creds;
  kernel::Pid* pid = nullptr;  // of the process; null: the kernel itself
  const vfs::Path& root;
  const vfs::Path& cwd;
  uint32_t umask = 022;
  uint64_t descriptor_limit = 1024;     // RLIMIT_NOFILE
  const void* network_space = nullptr;  // whose abstract names, ports, ... are meant
  vfs::Walker walker() const { return {creds, root, umask}; }
  int pid_number() const { return pid != nullptr ? pid->number() : 0; }
  Identity identity() const { return {.pid = RefPtr<kernel::Pid>(pid), .uid = creds.euid, .gid = creds.egid}; }
  // As the caller's PID namespace has it; no process: 0.
  ucred Sees(const Identity& who) const {
    return {.pid = who.pid && pid != nullptr ? who.pid->In(pid->ns()) : 0, .uid = who.uid, .gid = who.gid};
  }
};

// A deadline for calls that must not wait at all.
inline constexpr fiber::Time kNoWait = std::numeric_limits<fiber::Time>::min();

// Ancillary data of the protocol's own (cmsg(3)): IP_PKTINFO, IP_RECVERR, ...
struct Control {
  int level = 0;
  int type = 0;
  std::vector<std::byte> data;
};

// What sendmsg(2) sends besides the data.
struct OutMessage {
  IoSequence data;
  Address to;                                       // empty: none
  std::vector<RefPtr<vfs::FileDescription>> files;  // SCM_RIGHTS; taken if anything was sent
  std::optional<Identity> creds;                    // SCM_CREDENTIALS, already checked
  std::vector<Control> control = {};                // as the guest gave it: hostile
};

// What recvmsg(2) gets.
struct InMessage {
  IoSequence data;
  bool want_from = false;
  int flags = 0;      // out: MSG_TRUNC, MSG_EOR, ...
  AddressBytes from;  // only if wanted; empty: the sender has no name
  std::vector<RefPtr<vfs::FileDescription>> files;
  std::optional<Identity> creds;  // if the socket wants them
  std::vector<Control> control;
};

// An open socket. Calls with a deadline wait, interruptibly, until it has come: kNoWait gives EAGAIN at once, and so
// does a deadline that passes. Read and Write are Receive and Send without waiting, as for any description.
class Socket : public vfs::FileDescription, public boost::intrusive::list_base_hook<> {
 public:
  ~Socket() override;
  int family() const { return family_; }
  int type() const { return type_; }  // SOCK_STREAM, ...
  int protocol() const { return protocol_; }

  virtual Result<> Bind(const Caller& caller, Address address) { return Err(EOPNOTSUPP); }
  virtual Result<> Listen(const Caller& caller, int backlog) { return Err(EOPNOTSUPP); }
  virtual Result<> Connect(const Caller& caller, Address address, fiber::Time deadline) { return Err(EOPNOTSUPP); }
  // The new socket has `flags` (O_NONBLOCK).
  virtual Result<RefPtr<Socket>> Accept(const Caller& caller, int flags, fiber::Time deadline) {
    return Err(EOPNOTSUPP);
  }
  // `flags`: MSG_*. A stream sends all unless something comes in between, and then says how much.
  virtual Result<size_t> Send(const Caller& caller, OutMessage& message, int flags, fiber::Time deadline) = 0;
  virtual Result<size_t> Receive(InMessage& message, int flags, fiber::Time deadline) = 0;
  virtual Result<> Shutdown(int how) { return Err(EOPNOTSUPP); }  // SHUT_RD, SHUT_WR, SHUT_RDWR
  virtual Result<AddressBytes> LocalName() = 0;
  virtual Result<AddressBytes> PeerName() = 0;  // ENOTCONN

  // setsockopt(2), getsockopt(2). The base implements what socket(7) has for every family; derived ones add theirs and
  // call it. ENOPROTOOPT, EINVAL. A value got is cut to the caller's length by the syscall.
  virtual Result<> SetOption(const Caller& caller, int level, int name, std::span<const std::byte> value);
  // The value of SO_ATTACH_FILTER is the program's instructions, which the syscall layer has fetched.
  virtual Result<std::vector<std::byte>> GetOption(const Caller& caller, int level, int name);
  // The same for the few options that are a question: `given` are bytes that the guest had put where the answer goes.
  virtual Result<std::vector<std::byte>> AnswerOption(const Caller& caller, int level, int name,
                                                      std::span<const std::byte> given) {
    return GetOption(caller, level, name);
  }
  virtual bool AsksWithOption(int level, int name) const { return false; }

  // Deadlines of calls that start now, by O_NONBLOCK, MSG_DONTWAIT in `flags`, SO_RCVTIMEO and SO_SNDTIMEO.
  fiber::Time ReceiveDeadline(int flags) const;
  fiber::Time SendDeadline(int flags) const;

  // What a family does not know goes to the network devices: netdevice(7) works on a socket of any family. ENOTTY.
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;

  // Changes when the peer has announced urgent data: SIGURG.
  virtual uint32_t UrgentMarks() const { return 0; }
  // What the protocol's own lists know this by, for SocketOwners; null if it is in none.
  virtual const void* EndpointKey() const { return nullptr; }

  Result<uint64_t> Seek(int64_t, int) override { return Err(ESPIPE); }
  bool SupportsEpoll() const override { return true; }
  bool RaisesSigpipe() const override { return type_ == SOCK_STREAM; }
  fiber::Time ReadDeadline() const override { return ReceiveDeadline(0); }
  fiber::Time WriteDeadline() const override { return SendDeadline(0); }

  static constexpr uint32_t kDefaultBuffer = 212992;  // net.core.wmem_default, rmem_default
  static constexpr uint32_t kMaxBuffer = 212992;      // what SO_SNDBUF may ask for; it is doubled

 protected:
  Socket(vfs::Path path, int family, int type, int protocol, int flags);

  uint32_t send_buffer() const { return send_buffer_.load(std::memory_order_relaxed); }
  uint32_t receive_buffer() const { return receive_buffer_.load(std::memory_order_relaxed); }
  // SO_ERROR: the pending error, which it clears; and SO_ACCEPTCONN.
  virtual int TakeError() { return 0; }
  virtual bool IsListening() const { return false; }
  virtual void BuffersChanged() {}
  // SO_ATTACH_FILTER; null: SO_DETACH_FILTER. ENOPROTOOPT: this family has no filters.
  virtual Result<> AttachFilter(std::shared_ptr<const bpf::Program> program) { return Err(ENOPROTOOPT); }
  // Whether there is SO_PEEK_OFF; then Receive heeds peek_offset_.
  virtual bool HasPeekOffset() const { return false; }
  // Whether a SOL_SOCKET option that is on or off is on.
  bool option_on(int name) const { return options_.load(std::memory_order_relaxed) >> name & 1; }
  // SO_LINGER.
  linger linger_option() const { return std::bit_cast<linger>(linger_.load(std::memory_order_relaxed)); }
  // Options above as accept(2) hands them from the listener to the new socket; of a filter what SO_GET_FILTER shows,
  // since the family hands on the program.
  void InheritOptions(const Socket& listener) EXCLUDES(filter_mu_);

  PeekOffset peek_offset_;

 private:
  Result<> SetFilterOption(int name, std::span<const std::byte> value) EXCLUDES(filter_mu_);

  // Whether this kind of socket has that SOL_SOCKET switch.
  bool Knows(int name, int value) const;

  const int family_, type_, protocol_;
  const uint64_t cookie_;                   // SO_COOKIE: no other socket has it, nor will have
  std::atomic<int> priority_{0}, mark_{0};  // SO_PRIORITY, SO_MARK
  std::atomic<uint32_t> send_buffer_{kDefaultBuffer}, receive_buffer_{kDefaultBuffer};
  std::atomic<int64_t> send_timeout_{0}, receive_timeout_{0};  // nanoseconds; 0: none
  std::atomic<uint64_t> options_{0};                           // a bit for each option by its number
  std::atomic<uint64_t> linger_{0};                            // struct linger
  mutable sync::Mutex filter_mu_{sync::Rank::kSocket};
  std::vector<sock_filter> filter_ GUARDED_BY(filter_mu_);  // as it was attached: SO_GET_FILTER
};

// All sockets of a family there are now.
std::vector<RefPtr<Socket>> SocketsOf(int family);
// What sock_diag(7) and /proc/net show of a socket besides its own state: the inode by which /proc/PID/fd names it, and
// its owner.
struct SocketOwner {
  uint64_t ino = 0;
  uint32_t uid = 0;
};
SocketOwner OwnerOf(const Socket& socket);
// Those of all sockets that a family has now, by EndpointKey.
class SocketOwners final {
 public:
  explicit SocketOwners(int family);
  // An endpoint that no socket has is nobody's: closed, or not yet accepted.
  SocketOwner Of(const void* endpoint) const;

 private:
  std::unordered_map<const void*, SocketOwner> owners_;
};

// An address family. Thread-safe.
class Family {
 public:
  virtual ~Family() = default;
  // EPROTONOSUPPORT, ESOCKTNOSUPPORT. `flags`: O_NONBLOCK.
  virtual Result<RefPtr<Socket>> Create(const Caller& caller, int type, int protocol, int flags) = 0;
  virtual Result<std::pair<RefPtr<Socket>, RefPtr<Socket>>> CreatePair(const Caller& caller, int type, int protocol,
                                                                       int flags) {
    return Err(EOPNOTSUPP);
  }
};
// By the composition root, before the first socket. `family` lives for ever.
void RegisterFamily(int number, Family& family);
// EAFNOSUPPORT.
Result<Family*> FindFamily(int number);

// The requests of netdevice(7). Thread-safe.
class DeviceIoctls {
 public:
  virtual ~DeviceIoctls() = default;
  // ENOTTY for a command that is none of them.
  virtual Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) = 0;
};
// By the family that has the devices. `devices` lives for ever.
void RegisterDeviceIoctls(DeviceIoctls& devices);

// A socket's place in /proc/PID/fd: "socket:[N]".
vfs::Path MakeSocketPath(const auth::Credentials& creds);

// An option's value as an int: EINVAL if it is shorter.
Result<int> IntOption(std::span<const std::byte> value);
template <typename T>
std::vector<std::byte> OptionBytes(const T& value) {
  auto bytes = std::as_bytes(std::span<const T, 1>(&value, 1));
  return {bytes.begin(), bytes.end()};
}

// wait::Retry as sockets do it: a deadline that passes is EAGAIN, and an interrupted call with one does not restart
// (signal(7)).
template <typename Object, typename Attempt>
auto Blocking(Object& object, waiter::EventMask mask, fiber::Time deadline, Attempt&& attempt) -> decltype(attempt()) {
  if (deadline == kNoWait) return attempt();
  auto result = wait::Retry(object, mask, deadline, attempt);
  if (result) return result;
  if (result.error() == Errno(ETIMEDOUT)) return Err(EAGAIN);
  if (result.error() == kErestartsys && deadline != fiber::kForever) return Err(EINTR);
  return result;
}

// The same for attempts that may fail with ETIMEDOUT of their own, which is not the deadline's.
template <typename Object, typename Attempt>
auto Wait(Object& object, waiter::EventMask mask, fiber::Time deadline, Attempt&& attempt) -> decltype(attempt()) {
  decltype(attempt()) outcome = Err(EAGAIN);
  Result<> waited = Blocking(object, mask, deadline, [&]() -> Result<> {
    outcome = attempt();
    if (!outcome && outcome.error() == Errno(EAGAIN)) return Err(EAGAIN);
    return {};
  });
  if (!waited) return Err(waited.error());
  return outcome;
}

}  // namespace redoubt::socket

#endif  // REDOUBT_PKG_SENTRY_SOCKET_SOCKET_H_
