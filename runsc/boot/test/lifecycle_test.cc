// Boot as the CLI sees it: containers made, started, looked at, signalled, paused and ended.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <thread>

#include "runsc/boot/test/fake_cli.h"
#include "runsc/sandbox/layout.h"

namespace redoubt::boot {
namespace {

using control::Method;
using control::Reply;
using control::Request;
using ::testing::HasSubstr;

constexpr char kId[] = "c1";
constexpr int kExited3 = 3 << 8;

Request Signal(int sig, int pid = 0) {
  return {.method = Method::kSignal, .container = kId, .pid = pid, .signal = sig};
}
Request Plain(Method method, const std::string& id = kId) { return {.method = method, .container = id}; }

uint64_t CpuOf(FakeCli& cli) {
  Result<control::Stats> stats = control::ParseStats(cli.Ask(Plain(Method::kStats)).body);
  return stats ? stats->cpu_user_ns + stats->cpu_system_ns : 0;
}

TEST(Create, RunsNothingBeforeStart) {
  FakeCli cli;
  Output out;
  Reply made = cli.Create(cli.first(), kId, cli.Shell("echo ran; exit 3"), out.fd(), false);
  ASSERT_EQ(made.error, "");
  EXPECT_EQ(made.pid, 1);
  EXPECT_FALSE(out.WaitFor("ran", 1));
  EXPECT_EQ(cli.Ask(Plain(Method::kStart)).error, "");
  EXPECT_TRUE(out.WaitFor("ran"));
  EXPECT_EQ(cli.first().Receive().status, kExited3);
  int status = -1;
  EXPECT_TRUE(cli.HasEnded(10'000, &status));
  EXPECT_EQ(status, 0);
}

TEST(Create, StartsAtOnceIfAsked) {
  FakeCli cli({.listen = false});
  Output out;
  EXPECT_EQ(cli.Create(cli.first(), kId, cli.Shell("cat /etc/motd; exit 3"), out.fd(), true).error, "");
  Reply last = cli.first().Receive();
  EXPECT_EQ(last.status, kExited3);
  EXPECT_EQ(last.body, "");
  EXPECT_TRUE(out.WaitFor("hello"));
  EXPECT_TRUE(cli.HasEnded());
}

TEST(Create, FailsWithTheReason) {
  struct Case {
    std::vector<std::string> args;
    std::string cwd;
    int code;
    const char* text;
  };
  for (const Case& c :
       {Case{{"nosuch"}, "/", sandbox::kNotFound, "\"nosuch\": executable file not found in $PATH"},
        Case{{"/no/such"}, "/", sandbox::kNotFound, "\"/no/such\": no such file or directory"},
        Case{{"/etc/motd"}, "/", sandbox::kNotExecutable, "\"/etc/motd\": permission denied"},
        Case{
            {"/bin/busybox", "true"}, "/nowhere", sandbox::kSetupFailed, "working directory /nowhere: No such file"}}) {
    FakeCli cli;
    specutils::Spec spec = cli.Shell("");
    spec.process.args = c.args;
    spec.process.cwd = c.cwd;
    Reply r = cli.Create(cli.first(), kId, spec, -1, false);
    EXPECT_THAT(r.error, HasSubstr(c.text));
    EXPECT_EQ(r.code, c.code);
    EXPECT_TRUE(cli.HasEnded());
  }
}

TEST(Create, FailsIfThePlatformDoes) {
  FakeCli cli({.platform = "nosuch"});
  Reply r = cli.Create(cli.first(), kId, cli.Shell("true"), -1, true);
  EXPECT_THAT(r.error, HasSubstr("cannot use platform nosuch"));
  EXPECT_EQ(r.code, sandbox::kSetupFailed);
  EXPECT_TRUE(cli.HasEnded());
}

TEST(Start, IsDoneOnce) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, false).error, "");
  EXPECT_EQ(cli.Ask(Plain(Method::kStart)).error, "");
  EXPECT_EQ(cli.Ask(Plain(Method::kStart)).error, "container has been started already");
}

TEST(Start, IsRefusedIfItWasPartOfCreate) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, true).error, "");
  EXPECT_EQ(cli.Ask(Plain(Method::kStart)).error, "container has been started already");
}

