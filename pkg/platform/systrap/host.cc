#include "pkg/platform/systrap/host.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "pkg/log/rate_limit.h"
#include "pkg/platform/affinity.h"
#include "pkg/platform/systrap/manager_unsafe.h"
#include "pkg/platform/systrap/stub_process.h"
#include "pkg/platform/systrap/template_unsafe.h"

namespace redoubt::platform::systrap {
namespace {

constexpr int kTemplateArea = 0;
// Among what epoll tells of: not the number of any process.
constexpr uint64_t kWakeEvent = 0;
// How often a stub's thread looks for its answer (some 10 ns each) before it sleeps; a wake-up costs tens of
// microseconds.
constexpr uint32_t kGuestSpins = 2000;
// For how long the Sentry looks for the next event, ns: about what a wake-up costs.
constexpr int64_t kSpinTime = 50'000;
// The same when guests want all processors.
constexpr int64_t kShortSpinTime = 3'000;

void Reap(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, __WALL) < 0) {
    if (errno != EINTR) return;
  }
  // Not by the Sentry: a guest that broke its stub, the host, or a mistake of ours.
  if (WIFEXITED(status)) LOG_WARNING_LIMITED("systrap: process {} gave up: {}", pid, WEXITSTATUS(status));
  if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
    LOG_WARNING_LIMITED("systrap: process {} was killed by signal {}", pid, WTERMSIG(status));
  }
}

Result<> SendDescriptor(int socket, int fd) {
  char byte = 0;
  iovec vector{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof(int));
  if (sendmsg(socket, &message, MSG_NOSIGNAL) != 1) return ErrFromHost();
  return {};
}

}  // namespace

Result<std::shared_ptr<Host>> Host::Create(int memory_fd, int spares) {
  std::shared_ptr<Host> host(new Host);
  host->max_spares_ = spares;
  {
    sync::MutexLock lock(host->queue_mu_);
    host->wanted_spares_ = std::min(1, spares);
  }
  host->memory_fd_ = memory_fd;
  cpu_set_t cpus;
  // Asked for now, when it may still be.
  AllCpus();
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) host->cpus_ = std::max(1, CPU_COUNT(&cpus));
  host->control_ = TRY(ControlFile::Create());
  host->control_->global().spins.store(host->cpus_ > 1 ? kGuestSpins : 0);
  host->wake_event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (host->wake_event_ < 0) return ErrFromHost();
  host->epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (host->epoll_fd_ < 0) return ErrFromHost();
  epoll_event event{.events = EPOLLIN, .data = {.u64 = kWakeEvent}};
  if (epoll_ctl(host->epoll_fd_, EPOLL_CTL_ADD, host->wake_event_, &event) < 0) return ErrFromHost();
  host->reaper_ = std::thread([h = host.get()] { h->ReaperMain(); });
  host->started_.acquire();
  TRY(host->template_result_);
  return host;
}

Host::~Host() {
  if (reaper_.joinable()) {
    {
      sync::MutexLock lock(queue_mu_);
      queue_.push_back({.pid = -1});
    }
    work_.release();
    reaper_.join();
  }
  if (epoll_fd_ >= 0) close(epoll_fd_);
  if (wake_event_ >= 0) close(wake_event_);
}

Result<> Host::StartTemplate() {
  sync::MutexLock lock(template_mu_);
  int ack[2];
  int sockets[2];
  int area = TRY(control_->Allocate());
  CHECK(area == kTemplateArea, "the template's area is the first");
  if (pipe2(ack, O_CLOEXEC) < 0) return ErrFromHost();
  template_ack_ = ack[0];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0) {
    close(ack[1]);
    return ErrFromHost();
  }
  template_socket_ = sockets[0];
  Result<pid_t> pid = SpawnTemplate(
      {.memory = memory_fd_, .control = control_->fd(), .wake = wake_event_, .ack = ack[1], .socket = sockets[1]});
  close(ack[1]);
  close(sockets[1]);
  template_pid_ = TRY(pid);
  Result<> ready = ReadAck(template_ack_);
  if (!ready) {
    LOG_ERROR(
        "systrap: the stub template did not start; the host may lack syscall user dispatch (Linux 5.11) or seccomp");
  }
  return ready;
}

