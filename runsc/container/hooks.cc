#include "runsc/container/hooks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "pkg/fd/unique_fd.h"
#include "runsc/console/progress.h"

namespace redoubt::container {
namespace {

// Of what a hook writes to stderr, this much is shown.
constexpr size_t kShown = 512;

int64_t NowMs() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& s : strings) pointers.push_back(const_cast<char*>(s.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

specutils::Expected<void> Run(const char* kind, const specutils::Hook& hook, const std::string& state) {
  int in[2], err[2];
  if (pipe2(in, O_CLOEXEC) != 0) return std::unexpected(std::string(std::strerror(errno)));
  UniqueFd in_read(in[0]), in_write(in[1]);
  if (pipe2(err, O_CLOEXEC) != 0) return std::unexpected(std::string(std::strerror(errno)));
  UniqueFd err_read(err[0]), err_write(err[1]);
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  std::vector<std::string> args = hook.args.empty() ? std::vector<std::string>{hook.path} : hook.args;
  std::vector<char*> argv = Pointers(args), envp = Pointers(hook.env);
  pid_t pid = fork();
  if (pid < 0) return std::unexpected(std::string(std::strerror(errno)));
  if (pid == 0) {
    dup2(in_read.get(), 0);
    dup2(null.get(), 1);
    dup2(err_write.get(), 2);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    signal(SIGPIPE, SIG_DFL);
    execve(hook.path.c_str(), argv.data(), envp.data());
    dprintf(2, "%s", std::strerror(errno));
    _exit(127);
  }
  UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  in_read = UniqueFd();
  err_write = UniqueFd();
  fcntl(in_write.get(), F_SETFL, O_NONBLOCK);
  const int64_t deadline = hook.timeout_seconds > 0 ? NowMs() + int64_t{hook.timeout_seconds} * 1000 : -1;
  size_t written = 0;
  std::string said;
  bool ended = false, timed_out = false;
  console::Progress progress(fmt::format("waiting for {} hook {}", kind, hook.path));
  while (!ended && !timed_out) {
    pollfd fds[3] = {{process.get(), POLLIN, 0},
                     {written < state.size() ? in_write.get() : -1, POLLOUT, 0},
                     {err_read ? err_read.get() : -1, POLLIN, 0}};
    int64_t left = deadline < 0 ? -1 : std::max<int64_t>(0, deadline - NowMs());
    const int due = progress.Due();
    const bool shows = due >= 0 && (left < 0 || due < left);
    int n = poll(fds, 3, shows ? due : static_cast<int>(left));
    if (n < 0 && errno != EINTR) break;
    if (n == 0 && shows) progress.Show();
    if (n == 0 && !shows) timed_out = true;
    if ((fds[1].revents & (POLLOUT | POLLERR)) != 0) {
      ssize_t w = write(in_write.get(), state.data() + written, state.size() - written);
      written = w < 0 ? state.size() : written + static_cast<size_t>(w);  // it need not read
      if (written >= state.size()) in_write = UniqueFd();
    }
    if ((fds[2].revents & (POLLIN | POLLHUP)) != 0) {
      char buffer[1024];
      ssize_t r = read(err_read.get(), buffer, sizeof(buffer));
      if (r <= 0) {
        err_read = UniqueFd();
      } else if (said.size() < kShown) {
        said.append(buffer, std::min<size_t>(static_cast<size_t>(r), kShown - said.size()));
      }
    }
    ended = (fds[0].revents & POLLIN) != 0;
  }
  if (!ended) kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (ended && err_read && said.size() < kShown) {
    // What it said just before its end. Children of it may hold the pipe open: only what is there.
    fcntl(err_read.get(), F_SETFL, O_NONBLOCK);
    char buffer[kShown];
    if (ssize_t r = read(err_read.get(), buffer, kShown - said.size()); r > 0)
      said.append(buffer, static_cast<size_t>(r));
  }
  while (!said.empty() && said.back() == '\n') said.pop_back();
  std::replace(said.begin(), said.end(), '\n', ' ');
  if (timed_out) return std::unexpected(fmt::format("did not end within {} s and was killed", hook.timeout_seconds));
  std::string why = said.empty() ? "" : ": " + said;
  if (WIFSIGNALED(status)) return std::unexpected(fmt::format("died of signal {}{}", WTERMSIG(status), why));
  if (WEXITSTATUS(status) != 0) return std::unexpected(fmt::format("exit status {}{}", WEXITSTATUS(status), why));
  return {};
}

}  // namespace

specutils::Expected<void> RunHooks(const char* kind, const std::vector<specutils::Hook>& hooks,
                                   const std::string& state) {
  for (const specutils::Hook& hook : hooks) {
    if (auto done = Run(kind, hook, state); !done) {
      return std::unexpected(fmt::format("{} hook {}: {}", kind, hook.path, done.error()));
    }
  }
  return {};
}

}  // namespace redoubt::container
