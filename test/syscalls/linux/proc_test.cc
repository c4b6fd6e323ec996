// proc(5): what is true of it on any Linux.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <climits>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"

namespace redoubt::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::vector<std::string> Lines(const std::string& path) {
  std::istringstream in(ReadAll(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}
std::vector<std::string> Words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}
// "Name:\tvalue" lines.
std::map<std::string, std::string> Fields(const std::string& path) {
  std::map<std::string, std::string> fields;
  for (const std::string& line : Lines(path)) {
    size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    size_t value = line.find_first_not_of(" \t", colon + 1);
    fields[line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1)] =
        value == std::string::npos ? "" : line.substr(value);
  }
  return fields;
}
// The fields of stat from the third, which is [0], on: the name may hold anything.
std::vector<std::string> Stat(const std::string& dir) {
  std::string text = ReadAll(dir + "/stat");
  return Words(text.substr(text.rfind(')') + 1));
}
std::string Link(const std::string& path) {
  char target[4096];
  ssize_t n = readlink(path.c_str(), target, sizeof(target));
  EXPECT_OK(n);
  return n < 0 ? "" : std::string(target, static_cast<size_t>(n));
}
std::set<std::string> List(const std::string& path) {
  std::set<std::string> names;
  DIR* dir = opendir(path.c_str());
  EXPECT_NE(dir, nullptr) << path;
  if (dir == nullptr) return names;
  while (dirent* entry = readdir(dir)) names.insert(entry->d_name);
  closedir(dir);
  names.erase(".");
  names.erase("..");
  return names;
}
std::string Self(const std::string& name) { return "/proc/self/" + name; }
std::string Of(pid_t pid, const std::string& name) { return "/proc/" + std::to_string(pid) + "/" + name; }
std::string SelfFd(const ScopedFd& fd) { return Self("fd/" + std::to_string(fd.get())); }

struct MapLine {
  uint64_t start = 0, end = 0, offset = 0;
  std::string permissions, name;
};
std::vector<MapLine> Maps() {
  std::vector<MapLine> maps;
  for (const std::string& line : Lines(Self("maps"))) {
    MapLine m;
    char permissions[5] = {};
    int name_at = 0;
    EXPECT_EQ(sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*x:%*x %*u %n", &m.start, &m.end,
                     permissions, &m.offset, &name_at),
              4)
        << line;
    m.permissions = permissions;
    m.name = line.substr(static_cast<size_t>(name_at));
    maps.push_back(m);
  }
  return maps;
}
MapLine MapOf(const void* p) {
  uint64_t at = reinterpret_cast<uint64_t>(p);
  for (const MapLine& m : Maps()) {
    if (m.start <= at && at < m.end) return m;
  }
  return {};
}

