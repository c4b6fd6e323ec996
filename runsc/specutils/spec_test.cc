#include "runsc/specutils/spec.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/resource.h>

namespace redoubt::specutils {
namespace {

Expected<Spec> Parse(const std::string& text) { return ParseConfig(text, "config.json", "/bundle"); }

TEST(Spec, TheDefaultIsValid) {
  Expected<Spec> spec = Parse(DefaultConfig({"sh", "-c", "true"}));
  ASSERT_TRUE(spec) << spec.error();
  EXPECT_EQ(spec->process.args.size(), 3u);
  EXPECT_EQ(spec->root_path, "/bundle/rootfs");
  EXPECT_TRUE(spec->root_read_only);
  EXPECT_TRUE(spec->process.no_new_privileges);
  EXPECT_NE(spec->process.bounding & (uint64_t{1} << CAP_KILL), 0u);
  ASSERT_EQ(spec->process.rlimits.size(), 1u);
  EXPECT_EQ(spec->process.rlimits[0].resource, RLIMIT_NOFILE);
}

TEST(Spec, TheNetworkNamespace) {
  auto with = [](const std::string& namespaces) {
    return Parse(
        R"({"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/"},"root":{"path":"r"},"linux":{"namespaces":)" +
        namespaces + "}}");
  };
  Expected<Spec> spec = with(R"([{"type":"pid","path":"/x"},{"type":"network","path":"/run/netns/a"}])");
  ASSERT_TRUE(spec) << spec.error();
  EXPECT_TRUE(spec->network_namespace);
  EXPECT_EQ(spec->network_namespace_path, "/run/netns/a");
  auto read = Deserialize(Serialize(*spec, {.network = NetworkMode::kSandbox}));
  ASSERT_TRUE(read) << read.error();
  EXPECT_EQ(read->first.network_namespace_path, "/run/netns/a");
  EXPECT_EQ(read->second.network, NetworkMode::kSandbox);
  spec = with(R"([{"type":"network"}])");
  ASSERT_TRUE(spec) << spec.error();
  EXPECT_TRUE(spec->network_namespace);
  EXPECT_EQ(spec->network_namespace_path, "");
  EXPECT_FALSE(with("[]")->network_namespace);
  EXPECT_EQ(with(R"([{"type":"network","path":"a"}])").error(),
            "config.json: linux.namespaces[0].path: must be an absolute path");
  EXPECT_EQ(with(R"([{"type":"network"},{"type":"network"}])").error(),
            "config.json: linux.namespaces[1].type: \"network\" is given twice");
  EXPECT_EQ(with(R"([{}])").error(), "config.json: linux.namespaces[0].type: missing");
  EXPECT_EQ(with(R"([7])").error(), "config.json: linux.namespaces[0]: must be an object");
}

TEST(Spec, ErrorsNameFileAndField) {
  EXPECT_NE(Parse("{").error().find("config.json: not valid JSON"), std::string::npos);
  EXPECT_EQ(Parse("{}").error(), "config.json: ociVersion: missing");
  EXPECT_EQ(Parse(R"({"ociVersion":"2.0"})").error(), "config.json: ociVersion: version 2.0 is not supported, 1.x is");
  EXPECT_EQ(Parse(R"({"ociVersion":"1.0.2","process":{"args":"sh"}})").error(),
            "config.json: process.args: must be an array, is string");
  EXPECT_EQ(Parse(R"({"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"x"},"root":{"path":"r"}})").error(),
            "config.json: process.cwd: must be an absolute path");
  EXPECT_EQ(Parse(R"({"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/","user":{"uid":-1}},"root":{"path":"r"}})")
                .error(),
            "config.json: process.user.uid: must not be negative");
  EXPECT_EQ(
      Parse(
          R"({"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/","rlimits":[{"type":"RLIMIT_X","soft":1,"hard":1}]},"root":{"path":"r"}})")
          .error(),
      "config.json: process.rlimits[0].type: unknown limit \"RLIMIT_X\"");
}

TEST(Spec, TravelsToTheBootProcess) {
  Spec spec = *Parse(DefaultConfig({"x"}));
  spec.process.args.push_back("not\xff utf8");
  spec.mounts.push_back({"/a", "bind", "/b", {"rbind", "ro"}});
  auto copy = Deserialize(Serialize(spec, {.platform = "p", .strace = true, .cpus = 3}));
  ASSERT_TRUE(copy) << copy.error();
  EXPECT_EQ(copy->first.process.args, spec.process.args);
  EXPECT_EQ(copy->first.process.rlimits[0].soft, 1024u);
  EXPECT_TRUE(copy->first.mounts.back().is_bind());
  EXPECT_TRUE(copy->first.mounts.back().read_only());
  EXPECT_TRUE(copy->second.strace);
  EXPECT_EQ(copy->second.cpus, 3);
  EXPECT_FALSE(Deserialize("garbage"));
}

}  // namespace
}  // namespace redoubt::specutils
