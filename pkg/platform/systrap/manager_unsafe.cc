#include "pkg/platform/systrap/manager_unsafe.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "pkg/platform/affinity.h"

namespace redoubt::platform::systrap {
namespace {

// Of rdtsc: some 10 ms.
constexpr uint64_t kStay = 30'000'000;
// Some 40 us: a manager that has not answered by then was not waked.
constexpr uint64_t kLate = 120'000;

// Of the calling thread.
struct Placement {
  int cpu = -1;
  uint64_t since = 0;
};
[[gnu::noinline]] Placement& OfCaller() {
  static thread_local Placement placement;
  return placement;
}

// Where it is, and stays for a while; -1 if it cannot be kept.
int TieCaller() {
  Placement& p = OfCaller();
  const uint64_t now = __builtin_ia32_rdtsc();
  if (p.cpu >= 0 && now - p.since > kStay) {
    LetRoam(0);
    p.cpu = -1;
  }
  if (p.cpu < 0) {
    int cpu = sched_getcpu();
    if (cpu < 0 || cpu >= CPU_SETSIZE || !TieTo(0, cpu)) return -1;
    p = {.cpu = cpu, .since = now};
  }
  return p.cpu;
}

}  // namespace

void BringManager(pid_t manager, ManagerPlace& place) {
  if (CPU_COUNT(&AllCpus()) < 2) return;
  const int cpu = TieCaller();
  if (cpu >= 0 && place.at != cpu && TieTo(manager, cpu)) place = {.at = cpu};
}

bool SendManagerAway(pid_t manager, ManagerPlace& place) {
  if (CPU_COUNT(&AllCpus()) < 2) return false;
  const int cpu = TieCaller();
  if (cpu < 0) return false;
  if (place.off == cpu) return true;
  cpu_set_t set = AllCpus();
  CPU_CLR(cpu, &set);
  if (sched_setaffinity(manager, sizeof(set), &set) != 0) return false;
  place = {.off = cpu};
  return true;
}

void FreeManager(pid_t manager, ManagerPlace& place) {
  if (place.at >= 0 || place.off >= 0) LetRoam(manager);
  place = {};
}

bool KeepOff(pid_t tid, std::atomic<int>& kept_off) {
  if (CPU_COUNT(&AllCpus()) < 2) return false;
  const int cpu = TieCaller();
  if (cpu < 0 || kept_off.load(std::memory_order_relaxed) == cpu) return false;
  cpu_set_t set = AllCpus();
  CPU_CLR(cpu, &set);
  if (sched_setaffinity(tid, sizeof(set), &set) != 0) return false;
  kept_off.store(cpu, std::memory_order_relaxed);
  return true;
}

void WakeWord(std::atomic<uint32_t>& word) {
  // SAFETY: the control file stays mapped. All of them: a guest may have sent one of its threads to wait there too.
  syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

void WriteCommand(CommandPage& command, uint32_t operation) {
  command.operation = operation;
  // Release: the manager reads the arguments after it has seen the number change.
  command.sequence.fetch_add(1, std::memory_order_release);
}

void PostCommand(CommandPage& command, uint32_t operation) {
  WriteCommand(command, operation);
  WakeWord(command.sequence);
}

void SpinForAck(CommandPage& command, const std::atomic<uint32_t>& done, int pipe) {
  const uint32_t sequence = command.sequence.load(std::memory_order_relaxed);
  const uint64_t start = __builtin_ia32_rdtsc();
  while (done.load(std::memory_order_acquire) != sequence && __builtin_ia32_rdtsc() - start < kLate) {
    __builtin_ia32_pause();
  }
  // The guest can write `done` too.
  pollfd ready{.fd = pipe, .events = POLLIN, .revents = 0};
  constexpr timespec kNow{};
  if (ppoll(&ready, 1, &kNow, nullptr) <= 0) WakeWord(command.sequence);
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
