#include "runsc/specutils/spec.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include "runsc/specutils/codec.h"

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

TEST(Spec, HooksNamespacesAndResources) {
  const std::string head = R"({"ociVersion":"1.2.0","process":{"args":["a"],"cwd":"/"},"root":{"path":"r"},)";
  Expected<Spec> spec = Parse(head + R"("domainname":"d","annotations":{"k":"v"},
    "hooks":{"prestart":[{"path":"/h","args":["h","x"],"env":["A=b"],"timeout":5}],"poststop":[{"path":"/p"}]},
    "linux":{"namespaces":[{"type":"network","path":"/n"},{"type":"pid"}],"cgroupsPath":"/c","maskedPaths":["/m"],
    "sysctl":{"net.ipv4.ip_forward":"1"},
    "resources":{"memory":{"limit":18446744073709551615,"swap":-1},"cpu":{"shares":5,"quota":-1,"period":100,"cpus":"0"},
    "pids":{"limit":7},"unified":{"memory.high":"1"}}}})");
  ASSERT_TRUE(spec) << spec.error();
  ASSERT_EQ(spec->hooks.prestart.size(), 1u);
  EXPECT_EQ(spec->hooks.prestart[0].timeout_seconds, 5);
  EXPECT_EQ(spec->hooks.poststop[0].path, "/p");
  ASSERT_EQ(spec->namespaces.size(), 2u);
  ASSERT_NE(spec->FindNamespace("network"), nullptr);
  EXPECT_EQ(spec->FindNamespace("network")->path, "/n");
  EXPECT_EQ(spec->FindNamespace("ipc"), nullptr);
  EXPECT_EQ(spec->resources.memory_limit, INT64_MAX);
  EXPECT_EQ(spec->resources.memory_swap, -1);
  EXPECT_EQ(spec->resources.cpu_shares, 5u);
  EXPECT_EQ(spec->resources.pids_limit, 7);
  EXPECT_EQ(spec->resources.unified["memory.high"], "1");
  EXPECT_EQ(spec->annotations["k"], "v");
  EXPECT_EQ(spec->sysctls[0].first, "net.ipv4.ip_forward");
  auto error = [&](const std::string& rest) { return Parse(head + rest + "}").error(); };
  EXPECT_EQ(error(R"("hooks":{"poststop":[{"path":"rel"}]})"),
            "config.json: hooks.poststop[0].path: must be an absolute path");
  EXPECT_EQ(error(R"("hooks":{"prestart":[{"path":"/h","timeout":-1}]})"),
            "config.json: hooks.prestart[0].timeout: must be positive");
  EXPECT_EQ(error(R"("linux":{"resources":{"cpu":{"shares":-5}}})"),
            "config.json: linux.resources.cpu.shares: -5 is out of range");
  EXPECT_EQ(error(R"("linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]})"),
            "config.json: linux.namespaces[1].type: \"pid\" is given twice");
  EXPECT_EQ(error(R"("linux":{"namespaces":[{"type":"x"}]})"),
            "config.json: linux.namespaces[0].type: unknown namespace \"x\"");
}

TEST(Spec, IdMappings) {
  const std::string head = R"({"ociVersion":"1.0.2","root":{"path":"r"},"process":{"args":["a"],"cwd":"/"},)";
  auto with = [&](const std::string& rest) { return Parse(head + rest + "}"); };
  const std::string ids = R"("uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],
                            "gidMappings":[{"containerID":0,"hostID":200000,"size":65536}])";
  Expected<Spec> spec = with("\"linux\":{" + ids + "}");
  ASSERT_TRUE(spec) << spec.error();
  EXPECT_EQ(spec->id_mappings.uids, std::vector<IdMapping>({{0, 100000, 65536}}));
  EXPECT_EQ(spec->id_mappings.gids[0].outside, 200000u);
  auto mount = [&](const std::string& rest) {
    return with(R"("mounts":[{"destination":"/v","source":"/s","type":"bind",)" + rest + "}]");
  };
  spec = mount(ids);
  ASSERT_TRUE(spec) << spec.error();
  EXPECT_EQ(spec->mounts[0].mapped, Mount::Mapped::kTop);
  EXPECT_EQ(spec->mounts[0].mappings.uids[0].outside, 100000u);
  EXPECT_EQ(mount(ids + R"(,"options":["rbind","ridmap"])")->mounts[0].mapped, Mount::Mapped::kTree);
  EXPECT_EQ(mount(R"("options":["bind","idmap"])")->mounts[0].mapped, Mount::Mapped::kTop);
  EXPECT_EQ(mount(R"("options":["bind"])")->mounts[0].mapped, Mount::Mapped::kNo);

  EXPECT_EQ(mount(R"("uidMappings":[{"containerID":0,"hostID":1,"size":1}])").error(),
            "config.json: mounts[0]: uidMappings and gidMappings must be given together");
  EXPECT_EQ(with(R"("linux":{"uidMappings":[{"containerID":0,"hostID":1,"size":0}]})").error(),
            "config.json: linux.uidMappings: a size is 0");
  EXPECT_EQ(with(R"("linux":{"gidMappings":[{"containerID":0,"size":1}]})").error(),
            "config.json: linux.gidMappings[0].hostID: missing");
  EXPECT_EQ(with(R"("linux":{"gidMappings":[{"containerID":0,"hostID":4294967296,"size":1}]})").error(),
            "config.json: linux.gidMappings[0].hostID: 4294967296 is too large");
  EXPECT_EQ(with(R"("mounts":[{"destination":"/v","type":"tmpfs","options":["idmap"]}])").error(),
            "config.json: mounts[0]: only bind mounts can be ID-mapped");
}