Result<Host::Process> Host::NewProcess() {
  if (max_spares_ == 0) return MakeProcess();
  std::optional<Process> spare;
  {
    sync::MutexLock lock(queue_mu_);
    // Most sandboxes that end soon have run one program, and what is made is also to be buried.
    wanted_spares_ = std::exchange(first_taken_, true) ? max_spares_ : 0;
    if (!spares_.empty()) {
      spare = spares_.front();
      spares_.pop_front();
    }
  }
  work_.release();
  return spare ? *spare : MakeProcess();
}

void Host::MakeSpares() {
  for (;;) {
    {
      sync::MutexLock lock(queue_mu_);
      if (static_cast<int>(spares_.size()) >= wanted_spares_) return;
    }
    Result<Process> made = MakeProcess();
    if (!made) return;  // who needs one will hear of it
    sync::MutexLock lock(queue_mu_);
    spares_.push_back(*made);
  }
}

Result<Host::Process> Host::MakeProcess() {
  int area = TRY(control_->Allocate());
  int ack[2];
  if (pipe2(ack, O_CLOEXEC) < 0) {
    std::unexpected<Errno> error = ErrFromHost();
    control_->Free(area);
    return error;
  }
  Process process{.pid = 0, .area = area, .ack = ack[0]};
  Result<> made = [&]() -> Result<> {
    sync::MutexLock lock(template_mu_);
    if (template_pid_ < 0) return Err(ESRCH);
    TRY(SendDescriptor(template_socket_, ack[1]));
    CommandPage& command = control_->command(kTemplateArea);
    command.slots_offset = ControlFile::SlotsOffset(area);
    command.command_offset = ControlFile::CommandOffset(area);
    BringManager(template_pid_, template_place_);
    process.place = template_place_;
    PostCommand(command, OP_NEW_PROCESS);
    TRY(ReadAck(template_ack_));
    process.pid = static_cast<pid_t>(control_->slot(kTemplateArea, 0).result);
    return {};
  }();
  close(ack[1]);
  if (made) made = ReadAck(ack[0]);
  if (made) made = StartThread(process, 0);
  if (!made) {
    if (process.pid > 0) {
      kill(process.pid, SIGKILL);
      Bury(process);
    } else {
      close(ack[0]);
      control_->Free(area);
    }
    // One that ends before it answers was refused something by the host, as fork(2) would be.
    return Err(made.error() == Errno(ESRCH) ? Errno(EAGAIN) : made.error());
  }
  return process;
}

Result<> Host::StartThread(Process& process, int index) {
  CommandPage& command = control_->command(process.area);
  command.ring = 0;
  SlotControl& slot = control_->slot(process.area, index);
  slot.doorbell = ControlFile::DoorbellAddress(process.area, index);
  command.slot = kSlots + index * kSlotSize;
  command.stack = STUB_COMMAND + COMMAND_STACKS + index * sizeof(CommandPage::Stack);
  command.stacks[index] = {
      .address = command.slot + STUB_SLOT_STACK, .flags = 0, .unused = 0, .size = STUB_SLOT_STACK_SIZE};
  // The new thread begins where the manager may run: not where the caller does.
  FreeManager(process.pid, process.place);
  PostCommand(command, OP_NEW_THREAD);
  return ReadAck(process.ack);
}

void Host::Bury(const Process& process) {
  {
    sync::MutexLock lock(queue_mu_);
    queue_.push_back(process);
  }
  work_.release();
}

bool Host::BuryNext() {
  std::optional<Process> next;
  {
    sync::MutexLock lock(queue_mu_);
    if (!queue_.empty()) {
      next = queue_.front();
      queue_.pop_front();
    }
  }
  if (!next) {
    MakeSpares();
    return true;
  }
  const Process process = *next;
  if (process.pid < 0) return false;
  Reap(process.pid);
  close(process.ack);
  control_->Free(process.area);
  return true;
}