TEST(Signal, EndsTheContainer) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, true).error, "");
  EXPECT_EQ(cli.Ask(Signal(0)).error, "");
  EXPECT_EQ(cli.Ask(Signal(SIGTERM)).error, "");
  EXPECT_EQ(cli.first().Receive().status, SIGTERM);
  EXPECT_TRUE(cli.HasEnded());
}

TEST(Signal, ComesByTheProcessesConnection) {
  FakeCli cli;
  Output out;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"),
                       out.fd(), true)
                .error,
            "");
  ASSERT_TRUE(out.WaitFor("ready"));
  cli.first().Send(Signal(SIGTERM));
  EXPECT_EQ(cli.first().Receive().status, kExited3);
}

TEST(Signal, ReachesAContainerThatIsNotStarted) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, false).error, "");
  EXPECT_EQ(cli.Ask(Signal(SIGKILL)).error, "");
  EXPECT_EQ(cli.first().Receive().status, SIGKILL);
  EXPECT_TRUE(cli.HasEnded());
}

TEST(Signal, SaysWhoIsNotThere) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, true).error, "");
  EXPECT_EQ(cli.Ask(Signal(SIGTERM, 4000)).error, "no such process");
  Client exec = cli.Connect();
  Reply made = cli.Exec(exec, kId, {"busybox", "true"}, -1);
  ASSERT_EQ(made.error, "");
  EXPECT_EQ(exec.Receive().status, 0);
  EXPECT_EQ(cli.Ask(Signal(SIGTERM, made.pid)).error, "process already finished");
  EXPECT_EQ(cli.Ask({.method = Method::kSignal, .container = "other", .signal = SIGTERM}).error,
            "container does not exist");
  EXPECT_THAT(cli.Ask(Signal(65)).error, HasSubstr("no signal 65"));
  EXPECT_THAT(cli.Ask(Signal(-1)).error, HasSubstr("no signal -1"));
}

TEST(Signal, ReachesAllProcesses) {
  FakeCli cli;
  Output out;
  ASSERT_EQ(cli.Create(cli.first(), kId,
                       cli.Shell("trap '' USR1; for i in 1 2 3; do (trap 'echo got; exit' USR1; echo up; while :; do "
                                 "sleep 0.05; done) & done; wait; echo all; sleep 100"),
                       out.fd(), true)
                .error,
            "");
  ASSERT_TRUE(out.WaitFor("up\nup\nup\n"));
  // Each subshell's sleep is a process of the container as well, and dies of it.
  EXPECT_EQ(cli.Ask({.method = Method::kSignal, .container = kId, .signal = SIGUSR1, .all = true}).error, "");
  EXPECT_TRUE(out.WaitFor("all"));
  EXPECT_EQ(cli.Ask({.method = Method::kSignal, .container = kId, .signal = SIGKILL, .all = true}).error, "");
  EXPECT_EQ(cli.first().Receive().status, SIGKILL);
}

TEST(Exec, RunsInTheContainer) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("echo mine > /tmp/x; sleep 100"), -1, true).error, "");
  ASSERT_TRUE(Eventually([&] { return Contents(cli.root() + "/tmp/x") == "mine\n"; }));
  Client exec = cli.Connect();
  Output out;
  Reply made = cli.Exec(exec, kId, {"busybox", "sh", "-c", "cat /tmp/x; exit 3"}, out.fd());
  ASSERT_EQ(made.error, "");
  EXPECT_GT(made.pid, 1);
  EXPECT_EQ(exec.Receive().status, kExited3);
  EXPECT_TRUE(out.WaitFor("mine"));
  EXPECT_TRUE(exec.IsClosed());
}

