// spec, features.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "runsc/cmd/context.h"
#include "runsc/specutils/seccomp.h"

namespace redoubt::cmd {
namespace {

int WriteSpec(const Flags& flags, const std::string& bundle, const std::vector<std::string>& args) {
  std::string file = bundle + "/config.json";
  int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) {
    return Fail(flags, fmt::format("{}: {}", file,
                                   errno == EEXIST ? "is there already; not overwritten" : std::strerror(errno)));
  }
  std::string text = specutils::DefaultConfig(args.empty() ? std::vector<std::string>{"sh"} : args);
  bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (close(fd) != 0 || !written) return Fail(flags, fmt::format("{}: {}", file, std::strerror(errno)));
  return 0;
}

// features.md of the OCI specification: what a configuration may ask for.
std::string Features() {
  using Json = nlohmann::ordered_json;
  Json capabilities = Json::array();
  for (int i = 0; i <= CAP_LAST_CAP; i++) capabilities.push_back(specutils::CapabilityName(i));
  Json features = {
      {"ociVersionMin", "1.0.0"},
      {"ociVersionMax", "1.2.0"},
      {"hooks", {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}},
      {"mountOptions", {"async",  "atime",       "bind",       "defaults",   "dev",    "diratime",   "exec",
                        "loud",   "noatime",     "nodev",      "nodiratime", "noexec", "norelatime", "nostrictatime",
                        "nosuid", "private",     "rbind",      "relatime",   "ro",     "rprivate",   "rshared",
                        "rslave", "runbindable", "rw",         "shared",     "silent", "slave",      "strictatime",
                        "suid",   "sync",        "unbindable", "idmap",      "ridmap"}},
      {"linux",
       {{"namespaces", {"cgroup", "ipc", "mount", "network", "pid", "user", "uts"}},
        {"mountExtensions", {{"idmap", {{"enabled", true}}}}},
        {"capabilities", capabilities},
        {"cgroup", {{"v1", true}, {"v2", true}, {"systemd", false}, {"systemdUser", false}, {"rdma", false}}},
        {"seccomp",
         {{"enabled", true},
          {"actions", specutils::SeccompActions()},
          {"operators", specutils::SeccompOperators()},
          {"archs", specutils::SeccompArchitectures()},
          {"knownFlags", specutils::SeccompFlags()},
          {"supportedFlags", specutils::SeccompFlags()}}},
        {"apparmor", {{"enabled", false}}},
        {"selinux", {{"enabled", false}}},
        {"intelRdt", {{"enabled", false}}}}},
      {"annotations", {{"org.opencontainers.runsc.version", kVersion}}},
      {"potentiallyUnsafeConfigAnnotations", Json::array()}};
  return features.dump(2);
}

}  // namespace

void AddSpec(CLI::App& app, Context& context) {
  struct Args {
    std::string bundle = ".";
    std::vector<std::string> args;
  };
  auto args = std::make_shared<Args>();
  CLI::App* spec = app.add_subcommand("spec", "write a config.json to start from");
  spec->add_option("--bundle,-b", args->bundle, "where to write it")->capture_default_str();
  spec->add_option("ARGS", args->args, "the command it runs (after --)");
  spec->callback([&context, args] {
    context.action = [&context, args] {
      AppendCommand(context, args->args);
      return WriteSpec(context.flags, args->bundle, args->args);
    };
  });
  CLI::App* features = app.add_subcommand("features", "print what a configuration may ask for, as JSON");
  features->callback([&context] {
    context.action = [] {
      fmt::print("{}\n", Features());
      return 0;
    };
  });
}

}  // namespace redoubt::cmd
