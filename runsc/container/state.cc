#include "runsc/container/state.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runsc/console/progress.h"

namespace redoubt::container {
namespace {

using Json = nlohmann::ordered_json;

constexpr useconds_t kLockLookUs = 5000;  // between looks, for the first second

constexpr Status kStatuses[] = {Status::kCreating, Status::kCreated, Status::kRunning, Status::kPaused,
                                Status::kStopped};

Expected<std::string> ReadFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::unexpected(fmt::format("{}: {}", path, std::strerror(errno)));
  std::string text;
  char buffer[16384];
  ssize_t n = 0;
  while ((n = read(fd.get(), buffer, sizeof(buffer))) > 0) text.append(buffer, static_cast<size_t>(n));
  if (n < 0) return std::unexpected(fmt::format("{}: {}", path, std::strerror(errno)));
  return text;
}

// Whoever reads the file sees the old text or the new.
Expected<void> ReplaceFile(const std::string& path, const std::string& text) {
  std::string fresh = path + ".new";
  UniqueFd fd(open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return std::unexpected(fmt::format("{}: {}", fresh, std::strerror(errno)));
  for (size_t at = 0; at < text.size();) {
    ssize_t n = write(fd.get(), text.data() + at, text.size() - at);
    if (n < 0) {
      const int error = errno;
      unlink(fresh.c_str());
      return std::unexpected(fmt::format("{}: {}", path, std::strerror(error)));
    }
    at += static_cast<size_t>(n);
  }
  if (rename(fresh.c_str(), path.c_str()) != 0) {
    const int error = errno;
    unlink(fresh.c_str());
    return std::unexpected(fmt::format("{}: {}", path, std::strerror(error)));
  }
  return {};
}

// Fields of /proc/PID/stat after the name, which may hold anything: field 3 (the state) is the first.
std::vector<std::string> StatFields(pid_t pid) {
  Expected<std::string> text = ReadFile(fmt::format("/proc/{}/stat", pid));
  if (!text) return {};
  size_t end = text->rfind(')');
  if (end == std::string::npos) return {};
  std::vector<std::string> fields;
  for (size_t at = end + 2; at < text->size();) {
    size_t space = std::min(text->find(' ', at), text->size());
    fields.push_back(text->substr(at, space - at));
    at = space + 1;
  }
  return fields;
}

Json ToJson(const HostProcess& p) { return Json{{"pid", p.pid}, {"started", p.started}}; }

HostProcess ProcessFrom(const Json& j) { return {.pid = j.at("pid"), .started = j.at("started")}; }

std::vector<HostProcess> ExecsIn(const std::string& path, std::vector<std::string>* ended) {
  std::vector<HostProcess> execs;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(path + "/execs", error)) {
    Expected<std::string> text = ReadFile(file.path());
    HostProcess process{.pid = std::atoi(file.path().filename().c_str()),
                        .started = text ? std::strtoull(text->c_str(), nullptr, 10) : 0};
    if (process.Alive()) {
      execs.push_back(process);
    } else if (ended != nullptr) {
      ended->push_back(file.path());
    }
  }
  return execs;
}

Expected<State> ParseState(const std::string& path) {
  Expected<std::string> text = ReadFile(path);
  if (!text) return std::unexpected(text.error());
  auto damaged = [&](const std::string& why) {
    return std::unexpected(
        fmt::format("{}: is damaged ({}); `runsc delete --force` removes what is left of the container", path,
                    specutils::OneLine(why)));
  };
  try {
    Json j = Json::parse(*text);
    State s;
    s.id = j.at("id").get<std::string>();
    s.sandbox = j.at("sandbox").get<std::string>();
    s.bundle = j.at("bundle").get<std::string>();
    s.rootfs = j.at("rootfs").get<std::string>();
    s.created = j.at("created").get<std::string>();
    s.owner = j.at("owner").get<std::string>();
    s.annotations = j.at("annotations").get<std::map<std::string, std::string>>();
    s.cgroups_path = j.at("cgroupsPath").get<std::string>();
    s.cgroup_directories = j.at("cgroupDirectories").get<std::vector<std::string>>();
    auto uids = specutils::ParseMapText(j.at("uidMap").get<std::string>());
    auto gids = specutils::ParseMapText(j.at("gidMap").get<std::string>());
    if (!uids || !gids) return damaged("uidMap or gidMap is none");
    s.id_mappings = {.uids = std::move(*uids), .gids = std::move(*gids)};
    s.process = ProcessFrom(j.at("process"));
    s.boot = ProcessFrom(j.at("boot"));
    s.takes_network = j.at("takesNetwork");
    s.sees_network = j.at("seesNetwork");
    s.network_namespace = j.at("networkNamespace");
    std::string status = j.at("status").get<std::string>();
    for (Status k : kStatuses) {
      if (status == Name(k)) s.status = k;
    }
    return s;
  } catch (const Json::exception& e) {
    return damaged(e.what());
  }
}

}  // namespace

