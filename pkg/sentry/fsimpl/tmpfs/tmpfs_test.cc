#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include <map>
#include <set>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/memmap/mmap_options.h"
#include "test/fuzz/rounds.h"

namespace redoubt::tmpfs {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::Names;
using fstest::World;

void InWorld(const std::function<void(World&)>& body, const Options& options = {}) {
  InFiber([&] {
    World w(options);
    body(w);
  });
}

// An address space that only notes what it was told.
class Space final : public memmap::MappingSpace {
 public:
  void Invalidate(AddrRange range, bool invalidate_private) override { told.emplace_back(range, invalidate_private); }
  std::vector<std::pair<AddrRange, bool>> told;
};

// Contents of files are in a file of /tmp.
struct DiskWorld {
  DiskWorld() {
    const int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    EXPECT_GE(fd, 0);
    auto file = *pgalloc::MemoryFile::CreateOnFile(fd);
    disk = file.get();
    world = std::make_unique<World>(nullptr);
    world->UseRoot(Create(*world->memory, {}, std::move(file)));
  }
  pgalloc::MemoryFile* disk;
  std::unique_ptr<World> world;
};

TEST(TmpfsDisk, ContentsAreNotInMemoryUntilTheyAreMapped) {
  InFiber([] {
    DiskWorld d;
    World& w = *d.world;
    const std::string data(1 << 20, 'x');
    ASSERT_EQ(w.WriteFile("/f", data), 0);
    EXPECT_EQ(w.memory->usage(), 0u);
    EXPECT_EQ(d.disk->usage(), data.size());
    auto f = *w.Open("/f", O_RDWR);
    EXPECT_EQ(World::PRead(*f, 0, data.size()), data);
    mm::MMapOptions options{.shared = true};
    ASSERT_TRUE(f->ConfigureMMap(options));
    memmap::FileRange page = *options.mappable->Translate(5 * kPageSize, kPageSize, kReadWrite);
    EXPECT_EQ(w.memory->usage(), kPageSize);
    EXPECT_EQ(d.disk->usage(), data.size() - kPageSize);
    EXPECT_EQ(w.memory->At(page.start)[3], std::byte{'x'});
    w.memory->At(page.start)[3] = std::byte{'!'};
    EXPECT_EQ(World::PRead(*f, 5 * kPageSize + 2, 3), "x!x");
    EXPECT_EQ(World::PWrite(*f, 5 * kPageSize + 2, "abc"), 3);
    EXPECT_EQ(w.memory->At(page.start)[3], std::byte{'b'});
    w.memory->DecRef(page);
    options = {};
    f.reset();
    ASSERT_EQ(w.Unlink("/f"), 0);
    EXPECT_EQ(w.memory->usage(), 0u);
    EXPECT_EQ(d.disk->usage(), 0u);
  });
}

// Memory that somebody maps the file from while a write copies from it.
class MappingIo final : public MemoryIo {
 public:
  MappingIo(std::span<std::byte> data, std::function<void()> while_copying)
      : data_(data), while_copying_(std::move(while_copying)) {}
  Result<size_t> CopyIn(Addr addr, std::span<std::byte> dst) override {
    while_copying_();
    return data_.CopyIn(addr, dst);
  }
  Result<size_t> CopyOut(Addr, std::span<const std::byte>) override { return Err(EFAULT); }
  Result<size_t> ZeroOut(Addr, uint64_t) override { return Err(EFAULT); }
  Result<uint32_t> LoadU32(Addr) override { return Err(EFAULT); }
  Result<uint32_t> SwapU32(Addr, uint32_t) override { return Err(EFAULT); }
  Result<uint32_t> CompareAndSwapU32(Addr, uint32_t, uint32_t) override { return Err(EFAULT); }