TEST(Exec, FailsWithTheReason) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, true).error, "");
  Client client = cli.Connect();
  Reply r = cli.Exec(client, kId, {"nosuch"}, -1);
  EXPECT_EQ(r.error, "\"nosuch\": executable file not found in $PATH");
  EXPECT_EQ(r.code, sandbox::kNotFound);
  // The connection is as good as new.
  r = cli.Exec(client, kId, {"/etc/motd"}, -1);
  EXPECT_EQ(r.error, "\"/etc/motd\": permission denied");
  EXPECT_EQ(r.code, sandbox::kNotExecutable);
  r = cli.Exec(client, "other", {"busybox", "true"}, -1);
  EXPECT_EQ(r.error, "container does not exist");
  r = cli.Exec(client, kId, {"busybox", "true"}, -1);
  EXPECT_EQ(r.error, "");
  EXPECT_EQ(client.Receive().status, 0);
}

TEST(Exec, EndsWithItsConnectionAndTheContainerWithItsOwn) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, true).error, "");
  Client exec = cli.Connect();
  Reply made = cli.Exec(exec, kId, {"busybox", "sleep", "100"}, -1);
  ASSERT_EQ(made.error, "");
  exec.Close();
  EXPECT_TRUE(Eventually([&] { return cli.Ask(Signal(0, made.pid)).error == "process already finished"; }));
  EXPECT_EQ(cli.Ask(Signal(0)).error, "");
  cli.first().Close();
  EXPECT_TRUE(cli.HasEnded());
}

TEST(Exec, EndsWithTheContainer) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, true).error, "");
  Client exec = cli.Connect();
  ASSERT_EQ(cli.Exec(exec, kId, {"busybox", "sleep", "100"}, -1).error, "");
  cli.first().Send(Signal(SIGKILL));
  EXPECT_EQ(exec.Receive().status, SIGKILL);
  EXPECT_EQ(cli.first().Receive().status, SIGKILL);
}

TEST(Exec, TakesManyAtOnce) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 1000"), -1, true).error, "");
  constexpr int kMany = 50;
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < kMany; i++) {
    threads.emplace_back([&cli, &good, i] {
      Client exec = cli.Connect();
      Output out;
      std::string n = std::to_string(i);
      Reply made = cli.Exec(exec, kId, {"busybox", "sh", "-c", "echo n" + n + "; exit " + n}, out.fd());
      if (!made.error.empty() || exec.Receive().status != i << 8) return;
      if (out.WaitFor("n" + n + "\n")) good++;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(good, kMany);
}

TEST(Wait, TellsTheStatus) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), -1, true).error, "");
  Client exec = cli.Connect();
  Output out;
  // Not attached: it goes on without the connection that has asked for it.
  Reply made =
      cli.Exec(exec, kId, {"busybox", "sh", "-c", "echo up; while ! test -e /tmp/go; do sleep 0.05; done; exit 3"},
               out.fd(), false);
  ASSERT_EQ(made.error, "");
  exec.Close();
  Client early = cli.Connect(), impatient = cli.Connect();
  Request wait{.method = Method::kWait, .container = kId, .pid = made.pid};
  early.Send(wait);
  impatient.Send(wait);
  ASSERT_TRUE(out.WaitFor("up"));
  EXPECT_FALSE(early.IsClosed(200));
  impatient.Close();
  Client other = cli.Connect();
  ASSERT_EQ(cli.Exec(other, kId, {"busybox", "touch", "/tmp/go"}, -1).error, "");
  EXPECT_EQ(early.Receive().status, kExited3);
  // What has ended is remembered.
  EXPECT_EQ(cli.Ask(wait).status, kExited3);
  EXPECT_EQ(cli.Ask({.method = Method::kWait, .container = kId, .pid = 4000}).error, "no such process");
  // And the container's own end, asked for by one who has asked before.
  early.Send({.method = Method::kWait, .container = kId});
  cli.first().Send(Signal(SIGKILL));
  EXPECT_EQ(early.Receive().status, SIGKILL);
}

