// A hostile Sentry and a hostile gofer: each thing that one would try is tried with both walls, box and filter, with
// each of them alone, and with none, where it has to succeed, or the test would show nothing.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "test/attack/place.h"

namespace redoubt::attack {
namespace {

// A process of the host, which everybody would like to reach, and what else it owns. One for all tests.
struct Neighbour {
  pid_t pid = 0;
  std::string directory;  // of the host's, outside of what the gofer serves: a file "secret", a program "program"
  std::string tree;       // what the gofer serves
  int shared_memory = -1;
  std::string abstract;  // the name of its socket
  int socket = -1;
};

int ListenAbstract(const std::string& name) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un a{.sun_family = AF_UNIX, .sun_path = {}};
  name.copy(a.sun_path + 1, sizeof(a.sun_path) - 2);
  if (bind(fd, reinterpret_cast<sockaddr*>(&a),
           static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())) != 0 ||
      listen(fd, 8) != 0) {
    return -1;
  }
  return fd;
}

const Neighbour& TheNeighbour() {
  static const Neighbour neighbour = [] {
    Neighbour n;
    char name[] = "/tmp/attack.XXXXXX";
    if (mkdtemp(name) == nullptr) abort();
    n.directory = name;
    n.tree = n.directory + "/tree";
    mkdir(n.tree.c_str(), 0755);
    std::ofstream(n.directory + "/secret") << "secret";
    std::ofstream(n.tree + "/file") << "file";
    std::ofstream(n.tree + "/program") << "#!/bin/sh\nexit 0\n";
    chmod((n.tree + "/program").c_str(), 0755);
    // /dev/zero, by which nothing is harmed.
    mknod((n.tree + "/device").c_str(), S_IFCHR | 0666, makedev(1, 5));
    n.shared_memory = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0666);
    n.abstract = n.directory;
    n.socket = ListenAbstract(n.abstract);
    n.pid = fork();
    if (n.pid == 0) {
      for (;;) pause();
    }
    return n;
  }();
  return neighbour;
}

class Environment final : public ::testing::Environment {
 public:
  void SetUp() override { (void)TheNeighbour(); }
  void TearDown() override {
    const Neighbour& n = TheNeighbour();
    kill(n.pid, SIGKILL);
    waitpid(n.pid, nullptr, 0);
    shmctl(n.shared_memory, IPC_RMID, nullptr);
    std::system(("rm -rf " + n.directory).c_str());
  }
};
const auto* const kEnvironment = ::testing::AddGlobalTestEnvironment(new Environment);

// What becomes of it with the box and no filter.
enum class Box {
  kStops,
  // The filter alone stands before it: the host's kernel has no namespace and no capability for it.
  kLetsPass,
};

struct Attack {
  const char* name;
  Box box;
  Attempt attempt;
};

int Open(const std::string& path, int flags) { return Outcome(open(path.c_str(), flags | O_CLOEXEC)); }

// In a child, so that the attempt can tell of its success.
int Execute(const char* path) {
  pid_t pid = static_cast<pid_t>(syscall(SYS_fork));
  if (pid < 0) return errno;
  if (pid == 0) {
    const char* argv[] = {path, nullptr};
    execv(path, const_cast<char**>(argv));
    _exit(errno);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

int PidfdOfNeighbour() { return static_cast<int>(syscall(SYS_pidfd_open, TheNeighbour().pid, 0)); }

int StealDescriptor() {
  int pidfd = PidfdOfNeighbour();
  if (pidfd < 0) return errno;
  return Outcome(syscall(SYS_pidfd_getfd, pidfd, 0, 0));
}

int ReadNeighboursMemory() {
  char byte;
  iovec local{&byte, 1};
  // The same program: the same addresses.
  iovec remote{const_cast<Neighbour*>(&TheNeighbour()), 1};
  return Outcome(process_vm_readv(TheNeighbour().pid, &local, 1, &remote, 1, 0));
}

int AttachToNeighbour() {
  if (ptrace(PTRACE_SEIZE, TheNeighbour().pid, 0, 0) != 0) return errno;
  ptrace(PTRACE_DETACH, TheNeighbour().pid, 0, 0);
  return 0;
}

int ConnectAbstract() {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  sockaddr_un a{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string& name = TheNeighbour().abstract;
  name.copy(a.sun_path + 1, sizeof(a.sun_path) - 2);
  return Outcome(connect(fd, reinterpret_cast<sockaddr*>(&a),
                         static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())));
}

int CreateBpfMap() {
  bpf_attr a{};
  a.map_type = BPF_MAP_TYPE_ARRAY;
  a.key_size = 4;
  a.value_size = 8;
  a.max_entries = 1;
  return Outcome(syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a)));
}