 private:
  BufferIo data_;
  std::function<void()> while_copying_;
};

TEST(TmpfsDisk, WhatIsWrittenWhilePagesMoveFollowsThem) {
  InFiber([] {
    DiskWorld d;
    World& w = *d.world;
    ASSERT_EQ(w.WriteFile("/f", std::string(8 * kPageSize, 'o')), 0);
    auto f = *w.Open("/f", O_RDWR);
    mm::MMapOptions options{.shared = true};
    ASSERT_TRUE(f->ConfigureMMap(options));
    std::string data(5 * kPageSize, 'n');
    std::vector<memmap::FileRange> mapped;
    MappingIo io(std::as_writable_bytes(std::span(data)), [&] {
      for (uint64_t page : {1, 3}) mapped.push_back(*options.mappable->Translate(page * kPageSize, kPageSize, kRead));
    });
    IoSequence src(io, 0, data.size());
    ASSERT_EQ(*f->PWrite(src, kPageSize + 10, {}), data.size());
    EXPECT_EQ(World::PRead(*f, 0, 8 * kPageSize),
              std::string(kPageSize + 10, 'o') + data + std::string(2 * kPageSize - 10, 'o'));
    EXPECT_EQ(w.memory->At(mapped[0].start)[9], std::byte{'o'});
    EXPECT_EQ(w.memory->At(mapped[0].start)[10], std::byte{'n'});
    for (memmap::FileRange r : mapped) w.memory->DecRef(r);
  });
}

TEST(Tmpfs, SparseFilesReadAsZeros) {
  InWorld([](World& w) {
    auto f = *w.Open("/f", O_CREAT | O_RDWR);
    const uint64_t far = uint64_t{1} << 40;
    EXPECT_EQ(World::PWrite(*f, far, "end"), 3);
    EXPECT_EQ(f->GetAttributes()->size, far + 3);
    EXPECT_EQ(f->GetAttributes()->blocks, 8u);
    EXPECT_EQ(World::PRead(*f, 0, 5), std::string(5, '\0'));
    EXPECT_EQ(World::PRead(*f, far - 2, 100), std::string("\0\0end", 5));
    EXPECT_EQ(World::PRead(*f, far + 3, 1), "");
    EXPECT_EQ(*f->Seek(0, SEEK_DATA), far);
    EXPECT_EQ(*f->Seek(0, SEEK_HOLE), 0u);
    EXPECT_EQ(*f->Seek(static_cast<int64_t>(far), SEEK_HOLE), far + 3);
    EXPECT_EQ(Error(f->Seek(static_cast<int64_t>(far) + 3, SEEK_DATA)), ENXIO);
    EXPECT_EQ(Error(f->Seek(-1, SEEK_SET)), EINVAL);
    EXPECT_EQ(Error(f->Seek(0, 17)), EINVAL);
    EXPECT_EQ(World::PWrite(*f, INT64_MAX, "x"), -EFBIG);
  });
}

TEST(Tmpfs, AppendGoesToTheEndWhereverTheOffsetIs) {
  InWorld([](World& w) {
    ASSERT_EQ(w.WriteFile("/f", "abc"), 0);
    auto f = *w.Open("/f", O_RDWR | O_APPEND);
    EXPECT_EQ(World::Write(*f, "d"), 1);
    EXPECT_EQ(f->offset(), 4u);
    ASSERT_TRUE(f->Seek(0, SEEK_SET));
    EXPECT_EQ(World::Write(*f, "e"), 1);
    EXPECT_EQ(w.ReadFile("/f"), "abcde");
    ASSERT_TRUE(f->SetStatusFlags(0));
    ASSERT_TRUE(f->Seek(0, SEEK_SET));
    EXPECT_EQ(World::Write(*f, "A"), 1);
    EXPECT_EQ(w.ReadFile("/f"), "Abcde");
  });
}

TEST(Tmpfs, TruncationZeroesTheTail) {
  InWorld([](World& w) {
    ASSERT_EQ(w.WriteFile("/f", std::string(10000, 'x')), 0);
    auto f = *w.Open("/f", O_RDWR);
    ASSERT_TRUE(vfs::FTruncate(*w.creds, *f, 5000));
    ASSERT_TRUE(vfs::FTruncate(*w.creds, *f, 9000));
    EXPECT_EQ(World::PRead(*f, 4990, 20), std::string(10, 'x') + std::string(10, '\0'));
    EXPECT_EQ(f->GetAttributes()->blocks, 16u);
    EXPECT_EQ(Error(vfs::FTruncate(*w.creds, *f, uint64_t{1} << 63)), EFBIG);
  });
}

TEST(Tmpfs, TheSizeLimitIsEnospcAfterWhatFits) {
  InWorld(
      [](World& w) {
        auto f = *w.Open("/f", O_CREAT | O_RDWR);
        EXPECT_EQ(World::PWrite(*f, 0, std::string(6 * kPageSize, 'x')), static_cast<int64_t>(4 * kPageSize));
        EXPECT_EQ(World::PWrite(*f, 4 * kPageSize, "x"), -ENOSPC);
        EXPECT_EQ(Error(f->Allocate(0, 0, 5 * kPageSize)), ENOSPC);
        ASSERT_TRUE(vfs::FTruncate(*w.creds, *f, 1));
        EXPECT_EQ(World::PWrite(*f, kPageSize, "x"), 1);
        struct statfs s = *vfs::Statfs(w.root_path);
        EXPECT_EQ(s.f_blocks, 4u);
        EXPECT_EQ(s.f_bfree, 2u);
        // Root, this file and two more.
        EXPECT_EQ(w.Touch("/g"), 0);
        EXPECT_EQ(w.Mkdir("/h"), 0);
        EXPECT_EQ(w.Mkdir("/i"), ENOSPC);
        EXPECT_EQ(w.Rmdir("/h"), 0);
        EXPECT_EQ(w.Symlink("x", "/i"), 0);
      },
      {.size_limit = 4 * kPageSize, .inode_limit = 4});
}

TEST(Tmpfs, Fallocate) {
  InWorld([](World& w) {
    ASSERT_EQ(w.WriteFile("/f", std::string(3 * kPageSize, 'x')), 0);
    auto f = *w.Open("/f", O_RDWR);
    ASSERT_TRUE(f->Allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 2 * kPageSize));
    EXPECT_EQ(f->GetAttributes()->blocks, 16u);
    EXPECT_EQ(World::PRead(*f, 99, 2), std::string("x\0", 2));
    EXPECT_EQ(World::PRead(*f, 2 * kPageSize + 99, 2), std::string("\0x", 2));
    EXPECT_EQ(*f->Seek(0, SEEK_HOLE), kPageSize);
    ASSERT_TRUE(f->Allocate(FALLOC_FL_KEEP_SIZE, 0, 10 * kPageSize));
    EXPECT_EQ(f->GetAttributes()->blocks, 80u);
    EXPECT_EQ(f->GetAttributes()->size, 3 * kPageSize);
    ASSERT_TRUE(f->Allocate(0, 0, 4 * kPageSize));
    EXPECT_EQ(f->GetAttributes()->size, 4 * kPageSize);
    EXPECT_EQ(Error(f->Allocate(FALLOC_FL_COLLAPSE_RANGE, 0, kPageSize)), EOPNOTSUPP);
    EXPECT_EQ(Error(f->Allocate(0, 0, 0)), EINVAL);
    EXPECT_EQ(Error(f->Allocate(0, INT64_MAX, 1)), EFBIG);
  });
}

