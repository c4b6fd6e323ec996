#include "pkg/sentry/fsimpl/proc/proc.h"

#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <sstream>

#include "pkg/sentry/fsimpl/testing/world.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::proc {
namespace {

using fstest::Error;
using fstest::InFiber;
using fstest::World;

// Two processes: 1 with threads 1 and 3, and 2, a zombie.
class FakeTask final : public RefCounted {
 public:
  TaskInfo info;
  RefPtr<FdTable> fds;
  TaskPlaces places;
};

class FakeKernel final : public KernelView {
 public:
  FakeKernel() {
    for (int tid : {1, 2, 3}) {
      tasks[tid] = MakeRef<FakeTask>();
      TaskInfo& i = tasks[tid]->info;
      i = {.tid = tid, .tgid = tid == 3 ? 1 : tid, .ppid = tid == 2 ? 1 : 0, .name = "task " + std::to_string(tid)};
      i.creds = auth::Credentials::Root();
    }
    tasks[1]->info.threads = 2;
    tasks[2]->info.state = 'Z';
    current = 1;
  }
  std::vector<int> Processes() override {
    std::vector<int> r;
    for (auto& [tid, t] : tasks) {
      if (t->info.tgid == tid) r.push_back(tid);
    }
    return r;
  }
  std::vector<int> Threads(int tgid) override {
    std::vector<int> r;
    for (auto& [tid, t] : tasks) {
      if (t->info.tgid == tgid) r.push_back(tid);
    }
    return r;
  }
  TaskHandle Find(int tid) override { return tasks.contains(tid) ? TaskHandle(tasks[tid]) : nullptr; }
  TaskHandle Current() override { return Find(current); }
  bool GetInfo(RefCounted& task, bool, TaskInfo* info) override {
    FakeTask& t = static_cast<FakeTask&>(task);
    *info = t.info;
    return tasks.contains(t.info.tid) && tasks[t.info.tid].get() == &t;
  }
  RefPtr<mm::MemoryManager> GetMemory(RefCounted&) override { return nullptr; }
  RefPtr<FdTable> GetFds(RefCounted& task) override { return static_cast<FakeTask&>(task).fds; }
  TaskPlaces GetPlaces(RefCounted& task) override { return static_cast<FakeTask&>(task).places; }
  std::array<limits::Limit, RLIM_NLIMITS> GetLimits(RefCounted&) override {
    std::array<limits::Limit, RLIM_NLIMITS> l;
    l[RLIMIT_NOFILE] = {1024, 4096};
    return l;
  }
  Result<> CheckAccess(RefCounted&) override { return allow ? Result<>() : Err(EACCES); }
  Result<> SetName(RefCounted& task, std::string name) override {
    static_cast<FakeTask&>(task).info.name = name;
    return {};
  }
  Result<> SetOomScoreAdj(RefCounted& task, int v) override {
    static_cast<FakeTask&>(task).info.oom_score_adj = v;
    return {};
  }
  SystemInfo GetSystemInfo() override {
    return {.memory_total = 1 << 30, .memory_free = 1 << 29, .cpus = 2, .uptime = 1'234'567'890'123};
  }
  std::string Release() override { return "6.6.0"; }
  std::string Version() override { return "#1 SMP"; }
  std::string Hostname() override { return hostname; }
  std::string Domainname() override { return "(none)"; }
  Result<> SetHostname(std::string n) override {
    hostname = n;
    return {};
  }
  Result<> SetDomainname(std::string) override { return {}; }
  std::vector<std::string> Filesystems() override { return {"nodev\tproc", "ext4"}; }

