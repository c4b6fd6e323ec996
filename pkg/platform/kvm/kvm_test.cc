#include "pkg/platform/kvm/kvm.h"

#include <gtest/gtest.h>

#include "pkg/platform/conformance.h"

namespace redoubt::platform {
namespace {

INSTANTIATE_TEST_SUITE_P(Kvm, PlatformConformance, testing::Values(PlatformFactory{"kvm", kvm::Create}),
                         [](const auto& info) { return info.param.name; });

TEST(Kvm, NeedsAMemoryFile) { EXPECT_EQ(kvm::Create(Requirements{}).error(), Errno(EBADF)); }

}  // namespace
}  // namespace redoubt::platform