TEST(Tmpfs, MappingsSeeTheFileAndLearnOfTruncation) {
  InWorld([](World& w) {
    ASSERT_EQ(w.WriteFile("/f", std::string(3 * kPageSize, 'x')), 0);
    auto f = *w.Open("/f", O_RDWR);
    mm::MMapOptions options{.shared = true};
    ASSERT_TRUE(f->ConfigureMMap(options));
    memmap::Mappable& m = *options.mappable;
    Space space;
    const Addr at = 0x10000;
    ASSERT_TRUE(m.AddMapping(space, {at, at + 3 * kPageSize}, 0, true));
    memmap::FileRange page = *m.Translate(kPageSize, kPageSize, kReadWrite);
    EXPECT_EQ(page.length(), kPageSize);
    w.memory->At(page.start)[7] = std::byte{'!'};
    EXPECT_EQ(World::PRead(*f, kPageSize + 6, 3), "x!x");
    ASSERT_TRUE(vfs::FTruncate(*w.creds, *f, 1000));
    ASSERT_EQ(space.told.size(), 1u);
    EXPECT_EQ(space.told[0].first, (AddrRange{at + kPageSize, at + 3 * kPageSize}));
    EXPECT_TRUE(space.told[0].second);
    // The mapping's own reference keeps the page.
    EXPECT_EQ(w.memory->At(page.start)[7], std::byte{'!'});
    w.memory->DecRef(page);
    EXPECT_EQ(Error(m.Translate(kPageSize, kPageSize, kRead)), EIO);
    memmap::FileRange first = *m.Translate(0, 3 * kPageSize, kRead);
    EXPECT_EQ(first.length(), kPageSize);
    EXPECT_EQ(w.memory->At(first.start)[1000], std::byte{0});
    w.memory->DecRef(first);
    // A part is unmapped; the rest still hears.
    space.told.clear();
    m.RemoveMapping(space, {at + kPageSize, at + 2 * kPageSize}, kPageSize, true);
    ASSERT_TRUE(vfs::FTruncate(*w.creds, *f, 3 * kPageSize));
    ASSERT_TRUE(vfs::FTruncate(*w.creds, *f, 0));
    ASSERT_EQ(space.told.size(), 2u);
    EXPECT_EQ(space.told[0].first, (AddrRange{at, at + kPageSize}));
    EXPECT_EQ(space.told[1].first, (AddrRange{at + 2 * kPageSize, at + 3 * kPageSize}));
    m.RemoveMapping(space, {at, at + kPageSize}, 0, true);
    m.RemoveMapping(space, {at + 2 * kPageSize, at + 3 * kPageSize}, 2 * kPageSize, true);
    options = {};
  });
}

