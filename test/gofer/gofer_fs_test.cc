// The gofer file system against a real server, with the messages counted: what is cached costs none, and what the host
// changes is seen when the cache's time is over.

#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "pkg/gofer/server.h"
#include "pkg/p9/client.h"
#include "pkg/sentry/fsimpl/gofer/gofer.h"
#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/inotify/inotify.h"
#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::goferfs {
namespace {

namespace fs = std::filesystem;
using Dialect = p9::Client::Dialect;

// The time for which names and attributes are believed, and more.
constexpr fiber::Time kLater = 1'100'000'000;

void Sleep(fiber::Time duration) {
  for (fiber::Time until = fiber::Now() + duration; fiber::Now() < until;) fiber::Park(until);
}

class GoferTest : public ::testing::TestWithParam<Dialect> {
 protected:
  void SetUp() override {
    char dir[] = "/tmp/goferfs_test_XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    root_ = dir;
    fs::permissions(root_, fs::perms(0755));
    fs::create_directories(root_ / "dir/sub");
    Put("dir/sub/file", "contents");
  }
  void TearDown() override { fs::remove_all(root_); }

  void Put(const char* name, const std::string& text) { std::ofstream(root_ / name) << text; }
  std::string Slurp(const char* name) {
    std::ifstream in(root_ / name);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }

