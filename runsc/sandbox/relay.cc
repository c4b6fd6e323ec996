#include "runsc/sandbox/relay.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace redoubt::sandbox {
namespace {

// How long boot may take to end after its last word, and after its gofer has gone.
constexpr int kPatienceMs = 5000;
constexpr int kGoferPatienceMs = 500;

// What reaches this process for reasons of its own.
bool IsOwn(int sig) { return sig == SIGCHLD || sig == SIGPIPE || sig == SIGURG; }

void PassOn(const control::Connection& connection, const signalfd_siginfo& info) {
  int sig = static_cast<int>(info.ssi_signo);
  if (IsOwn(sig)) return;
  // From the terminal's driver: Ctrl-C, a new window size.
  bool keyboard = info.ssi_code == SI_KERNEL;
  if (sig == SIGWINCH && !keyboard) return;
  (void)connection.Send(
      control::Serialize(control::Request{.method = control::Method::kSignal, .signal = sig, .keyboard = keyboard}), {},
      MSG_DONTWAIT);
}

Ended Crashed(Sandbox* sandbox) {
  std::string how = sandbox != nullptr ? sandbox->AwaitEnd(kPatienceMs) : "";
  return {.status = SIGKILL,
          .text = {},
          .error = fmt::format("internal error: the sandbox has ended without a word{}; run again with --debug-log DIR "
                               "for the reason",
                               how.empty() ? "" : ": " + how)};
}

}  // namespace

Ended Relay(const control::Connection& connection, Sandbox* sandbox) {
  sigset_t all;
  sigfillset(&all);
  UniqueFd signals(signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));
  bool gofer_gone = false;
  while (true) {
    pollfd fds[3] = {{connection.fd(), POLLIN, 0},
                     {signals.get(), POLLIN, 0},
                     {sandbox != nullptr && !gofer_gone ? sandbox->gofer_pidfd() : -1, POLLIN, 0}};
    // The gofer ends by itself once the Sentry has closed its connections; otherwise the guest has lost its files.
    int n = poll(fds, 3, gofer_gone ? kGoferPatienceMs : -1);
    if (n < 0 && errno != EINTR) return {.status = SIGKILL, .text = {}, .error = "internal error: poll"};
    if (n == 0 && gofer_gone) {
      sandbox->Kill();
      return {.status = SIGKILL, .text = {}, .error = "the gofer process died; the sandbox was ended"};
    }
    if ((fds[2].revents & POLLIN) != 0) gofer_gone = true;
    if ((fds[1].revents & POLLIN) != 0) {
      signalfd_siginfo info;
      while (read(signals.get(), &info, sizeof(info)) == sizeof(info)) PassOn(connection, info);
    }
    if (fds[0].revents == 0) continue;
    Result<control::Packet> packet = connection.Receive(MSG_DONTWAIT);
    if (!packet && packet.error() == Errno(EAGAIN)) continue;
    if (!packet) return Crashed(sandbox);
    Result<control::Reply> reply = control::ParseReply(packet->bytes);
    if (!reply) return Crashed(sandbox);
    if (reply->status < 0) continue;
    if (sandbox != nullptr) (void)sandbox->AwaitEnd(kPatienceMs);
    return {.status = reply->status, .text = std::move(reply->body), .error = {}};
  }
}

int ExitCode(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

void EndAs(int status) {
  if (WIFSIGNALED(status)) {
    rlimit none{};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
    int sig = WTERMSIG(status);
    signal(sig, SIG_DFL);
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, sig);
    raise(sig);
    sigprocmask(SIG_UNBLOCK, &only, nullptr);
  }
  _exit(ExitCode(status));
}

}  // namespace redoubt::sandbox