TEST(Tmpfs, GetdentsGoesOnWhileTheDirectoryChanges) {
  InWorld([](World& w) {
    for (int i = 0; i < 20; i++) ASSERT_EQ(w.Touch("/f" + std::to_string(i)), 0);
    auto d = *w.Open("/", O_RDONLY | O_DIRECTORY);
    std::multiset<std::string> seen;
    for (int round = 0;; round++) {
      Names names(3);
      ASSERT_TRUE(d->Getdents(names));
      if (names.entries.empty()) break;
      for (const std::string& n : names.names()) seen.insert(n);
      // The last one seen goes, and one yet unseen.
      ASSERT_EQ(w.Rename("/" + names.names().back(), "/" + names.names().back()), 0);
      if (round == 1) {
        ASSERT_EQ(w.Unlink("/" + names.names().back()), 0);
        ASSERT_EQ(w.Unlink("/f15"), 0);
        ASSERT_EQ(w.Touch("/late"), 0);
      }
    }
    EXPECT_EQ(seen.size(), 2u + 20 - 1 + 1);
    for (const std::string& n : seen) EXPECT_EQ(seen.count(n), 1u) << n;
    EXPECT_FALSE(seen.contains("f15"));
    ASSERT_TRUE(d->Seek(0, SEEK_SET));
    Names all;
    ASSERT_TRUE(d->Getdents(all));
    EXPECT_EQ(all.entries[0].name, ".");
    EXPECT_EQ(all.entries[0].type, DT_DIR);
    EXPECT_EQ(all.entries[2].type, DT_REG);
    // Going back to an offset handed out earlier.
    ASSERT_TRUE(d->Seek(all.entries[4].next, SEEK_SET));
    Names rest;
    ASSERT_TRUE(d->Getdents(rest));
    EXPECT_EQ(rest.entries[0].name, all.entries[5].name);
  });
}

TEST(Tmpfs, TimesMoveAsLinuxMovesThem) {
  InWorld([](World& w) {
    ASSERT_EQ(w.WriteFile("/f", "x"), 0);
    using Kind = vfs::TimeChange::Kind;
    auto reset = [&](std::string_view name) {
      ASSERT_TRUE(vfs::Utimes(w.walker(), *w.Lookup(name), {Kind::kSet, 1}, {Kind::kSet, 1}));
    };
    reset("/f");
    reset("/");
    auto f = *w.Open("/f", O_RDWR);
    EXPECT_EQ(w.Stat("/f")->mtime, 1);
    World::Read(*f);
    EXPECT_GT(w.Stat("/f")->atime, 1);
    EXPECT_EQ(w.Stat("/f")->mtime, 1);
    World::Write(*f, "y");
    EXPECT_GT(w.Stat("/f")->mtime, 1);
    EXPECT_EQ(w.Stat("/")->mtime, 1);
    ASSERT_EQ(w.Link("/f", "/g"), 0);
    EXPECT_GT(w.Stat("/")->mtime, 1);
    reset("/f");
    auto quiet = *w.Open("/f", O_RDONLY | O_NOATIME);
    World::Read(*quiet);
    EXPECT_EQ(w.Stat("/f")->atime, 1);
  });
}

