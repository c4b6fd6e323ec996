// What the Sentry itself costs per call, without a platform: a Kernel in this process, a "guest" that is the benchmark.
// The budget meter of the syscall paths: compare with tools/bench, whose figures hold the platform's share as well.
//
// The platform here never runs anything. Its Context calls the benchmark from inside Switch, in the fiber of a real
// task, which then calls syscalls::Dispatch as the task's loop would; or, for what needs the loop (signal delivery),
// answers each Switch with the next trap.
#include <benchmark/benchmark.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "pkg/fiber/fiber.h"
#include "pkg/gofer/server.h"
#include "pkg/p9/client.h"
#include "pkg/sentry/fsimpl/gofer/gofer.h"
#include "pkg/sentry/fsimpl/overlay/overlay.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/syscalls/table.h"
#include "pkg/sentry/vfs/vfs.h"
#include "test/perf/allocations.h"

namespace redoubt {
namespace {

using kernel::SyscallArgs;
using kernel::Task;

constexpr Addr kImage = 0x400000;
constexpr char kFile[] = "/dir/sub/file";
constexpr char kHostFile[] = "/host/dir/sub/file";
constexpr char kOverlayFile[] = "/overlay/dir/sub/file";

void Require(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "sentry_bench: %s failed\n", what);
  std::abort();
}

// What the guest does at each Switch: false when it is through.
using Guest = std::function<bool(platform::Registers&)>;

class IdleAddressSpace final : public platform::AddressSpace {
 public:
  Result<> MapFile(Addr, int, uint64_t, uint64_t, AccessType, bool) override { return {}; }
  Result<> Unmap(Addr, uint64_t) override { return {}; }
  void Release() override {}
};

class GuestContext final : public platform::Context {
 public:
  explicit GuestContext(Guest& guest) : guest_(guest) {}
  Result<platform::TrapInfo> Switch(platform::AddressSpace&, platform::Registers& regs) override {
    NoteEntered(__builtin_ia32_rdtsc());
    NoteLeft(__builtin_ia32_rdtsc());
    if (!guest_(regs)) {
      regs.orig_rax = SYS_exit_group;
      regs.rdi = 0;
    }
    return platform::TrapInfo{.trap = platform::Trap::kSyscall};
  }
  void Interrupt() override {}
  Result<platform::FpState> PullFpState() override { return platform::InitialFpState(); }
  Result<> PushFpState(const platform::FpState&) override { return {}; }

 private:
  Guest& guest_;
};

class GuestPlatform final : public platform::Platform {
 public:
  std::string_view name() const override { return "none"; }
  Result<RefPtr<platform::AddressSpace>> NewAddressSpace() override { return MakeRef<IdleAddressSpace>(); }
  Result<std::unique_ptr<platform::Context>> NewContext() override { return std::make_unique<GuestContext>(guest); }
  Addr min_user_address() const override { return 0x10000; }
  Addr max_user_address() const override { return 0x7fff'ffff'f000; }

  Guest guest;
};

// A host directory, served by a gofer on a thread of its own.
class HostTree {
 public:
  HostTree() {
    char name[] = "/tmp/sentry_bench.XXXXXX";
    Require(mkdtemp(name) != nullptr, "mkdtemp");
    root_ = name;
    std::filesystem::create_directories(root_ + "/dir/sub");
    std::ofstream(root_ + "/dir/sub/file") << std::string(64 << 10, 'x');
    int sockets[2];
    Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0, "socketpair");
    client_socket_ = sockets[0];
    thread_ = std::thread([this, fd = UniqueFd(sockets[1])] {
      gofer::Server server(UniqueFd(open(root_.c_str(), O_PATH | O_DIRECTORY)),
                           UniqueFd(open("/proc/self/fd", O_RDONLY | O_DIRECTORY)), {});
      (void)server.Serve(fd.get());
    });
  }
  ~HostTree() {
    thread_.join();
    std::filesystem::remove_all(root_);
  }
  int client_socket() const { return client_socket_; }

 private:
  std::string root_;
  int client_socket_ = -1;
  std::thread thread_;
};

Result<> MakeFile(const vfs::Walker& walker, const vfs::Path& root, const char* name, std::span<const std::byte> data,
                  uint32_t mode) {
  RefPtr<vfs::FileDescription> file =
      TRY(vfs::Open(walker, {.start = root, .name = name}, {.flags = O_CREAT | O_WRONLY, .mode = mode}));
  std::vector<std::byte> copy(data.begin(), data.end());
  BufferIo io(copy);
  IoSequence src(io, 0, copy.size());
  (void)TRY(file->Write(src, 0));
  return {};
}

