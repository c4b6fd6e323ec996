// Temporary directories and files of a test.
#ifndef REDOUBT_TEST_SYSCALLS_UTIL_TEMP_DIR_H_
#define REDOUBT_TEST_SYSCALLS_UTIL_TEMP_DIR_H_

#include <string>
#include <string_view>

#include "test/syscalls/util/scoped_fd.h"

namespace redoubt::testing {

// A fresh directory of mode 0755 under $TEST_DIR, or /tmp; removed with all it holds.
class TempDir final {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

  // A file of that name and content; its path.
  std::string File(std::string_view name, std::string_view content = "", int mode = 0644) const;
  std::string Dir(std::string_view name, int mode = 0755) const;
  // The file, made and open for reading and writing.
  ScopedFd Open(std::string_view name, std::string_view content = "", int flags = 0) const;

 private:
  std::string path_;
};

std::string ReadAll(const std::string& path);

}  // namespace redoubt::testing

#endif  // REDOUBT_TEST_SYSCALLS_UTIL_TEMP_DIR_H_
