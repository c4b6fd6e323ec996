// What a bad peer can do to boot: nothing but lose its connection.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>
#include <thread>

#include "runsc/boot/test/fake_cli.h"
#include "runsc/sandbox/layout.h"
#include "runsc/specutils/codec.h"
#include "test/fuzz/rounds.h"

namespace redoubt::boot {
namespace {

using control::Method;
using control::Reply;
using control::Request;
using ::testing::HasSubstr;

constexpr char kId[] = "c1";
const Request kProbe{.method = Method::kSignal, .container = kId};  // signal 0 to the first process

class Hostile : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(cli_.Create(cli_.first(), kId, cli_.Shell("sleep 1000"), -1, true).error, ""); }
  void TearDown() override {
    EXPECT_EQ(cli_.Ask(kProbe).error, "");
    cli_.first().Send({.method = Method::kSignal, .signal = SIGTERM});
    EXPECT_EQ(cli_.first().Receive().status, SIGTERM);
    EXPECT_TRUE(cli_.HasEnded());
  }
  void SendRaw(Client& client, const std::string& bytes) {
    ASSERT_EQ(send(client.connection().fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }

  FakeCli cli_;
};

TEST_F(Hostile, GarbageClosesTheConnection) {
  for (const std::string& bytes :
       {std::string("x"), std::string("i"), std::string("f"), std::string("i\xc1"), std::string(1000, 'i'),
        "i" + std::string(30000, '\x91'), "i" + control::Serialize(Reply{}), std::string(60000, 'i')}) {
    Client client = cli_.Connect();
    SendRaw(client, bytes);
    EXPECT_TRUE(client.IsClosed()) << bytes.substr(0, 10);
  }
}

TEST_F(Hostile, MutatedRequestsGetAnErrorOrAClosedConnection) {
  const std::string seeds[] = {
      control::Serialize(Request{.method = Method::kExec, .container = kId, .body = specutils::SerializeProcess({})}),
      control::Serialize(Request{.method = Method::kProcesses, .container = kId}),
      control::Serialize(Request{.method = Method::kCreate, .container = "x", .body = specutils::SerializeSpec({})}),
      control::Serialize(Request{.method = Method::kStacks, .container = kId})};
  fuzz::Rounds(400, [&](uint64_t seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::string bytes = seeds[seed % 4];
    for (uint32_t n = random() % 4; n > 0; n--) bytes[random() % bytes.size()] = static_cast<char>(random());
    Client client = cli_.Connect();
    SendRaw(client, "i" + bytes);
    Reply reply = client.Receive();
    if (reply.error == "no answer") ADD_FAILURE();
  });
}

TEST_F(Hostile, WrongDescriptorsAreAnError) {
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  specutils::Process process = cli_.Shell("true").process;
  Request exec{.method = Method::kExec, .container = kId, .body = specutils::SerializeProcess(process)};
  Client client = cli_.Connect();
  EXPECT_THAT(client.Ask(exec).error, HasSubstr("0 descriptors came with the request, not 3"));
  exec.preserved = 0xffffffff;
  EXPECT_THAT(client.Ask(exec, {null.get(), null.get(), null.get()}).error, HasSubstr("3 descriptors came"));
  Request create{.method = Method::kCreate, .container = "c2", .body = specutils::SerializeSpec(cli_.Shell("true"))};
  EXPECT_THAT(client.Ask(create, {null.get(), null.get(), null.get()}).error, HasSubstr("3 descriptors came"));
  // A gofer that is none.
  EXPECT_THAT(client.Ask(create, {null.get(), null.get(), null.get(), null.get()}).error,
              HasSubstr("cannot mount the root file system"));
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  close(pair[0]);
  EXPECT_THAT(client.Ask(create, {null.get(), null.get(), null.get(), pair[1]}).error,
              HasSubstr("cannot mount the root file system"));
  close(pair[1]);
  // A directory, as descriptor 1.
  UniqueFd directory(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  exec.preserved = 0;
  EXPECT_THAT(client.Ask(exec, {null.get(), directory.get(), null.get()}).error, HasSubstr("cannot use descriptor 1"));
  // The name is free: nothing of it was left.
  EXPECT_THAT(client.Ask({.method = Method::kStats, .container = "c2"}).error, HasSubstr("does not exist"));
}

TEST_F(Hostile, EmptyArgumentsAreAnError) {
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  Request exec{.method = Method::kExec, .container = kId, .body = specutils::SerializeProcess({})};
  EXPECT_THAT(cli_.Connect().Ask(exec, {null.get(), null.get(), null.get()}).error, HasSubstr("no program given"));
}

TEST_F(Hostile, UnknownRequestIsAnError) {
  Request request{.method = static_cast<Method>(99), .container = kId};
  EXPECT_THAT(cli_.Ask(request).error, HasSubstr("there is no request 99"));
}

TEST_F(Hostile, OnlySignalsComeByAProcessesConnection) {
  Client exec = cli_.Connect();
  Reply made = cli_.Exec(exec, kId, {"busybox", "sleep", "1000"}, -1);
  ASSERT_EQ(made.error, "");
  exec.Send({.method = Method::kProcesses, .container = kId});
  EXPECT_TRUE(exec.IsClosed());
  EXPECT_TRUE(Eventually([&] {
    return cli_.Ask({.method = Method::kSignal, .container = kId, .pid = made.pid}).error == "process already finished";
  }));
}

TEST_F(Hostile, IdleConnectionsMakeRoom) {
  std::vector<Client> idle;
  for (int i = 0; i < 300; i++) idle.push_back(cli_.Connect());
  EXPECT_EQ(cli_.Ask(kProbe).error, "");
  // The first has been cut off, and the last one works.
  EXPECT_TRUE(idle.front().IsClosed());
  EXPECT_EQ(idle.back().Ask(kProbe).error, "");
}

TEST_F(Hostile, WhoDoesNotReadIsCutOff) {
  Client client = cli_.Connect();
  const std::string bytes = control::Serialize(Request{.method = Method::kStacks, .container = kId});
  // One request at a time is taken, so that the answers fill the socket.
  timeval patience{.tv_sec = 20, .tv_usec = 0};
  setsockopt(client.connection().fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  bool cut = false;
  for (int i = 0; i < 20000 && !cut; i++) cut = !client.connection().Send(bytes);
  EXPECT_TRUE(cut);
}

TEST_F(Hostile, FloodFromManySides) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      std::vector<Client> held;
      while (!stop) {
        Client client = cli_.Connect();
        std::string bytes(random() % 100 + 1, 'i');
        if (random() % 2 == 0) (void)send(client.connection().fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (random() % 4 == 0) held.push_back(std::move(client));
        if (held.size() > 50) held.clear();
      }
    });
  }
  // Who asks in order is served meanwhile; now and then one is cut off before his question was read, and asks again.
  int served = 0;
  for (int i = 0; i < 50; i++) {
    EXPECT_TRUE(Eventually([&] {
      UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
      Client client = cli_.Connect();
      if (!client.connection().Send(control::Serialize(kProbe))) return false;
      return client.Receive().error.empty();
    }));
    served++;
  }
  stop = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(served, 50);
}

TEST(HostileStart, FirstRequestOfTheWrongKindEndsTheSandbox) {
  FakeCli cli;
  Reply reply = cli.first().Ask(kProbe);
  EXPECT_THAT(reply.error, HasSubstr("first request is not for a container"));
  EXPECT_EQ(reply.code, sandbox::kSetupFailed);
  EXPECT_TRUE(cli.HasEnded());
}

TEST(HostileStart, NobodyElseMakesTheFirstContainer) {
  FakeCli cli;
  Client other = cli.Connect();
  EXPECT_EQ(cli.Create(other, kId, cli.Shell("true"), -1, true).error, "the sandbox has no container yet");
  cli.first().Close();
  EXPECT_TRUE(cli.HasEnded());
}

TEST(HostileStart, GarbageEndsTheSandbox) {
  FakeCli cli;
  ASSERT_EQ(send(cli.first().connection().fd(), "x", 1, 0), 1);
  EXPECT_TRUE(cli.HasEnded());
}

}  // namespace
}  // namespace redoubt::boot
