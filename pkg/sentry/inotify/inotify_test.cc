// What test/syscalls/linux/inotify_test.cc cannot see: limits, file systems of particular kinds, schedules.
#include "pkg/sentry/inotify/inotify.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/mount.h>

#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "pkg/sentry/fsimpl/overlay/overlay.h"
#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::inotify {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;

constexpr uint32_t kUser = 1000;

struct Told {
  int descriptor;
  uint32_t mask;
  std::string name;
  friend bool operator==(const Told&, const Told&) = default;
};

void PrintTo(const Told& t, std::ostream* out) { *out << t.descriptor << " " << std::hex << t.mask << " " << t.name; }

RefPtr<Inotify> Make() { return *Inotify::Create(kUser, O_NONBLOCK); }

int Watch(World& w, Inotify& inotify, std::string_view name, uint32_t mask = IN_ALL_EVENTS) {
  Result<int> descriptor = inotify.AddWatch(*w.Lookup(name), mask);
  return descriptor ? *descriptor : -descriptor.error().value();
}

// All that is queued.
std::vector<Told> Take(Inotify& inotify) {
  std::vector<Told> all;
  while (true) {
    std::string bytes = World::Read(inotify);
    if (bytes.starts_with("error ")) {
      EXPECT_EQ(bytes, "error " + std::to_string(EAGAIN));
      return all;
    }
    for (size_t at = 0; at < bytes.size();) {
      inotify_event e;
      std::memcpy(&e, bytes.data() + at, sizeof(e));
      at += sizeof(e);
      all.push_back({e.wd, e.mask, e.len > 0 ? std::string(bytes.data() + at) : std::string()});
      at += e.len;
    }
  }
}

// A limit that is another one for as long as this lives.
class Limit final {
 public:
  Limit(std::atomic<int64_t>& limit, int64_t value) : limit_(limit), old_(limit.exchange(value)) {}
  ~Limit() { limit_.store(old_); }

 private:
  std::atomic<int64_t>& limit_;
  const int64_t old_;
};

TEST(InotifyTest, WatchesOfAUserAreCounted) {
  InFiber([] {
    World w;
    for (const char* name : {"/a", "/b", "/c"}) ASSERT_EQ(w.Touch(name), 0);
    Limit limit(limits::System::Get().inotify_max_watches, 2);
    RefPtr<Inotify> first = Make(), second = Make();
    EXPECT_EQ(Watch(w, *first, "/a"), 1);
    EXPECT_EQ(Watch(w, *second, "/a"), 1);
    EXPECT_EQ(Watch(w, *first, "/b"), -ENOSPC);
    // Changing one is not adding one.
    EXPECT_EQ(Watch(w, *first, "/a", IN_OPEN), 1);
    ASSERT_TRUE(second->RemoveWatch(1));
    EXPECT_EQ(Watch(w, *first, "/b"), 2);
    // What goes by itself is given back as well.
    ASSERT_EQ(w.Unlink("/b"), 0);
    EXPECT_EQ(Watch(w, *second, "/c"), 2);
    second.reset();
    EXPECT_EQ(Watch(w, *first, "/c"), 3);
    first.reset();
    EXPECT_FALSE(vfs::AnyWatches());
  });
}

TEST(InotifyTest, InstancesOfAUserAreCounted) {
  InFiber([] {
    Limit limit(limits::System::Get().inotify_max_instances, 1);
    RefPtr<Inotify> first = Make();
    EXPECT_EQ(Error(Inotify::Create(kUser, 0)), EMFILE);
    EXPECT_EQ(Error(Inotify::Create(kUser + 1, 0)), 0);
    first.reset();
    EXPECT_EQ(Error(Inotify::Create(kUser, 0)), 0);
  });
}

TEST(InotifyTest, TheQueueOverflowsOnceUntilThatIsRead) {
  InFiber([] {
    World w;
    ASSERT_EQ(w.Touch("/f"), 0);
    Limit limit(limits::System::Get().inotify_max_events, 3);
    RefPtr<Inotify> inotify = Make();
    Watch(w, *inotify, "/f", IN_OPEN | IN_CLOSE);
    for (int i = 0; i < 4; i++) (void)w.Open("/f", O_RDONLY);
    const Told open{1, IN_OPEN, ""}, close{1, IN_CLOSE_NOWRITE, ""}, overflow{-1, IN_Q_OVERFLOW, ""};
    EXPECT_EQ(Take(*inotify), (std::vector<Told>{open, close, open, overflow}));
    (void)w.Open("/f", O_RDONLY);
    EXPECT_EQ(Take(*inotify), (std::vector<Told>{open, close}));
  });
}