// A child that sleeps until the object goes.
class Sleeper final {
 public:
  explicit Sleeper(const std::function<void()>& first = [] {}) {
    int ready[2];
    EXPECT_OK(pipe(ready));
    pid_ = Spawn([&] {
      first();
      close(ready[0]);
      EXPECT_RETURNS(write(ready[1], "r", 1), 1);
      while (true) pause();
      return 0;
    });
    close(ready[1]);
    char c;
    EXPECT_RETURNS(read(ready[0], &c, 1), 1);
    close(ready[0]);
    EXPECT_TRUE(WaitUntilAsleep(pid_, pid_));
  }
  ~Sleeper() {
    kill(pid_, SIGKILL);
    WaitFor(pid_);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

// The tree ------------------------------------------------------------------------------------------------------------

TEST(Proc, IsAProcFileSystem) {
  struct statfs fs;
  ASSERT_OK(statfs("/proc", &fs));
  EXPECT_EQ(fs.f_type, 0x9fa0);  // PROC_SUPER_MAGIC
}

TEST(Proc, SelfIsTheReader) {
  EXPECT_EQ(Link("/proc/self"), std::to_string(getpid()));
  EXPECT_EQ(Link("/proc/thread-self"), std::to_string(getpid()) + "/task/" + std::to_string(gettid()));
  std::thread([] {
    EXPECT_EQ(Link("/proc/self"), std::to_string(getpid()));
    EXPECT_EQ(Link("/proc/thread-self"), std::to_string(getpid()) + "/task/" + std::to_string(gettid()));
  }).join();
}

TEST(Proc, ListsProcessesNotThreads) {
  std::atomic<bool> stop{false};
  std::atomic<pid_t> tid{0};
  std::thread thread([&] {
    tid = gettid();
    while (!stop) SleepMs(1);
  });
  while (tid == 0) SleepMs(1);
  std::set<std::string> names = List("/proc");
  EXPECT_THAT(names, Contains(std::to_string(getpid())));
  EXPECT_THAT(names, Contains(std::to_string(getppid())));
  EXPECT_THAT(names, Not(Contains(std::to_string(tid))));
  // Which can be named all the same.
  EXPECT_OK(access(Of(tid, "stat").c_str(), F_OK));
  stop = true;
  thread.join();
}

TEST(Proc, TheDeadAreGone) {
  pid_t pid = Spawn([] { return 0; });
  siginfo_t info;
  ASSERT_OK(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT));
  ScopedFd dir(open(Of(pid, "").c_str(), O_RDONLY | O_DIRECTORY)), file(open(Of(pid, "stat").c_str(), O_RDONLY));
  ASSERT_OK(dir.get());
  ASSERT_OK(file.get());
  EXPECT_EQ(Stat(Of(pid, ""))[0], "Z");
  EXPECT_EQ(Fields(Of(pid, "status"))["State"], "Z (zombie)");
  EXPECT_EQ(ReadAll(Of(pid, "cmdline")), "");
  EXPECT_EQ(ReadAll(Of(pid, "maps")), "");
  WaitFor(pid);
  EXPECT_ERRNO(access(Of(pid, "").c_str(), F_OK), ENOENT);
  EXPECT_RETURNS(openat(dir.get(), "stat", O_RDONLY), -1);
  EXPECT_TRUE(errno == ESRCH || errno == ENOENT) << errno;
  char c;
  EXPECT_ERRNO(read(file.get(), &c, 1), ESRCH);
}

TEST(Proc, NamesThatAreNotThereFailWithEnoent) {
  EXPECT_ERRNO(open("/proc/none", O_RDONLY), ENOENT);
  EXPECT_ERRNO(open("/proc/0", O_RDONLY), ENOENT);
  EXPECT_ERRNO(open("/proc/01", O_RDONLY), ENOENT);
  EXPECT_ERRNO(open("/proc/4294967297", O_RDONLY), ENOENT);
  EXPECT_ERRNO(open("/proc/self/none", O_RDONLY), ENOENT);
  EXPECT_ERRNO(open("/proc/self/fd/99999", O_RDONLY), ENOENT);
}

TEST(Proc, NothingCanBeMadeOrRemoved) {
  EXPECT_RETURNS(mkdir("/proc/new", 0755), -1);
  EXPECT_RETURNS(open("/proc/new", O_CREAT | O_WRONLY, 0644), -1);
  EXPECT_ERRNO(unlink("/proc/self/stat"), EPERM);
  EXPECT_RETURNS(rename("/proc/uptime", "/proc/uptime2"), -1);
}

TEST(Proc, DirectoriesBelongToTheirProcess) {
  Sleeper nobody([] {
    EXPECT_OK(setresgid(kNobody, kNobody, kNobody));
    EXPECT_OK(setresuid(kNobody, kNobody, kNobody));
    EXPECT_OK(prctl(PR_SET_DUMPABLE, 1));
  });
  struct stat st;
  ASSERT_OK(stat(Of(nobody.pid(), "").c_str(), &st));
  EXPECT_EQ(st.st_uid, kNobody);
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFDIR | 0555));
  ASSERT_OK(stat(Of(nobody.pid(), "fd").c_str(), &st));
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFDIR | 0500));
  ASSERT_OK(stat(Of(nobody.pid(), "environ").c_str(), &st));
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0400));
  ASSERT_OK(stat(Of(nobody.pid(), "status").c_str(), &st));
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0444));
}

TEST(Proc, SecretsOfOthersAreKept) {
  pid_t parent = getpid();
  EXPECT_EQ(RunAsNobody([&] {
              EXPECT_OK(ScopedFd(open(Of(parent, "status").c_str(), O_RDONLY)).get());
              EXPECT_ERRNO(open(Of(parent, "environ").c_str(), O_RDONLY), EACCES);
              EXPECT_ERRNO(open(Of(parent, "mem").c_str(), O_RDONLY), EACCES);
              EXPECT_ERRNO(open(Of(parent, "fd").c_str(), O_RDONLY), EACCES);
              char c;
              EXPECT_ERRNO(readlink(Of(parent, "exe").c_str(), &c, 1), EACCES);
              EXPECT_ERRNO(readlink(Of(parent, "cwd").c_str(), &c, 1), EACCES);
              EXPECT_ERRNO(readlink(Of(parent, "root").c_str(), &c, 1), EACCES);
              ScopedFd maps(open(Of(parent, "maps").c_str(), O_RDONLY));
              EXPECT_TRUE(maps.get() < 0 || read(maps.get(), &c, 1) <= 0);
            }),
            0);
}

