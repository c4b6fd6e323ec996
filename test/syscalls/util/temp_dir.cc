#include "test/syscalls/util/temp_dir.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

namespace redoubt::testing {
namespace {

[[noreturn]] void Die(const std::string& what) {
  perror(what.c_str());
  abort();
}

int Remove(const char* path, const struct stat*, int, struct FTW*) { return remove(path); }

}  // namespace

TempDir::TempDir() {
  const char* base = getenv("TEST_DIR");
  path_ = std::string(base != nullptr ? base : "/tmp") + "/syscall_test.XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) Die(path_);
  chmod(path_.c_str(), 0755);
}

TempDir::~TempDir() { nftw(path_.c_str(), Remove, 16, FTW_DEPTH | FTW_PHYS); }

std::string TempDir::File(std::string_view name, std::string_view content, int mode) const {
  ScopedFd fd = Open(name, content);
  if (fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) Die("fchmod");
  return *this / name;
}

std::string TempDir::Dir(std::string_view name, int mode) const {
  std::string path = *this / name;
  if (mkdir(path.c_str(), 0700) != 0 || chmod(path.c_str(), static_cast<mode_t>(mode)) != 0) Die(path);
  return path;
}

ScopedFd TempDir::Open(std::string_view name, std::string_view content, int flags) const {
  std::string path = *this / name;
  ScopedFd fd(open(path.c_str(), O_CREAT | O_RDWR | flags, 0644));
  if (fd.get() < 0) Die(path);
  if (write(fd.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size())) Die(path);
  if (lseek(fd.get(), 0, SEEK_SET) != 0) Die(path);
  return fd;
}

std::string ReadAll(const std::string& path) {
  ScopedFd fd(open(path.c_str(), O_RDONLY));
  if (fd.get() < 0) Die(path);
  std::string all;
  char buffer[4096];
  for (;;) {
    ssize_t n = read(fd.get(), buffer, sizeof(buffer));
    if (n < 0) Die(path);
    if (n == 0) return all;
    all.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace redoubt::testing