int WatchAllProcesses() {
  perf_event_attr a{};
  a.type = PERF_TYPE_SOFTWARE;
  a.size = sizeof(a);
  a.config = PERF_COUNT_SW_CPU_CLOCK;
  return Outcome(syscall(SYS_perf_event_open, &a, -1, 0, -1, 0));
}

int AllowsModules() {
  // ENOEXEC: it would have been loaded if it were one.
  int e = Outcome(syscall(SYS_init_module, "not a module", 12, ""));
  return e == EPERM ? EPERM : e == ENOSYS ? ENOSYS : 0;
}

int OpenByHandle() {
  struct {
    file_handle head;
    char bytes[128];
  } handle{};
  handle.head.handle_bytes = sizeof(handle.bytes);
  int mount_id = 0;
  if (name_to_handle_at(AT_FDCWD, "/", &handle.head, &mount_id, 0) != 0) return errno;
  int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return errno;
  return Outcome(open_by_handle_at(root, &handle.head, O_PATH));
}

int MakeExecutable() {
  void* p = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? errno : 0;
}

// What either could try.
std::vector<Attack> Common() {
  const Neighbour& n = TheNeighbour();
  return {
      {"open_file", Box::kStops, [&](auto&) { return Open(n.directory + "/secret", O_RDONLY); }},
      {"open_memory_of_machine", Box::kStops, [](auto&) { return Open("/dev/null", O_RDWR); }},
      {"list_processes", Box::kStops, [](auto&) { return Open("/proc/1/status", O_RDONLY); }},
      {"memory_by_proc", Box::kStops, [&](auto&) { return Open("/proc/" + std::to_string(n.pid) + "/mem", O_RDWR); }},
      {"enter_namespace", Box::kStops,
       [&](auto&) {
         int fd = open(("/proc/" + std::to_string(n.pid) + "/ns/net").c_str(), O_RDONLY | O_CLOEXEC);
         return fd < 0 ? errno : Outcome(setns(fd, CLONE_NEWNET));
       }},
      {"new_network_namespace", Box::kStops, [](auto&) { return Outcome(unshare(CLONE_NEWNET)); }},
      {"new_mount_namespace", Box::kStops, [](auto&) { return Outcome(unshare(CLONE_NEWNS)); }},
      {"mount", Box::kStops, [](auto&) { return Outcome(mount("none", "/", "tmpfs", 0, nullptr)); }},
      {"chroot", Box::kStops, [](auto&) { return Outcome(chroot("/")); }},
      {"hostname", Box::kStops, [](auto&) { return Outcome(sethostname("owned", 5)); }},
      {"become_root", Box::kStops, [](auto&) { return Outcome(setresuid(1, 1, 1)); }},
      {"ptrace", Box::kStops, [](auto&) { return AttachToNeighbour(); }},
      {"signal", Box::kStops, [&](auto&) { return Outcome(kill(n.pid, SIGCONT)); }},
      {"signal_thread", Box::kStops, [&](auto&) { return Outcome(syscall(SYS_tgkill, n.pid, n.pid, SIGCONT)); }},
      {"steal_descriptor", Box::kStops, [](auto&) { return StealDescriptor(); }},
      {"process_vm_readv", Box::kStops, [](auto&) { return ReadNeighboursMemory(); }},
      {"raw_socket", Box::kStops, [](auto&) { return Outcome(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, 1)); }},
      {"packet_socket", Box::kStops, [](auto&) { return Outcome(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)); }},
      {"socket", Box::kLetsPass, [](auto&) { return Outcome(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }},
      {"abstract_socket", Box::kStops, [](auto&) { return ConnectAbstract(); }},
      {"shared_memory", Box::kStops,
       [&](auto&) { return Outcome(reinterpret_cast<long>(shmat(n.shared_memory, nullptr, 0))); }},
      {"kernel_module", Box::kStops, [](auto&) { return AllowsModules(); }},
      {"bpf", Box::kStops, [](auto&) { return CreateBpfMap(); }},
      {"perf", Box::kStops, [](auto&) { return WatchAllProcesses(); }},
      {"ports", Box::kStops, [](auto&) { return Outcome(syscall(SYS_iopl, 3)); }},
      {"open_by_handle", Box::kStops, [](auto&) { return OpenByHandle(); }},
      {"userfaultfd", Box::kLetsPass, [](auto&) { return Outcome(syscall(SYS_userfaultfd, O_CLOEXEC | 1)); }},
      {"keyring", Box::kLetsPass,
       [](auto&) { return Outcome(syscall(SYS_add_key, "user", "attack", "x", 1, KEY_SPEC_PROCESS_KEYRING)); }},
      {"io_uring", Box::kLetsPass,
       [](auto&) {
         char parameters[120] = {};
         return Outcome(syscall(SYS_io_uring_setup, 1, parameters));
       }},
      {"fork", Box::kLetsPass,
       [](auto&) {
         long pid = syscall(SYS_fork);
         if (pid == 0) _exit(0);
         return Outcome(pid);
       }},
      {"user_namespace", Box::kLetsPass, [](auto&) { return Outcome(unshare(CLONE_NEWUSER)); }},
      {"executable_memory", Box::kLetsPass, [](auto&) { return MakeExecutable(); }},
      {"execute", Box::kStops, [](auto&) { return Execute("/bin/true"); }},
      {"own_filter", Box::kLetsPass,
       [](auto&) {
         uint16_t sizes[3];
         return Outcome(syscall(SYS_seccomp, 3 /* SECCOMP_GET_NOTIF_SIZES */, 0, sizes));
       }},
      {"write_sysctl", Box::kStops, [](auto&) { return Open("/proc/sys/kernel/core_pattern", O_WRONLY); }},
      {"reboot", Box::kStops,
       [](auto&) {
         // EINVAL: it would have been done, if the magic numbers were right.
         int e = Outcome(syscall(SYS_reboot, 0, 0, 0, 0));
         return e == EPERM ? EPERM : 0;
       }},
  };
}

