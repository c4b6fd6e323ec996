#include "pkg/errors/errors.h"

#include <gtest/gtest.h>

#include <memory>

namespace redoubt {
namespace {

Result<int> Half(int n) {
  if (n % 2 != 0) return Err(EINVAL);
  return n / 2;
}

Result<int> Quarter(int n) { return TRY(Half(TRY(Half(n)))); }

Result<> CheckEven(int n) {
  TRY(Half(n));
  return {};
}

Result<std::unique_ptr<int>> Boxed(int n) {
  std::unique_ptr<int> p = TRY(Result<std::unique_ptr<int>>(std::make_unique<int>(n)));
  return p;
}

TEST(Errors, TryPassesValuesAndErrorsUp) {
  EXPECT_EQ(Quarter(12), 3);
  EXPECT_EQ(Quarter(6).error(), Errno(EINVAL));
  EXPECT_TRUE(CheckEven(2));
  EXPECT_EQ(CheckEven(3).error().value(), EINVAL);
}

TEST(Errors, TryMovesMoveOnlyValues) { EXPECT_EQ(**Boxed(7), 7); }

TEST(Errors, NamesAndReturnValues) {
  EXPECT_EQ(Errno(ENOENT).name(), "ENOENT");
  EXPECT_EQ(kErestartsys.name(), "ERESTARTSYS");
  EXPECT_EQ(Errno(9999).name(), "E?");
  EXPECT_EQ(static_cast<int64_t>(Errno(ENOENT).AsReturnValue()), -ENOENT);
}

}  // namespace
}  // namespace redoubt
