// What a person at a terminal sees of a command that takes longer than one waits without wondering.
#ifndef REDOUBT_RUNSC_CONSOLE_PROGRESS_H_
#define REDOUBT_RUNSC_CONSOLE_PROGRESS_H_

#include <cstdint>
#include <string>

namespace redoubt::console {

// One thing that is waited for, named on stderr if that is a terminal and a second has gone by; wiped when this is
// destroyed. Without threads and signals: whoever waits asks by Await before, or has Due as a bound of its own waiting.
class Progress final {
 public:
  // From now on nothing is shown by this process: the terminal is a guest's.
  static void Hide();

  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Returns when `fd` is readable, or when the second has gone by, and then the line is there.
  void Await(int fd);
  // Milliseconds until there is something to show; -1: there will not be.
  int Due() const;
  // If it is due.
  void Show();

 private:
  const std::string what_;
  const int64_t due_;  // CLOCK_MONOTONIC in ms; -1: never
  bool shown_ = false;
};

}  // namespace redoubt::console

#endif  // REDOUBT_RUNSC_CONSOLE_PROGRESS_H_
