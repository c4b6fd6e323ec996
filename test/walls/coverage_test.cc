// Fails for a rule of a filter that no workload here makes use of, as long as its list does not say "rare": what nobody
// needs is not to be allowed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "pkg/gofer/filter.h"
#include "pkg/sentry/socket/hostinet/options.h"
#include "runsc/boot/filter/filter.h"
#include "test/walls/tracer_unsafe.h"

namespace redoubt::walls {
namespace {

// Terminal calls, in the guest: what libraries and shells do, and what only ioctl(2) itself can.
constexpr char kTerminalProgram[] = R"(
import fcntl, termios, struct, os
t = termios.tcgetattr(0)
for how in (termios.TCSANOW, termios.TCSADRAIN, termios.TCSAFLUSH): termios.tcsetattr(0, how, t)
termios.tcdrain(0); termios.tcflush(0, termios.TCIFLUSH); termios.tcflow(0, termios.TCOON)
size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)); fcntl.ioctl(0, termios.TIOCSWINSZ, size)
fcntl.ioctl(0, termios.TIOCOUTQ, bytes(4)); fcntl.ioctl(0, termios.FIONREAD, bytes(4))
two = fcntl.ioctl(0, 0x802c542a, bytes(44))
for set2 in (0x402c542b, 0x402c542c, 0x402c542d): fcntl.ioctl(0, set2, two)
)";

// Files that the guest was given: stdin, stdout.
constexpr char kFilesProgram[] = R"(
import os
os.read(0, 4096); os.fstat(0); os.lseek(0, 0, 0); os.write(1, b'x' * 100000)
os.fsync(1); os.ftruncate(1, 10); os.fdatasync(1)
)";

// Faults of the Sentry on guest memory, large memory taken and given back, threads, processes, interrupts, idleness.
constexpr char kLoadProgram[] = R"(
import ctypes, os, mmap, signal, threading, time
libc = ctypes.CDLL(None, use_errno=True)
# A call by the 32-bit door, which is none.
if os.fork() == 0:
    page = mmap.mmap(-1, 4096, prot=7); page.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
assert os.wait()[1] & 127 == signal.SIGSEGV
m = mmap.mmap(-1, 64 << 20); m[::4096] = b'x' * (64 << 20 >> 12); m.close()
def spin():
    end = time.time() + 0.3
    while time.time() < end: pass
ts = [threading.Thread(target=spin) for _ in range(8)]
for t in ts: t.start()
for i in range(60):
    p = os.fork()
    if p == 0:
        if i % 3 == 0: time.sleep(10)
        os._exit(0)
    if i % 3 == 0: os.kill(p, signal.SIGKILL)
    os.waitpid(p, 0)
for t in ts: t.join()
# Interrupted while it runs: a timer's signal, which the guest's code does not wait for.
signal.signal(signal.SIGALRM, lambda *a: None)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
end = time.time() + 0.3
while time.time() < end: pass
signal.setitimer(signal.ITIMER_REAL, 0)
os.urandom(100)
time.sleep(3)  # idle threads end after a second
)";

// Everything that a file server is asked, below /data.
constexpr char kGoferProgram[] = R"(
import os, socket
os.chdir('/data')
f = os.open('a', os.O_CREAT | os.O_RDWR); os.write(f, b'hello'); os.fsync(f); os.pread(f, 5, 0); os.ftruncate(f, 2); os.close(f)
os.mkdir('d'); os.symlink('a', 's'); os.readlink('s'); os.link('a', 'h'); os.rename('h', 'd/h'); os.listdir('.'); os.statvfs('.')
os.mkfifo('p'); os.chown('a', 1, 1); os.chmod('a', 0o600); os.utime('a', (1, 1))
for call in (lambda: os.setxattr('a', 'user.x', b'y'), lambda: os.getxattr('a', 'user.x'), lambda: os.listxattr('a'),
             lambda: os.removexattr('a', 'user.x')):
    try: call()
    except OSError: pass  # a host file system that has none; asked it was
big = os.open('big', os.O_CREAT | os.O_RDWR); os.write(big, b'x' * (4 << 20)); os.close(big)
names = [f'n{i}' for i in range(300)]
for n in names: os.close(os.open(n, os.O_CREAT | os.O_RDWR))
for n in names: os.unlink(n)
os.unlink('p'); os.unlink('d/h'); os.rmdir('d')
)";

// Sockets of the host's stack; `options` are (level, name, bytes to set, bytes to get).
constexpr char kHostNetworkProgram[] = R"(
import socket, fcntl, struct
kinds = [(f, t, p) for f, icmp in ((socket.AF_INET, 1), (socket.AF_INET6, 58))
         for t, p in ((socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 0), (socket.SOCK_DGRAM, icmp))]
