// An HTTP server on a TCP/IP of its own: netstack on a TAP device, no socket of the host. As root:
//
//   ip tuntap add tap0 mode tap && ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up
//   netstack_http tap0 192.0.2.2/24 [capture.pcap] & curl http://192.0.2.2/
//
// One thread, one loop: frames in, timers, then every connection as far as it goes.
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "pkg/log/log.h"
#include "pkg/netstack/inet/inet.h"
#include "pkg/netstack/link/fd_link.h"
#include "pkg/netstack/link/sniffer.h"
#include "pkg/netstack/tcp/endpoint.h"

namespace redoubt {
namespace {

using namespace netstack;  // NOLINT: an example

class MonotonicClock final : public Clock {
 public:
  Time Now() const override { return Read(CLOCK_MONOTONIC); }
  static Time Read(clockid_t clock) {
    timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * kSecond + t.tv_nsec;
  }
};

class KernelRandom final : public RandomSource {
 public:
  void Fill(std::span<std::byte> out) override { CHECK(getentropy(out.data(), out.size()) == 0); }
};

int OpenTap(const char* name) {
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0 ||
      ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0) {
    std::perror(name);
    std::exit(1);
  }
  return fd;
}

struct Connection {
  RefPtr<tcp::Endpoint> endpoint;
  std::string request, response;
  size_t written = 0;  // bytes of the response

  // Goes on as far as it can; false when it is over.
  bool Step() {
    while (response.empty()) {
      Result<Buffer> data = endpoint->Read(4096);
      if (!data) return data.error().value() == EAGAIN;
      if (data->empty() || request.size() > 8192) return false;
      size_t old = request.size();
      request.resize(old + data->size());
      data->CopyOut(0, std::as_writable_bytes(std::span(request)).subspan(old));
      if (request.find("\r\n\r\n") != std::string::npos) Answer();
    }
    while (written < response.size()) {
      Result<size_t> n =
          endpoint->WriteFrom(response.size() - written, [this](std::span<std::byte> to) -> Result<size_t> {
            std::memcpy(to.data(), response.data() + written, to.size());
            written += to.size();
            return to.size();
          });
      if (!n) return n.error().value() == EAGAIN;
    }
    return false;  // answered: HTTP/1.0 closes
  }
  // GET /N answers N bytes; anything else a greeting.
  void Answer() {
    size_t n = std::strtoul(request.c_str() + std::min<size_t>(request.size(), 5), nullptr, 10);
    std::string body =
        n == 0 ? "Hello from a TCP/IP in user space.\n" : std::string(std::min<size_t>(n, 64 << 20), 'x');
    response =
        fmt::format("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.size()) + body;
  }
};

int Main(int argc, char** argv) {
  std::string address = argc >= 3 ? argv[2] : "";
  size_t slash = address.find('/');
  std::optional<Address> own = Address::Parse(address.substr(0, slash));
  if (!own || slash == std::string::npos) {
    fmt::print(stderr, "usage: {} TAP ADDRESS/PREFIX [CAPTURE]\n", argv[0]);
    return 2;
  }
  MonotonicClock clock;
  KernelRandom random;
  Stack stack(clock, random);
  RegisterInet(stack);
  auto protocol = std::make_unique<tcp::TcpProtocol>(stack);
  tcp::TcpProtocol& tcp = *protocol;
  stack.RegisterTransport(std::move(protocol));
  int fd = OpenTap(argv[1]);
  auto tap =
      std::make_unique<FdLink>(FdLink::Options{.fd = fd, .address = {{2, 0, 0, 0, 0, 2}}, .virtio_header = true});
  FdLink* frames = tap.get();
  std::unique_ptr<LinkEndpoint> link = std::move(tap);
  if (argc > 3) {
    int file = open(argv[3], O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    Time epoch = MonotonicClock::Read(CLOCK_REALTIME) - clock.Now();
    link = std::make_unique<Sniffer>(std::move(link), clock, Sniffer::Options{.fd = file, .epoch = epoch});
  }
  Result<RefPtr<Interface>> eth0 = stack.AddInterface({.name = "eth0", .link = std::move(link)});
  uint8_t length = static_cast<uint8_t>(std::atoi(address.c_str() + slash + 1));
  CHECK(eth0 && (*eth0)->AddAddress({.prefix = {*own, length}}));
  (*eth0)->SetUp(true);

  RefPtr<tcp::Endpoint> listener = tcp::Endpoint::Create(tcp, own->family());
  CHECK(listener->Bind({Address::Any(own->family()), 80}) && listener->Listen(128));
  std::vector<Connection> connections;
  for (;;) {
    Time wait = std::clamp<Time>(stack.timers().NextDeadline() - clock.Now(), 0, kSecond);
    pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
    (void)poll(&p, 1, static_cast<int>((wait + kMillisecond - 1) / kMillisecond));
    frames->DispatchReady();
    stack.timers().RunTimers(clock.Now());
    while (auto accepted = listener->Accept()) connections.push_back({*std::move(accepted), {}, {}, 0});
    std::erase_if(connections, [](Connection& c) {
      if (c.Step()) return false;
      c.endpoint->Close();
      return true;
    });
  }
}

}  // namespace
}  // namespace redoubt

int main(int argc, char** argv) { return redoubt::Main(argc, argv); }