TEST(Tmpfs, MemfdSeals) {
  InWorld([](World& w) {
    auto f = *CreateMemfd(*w.memory, "m", Sealing::kAllowed, 0, 0);
    EXPECT_EQ(vfs::PathName(w.root_path, f->path()).name, "/memfd:m (deleted)");
    EXPECT_EQ(World::PWrite(*f, 0, "abc"), 3);
    EXPECT_EQ(*GetSeals(f->inode()), 0);
    ASSERT_TRUE(AddSeals(f->inode(), F_SEAL_SHRINK | F_SEAL_GROW));
    EXPECT_EQ(Error(vfs::FTruncate(*w.creds, *f, 1)), EPERM);
    EXPECT_EQ(Error(vfs::FTruncate(*w.creds, *f, 10)), EPERM);
    EXPECT_EQ(World::PWrite(*f, 1, "xyz"), -EPERM);
    EXPECT_EQ(World::PWrite(*f, 1, "xy"), 2);
    EXPECT_EQ(World::PWrite(*f, 3, "z"), -EPERM);
    mm::MMapOptions options{.shared = true, .access = kReadWrite};
    ASSERT_TRUE(f->ConfigureMMap(options));
    Space space;
    ASSERT_TRUE(options.mappable->AddMapping(space, {0, kPageSize}, 0, true));
    EXPECT_EQ(Error(AddSeals(f->inode(), F_SEAL_WRITE)), EBUSY);
    options.mappable->RemoveMapping(space, {0, kPageSize}, 0, true);
    ASSERT_TRUE(AddSeals(f->inode(), F_SEAL_WRITE | F_SEAL_SEAL));
    EXPECT_EQ(World::PWrite(*f, 0, "n"), -EPERM);
    EXPECT_EQ(Error(f->ConfigureMMap(options)), EPERM);
    EXPECT_EQ(Error(AddSeals(f->inode(), 0)), EPERM);
    EXPECT_EQ(World::PRead(*f, 0, 10), "axy");
    auto plain = *CreateMemfd(*w.memory, "p", Sealing::kForbidden, 0, 0);
    EXPECT_EQ(Error(AddSeals(plain->inode(), F_SEAL_GROW)), EPERM);
    options = {};
    ASSERT_EQ(w.Mknod("/s", S_IFSOCK | 0600), 0);
    EXPECT_EQ(Error(GetSeals(w.Lookup("/s")->inode())), EINVAL);
    // The memory file goes with this test; the internal file system holds none of it.
    plain.reset();
    f.reset();
  });
}

TEST(Tmpfs, MountData) {
  EXPECT_EQ(ParseOptions("size=64m,mode=0755,uid=3", 0)->size_limit, 64u << 20);
  EXPECT_EQ(ParseOptions("size=64m,mode=0755,uid=3", 0)->root_mode, 0755u);
  EXPECT_EQ(ParseOptions("size=50%", 1000 * kPageSize)->size_limit, 500 * kPageSize);
  EXPECT_EQ(ParseOptions("", 1000 * kPageSize)->size_limit, 500 * kPageSize);
  EXPECT_EQ(ParseOptions("nr_inodes=1k,huge=never", 0)->inode_limit, 1024u);
  for (const char* bad :
       {"size=", "size=x", "size=1q", "size=99999999999999999999", "mode=9", "uid=-1", "what", "size=101%"}) {
    EXPECT_EQ(Error(ParseOptions(bad, 1 << 20)), EINVAL) << bad;
  }
}

