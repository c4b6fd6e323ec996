#include "pkg/platform/ptrace/ptrace.h"

#include <gtest/gtest.h>

#include "pkg/platform/conformance.h"

namespace redoubt::platform {
namespace {

INSTANTIATE_TEST_SUITE_P(Ptrace, PlatformConformance, testing::Values(PlatformFactory{"ptrace", ptrace::Create}),
                         [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(Ptrace, StubConformance, testing::Values(PlatformFactory{"ptrace", ptrace::Create}),
                         [](const auto& info) { return info.param.name; });

TEST(Ptrace, NeedsAMemoryFile) { EXPECT_EQ(ptrace::Create(Requirements{}).error(), Errno(EBADF)); }

}  // namespace
}  // namespace redoubt::platform