TEST(Pause, StopsAllAndLetsThemGoOn) {
  FakeCli cli;
  Output out;
  // One that computes, one that calls, one that sleeps.
  ASSERT_EQ(cli.Create(cli.first(), kId,
                       cli.Shell("(while :; do :; done) & (while :; do echo x; done > /dev/null) & (while :; do sleep "
                                 "0.02; echo tick; done) & wait"),
                       out.fd(), true)
                .error,
            "");
  ASSERT_TRUE(out.WaitFor("tick"));
  for (int round = 0; round < 5; round++) {
    ASSERT_EQ(cli.Ask(Plain(Method::kPause)).error, "");
    uint64_t cpu = CpuOf(cli);
    out.ReadNow();
    size_t written = out.text().size();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    // Who slept may have woken up and parked, and that is all.
    EXPECT_LT(CpuOf(cli) - cpu, 10'000'000u);
    out.ReadNow();
    EXPECT_EQ(out.text().size(), written);
    ASSERT_EQ(cli.Ask(Plain(Method::kResume)).error, "");
    EXPECT_TRUE(Eventually([&] { return CpuOf(cli) > cpu + 20'000'000; }));
    EXPECT_TRUE(Eventually([&] {
      out.ReadNow();
      return out.text().size() > written;
    }));
  }
}

TEST(Pause, DoesNotKeepFromBeingKilled) {
  FakeCli cli;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("(while :; do :; done) & sleep 100"), -1, true).error, "");
  ASSERT_EQ(cli.Ask(Plain(Method::kPause)).error, "");
  Client exec = cli.Connect();
  EXPECT_EQ(cli.Exec(exec, kId, {"busybox", "true"}, -1).error, "container is paused");
  EXPECT_EQ(cli.Ask(Signal(SIGKILL)).error, "");
  EXPECT_EQ(cli.first().Receive().status, SIGKILL);
  EXPECT_TRUE(cli.HasEnded());
}

TEST(Inspect, ListsProcesses) {
  FakeCli cli;
  Output out;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 111 & echo up; while :; do :; done"), out.fd(), true).error,
            "");
  ASSERT_TRUE(out.WaitFor("up"));
  ASSERT_TRUE(Eventually([&] { return CpuOf(cli) > 10'000'000; }));
  Result<std::vector<control::ProcessInfo>> list;
  // The shell's child shows the shell's arguments before it executes.
  ASSERT_TRUE(Eventually([&] {
    list = control::ParseProcesses(cli.Ask(Plain(Method::kProcesses)).body);
    return list && list->size() == 2 && (*list)[1].command_line == "sleep 111";
  }));
  EXPECT_EQ((*list)[0].pid, 1);
  EXPECT_EQ((*list)[0].state, 'R');
  EXPECT_GT((*list)[0].cpu_ns, 1'000'000u);
  EXPECT_GT((*list)[0].resident, 4096u);
  EXPECT_THAT((*list)[0].command_line, HasSubstr("/bin/busybox sh -c sleep 111"));
  EXPECT_EQ((*list)[1].parent, 1);
  EXPECT_EQ((*list)[1].command_line, "sleep 111");
  EXPECT_EQ((*list)[1].threads, 1);
  EXPECT_LT(std::abs((*list)[1].started_ns / 1'000'000'000 - time(nullptr)), 60);
  Result<control::Stats> stats = control::ParseStats(cli.Ask(Plain(Method::kStats)).body);
  ASSERT_TRUE(stats);
  EXPECT_EQ(stats->processes, 2u);
  EXPECT_EQ(stats->threads, 2u);
  EXPECT_GT(stats->memory, 0u);
  EXPECT_EQ(stats->memory_limit, uint64_t{1} << 30);
  std::string stacks;
  EXPECT_TRUE(Eventually([&] {
    stacks = cli.Ask(Plain(Method::kStacks)).body;
    return stacks.find("waits in") != std::string::npos;
  }));
  EXPECT_THAT(stacks, HasSubstr("pid 1 tid 1 (busybox) R: "));
  EXPECT_THAT(stacks, ::testing::ContainsRegex("\\(sleep\\) S: waits in (clock_)?nanosleep\\("));
}

TEST(Inspect, ReportsWhatIsMissing) {
  FakeCli cli({.listen = false, .report_missing = true});
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("unshare -n true"), -1, true).error, "");
  Reply last = cli.first().Receive();
  EXPECT_TRUE(last.body.empty() || last.body.starts_with("runsc: not implemented: ")) << last.body;
}