TEST(Proc, FilesCanBeReadInPieces) {
  std::string whole = ReadAll(Self("limits"));
  ScopedFd fd(open(Self("limits").c_str(), O_RDONLY));
  std::string pieces;
  char c[7];
  for (ssize_t n; (n = read(fd.get(), c, sizeof(c))) > 0;) pieces.append(c, static_cast<size_t>(n));
  EXPECT_EQ(pieces, whole);
  ASSERT_RETURNS(lseek(fd.get(), 0, SEEK_SET), 0);
  EXPECT_RETURNS(read(fd.get(), c, 5), 5);
  EXPECT_EQ(std::string(c, 5), "Limit");
  EXPECT_RETURNS(pread(fd.get(), c, 3, 2), 3);
  EXPECT_EQ(std::string(c, 3), "mit");
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_size, 0);
  EXPECT_TRUE(S_ISREG(st.st_mode));
}

// A process's files ---------------------------------------------------------------------------------------------------

TEST(ProcStatus, TellsWhoItIs) {
  auto fields = Fields(Self("status"));
  auto number = [](long n) { return std::to_string(n); };
  EXPECT_EQ(fields["Pid"], number(getpid()));
  EXPECT_EQ(fields["Tgid"], number(getpid()));
  EXPECT_EQ(fields["PPid"], number(getppid()));
  EXPECT_EQ(fields["TracerPid"], "0");
  EXPECT_EQ(fields["Uid"], "0\t0\t0\t0");
  EXPECT_EQ(fields["Gid"], "0\t0\t0\t0");
  EXPECT_EQ(fields["Threads"], "1");
  EXPECT_EQ(fields["State"], "R (running)");
  EXPECT_EQ(fields["NoNewPrivs"], "0");
  umask(027);
  EXPECT_EQ(Fields(Self("status"))["Umask"], "0027");
  ASSERT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  EXPECT_EQ(Fields(Self("status"))["NoNewPrivs"], "1");
}

TEST(ProcStatus, TellsIdentityAndCapabilities) {
  EXPECT_EQ(RunChild([] {
              gid_t groups[] = {7, 8};
              EXPECT_OK(syscall(SYS_setgroups, 2, groups));
              EXPECT_OK(setresgid(1, 2, 3));
              EXPECT_OK(setresuid(4, 5, 6));
              EXPECT_OK(prctl(PR_SET_DUMPABLE, 1));
              auto fields = Fields(Self("status"));
              EXPECT_EQ(fields["Uid"], "4\t5\t6\t5");
              EXPECT_EQ(fields["Gid"], "1\t2\t3\t2");
              EXPECT_EQ(Words(fields["Groups"]), (std::vector<std::string>{"7", "8"}));
              EXPECT_EQ(fields["CapEff"], "0000000000000000");
              EXPECT_EQ(fields["CapPrm"], "0000000000000000");
              return 0;
            }),
            0);
  EXPECT_NE(Fields(Self("status"))["CapEff"], "0000000000000000");
}

TEST(ProcStatus, TellsSignals) {
  signal(SIGUSR1, SIG_IGN);
  signal(SIGUSR2, [](int) {});
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGHUP);
  ASSERT_OK(sigprocmask(SIG_BLOCK, &set, nullptr));
  ASSERT_OK(kill(getpid(), SIGHUP));
  auto fields = Fields(Self("status"));
  auto has = [&](const char* field, int sig) {
    return (std::stoull(fields[field], nullptr, 16) >> (sig - 1) & 1) != 0;
  };
  EXPECT_TRUE(has("SigIgn", SIGUSR1));
  EXPECT_FALSE(has("SigIgn", SIGUSR2));
  EXPECT_TRUE(has("SigCgt", SIGUSR2));
  EXPECT_TRUE(has("SigBlk", SIGHUP));
  EXPECT_TRUE(has("ShdPnd", SIGHUP));
  EXPECT_FALSE(has("SigPnd", SIGHUP));
  ASSERT_OK(tgkill(getpid(), gettid(), SIGHUP));
  fields = Fields(Self("status"));
  EXPECT_TRUE(has("SigPnd", SIGHUP));
}

TEST(ProcStatus, MemoryGrowsWithUse) {
  auto kilobytes = [](const char* field) { return std::stol(Fields(Self("status"))[field]); };
  long size = kilobytes("VmSize"), resident = kilobytes("VmRSS");
  constexpr size_t kBytes = 32 << 20;
  char* p = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  EXPECT_GE(kilobytes("VmSize"), size + static_cast<long>(kBytes >> 10));
  EXPECT_LT(kilobytes("VmRSS"), resident + 16 * 1024);
  for (size_t i = 0; i < kBytes; i += 4096) p[i] = 1;
  EXPECT_GE(kilobytes("VmRSS"), resident + 31 * 1024);
  EXPECT_GE(kilobytes("VmPeak"), kilobytes("VmSize"));
  EXPECT_GE(kilobytes("VmHWM"), kilobytes("VmRSS") - 1024);
  ASSERT_OK(munmap(p, kBytes));
  EXPECT_LT(kilobytes("VmRSS"), resident + 16 * 1024);
}

