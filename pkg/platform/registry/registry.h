// Platforms by name. The composition root fills one; nothing registers itself.
#ifndef REDOUBT_PKG_PLATFORM_REGISTRY_REGISTRY_H_
#define REDOUBT_PKG_PLATFORM_REGISTRY_REGISTRY_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/platform/platform.h"

namespace redoubt::platform {

// Not thread-safe; filled once and then only read.
class Registry final {
 public:
  using Factory = Result<std::unique_ptr<Platform>> (*)(const Requirements& requirements);

  // Names are unique (checked). The first is the default.
  void Add(std::string name, Factory factory);
  // ENOENT for an unknown name; otherwise the factory's errors. An empty name is the default's.
  Result<std::unique_ptr<Platform>> Create(std::string_view name, const Requirements& requirements) const;
  // In the order added.
  std::vector<std::string> names() const;

 private:
  struct Entry {
    std::string name;
    Factory factory;
  };
  std::vector<Entry> entries_;
};

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_REGISTRY_REGISTRY_H_
