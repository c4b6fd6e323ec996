// What a specification's parts look like from inside.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runsc/boot/test/fake_cli.h"
#include "runsc/specutils/codec.h"

namespace redoubt::boot {
namespace {

using control::Method;
using control::Reply;
using control::Request;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kId[] = "c1";

// Runs the container to its end; what it has written, or the error.
std::string OutputOf(FakeCli& cli, const specutils::Spec& spec) {
  Output out;
  Reply made = cli.Create(cli.first(), kId, spec, out.fd(), true);
  if (!made.error.empty()) return made.error;
  Reply last = cli.first().Receive();
  out.ReadNow();
  return out.text() + "status " + std::to_string(last.status) + "\n";
}

TEST(MaskedPaths, AreEmptyOrNull) {
  FakeCli cli;
  specutils::Spec spec = cli.Shell(
      "ls /etc /tmp; cat /proc/meminfo; touch /tmp/x; echo more > /proc/meminfo; ls -l /proc/meminfo; "
      "grep -c /tmp /proc/self/mounts");
  spec.masked_paths = {"/etc", "/tmp", "/proc/meminfo", "/no/such", "/etc/motd/x"};
  std::string text = OutputOf(cli, spec);
  EXPECT_THAT(text, Not(HasSubstr("motd")));
  EXPECT_THAT(text, Not(HasSubstr("MemTotal")));
  EXPECT_THAT(text, HasSubstr("/tmp/x: Read-only file system"));
  EXPECT_THAT(text, HasSubstr("crw-rw-rw-"));
  EXPECT_THAT(text, HasSubstr("1\nstatus 0"));
  EXPECT_EQ(Contents(cli.root() + "/etc/motd"), "hello\n");
}

TEST(ReadOnlyPaths, RefuseWrites) {
  FakeCli cli;
  specutils::Spec spec = cli.Shell(
      "cat /etc/motd; echo x > /etc/motd; echo y > /proc/sys/kernel/hostname; echo z > /tmp/ok; cat /tmp/ok; "
      "mount -o remount,rw /etc; grep ' /etc ' /proc/self/mounts");
  spec.mounts[0].options = {"nosuid", "noexec"};
  spec.read_only_paths = {"/etc", "/proc/sys", "/no/such"};
  std::string text = OutputOf(cli, spec);
  EXPECT_THAT(text, HasSubstr("hello\n"));
  EXPECT_THAT(text, HasSubstr("/etc/motd: Read-only file system"));
  EXPECT_THAT(text, HasSubstr("/proc/sys/kernel/hostname: Read-only file system"));
  EXPECT_THAT(text, HasSubstr("z\n"));
}

TEST(ReadOnlyPaths, KeepTheFlagsOfTheirMount) {
  FakeCli cli;
  specutils::Spec spec = cli.Shell("grep ' /proc/sys ' /proc/self/mounts");
  spec.mounts[0].options = {"nosuid", "noexec", "nodev"};
  spec.read_only_paths = {"/proc/sys"};
  EXPECT_THAT(OutputOf(cli, spec), HasSubstr("proc /proc/sys proc ro,nosuid,nodev,noexec"));
}

TEST(Sysctls, AreSet) {
  FakeCli cli;
  specutils::Spec spec =
      cli.Shell("cd /proc/sys; cat net/core/somaxconn kernel/shmmax kernel/msgmax fs/mqueue/msg_max");
  spec.sysctls = {{"net.core.somaxconn", "77"},
                  {"kernel.shmmax", "123456"},
                  {"kernel.msgmax", "4321"},
                  {"net.ipv4.ping_group_range", "0 2147483647"},
                  {"net.ipv4.ip_unprivileged_port_start", "0"},
                  {"fs.mqueue.msg_max", "100"},
                  {"kernel.shm_rmid_forced", "1"}};
  spec.read_only_paths = {"/proc/sys"};
  EXPECT_EQ(OutputOf(cli, spec), "77\n123456\n4321\n100\nstatus 0\n");
}

TEST(Sysctls, AreNotKnownOrNotAllowed) {
  struct Case {
    const char* name;
    const char* value;
    const char* error;
  };
  for (const Case& c : {Case{"kernel.nosuch", "1", "sysctl kernel.nosuch: not known"},
                        Case{"kernel", "1", "sysctl kernel: not known"}, Case{"", "1", "sysctl : not known"},
                        Case{"../etc/motd", "1", "not known"}, Case{"kernel.ostype", "x", "cannot be set to \"x\""},
                        Case{"net.core.somaxconn", "many", "sysctl net.core.somaxconn: cannot be set to \"many\""}}) {
    FakeCli cli;
    specutils::Spec spec = cli.Shell("true");
    spec.sysctls = {{c.name, c.value}};
    EXPECT_THAT(OutputOf(cli, spec), HasSubstr(c.error));
  }
}

TEST(Sysctls, NeedNoProc) {
  FakeCli cli;
  specutils::Spec spec = cli.Shell("");
  spec.mounts.clear();
  spec.process.args = {"/bin/busybox", "echo", "fine"};
  spec.sysctls = {{"net.core.somaxconn", "77"}};
  EXPECT_THAT(OutputOf(cli, spec), HasSubstr("fine"));
}

TEST(MessageQueues, AreFiles) {
  FakeCli cli;
  specutils::Spec spec = cli.Shell("cd /dev/mqueue; touch b; cat b; ls; grep mqueue /proc/mounts; rm b; mkdir c; ls");
  spec.mounts.push_back({.destination = "/dev/mqueue", .type = "mqueue", .source = "mqueue", .options = {"nosuid"}});
  std::string text = OutputOf(cli, spec);
  EXPECT_THAT(text, HasSubstr("QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \nb\n"
                              "mqueue /dev/mqueue mqueue rw,nosuid"));
  EXPECT_THAT(text, HasSubstr("Operation not permitted"));
  EXPECT_THAT(text, HasSubstr("\nstatus 0\n"));
}

TEST(Names, AreTheSandboxes) {
  FakeCli cli;
  specutils::Spec spec = cli.Shell("hostname; cat /proc/sys/kernel/domainname");
  spec.hostname = "box";
  spec.domainname = "example";
  EXPECT_THAT(OutputOf(cli, spec), HasSubstr("box\nexample\n"));
}

TEST(Process, HasItsOomScoreAdjustment) {
  FakeCli cli;
  specutils::Spec spec = cli.Shell("cat /proc/self/oom_score_adj");
  spec.process.oom_score_adj = -500;
  EXPECT_THAT(OutputOf(cli, spec), HasSubstr("-500\n"));
}

TEST(Process, OrphansGoToTheContainersFirst) {
  FakeCli cli;
  Output out, out2;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, true).error, "");
  Client second = cli.Connect();
  const char* script = "sh -c '(sleep 0.3; grep PPid /proc/self/status; echo $PPID end) &'; sleep 100";
  Reply made = cli.Create(second, "c2", cli.Shell(script), out.fd(), true);
  ASSERT_EQ(made.error, "");
  Client exec = cli.Connect();
  ASSERT_EQ(
      cli.Exec(exec, "c2",
               {"busybox", "sh", "-c", "(sleep 0.3; cat /proc/self/stat > /dev/null; sleep 77) & sleep 0.1"}, out2.fd())
          .error,
      "");
  EXPECT_EQ(exec.Receive().status, 0);
  EXPECT_TRUE(Eventually([&] {
    auto list = control::ParseProcesses(cli.Ask({.method = Method::kProcesses, .container = "c2"}).body);
    if (!list) return false;
    int orphans = 0;
    for (const control::ProcessInfo& p : *list) orphans += p.pid != made.pid && p.parent == made.pid ? 1 : 0;
    // The shell's own sleep and the orphaned subshell of the exec.
    return orphans >= 2;
  }));
  // PID 1 is another container's: no orphan of this one came there.
  auto list = control::ParseProcesses(cli.Ask({.method = Method::kProcesses, .container = kId}).body);
  ASSERT_TRUE(list);
  for (const control::ProcessInfo& p : *list) EXPECT_THAT(p.command_line, Not(HasSubstr("77")));
}