TEST(ProcStat, AgreesWithTheCalls) {
  std::string text = ReadAll(Self("stat"));
  EXPECT_THAT(text, StartsWith(std::to_string(getpid()) + " (proc_test) R "));
  auto stat = Stat(Self(""));
  ASSERT_EQ(stat.size(), 50u);
  EXPECT_EQ(stat[1], std::to_string(getppid()));
  EXPECT_EQ(stat[2], std::to_string(getpgrp()));
  EXPECT_EQ(stat[3], std::to_string(getsid(0)));
  EXPECT_EQ(stat[15], "20");  // priority
  EXPECT_EQ(stat[16], "0");   // nice
  EXPECT_EQ(stat[17], "1");   // threads
  EXPECT_EQ(stat[35], "17");  // exit_signal: SIGCHLD
  // Started since boot and before now, in clock ticks.
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  EXPECT_LE(std::stoll(stat[19]), (now.tv_sec + 1) * sysconf(_SC_CLK_TCK));
  EXPECT_GE(std::stoll(stat[19]), (now.tv_sec - 30) * sysconf(_SC_CLK_TCK));
  // Code and stack are where they are.
  EXPECT_LE(std::stoull(stat[23]), reinterpret_cast<uint64_t>(&Lines));
  EXPECT_GT(std::stoull(stat[24]), reinterpret_cast<uint64_t>(&Lines));
  EXPECT_GT(std::stoull(stat[25]), reinterpret_cast<uint64_t>(&now));
}

TEST(ProcStat, TellsStates) {
  Sleeper child;
  EXPECT_EQ(Stat(Of(child.pid(), ""))[0], "S");
  ASSERT_OK(kill(child.pid(), SIGSTOP));
  int status;
  ASSERT_RETURNS(waitpid(child.pid(), &status, WUNTRACED), child.pid());
  EXPECT_EQ(Stat(Of(child.pid(), ""))[0], "T");
  EXPECT_EQ(Fields(Of(child.pid(), "status"))["State"], "T (stopped)");
}

TEST(ProcStat, TimesGrow) {
  volatile int work = 0;
  while (clock() < CLOCKS_PER_SEC / 10) work = work + 1;
  auto stat = Stat(Self(""));
  EXPECT_GE(std::stol(stat[11]) + std::stol(stat[12]), 5);
}

TEST(ProcStatm, AgreesWithStatus) {
  std::vector<std::string> statm = Words(ReadAll(Self("statm")));
  ASSERT_EQ(statm.size(), 7u);
  EXPECT_EQ(std::stol(statm[0]) * 4, std::stol(Fields(Self("status"))["VmSize"]));
  EXPECT_GT(std::stol(statm[1]), 0);
  EXPECT_LE(std::stol(statm[1]), std::stol(statm[0]));
}

TEST(ProcComm, CanBeReadAndWritten) {
  EXPECT_EQ(ReadAll(Self("comm")), "proc_test\n");
  ScopedFd fd(open(Self("comm").c_str(), O_RDWR));
  ASSERT_RETURNS(write(fd.get(), "a name that is too long", 23), 23);
  EXPECT_EQ(ReadAll(Self("comm")), "a name that is \n");
  char name[16] = {};
  ASSERT_OK(prctl(PR_GET_NAME, name));
  EXPECT_STREQ(name, "a name that is ");
  EXPECT_THAT(ReadAll(Self("stat")), HasSubstr("(a name that is )"));
  EXPECT_EQ(Fields(Self("status"))["Name"], "a name that is ");
  Sleeper child;
  EXPECT_ERRNO(write(ScopedFd(open(Of(child.pid(), "comm").c_str(), O_WRONLY)).get(), "x", 1), EINVAL);
}

TEST(ProcCmdline, HasTheArguments) {
  pid_t pid = Spawn([] {
    execl("/bin/sleep", "sleeper", "30", nullptr);
    return 1;
  });
  while (ReadAll(Of(pid, "comm")) != "sleep\n") SleepMs(1);
  EXPECT_EQ(ReadAll(Of(pid, "cmdline")), std::string("sleeper\0"
                                                     "30\0",
                                                     11));
  kill(pid, SIGKILL);
  WaitFor(pid);
}