// The smallest program that exec accepts.
std::vector<std::byte> Program() {
  std::vector<std::byte> image(4096);
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_entry = kImage + 512;
  header.e_phoff = sizeof(header);
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 1;
  Elf64_Phdr segment{};
  segment.p_type = PT_LOAD;
  segment.p_flags = PF_R | PF_W | PF_X;
  segment.p_vaddr = kImage;
  segment.p_filesz = segment.p_memsz = image.size();
  segment.p_align = 4096;
  std::memcpy(image.data(), &header, sizeof(header));
  std::memcpy(image.data() + sizeof(header), &segment, sizeof(segment));
  return image;
}

// Runs on a fiber: one process of the guest.
Result<> RunProcess(kernel::Kernel& kernel, const HostTree& host) {
  RefPtr<auth::Credentials> creds = auth::Credentials::Root();
  RefPtr<vfs::MountNamespace> mounts =
      vfs::MountNamespace::Create(tmpfs::Create(kernel.memory_file(), {.root_mode = 0755}), 0, "root");
  vfs::Path root = mounts->root();
  vfs::Walker walker{*creds, root};
  for (const char* dir : {"/dir", "/dir/sub", "/host", "/overlay"}) {
    TRY(vfs::Mkdir(walker, {.start = root, .name = dir}, 0755));
  }
  std::vector<std::byte> data(64 << 10, std::byte{'x'});
  TRY(MakeFile(walker, root, "/program", Program(), 0755));
  TRY(MakeFile(walker, root, kFile, data, 0644));
  RefPtr<p9::Client> client = TRY(p9::Client::Connect(host.client_socket()));
  RefPtr<vfs::Filesystem> gofer = TRY(goferfs::Create(client, kernel.memory_file()));
  TRY(mounts->MountAt(walker, {.start = root, .name = "/host"}, gofer, 0, "host"));
  RefPtr<vfs::Filesystem> overlay =
      TRY(overlay::Create(tmpfs::Create(kernel.memory_file(), {.root_mode = 0755}), gofer));
  TRY(mounts->MountAt(walker, {.start = root, .name = "/overlay"}, overlay, 0, "overlay"));
  kernel::Kernel::ProcessArgs process;
  process.filename = "/program";
  process.argv = {"/program"};
  process.creds = creds;
  process.mounts = mounts;
  process.fds = MakeRef<FdTable>();
  RefPtr<kernel::ThreadGroup> init = TRY(kernel.CreateProcess(process));
  (void)kernel.WaitForExit(*init);
  kernel.KillAll();
  return {};
}

void RunGuest(Guest guest) {
  HostTree host;
  auto memory_file = pgalloc::MemoryFile::Create({});
  Require(memory_file.has_value(), "the memory file");
  GuestPlatform platform;
  platform.guest = std::move(guest);
  std::unique_ptr<fiber::Executor> executor = fiber::ThreadedExecutor::Create({.slots = 1});
  kernel::Kernel kernel({.platform = &platform,
                         .memory_file = memory_file->get(),
                         .executor = executor.get(),
                         .dispatcher = syscalls::Dispatch});
  Result<> outcome;
  executor->Spawn([&] { outcome = RunProcess(kernel, host); });
  fiber::Join(*executor);
  Require(outcome.has_value(), "the process");
}