TEST(Descriptors, ArePreserved) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, true).error, "");
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  Output third, fourth;
  specutils::Process process = cli.Shell("echo three >&3; echo four >&4; echo five >&5").process;
  Client exec = cli.Connect();
  Reply made = exec.Ask({.method = Method::kExec,
                         .container = kId,
                         .attach = true,
                         .preserved = 2,
                         .body = specutils::SerializeProcess(process)},
                        {null.get(), null.get(), null.get(), third.fd(), fourth.fd()});
  ASSERT_EQ(made.error, "");
  EXPECT_NE(exec.Receive().status, 0);
  EXPECT_TRUE(third.WaitFor("three"));
  EXPECT_TRUE(fourth.WaitFor("four"));
}

// A pseudo-terminal of the host as an exec's stdio.
class Terminal : public ::testing::Test {
 protected:
  void SetUp() override {
    int master = -1, slave = -1;
    ASSERT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
    master_ = UniqueFd(master);
    slave_ = UniqueFd(slave);
    fcntl(master, F_SETFL, O_NONBLOCK);
    ASSERT_EQ(cli_.Create(cli_.first(), kId, cli_.Shell("sleep 1000"), -1, true).error, "");
  }
  Reply Start(const std::string& script) {
    specutils::Process process = cli_.Shell(script).process;
    process.terminal = true;
    return exec_.Ask(
        {.method = Method::kExec, .container = kId, .attach = true, .body = specutils::SerializeProcess(process)},
        {slave_.get(), slave_.get(), slave_.get()});
  }
  bool Shows(const std::string& text) {
    return Eventually([&] {
      char buffer[1000];
      ssize_t n = read(master_.get(), buffer, sizeof(buffer));
      if (n > 0) seen_.append(buffer, static_cast<size_t>(n));
      return seen_.find(text) != std::string::npos;
    });
  }

