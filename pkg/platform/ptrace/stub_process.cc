#include "pkg/platform/ptrace/stub_process.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "pkg/platform/ptrace/placement.h"
#include "pkg/platform/ptrace/stub_amd64_unsafe.h"
#include "pkg/platform/ptrace/template_unsafe.h"

namespace redoubt::platform::ptrace {
namespace {

std::atomic<uint64_t> g_next_id{1};

}  // namespace

// The traced threads of one OS thread, by stub process.
class ThreadTable final {
 public:
  ThreadTable() = default;
  ThreadTable(const ThreadTable&) = delete;
  ThreadTable& operator=(const ThreadTable&) = delete;
  ~ThreadTable() {
    for (auto& [id, entry] : entries_) entry.process->RetireThread(entry.thread.tid);
  }

  // Not inlined: a fiber may have moved since the caller last asked.
  [[gnu::noinline]] static ThreadTable& OfCaller() {
    static thread_local ThreadTable table;
    return table;
  }

  TracedThread* Find(const StubProcess& process) {
    auto it = entries_.find(process.id_);
    return it == entries_.end() ? nullptr : &it->second.thread;
  }

  TracedThread* Add(StubProcess& process, pid_t tid) {
    // Whoever adds sweeps: dead processes are few, and their threads are the reaper's.
    std::erase_if(entries_, [](const auto& e) { return e.second.process->killed(); });
    Entry& entry = entries_[process.id_];
    entry.process = RefPtr<StubProcess>(&process);
    entry.thread = {.pid = process.pid_, .tid = tid};
    return &entry.thread;
  }

 private:
  struct Entry {
    RefPtr<StubProcess> process;
    TracedThread thread;
  };
  std::unordered_map<uint64_t, Entry> entries_;
};

StubProcess::StubProcess(std::shared_ptr<Host> host, pid_t pid)
    : id_(g_next_id.fetch_add(1, std::memory_order_relaxed)), host_(std::move(host)), pid_(pid) {}

StubProcess::~StubProcess() { Kill(); }

Result<RefPtr<StubProcess>> StubProcess::Create(std::shared_ptr<Host> host) {
  auto [pid, cpu] = TRY(host->CloneProcess());
  RefPtr<StubProcess> process(new StubProcess(std::move(host), pid));
  // From here on its destructor cleans up.
  pid_t tid = TRY(RunToClone(pid, StubRegisters(StubBecomeLeader())));
  {
    sync::MutexLock lock(process->mu_);
    process->threads_.push_back(tid);
    ThreadTable::OfCaller().Add(*process, tid)->cpu = cpu;
  }
  TRY(SetRegisters(pid, StubRegisters(StubIdle())));
  TRY(Detach(pid));
  TRY(SetSignalMask(tid, 0));
  return process;
}

Result<TracedThread*> StubProcess::ThreadOfCaller() {
  TracedThread* thread = ThreadTable::OfCaller().Find(*this);
  return thread != nullptr ? thread : NewThread();
}

Result<TracedThread*> StubProcess::NewThread() {
  sync::MutexLock lock(mu_);
  if (killed()) return Err(ESRCH);
  int cpu = Placement::OfCaller().TieWith(pid_, *host_);
  TRY(Attach(pid_));
  Registers regs = StubRegisters(StubSyscall());
  regs.rax = SYS_clone;
  regs.rdi = kThreadCloneFlags;
  Result<pid_t> tid = RunToClone(pid_, regs);
  TracedThread* thread = nullptr;
  if (tid) {
    threads_.push_back(*tid);
    thread = ThreadTable::OfCaller().Add(*this, *tid);
    thread->cpu = cpu;
  }
  TRY(SetRegisters(pid_, StubRegisters(StubIdle())));
  TRY(Detach(pid_));
  TRY(SetSignalMask(TRY(tid), 0));
  return thread;
}

void StubProcess::RetireThread(pid_t tid) {
  sync::MutexLock lock(mu_);
  if (killed()) return;  // the reaper's
  Registers regs = StubRegisters(StubSyscall());
  regs.rax = SYS_exit;
  if (SetRegisters(tid, regs)) {
    while (Continue(tid) && WaitStop(tid)) {
    }
  }
  std::erase(threads_, tid);
}

Result<> StubProcess::MapMemory(Addr addr, uint64_t offset, uint64_t length, int protection, bool populate) {
  TracedThread* thread = TRY(ThreadOfCaller());
  uint64_t flags = MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0);
  SyscallArguments call{SYS_mmap, {addr, length, static_cast<uint64_t>(protection), flags, kStubMemoryFd, offset}};
  TRY(InjectSyscall(thread->tid, call));
  return {};
}

Result<> StubProcess::UnmapMemory(Addr addr, uint64_t length) {
  TracedThread* thread = TRY(ThreadOfCaller());
  TRY(InjectSyscall(thread->tid, {SYS_munmap, {addr, length}}));
  return {};
}

void StubProcess::Kill() {
  // Without the lock: the sweep of a thread table drops dead processes while another's lock is held.
  if (killed()) return;
  std::vector<pid_t> threads;
  {
    sync::MutexLock lock(mu_);
    if (killed_.exchange(true, std::memory_order_acq_rel)) return;
    threads.swap(threads_);
  }
  // Not reaped before the burial, so the number is still its own.
  kill(pid_, SIGKILL);
  host_->Bury(pid_, std::move(threads));
}

}  // namespace redoubt::platform::ptrace
