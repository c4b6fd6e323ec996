#include "runsc/control/connection.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace redoubt::control {
namespace {

// The first byte of a packet.
constexpr char kInline = 'i';
constexpr char kInFile = 'f';
constexpr char kPart = 'p';  // others follow

Result<UniqueFd> FileOf(std::string_view bytes) {
  UniqueFd file(memfd_create("runsc-message", MFD_CLOEXEC));
  if (!file) return ErrFromHost();
  for (size_t at = 0; at < bytes.size();) {
    iovec part{const_cast<char*>(bytes.data()) + at, bytes.size() - at};
    ssize_t n = pwritev2(file.get(), &part, 1, static_cast<off_t>(at), 0);
    if (n < 0) return ErrFromHost();
    at += static_cast<size_t>(n);
  }
  return file;
}

// The peer may shrink the file meanwhile, or hand over something that is no file: reading it never waits.
Result<std::string> Contents(int file) {
  struct stat st{};
  // Not the library's fstat, which asks by a path: the Sentry may name none.
  if (syscall(SYS_fstat, file, &st) != 0) return ErrFromHost();
  // Only files in memory can have seals (fcntl(2)): no file system of somebody's answers in its own time.
  if (fcntl(file, F_GET_SEALS) < 0) return Err(EBADMSG);
  if (!S_ISREG(st.st_mode) || st.st_size < 0 || static_cast<size_t>(st.st_size) > kMessageLimit) return Err(EBADMSG);
  std::string bytes(static_cast<size_t>(st.st_size), '\0');
  for (size_t at = 0; at < bytes.size();) {
    iovec part{bytes.data() + at, bytes.size() - at};
    ssize_t n = preadv2(file, &part, 1, static_cast<off_t>(at), 0);
    if (n < 0) return ErrFromHost();
    if (n == 0) return Err(EBADMSG);
    at += static_cast<size_t>(n);
  }
  return bytes;
}

}  // namespace

Result<std::pair<Connection, Connection>> Connection::Pair() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return ErrFromHost();
  return std::make_pair(Connection(UniqueFd(pair[0])), Connection(UniqueFd(pair[1])));
}

Result<> Connection::SendPacket(char kind, std::string_view bytes, std::span<const int> fds, int flags) const {
  iovec parts[2] = {{&kind, 1}, {const_cast<char*>(bytes.data()), bytes.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  alignas(cmsghdr) char control[CMSG_SPACE((kDescriptorLimit + 1) * sizeof(int))];
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  while (sendmsg(socket_.get(), &message, flags | MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return ErrFromHost();
  }
  return {};
}

Result<> Connection::Send(std::string_view bytes, std::span<const int> fds, int flags) const {
  if (bytes.size() > kMessageLimit || fds.size() > kDescriptorLimit) return Err(E2BIG);
  if (bytes.size() > kInlineLimit) {
    Result<UniqueFd> file = FileOf(bytes);
    if (file) {
      std::vector<int> all(fds.begin(), fds.end());
      all.push_back(file->get());
      return SendPacket(kInFile, {}, all, flags);
    }
    if (file.error() != Errno(ENOSYS)) return Err(file.error());
    for (; bytes.size() > kInlineLimit; bytes.remove_prefix(kInlineLimit)) {
      TRY(SendPacket(kPart, bytes.substr(0, kInlineLimit), {}, flags));
    }
  }
  return SendPacket(kInline, bytes, fds, flags);
}

Result<Packet> Connection::Receive(int flags) const {
  std::string begun;
  while (true) {
    bool more = false;
    Packet packet = TRY(ReceivePacket(flags, &more));
    // The rest of a message that has begun is there, or the peer is no friend.
    if (more && (!packet.fds.empty() || begun.size() + packet.bytes.size() > kMessageLimit)) return Err(EBADMSG);
    if (!more && begun.empty()) return packet;
    begun += packet.bytes;
    if (!more) return Packet{.bytes = std::move(begun), .fds = std::move(packet.fds)};
  }
}

Result<Packet> Connection::ReceivePacket(int flags, bool* more) const {
  std::string buffer(kInlineLimit + 1, '\0');
  iovec part{buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE((kDescriptorLimit + 1) * sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t n = 0;
  while ((n = recvmsg(socket_.get(), &message, flags | MSG_CMSG_CLOEXEC)) < 0) {
    if (errno != EINTR) return ErrFromHost();
  }
  Packet packet;
  for (cmsghdr* h = CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
      packet.fds.emplace_back(fd);
    }
  }
  if (n == 0) return Err(ENOTCONN);
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return Err(EBADMSG);
  *more = buffer[0] == kPart;
  if (buffer[0] == kInline || *more) {
    packet.bytes = buffer.substr(1, static_cast<size_t>(n) - 1);
  } else if (buffer[0] == kInFile && n == 1 && !packet.fds.empty()) {
    UniqueFd file = std::move(packet.fds.back());
    packet.fds.pop_back();
    packet.bytes = TRY(Contents(file.get()));
  } else {
    return Err(EBADMSG);
  }
  return packet;
}

}  // namespace redoubt::control
