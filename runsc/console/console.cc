#include "runsc/console/console.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace redoubt::console {
namespace {

specutils::Expected<void> SendMaster(const std::string& path, int master, std::string name) {
  auto fail = [&](int e) { return std::unexpected(fmt::format("--console-socket {}: {}", path, std::strerror(e))); };
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return fail(ENAMETOOLONG);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket || connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return fail(errno);
  iovec part{name.data(), name.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &master, sizeof(int));
  if (sendmsg(socket.get(), &message, MSG_NOSIGNAL) < 0) return fail(errno);
  return {};
}

}  // namespace

specutils::Expected<UniqueFd> Offer(const std::string& socket, uint16_t rows, uint16_t columns) {
  UniqueFd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  char name[64];
  if (!master || grantpt(master.get()) != 0 || unlockpt(master.get()) != 0 ||
      ptsname_r(master.get(), name, sizeof(name)) != 0) {
    return std::unexpected(fmt::format("cannot make a terminal: /dev/ptmx: {}", std::strerror(errno)));
  }
  UniqueFd slave(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave) return std::unexpected(fmt::format("cannot open the terminal {}: {}", name, std::strerror(errno)));
  if (rows != 0 || columns != 0) {
    winsize size{.ws_row = rows, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    ioctl(slave.get(), TIOCSWINSZ, &size);
  }
  if (auto sent = SendMaster(socket, master.get(), name); !sent) return std::unexpected(sent.error());
  return slave;
}

}  // namespace redoubt::console