HostProcess HostProcess::Of(pid_t pid) {
  std::vector<std::string> fields = StatFields(pid);
  return {.pid = pid, .started = fields.size() > 19 ? std::strtoull(fields[19].c_str(), nullptr, 10) : 0};
}

bool HostProcess::Alive() const {
  if (pid <= 0) return false;
  std::vector<std::string> fields = StatFields(pid);
  return fields.size() > 19 && std::strtoull(fields[19].c_str(), nullptr, 10) == started && fields[0] != "Z" &&
         fields[0] != "X";
}

const char* Name(Status status) {
  switch (status) {
    case Status::kCreating:
      return "creating";
    case Status::kCreated:
      return "created";
    case Status::kRunning:
      return "running";
    case Status::kPaused:
      return "paused";
    case Status::kStopped:
      break;
  }
  return "stopped";
}

Status State::CurrentStatus() const { return process.Alive() ? status : Status::kStopped; }

std::string State::ToJson(bool indent) const {
  Status now = CurrentStatus();
  Json j = {{"ociVersion", "1.2.0"}, {"id", id},         {"pid", now == Status::kStopped ? 0 : process.pid},
            {"status", Name(now)},   {"bundle", bundle}, {"rootfs", rootfs},
            {"created", created},    {"owner", owner}};
  if (!annotations.empty()) j["annotations"] = annotations;
  return j.dump(indent ? 2 : -1, ' ', false, Json::error_handler_t::replace);
}

