#include "runsc/boot/test/fake_cli.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "pkg/platform/kvm/kvm.h"
#include "runsc/box/box.h"
#include "runsc/sandbox/layout.h"
#include "runsc/specutils/codec.h"

namespace redoubt::boot {
namespace {

constexpr int kAnswerMs = 60'000;

bool Readable(int fd, int milliseconds) {
  pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&p, 1, milliseconds) == 1;
}

// $RUNSC as `role`, with descriptors at given numbers and no others.
pid_t Start(const std::vector<std::string>& args, const std::map<int, int>& fds) {
  std::vector<char*> argv;
  for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const char* runsc = getenv("RUNSC");
  if (runsc == nullptr) return -1;
  UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  // As box::Vfork, with memory of its own.
  const unsigned long namespaces = box::BirthNamespaces();
  pid_t pid = static_cast<pid_t>(syscall(SYS_clone, namespaces | SIGCHLD, 0, 0, 0, 0));
  if (pid != 0) return pid;
  if (!box::BeforeExec(self.get(), namespaces, geteuid(), getegid())) _exit(1);
  std::map<int, int> moved;
  for (auto [number, fd] : fds) moved[number] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
  for (int fd = 3; fd < 100; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
  for (auto [number, fd] : moved) dup2(fd, number);
  char* env[] = {nullptr};
  execve(runsc, argv.data(), env);
  _exit(1);
}

// Not below $TEST_TMPDIR, whose name may be too long for a socket's address (unix(7)).
std::string Scratch() {
  char path[] = "/tmp/boot.XXXXXX";
  if (mkdtemp(path) == nullptr) abort();
  return path;
}

}  // namespace

void Client::Send(const control::Request& request, const std::vector<int>& fds) {
  ASSERT_TRUE(connection_);
  Result<> sent = connection_.Send(control::Serialize(request), fds);
  ASSERT_TRUE(sent) << sent.error().name();
}

control::Reply Client::Receive() {
  if (!connection_ || !Readable(connection_.fd(), kAnswerMs)) {
    ADD_FAILURE() << "no answer";
    return {.error = "no answer"};
  }
  Result<control::Packet> packet = connection_.Receive();
  if (!packet) return {.error = std::string("connection: ") + std::string(packet.error().name())};
  Result<control::Reply> reply = control::ParseReply(packet->bytes);
  if (!reply) return {.error = "malformed answer"};
  return *reply;
}

bool Client::IsClosed(int milliseconds) {
  if (!Readable(connection_.fd(), milliseconds)) return false;
  Result<control::Packet> packet = connection_.Receive(MSG_DONTWAIT);
  return !packet && packet.error() != Errno(EAGAIN) && packet.error() != Errno(EBADMSG);
}

Output::Output() {
  int pair[2];
  if (pipe2(pair, O_CLOEXEC) != 0) abort();
  read_ = UniqueFd(pair[0]);
  write_ = UniqueFd(pair[1]);
  fcntl(read_.get(), F_SETFL, O_NONBLOCK);
}

void Output::ReadNow() {
  char buffer[4096];
  ssize_t n = 0;
  while ((n = read(read_.get(), buffer, sizeof(buffer))) > 0) text_.append(buffer, static_cast<size_t>(n));
}

bool Output::WaitFor(const std::string& text, int seconds) {
  return Eventually(
      [&] {
        ReadNow();
        return text_.find(text) != std::string::npos;
      },
      seconds);
}

FakeCli::FakeCli(Options options) : root_(Scratch()), socket_path_(root_ + ".sock") {
  for (const char* d : {"/bin", "/proc", "/dev", "/tmp", "/etc"}) std::filesystem::create_directory(root_ + d);
  std::filesystem::copy_file("/bin/busybox", root_ + "/bin/busybox");
  std::ofstream(root_ + "/etc/motd") << "hello\n";

  if (options.platform.empty()) {
    const char* platform = getenv("RUNSC_PLATFORM");
    options.platform = platform != nullptr ? platform : "auto";
  }
  UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  UniqueFd kvm(options.platform == "kvm" ? platform::kvm::OpenDevice() : -1);
  std::string bytes = specutils::SerializeOptions({.platform = options.platform,
                                                   .cpus = 2,
                                                   .memory = uint64_t{1} << 30,
                                                   .report_missing = options.report_missing,
                                                   .kvm_device = kvm ? 0 : ENOENT});
  UniqueFd file(memfd_create("options", MFD_CLOEXEC));
  if (pwrite(file.get(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) abort();
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  auto pair = control::Connection::Pair();
  std::map<int, int> fds = {{0, null.get()},
                            {1, null.get()},
                            {2, 2},
                            {sandbox::kOptionsFd, file.get()},
                            {sandbox::kConnectionFd, pair->second.fd()},
                            {sandbox::kParentFd, self.get()}};
  if (kvm) fds[sandbox::kKvmFd] = kvm.get();
  UniqueFd listener;
  if (options.listen) {
    listener = UniqueFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    socket_path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    if (bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
        listen(listener.get(), 128) != 0) {
      perror(socket_path_.c_str());
      abort();
    }
    fds[sandbox::kListenFd] = listener.get();
  }
  boot_ = Start({"runsc-sandbox", "boot"}, fds);
  first_ = Client(std::move(pair->first));
}

FakeCli::~FakeCli() {
  if (boot_ > 0) gofers_.push_back(boot_);
  for (pid_t pid : gofers_) kill(pid, SIGKILL);
  for (pid_t pid : gofers_) waitpid(pid, nullptr, 0);
  std::filesystem::remove_all(root_);
  unlink(socket_path_.c_str());
}

specutils::Spec FakeCli::Shell(const std::string& script) const {
  specutils::Spec spec;
  spec.root_path = root_;
  spec.mounts = {{.destination = "/proc", .type = "proc", .source = "proc", .options = {}},
                 {.destination = "/dev", .type = "devtmpfs", .source = "devtmpfs", .options = {}}};
  spec.process.args = {"/bin/busybox", "sh", "-c", script};
  spec.process.env = {"PATH=/bin"};
  const uint64_t all = (uint64_t{1} << 41) - 1;
  spec.process.bounding = spec.process.permitted = spec.process.effective = all;
  return spec;
}

UniqueFd FakeCli::StartGofer() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) abort();
  UniqueFd ours(pair[0]), its(pair[1]);
  // Why it cannot start is for the test's own errors.
  const int served = sandbox::kGoferReasonFd + 1;
  gofers_.push_back(Start({"runsc-gofer", "gofer", "rw", root_, std::to_string(served)},
                          {{2, 2}, {sandbox::kGoferReasonFd, 2}, {served, its.get()}}));
  return ours;
}

void FakeCli::SendCreate(Client& client, const std::string& id, const specutils::Spec& spec, int out, bool start,
                         bool attach) {
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  UniqueFd gofer = StartGofer();
  if (out < 0) out = null.get();
  client.Send({.method = control::Method::kCreate,
               .container = id,
               .attach = attach,
               .start = start,
               .body = specutils::SerializeSpec(spec)},
              {null.get(), out, out, gofer.get()});
}

control::Reply FakeCli::Exec(Client& client, const std::string& id, const std::vector<std::string>& args, int out,
                             bool attach) {
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (out < 0) out = null.get();
  specutils::Process process = Shell("").process;
  process.args = args;
  return client.Ask({.method = control::Method::kExec,
                     .container = id,
                     .attach = attach,
                     .body = specutils::SerializeProcess(process)},
                    {null.get(), out, out});
}

Client FakeCli::Connect() {
  UniqueFd s(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  socket_path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (connect(s.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    ADD_FAILURE() << "connect: " << strerror(errno);
    return Client();
  }
  return Client(control::Connection(std::move(s)));
}

bool FakeCli::HasEnded(int milliseconds, int* status) {
  bool ended = Eventually(
      [&] {
        int s = 0;
        if (waitpid(boot_, &s, WNOHANG) != boot_) return false;
        if (status != nullptr) *status = s;
        boot_ = -1;
        return true;
      },
      (milliseconds + 999) / 1000);
  return ended;
}

std::string Contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool Eventually(const std::function<bool()>& condition, int seconds) {
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return condition();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace redoubt::boot