TEST(Pod, HasContainersOfItsOwn) {
  FakeCli cli;
  Output out1, out2;
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell("sleep 100"), out1.fd(), true).error, "");
  Client second = cli.Connect();
  Reply made =
      cli.Create(second, "c2", cli.Shell("sleep 200 & cat /proc/self/mounts | wc -l; kill -9 -1; echo alive; wait"),
                 out2.fd(), false);
  ASSERT_EQ(made.error, "");
  EXPECT_GT(made.pid, 1);
  Client third = cli.Connect();
  EXPECT_EQ(cli.Create(third, "c2", cli.Shell("true"), -1, true).error, "container with that name exists already");
  ASSERT_EQ(cli.Ask(Plain(Method::kStart, "c2")).error, "");
  ASSERT_TRUE(out2.WaitFor("alive"));
  // What it killed was its own only, and all but itself.
  EXPECT_EQ(cli.Ask(Signal(0)).error, "");
  EXPECT_EQ(second.Receive().status, 0);
  EXPECT_EQ(cli.Ask({.method = Method::kSignal, .container = "c2", .signal = SIGTERM}).error,
            "process already finished");
  Client exec = cli.Connect();
  EXPECT_EQ(cli.Exec(exec, "c2", {"busybox", "true"}, -1).error, "container not running");
  EXPECT_EQ(cli.Ask(Plain(Method::kWait, "c2")).status, 0);
  EXPECT_EQ(cli.Ask(Plain(Method::kDelete, "c2")).error, "");
  EXPECT_EQ(cli.Ask(Plain(Method::kDelete, "c2")).error, "container does not exist");
  EXPECT_THAT(cli.Ask(Plain(Method::kDelete)).error, HasSubstr("first container"));
  // The name can be had again.
  ASSERT_EQ(cli.Create(third, "c2", cli.Shell("sleep 100"), -1, true).error, "");
  cli.first().Send(Signal(SIGTERM));
  EXPECT_EQ(third.Receive().status, SIGKILL);
  EXPECT_EQ(cli.first().Receive().status, SIGTERM);
  EXPECT_TRUE(cli.HasEnded());
}

TEST(Pod, PausesAndDeletesOneByOne) {
  FakeCli cli;
  Output out1, out2;
  const char* ticks = "while :; do echo t; sleep 0.02; done";
  ASSERT_EQ(cli.Create(cli.first(), kId, cli.Shell(ticks), out1.fd(), true).error, "");
  Client second = cli.Connect();
  ASSERT_EQ(cli.Create(second, "c2", cli.Shell(ticks), out2.fd(), true).error, "");
  ASSERT_TRUE(out1.WaitFor("t"));
  ASSERT_TRUE(out2.WaitFor("t"));
  ASSERT_EQ(cli.Ask(Plain(Method::kPause, "c2")).error, "");
  out1.ReadNow();
  out2.ReadNow();
  size_t n1 = out1.text().size(), n2 = out2.text().size();
  EXPECT_TRUE(Eventually([&] {
    out1.ReadNow();
    return out1.text().size() > n1 + 10;
  }));
  out2.ReadNow();
  EXPECT_EQ(out2.text().size(), n2);
  // Deleted as it is, paused.
  EXPECT_EQ(cli.Ask(Plain(Method::kDelete, "c2")).error, "");
  EXPECT_EQ(second.Receive().status, SIGKILL);
  EXPECT_EQ(cli.Ask(Signal(0)).error, "");
}

}  // namespace
}  // namespace redoubt::boot
