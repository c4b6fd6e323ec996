// startContainer hooks: those that run inside (config.md of the OCI specification), before the container's own program.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runsc/console/progress.h"
#include "runsc/container/internal.h"
#include "runsc/specutils/codec.h"

namespace redoubt::container {
namespace {

// A file that holds the text and is read from its start.
Expected<UniqueFd> FileOf(const std::string& text) {
  UniqueFd file(memfd_create("runsc-state", MFD_CLOEXEC));
  if (!file || pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return std::unexpected(fmt::format("memfd: {}", std::strerror(errno)));
  }
  return file;
}

Expected<void> RunOne(const Settings& settings, const State& state, const specutils::Spec& spec,
                      const specutils::Hook& hook) {
  specutils::Process process = spec.process;
  process.terminal = false;
  process.cwd.assign(1, '/');  // GCC 12 takes the assignment of a literal for one that overlaps (its bug 105329)
  process.env = hook.env;
  process.args = {hook.path};
  if (hook.args.size() > 1) process.args.insert(process.args.end(), hook.args.begin() + 1, hook.args.end());
  Expected<UniqueFd> in = FileOf(state.ToJson(false));
  if (!in) return std::unexpected(in.error());
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  Outcome<control::Connection> connection = Connect(settings, state);
  if (!connection) return std::unexpected(connection.error().text);
  control::Request request{.method = control::Method::kExec,
                           .container = state.id,
                           .attach = true,
                           .body = specutils::SerializeProcess(process)};
  const int fds[] = {in->get(), null.get(), null.get()};
  if (Result<> sent = connection->Send(control::Serialize(request), fds); !sent) {
    return std::unexpected(std::string(sent.error().name()));
  }
  Outcome<control::Reply> reply = Answer(*connection, state.id);
  if (!reply) return std::unexpected(reply.error().text);
  // Gone with the connection, if it takes too long.
  pollfd end{connection->fd(), POLLIN, 0};
  int n = 0, left = hook.timeout_seconds > 0 ? hook.timeout_seconds * 1000 : -1;
  console::Progress progress(fmt::format("waiting for startContainer hook {}", hook.path));
  if (const int due = progress.Due(); due >= 0 && (left < 0 || due < left)) {
    progress.Await(connection->fd());
    if (left > 0) left -= due;
  }
  while ((n = poll(&end, 1, left)) < 0 && errno == EINTR) {
  }
  if (n == 0) return std::unexpected(fmt::format("did not end within {} s and was killed", hook.timeout_seconds));
  reply = Answer(*connection, state.id);
  if (!reply) return std::unexpected(reply.error().text);
  if (WIFSIGNALED(reply->status)) return std::unexpected(fmt::format("died of signal {}", WTERMSIG(reply->status)));
  if (WEXITSTATUS(reply->status) != 0) {
    return std::unexpected(fmt::format("exit status {}", WEXITSTATUS(reply->status)));
  }
  return {};
}

}  // namespace

Expected<void> RunGuestHooks(const Settings& settings, const State& state, const specutils::Spec& spec) {
  for (const specutils::Hook& hook : spec.hooks.start_container) {
    if (auto done = RunOne(settings, state, spec, hook); !done) {
      return std::unexpected(fmt::format("startContainer hook {}: {}", hook.path, done.error()));
    }
  }
  return {};
}

}  // namespace redoubt::container