TEST(ProcEnviron, IsThatOfTheExec) {
  pid_t pid = Spawn([] {
    char one[] = "ONE=1", two[] = "TWO=2";
    char name[] = "sleep", time[] = "30";
    char* argv[] = {name, time, nullptr};
    char* envp[] = {one, two, nullptr};
    execve("/bin/sleep", argv, envp);
    return 1;
  });
  while (ReadAll(Of(pid, "comm")) != "sleep\n") SleepMs(1);
  EXPECT_EQ(ReadAll(Of(pid, "environ")), std::string("ONE=1\0TWO=2\0", 12));
  kill(pid, SIGKILL);
  WaitFor(pid);
}

TEST(ProcAuxv, HasWhatGetauxvalReads) {
  std::string auxv = ReadAll(Self("auxv"));
  EXPECT_EQ(auxv.size() % 16, 0u);
  std::map<uint64_t, uint64_t> values;
  for (size_t i = 0; i + 16 <= auxv.size(); i += 16) {
    uint64_t pair[2];
    std::memcpy(pair, auxv.data() + i, 16);
    values[pair[0]] = pair[1];
  }
  EXPECT_EQ(values[6], 4096u);  // AT_PAGESZ
  EXPECT_EQ(values[17], static_cast<uint64_t>(sysconf(_SC_CLK_TCK)));
}

TEST(ProcLinks, NameTheProgramAndItsPlaces) {
  TempDir dir;
  ASSERT_OK(chdir(dir.path().c_str()));
  EXPECT_EQ(Link(Self("cwd")), dir.path());
  EXPECT_EQ(Link(Self("root")), "/");
  struct stat exe, root, slash;
  ASSERT_OK(stat(Self("exe").c_str(), &exe));
  EXPECT_TRUE(S_ISREG(exe.st_mode));
  EXPECT_THAT(Link(Self("exe")), HasSubstr("/proc_test"));
  ASSERT_OK(stat(Self("root").c_str(), &root));
  ASSERT_OK(stat("/", &slash));
  EXPECT_EQ(root.st_ino, slash.st_ino);
  // They are followed as what they stand for, not as text.
  dir.File("here", "x");
  EXPECT_EQ(ReadAll(Self("cwd/here")), "x");
  std::string sub = dir.Dir("sub");
  ASSERT_OK(chdir(sub.c_str()));
  ASSERT_OK(rmdir(sub.c_str()));
  EXPECT_EQ(Link(Self("cwd")), sub + " (deleted)");
}

TEST(ProcLinks, ChrootIsSeen) {
  TempDir dir;
  Sleeper child([&] {
    EXPECT_OK(chroot(dir.path().c_str()));
    EXPECT_OK(chdir("/"));
  });
  EXPECT_EQ(Link(Of(child.pid(), "root")), dir.path());
  dir.File("inside", "x");
  EXPECT_EQ(ReadAll(Of(child.pid(), "root/inside")), "x");
}

TEST(ProcMaps, TellMappings) {
  TempDir dir;
  ScopedFd fd = dir.Open("mapped file");
  ASSERT_OK(ftruncate(fd.get(), 3 * 4096));
  char* file = static_cast<char*>(mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd.get(), 4096));
  char* anonymous = static_cast<char*>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  MapLine m = MapOf(file + 4096);
  EXPECT_EQ(m.start, reinterpret_cast<uint64_t>(file));
  EXPECT_EQ(m.end, reinterpret_cast<uint64_t>(file) + 8192);
  EXPECT_EQ(m.permissions, "r--s");
  EXPECT_EQ(m.offset, 4096u);
  EXPECT_EQ(m.name, dir / "mapped file");
  EXPECT_EQ(MapOf(anonymous).permissions, "---p");
  EXPECT_EQ(MapOf(&m).name, "[stack]");
  EXPECT_THAT(MapOf(reinterpret_cast<void*>(&Lines)).permissions, StartsWith("r-x"));
  void* brk = sbrk(4096);
  EXPECT_EQ(MapOf(brk).name, "[heap]");
  ASSERT_OK(unlink((dir / "mapped file").c_str()));
  EXPECT_EQ(MapOf(file).name, (dir / "mapped file") + " (deleted)");
  ASSERT_OK(mprotect(file, 4096, PROT_NONE));
  EXPECT_EQ(MapOf(file).permissions, "---s");
  EXPECT_EQ(MapOf(file + 4096).permissions, "r--s");
  uint64_t last = 0;
  for (const MapLine& line : Maps()) {
    EXPECT_GE(line.start, last);
    EXPECT_GT(line.end, line.start);
    last = line.end;
  }
}

