#include "pkg/platform/ptrace/host.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include <chrono>
#include <utility>

#include "pkg/platform/ptrace/placement.h"
#include "pkg/platform/ptrace/stub_amd64_unsafe.h"
#include "pkg/platform/ptrace/template_unsafe.h"
#include "pkg/platform/ptrace/tracee_unsafe.h"

namespace redoubt::platform::ptrace {
namespace {

constexpr uint64_t kCloneParent = 0x8000;

}  // namespace

Result<std::shared_ptr<Host>> Host::Create(int memory_fd) {
  Placement::Init();
  std::shared_ptr<Host> host(new Host(memory_fd));
  host->reaper_ = std::thread([h = host.get()] { h->ReaperMain(); });
  host->started_.acquire();
  TRY(host->template_result_);
  return host;
}

Host::~Host() {
  Bury(-1, {});
  reaper_.join();
}

Result<Host::Cloned> Host::CloneProcess() {
  sync::MutexLock lock(template_mu_);
  if (template_pid_ < 0) return Err(ESRCH);
  int cpu = Placement::OfCaller().TieWith(template_pid_, *this);
  TRY(Attach(template_pid_));
  Registers regs = StubRegisters(StubSyscall());
  regs.rax = SYS_clone;
  regs.rdi = kCloneParent;  // ours, not the template's; its exit signal is inherited: none
  Result<pid_t> child = RunToClone(template_pid_, regs);
  Result<> idle = SetRegisters(template_pid_, StubRegisters(StubIdle()));
  if (idle) idle = Detach(template_pid_);
  if (!idle) {
    // It has died.
    Reap(template_pid_);
    template_pid_ = -1;
  }
  return Cloned{.pid = TRY(child), .cpu = cpu};
}

void Host::Bury(pid_t pid, std::vector<pid_t> threads) {
  {
    sync::MutexLock lock(queue_mu_);
    queue_.push_back({pid, std::move(threads)});
  }
  work_.release();
}

bool Host::BuryNext() {
  Funeral funeral;
  {
    sync::MutexLock lock(queue_mu_);
    if (queue_.empty()) return true;
    funeral = std::move(queue_.front());
    queue_.pop_front();
  }
  if (funeral.pid < 0) return false;
  for (pid_t tid : funeral.threads) Reap(tid);
  Reap(funeral.pid);
  return true;
}

void Host::ReaperMain() {
  pthread_setname_np(pthread_self(), "stub-reaper");
  Result<pid_t> pid = SpawnTemplate(memory_fd_);
  {
    sync::MutexLock lock(template_mu_);
    if (pid) template_pid_ = *pid;
  }
  if (!pid) template_result_ = Err(pid.error());
  started_.release();
  bool watching = false;
  for (;;) {
    if (watching) {
      (void)work_.try_acquire_for(std::chrono::nanoseconds(Placement::kWatchPeriod));
    } else {
      work_.acquire();
    }
    if (!BuryNext()) break;
    watching = Placement::Watch();
  }
  sync::MutexLock lock(template_mu_);
  if (template_pid_ >= 0) {
    kill(template_pid_, SIGKILL);
    Reap(template_pid_);
    template_pid_ = -1;
  }
}

}  // namespace redoubt::platform::ptrace