// However large each queue may be, all of them have a bound.
TEST(InotifyTest, AllQueuesTogetherAreBounded) {
  InFiber([] {
    World w;
    const std::string name(255, 'n');
    Limit limit(limits::System::Get().inotify_max_events, INT32_MAX);
    std::vector<RefPtr<Inotify>> all;
    for (int i = 0; i < 100; i++) {
      all.push_back(Make());
      Watch(w, *all.back(), "/", IN_CREATE | IN_DELETE);
    }
    constexpr size_t kRounds = 2000;
    for (size_t i = 0; i < kRounds; i++) {
      ASSERT_EQ(w.Mkdir("/" + name), 0);
      ASSERT_EQ(w.Rmdir("/" + name), 0);
    }
    size_t told = 0, overflows = 0;
    for (const RefPtr<Inotify>& inotify : all) {
      for (const Told& t : Take(*inotify)) ++(t.mask == IN_Q_OVERFLOW ? overflows : told);
    }
    EXPECT_EQ(overflows, all.size());
    EXPECT_LT(told * 255, size_t{64} << 20);
    // What was read has made room.
    ASSERT_EQ(w.Mkdir("/" + name), 0);
    EXPECT_EQ(Take(*all[0]), (std::vector<Told>{{1, IN_CREATE | IN_ISDIR, name}}));
  });
}

TEST(InotifyTest, AWatchKeepsItsPlaceInTheDentryCache) {
  InFiber([] {
    World w;
    ASSERT_EQ(w.Mkdir("/d"), 0);
    ASSERT_EQ(w.Touch("/d/f"), 0);
    RefPtr<Inotify> inotify = Make();
    Watch(w, *inotify, "/d/f", IN_OPEN);
    vfs::DentryCache::Get().Clear();
    (void)w.Open("/d/f", O_RDONLY);
    EXPECT_EQ(Take(*inotify), (std::vector<Told>{{1, IN_OPEN, ""}}));
  });
}

TEST(InotifyTest, UnmountingIsNotHindered) {
  InFiber([] {
    World w;
    ASSERT_EQ(w.Mkdir("/m"), 0);
    ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/m"), tmpfs::Create(*w.memory, {}), 0, "m"));
    ASSERT_TRUE(w.ns->BindAt(w.walker(), w.at("/m"), w.at("/m"), false));
    ASSERT_EQ(w.Touch("/m/f"), 0);
    RefPtr<Inotify> inotify = Make();
    Watch(w, *inotify, "/m/f", IN_OPEN);
    // One that has ended before.
    RefPtr<vfs::FileDescription> open = *w.Open("/m/g", O_CREAT | O_RDWR);
    Watch(w, *inotify, "/m/g", IN_OPEN);
    ASSERT_EQ(w.Unlink("/m/g"), 0);
    open.reset();
    EXPECT_EQ(Take(*inotify), (std::vector<Told>{{2, IN_IGNORED, ""}}));
    // It is mounted twice.
    ASSERT_TRUE(w.ns->UmountAt(w.walker(), w.at("/m"), 0));
    EXPECT_EQ(Take(*inotify), (std::vector<Told>{}));
    ASSERT_TRUE(w.ns->UmountAt(w.walker(), w.at("/m"), 0));
    EXPECT_EQ(Take(*inotify), (std::vector<Told>{{1, IN_UNMOUNT, ""}, {1, IN_IGNORED, ""}}));
    EXPECT_FALSE(vfs::AnyWatches());
  });
}