  // Runs `body` in a fiber with the tree as the root.
  void Run(const std::function<void(fstest::World&)>& body, Access access = Access::kShared) {
    int sockets[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    std::thread server([&, fd = UniqueFd(sockets[1])] {
      gofer::Server s(UniqueFd(open(root_.c_str(), O_PATH | O_DIRECTORY)),
                      UniqueFd(open("/proc/self/fd", O_RDONLY | O_DIRECTORY)), {});
      EXPECT_TRUE(s.Serve(fd.get()));
    });
    fstest::InFiber([&] {
      auto memory = *pgalloc::MemoryFile::Create({});
      constexpr uint32_t kMessage = 64 << 10;
      client_ = *p9::Client::Connect(sockets[0], kMessage, GetParam());
      {
        fstest::World world(*Create(client_, *memory, access));
        body(world);
      }
      client_.reset();
    });
    server.join();
  }
  // How many messages `f` sends.
  template <typename F>
  uint64_t Messages(F&& f) {
    uint64_t before = client_->messages();
    f();
    return client_->messages() - before;
  }
  bool extended() const { return GetParam() == Dialect::kExtended; }

  fs::path root_;
  RefPtr<p9::Client> client_;
};

TEST_P(GoferTest, ColdOpenAsksOncePerNameAndOnceToOpen) {
  Run([&](fstest::World& w) {
    EXPECT_EQ(client_->extended(), extended());
    EXPECT_EQ(Messages([&] { EXPECT_TRUE(w.Open("/dir/sub/file", O_RDONLY)); }), extended() ? 4u : 9u);
  });
}

TEST_P(GoferTest, WarmOpenReadAndCloseSendNothing) {
  Run([&](fstest::World& w) {
    EXPECT_EQ(w.ReadFile("/dir/sub/file"), "contents");
    EXPECT_EQ(Messages([&] {
                for (int i = 0; i < 10; i++) EXPECT_EQ(w.ReadFile("/dir/sub/file"), "contents");
                EXPECT_EQ(w.Stat("/dir/sub/file")->size, 8u);
                EXPECT_EQ(w.Open("/dir/sub/file/x", O_RDONLY).error(), Errno(ENOTDIR));
              }),
              0u);
    // A name that is not there is remembered as well.
    EXPECT_EQ(w.Open("/dir/none", O_RDONLY).error(), Errno(ENOENT));
    EXPECT_EQ(Messages([&] { EXPECT_EQ(w.Open("/dir/none", O_RDONLY).error(), Errno(ENOENT)); }), 0u);
  });
}

TEST_P(GoferTest, OldNamesAndAttributesAreAskedForAgain) {
  Run([&](fstest::World& w) {
    EXPECT_EQ(w.ReadFile("/dir/sub/file"), "contents");
    Sleep(kLater);
    // Three names, which bring their attributes along. (The plain protocol walks, asks and clunks; the last clunk
    // waits.)
    EXPECT_EQ(Messages([&] { EXPECT_EQ(w.ReadFile("/dir/sub/file"), "contents"); }), extended() ? 3u : 8u);
    EXPECT_EQ(Messages([&] { EXPECT_EQ(w.ReadFile("/dir/sub/file"), "contents"); }), 0u);
  });
}

TEST_P(GoferTest, WhatIsExclusiveIsNotAskedForAgain) {
  Run(
      [&](fstest::World& w) {
        EXPECT_EQ(w.ReadFile("/dir/sub/file"), "contents");
        EXPECT_EQ(w.Open("/dir/none", O_RDONLY).error(), Errno(ENOENT));
        Sleep(kLater);
        EXPECT_EQ(Messages([&] {
                    EXPECT_EQ(w.ReadFile("/dir/sub/file"), "contents");
                    EXPECT_EQ(w.Open("/dir/none", O_RDONLY).error(), Errno(ENOENT));
                  }),
                  0u);
        // What the Sentry changes itself it knows of.
        EXPECT_EQ(w.WriteFile("/dir/sub/file", "changed!"), 0);
        EXPECT_EQ(w.WriteFile("/dir/none", "made"), 0);
        EXPECT_EQ(w.ReadFile("/dir/sub/file"), "changed!");
        EXPECT_EQ(w.ReadFile("/dir/none"), "made");
        EXPECT_EQ(w.Unlink("/dir/none"), 0);
        EXPECT_EQ(w.Open("/dir/none", O_RDONLY).error(), Errno(ENOENT));
      },
      Access::kExclusive);
  EXPECT_EQ(Slurp("dir/sub/file"), "changed!");
}

TEST_P(GoferTest, ContentsChangedOnTheHostAreSeen) {
  Run([&](fstest::World& w) {
    auto file = *w.Open("/dir/sub/file", O_RDONLY);
    EXPECT_EQ(w.PRead(*file, 0, 100), "contents");
    Put("dir/sub/file", "something else");
    Sleep(kLater);
    EXPECT_EQ(w.ReadFile("/dir/sub/file"), "something else");
    EXPECT_EQ(w.PRead(*file, 0, 100), "something else");
  });
}

TEST_P(GoferTest, FileReplacedOnTheHostIsSeen) {
  Run([&](fstest::World& w) {
    auto old = *w.Open("/dir/sub/file", O_RDONLY);
    EXPECT_EQ(w.PRead(*old, 0, 100), "contents");
    Put("dir/sub/new", "replaced");
    fs::rename(root_ / "dir/sub/new", root_ / "dir/sub/file");
    Sleep(kLater);
    EXPECT_EQ(w.ReadFile("/dir/sub/file"), "replaced");
    EXPECT_EQ(w.PRead(*old, 0, 100), "contents") << "what is open stays what it was";
  });
}

TEST_P(GoferTest, NamesMadeAndRemovedOnTheHostAreSeen) {
  Run([&](fstest::World& w) {
    EXPECT_EQ(w.Open("/dir/late", O_RDONLY).error(), Errno(ENOENT));
    EXPECT_EQ(w.ReadFile("/dir/sub/file"), "contents");
    Put("dir/late", "here");
    fs::remove(root_ / "dir/sub/file");
    Sleep(kLater);
    EXPECT_EQ(w.ReadFile("/dir/late"), "here");
    EXPECT_EQ(w.Open("/dir/sub/file", O_RDONLY).error(), Errno(ENOENT));
    // A directory that has become a file.
    EXPECT_EQ(w.Lookup("/dir/sub")->inode().type(), static_cast<uint32_t>(S_IFDIR));
    fs::remove_all(root_ / "dir/sub");
    Put("dir/sub", "a file");
    Sleep(kLater);
    EXPECT_EQ(w.ReadFile("/dir/sub"), "a file");
  });
}

TEST_P(GoferTest, WatchesOutliveTheCacheAndEndWithTheFile) {
  Run([&](fstest::World& w) {
    RefPtr<inotify::Inotify> inotify = *inotify::Inotify::Create(0, O_NONBLOCK);
    ASSERT_TRUE(inotify->AddWatch(*w.Lookup("/dir/sub/file"), IN_OPEN | IN_DELETE_SELF));
    vfs::DentryCache::Get().Clear();
    Sleep(kLater);
    EXPECT_TRUE(w.Open("/dir/sub/file", O_RDONLY));
    EXPECT_EQ(w.Read(*inotify).size(), sizeof(inotify_event));
    fs::remove(root_ / "dir/sub/file");
    Sleep(kLater);
    EXPECT_EQ(w.Open("/dir/sub/file", O_RDONLY).error(), Errno(ENOENT));
    // IN_DELETE_SELF and IN_IGNORED.
    EXPECT_EQ(w.Read(*inotify).size(), 2 * sizeof(inotify_event));
    EXPECT_FALSE(vfs::AnyWatches());
  });
}

TEST_P(GoferTest, PlaceWithAMountStaysWhatItIs) {
  Run([&](fstest::World& w) {
    ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/dir/sub"), tmpfs::Create(*w.memory, {}), 0, "tmp"));
    EXPECT_EQ(w.WriteFile("/dir/sub/inside", "tmpfs"), 0);
    fs::remove_all(root_ / "dir/sub");
    Sleep(kLater);
    EXPECT_EQ(w.ReadFile("/dir/sub/inside"), "tmpfs");
  });
}

TEST_P(GoferTest, PermissionsAreChecked) {
  Run([&](fstest::World& w) {
    fs::permissions(root_ / "dir/sub/file", fs::perms::owner_all);
    w.BecomeUser(1000, 1000);
    EXPECT_EQ(w.Open("/dir/sub/file", O_RDONLY).error(), Errno(EACCES));
    // What the host grants is seen when the attributes are asked for again.
    fs::permissions(root_ / "dir/sub/file", fs::perms::others_read);
    Sleep(kLater);
    EXPECT_EQ(w.ReadFile("/dir/sub/file"), "contents");
    fs::permissions(root_ / "dir/sub/file", fs::perms::owner_all);
    Sleep(kLater);
    EXPECT_EQ(w.Open("/dir/sub/file", O_RDONLY).error(), Errno(EACCES));
  });
}

TEST_P(GoferTest, WritesAndTruncationGoToTheServerAtOnce) {
  Run([&](fstest::World& w) {
    auto file = *w.Open("/dir/sub/file", O_RDWR);
    EXPECT_EQ(w.PWrite(*file, 0, "CON"), 3);
    EXPECT_EQ(Slurp("dir/sub/file"), "CONtents");
    EXPECT_TRUE(w.Open("/dir/sub/file", O_WRONLY | O_TRUNC));
    EXPECT_EQ(Slurp("dir/sub/file"), "");
    EXPECT_EQ(w.PRead(*file, 0, 100), "");
    EXPECT_EQ(w.WriteFile("/dir/sub/file", "again"), 0);
    EXPECT_EQ(Slurp("dir/sub/file"), "again");
    EXPECT_EQ(w.ReadFile("/dir/sub/file"), "again");
  });
}

TEST_P(GoferTest, CreatedFileIsOpenAtOnce) {
  Run([&](fstest::World& w) {
    EXPECT_EQ(w.Open("/dir/new", O_RDONLY).error(), Errno(ENOENT));
    RefPtr<vfs::FileDescription> file;
    // A copy of the directory's fid, the creation, a walk to the new file (with its attributes).
    EXPECT_EQ(Messages([&] { file = *w.Open("/dir/new", O_CREAT | O_RDWR, 0640); }), extended() ? 3u : 4u);
    EXPECT_EQ(w.PWrite(*file, 0, "data"), 4);
    EXPECT_EQ(w.PRead(*file, 0, 10), "data");
    struct stat st;
    ASSERT_EQ(stat((root_ / "dir/new").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 07777, 0640u);
    file.reset();
    EXPECT_EQ(w.ReadFile("/dir/new"), "data");
    EXPECT_EQ(fstest::Error(w.Open("/dir/new", O_CREAT | O_EXCL | O_RDWR)), EEXIST);
    // Not opened: nothing is left open at the server, or nobody could execute it.
    EXPECT_EQ(w.Mknod("/dir/node", S_IFREG | 0755), 0);
    fs::copy_file("/bin/true", root_ / "dir/node", fs::copy_options::overwrite_existing);
    EXPECT_EQ(system((root_ / "dir/node").c_str()), 0);
  });
}

TEST_P(GoferTest, FileCreatedByTheHostMeanwhileIsOpened) {
  Run([&](fstest::World& w) {
    EXPECT_EQ(w.Open("/dir/race", O_RDONLY).error(), Errno(ENOENT));
    Put("dir/race", "the host's");
    EXPECT_EQ(fstest::Error(w.Open("/dir/race", O_CREAT | O_EXCL | O_RDWR)), EEXIST);
    auto file = w.Open("/dir/race", O_CREAT | O_RDWR);
    ASSERT_TRUE(file);
    EXPECT_EQ(w.PRead(**file, 0, 100), "the host's");
  });
}

TEST_P(GoferTest, SymbolicLinksAreReadOnce) {
  fs::create_symlink("dir/sub", root_ / "link");
  Run([&](fstest::World& w) {
    EXPECT_EQ(w.ReadFile("/link/file"), "contents");
    EXPECT_EQ(Messages([&] { EXPECT_EQ(w.ReadFile("/link/file"), "contents"); }), 0u);
    // Another link of the same name is another inode.
    fs::remove(root_ / "link");
    fs::create_symlink("dir", root_ / "link");
    Sleep(kLater);
    EXPECT_EQ(w.ReadFile("/link/sub/file"), "contents");
  });
}

TEST_P(GoferTest, DirectoriesAreListedAsTheyAre) {
  Run([&](fstest::World& w) {
    EXPECT_EQ(w.List("/dir"), (std::vector<std::string>{".", "..", "sub"}));
    Put("dir/more", "");
    EXPECT_EQ(w.List("/dir").size(), 4u);
  });
}

TEST_P(GoferTest, WrittenProgramCanBeExecutedOnTheHostAfterClose) {
  Run([&](fstest::World& w) {
    EXPECT_EQ(w.WriteFile("/dir/script", "#!/bin/sh\nexit 0\n"), 0);
    fs::permissions(root_ / "dir/script", fs::perms::owner_all);
    EXPECT_EQ(system((root_ / "dir/script").c_str()), 0);
  });
}

TEST_P(GoferTest, ManyFilesKeepFewOpen) {
  constexpr int kFiles = 600;
  for (int i = 0; i < kFiles; i++) Put(("f" + std::to_string(i)).c_str(), std::to_string(i));
  auto open_at_server = [&] {
    // The server is a thread of this process: every open file below the root, not counting O_PATH descriptors.
    int n = 0;
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
      std::error_code e;
      fs::path target = fs::read_symlink(entry.path(), e);
      if (e || target.parent_path() != root_) continue;
      if ((fcntl(std::stoi(entry.path().filename()), F_GETFL) & O_PATH) == 0) n++;
    }
    return n;
  };
  Run([&](fstest::World& w) {
    for (int round = 0; round < 2; round++) {
      for (int i = 0; i < kFiles; i++) EXPECT_EQ(w.ReadFile("/f" + std::to_string(i)), std::to_string(i));
    }
    // Some more are about to be closed.
    EXPECT_LT(open_at_server(), 256 + 64);
    EXPECT_GT(open_at_server(), 0);
    // A removed one gives back what it holds.
    EXPECT_EQ(w.ReadFile("/f599"), "599");
    int before = open_at_server();
    EXPECT_EQ(w.Unlink("/f599"), 0);
    EXPECT_LT(open_at_server(), before);
  });
}

INSTANTIATE_TEST_SUITE_P(Dialects, GoferTest, ::testing::Values(Dialect::kExtended, Dialect::kPlain),
                         [](const auto& info) { return info.param == Dialect::kPlain ? "Plain" : "Extended"; });

}  // namespace
}  // namespace redoubt::goferfs