// One file against a byte string, by random reads, writes, truncations, holes, and bytes seen and written by a mapping.
void ByteStringFuzz(World& w) {
  fuzz::Rounds(40, [&w](uint64_t seed) {
    auto f = *w.Open("/f", O_CREAT | O_RDWR | O_TRUNC);
    std::string model;
    uint32_t x = static_cast<uint32_t>(seed) * 2654435761u;
    auto next = [&x](uint32_t n) {
      x ^= x << 13, x ^= x >> 17, x ^= x << 5;
      return x % n;
    };
    auto overlay = [&](size_t at, const std::string& data) {
      if (model.size() < at + data.size()) model.resize(at + data.size());
      model.replace(at, data.size(), data);
    };
    for (int step = 0; step < 150; step++) {
      const uint32_t at = next(60000), length = next(20000);
      switch (next(7)) {
        case 6: {
          if (at >= model.size()) break;
          mm::MMapOptions options{.shared = true};
          ASSERT_TRUE(f->ConfigureMMap(options));
          const uint64_t start = PageRoundDown(at);
          memmap::FileRange pages = *options.mappable->Translate(start, (1 + next(6)) * kPageSize, kReadWrite);
          std::byte* bytes = w.memory->At(pages.start);
          for (uint64_t i = 0; i < pages.length() && start + i < model.size(); i++) {
            ASSERT_EQ(static_cast<char>(bytes[i]), model[start + i]) << start + i;
          }
          bytes[at - start] = std::byte{'!'};
          model[at] = '!';
          w.memory->DecRef(pages);
          break;
        }
        case 0:
        case 1: {
          std::string data(length, static_cast<char>('a' + next(26)));
          ASSERT_EQ(World::PWrite(*f, at, data), static_cast<int64_t>(length));
          if (length > 0) overlay(at, data);
          break;
        }
        case 2:
          ASSERT_TRUE(vfs::FTruncate(*w.creds, *f, at));
          model.resize(at);
          break;
        case 3:
          if (length == 0) break;
          ASSERT_TRUE(f->Allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length));
          for (size_t i = at; i < std::min<size_t>(at + length, model.size()); i++) model[i] = 0;
          break;
        case 4:
          if (length == 0) break;
          ASSERT_TRUE(f->Allocate(0, at, length));
          if (model.size() < at + length) model.resize(at + length);
          break;
        case 5:
          ASSERT_EQ(World::PRead(*f, at, length), at < model.size() ? model.substr(at, length) : "");
          break;
      }
      ASSERT_EQ(f->GetAttributes()->size, model.size());
    }
    ASSERT_EQ(World::PRead(*f, 0, 100000), model);
  });
  ASSERT_EQ(w.Unlink("/f"), 0);
  EXPECT_EQ(w.memory->usage(), 0u);
}
TEST(TmpfsFuzz, AFileIsAByteString) { InWorld(ByteStringFuzz); }
TEST(TmpfsFuzz, AFileOnADiskIsAByteString) {
  InFiber([] {
    DiskWorld d;
    ByteStringFuzz(*d.world);
    EXPECT_EQ(d.disk->usage(), 0u);
  });
}

// The tree against a map from name to kind, by random operations on a few names.
struct ModelTree {
  // Absolute name to file number; 0 is a directory. "" is the root.
  std::map<std::string, int> nodes{{"", 0}};

