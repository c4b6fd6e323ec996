#include "runsc/console/progress.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace redoubt::console {
namespace {

constexpr int64_t kPatienceMs = 1000;
bool hidden = false;

int64_t NowMs() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

// Without these a line cannot be wiped.
bool Understands() {
  const char* term = std::getenv("TERM");
  return term != nullptr && *term != '\0' && std::string_view(term) != "dumb";
}

void Write(std::string_view text) { (void)!write(STDERR_FILENO, text.data(), text.size()); }

}  // namespace

void Progress::Hide() { hidden = true; }

Progress::Progress(std::string what)
    : what_(std::move(what)),
      due_(!hidden && isatty(STDERR_FILENO) != 0 && Understands() ? NowMs() + kPatienceMs : -1) {}

Progress::~Progress() {
  if (shown_) Write("\r\033[K");
}

int Progress::Due() const {
  if (due_ < 0 || shown_) return -1;
  return static_cast<int>(std::clamp<int64_t>(due_ - NowMs(), 0, kPatienceMs));
}

void Progress::Show() {
  if (Due() != 0) return;
  shown_ = true;
  // One line, or it could not be wiped.
  winsize size{};
  const size_t columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  Write("\r\033[K" + what_.substr(0, columns - 1));
}

void Progress::Await(int fd) {
  while (true) {
    const int due = Due();
    if (due < 0) return;
    pollfd p{fd, POLLIN, 0};
    // An error is for who reads on.
    if (const int n = poll(&p, 1, due); n != 0 && (n > 0 || errno != EINTR)) return;
    Show();
  }
}

}  // namespace redoubt::console
