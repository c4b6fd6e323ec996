#include "pkg/sentry/syscalls/file_systems.h"

#include <map>

namespace redoubt::syscalls {
namespace {

// Written before tasks run, read after.
std::map<std::string, FilesystemFactory>& Factories() {
  static auto* factories = new std::map<std::string, FilesystemFactory>();
  return *factories;
}

}  // namespace

void RegisterFilesystem(std::string type, FilesystemFactory factory) {
  Factories()[std::move(type)] = std::move(factory);
}

Result<RefPtr<vfs::Filesystem>> MakeFilesystem(const std::string& type, std::string_view source,
                                               std::string_view options) {
  auto it = Factories().find(type);
  if (it == Factories().end()) return Err(ENODEV);
  return it->second(source, options);
}

std::vector<std::string> RegisteredFilesystems() {
  std::vector<std::string> types;
  for (const auto& [type, factory] : Factories()) types.push_back(type);
  return types;
}

}  // namespace redoubt::syscalls
