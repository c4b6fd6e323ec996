#include "runsc/install/install.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "pkg/fd/unique_fd.h"

namespace redoubt::install {
namespace {

using Json = nlohmann::ordered_json;

std::string FileOf(Engine engine, const Options& o) {
  switch (engine) {
    case Engine::kDocker:
      return o.etc + "/docker/daemon.json";
    case Engine::kContainerd:
      return o.etc + "/containerd/config.toml";
    case Engine::kPodman:
      break;
  }
  return fmt::format("{}/containers/containers.conf.d/50-{}.conf", o.etc, o.name);
}

bool InPath(const char* program) {
  const char* path = std::getenv("PATH");
  std::stringstream in(path != nullptr ? path : "/usr/sbin:/usr/bin:/sbin:/bin");
  for (std::string directory; std::getline(in, directory, ':');) {
    if (access((directory + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

// "" if there is none.
Expected<std::string> Read(const std::string& path) {
  std::ifstream in(path);
  if (!in) {
    if (errno == ENOENT) return std::string();
    return std::unexpected(fmt::format("{}: {}", path, std::strerror(errno)));
  }
  return std::string(std::istreambuf_iterator<char>(in), {});
}

Expected<void> Write(const std::string& path, const std::string& text, mode_t mode) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd || fchmod(fd.get(), mode) != 0 ||
      write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) || fsync(fd.get()) != 0) {
    return std::unexpected(fmt::format("{}: {}", path, std::strerror(errno)));
  }
  return {};
}

Expected<void> Replace(const std::string& path, const std::string& before, const std::string& after,
                       const std::string& name) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) return std::unexpected(fmt::format("{}: {}", path, error.message()));
  // A link stays one.
  std::string target = std::filesystem::weakly_canonical(path, error).string();
  if (error || target.empty()) target = path;
  struct stat st{};
  bool there = stat(target.c_str(), &st) == 0;
  mode_t mode = there ? st.st_mode & 07777 : 0644;
  if (there) {
    if (auto kept = Write(fmt::format("{}.before-{}", target, name), before, mode); !kept) return kept;
  }
  std::string fresh = fmt::format("{}.{}-new", target, name);
  if (auto written = Write(fresh, after, mode); !written) return written;
  if (rename(fresh.c_str(), target.c_str()) != 0) {
    int e = errno;
    unlink(fresh.c_str());
    return std::unexpected(fmt::format("{}: {}", target, std::strerror(e)));
  }
  return {};
}

Expected<Json> ParseDocker(const std::string& text) {
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) return Json::object();
  try {
    Json json = Json::parse(text);
    if (json.is_object() && (!json.contains("runtimes") || json["runtimes"].is_object())) return json;
    return std::unexpected(std::string("is no object with \"runtimes\", as dockerd wants it"));
  } catch (const Json::exception& e) {
    return std::unexpected(fmt::format("is not valid JSON ({})", e.what()));
  }
}

std::string Begin(const Options& o) { return fmt::format("# begin {}: made by `{} install`\n", o.name, o.binary); }
std::string BeginPrefix(const Options& o) { return fmt::format("# begin {}: made by ", o.name); }
std::string End(const Options& o) { return fmt::format("# end {}\n", o.name); }

// A basic string of TOML and of JSON: the same for what paths and flags may hold.
std::string Quoted(const std::string& text) { return nlohmann::json(text).dump(); }

}  // namespace

const char* Name(Engine engine) {
  switch (engine) {
    case Engine::kDocker:
      return "docker";
    case Engine::kContainerd:
      return "containerd";
    case Engine::kPodman:
      break;
  }
  return "podman";
}

std::vector<Engine> Found(const Options& o) {
  std::vector<Engine> found;
  if (InPath("dockerd") || access((o.etc + "/docker").c_str(), F_OK) == 0) found.push_back(Engine::kDocker);
  if (InPath("containerd") || access((o.etc + "/containerd").c_str(), F_OK) == 0) found.push_back(Engine::kContainerd);
  if (InPath("podman") || access((o.etc + "/containers").c_str(), F_OK) == 0) found.push_back(Engine::kPodman);
  return found;
}

Expected<std::string> DockerWith(const std::string& text, const Options& o) {
  Expected<Json> json = ParseDocker(text);
  if (!json) return std::unexpected(json.error());
  Json runtime = {{"path", o.binary}};
  if (!o.arguments.empty()) runtime["runtimeArgs"] = o.arguments;
  (*json)["runtimes"][o.name] = runtime;
  return json->dump(4) + "\n";
}