TEST(Spec, ProcessAndResourcesAlone) {
  Expected<Process> process = ParseProcessConfig(R"({"args":["a"],"cwd":"/","oomScoreAdj":-5})", "f");
  ASSERT_TRUE(process) << process.error();
  EXPECT_EQ(process->oom_score_adj, -5);
  EXPECT_EQ(ParseProcessConfig("[]", "f").error(), "f: must be a JSON object");
  Expected<Resources> resources = ParseResourcesConfig(R"({"pids":{"limit":-1}})", "f");
  ASSERT_TRUE(resources);
  EXPECT_EQ(resources->pids_limit, -1);
  EXPECT_FALSE(resources->empty());
}

TEST(Mount, TheLastWordOnWritingCounts) {
  EXPECT_TRUE((Mount{.options = {"rbind", "rro"}}.read_only()));
  EXPECT_FALSE((Mount{.options = {"ro", "rw"}}.read_only()));
  EXPECT_TRUE((Mount{.options = {"rw", "ro"}}.read_only()));
}

TEST(Spec, TravelsToTheBootProcess) {
  Spec spec = *Parse(DefaultConfig({"x"}));
  spec.process.args.push_back("not\xff utf8");
  spec.mounts.push_back({.destination = "/a",
                         .type = "bind",
                         .source = "/b",
                         .options = {"rbind", "ro"},
                         .overlay = true,
                         .exclusive = true});
  spec.id_mappings = {.uids = {{0, 100000, 10}, {20, 5, 1}}, .gids = {{0, 7, 4294967294}}};
  spec.root_exclusive = true;
  spec.resources.memory_limit = 1 << 20;
  spec.resources.cpu_quota = -1;  // none
  spec.resources.pids_limit = 7;
  spec.masked_paths = {"/proc/kcore"};
  spec.sysctls = {{"kernel.msgmax", "1"}};
  Expected<Spec> copy = ParseSpec(SerializeSpec(spec));
  ASSERT_TRUE(copy) << copy.error();
  EXPECT_EQ(copy->process.args, spec.process.args);
  EXPECT_EQ(copy->process.rlimits[0].soft, 1024u);
  EXPECT_TRUE(copy->mounts.back().is_bind());
  EXPECT_TRUE(copy->mounts.back().read_only());
  EXPECT_TRUE(copy->mounts.back().overlay);
  EXPECT_TRUE(copy->mounts.back().exclusive);
  EXPECT_FALSE(copy->mounts.front().exclusive);
  EXPECT_TRUE(copy->root_exclusive);
  EXPECT_EQ(copy->resources.memory_limit, 1 << 20);
  EXPECT_EQ(copy->resources.cpu_quota, std::nullopt);
  EXPECT_EQ(copy->resources.pids_limit, 7);
  EXPECT_EQ(copy->masked_paths, spec.masked_paths);
  EXPECT_EQ(copy->sysctls, spec.sysctls);
  EXPECT_EQ(copy->id_mappings, spec.id_mappings);
  EXPECT_FALSE(ParseSpec("garbage"));
  Expected<Process> process = ParseProcess(SerializeProcess(spec.process));
  ASSERT_TRUE(process);
  EXPECT_EQ(process->args, spec.process.args);
  EXPECT_FALSE(ParseProcess(SerializeSpec(spec)));
  Expected<SandboxOptions> options = ParseOptions(SerializeOptions(
      {.platform = "p", .strace = true, .strace_only = {"read"}, .cpus = 3, .network = NetworkMode::kSandbox}));
  ASSERT_TRUE(options);
  EXPECT_TRUE(options->strace);
  EXPECT_EQ(options->strace_only, std::vector<std::string>{"read"});
  EXPECT_EQ(options->cpus, 3);
  EXPECT_EQ(options->network, NetworkMode::kSandbox);
}

TEST(Codec, WhatIsNoValueIsAnErrorAndNotAnotherValue) {
  Expected<SandboxOptions> options = ParseOptions(SerializeOptions({.network = static_cast<NetworkMode>(3)}));
  ASSERT_FALSE(options);
  EXPECT_TRUE(options.error().contains("3 is no value that there is")) << options.error();
  EXPECT_EQ(ParseOptions(SerializeOptions({.network = NetworkMode::kHost}))->network, NetworkMode::kHost);
  Spec spec;
  spec.pid_namespace.kind = static_cast<PidNamespace::Kind>(3);
  EXPECT_FALSE(ParseSpec(SerializeSpec(spec)));
}

}  // namespace
}  // namespace redoubt::specutils