Expected<void> Entry::Save() const {
  Json j = {{"id", state_.id},
            {"sandbox", state_.sandbox},
            {"bundle", state_.bundle},
            {"rootfs", state_.rootfs},
            {"created", state_.created},
            {"owner", state_.owner},
            {"annotations", state_.annotations},
            {"cgroupsPath", state_.cgroups_path},
            {"cgroupDirectories", state_.cgroup_directories},
            {"uidMap", specutils::MapText(state_.id_mappings.uids)},
            {"gidMap", specutils::MapText(state_.id_mappings.gids)},
            {"process", container::ToJson(state_.process)},
            {"boot", container::ToJson(state_.boot)},
            {"takesNetwork", state_.takes_network},
            {"seesNetwork", state_.sees_network},
            {"networkNamespace", state_.network_namespace},
            {"status", Name(state_.status)}};
  return ReplaceFile(path_ + "/state.json", j.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Expected<void> Entry::SaveConfig(const std::string& text) const { return ReplaceFile(path_ + "/config.json", text); }

Expected<std::string> Entry::LoadConfig() const { return ReadFile(path_ + "/config.json"); }

Expected<void> Entry::SaveNetwork(const std::string& bytes) const { return ReplaceFile(path_ + "/network", bytes); }

std::optional<std::string> Entry::LoadNetwork() const {
  Expected<std::string> bytes = ReadFile(path_ + "/network");
  if (!bytes) return std::nullopt;
  return *bytes;
}

Expected<void> Entry::Remove() {
  // The state first: from here on the container does not exist, also if this process is killed.
  unlink((path_ + "/state.json").c_str());
  std::error_code error;
  std::filesystem::remove_all(path_, error);
  if (error) return std::unexpected(fmt::format("{}: {}", path_, error.message()));
  return {};
}

std::vector<HostProcess> Entry::Execs() const { return ExecsIn(path_, nullptr); }

Expected<void> Entry::AddExec(const HostProcess& process) const {
  mkdir((path_ + "/execs").c_str(), 0700);
  // Those that have ended leave their files behind; here is a good place to forget them.
  std::vector<std::string> ended;
  (void)ExecsIn(path_, &ended);
  for (const std::string& file : ended) unlink(file.c_str());
  return ReplaceFile(fmt::format("{}/execs/{}", path_, process.pid), std::to_string(process.started));
}

Expected<void> Store::CheckId(const std::string& id) {
  bool valid = !id.empty() && id.size() <= 1024 && id != "." && id != ".." &&
               std::all_of(id.begin(), id.end(),
                           [](unsigned char c) { return std::isalnum(c) != 0 || std::strchr("_+-.", c) != nullptr; });
  if (valid) return {};
  return std::unexpected(
      fmt::format("invalid container ID \"{}\": letters, digits, and any of \"_+-.\" are allowed", id));
}

// Whoever holds the lock of a directory that another has removed meanwhile starts again.
Expected<Entry> Store::Lock(const std::string& id) const {
  Entry entry;
  entry.path_ = root_ + "/" + id;
  std::string file = entry.path_ + "/lock";
  while (true) {
    entry.lock_ = UniqueFd(open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!entry.lock_) {
      if (errno == ENOENT) return std::unexpected(fmt::format("container \"{}\" does not exist", id));
      return std::unexpected(fmt::format("container \"{}\": {}: {}", id, file, std::strerror(errno)));
    }
    console::Progress progress(fmt::format("container \"{}\": waiting for another command to be done with it", id));
    // A lock has no descriptor to wait for.
    while (progress.Due() >= 0 && flock(entry.lock_.get(), LOCK_EX | LOCK_NB) != 0) {
      usleep(kLockLookUs);
      progress.Show();
    }
    while (flock(entry.lock_.get(), LOCK_EX) != 0) {
      if (errno != EINTR) return std::unexpected(fmt::format("{}: {}", file, std::strerror(errno)));
    }
    struct stat held{}, there{};
    if (fstat(entry.lock_.get(), &held) == 0 && stat(file.c_str(), &there) == 0 && held.st_ino == there.st_ino &&
        held.st_dev == there.st_dev) {
      return entry;
    }
  }
}

Expected<Entry> Store::Create(const std::string& id) const {
  if (auto valid = CheckId(id); !valid) return std::unexpected(valid.error());
  std::error_code error;
  std::filesystem::create_directories(root_, error);
  if (error) return std::unexpected(fmt::format("--root {}: {}", root_, error.message()));
  std::string path = root_ + "/" + id;
  while (true) {
    if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
      return std::unexpected(fmt::format("container \"{}\": {}: {}", id, path, std::strerror(errno)));
    }
    Expected<Entry> entry = Lock(id);
    if (!entry && !Exists(id) && access(path.c_str(), F_OK) != 0) continue;  // removed meanwhile
    if (!entry) {
      // Nobody's who holds the lock, if it is empty.
      rmdir(path.c_str());
      return entry;
    }
    if (Exists(id)) return std::unexpected(fmt::format("container \"{}\" already exists", id));
    // Left of a `create` that was killed.
    std::filesystem::remove_all(path + "/execs", error);
    unlink(entry->control_socket().c_str());
    entry->state_.id = id;
    return entry;
  }
}

Expected<Entry> Store::Open(const std::string& id) const {
  if (auto valid = CheckId(id); !valid) return std::unexpected(valid.error());
  if (!Exists(id)) return std::unexpected(fmt::format("container \"{}\" does not exist", id));
  Expected<Entry> entry = Lock(id);
  if (!entry) return entry;
  if (!Exists(id)) return std::unexpected(fmt::format("container \"{}\" does not exist", id));
  Expected<State> state = ParseState(entry->path_ + "/state.json");
  if (!state) return std::unexpected(fmt::format("container \"{}\": {}", id, state.error()));
  entry->state_ = std::move(*state);
  return entry;
}

Expected<Entry> Store::OpenBroken(const std::string& id) const {
  if (auto valid = CheckId(id); !valid) return std::unexpected(valid.error());
  if (access((root_ + "/" + id).c_str(), F_OK) != 0) {
    return std::unexpected(fmt::format("container \"{}\" does not exist", id));
  }
  Expected<Entry> entry = Lock(id);
  if (!entry) return entry;
  if (Expected<State> state = ParseState(entry->path_ + "/state.json")) entry->state_ = std::move(*state);
  entry->state_.id = id;
  return entry;
}

bool Store::Exists(const std::string& id) const {
  return access(fmt::format("{}/{}/state.json", root_, id).c_str(), F_OK) == 0;
}

Expected<State> Store::Peek(const std::string& id) const {
  if (!Exists(id)) return std::unexpected(fmt::format("container \"{}\" does not exist", id));
  Expected<State> state = ParseState(fmt::format("{}/{}/state.json", root_, id));
  if (!state) return std::unexpected(fmt::format("container \"{}\": {}", id, state.error()));
  return state;
}

std::vector<HostProcess> Store::Execs(const std::string& id) const { return ExecsIn(root_ + "/" + id, nullptr); }

std::vector<State> Store::List() const {
  std::vector<State> states;
  std::error_code error;
  for (const auto& directory : std::filesystem::directory_iterator(root_, error)) {
    if (Expected<State> s = ParseState(directory.path().string() + "/state.json")) states.push_back(std::move(*s));
  }
  std::sort(states.begin(), states.end(), [](const State& a, const State& b) { return a.id < b.id; });
  return states;
}

}  // namespace redoubt::container
