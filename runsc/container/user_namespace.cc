#include "runsc/container/user_namespace.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "runsc/box/user_namespace.h"

namespace redoubt::container {
namespace {

using specutils::IdMappings;

// Of a user namespace that is there.
Expected<IdMappings> MappingsAt(const Store& store, const std::string& path) {
  auto fail = [&](const std::string& why) {
    return std::unexpected(fmt::format("linux.namespaces: user: {}: {}", path, why));
  };
  // Of a container the process that stands for it outside is in the host's.
  if (std::optional<State> other = ContainerNamedBy(store, path, "user")) return other->id_mappings;
  struct stat asked{}, own{};
  if (stat(path.c_str(), &asked) != 0) return fail(std::strerror(errno));
  if (stat("/proc/self/ns/user", &own) == 0 && asked.st_dev == own.st_dev && asked.st_ino == own.st_ino) {
    return IdMappings{};
  }
  box::IdMaps maps;
  if (const int e = box::ReadUserNamespace(path, &maps); e != 0) return fail(std::strerror(e));
  auto uids = specutils::ParseMapText(maps.uids), gids = specutils::ParseMapText(maps.gids);
  if (!uids || !gids || uids->empty() || gids->empty()) return fail("it has no mappings");
  return IdMappings{.uids = std::move(*uids), .gids = std::move(*gids)};
}

// The gofer makes files as one user, and gives them to their owners afterwards.
bool CanWrite(const IdMappings& container, const IdMappings& mount) {
  uint32_t uid = 0, gid = 0;
  if (!container.empty()) {
    specutils::ToOutside(container.uids, specutils::ServingId(container.uids), &uid);
    specutils::ToOutside(container.gids, specutils::ServingId(container.gids), &gid);
  }
  return specutils::HasOutside(mount.uids, uid) && specutils::HasOutside(mount.gids, gid);
}

}  // namespace

Expected<void> ResolveIdMappings(const Store& store, specutils::Spec& spec) {
  const specutils::Namespace* ns = spec.FindNamespace("user");
  if ((ns != nullptr || !spec.id_mappings.empty()) && box::HasOneId()) {
    auto larger = [](const std::vector<specutils::IdMapping>& m) {
      return m.size() > 1 || (!m.empty() && m[0].size > 1);
    };
    if (larger(spec.id_mappings.uids) || larger(spec.id_mappings.gids)) {
      return std::unexpected(std::string(
          "linux.uidMappings: more than one ID needs privileges over them; run as root, or in a user namespace that "
          "has them"));
    }
    // What the gofer does anyway then: the one user is the container's (runsc/box).
    spec.id_mappings = {};
  } else if (ns == nullptr) {
    if (!spec.id_mappings.empty()) {
      return std::unexpected(std::string("linux.uidMappings: given, and no user namespace in linux.namespaces"));
    }
  } else if (ns->path.empty()) {
    if (spec.id_mappings.empty()) {
      return std::unexpected(std::string("linux.uidMappings: missing, and needed for a new user namespace"));
    }
  } else {
    Expected<IdMappings> there = MappingsAt(store, ns->path);
    if (!there) return std::unexpected(there.error());
    if (!spec.id_mappings.empty() && spec.id_mappings != *there) {
      return std::unexpected(fmt::format("linux.uidMappings: are not those of the user namespace {}", ns->path));
    }
    spec.id_mappings = std::move(*there);
  }
  for (size_t i = 0; i < spec.mounts.size(); i++) {
    specutils::Mount& m = spec.mounts[i];
    if (m.mapped == specutils::Mount::Mapped::kNo) continue;
    if (box::HasOneId()) {
      return std::unexpected(fmt::format("mounts[{}]: ID-mapped mounts need privileges; run as root", i));
    }
    if (m.mappings.empty()) m.mappings = spec.id_mappings;
    if (m.mappings.empty()) {
      return std::unexpected(
          fmt::format("mounts[{}]: to be ID-mapped, and neither it nor the container has mappings", i));
    }
    if (!m.read_only() && !CanWrite(spec.id_mappings, m.mappings)) {
      return std::unexpected(fmt::format(
          "mounts[{}]: its mappings leave out the container's root, by which files are made; mount it read-only, or "
          "map that too",
          i));
    }
  }
  return {};
}

}  // namespace redoubt::container