// The guest's side of one task: its system calls and a page of its memory for their arguments.
class Calls {
 public:
  explicit Calls(Task& task) : task_(task) {
    memory = Call(SYS_mmap, 0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    buffer = memory + (64 << 10);
  }
  uint64_t Try(uint64_t number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0, uint64_t e = 0,
               uint64_t f = 0) {
    Result<uint64_t> r = syscalls::Dispatch(task_, number, SyscallArgs{{a, b, c, d, e, f}});
    return r ? *r : r.error().AsReturnValue();
  }
  uint64_t Call(uint64_t number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0, uint64_t e = 0,
                uint64_t f = 0) {
    uint64_t r = Try(number, a, b, c, d, e, f);
    Require(r < static_cast<uint64_t>(-4095), "a system call");
    return r;
  }
  template <typename T>
  void Poke(Addr addr, const T& value) {
    Require(task_.mm().CopyOutObject(addr, value).has_value(), "poke");
  }
  Addr String(const char* text) {
    Addr addr = memory + strings_;
    size_t length = std::strlen(text) + 1;
    Require(task_.mm().CopyOutAll(addr, std::as_bytes(std::span(text, length))).has_value(), "poke");
    strings_ += length;
    return addr;
  }

  Addr memory = 0;
  Addr buffer = 0;

 private:
  Task& task_;
  uint64_t strings_ = 0;
};

// Measures `call`, which `prepare` makes, in a task's fiber; calls and allocations are counted once they are warm.
using Body = std::function<void()>;
void Measure(benchmark::State& state, const std::function<Body(Calls&)>& prepare) {
  RunGuest([&](platform::Registers& regs) {
    if (Task::Current()->tid() != 1) {
      // A child of the benchmark's: it ends at once.
      regs.orig_rax = SYS_exit;
      return true;
    }
    Calls calls(*Task::Current());
    Body body = prepare(calls);
    for (int i = 0; i < 100; i++) body();
    uint64_t before = test::Allocations();
    body();
    state.counters["allocs"] = static_cast<double>(test::Allocations() - before);
    for (auto _ : state) body();
    return false;
  });
}

Body OpenClose(Calls& c, const char* name) {
  Addr path = c.String(name);
  return [&c, path] { c.Call(SYS_close, c.Call(SYS_openat, AT_FDCWD, path, O_RDONLY)); };
}
Body Stat(Calls& c, const char* name) {
  Addr path = c.String(name);
  return [&c, path] { c.Call(SYS_newfstatat, AT_FDCWD, path, c.buffer, 0); };
}
Body PRead4K(Calls& c, const char* name) {
  uint64_t fd = c.Call(SYS_openat, AT_FDCWD, c.String(name), O_RDONLY);
  return [&c, fd] { Require(c.Call(SYS_pread64, fd, c.buffer, 4096, 8192) == 4096, "pread"); };
}
Body Read4K(Calls& c, const char* name) {
  uint64_t fd = c.Call(SYS_openat, AT_FDCWD, c.String(name), O_RDONLY);
  return [&c, fd] {
    c.Call(SYS_lseek, fd, 0, SEEK_SET);
    Require(c.Call(SYS_read, fd, c.buffer, 4096) == 4096, "read");
  };
}

void BM_GetPpid(benchmark::State& state) {
  Measure(state, [](Calls& c) { return [&c] { c.Call(SYS_getppid); }; });
}
void BM_OpenCloseTmpfs(benchmark::State& state) {
  Measure(state, [](Calls& c) { return OpenClose(c, kFile); });
}
void BM_OpenCloseHost(benchmark::State& state) {
  Measure(state, [](Calls& c) { return OpenClose(c, kHostFile); });
}
void BM_OpenCloseOverlay(benchmark::State& state) {
  Measure(state, [](Calls& c) { return OpenClose(c, kOverlayFile); });
}
void BM_StatTmpfs(benchmark::State& state) {
  Measure(state, [](Calls& c) { return Stat(c, kFile); });
}
void BM_StatHost(benchmark::State& state) {
  Measure(state, [](Calls& c) { return Stat(c, kHostFile); });
}
void BM_PRead4KTmpfs(benchmark::State& state) {
  Measure(state, [](Calls& c) { return PRead4K(c, kFile); });
}
void BM_PRead4KHost(benchmark::State& state) {
  Measure(state, [](Calls& c) { return PRead4K(c, kHostFile); });
}
void BM_LseekRead4KTmpfs(benchmark::State& state) {
  Measure(state, [](Calls& c) { return Read4K(c, kFile); });
}

// Cold: each call asks the gofer once.
void BM_StatHostMissing(benchmark::State& state) {
  Measure(state, [](Calls& c) {
    return [&c, n = uint64_t{0}]() mutable {
      Addr path = c.buffer + 1024;
      c.Poke(path, std::to_array("/host/dir/none.00000000"));
      char digits[9];
      std::snprintf(digits, sizeof(digits), "%08x", static_cast<uint32_t>(n++));
      c.Poke(path + 15, std::to_array(digits));
      c.Try(SYS_newfstatat, AT_FDCWD, path, c.buffer, 0);
    };
  });
}

void BM_PipeWriteRead(benchmark::State& state) {
  Measure(state, [](Calls& c) {
    c.Call(SYS_pipe2, c.buffer, 0);
    return [&c] {
      c.Call(SYS_write, 1, c.memory, 1);
      c.Call(SYS_read, 0, c.memory, 1);
    };
  });
}

void BM_EpollWaitReady(benchmark::State& state) {
  Measure(state, [](Calls& c) {
    uint64_t ep = c.Call(SYS_epoll_create1, 0);
    uint64_t ev = c.Call(SYS_eventfd2, 1, 0);
    c.Poke(c.buffer, epoll_event{.events = EPOLLIN, .data = {.u64 = 7}});
    c.Call(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, ev, c.buffer);
    return [&c, ep] { Require(c.Call(SYS_epoll_wait, ep, c.buffer, 8, -1) == 1, "epoll_wait"); };
  });
}

void BM_FutexWakeNone(benchmark::State& state) {
  Measure(state, [](Calls& c) { return [&c] { c.Call(SYS_futex, c.buffer, FUTEX_WAKE_PRIVATE, 1); }; });
}

void BM_ForkExitWait(benchmark::State& state) {
  Measure(state, [](Calls& c) {
    return [&c] {
      uint64_t pid = c.Call(SYS_fork);
      c.Call(SYS_wait4, pid, 0, 0, 0);
    };
  });
}

// As pthread_create and pthread_join do it.
void BM_ThreadCreateJoin(benchmark::State& state) {
  Measure(state, [](Calls& c) {
    return [&c] {
      constexpr uint64_t kFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                                  CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
      Addr word = c.buffer + 64;
      uint64_t tid = c.Call(SYS_clone, kFlags, c.buffer, word, word);
      // Gone already: EAGAIN.
      c.Try(SYS_futex, word, FUTEX_WAIT, tid, 0);
    };
  });
}

void BM_MmapMunmap(benchmark::State& state) {
  Measure(state, [](Calls& c) {
    return [&c] {
      uint64_t addr = c.Call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      c.Call(SYS_munmap, addr, 4096);
    };
  });
}

// A signal sent to oneself and taken again: the bookkeeping without a handler's frame.
void BM_KillSigtimedwait(benchmark::State& state) {
  Measure(state, [](Calls& c) {
    uint64_t set = uint64_t{1} << (SIGUSR1 - 1);
    c.Poke(c.memory + 4096, set);
    c.Call(SYS_rt_sigprocmask, SIG_BLOCK, c.memory + 4096, 0, 8);
    uint64_t pid = c.Call(SYS_getpid);
    return [&c, pid] {
      c.Call(SYS_kill, pid, SIGUSR1);
      c.Call(SYS_rt_sigtimedwait, c.memory + 4096, 0, 0, 8);
    };
  });
}

// Through the task's loop: what stands around the table for every call.
void BM_LoopGetPpid(benchmark::State& state) {
  RunGuest([&](platform::Registers& regs) {
    regs.orig_rax = SYS_getppid;
    return state.KeepRunning();
  });
}

// tgkill, the handler's frame, rt_sigreturn.
void BM_LoopSignalSelf(benchmark::State& state) {
  enum { kStart, kSend, kHandler } next = kStart;
  RunGuest([&](platform::Registers& regs) {
    Task& task = *Task::Current();
    if (next == kStart) {
      Calls c(task);
      struct {
        uint64_t handler, flags, restorer, mask;
      } action = {0x1000, SA_RESTART | 0x04000000 /* SA_RESTORER */, 0x2000, 0};
      c.Poke(c.buffer, action);
      c.Call(SYS_rt_sigaction, SIGUSR1, c.buffer, 0, 8);
      next = kSend;
    }
    if (next == kSend) {
      regs.orig_rax = SYS_tgkill;
      regs.rdi = regs.rsi = task.tid();
      regs.rdx = SIGUSR1;
      next = kHandler;
      return state.KeepRunning();
    }
    // In the handler, which returns to the restorer.
    regs.rsp += 8;
    regs.orig_rax = SYS_rt_sigreturn;
    next = kSend;
    return true;
  });
}

BENCHMARK(BM_GetPpid)->UseRealTime();
BENCHMARK(BM_OpenCloseTmpfs)->UseRealTime();
BENCHMARK(BM_OpenCloseHost)->UseRealTime();
BENCHMARK(BM_OpenCloseOverlay)->UseRealTime();
BENCHMARK(BM_StatTmpfs)->UseRealTime();
BENCHMARK(BM_StatHost)->UseRealTime();
BENCHMARK(BM_StatHostMissing)->UseRealTime();
BENCHMARK(BM_PRead4KTmpfs)->UseRealTime();
BENCHMARK(BM_PRead4KHost)->UseRealTime();
BENCHMARK(BM_LseekRead4KTmpfs)->UseRealTime();
BENCHMARK(BM_PipeWriteRead)->UseRealTime();
BENCHMARK(BM_EpollWaitReady)->UseRealTime();
BENCHMARK(BM_FutexWakeNone)->UseRealTime();
BENCHMARK(BM_ForkExitWait)->UseRealTime();
BENCHMARK(BM_ThreadCreateJoin)->UseRealTime();
BENCHMARK(BM_MmapMunmap)->UseRealTime();
BENCHMARK(BM_KillSigtimedwait)->UseRealTime();
BENCHMARK(BM_LoopGetPpid)->UseRealTime();
BENCHMARK(BM_LoopSignalSelf)->UseRealTime();

}  // namespace
}  // namespace redoubt

BENCHMARK_MAIN();