TEST(ProcMem, ReadsAndWritesMemory) {
  int value = 42;
  ScopedFd fd(open(Self("mem").c_str(), O_RDWR));
  ASSERT_OK(fd.get());
  int got = 0;
  EXPECT_RETURNS(pread(fd.get(), &got, sizeof(got), reinterpret_cast<off_t>(&value)), sizeof(got));
  EXPECT_EQ(got, 42);
  got = 43;
  EXPECT_RETURNS(pwrite(fd.get(), &got, sizeof(got), reinterpret_cast<off_t>(&value)), sizeof(got));
  EXPECT_EQ(*const_cast<volatile int*>(&value), 43);
  EXPECT_ERRNO(pread(fd.get(), &got, sizeof(got), 8), EIO);
}

TEST(ProcFd, ListsAndNamesDescriptors) {
  TempDir dir;
  ScopedFd file = dir.Open("f", "0123456789");
  int p[2];
  ASSERT_OK(pipe(p));
  ScopedFd event(eventfd(0, 0));
  std::set<std::string> names = List(Self("fd"));
  for (int fd : {file.get(), p[0], p[1], event.get()}) EXPECT_THAT(names, Contains(std::to_string(fd)));
  EXPECT_THAT(names, Not(Contains("500")));
  EXPECT_EQ(Link(SelfFd(file)), dir / "f");
  struct stat st;
  ASSERT_OK(fstat(p[0], &st));
  EXPECT_EQ(Link(Self("fd/" + std::to_string(p[0]))), "pipe:[" + std::to_string(st.st_ino) + "]");
  EXPECT_EQ(Link(SelfFd(event)), "anon_inode:[eventfd]");
  ASSERT_OK(lstat(SelfFd(file).c_str(), &st));
  EXPECT_TRUE(S_ISLNK(st.st_mode));
  EXPECT_EQ(st.st_mode & 0700, 0700u);  // open for reading and writing
  ASSERT_OK(stat(SelfFd(file).c_str(), &st));
  EXPECT_TRUE(S_ISREG(st.st_mode));
  ASSERT_OK(unlink((dir / "f").c_str()));
  EXPECT_EQ(Link(SelfFd(file)), (dir / "f") + " (deleted)");
  // Opening it again is possible even so, with an offset of its own.
  ASSERT_RETURNS(lseek(file.get(), 5, SEEK_SET), 5);
  EXPECT_EQ(ReadAll(SelfFd(file)), "0123456789");
}

TEST(ProcFd, PipesCanBeOpenedAgain) {
  int p[2];
  ASSERT_OK(pipe(p));
  ScopedFd writer(open(Self("fd/" + std::to_string(p[0])).c_str(), O_WRONLY));
  ASSERT_OK(writer.get());
  ASSERT_RETURNS(write(writer.get(), "x", 1), 1);
  char c;
  EXPECT_RETURNS(read(p[0], &c, 1), 1);
}

