#include "pkg/platform/systrap/systrap.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>

#include "pkg/fiber/event_source.h"
#include "pkg/platform/conformance.h"

namespace redoubt::platform {
namespace {

INSTANTIATE_TEST_SUITE_P(Systrap, PlatformConformance, testing::Values(PlatformFactory{"systrap", systrap::Create}),
                         [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(Systrap, StubConformance, testing::Values(PlatformFactory{"systrap", systrap::Create}),
                         [](const auto& info) { return info.param.name; });

// The end of one process is told while the next, which may have the same place in memory, is made.
TEST(Systrap, ANewProcessIsNotTakenForOneThatDied) {
  const int memory = memfd_create("memory", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(memory, kPageSize), 0);
  std::unique_ptr<Platform> platform = *systrap::Create({.spares = 2, .memory_fd = memory});
  std::atomic<bool> over = false;
  std::thread other([&] {
    while (!over) platform->event_source()->Drain();
  });
  int died = 0;
  // Threads that map are tied to a processor, and this one's children would be too.
  std::thread maker([&] {
    for (int i = 0; i < 1000; i++) {
      RefPtr<AddressSpace> space = *platform->NewAddressSpace();
      for (int n = 0; n < 3; n++) died += !space->MapFile(0x10000, memory, 0, kPageSize, kRead, false);
      space->Release();
    }
    over = true;
  });
  maker.join();
  other.join();
  close(memory);
  EXPECT_EQ(died, 0);
}

TEST(Systrap, NeedsAMemoryFile) { EXPECT_EQ(systrap::Create(Requirements{}).error(), Errno(EBADF)); }

}  // namespace
}  // namespace redoubt::platform
