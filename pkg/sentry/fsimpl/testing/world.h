// A small world for tests of file systems: a memory file, a mount namespace, a walker, and a fiber to run in.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_TESTING_WORLD_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_TESTING_WORLD_H_

#include <fcntl.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::fstest {

// Runs `body` as one fiber of a deterministic executor until it and all it started have ended.
inline void InFiber(std::function<void()> body, uint64_t seed = 1) {
  auto executor = fiber::MakeDeterministicExecutor(seed);
  executor->Spawn(std::move(body));
  EXPECT_EQ(fiber::RunUntilIdle(*executor), 0u) << "fibers left parked";
}

// 0 for success, otherwise the errno.
template <typename T>
int Error(const Result<T>& r) {
  return r ? 0 : r.error().value();
}

class Names final : public vfs::DirentSink {
 public:
  struct Entry {
    std::string name;
    uint64_t ino;
    uint8_t type;
    int64_t next;
  };
  explicit Names(size_t room = SIZE_MAX) : room_(room) {}
  bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t next) override {
    if (entries.size() >= room_) return false;
    entries.push_back({std::string(name), ino, type, next});
    return true;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const Entry& e : entries) result.push_back(e.name);
    return result;
  }
  std::vector<Entry> entries;

 private:
  size_t room_;
};

// Everything by absolute names, as one user.
class World {
 public:
  explicit World(const tmpfs::Options& options = {}) : World(nullptr, options) {}
  World(RefPtr<vfs::Filesystem> root, const tmpfs::Options& options = {}) {
    memory = *pgalloc::MemoryFile::Create({});
    creds = auth::Credentials::Root();
    UseRoot(root ? root : tmpfs::Create(*memory, options));
  }
  ~World() { UseRoot(nullptr); }

  // Instead of the one that there is.
  void UseRoot(RefPtr<vfs::Filesystem> root) {
    cwd = vfs::Path();
    root_path = vfs::Path();
    if (ns) ns->DropUser();
    ns.reset();
    fs = std::move(root);
    if (!fs) return;
    ns = vfs::MountNamespace::Create(fs, 0, "root");
    ns->AddUser();
    root_path = ns->root();
  }

  vfs::Walker walker() const { return {*creds, root_path, umask}; }
  const vfs::Path& start() const { return cwd ? cwd : root_path; }
  vfs::At at(std::string_view name, bool follow = true) const {
    return {.start = start(), .name = name, .follow = follow};
  }
  void BecomeUser(uint32_t uid, uint32_t gid, std::vector<uint32_t> groups = {}) {
    creds = auth::Credentials::ForUser(uid, gid, std::move(groups), 0);
  }
  void BecomeRoot() { creds = auth::Credentials::Root(); }

  int Mkdir(std::string_view name, uint32_t mode = 0755) { return Error(vfs::Mkdir(walker(), at(name), mode)); }
  int Mknod(std::string_view name, uint32_t mode, uint64_t rdev = 0) {
    return Error(vfs::Mknod(walker(), at(name), mode, rdev));
  }
  int Symlink(std::string_view target, std::string_view name) {
    return Error(vfs::Symlink(walker(), target, at(name)));
  }
  int Link(std::string_view from, std::string_view to) { return Error(vfs::Link(walker(), at(from, false), at(to))); }
  int Unlink(std::string_view name) { return Error(vfs::Unlink(walker(), at(name))); }
  int Rmdir(std::string_view name) { return Error(vfs::Rmdir(walker(), at(name))); }
  int Rename(std::string_view from, std::string_view to, uint32_t flags = 0) {
    return Error(vfs::Rename(walker(), at(from), at(to), flags));
  }
  Result<RefPtr<vfs::FileDescription>> Open(std::string_view name, int flags, uint32_t mode = 0644,
                                            uint64_t resolve = 0) {
    return vfs::Open(walker(), at(name), {.flags = flags, .mode = mode, .resolve = resolve});
  }
  int Touch(std::string_view name, uint32_t mode = 0644) { return Error(Open(name, O_CREAT | O_WRONLY, mode)); }
  Result<vfs::Attributes> Stat(std::string_view name) { return vfs::Stat(walker(), at(name)); }
  Result<vfs::Attributes> Lstat(std::string_view name) { return vfs::Stat(walker(), at(name, false)); }
  Result<vfs::Path> Lookup(std::string_view name) { return vfs::Lookup(walker(), at(name)); }
  int Chdir(std::string_view name) {
    Result<vfs::Path> path = Lookup(name);
    if (path) cwd = *path;
    return Error(path);
  }
  std::string Cwd() { return vfs::PathName(root_path, start()).name; }
  std::vector<std::string> List(std::string_view name) {
    Names names;
    auto d = Open(name, O_RDONLY | O_DIRECTORY);
    if (!d) return {"error " + std::to_string(Error(d))};
    EXPECT_TRUE((*d)->Getdents(names));
    return names.names();
  }

  // What can be read from the offset on, or "error N".
  static std::string Read(vfs::FileDescription& file, size_t length = 1 << 16) {
    std::string buffer(length, '\0');
    BufferIo io(std::as_writable_bytes(std::span(buffer)));
    IoSequence dst(io, 0, buffer.size());
    Result<size_t> n = file.Read(dst, 0);
    if (!n) return "error " + std::to_string(n.error().value());
    buffer.resize(*n);
    return buffer;
  }
  static std::string PRead(vfs::FileDescription& file, uint64_t offset, size_t length) {
    std::string buffer(length, '\0');
    BufferIo io(std::as_writable_bytes(std::span(buffer)));
    IoSequence dst(io, 0, buffer.size());
    Result<size_t> n = file.PRead(dst, offset, 0);
    if (!n) return "error " + std::to_string(n.error().value());
    buffer.resize(*n);
    return buffer;
  }
  static int64_t Write(vfs::FileDescription& file, std::string data) {
    BufferIo io(std::as_writable_bytes(std::span(data)));
    IoSequence src(io, 0, data.size());
    Result<size_t> n = file.Write(src, 0);
    return n ? static_cast<int64_t>(*n) : -n.error().value();
  }
  static int64_t PWrite(vfs::FileDescription& file, uint64_t offset, std::string data) {
    BufferIo io(std::as_writable_bytes(std::span(data)));
    IoSequence src(io, 0, data.size());
    Result<size_t> n = file.PWrite(src, offset, 0);
    return n ? static_cast<int64_t>(*n) : -n.error().value();
  }
  std::string ReadFile(std::string_view name) {
    auto file = Open(name, O_RDONLY);
    if (!file) return "error " + std::to_string(Error(file));
    std::string all;
    while (true) {
      std::string part = Read(**file);
      all += part;
      if (part.empty() || part.starts_with("error ")) return all;
    }
  }
  int WriteFile(std::string_view name, std::string data) {
    auto file = Open(name, O_CREAT | O_WRONLY | O_TRUNC);
    if (!file) return Error(file);
    int64_t n = Write(**file, data);
    return n < 0 ? static_cast<int>(-n) : 0;
  }

  std::unique_ptr<pgalloc::MemoryFile> memory;
  RefPtr<vfs::Filesystem> fs;
  RefPtr<vfs::MountNamespace> ns;
  vfs::Path root_path, cwd;
  RefPtr<auth::Credentials> creds;
  uint32_t umask = 022;
};

}  // namespace redoubt::fstest

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_TESTING_WORLD_H_
