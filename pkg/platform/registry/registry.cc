#include "pkg/platform/registry/registry.h"

#include <utility>

#include "pkg/log/log.h"

namespace redoubt::platform {

void Registry::Add(std::string name, Factory factory) {
  CHECK(!name.empty() && factory != nullptr, "a platform needs a name");
  for (const Entry& e : entries_) CHECK(e.name != name, "two platforms of one name");
  entries_.push_back({std::move(name), factory});
}

Result<std::unique_ptr<Platform>> Registry::Create(std::string_view name, const Requirements& requirements) const {
  for (const Entry& e : entries_) {
    if (name.empty() || e.name == name) return e.factory(requirements);
  }
  return Err(ENOENT);
}

std::vector<std::string> Registry::names() const {
  std::vector<std::string> names;
  for (const Entry& e : entries_) names.push_back(e.name);
  return names;
}

}  // namespace redoubt::platform
