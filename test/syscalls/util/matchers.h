// Matchers for what a system call returned: -1 and errno, or success.
//   EXPECT_THAT(open("/none", O_RDONLY), SyscallFails(ENOENT));
//   EXPECT_THAT(dup(3), SyscallSucceeds(4));
#ifndef REDOUBT_TEST_SYSCALLS_UTIL_MATCHERS_H_
#define REDOUBT_TEST_SYSCALLS_UTIL_MATCHERS_H_

#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string.h>

#include <string>

namespace redoubt::testing {

inline std::string ErrnoName(int e) {
  const char* name = strerrorname_np(e);
  return name != nullptr ? name : std::to_string(e);
}

// errno is read at once: gtest evaluates the call, then the matcher, with nothing in between.
MATCHER_P(SyscallFails, expected, "fails with " + ErrnoName(expected)) {
  int e = errno;
  if (static_cast<int64_t>(arg) != -1) {
    *result_listener << "which is a success";
    return false;
  }
  if (e != expected) *result_listener << "with " << ErrnoName(e);
  return e == expected;
}

MATCHER(SyscallSucceeds, "succeeds") {
  int e = errno;
  if (static_cast<int64_t>(arg) == -1) *result_listener << "with " << ErrnoName(e);
  return static_cast<int64_t>(arg) != -1;
}

MATCHER_P(SyscallReturns, expected, "returns " + ::testing::PrintToString(expected)) {
  int e = errno;
  if (static_cast<int64_t>(arg) == -1) *result_listener << "with " << ErrnoName(e);
  return static_cast<int64_t>(arg) == static_cast<int64_t>(expected);
}

#define EXPECT_OK(call) EXPECT_THAT((call), ::redoubt::testing::SyscallSucceeds())
#define ASSERT_OK(call) ASSERT_THAT((call), ::redoubt::testing::SyscallSucceeds())
#define EXPECT_RETURNS(call, n) EXPECT_THAT((call), ::redoubt::testing::SyscallReturns(n))
#define ASSERT_RETURNS(call, n) ASSERT_THAT((call), ::redoubt::testing::SyscallReturns(n))
#define EXPECT_ERRNO(call, e) EXPECT_THAT((call), ::redoubt::testing::SyscallFails(e))

}  // namespace redoubt::testing

#endif  // REDOUBT_TEST_SYSCALLS_UTIL_MATCHERS_H_