void Host::ReaperMain() {
  pthread_setname_np(pthread_self(), "stub-reaper");
  template_result_ = StartTemplate();
  started_.release();
  if (template_result_) MakeSpares();
  do {
    work_.acquire();
  } while (BuryNext());
  std::deque<Process> spares;
  {
    sync::MutexLock lock(queue_mu_);
    spares.swap(spares_);
  }
  for (const Process& spare : spares) {
    kill(spare.pid, SIGKILL);
    Reap(spare.pid);
    close(spare.ack);
  }
  sync::MutexLock lock(template_mu_);
  if (template_pid_ >= 0) {
    kill(template_pid_, SIGKILL);
    Reap(template_pid_);
    template_pid_ = -1;
  }
  if (template_ack_ >= 0) close(template_ack_);
  if (template_socket_ >= 0) close(template_socket_);
}

void Host::Await(Waiting& w) {
  sync::MutexLock lock(waiting_mu_);
  w.index = static_cast<int>(waiting_.size());
  waiting_.push_back(&w);
  waiting_count_.store(static_cast<int>(waiting_.size()), std::memory_order_relaxed);
}

void Host::Forget(Waiting& w) {
  sync::MutexLock lock(waiting_mu_);
  if (w.index < 0) return;
  waiting_.back()->index = w.index;
  waiting_[w.index] = waiting_.back();
  waiting_.pop_back();
  w.index = -1;
  waiting_count_.store(static_cast<int>(waiting_.size()), std::memory_order_relaxed);
}

bool Host::Poll() {
  if (waiting_count_.load(std::memory_order_relaxed) == 0) return false;
  sync::MutexLock lock(waiting_mu_);
  bool any = false;
  for (size_t i = 0; i < waiting_.size();) {
    Waiting* w = waiting_[i];
    if (!w->slot->Posted() && !w->slot->process.dead()) {
      i++;
      continue;
    }
    any = true;
    w->index = -1;
    waiting_[i] = waiting_.back();
    if (waiting_[i] != w) waiting_[i]->index = static_cast<int>(i);
    waiting_.pop_back();
    // Under the lock: afterwards `w`, which is on the fiber's stack, may be gone.
    w->fiber->Unpark();
  }
  waiting_count_.store(static_cast<int>(waiting_.size()), std::memory_order_relaxed);
  return any;
}

void Host::NoteResting(Slot& slot) {
  sync::MutexLock lock(waiting_mu_);
  // Under the lock: Kill says so first and then forgets what rests, and the slot goes with its process.
  if (slot.process.killed()) return;
  resting_.push_back(&slot);
  resting_count_.store(static_cast<int>(resting_.size()), std::memory_order_relaxed);
}

void Host::NoteNotResting(Slot& slot) {
  sync::MutexLock lock(waiting_mu_);
  std::erase(resting_, &slot);
  resting_count_.store(static_cast<int>(resting_.size()), std::memory_order_relaxed);
  std::atomic<uint32_t>* to_ring = std::exchange(slot.to_ring, nullptr);
  // Its thread clears the order once it has obeyed.
  if (slot.c.quiet.exchange(QUIET_NO, std::memory_order_seq_cst) != QUIET_NO && to_ring != nullptr) WakeWord(*to_ring);
}

void Host::SendToSleep(Slot& slot) {
  sync::MutexLock lock(waiting_mu_);
  // Taken already, or about to hand over.
  if (std::erase(resting_, &slot) == 0) return;
  resting_count_.store(static_cast<int>(resting_.size()), std::memory_order_relaxed);
  slot.c.quiet.store(QUIET_SLEEP, std::memory_order_relaxed);
}

bool Host::AnyResting() {
  if (resting_count_.load(std::memory_order_relaxed) == 0) return false;
  sync::MutexLock lock(waiting_mu_);
  // Those that have gone to sleep of themselves are of no use.
  std::erase_if(resting_, [](Slot* slot) { return !slot->Hot(); });
  resting_count_.store(static_cast<int>(resting_.size()), std::memory_order_relaxed);
  return !resting_.empty();
}

