// The overlay against what a plain tmpfs does with the same operations, and what is particular to it.
#include "pkg/sentry/fsimpl/overlay/overlay.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/vfs/dentry.h"
#include "test/fuzz/rounds.h"

namespace redoubt::overlay {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;

// The same contents, made in any world.
void Populate(World& w) {
  w.umask = 0;
  ASSERT_EQ(w.Mkdir("/a", 0755), 0);
  ASSERT_EQ(w.Mkdir("/a/b", 0750), 0);
  ASSERT_EQ(w.Mkdir("/a/b/c", 0700), 0);
  ASSERT_EQ(w.Mkdir("/b", 0777), 0);
  ASSERT_EQ(w.WriteFile("/f", "file"), 0);
  ASSERT_EQ(w.WriteFile("/a/f", std::string(5000, 'x')), 0);
  ASSERT_EQ(w.WriteFile("/a/b/f", "deep"), 0);
  ASSERT_EQ(w.WriteFile("/a/b/c/f", "deeper"), 0);
  ASSERT_EQ(w.Link("/a/f", "/b/g"), 0);
  ASSERT_EQ(w.Link("/a/f", "/b/c"), 0);
  ASSERT_EQ(w.Symlink("a/f", "/l"), 0);
  ASSERT_EQ(w.Symlink("f", "/a/l"), 0);
  ASSERT_EQ(w.Mknod("/b/p", S_IFIFO | 0644), 0);
}

struct Layers {
  Layers() {
    Populate(lower);
    upper = tmpfs::Create(*lower.memory, {});
    Result<RefPtr<vfs::Filesystem>> fs = Create(upper, lower.fs);
    EXPECT_TRUE(fs);
    w = std::make_unique<World>(*fs);
    w->umask = 0;
  }
  World lower;
  RefPtr<vfs::Filesystem> upper;
  std::unique_ptr<World> w;
};

enum class Detail { kNames, kInodes };

// Everything there is, a line per name.
void Describe(World& w, const std::string& dir, std::map<std::string, std::string>& out, Detail detail) {
  fstest::Names names;
  auto d = w.Open(dir.empty() ? "/" : dir, O_RDONLY | O_DIRECTORY);
  ASSERT_TRUE(d) << dir << " " << Error(d);
  ASSERT_TRUE((*d)->Getdents(names));
  for (const auto& e : names.entries) {
    if (e.name == "." || e.name == "..") continue;
    const std::string name = dir + "/" + e.name;
    auto attrs = w.Lstat(name);
    ASSERT_TRUE(attrs) << name << " " << Error(attrs);
    EXPECT_EQ(attrs->ino, e.ino) << name;
    EXPECT_EQ(attrs->mode & S_IFMT, static_cast<uint32_t>(DTTOIF(e.type))) << name;
    EXPECT_FALSE(out.contains(name)) << name << " is listed twice";
    std::string line =
        std::to_string(attrs->mode) + " " + std::to_string(attrs->uid) + ":" + std::to_string(attrs->gid);
    if (detail == Detail::kInodes) line += " i" + std::to_string(attrs->ino) + " m" + std::to_string(attrs->mtime);
    if (!S_ISDIR(attrs->mode)) line += " n" + std::to_string(attrs->nlink) + " s" + std::to_string(attrs->size);
    if (S_ISREG(attrs->mode)) line += " " + w.ReadFile(name);
    if (S_ISLNK(attrs->mode)) line += " " + *vfs::Readlink(w.walker(), w.at(name));
    if (auto x = (*w.Open(name, O_PATH | O_NOFOLLOW))->inode().GetXattr("user.x")) line += " x=" + *x;
    out[name] = line;
    if (S_ISDIR(attrs->mode)) Describe(w, name, out, detail);
  }
}

std::map<std::string, std::string> Tree(World& w, Detail detail = Detail::kNames) {
  std::map<std::string, std::string> out;
  Describe(w, "", out, detail);
  return out;
}

TEST(Overlay, ShowsTheLowerLayer) {
  InFiber([] {
    Layers l;
    EXPECT_EQ(Tree(*l.w), Tree(l.lower));
    EXPECT_EQ(l.w->Stat("/")->mode, l.lower.Stat("/")->mode);
    EXPECT_EQ(static_cast<uint64_t>(vfs::Statfs(l.w->root_path)->f_type), uint64_t{OVERLAYFS_SUPER_MAGIC});
    EXPECT_EQ(Tree(*l.w).size(), 13u);
  });
}

TEST(Overlay, WritingCopiesUpAndLeavesTheLowerFileAlone) {
  InFiber([] {
    Layers l;
    auto before = Tree(l.lower, Detail::kInodes);
    auto attrs = *l.w->Stat("/a/f");
    auto dir = *l.w->Stat("/a");
    auto reader = *l.w->Open("/a/f", O_RDONLY);
    auto f = *l.w->Open("/a/f", O_RDWR);
    auto copied = *l.w->Stat("/a/f");
    EXPECT_EQ(copied.ino, attrs.ino);
    EXPECT_EQ(copied.dev, attrs.dev);
    EXPECT_EQ(copied.mtime, attrs.mtime);
    EXPECT_EQ(copied.atime, attrs.atime);
    EXPECT_EQ(copied.mode, attrs.mode);
    EXPECT_EQ(copied.nlink, 3u);
    EXPECT_EQ(copied.size, 5000u);
    EXPECT_EQ(World::PWrite(*f, 1, "AB"), 2);
    EXPECT_EQ(World::PRead(*f, 0, 4), "xABx");
    // A description from before sees the change; so do the file's other names.
    EXPECT_EQ(World::PRead(*reader, 0, 4), "xABx");
    EXPECT_EQ(l.w->ReadFile("/b/g").substr(0, 4), "xABx");
    EXPECT_EQ(l.w->Stat("/a")->mtime, dir.mtime) << "copying up must not touch the directory";
    EXPECT_EQ(Tree(l.lower, Detail::kInodes), before);
  });
}

TEST(Overlay, AMappingFromBeforeKeepsTheLowerFile) {
  InFiber([] {
    Layers l;
    auto reader = *l.w->Open("/f", O_RDONLY);
    mm::MMapOptions before, after;
    ASSERT_TRUE(reader->ConfigureMMap(before));
    ASSERT_EQ(l.w->WriteFile("/f", "new"), 0);
    ASSERT_TRUE(reader->ConfigureMMap(after));
    EXPECT_NE(before.mappable, after.mappable);
    EXPECT_EQ(before.identity->MappedInode(), l.w->Stat("/f")->ino);
    EXPECT_EQ(after.identity->MappedInode(), l.w->Stat("/f")->ino);
  });
}

TEST(Overlay, TruncatingCopiesOnlyWhatIsKept) {
  InFiber([] {
    Layers l;
    auto f = l.w->Open("/a/f", O_WRONLY | O_TRUNC);
    ASSERT_TRUE(f);
    EXPECT_EQ(l.w->Stat("/a/f")->size, 0u);
    EXPECT_EQ(l.w->Stat("/a/f")->blocks, 0u);
    ASSERT_TRUE(vfs::Truncate(l.w->walker(), *l.w->Lookup("/a/b/f"), 2));
    EXPECT_EQ(l.w->ReadFile("/a/b/f"), "de");
    ASSERT_TRUE(vfs::Truncate(l.w->walker(), *l.w->Lookup("/f"), 6));
    EXPECT_EQ(l.w->ReadFile("/f"), std::string("file\0\0", 6));
  });
}

TEST(Overlay, HolesStayHoles) {
  InFiber([] {
    Layers l;
    auto f = *l.lower.Open("/sparse", O_CREAT | O_RDWR);
    ASSERT_EQ(World::PWrite(*f, 1 << 20, "end"), 3);
    ASSERT_TRUE(vfs::Truncate(l.lower.walker(), *l.lower.Lookup("/sparse"), 3 << 20));
    ASSERT_TRUE(vfs::Chmod(l.w->walker(), *l.w->Lookup("/sparse"), 0600));
    EXPECT_EQ(l.w->Stat("/sparse")->size, 3u << 20);
    EXPECT_LE(l.w->Stat("/sparse")->blocks, 64u);
    EXPECT_EQ(World::PRead(**l.w->Open("/sparse", O_RDONLY), (1 << 20) - 1, 5), std::string("\0end\0", 5));
  });
}

TEST(Overlay, RemovedNamesStayHidden) {
  InFiber([] {
    Layers l;
    EXPECT_EQ(l.w->Rmdir("/a"), ENOTEMPTY);
    EXPECT_EQ(l.w->Unlink("/a/b/c/f"), 0);
    EXPECT_EQ(Error(l.w->Stat("/a/b/c/f")), ENOENT);
    EXPECT_EQ(l.w->List("/a/b/c"), (std::vector<std::string>{".", ".."}));
    EXPECT_EQ(l.w->Rmdir("/a/b/c"), 0);
    EXPECT_EQ(l.w->Mkdir("/a/b/c"), 0);
    vfs::DentryCache::Get().Clear();
    // Opaque: what the old directory had below does not come back.
    EXPECT_EQ(l.w->List("/a/b/c"), (std::vector<std::string>{".", ".."}));
    EXPECT_EQ(Error(l.w->Stat("/a/b/c/f")), ENOENT);
    EXPECT_EQ(l.w->Rmdir("/a/b/c"), 0);
    vfs::DentryCache::Get().Clear();
    EXPECT_EQ(Error(l.w->Stat("/a/b/c")), ENOENT);
    EXPECT_EQ(l.w->Touch("/a/b/c"), 0);
    EXPECT_TRUE(S_ISREG(l.w->Stat("/a/b/c")->mode));
  });
}

TEST(Overlay, ADirectoryOfBothLayersMoves) {
  InFiber([] {
    Layers l;
    ASSERT_EQ(l.w->WriteFile("/a/b/new", "n"), 0);
    ASSERT_EQ(l.w->Unlink("/a/b/f"), 0);
    const uint64_t ino = l.w->Stat("/a/b")->ino;
    ASSERT_EQ(l.w->Rename("/a/b", "/moved"), 0);
    vfs::DentryCache::Get().Clear();
    EXPECT_EQ(l.w->Stat("/moved")->ino, ino);
    EXPECT_EQ(l.w->ReadFile("/moved/new"), "n");
    EXPECT_EQ(l.w->ReadFile("/moved/c/f"), "deeper");
    EXPECT_EQ(Error(l.w->Stat("/moved/f")), ENOENT);
    EXPECT_EQ(Error(l.w->Stat("/a/b")), ENOENT);
    EXPECT_EQ(l.w->Mkdir("/a/b"), 0);
    EXPECT_EQ(l.w->List("/a/b").size(), 2u);
  });
}

TEST(Overlay, RemovedFilesLiveWhileOpen) {
  InFiber([] {
    Layers l;
    auto f = *l.w->Open("/f", O_RDONLY);
    ASSERT_EQ(l.w->Unlink("/f"), 0);
    EXPECT_EQ(f->GetAttributes()->nlink, 0u);
    EXPECT_EQ(World::Read(*f), "file");
    EXPECT_TRUE(f->SetAttributes({.mode = 0600}));
    EXPECT_EQ(f->GetAttributes()->mode, S_IFREG | 0600u);
    EXPECT_EQ(f->GetAttributes()->nlink, 0u);
    EXPECT_EQ(World::PRead(*f, 0, 10), "file");
    auto d = *l.w->Open("/a/b/c", O_RDONLY);
    ASSERT_EQ(l.w->Unlink("/a/b/c/f"), 0);
    ASSERT_EQ(l.w->Rmdir("/a/b/c"), 0);
    EXPECT_TRUE(d->SetAttributes({.mode = 0700}));
    fstest::Names names;
    EXPECT_EQ(Error(d->Getdents(names)), ENOENT);
  });
}

TEST(Overlay, CopiesOfFilesWithoutNamesAreFreed) {
  InFiber([] {
    Layers l;
    const uint64_t free_before = l.lower.memory->usage();
    for (const char* name : {"/a/f", "/b/g", "/b/c"}) {
      ASSERT_TRUE(vfs::Chmod(l.w->walker(), *l.w->Lookup(name), 0600));
      ASSERT_EQ(l.w->Unlink(name), 0);
    }
    vfs::DentryCache::Get().Clear();
    EXPECT_EQ(l.lower.memory->usage(), free_before);
  });
}

TEST(Overlay, SocketsAndXattrsAreCopiedUp) {
  InFiber([] {
    Layers l;
    class Bound final : public RefCounted {};
    RefPtr<RefCounted> socket = MakeRef<Bound>();
    ASSERT_EQ(l.lower.Mknod("/s", S_IFSOCK | 0600), 0);
    ASSERT_TRUE(l.lower.Lookup("/s")->inode().set_bound_socket(socket));
    ASSERT_TRUE(vfs::SetXattr(l.lower.walker(), *l.lower.Lookup("/f"), "user.k", "v", 0));
    ASSERT_TRUE(vfs::Chmod(l.w->walker(), *l.w->Lookup("/s"), 0666));
    EXPECT_TRUE(*l.w->Lookup("/s")->inode().bound_socket() == socket);
    ASSERT_TRUE(vfs::SetXattr(l.w->walker(), *l.w->Lookup("/f"), "user.k2", "v2", 0));
    EXPECT_EQ(*vfs::GetXattr(l.w->walker(), *l.w->Lookup("/f"), "user.k"), "v");
    EXPECT_EQ(Error(vfs::GetXattr(l.lower.walker(), *l.lower.Lookup("/f"), "user.k2")), ENODATA);
    EXPECT_EQ(Error(vfs::RemoveXattr(l.w->walker(), *l.w->Lookup("/a/f"), "user.none")), ENODATA);
  });
}

TEST(Overlay, UnnamedFilesCanBeLinked) {
  InFiber([] {
    Layers l;
    auto f = *l.w->Open("/a", O_TMPFILE | O_RDWR);
    ASSERT_EQ(World::Write(*f, "t"), 1);
    EXPECT_TRUE(vfs::Link(l.w->walker(), {.start = f->path(), .name = "", .empty_ok = true}, l.w->at("/b/t")));
    EXPECT_EQ(l.w->ReadFile("/b/t"), "t");
  });
}

TEST(Overlay, WithoutRoomNothingChanges) {
  InFiber([] {
    World lower;
    Populate(lower);
    Result<RefPtr<vfs::Filesystem>> fs = Create(tmpfs::Create(*lower.memory, {.size_limit = 4096}), lower.fs);
    World w(*fs);
    EXPECT_EQ(Error(w.Open("/a/f", O_RDWR)), ENOSPC);
    EXPECT_EQ(w.ReadFile("/a/f"), std::string(5000, 'x'));
    EXPECT_EQ(Error(w.Open("/a/f", O_RDWR | O_TRUNC)), 0);
  });
}

// One random operation, by the same numbers on both worlds; its errno or, for reads, what was read.
class Operation {
 public:
  explicit Operation(std::mt19937_64& random) : kind_(random() % 18), argument_(random()) {
    for (std::string* path : {&from_, &to_}) {
      const int depth = 1 + static_cast<int>(random() % 3);
      for (int i = 0; i < depth; ++i) *path += std::string("/") + "abcfgl"[random() % 6];
    }
  }
  std::string Describe() const {
    return std::to_string(kind_) + " " + from_ + " " + to_ + " " + std::to_string(argument_ % 16);
  }
  std::string Run(World& w) const {
    auto e = [](int error) { return std::to_string(error); };
    switch (kind_) {
      case 0: {
        auto f = w.Open(from_, O_CREAT | O_RDWR | (argument_ % 2 ? O_EXCL : 0), 0644);
        return f ? std::to_string(World::Write(**f, "new")) : e(Error(f));
      }
      case 1:
        return e(w.WriteFile(from_, std::string(argument_ % 20, 'w')));
      case 2: {
        auto f = w.Open(from_, O_WRONLY | O_APPEND);
        return f ? std::to_string(World::Write(**f, "app")) : e(Error(f));
      }
      case 3:
      case 4:
        return e(w.Unlink(from_));
      case 5:
        return e(w.Mkdir(from_, 0700 + argument_ % 8));
      case 6:
      case 7:
        return e(w.Rmdir(from_));
      case 8:
      case 9:
        return e(w.Rename(from_, to_));
      case 10:
        return e(w.Rename(from_, to_, RENAME_EXCHANGE));
      case 11:
        return e(w.Rename(from_, to_, RENAME_NOREPLACE));
      case 12:
        return e(w.Link(from_, to_));
      case 13:
        return e(w.Symlink("/" + to_.substr(1, 1), from_));
      case 14: {
        auto p = w.Lookup(from_);
        if (!p) return e(Error(p));
        return e(Error(argument_ % 2 ? vfs::Chmod(w.walker(), *p, 0600 + argument_ % 64)
                                     : vfs::Chown(w.walker(), *p, static_cast<int64_t>(argument_ % 5), -1)));
      }
      case 15: {
        auto p = w.Lookup(from_);
        return e(p ? Error(vfs::Truncate(w.walker(), *p, argument_ % 30)) : Error(p));
      }
      case 16: {
        auto p = w.Lookup(from_);
        return e(p ? Error(vfs::SetXattr(w.walker(), *p, "user.x", to_, 0)) : Error(p));
      }
      default: {
        std::vector<std::string> names = w.List(from_);
        std::sort(names.begin(), names.end());
        std::string all;
        for (const std::string& n : names) all += n + " ";
        return all;
      }
    }
  }

 private:
  uint64_t kind_, argument_;
  std::string from_, to_;
};

TEST(Overlay, DoesWhatATmpfsDoes) {
  fuzz::Rounds(400, [](uint64_t seed) {
    InFiber([seed] {
      std::mt19937_64 random(seed);
      Layers l;
      World model;
      Populate(model);
      auto before = Tree(l.lower, Detail::kInodes);
      for (int i = 0; i < 60; ++i) {
        Operation op(random);
        ASSERT_EQ(op.Run(*l.w), op.Run(model)) << "seed " << seed << " step " << i << ": " << op.Describe();
        if (random() % 4 == 0) vfs::DentryCache::Get().Clear();
        if (random() % 8 == 0) {
          ASSERT_EQ(Tree(*l.w), Tree(model)) << "seed " << seed << " step " << i << ": " << op.Describe();
        }
      }
      ASSERT_EQ(Tree(*l.w), Tree(model)) << "seed " << seed;
      ASSERT_EQ(Tree(l.lower, Detail::kInodes), before) << "seed " << seed;
    });
  });
}

}  // namespace
}  // namespace redoubt::overlay
