#include "pkg/platform/systrap/manager_unsafe.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace redoubt::platform::systrap {

void WakeWord(std::atomic<uint32_t>& word) {
  // SAFETY: the control file stays mapped. All of them: a guest may have sent one of its threads to wait there too.
  syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

void PostCommand(CommandPage& command, uint32_t operation) {
  command.operation = operation;
  // Release: the manager reads the arguments after it has seen the number change.
  command.sequence.fetch_add(1, std::memory_order_release);
  WakeWord(command.sequence);
}

Result<> ReadAck(int pipe) {
  uint8_t answer = 0;
  for (;;) {
    ssize_t n = read(pipe, &answer, 1);
    if (n == 1) break;
    if (n < 0 && errno == EINTR) continue;
    return Err(ESRCH);
  }
  if (answer != 0) return Err(answer);
  return {};
}

}  // namespace redoubt::platform::systrap