made = []
for kind in kinds:
    try: made.append(socket.socket(*kind))
    except PermissionError: pass  # net.ipv4.ping_group_range; asked it was
for level, name, least, got in options:
    for s in made:
        for call in (lambda: least and s.setsockopt(level, name, bytes(least)), lambda: got and s.getsockopt(level, name, got)):
            try: call()
            except OSError: pass
listener = socket.create_server(('127.0.0.1', 0))
a = socket.create_connection(listener.getsockname())
b, _ = listener.accept()
a.send(b'x'); assert b.recv(10) == b'x'
b.getpeername(); fcntl.ioctl(b, 0x8905, bytes(4)); fcntl.ioctl(b, 0x894b, bytes(4)); b.shutdown(2)
)";

std::string HostNetworkProgram() {
  std::string options = "options = [";
  for (const hostinet::Option& o : hostinet::Options()) {
    options += "(" + std::to_string(o.level) + ", " + std::to_string(o.name) + ", " + std::to_string(o.most) + ", " +
               std::to_string(o.got) + "), ";
  }
  return options + "]\n" + kHostNetworkProgram;
}

class CoverageTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    char name[] = "/tmp/coverage.XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
    runsc_ = realpath(getenv("RUNSC"), nullptr);
    const boot::Filter* filter = boot::FindFilter(GetParam(), "none");
    ASSERT_NE(filter, nullptr);
    sentry_.rules = filter->rules;
    gofer_.rules = gofer::FilterRules();
  }
  void TearDown() override { std::system(("rm -rf " + directory_).c_str()); }

  std::vector<std::string> Do(std::vector<std::string> command) {
    std::vector<std::string> argv = {runsc_, "--platform=" + GetParam(), "do"};
    argv.insert(argv.end(), command.begin(), command.end());
    return argv;
  }
  void Run(const char* what, Command command) {
    int status = Trace(command, sentry_, gofer_);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << what << ": status " << status;
  }
  void RunPython(const char* what, const char* program, std::function<void()> in_child = {}) {
    Run(what, {.argv = Do({"/usr/bin/python3", "-c", program}), .in_child = std::move(in_child)});
  }
  void RunOnTerminal() {
    int master = -1, slave = -1;
    ASSERT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
    std::thread reader([master] {
      char buffer[256];
      while (read(master, buffer, sizeof(buffer)) > 0) {
      }
    });
    RunPython("terminal", kTerminalProgram, [slave, master] {
      setsid();
      for (int fd : {0, 1, 2}) dup2(slave, fd);
      close(master);
      if (slave > 2) close(slave);
    });
    close(slave);
    reader.join();
    close(master);
  }
  // With a ring and without.
  void RunOnFiles(const char* flag) {
    const std::string in = directory_ + "/in", out = directory_ + "/out";
    std::ofstream(in) << std::string(100000, 'x');
    Run("files", {.argv = {runsc_, "--platform=" + GetParam(), flag, "do", "/usr/bin/python3", "-c", kFilesProgram},
                  .in_child = [in, out] {
                    dup2(open(in.c_str(), O_RDONLY), 0);
                    dup2(open(out.c_str(), O_RDWR | O_CREAT, 0600), 1);
                  }});
  }
  // The bundle's program is `program`, for Python.
  bool Configure(const std::string& bundle, const char* program) {
    pid_t pid = fork();
    if (pid == 0) {
      if (chdir(bundle.c_str()) == 0) execl("/usr/bin/python3", "python3", "make.py", program, nullptr);
      _exit(1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return status == 0;
  }
  void RunBundle() {
    const std::string bundle = directory_ + "/bundle";
    const std::string make = "mkdir -p " + bundle + "/rootfs/data && cd " + bundle + " && " + runsc_ + " spec";
    ASSERT_EQ(std::system(make.c_str()), 0);
    // Python and its libraries come from the host; what is written goes to the bundle.
    std::ofstream(bundle + "/make.py") << R"(
import json, sys
c = json.load(open('config.json'))
c['process']['terminal'] = False
c['process']['args'] = ['/usr/bin/python3', '-c', sys.argv[1]]
c['root']['readonly'] = False
c['mounts'] = [m for m in c['mounts'] if m['type'] != 'bind'] + [{'destination': d, 'type': 'bind', 'source': d, 'options': ['rbind', 'ro']} for d in ('/usr', '/lib', '/lib64')]
caps = ['CAP_CHOWN', 'CAP_FOWNER', 'CAP_DAC_OVERRIDE', 'CAP_SYS_ADMIN', 'CAP_MKNOD']
c['process'].setdefault('capabilities', {}).update({k: caps for k in ('bounding', 'effective', 'permitted')})
json.dump(c, open('config.json', 'w'))
)";
    // First, as nothing of it stays.
    ASSERT_TRUE(Configure(bundle, "open('/file', 'wb').write(b'x' * (1 << 20))"));
    Run("overlay", {.argv = {runsc_, "--platform=" + GetParam(), "--root=" + directory_ + "/root",
                             "--overlay2=root:self", "run", "--bundle=" + bundle, "coverage"},
                    .in_child = {}});
    ASSERT_TRUE(Configure(bundle, kGoferProgram));
    Run("bundle", {.argv = {runsc_, "--platform=" + GetParam(), "--root=" + directory_ + "/root", "run",
                            "--bundle=" + bundle, "coverage"},
                   .in_child = {}});
  }
  // Asked from outside, while it runs.
  void RunAsked() {
    const std::string root = "--root=" + directory_ + "/root", bundle = directory_ + "/bundle";
    // Not by threads of this process: the tracer waits for all its children.
    const std::string ask = runsc_ + " " + root + " ", said = directory_ + "/said";
    std::ofstream(directory_ + "/ask.sh")
        << "for i in $(seq 100); do " + ask + "exec asked true 2>/dev/null && break; sleep 0.1; done\n" + ask +
               "exec --env=LONG=" + std::string(100'000, 'x') + " asked true && echo exec\n" + ask +
               "ps asked >/dev/null && echo ps\n" + ask + "exec asked touch /data/end && echo touch\n";
    ASSERT_EQ(std::system(("setsid sh " + directory_ + "/ask.sh >" + said + " 2>&1 &").c_str()), 0);
    ASSERT_TRUE(
        Configure(bundle, "import os, time\nwhile not os.path.exists('/data/end'): time.sleep(0.1)\ntime.sleep(3)"));
    Run("asked",
        {.argv = {runsc_, "--platform=" + GetParam(), root, "run", "--bundle=" + bundle, "asked"}, .in_child = {}});
    std::stringstream all;
    all << std::ifstream(said).rdbuf();
    EXPECT_EQ(all.str(), "exec\nps\ntouch\n");
  }
  static std::string Unused(const Coverage& c) {
    std::string text;
    for (size_t i = 0; i < c.rules.size(); i++) {
      const seccomp::Rule& r = c.rules[i];
      // A rule that answers with an error allows nothing.
      if (r.rare || r.error != 0 || c.used.contains(i)) continue;
      text += std::string(" ") + r.name;
      for (size_t k = 0; k < r.conditions; k++) {
        text += "[arg" + std::to_string(r.condition[k].argument) + "==" + std::to_string(r.condition[k].value) + "]";
      }
    }
    return text;
  }

  std::string directory_;
  std::string runsc_;
  Coverage sentry_, gofer_;
};

TEST_P(CoverageTest, EveryRuleIsUsed) {
  Run("true", {.argv = Do({"/bin/true"}), .in_child = {}});
  Run("pipe", {.argv = Do({"/bin/sh", "-c", "echo hello | cat | (read line; sleep 0.1; echo $line)"}), .in_child = {}});
  RunOnTerminal();
  RunOnFiles("--io-uring=true");
  RunOnFiles("--io-uring=false");
  RunPython("load", kLoadProgram);
  Run("log", {.argv = {runsc_, "--platform=" + GetParam(), "--debug", "--strace", "--debug-log=" + directory_, "do",
                       "/bin/true"},
              .in_child = {}});
  RunBundle();
  RunAsked();
  EXPECT_EQ(Unused(sentry_), "");
  EXPECT_EQ(Unused(gofer_), "");
}

TEST_P(CoverageTest, EveryRuleOfTheHostsNetworkIsUsed) {
  const auto base = sentry_.rules;
  sentry_.rules = boot::FindFilter(GetParam(), "host")->rules;
  Run("host network", {.argv = {runsc_, "--platform=" + GetParam(), "--network=host", "do", "/usr/bin/python3", "-c",
                                HostNetworkProgram()},
                       .in_child = {}});
  // All others are the other test's.
  auto same = [](const seccomp::Rule& a, const seccomp::Rule& b) {
    if (a.number != b.number || a.conditions != b.conditions) return false;
    for (size_t i = 0; i < a.conditions; i++) {
      if (a.condition[i].argument != b.condition[i].argument || a.condition[i].value != b.condition[i].value) {
        return false;
      }
    }
    return true;
  };
  for (size_t i = 0; i < sentry_.rules.size(); i++) {
    if (std::ranges::any_of(base, [&](const seccomp::Rule& r) { return same(r, sentry_.rules[i]); })) {
      sentry_.used.insert(i);
    }
  }
  EXPECT_EQ(Unused(sentry_), "");
}

INSTANTIATE_TEST_SUITE_P(All, CoverageTest, ::testing::Values("systrap", "ptrace", "kvm"),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace redoubt::walls
