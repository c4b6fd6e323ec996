#include "pkg/platform/registry/registry.h"

#include <gtest/gtest.h>

namespace redoubt::platform {
namespace {

TEST(Registry, FindsByNameAndDefaultsToTheFirst) {
  Registry r;
  EXPECT_EQ(r.Create("", {}).error(), Errno(ENOENT));
  r.Add("one", [](const Requirements&) -> Result<std::unique_ptr<Platform>> { return Err(EAGAIN); });
  r.Add("two", [](const Requirements&) -> Result<std::unique_ptr<Platform>> { return Err(EBUSY); });
  EXPECT_EQ(r.Create("one", {}).error(), Errno(EAGAIN));
  EXPECT_EQ(r.Create("two", {}).error(), Errno(EBUSY));
  EXPECT_EQ(r.Create("", {}).error(), Errno(EAGAIN));
  EXPECT_EQ(r.Create("three", {}).error(), Errno(ENOENT));
  EXPECT_EQ(r.names(), (std::vector<std::string>{"one", "two"}));
}

}  // namespace
}  // namespace redoubt::platform