// With the gofer's descriptors.
std::vector<Attack> OfTheGofer() {
  auto open_at = [](int directory, const char* path, int flags) {
    return Outcome(openat(directory, path, flags | O_CLOEXEC));
  };
  return {
      {"out_of_the_tree", Box::kStops, [=](const Place& p) { return open_at(p.tree, "../secret", O_RDONLY); }},
      {"far_out_of_the_tree", Box::kStops,
       [=](const Place& p) { return open_at(p.tree, "../../../../../../etc/passwd", O_RDONLY); }},
      {"absolute", Box::kStops, [=](const Place& p) { return open_at(p.tree, "/etc/passwd", O_RDONLY); }},
      {"by_proc", Box::kStops, [=](const Place& p) { return open_at(p.self_fd, "../../1/status", O_RDONLY); }},
      {"own_root_by_proc", Box::kStops,
       [=](const Place& p) { return open_at(p.self_fd, "../root/etc/passwd", O_RDONLY); }},
      {"sysctl_by_proc", Box::kStops,
       [=](const Place& p) { return open_at(p.self_fd, "../../sys/kernel/core_pattern", O_WRONLY); }},
      {"device", Box::kStops, [=](const Place& p) { return open_at(p.tree, "device", O_RDONLY); }},
      {"make_device", Box::kStops,
       [](const Place& p) {
         int e = Outcome(mknodat(p.tree, "own", S_IFCHR | 0600, makedev(1, 1)));
         unlinkat(p.tree, "own", 0);
         return e;
       }},
      {"trusted_attribute", Box::kStops,
       [](const Place& p) {
         int fd = openat(p.tree, "file", O_RDONLY | O_CLOEXEC);
         std::string path = std::to_string(fd);
         if (fchdir(p.self_fd) != 0) return errno;
         return Outcome(setxattr(path.c_str(), "trusted.x", "y", 1, 0));
       }},
      {"file_capabilities", Box::kStops,
       [](const Place& p) {
         int fd = openat(p.tree, "file", O_RDONLY | O_CLOEXEC);
         std::string path = std::to_string(fd);
         if (fchdir(p.self_fd) != 0) return errno;
         struct {
           uint32_t magic, permitted, inheritable, permitted2, inheritable2;
         } all{0x02000001, ~0u, 0, ~0u, 0};
         return Outcome(setxattr(path.c_str(), "security.capability", &all, sizeof(all), 0));
       }},
  };
}

std::string NameOf(const ::testing::TestParamInfo<Attack>& info) { return info.param.name; }

void ExpectStopped(Role role, const Attack& attack, bool calls_are_the_gofers) {
  const std::string& tree = TheNeighbour().tree;
  const int free = Try(role, {.box = false, .filter = false}, tree, attack.attempt);
  // Kernels are built without some calls; then there is nothing to be shown but that the filter asks first.
  EXPECT_TRUE(free == 0 || free == ENOSYS) << "without walls: errno " << free;
  const int boxed = Try(role, {.box = true, .filter = false}, tree, attack.attempt);
  EXPECT_NE(boxed, -1);
  EXPECT_EQ(boxed != 0, attack.box == Box::kStops) << "with the box alone: errno " << boxed;
  const int both = Try(role, {.box = true, .filter = true}, tree, attack.attempt);
  EXPECT_NE(both, 0) << "with both";
  EXPECT_NE(both, -1) << "with both";
  // What a file server must call anyway, the box alone stands before.
  if (!calls_are_the_gofers) {
    EXPECT_EQ(Try(role, {.box = false, .filter = true}, tree, attack.attempt), kStopped) << "with the filter alone";
    EXPECT_EQ(both, kStopped);
  }
}