  std::map<int, RefPtr<FakeTask>> tasks;
  int current;
  bool allow = true;
  std::string hostname = "box";
};

void InProc(const std::function<void(World&, FakeKernel&)>& body) {
  InFiber([&] {
    FakeKernel kernel;
    {
      World w;
      ASSERT_EQ(w.Mkdir("/proc"), 0);
      ASSERT_TRUE(
          w.ns->MountAt(w.walker(), w.at("/proc"), Create({std::shared_ptr<void>(), &kernel}), MS_NOSUID, "proc"));
      kernel.tasks[1]->fds = MakeRef<FdTable>();
      kernel.tasks[1]->fds->AddUser();
      kernel.tasks[1]->places = {w.root_path, w.root_path, w.ns};
      body(w, kernel);
      kernel.tasks[1]->fds->DropUser();
      kernel.tasks.clear();
    }
  });
}

std::vector<std::string> Words(const std::string& s) {
  std::istringstream in(s);
  std::vector<std::string> words;
  for (std::string w; in >> w;) words.push_back(w);
  return words;
}

TEST(Proc, ProcessesAreListedAndThreadsAreFound) {
  InProc([](World& w, FakeKernel& k) {
    std::vector<std::string> names = w.List("/proc");
    EXPECT_TRUE(std::ranges::count(names, "1") && std::ranges::count(names, "2"));
    EXPECT_EQ(std::ranges::count(names, "3"), 0);
    EXPECT_TRUE(std::ranges::count(names, "self") && std::ranges::count(names, "meminfo"));
    EXPECT_EQ(w.ReadFile("/proc/3/comm"), "task 3\n");
    EXPECT_EQ(w.List("/proc/1/task"), (std::vector<std::string>{".", "..", "1", "3"}));
    EXPECT_EQ(w.ReadFile("/proc/1/task/3/comm"), "task 3\n");
    EXPECT_EQ(Error(w.Stat("/proc/1/task/2")), ENOENT);
    for (const char* none :
         {"/proc/4", "/proc/01", "/proc/-1", "/proc/1x", "/proc/99999999999999", "/proc/1/nothing"}) {
      EXPECT_EQ(Error(w.Stat(none)), ENOENT) << none;
    }
    EXPECT_EQ(w.Mkdir("/proc/x"), EPERM);
    EXPECT_EQ(w.Touch("/proc/x"), EACCES);
  });
}

TEST(Proc, NumbersOfInodesAreStableAndDistinct) {
  InProc([](World& w, FakeKernel& k) {
    std::set<uint64_t> inos;
    for (const char* p :
         {"/proc", "/proc/1", "/proc/2", "/proc/1/task", "/proc/1/task/1", "/proc/1/fd", "/proc/1/stat"}) {
      uint64_t ino = w.Stat(p)->ino;
      EXPECT_TRUE(inos.insert(ino).second) << p;
      EXPECT_EQ(w.Stat(p)->ino, ino) << p;
    }
  });
}

TEST(Proc, SelfIsWhoAsks) {
  InProc([](World& w, FakeKernel& k) {
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/proc/self", false)), "1");
    k.current = 3;
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/proc/self", false)), "1");
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/proc/thread-self", false)), "1/task/3");
    EXPECT_EQ(w.ReadFile("/proc/thread-self/comm"), "task 3\n");
    k.current = 0;
    EXPECT_EQ(Error(w.Stat("/proc/self")), ENOENT);
  });
}

TEST(Proc, StatHasFiftyTwoFields) {
  InProc([](World& w, FakeKernel& k) {
    TaskInfo& i = k.tasks[1]->info;
    i.name = "a) (b";
    i.process_group = 7;
    i.user_ns = 1'230'000'000;
    i.start_time = 50'000'000;
    i.terminal = (136 << 8) | 5;
    std::string s = w.ReadFile("/proc/1/stat");
    ASSERT_TRUE(s.starts_with("1 (a) (b) R 0 7 0 34821 "));
    std::vector<std::string> rest = Words(s.substr(s.rfind(')') + 1));
    ASSERT_EQ(rest.size(), 50u);
    EXPECT_EQ(rest[11], "123");  // utime, field 14
    EXPECT_EQ(rest[15], "20");   // priority
    EXPECT_EQ(rest[17], "2");    // num_threads
    EXPECT_EQ(rest[19], "5");    // starttime
    EXPECT_EQ(s.back(), '\n');
  });
}

TEST(Proc, StatusLines) {
  InProc([](World& w, FakeKernel& k) {
    TaskInfo& i = k.tasks[1]->info;
    RefPtr<auth::Credentials> c = auth::Credentials::ForUser(5, 6, {7, 8}, 0);
    i.creds = c;
    i.blocked = 1 << 9;
    i.cpu_mask = 0b1101;
    std::string s = w.ReadFile("/proc/1/status");
    for (const char* line :
         {"Name:\ttask 1\n", "State:\tR (running)\n", "Uid:\t5\t5\t5\t5\n", "Gid:\t6\t6\t6\t6\n", "Groups:\t7 8 \n",
          "Threads:\t2\n", "SigBlk:\t0000000000000200\n", "Cpus_allowed:\td\n", "Cpus_allowed_list:\t0,2-3\n"}) {
      EXPECT_NE(s.find(line), std::string::npos) << line << s;
    }
    EXPECT_NE(w.ReadFile("/proc/2/status").find("State:\tZ (zombie)\n"), std::string::npos);
    EXPECT_EQ(w.Stat("/proc/1/status")->uid, 5u);
    i.dumpable = false;
    EXPECT_EQ(w.Stat("/proc/1/status")->uid, 0u);
    EXPECT_NE(w.ReadFile("/proc/1/limits")
                  .find("Max open files            1024                 4096                 files     \n"),
              std::string::npos);
  });
}

TEST(Proc, AReapedTaskIsGoneAndItsNumberIsAnothers) {
  InProc([](World& w, FakeKernel& k) {
    auto open = *w.Open("/proc/2/status", O_RDONLY);
    auto dir = *w.Open("/proc/2", O_RDONLY);
    vfs::Path place = dir->path();
    k.tasks.erase(2);
    EXPECT_EQ(World::Read(*open), "error 3");
    EXPECT_EQ(Error(w.Stat("/proc/2")), ENOENT);
    fstest::Names names;
    EXPECT_EQ(Error(dir->Getdents(names)), ENOENT);
    k.tasks[2] = MakeRef<FakeTask>();
    k.tasks[2]->info = {.tid = 2, .tgid = 2, .name = "new"};
    k.tasks[2]->info.creds = auth::Credentials::Root();
    EXPECT_EQ(w.ReadFile("/proc/2/comm"), "new\n");
    EXPECT_EQ(World::Read(*open), "error 3");
    EXPECT_EQ(Error(vfs::Lookup(w.walker(), {.start = place, .name = "comm"})), ENOENT);
  });
}

TEST(Proc, DescriptorsAreMagicLinks) {
  InProc([](World& w, FakeKernel& k) {
    ASSERT_EQ(w.WriteFile("/f", "hello"), 0);
    FdTable& fds = *k.tasks[1]->fds;
    ASSERT_EQ(*fds.Install(*w.Open("/f", O_RDONLY), false, 100), 0);
    ASSERT_EQ(*fds.Install(*w.Open("/f", O_RDWR | O_APPEND), true, 100), 1);
    class Anonymous final : public vfs::FileDescription {
     public:
      Anonymous() : FileDescription(vfs::MakeAnonymousPath("anon_inode:[test]"), O_RDWR) {}
    };
    ASSERT_EQ(*fds.Install(MakeRef<Anonymous>(), false, 100), 2);
    EXPECT_EQ(w.List("/proc/self/fd"), (std::vector<std::string>{".", "..", "0", "1", "2"}));
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/proc/self/fd/0", false)), "/f");
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/proc/self/fd/2", false)), "anon_inode:[test]");
    EXPECT_EQ(w.Lstat("/proc/self/fd/0")->mode, S_IFLNK | 0500u);
    EXPECT_EQ(w.Lstat("/proc/self/fd/1")->mode, S_IFLNK | 0700u);
    EXPECT_EQ(w.Stat("/proc/self/fd/0")->ino, w.Stat("/f")->ino);
    EXPECT_EQ(Error(w.Lstat("/proc/self/fd/3")), ENOENT);
    // By reference, not by name.
    ASSERT_EQ(w.Unlink("/f"), 0);
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/proc/self/fd/0", false)), "/f (deleted)");
    EXPECT_EQ(w.ReadFile("/proc/self/fd/0"), "hello");
    EXPECT_EQ(Error(w.Open("/proc/self/fd/2", O_RDONLY)), ENXIO);
    EXPECT_EQ(Error(w.Open("/proc/self/fd/0", O_RDONLY | O_NOFOLLOW)), ELOOP);
    std::string info = w.ReadFile("/proc/self/fdinfo/1");
    EXPECT_TRUE(info.starts_with("pos:\t0\nflags:\t02102002\nmnt_id:\t")) << info;
    k.allow = false;
    EXPECT_EQ(Error(w.Stat("/proc/self/fd/0")), EACCES);
    EXPECT_EQ(Error(vfs::Readlink(w.walker(), w.at("/proc/self/cwd", false))), EACCES);
  });
}

TEST(Proc, CwdAndRootLeadThere) {
  InProc([](World& w, FakeKernel& k) {
    ASSERT_EQ(w.Mkdir("/d"), 0);
    k.tasks[1]->places.cwd = *w.Lookup("/d");
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/proc/1/cwd", false)), "/d");
    EXPECT_EQ(*w.Lookup("/proc/1/cwd"), *w.Lookup("/d"));
    EXPECT_EQ(*w.Lookup("/proc/1/root/d"), *w.Lookup("/d"));
    EXPECT_EQ(Error(vfs::Readlink(w.walker(), w.at("/proc/2/cwd", false))), ENOENT);
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/proc/1/ns/mnt", false)), "mnt:[4026531841]");
    EXPECT_EQ(*vfs::Readlink(w.walker(), w.at("/proc/1/ns/pid_for_children", false)), "pid:[4026531836]");
    k.tasks[1]->places = {};
  });
}

TEST(Proc, Mounts) {
  InProc([](World& w, FakeKernel& k) {
    ASSERT_EQ(w.Mkdir("/a b\\c"), 0);
    ASSERT_TRUE(w.ns->MountAt(w.walker(), w.at("/a b\\c"), tmpfs::Create(*w.memory, {.size_limit = 1 << 20}),
                              MS_RDONLY | MS_NOATIME, "my src"));
    EXPECT_EQ(w.ReadFile("/proc/mounts"),
              "root / tmpfs rw,relatime 0 0\n"
              "proc /proc proc rw,nosuid,relatime 0 0\n"
              "my\\040src /a\\040b\\134c tmpfs ro,noatime,size=1024k 0 0\n");
    std::vector<std::string> words = Words(w.ReadFile("/proc/self/mountinfo"));
    ASSERT_EQ(words.size(), 30u);
    EXPECT_EQ(words[1], words[0]);
    EXPECT_EQ(words[11], words[0]);
    EXPECT_EQ(words[3], "/");
    EXPECT_EQ(words[6], "-");
    EXPECT_EQ(words[24], "/a\\040b\\134c");
    EXPECT_EQ(words[29], "ro,size=1024k");
    k.tasks[1]->places = {};
  });
}

TEST(Proc, WritableFiles) {
  InProc([](World& w, FakeKernel& k) {
    EXPECT_EQ(w.WriteFile("/proc/self/comm", "a name far too long\n"), 0);
    EXPECT_EQ(w.ReadFile("/proc/1/comm"), "a name far too \n");
    EXPECT_EQ(w.WriteFile("/proc/2/comm", "x"), EINVAL);
    EXPECT_EQ(w.WriteFile("/proc/1/oom_score_adj", "500\n"), 0);
    EXPECT_EQ(w.ReadFile("/proc/1/oom_score_adj"), "500\n");
    EXPECT_EQ(w.WriteFile("/proc/1/oom_score_adj", "5000"), EINVAL);
    EXPECT_EQ(w.WriteFile("/proc/1/stat", "x"), EINVAL);
    EXPECT_EQ(w.WriteFile("/proc/sys/kernel/hostname", "new\n"), 0);
    EXPECT_EQ(w.ReadFile("/proc/sys/kernel/hostname"), "new\n");
    EXPECT_EQ(w.WriteFile("/proc/sys/vm/overcommit_memory", "2\n"), 0);
    EXPECT_EQ(w.ReadFile("/proc/sys/vm/overcommit_memory"), "2\n");
    EXPECT_EQ(w.WriteFile("/proc/sys/vm/overcommit_memory", "9"), EINVAL);
    EXPECT_EQ(w.ReadFile("/proc/sys/kernel/osrelease"), "6.6.0\n");
  });
}

TEST(Proc, SystemFiles) {
  InProc([](World& w, FakeKernel& k) {
    EXPECT_TRUE(w.ReadFile("/proc/meminfo").starts_with("MemTotal:        1048576 kB\nMemFree:          524288 kB\n"));
    EXPECT_EQ(w.ReadFile("/proc/uptime"), "1234.56 0.00\n");
    EXPECT_EQ(w.ReadFile("/proc/filesystems"), "nodev\tproc\n\text4\n");
    EXPECT_EQ(w.ReadFile("/proc/loadavg"), "0.00 0.00 0.00 1/1 0\n");
    std::string cpuinfo = w.ReadFile("/proc/cpuinfo");
    EXPECT_TRUE(cpuinfo.starts_with("processor\t: 0\nvendor_id\t: "));
    EXPECT_NE(cpuinfo.find("\nprocessor\t: 1\n"), std::string::npos);
    EXPECT_NE(cpuinfo.find(" sse2 "), std::string::npos);
    EXPECT_TRUE(w.ReadFile("/proc/stat").starts_with("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 "));
    EXPECT_EQ(w.ReadFile("/proc/version"), "Linux version 6.6.0 (redoubt) #1 SMP\n");
    EXPECT_EQ(w.ReadFile("/proc/sys/kernel/random/boot_id").size(), 37u);
    EXPECT_NE(w.ReadFile("/proc/sys/kernel/random/uuid"), w.ReadFile("/proc/sys/kernel/random/uuid"));
    EXPECT_TRUE(w.ReadFile("/proc/net/tcp").starts_with("  sl  local_address"));
    // Every text can be read, by parts too.
    for (const char* dir :
         {"/proc", "/proc/1", "/proc/2", "/proc/1/task/3", "/proc/net", "/proc/sys/kernel", "/proc/sys/vm"}) {
      for (const std::string& name : w.List(dir)) {
        std::string path = std::string(dir) + "/" + name;
        if (!S_ISREG(w.Lstat(path)->mode) || name == "mem" || name == "drop_caches") continue;
        auto f = w.Open(path, O_RDONLY);
        ASSERT_TRUE(f) << path;
        std::string whole = World::PRead(**f, 0, 100000);
        if (whole.starts_with("error")) continue;
        EXPECT_EQ(World::PRead(**f, 3, 5), whole.size() > 3 ? whole.substr(3, 5) : "") << path;
      }
    }
  });
}

TEST(Proc, ManyShortLivedProcessesAreForgotten) {
  InProc([](World& w, FakeKernel& k) {
    RefPtr<FakeTask> watched;
    for (int tid = 100; tid < 1100; tid++) {
      k.tasks[tid] = MakeRef<FakeTask>();
      k.tasks[tid]->info = {.tid = tid, .tgid = tid, .name = "short"};
      k.tasks[tid]->info.creds = auth::Credentials::Root();
      if (tid == 100) watched = k.tasks[tid];
      EXPECT_EQ(w.ReadFile("/proc/" + std::to_string(tid) + "/comm"), "short\n");
      k.tasks.erase(tid);
    }
    EXPECT_EQ(watched->RefCount(), 1);
  });
}

}  // namespace
}  // namespace redoubt::proc