bool Host::HandOver(Slot& slot) {
  if (resting_count_.load(std::memory_order_relaxed) == 0) return false;
  sync::MutexLock lock(waiting_mu_);
  bool handed = false;
  for (Slot* resting : resting_) {
    if (resting == &slot || !resting->Hot()) continue;
    if (handed) {
      resting->c.quiet.store(QUIET_SLEEP, std::memory_order_relaxed);
      continue;
    }
    resting->to_ring = &slot.doorbell;
    resting->c.quiet.store(ControlFile::DoorbellAddress(slot.process.area(), slot.index), std::memory_order_seq_cst);
    // If it sleeps by now, it may not have seen the order; if not, it looks before it does.
    handed = resting->c.sleeping.load(std::memory_order_seq_cst) == 0;
    if (!handed) resting->to_ring = nullptr;
  }
  resting_.clear();
  resting_count_.store(0, std::memory_order_relaxed);
  return handed;
}

void Host::ForgetSlots(StubProcess& process) {
  auto of_process = [&](Slot* slot) { return &slot->process == &process; };
  {
    sync::MutexLock lock(kept_off_mu_);
    std::erase_if(kept_off_, of_process);
  }
  sync::MutexLock lock(waiting_mu_);
  std::erase_if(resting_, of_process);
  resting_count_.store(static_cast<int>(resting_.size()), std::memory_order_relaxed);
}

void Host::Watch(StubProcess& process, int ack) {
  sync::MutexLock lock(watched_mu_);
  watched_.push_back({.number = ++last_watched_, .process = &process});
  // Only for its end, which is always reported. By a number that does not come again: an event may be in a reader's
  // hands when its process is long gone and another one stands in its place.
  epoll_event event{.events = EPOLLET, .data = {.u64 = last_watched_}};
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, ack, &event) < 0) {
    LOG_WARNING_LIMITED("a stub cannot be watched: {}", Errno(errno).name());
  }
}

void Host::Unwatch(StubProcess& process, int ack) {
  sync::MutexLock lock(watched_mu_);
  std::erase_if(watched_, [&](const Watched& w) { return w.process == &process; });
  (void)epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, ack, nullptr);
}

void Host::SetAsleep(bool asleep) {
  control_->global().asleep.store(asleep ? 1 : 0, std::memory_order_seq_cst);
  if (!asleep) return;
  // Nobody to be kept off any more.
  sync::MutexLock lock(kept_off_mu_);
  for (Slot* slot : kept_off_) {
    if (slot->kept_off.exchange(-1, std::memory_order_relaxed) >= 0) LetRoam(slot->tid);
  }
  kept_off_.clear();
}

void Host::Place(Slot& slot) {
  if (slot.tid < 0 || !KeepOff(slot.tid, slot.kept_off)) return;
  sync::MutexLock lock(kept_off_mu_);
  // As NoteResting.
  if (!slot.process.killed()) kept_off_.push_back(&slot);
}

void Host::Drain() {
  epoll_event events[16];
  int n = epoll_wait(epoll_fd_, events, 16, 0);
  for (int i = 0; i < n; i++) {
    if (events[i].data.u64 == kWakeEvent) {
      uint64_t count;
      (void)!read(wake_event_, &count, sizeof(count));
      continue;
    }
    if ((events[i].events & (EPOLLHUP | EPOLLERR)) == 0) continue;
    sync::MutexLock lock(watched_mu_);
    for (const Watched& w : watched_) {
      if (w.number == events[i].data.u64) w.process->MarkDead();
    }
  }
  Poll();
}

void Host::Wake() {
  uint64_t one = 1;
  (void)!write(wake_event_, &one, sizeof(one));
}

int64_t Host::SpinTime() {
  int waiting = waiting_count_.load(std::memory_order_relaxed);
  // Nobody is found by looking while the one processor is taken by who looks.
  if (waiting == 0 || cpus_ == 1) return 0;
  return waiting < cpus_ ? kSpinTime : kShortSpinTime;
}

}  // namespace redoubt::platform::systrap