TEST(InotifyTest, CopyingUpIsNotSeen) {
  InFiber([] {
    World lower;
    ASSERT_EQ(lower.Mkdir("/d"), 0);
    ASSERT_EQ(lower.WriteFile("/d/f", "text"), 0);
    {
      World w(*overlay::Create(tmpfs::Create(*lower.memory, {}), lower.fs));
      RefPtr<Inotify> inotify = Make();
      ASSERT_EQ(Watch(w, *inotify, "/d/f"), 1);
      ASSERT_EQ(Watch(w, *inotify, "/d", IN_OPEN | IN_MODIFY | IN_CLOSE | IN_CREATE | IN_DELETE), 2);
      RefPtr<vfs::FileDescription> reader = *w.Open("/d/f", O_RDONLY);
      EXPECT_EQ(Take(*inotify), (std::vector<Told>{{2, IN_OPEN, "f"}, {1, IN_OPEN, ""}}));
      RefPtr<vfs::FileDescription> writer = *w.Open("/d/f", O_WRONLY);
      EXPECT_EQ(World::Write(*writer, "T"), 1);
      // From the copy, through a description of its own.
      EXPECT_EQ(World::Read(*reader), "Text");
      Take(*inotify);
      writer.reset();
      EXPECT_EQ(Take(*inotify), (std::vector<Told>{{2, IN_CLOSE_WRITE, "f"}, {1, IN_CLOSE_WRITE, ""}}));
      reader.reset();
      EXPECT_EQ(Take(*inotify), (std::vector<Told>{{2, IN_CLOSE_NOWRITE, "f"}, {1, IN_CLOSE_NOWRITE, ""}}));
      ASSERT_EQ(w.Unlink("/d/f"), 0);
      EXPECT_EQ(
          Take(*inotify),
          (std::vector<Told>{{1, IN_ATTRIB, ""}, {1, IN_DELETE_SELF, ""}, {1, IN_IGNORED, ""}, {2, IN_DELETE, "f"}}));
    }
    EXPECT_FALSE(vfs::AnyWatches());
  });
}

// Files are made, renamed, removed and closed while watches of them come and go in several instances, which come and go
// themselves: every watch ends once, after all else that is told of it, and nothing is left.
TEST(InotifySchedules, EveryWatchEndsOnce) {
  constexpr int kRounds = 8;
  for (uint64_t seed = 0; seed < 500; seed++) {
    auto executor = fiber::MakeDeterministicExecutor(seed);
    std::unique_ptr<World> w;
    RefPtr<Inotify> lasting;
    std::set<int> given;
    std::map<int, int> ended;
    int running = 0;
    bool wrong = false;
    auto drain = [&] {
      for (const Told& t : Take(*lasting)) {
        if (ended[t.descriptor] > 0) wrong = true;
        if ((t.mask & IN_IGNORED) != 0) ended[t.descriptor]++;
      }
    };
    auto start = [&](std::function<void(int)> round) {
      running++;
      executor->Spawn([&, round = std::move(round)] {
        for (int i = 0; i < kRounds; i++) {
          fiber::Yield();
          round(i);
        }
        if (--running > 0) return;
        drain();
        // The directory's own watch and those of files that are there still.
        lasting.reset();
        w.reset();
      });
    };
    executor->Spawn([&] {
      w = std::make_unique<World>();
      lasting = Make();
      ASSERT_EQ(w->Mkdir("/d"), 0);
      given.insert(Watch(*w, *lasting, "/d"));
      start([&](int) {
        Result<RefPtr<vfs::FileDescription>> file = w->Open("/d/a", O_CREAT | O_RDWR);
        fiber::Yield();
        (void)w->Rename("/d/a", "/d/b");
        if (file) (void)World::Write(**file, "x");
      });
      start([&](int) {
        (void)w->Link("/d/b", "/d/c");
        fiber::Yield();
        (void)w->Unlink("/d/b");
        fiber::Yield();
        (void)w->Unlink("/d/c");
      });
      for (const char* name : {"/d/a", "/d/b"}) {
        start([&, name](int i) {
          Result<vfs::Path> path = w->Lookup(name);
          if (!path) return;
          fiber::Yield();
          Result<int> descriptor = lasting->AddWatch(*path, IN_ALL_EVENTS | (i % 3 == 0 ? IN_ONESHOT : 0));
          if (!descriptor) return;
          given.insert(*descriptor);
          path = vfs::Path();
          fiber::Yield();
          if (i % 2 == 0) (void)lasting->RemoveWatch(*descriptor);
        });
      }
      start([&](int) {
        RefPtr<Inotify> passing = Make();
        for (const char* name : {"/d", "/d/a", "/d/b", "/d/c"}) {
          if (Result<vfs::Path> path = w->Lookup(name)) (void)passing->AddWatch(*path, IN_ALL_EVENTS);
          fiber::Yield();
        }
      });
      start([&](int) { drain(); });
    });
    ASSERT_EQ(fiber::RunUntilIdle(*executor), 0u) << seed;
    ASSERT_FALSE(wrong) << seed;
    for (auto [descriptor, count] : ended) {
      ASSERT_TRUE(given.contains(descriptor)) << seed;
      ASSERT_LE(count, 1) << seed;
    }
    ASSERT_FALSE(vfs::AnyWatches()) << seed;
  }
}

}  // namespace
}  // namespace redoubt::inotify
