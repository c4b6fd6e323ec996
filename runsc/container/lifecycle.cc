// kill, delete, pause, resume, update.
#include <fmt/format.h>
#include <signal.h>

#include "runsc/container/internal.h"

namespace redoubt::container {

Outcome<> Kill(const Settings& settings, const std::string& id, int signal, bool all) {
  Expected<Entry> entry = Store(settings.root).Open(id);
  if (!entry) return Fail(entry.error());
  State& state = entry->state();
  if (state.CurrentStatus() == Status::kStopped) {
    // containerd sends one to all of a container that has ended, to be sure.
    if (all) return {};
    return Fail(id, "container not running");
  }
  Outcome<control::Reply> reply =
      Ask(settings, state, {.method = control::Method::kSignal, .signal = signal, .all = all});
  if (reply) return {};
  if (signal != SIGKILL || !state.process.Alive()) return std::unexpected(reply.error());
  // A Sentry that does not answer can still be ended: the relay's end takes it along.
  kill(state.process.pid, SIGKILL);
  if (state.sandbox == id && state.boot.Alive()) kill(state.boot.pid, SIGKILL);
  return {};
}

Outcome<> Delete(const Settings& settings, const std::string& id, bool force) {
  const Store store(settings.root);
  Expected<Entry> entry = force ? store.OpenBroken(id) : store.Open(id);
  if (!entry) {
    // Engines delete once more what is gone already.
    if (force && Store::CheckId(id)) return {};
    return Fail(entry.error());
  }
  Status now = entry->state().CurrentStatus();
  if (!force && (now == Status::kRunning || now == Status::kPaused)) {
    return Fail(id, fmt::format("cannot delete a container that is {}; stop it first, or use --force", Name(now)));
  }
  return Destroy(settings, *entry);
}

namespace {

Outcome<> Change(const Settings& settings, const std::string& id, Status from, Status to, control::Method method,
                 const char* verb) {
  Expected<Entry> entry = Store(settings.root).Open(id);
  if (!entry) return Fail(entry.error());
  State& state = entry->state();
  Status now = state.CurrentStatus();
  if (now == Status::kStopped) return Fail(id, "container not running");
  if (now != from) return Fail(id, fmt::format("cannot {} a container that is {}", verb, Name(now)));
  // Written down before it is done: where there is no room for that, nothing has changed.
  state.status = to;
  if (auto saved = entry->Save(); !saved) return Fail(id, saved.error());
  Outcome<control::Reply> reply = Ask(settings, state, {.method = method});
  if (reply) return {};
  state.status = from;
  (void)entry->Save();
  return std::unexpected(reply.error());
}

}  // namespace

Outcome<> Pause(const Settings& settings, const std::string& id) {
  return Change(settings, id, Status::kRunning, Status::kPaused, control::Method::kPause, "pause");
}

Outcome<> Resume(const Settings& settings, const std::string& id) {
  return Change(settings, id, Status::kPaused, Status::kRunning, control::Method::kResume, "resume");
}

Outcome<> Update(const Settings& settings, const std::string& id, const specutils::Resources& resources) {
  Expected<Entry> entry = Store(settings.root).Open(id);
  if (!entry) return Fail(entry.error());
  const State& state = entry->state();
  if (state.CurrentStatus() == Status::kStopped) return Fail(id, "container not running");
  if (resources.empty()) return {};
  if (state.cgroup_directories.empty()) {
    return Fail(id,
                "it was made without control groups (no linux.resources, no linux.cgroupsPath), so nothing bounds it");
  }
  if (auto set = cgroup::Cgroup(state.cgroup_directories).Set(resources); !set) return Fail(id, set.error());
  return {};
}

}  // namespace redoubt::container
