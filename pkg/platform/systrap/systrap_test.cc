#include "pkg/platform/systrap/systrap.h"

#include "pkg/platform/conformance.h"

namespace redoubt::platform {
namespace {

INSTANTIATE_TEST_SUITE_P(Systrap, PlatformConformance, testing::Values(PlatformFactory{"systrap", systrap::Create}),
                         [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(Systrap, StubConformance, testing::Values(PlatformFactory{"systrap", systrap::Create}),
                         [](const auto& info) { return info.param.name; });

TEST(Systrap, NeedsAMemoryFile) { EXPECT_EQ(systrap::Create(Requirements{}).error(), Errno(EBADF)); }

}  // namespace
}  // namespace redoubt::platform