Expected<std::string> DockerWithout(const std::string& text, const Options& o) {
  Expected<Json> json = ParseDocker(text);
  if (!json) return std::unexpected(json.error());
  if (!json->contains("runtimes") || !(*json)["runtimes"].contains(o.name)) return text;
  (*json)["runtimes"].erase(o.name);
  if ((*json)["runtimes"].empty()) json->erase("runtimes");
  if (json->value("default-runtime", "") == o.name) {
    return std::unexpected(fmt::format("\"default-runtime\" is {}; choose another first", o.name));
  }
  return json->dump(4) + "\n";
}

Expected<std::string> ContainerdWithout(const std::string& text, const Options& o) {
  size_t begin = text.find(BeginPrefix(o));
  if (begin == std::string::npos) return text;
  size_t end = text.find(End(o), begin);
  if (end == std::string::npos) return std::unexpected(fmt::format("\"{}\" has no end", BeginPrefix(o)));
  return text.substr(0, begin) + text.substr(end + End(o).size());
}

Expected<std::string> ContainerdWith(const std::string& text, const Options& o) {
  Expected<std::string> base = ContainerdWithout(text, o);
  if (!base) return base;
  const std::string table = fmt::format("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{}]", o.name);
  if (base->find(table) != std::string::npos) {
    return std::unexpected(fmt::format("has a runtime {} that is not of `install`; remove it first", o.name));
  }
  std::string out = *base;
  if (out.find_first_not_of(" \t\r\n") == std::string::npos) out = "version = 2\n";
  if (out.find("version = 2") == std::string::npos) {
    return std::unexpected(std::string("is not of version 2; containerd's `config migrate` makes one that is"));
  }
  if (out.back() != '\n') out += '\n';
  out += Begin(o) + table + "\n  runtime_type = \"io.containerd.runc.v2\"\n" +
         fmt::format("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{}.options]\n  BinaryName = {}\n",
                     o.name, Quoted(o.binary)) +
         End(o);
  return out;
}

std::string PodmanText(const Options& o) {
  return Begin(o) + fmt::format("[engine.runtimes]\n{} = [{}]\n", o.name, Quoted(o.binary)) + End(o);
}

Expected<std::string> Install(Engine engine, const Options& o) {
  const std::string file = FileOf(engine, o);
  Expected<std::string> before = Read(file);
  if (!before) return before;
  Expected<std::string> after = engine == Engine::kDocker       ? DockerWith(*before, o)
                                : engine == Engine::kContainerd ? ContainerdWith(*before, o)
                                                                : PodmanText(o);
  if (!after) return std::unexpected(fmt::format("{}: {}; left as it is", file, after.error()));
  if (*after == *before) return fmt::format("{}: {} has it already", Name(engine), file);
  if (auto done = Replace(file, *before, *after, o.name); !done) return std::unexpected(done.error());
  const char* then = engine == Engine::kDocker ? "`systemctl reload docker`, then `docker run --runtime {}`"
                     : engine == Engine::kContainerd
                         ? "`systemctl restart containerd`, then a RuntimeClass with handler {}"
                         : "`podman --runtime {} run`";
  return fmt::format("{}: wrote {}; {}", Name(engine), file, fmt::format(fmt::runtime(then), o.name));
}

Expected<std::string> Uninstall(Engine engine, const Options& o) {
  const std::string file = FileOf(engine, o);
  Expected<std::string> before = Read(file);
  if (!before) return before;
  if (engine == Engine::kPodman) {
    if (before->empty()) return fmt::format("podman: {} is not there", file);
    if (!before->starts_with(BeginPrefix(o))) {
      return std::unexpected(fmt::format("{}: is not of `install`; left as it is", file));
    }
    if (unlink(file.c_str()) != 0) return std::unexpected(fmt::format("{}: {}", file, std::strerror(errno)));
    return fmt::format("podman: removed {}", file);
  }
  Expected<std::string> after = engine == Engine::kDocker ? DockerWithout(*before, o) : ContainerdWithout(*before, o);
  if (!after) return std::unexpected(fmt::format("{}: {}; left as it is", file, after.error()));
  if (*after == *before) return fmt::format("{}: {} does not have it", Name(engine), file);
  if (auto done = Replace(file, *before, *after, o.name); !done) return std::unexpected(done.error());
  return fmt::format("{}: took it out of {}", Name(engine), file);
}

}  // namespace redoubt::install