  static std::string Parent(const std::string& p) { return p.substr(0, p.rfind('/')); }
  bool IsDir(const std::string& p) const {
    auto it = nodes.find(p);
    return it != nodes.end() && it->second == 0;
  }
  bool Has(const std::string& p) const { return nodes.contains(p); }
  // What a walk to the parent says.
  int Walk(const std::string& p) const {
    for (size_t slash = p.find('/', 1); slash != std::string::npos; slash = p.find('/', slash + 1)) {
      std::string part = p.substr(0, slash);
      if (!Has(part)) return ENOENT;
      if (!IsDir(part)) return ENOTDIR;
    }
    return 0;
  }
  bool IsEmpty(const std::string& p) const {
    auto next = nodes.upper_bound(p + "/");
    return next == nodes.end() || !next->first.starts_with(p + "/");
  }
  int Mkdir(const std::string& p) {
    if (int e = Walk(p)) return e;
    if (Has(p)) return EEXIST;
    nodes[p] = 0;
    return 0;
  }
  int Create(const std::string& p, int number) {
    if (int e = Walk(p)) return e;
    if (Has(p)) return EEXIST;
    nodes[p] = number;
    return 0;
  }
  int Unlink(const std::string& p) {
    if (int e = Walk(p)) return e;
    if (!Has(p)) return ENOENT;
    if (IsDir(p)) return EISDIR;
    nodes.erase(p);
    return 0;
  }
  int Rmdir(const std::string& p) {
    if (int e = Walk(p)) return e;
    if (!Has(p)) return ENOENT;
    if (!IsDir(p)) return ENOTDIR;
    if (!IsEmpty(p)) return ENOTEMPTY;
    nodes.erase(p);
    return 0;
  }
  int Link(const std::string& from, const std::string& to) {
    if (int e = Walk(from)) return e;
    if (!Has(from)) return ENOENT;
    if (int e = Walk(to)) return e;
    if (Has(to)) return EEXIST;
    if (IsDir(from)) return EPERM;
    nodes[to] = nodes[from];
    return 0;
  }
  int Rename(const std::string& from, const std::string& to, uint32_t flags) {
    if (int e = Walk(from)) return e;
    if (int e = Walk(to)) return e;
    if (!Has(from)) return ENOENT;
    const bool exchange = flags & RENAME_EXCHANGE;
    if ((flags & RENAME_NOREPLACE) && Has(to)) return EEXIST;
    if (exchange && !Has(to)) return ENOENT;
    if (IsDir(from) && (to + "/").starts_with(from + "/") && to != from) return EINVAL;
    if (Has(to) && (from + "/").starts_with(to + "/") && to != from) return exchange ? EINVAL : ENOTEMPTY;
    if (Has(to)) {
      if (from == to || (!IsDir(from) && nodes[from] == nodes[to])) return 0;
      if (!exchange) {
        if (IsDir(from) && !IsDir(to)) return ENOTDIR;
        if (!IsDir(from) && IsDir(to)) return EISDIR;
        if (IsDir(to) && !IsEmpty(to)) return ENOTEMPTY;
      }
    }
    auto take = [this](const std::string& p) {
      std::map<std::string, int> taken;
      for (auto it = nodes.begin(); it != nodes.end();) {
        if (it->first == p || it->first.starts_with(p + "/")) {
          taken[it->first.substr(p.size())] = it->second;
          it = nodes.erase(it);
        } else {
          ++it;
        }
      }
      return taken;
    };
    auto a = take(from), b = take(to);
    for (auto& [rest, n] : a) nodes[to + rest] = n;
    if (exchange) {
      for (auto& [rest, n] : b) nodes[from + rest] = n;
    }
    return 0;
  }
};

TEST(TmpfsFuzz, TheTreeIsAMap) {
  fuzz::Rounds(60, [](uint64_t seed) {
    InWorld([seed](World& w) {
      ModelTree model;
      uint32_t x = static_cast<uint32_t>(seed) * 2654435761u;
      auto next = [&x](uint32_t n) {
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        return x % n;
      };
      auto name = [&] {
        std::string p;
        for (uint32_t depth = 1 + next(3); depth > 0; depth--) p += std::string("/") + "abc"[next(3)];
        return p;
      };
      for (int step = 1; step <= 400; step++) {
        const std::string a = name(), b = name();
        int got = -1, want = -1;
        const uint32_t op = next(8);
        switch (op) {
          case 0:
          case 1:
            got = w.Mkdir(a), want = model.Mkdir(a);
            break;
          case 2:
            got = Error(w.Open(a, O_CREAT | O_EXCL | O_RDWR)), want = model.Create(a, step);
            if (got == 0) {
              EXPECT_EQ(w.WriteFile(a, std::to_string(step)), 0);
            }
            break;
          case 3:
            got = w.Unlink(a), want = model.Unlink(a);
            break;
          case 4:
            got = w.Rmdir(a), want = model.Rmdir(a);
            break;
          case 5:
            got = w.Link(a, b), want = model.Link(a, b);
            break;
          case 6:
          case 7: {
            const uint32_t kFlags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
            const uint32_t flags = kFlags[next(4)];
            got = w.Rename(a, b, flags), want = model.Rename(a, b, flags);
            break;
          }
        }
        ASSERT_EQ(got, want) << "seed " << seed << " step " << step << " op " << op << " " << a << " " << b;
        if (step % 20 != 0) continue;
        std::map<int, uint32_t> names_of;
        for (auto& [p, number] : model.nodes) names_of[number]++;
        for (auto& [p, number] : model.nodes) {
          auto attrs = w.Stat(p.empty() ? "/" : p);
          ASSERT_TRUE(attrs) << p;
          ASSERT_EQ(S_ISDIR(attrs->mode), number == 0) << p;
          if (number != 0) {
            ASSERT_EQ(w.ReadFile(p), std::to_string(number));
            ASSERT_EQ(attrs->nlink, names_of[number]);
            continue;
          }
          std::set<std::string> want_names{".", ".."};
          uint32_t links = 2;
          for (auto& [q, n] : model.nodes) {
            if (q.empty() || ModelTree::Parent(q) != p) continue;
            want_names.insert(q.substr(p.size() + 1));
            links += n == 0;
          }
          std::vector<std::string> listed = w.List(p.empty() ? "/" : p);
          ASSERT_EQ(std::set<std::string>(listed.begin(), listed.end()), want_names) << p;
          ASSERT_EQ(attrs->nlink, links) << p;
        }
      }
    });
  });
}