class SentryAttack : public ::testing::TestWithParam<Attack> {};
TEST_P(SentryAttack, IsStopped) { ExpectStopped(Role::kSentry, GetParam(), false); }
INSTANTIATE_TEST_SUITE_P(All, SentryAttack, ::testing::ValuesIn(Common()), NameOf);

// What --network=host opens is sockets, and nothing of this.
class HostNetworkAttack : public ::testing::TestWithParam<Attack> {};
TEST_P(HostNetworkAttack, IsStopped) {
  const Walls walls{.box = true, .filter = true, .host_network = true};
  EXPECT_EQ(Try(Role::kSentry, walls, TheNeighbour().tree, GetParam().attempt), kStopped);
}
INSTANTIATE_TEST_SUITE_P(All, HostNetworkAttack, ::testing::ValuesIn(Common()), NameOf);

TEST(HostNetwork, SocketsAreItsOwnAndPacketsNot) {
  auto attempt = [](int family, int type, int protocol) {
    return Try(Role::kSentry, {.box = true, .filter = true, .host_network = true}, TheNeighbour().tree,
               [=](const Place&) { return Outcome(socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol)); });
  };
  EXPECT_EQ(attempt(AF_INET, SOCK_STREAM, IPPROTO_TCP), 0);
  EXPECT_EQ(attempt(AF_INET6, SOCK_DGRAM, IPPROTO_UDP), 0);
  EXPECT_EQ(attempt(AF_INET, SOCK_RAW, IPPROTO_TCP), kStopped);
  EXPECT_EQ(attempt(AF_PACKET, SOCK_RAW, 0), kStopped);
  EXPECT_EQ(attempt(AF_UNIX, SOCK_STREAM, 0), kStopped);
  EXPECT_EQ(attempt(AF_NETLINK, SOCK_RAW, 0), kStopped);
  EXPECT_EQ(attempt(AF_ALG, SOCK_SEQPACKET, 0), kStopped);
}

// Without a capability, whatever namespace it is in.
TEST(HostNetwork, TheBoxHasNoPrivilegeThere) {
  EXPECT_EQ(Try(Role::kSentry, {.box = true, .filter = false, .host_network = true}, TheNeighbour().tree,
                [](const Place&) {
                  int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
                  return fd >= 0 ? 0 : errno;
                }),
            EPERM);
}

class GoferAttack : public ::testing::TestWithParam<Attack> {};
TEST_P(GoferAttack, IsStopped) {
  const std::string name = GetParam().name;
  Attack attack = GetParam();
  const bool opens = name.starts_with("open_") || name == "list_processes" || name == "memory_by_proc" ||
                     name == "write_sysctl" || name == "enter_namespace";
  ExpectStopped(Role::kGofer, attack, opens);
}
INSTANTIATE_TEST_SUITE_P(All, GoferAttack, ::testing::ValuesIn(Common()), NameOf);

class GoferTreeAttack : public ::testing::TestWithParam<Attack> {};
TEST_P(GoferTreeAttack, IsStopped) { ExpectStopped(Role::kGofer, GetParam(), true); }
INSTANTIATE_TEST_SUITE_P(All, GoferTreeAttack, ::testing::ValuesIn(OfTheGofer()), NameOf);

// The walls let pass what they are there to let pass.
TEST(Gofer, ItsOwnWorkIsDone) {
  EXPECT_EQ(Try(Role::kGofer, {.box = true, .filter = true}, TheNeighbour().tree,
                [](const Place& p) {
                  int path = openat(p.tree, "file", O_PATH | O_CLOEXEC);
                  if (path < 0) return errno;
                  int fd = openat(p.self_fd, std::to_string(path).c_str(), O_RDWR | O_CLOEXEC);
                  if (fd < 0) return errno;
                  if (pwrite(fd, "new", 3, 0) != 3) return errno;
                  if (fchownat(p.tree, "file", 1234, 1234, AT_SYMLINK_NOFOLLOW) != 0) return errno;
                  // Of another's, whatever its mode.
                  if (fchmodat(p.self_fd, std::to_string(path).c_str(), 0, 0) != 0) return errno;
                  fd = openat(p.self_fd, std::to_string(path).c_str(), O_RDWR | O_CLOEXEC);
                  if (fd < 0) return errno;
                  return Outcome(fchmodat(p.self_fd, std::to_string(path).c_str(), 0644, 0));
                }),
            0);
}

}  // namespace
}  // namespace redoubt::attack
