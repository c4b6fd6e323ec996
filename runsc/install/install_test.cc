#include "runsc/install/install.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace redoubt::install {
namespace {

using testing::HasSubstr;

class InstallTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/install-XXXXXX";
    options_.etc = mkdtemp(pattern.data());
    options_.binary = "/usr/bin/runsc";
  }
  std::string Text(const std::string& file) {
    std::ifstream in(options_.etc + file);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  void Put(const std::string& file, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(options_.etc + file).parent_path());
    std::ofstream(options_.etc + file) << text;
  }
  Options options_;
};

TEST_F(InstallTest, DockerKeepsWhatIsThere) {
  const std::string old = R"({"log-driver": "journald", "runtimes": {"crun": {"path": "/usr/bin/crun"}}})";
  Put("/docker/daemon.json", old);
  chmod((options_.etc + "/docker/daemon.json").c_str(), 0600);
  options_.arguments = {"--platform=kvm"};
  ASSERT_TRUE(Install(Engine::kDocker, options_));
  auto json = nlohmann::json::parse(Text("/docker/daemon.json"));
  EXPECT_EQ(json["log-driver"], "journald");
  EXPECT_EQ(json["runtimes"]["crun"]["path"], "/usr/bin/crun");
  EXPECT_EQ(json["runtimes"]["runsc"]["path"], "/usr/bin/runsc");
  EXPECT_EQ(json["runtimes"]["runsc"]["runtimeArgs"][0], "--platform=kvm");
  struct stat st{};
  ASSERT_EQ(stat((options_.etc + "/docker/daemon.json").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  EXPECT_EQ(Text("/docker/daemon.json.before-runsc"), old);
  EXPECT_THAT(*Install(Engine::kDocker, options_), HasSubstr("already"));
  ASSERT_TRUE(Uninstall(Engine::kDocker, options_));
  EXPECT_EQ(nlohmann::json::parse(Text("/docker/daemon.json")), nlohmann::json::parse(old));
}

TEST_F(InstallTest, DockerIsLeftAloneIfItIsNotUnderstood) {
  for (const char* text : {"{ // comment\n}", "[]", "{\"runtimes\": 5}"}) {
    Put("/docker/daemon.json", text);
    auto done = Install(Engine::kDocker, options_);
    ASSERT_FALSE(done);
    EXPECT_THAT(done.error(), HasSubstr("left as it is"));
    EXPECT_EQ(Text("/docker/daemon.json"), text);
  }
  Put("/docker/daemon.json", R"({"default-runtime": "runsc", "runtimes": {"runsc": {"path": "/x"}}})");
  EXPECT_FALSE(Uninstall(Engine::kDocker, options_));
}

TEST_F(InstallTest, Containerd) {
  const std::string old = "version = 2\n# mine\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  x = 1";
  Put("/containerd/config.toml", old);
  ASSERT_TRUE(Install(Engine::kContainerd, options_));
  EXPECT_THAT(Text("/containerd/config.toml"),
              HasSubstr("containerd.runtimes.runsc.options]\n  BinaryName = \"/usr/bin/runsc\"\n# end runsc\n"));
  // A newer place of the binary replaces the older.
  options_.binary = "/opt/runsc";
  ASSERT_TRUE(Install(Engine::kContainerd, options_));
  EXPECT_THAT(Text("/containerd/config.toml"), testing::Not(HasSubstr("/usr/bin/runsc")));
  ASSERT_TRUE(Uninstall(Engine::kContainerd, options_));
  EXPECT_EQ(Text("/containerd/config.toml"), old + "\n");
  Put("/containerd/config.toml", "disabled_plugins = []\n");
  auto done = Install(Engine::kContainerd, options_);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error(), HasSubstr("config migrate"));
}

TEST_F(InstallTest, PodmanGetsAFileOfItsOwn) {
  ASSERT_TRUE(Install(Engine::kPodman, options_));
  EXPECT_THAT(Text("/containers/containers.conf.d/50-runsc.conf"),
              HasSubstr("[engine.runtimes]\nrunsc = [\"/usr/bin/runsc\"]\n"));
  ASSERT_TRUE(Uninstall(Engine::kPodman, options_));
  EXPECT_EQ(Text("/containers/containers.conf.d/50-runsc.conf"), "");
  Put("/containers/containers.conf.d/50-runsc.conf", "# somebody's\n");
  EXPECT_FALSE(Uninstall(Engine::kPodman, options_));
}

TEST_F(InstallTest, NoFileAtAll) {
  for (Engine e : {Engine::kDocker, Engine::kContainerd, Engine::kPodman}) {
    EXPECT_TRUE(Uninstall(e, options_)) << Name(e);
    EXPECT_TRUE(Install(e, options_)) << Name(e);
    EXPECT_TRUE(Uninstall(e, options_)) << Name(e);
  }
}

}  // namespace
}  // namespace redoubt::install
