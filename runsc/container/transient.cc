// A sandbox that no other command knows of: `runsc do`.
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "runsc/container/internal.h"
#include "runsc/sandbox/network.h"
#include "runsc/specutils/network.h"

namespace redoubt::container {
namespace {

constexpr char kId[] = "do";

std::unexpected<Failure> CannotSetUp(const std::string& what) { return Fail(what, sandbox::kSetupFailed); }

// A place to ask for the start, by a name that only the kernel makes (unix(7), "Autobind feature").
struct Listener {
  UniqueFd socket;
  sockaddr_un address{};
  socklen_t length = sizeof(address);

  static Expected<Listener> Create() {
    Listener l;
    l.address.sun_family = AF_UNIX;
    l.socket = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    auto* address = reinterpret_cast<sockaddr*>(&l.address);
    if (!l.socket || bind(l.socket.get(), address, sizeof(sa_family_t)) != 0 || listen(l.socket.get(), 1) != 0 ||
        getsockname(l.socket.get(), address, &l.length) != 0) {
      return std::unexpected(fmt::format("cannot listen: {}", std::strerror(errno)));
    }
    return l;
  }
};

Outcome<> StartWith(const sandbox::BorrowedNetwork& network, const Listener& listener) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket || connect(socket.get(), reinterpret_cast<const sockaddr*>(&listener.address), listener.length) != 0) {
    return CannotSetUp(fmt::format("cannot reach the sandbox: {}", std::strerror(errno)));
  }
  control::Connection connection(std::move(socket));
  std::vector<int> fds;
  for (const UniqueFd& fd : network.sockets()) fds.push_back(fd.get());
  control::Request request{
      .method = control::Method::kStart, .container = kId, .body = specutils::SerializeNetwork(network.config())};
  if (Result<> sent = connection.Send(control::Serialize(request), fds); !sent) {
    return CannotSetUp(fmt::format("cannot reach the sandbox: {}", sent.error().name()));
  }
  Outcome<control::Reply> reply = Answer(connection, kId);
  if (!reply) return CannotSetUp(reply.error().text);
  return {};
}

}  // namespace

Outcome<int> RunTransient(const Settings& given, const specutils::Spec& wanted) {
  SignalsBlocked blocked;
  specutils::Spec spec = wanted;
  ApplyFileFlags(given, spec);
  Settings settings = given;
  LogToStderr log(settings);
  // Without a network to take over it starts at once, which saves a question.
  std::optional<sandbox::BorrowedNetwork> network;
  std::optional<Listener> listener;
  if (settings.network == Network::kSandbox) {
    settings.options.network = specutils::NetworkMode::kSandbox;
    Expected<Listener> listening = Listener::Create();
    if (!listening) return CannotSetUp(listening.error());
    listener.emplace(std::move(*listening));
    Expected<sandbox::BorrowedNetwork> borrowed = sandbox::BorrowedNetwork::Borrow("");
    if (!borrowed) return CannotSetUp(borrowed.error());
    network.emplace(std::move(*borrowed));
  }
  Expected<sandbox::Sandbox> sandbox = sandbox::Sandbox::Launch({.spec = spec,
                                                                 .options = settings.options,
                                                                 .id = kId,
                                                                 .log_fd = settings.log_fd,
                                                                 .gofer_log_fd = settings.gofer_log_fd,
                                                                 .listen_fd = listener ? listener->socket.get() : -1,
                                                                 .start = !network});
  if (!sandbox) return CannotSetUp(sandbox.error());
  SayIfSlow(settings, sandbox->connection().fd(), "waiting for the sandbox to start");
  if (Outcome<control::Reply> reply = FirstAnswer(*sandbox); !reply) return std::unexpected(reply.error());
  if (network) {
    if (Outcome<> started = StartWith(*network, *listener); !started) return std::unexpected(started.error());
  }
  sandbox::Ended ended = sandbox::Relay(sandbox->connection(), &*sandbox);
  fmt::print(stderr, "{}", ended.text);
  if (!ended.error.empty()) return CannotSetUp(ended.error);
  return sandbox::ExitCode(ended.status);
}

}  // namespace redoubt::container