TEST(ProcFd, SocketsCannotBeOpened) {
  int s[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  EXPECT_ERRNO(open(Self("fd/" + std::to_string(s[0])).c_str(), O_RDWR), ENXIO);
  struct stat st;
  ASSERT_OK(fstat(s[0], &st));
  EXPECT_EQ(Link(Self("fd/" + std::to_string(s[0]))), "socket:[" + std::to_string(st.st_ino) + "]");
}

TEST(ProcFdinfo, TellsPositionAndFlags) {
  TempDir dir;
  ScopedFd file = dir.Open("f", "0123456789", O_APPEND | O_CLOEXEC);
  ASSERT_RETURNS(lseek(file.get(), 7, SEEK_SET), 7);
  auto fields = Fields(Self("fdinfo/" + std::to_string(file.get())));
  EXPECT_EQ(fields["pos"], "7");
  unsigned long flags = std::stoul(fields["flags"], nullptr, 8);
  EXPECT_EQ(flags & (O_ACCMODE | O_APPEND | O_CLOEXEC), static_cast<unsigned long>(O_RDWR | O_APPEND | O_CLOEXEC));
  EXPECT_TRUE(fields.contains("mnt_id"));
  ScopedFd event(eventfd(5, 0));
  fields = Fields(Self("fdinfo/" + std::to_string(event.get())));
  ASSERT_TRUE(fields.contains("eventfd-count"));
  EXPECT_EQ(std::stoul(fields["eventfd-count"], nullptr, 16), 5u);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGHUP);
  ScopedFd signals(signalfd(-1, &set, 0));
  EXPECT_EQ(Fields(Self("fdinfo/" + std::to_string(signals.get())))["sigmask"], "0000000000000001");
  ScopedFd process(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  EXPECT_EQ(Fields(Self("fdinfo/" + std::to_string(process.get())))["Pid"], std::to_string(getpid()));
}

TEST(ProcMounts, NameTheMounts) {
  EXPECT_EQ(Link("/proc/mounts"), "self/mounts");
  bool root = false, proc = false;
  for (const std::string& line : Lines(Self("mounts"))) {
    std::vector<std::string> words = Words(line);
    ASSERT_EQ(words.size(), 6u) << line;
    root = root || words[1] == "/";
    proc = proc || (words[1] == "/proc" && words[2] == "proc");
    EXPECT_TRUE(words[3].starts_with("rw") || words[3].starts_with("ro")) << line;
  }
  EXPECT_TRUE(root);
  EXPECT_TRUE(proc);
}

TEST(ProcMounts, MountinfoIsATree) {
  std::set<std::string> ids;
  std::vector<std::string> parents;
  for (const std::string& line : Lines(Self("mountinfo"))) {
    std::vector<std::string> words = Words(line);
    ASSERT_GE(words.size(), 10u) << line;
    ids.insert(words[0]);
    if (words[4] != "/") parents.push_back(words[1]);
    EXPECT_THAT(words[2], HasSubstr(":"));
    EXPECT_NE(std::find(words.begin(), words.end(), "-"), words.end()) << line;
  }
  for (const std::string& parent : parents) EXPECT_THAT(ids, Contains(parent));
  EXPECT_EQ(ids.size(), Lines(Self("mounts")).size());
}

TEST(ProcLimits, AgreeWithGetrlimit) {
  rlimit limit{77, 99};
  ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
  bool found = false;
  for (const std::string& line : Lines(Self("limits"))) {
    if (!line.starts_with("Max open files")) continue;
    found = true;
    EXPECT_EQ(Words(line.substr(26)), (std::vector<std::string>{"77", "99", "files"}));
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(Lines(Self("limits")).size(), 17u);
}

TEST(ProcTask, ListsThreads) {
  std::atomic<bool> stop{false};
  std::atomic<pid_t> tid{0};
  std::thread thread([&] {
    prctl(PR_SET_NAME, "a thread");
    tid = gettid();
    while (!stop) SleepMs(1);
  });
  while (tid == 0) SleepMs(1);
  EXPECT_EQ(List(Self("task")), (std::set<std::string>{std::to_string(getpid()), std::to_string(tid)}));
  std::string dir = Self("task/" + std::to_string(tid));
  EXPECT_EQ(ReadAll(dir + "/comm"), "a thread\n");
  auto fields = Fields(dir + "/status");
  EXPECT_EQ(fields["Pid"], std::to_string(tid));
  EXPECT_EQ(fields["Tgid"], std::to_string(getpid()));
  EXPECT_EQ(fields["Threads"], "2");
  // Hidden from the list, /proc/TID is the thread, too.
  EXPECT_EQ(Fields(Of(tid, "status"))["Tgid"], std::to_string(getpid()));
  struct stat st;
  ASSERT_OK(stat(Self("task").c_str(), &st));
  EXPECT_EQ(st.st_nlink, 4u);
  stop = true;
  thread.join();
  EXPECT_ERRNO(access(dir.c_str(), F_OK), ENOENT);
  EXPECT_ERRNO(access(Self("task/1").c_str(), F_OK), ENOENT);
}

TEST(ProcOom, ScoreAdjustmentIsKeptAndInherited) {
  ScopedFd fd(open(Self("oom_score_adj").c_str(), O_RDWR));
  ASSERT_RETURNS(write(fd.get(), "300", 3), 3);
  EXPECT_EQ(ReadAll(Self("oom_score_adj")), "300\n");
  EXPECT_EQ(RunChild([] {
              EXPECT_EQ(ReadAll(Self("oom_score_adj")), "300\n");
              return 0;
            }),
            0);
  EXPECT_ERRNO(write(fd.get(), "1001", 4), EINVAL);
  EXPECT_ERRNO(write(fd.get(), "x", 1), EINVAL);
}

// The system's files --------------------------------------------------------------------------------------------------

TEST(ProcSystem, MeminfoAgreesWithSysinfo) {
  auto fields = Fields("/proc/meminfo");
  struct sysinfo info;
  ASSERT_OK(sysinfo(&info));
  EXPECT_EQ(std::stoull(fields["MemTotal"]), info.totalram * info.mem_unit / 1024);
  EXPECT_THAT(fields["MemTotal"], HasSubstr(" kB"));
  for (const char* name : {"MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree"}) {
    EXPECT_TRUE(fields.contains(name)) << name;
  }
  EXPECT_LE(std::stoull(fields["MemFree"]), std::stoull(fields["MemTotal"]));
}

TEST(ProcSystem, CpuinfoHasEveryProcessor) {
  long processors = 0;
  for (const std::string& line : Lines("/proc/cpuinfo")) processors += line.starts_with("processor\t:");
  EXPECT_EQ(processors, sysconf(_SC_NPROCESSORS_ONLN));
  EXPECT_THAT(" " + Fields("/proc/cpuinfo")["flags"] + " ", HasSubstr(" sse2 "));
}

TEST(ProcSystem, UptimeIsTheBootClock) {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  std::vector<std::string> words = Words(ReadAll("/proc/uptime"));
  ASSERT_EQ(words.size(), 2u);
  EXPECT_NEAR(std::stod(words[0]), static_cast<double>(now.tv_sec), 2.0);
  EXPECT_GE(std::stod(words[1]), 0.0);
}

TEST(ProcSystem, VersionIsUnames) {
  utsname u;
  ASSERT_OK(uname(&u));
  EXPECT_THAT(ReadAll("/proc/version"), StartsWith(std::string("Linux version ") + u.release + " "));
  EXPECT_EQ(ReadAll("/proc/sys/kernel/osrelease"), std::string(u.release) + "\n");
  EXPECT_EQ(ReadAll("/proc/sys/kernel/ostype"), "Linux\n");
  EXPECT_EQ(ReadAll("/proc/sys/kernel/version"), std::string(u.version) + "\n");
  EXPECT_EQ(ReadAll("/proc/sys/kernel/hostname"), std::string(u.nodename) + "\n");
}

TEST(ProcSystem, FilesystemsAreListed) {
  std::vector<std::string> lines = Lines("/proc/filesystems");
  for (const char* name : {"proc", "tmpfs", "sysfs", "devpts"}) {
    EXPECT_THAT(lines, Contains(std::string("nodev\t") + name));
  }
}

TEST(ProcSystem, LoadavgHasFiveFields) {
  double load[3];
  int running = 0, total = 0, last = 0;
  ASSERT_EQ(sscanf(ReadAll("/proc/loadavg").c_str(), "%lf %lf %lf %d/%d %d", &load[0], &load[1], &load[2], &running,
                   &total, &last),
            6);
  EXPECT_GE(running, 1);
  EXPECT_GE(total, running);
  EXPECT_GT(last, 0);
}

TEST(ProcSystem, StatCountsEveryProcessor) {
  long processors = 0;
  bool boot_time = false;
  for (const std::string& line : Lines("/proc/stat")) {
    processors += line.starts_with("cpu") && line[3] != ' ';
    boot_time = boot_time || line.starts_with("btime ");
  }
  EXPECT_EQ(processors, sysconf(_SC_NPROCESSORS_ONLN));
  EXPECT_TRUE(boot_time);
}

TEST(ProcSys, LimitsAreNumbers) {
  for (const char* name : {"kernel/pid_max", "kernel/threads-max", "kernel/ngroups_max", "kernel/cap_last_cap",
                           "kernel/randomize_va_space", "fs/file-max", "fs/nr_open", "fs/pipe-max-size",
                           "vm/overcommit_memory", "vm/max_map_count", "vm/mmap_min_addr", "vm/swappiness",
                           "kernel/shmmni", "kernel/overflowuid", "net/core/somaxconn"}) {
    std::string text = ReadAll(std::string("/proc/sys/") + name);
    EXPECT_TRUE(!text.empty() && text.back() == '\n' && text.find_first_not_of("0123456789") == text.size() - 1)
        << name << ": " << text;
  }
  EXPECT_EQ(ReadAll("/proc/sys/kernel/ngroups_max"), "65536\n");
  EXPECT_EQ(ReadAll("/proc/sys/kernel/overflowuid"), "65534\n");
}

TEST(ProcSys, UuidsAreRandom) {
  std::string a = ReadAll("/proc/sys/kernel/random/uuid"), b = ReadAll("/proc/sys/kernel/random/uuid");
  EXPECT_EQ(a.size(), 37u);
  EXPECT_NE(a, b);
  EXPECT_EQ(a[14], '4');
  EXPECT_EQ(ReadAll("/proc/sys/kernel/random/boot_id"), ReadAll("/proc/sys/kernel/random/boot_id"));
}

TEST(ProcSys, NobodyMayWrite) {
  EXPECT_EQ(RunAsNobody([] { EXPECT_ERRNO(open("/proc/sys/kernel/hostname", O_WRONLY), EACCES); }), 0);
}

TEST(ProcSysvipc, HasHeaders) {
  EXPECT_THAT(Lines("/proc/sysvipc/shm").at(0), HasSubstr("shmid"));
  EXPECT_THAT(Lines("/proc/sysvipc/sem").at(0), HasSubstr("semid"));
  EXPECT_THAT(Lines("/proc/sysvipc/msg").at(0), HasSubstr("msqid"));
}

}  // namespace
}  // namespace redoubt::testing