  FakeCli cli_;
  UniqueFd master_, slave_;
  Client exec_ = cli_.Connect();
  std::string seen_;
};

TEST_F(Terminal, IsTheProcesses) {
  ASSERT_EQ(Start("tty; echo ctty > /dev/tty; read x; echo got $x; exit 3").error, "");
  EXPECT_TRUE(Shows("ctty")) << seen_;
  ASSERT_EQ(write(master_.get(), "abc\n", 4), 4);
  EXPECT_TRUE(Shows("got abc")) << seen_;
  EXPECT_EQ(exec_.Receive().status, 3 << 8);
}

TEST_F(Terminal, KeyboardSignalsGoToItsForeground) {
  // An interactive shell puts its jobs into process groups of their own.
  ASSERT_EQ(Start("set -m; trap 'echo shell got it' INT; sh -c 'trap \"echo job got it; exit 0\" INT; echo ready; "
                  "while :; do sleep 0.05; done'; echo over; exit 3")
                .error,
            "");
  ASSERT_TRUE(Shows("ready")) << seen_;
  exec_.Send({.method = Method::kSignal, .signal = SIGINT, .keyboard = true});
  EXPECT_TRUE(Shows("job got it")) << seen_;
  EXPECT_TRUE(Shows("over")) << seen_;
  EXPECT_EQ(seen_.find("shell got it"), std::string::npos);
  EXPECT_EQ(exec_.Receive().status, 3 << 8);
}

TEST_F(Terminal, TellsOfItsSize) {
  ASSERT_EQ(Start("trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done").error, "");
  ASSERT_TRUE(Shows("ready")) << seen_;
  winsize size{.ws_row = 33, .ws_col = 77, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(ioctl(master_.get(), TIOCSWINSZ, &size), 0);
  exec_.Send({.method = Method::kSignal, .signal = SIGWINCH, .keyboard = true});
  EXPECT_TRUE(Shows("33 77")) << seen_;
}

}  // namespace
}  // namespace redoubt::boot