// One worker's random operations on a few names.
void Work(World& w, uint32_t x, int operations) {
  auto next = [&x](uint32_t n) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    return x % n;
  };
  const char* kNames[] = {"/a/x", "/a/b/x", "/c/x", "/a/b", "/c/b", "/a/y", "/c/b/x"};
  for (int i = 0; i < operations; i++) {
    const char* p = kNames[next(7)];
    const char* q = kNames[next(7)];
    switch (next(7)) {
      case 0:
        w.WriteFile(p, "1");
        break;
      case 1:
        w.Unlink(p);
        break;
      case 2:
        w.Rename(p, q, next(3) == 0 ? RENAME_EXCHANGE : 0);
        break;
      case 3:
        w.Link(p, q);
        break;
      case 4:
        w.List("/a");
        w.Mkdir(p);
        break;
      case 5:
        w.Rmdir(p);
        break;
      case 6:
        if (auto found = w.Lookup(p)) vfs::PathName(w.root_path, *found);
        break;
    }
    fiber::Yield();
  }
}

// Every name that is listed is there.
void CheckTree(World& w, uint64_t seed) {
  for (const char* d : {"/", "/a", "/c", "/a/b", "/c/b"}) {
    for (const std::string& name : w.List(d)) {
      if (name.starts_with("error")) continue;
      EXPECT_EQ(Error(w.Lstat(std::string(d) + "/" + name)), 0) << seed << " " << d << " " << name;
    }
  }
}

void MakeStart(World& w) {
  for (const char* d : {"/a", "/a/b", "/c"}) ASSERT_EQ(w.Mkdir(d), 0);
}

// Many fibers at work on the same names: nothing is lost, nothing hangs, and the tree is sound afterwards.
TEST(TmpfsFuzz, ConcurrentOperations) {
  fuzz::Rounds(60, [](uint64_t seed) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    std::unique_ptr<World> w;
    executor->Spawn([&] {
      w = std::make_unique<World>();
      MakeStart(*w);
      for (uint32_t worker = 1; worker <= 4; worker++) {
        fiber::CurrentExecutor()->Spawn(
            [&, worker] { Work(*w, static_cast<uint32_t>(seed + 1) * 747796405u + worker, 40); });
      }
    });
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << "seed " << seed;
    InFiber([&] {
      CheckTree(*w, seed);
      w.reset();
    });
  });
}

// The same on several threads at once.
TEST(TmpfsFuzz, ParallelOperations) {
  std::unique_ptr<World> w;
  auto executor = fiber::ThreadedExecutor::Create({.slots = 4});
  executor->Spawn([&] {
    w = std::make_unique<World>();
    MakeStart(*w);
    for (uint32_t worker = 1; worker <= 6; worker++) {
      fiber::CurrentExecutor()->Spawn([&, worker] { Work(*w, worker * 747796405u, 3000); });
    }
  });
  fiber::Join(*executor);
  InFiber([&] {
    CheckTree(*w, 0);
    w.reset();
  });
}

}  // namespace
}  // namespace redoubt::tmpfs
