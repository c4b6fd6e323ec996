#include "pkg/sentry/strace/strace.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <array>
#include <cstring>

namespace redoubt::strace {
namespace {

class StraceTest : public ::testing::Test {
 protected:
  std::string Call(uint64_t number, kernel::SyscallArgs args, Result<uint64_t> result) {
    return Format(io_, number, syscalls::Lookup(number), args, &result);
  }
  void Put(Addr at, const char* text) { std::memcpy(memory_.data() + at, text, std::strlen(text) + 1); }

  std::array<std::byte, 4096> memory_{};
  BufferIo io_{memory_};
};

TEST_F(StraceTest, PathsFlagsAndErrors) {
  Put(16, "/etc/passwd");
  EXPECT_EQ(Call(SYS_openat, {{static_cast<uint64_t>(AT_FDCWD), 16, O_RDWR | O_CLOEXEC, 0644}}, Err(ENOENT)),
            "openat(AT_FDCWD, \"/etc/passwd\", O_RDWR|O_CLOEXEC, 0644) = -1 ENOENT");
}

TEST_F(StraceTest, BuffersAreCutAndEscaped) {
  Put(0, "a\n\x01\"");
  EXPECT_EQ(Call(SYS_write, {{1, 0, 4}}, 4), "write(1, \"a\\n\\x01\\\"\", 4) = 4");
  EXPECT_EQ(Call(SYS_read, {{0, 0, 100}}, 1), "read(0, \"a\", 100) = 1");
}

TEST_F(StraceTest, BadPointersAndUnknownNumbers) {
  EXPECT_EQ(Call(SYS_chdir, {{99999}}, Err(EFAULT)), "chdir(0x1869f) = -1 EFAULT");
  EXPECT_EQ(Call(500, {{}}, Err(ENOSYS)), "syscall_500() = -1 ENOSYS");
}

TEST(Only, TakesNamesOfCalls) {
  EXPECT_TRUE(Only({"read", "openat"}));
  EXPECT_EQ(Only({"read", "raed"}).error(), Errno(ENOENT));
  EXPECT_EQ(Only({""}).error(), Errno(ENOENT));
  EXPECT_TRUE(Only({}));
}

}  // namespace
}  // namespace redoubt::strace
