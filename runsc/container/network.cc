// The network of --network=sandbox, from its start to its end.
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runsc/container/internal.h"

namespace redoubt::container {
namespace {

const specutils::Namespace* NetworkNamespace(const specutils::Spec& spec) {
  auto it = std::find_if(spec.namespaces.begin(), spec.namespaces.end(),
                         [](const specutils::Namespace& n) { return n.type == "network"; });
  return it == spec.namespaces.end() ? nullptr : &*it;
}

}  // namespace

Outcome<std::optional<sandbox::TakenNetwork>> TakeNetworkOver(const Settings& settings, const Entry& entry,
                                                              const specutils::Spec& spec) {
  const State& state = entry.state();
  if (specutils::ResolveNetwork(settings.options.network, spec) != specutils::NetworkMode::kSandbox ||
      state.sandbox != state.id) {
    return std::nullopt;
  }
  UniqueFd ns;
  if (NetworkNamespace(spec) != nullptr) {
    // The process that stands for the container is in it, whether it was named or made.
    const std::string path = fmt::format("/proc/{}/ns/net", state.process.pid);
    ns = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!ns) return Fail(state.id, fmt::format("its network namespace, {}: {}", path, std::strerror(errno)));
  }
  Expected<sandbox::TakenNetwork> taken =
      sandbox::TakeNetwork(ns ? ns.get() : -1, [&entry](const specutils::NetworkConfig& config) {
        return entry.SaveNetwork(specutils::SerializeNetwork(config));
      });
  if (!taken) return Fail(state.id, taken.error());
  return std::move(*taken);
}

void GiveNetworkBack(const Settings& settings, const Entry& entry, const specutils::Spec& spec) {
  const std::string text = entry.LoadNetwork();
  if (text.empty()) return;
  auto warn = [&](const std::string& what) {
    settings.warn(fmt::format("container \"{}\": {}", entry.state().id, what));
  };
  Expected<specutils::NetworkConfig> config = specutils::DeserializeNetwork(text);
  if (!config) return warn(config.error());
  UniqueFd ns;
  if (const specutils::Namespace* named = NetworkNamespace(spec)) {
    // One that was made for the container is there as long as its process.
    const std::string path =
        !named->path.empty() ? named->path : fmt::format("/proc/{}/ns/net", entry.state().process.pid);
    ns = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!ns) return;
  }
  if (Expected<void> r = sandbox::GiveBackNetwork(ns ? ns.get() : -1, *config); !r) return warn(r.error());
  if (Expected<void> r = entry.SaveNetwork(""); !r) warn(r.error());
}

}  // namespace redoubt::container
