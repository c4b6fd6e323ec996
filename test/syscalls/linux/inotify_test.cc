// inotify(7), inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2).
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "test/syscalls/util/child.h"
#include "test/syscalls/util/matchers.h"
#include "test/syscalls/util/scoped_fd.h"
#include "test/syscalls/util/temp_dir.h"
#include "test/syscalls/util/unix_socket.h"

namespace redoubt::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Event {
  int wd;
  uint32_t mask, cookie, len;
  std::string name;
};

// Reads once; empty on EAGAIN.
std::vector<Event> ReadOnce(int fd, size_t room = 65536) {
  std::vector<Event> events;
  std::vector<char> bytes(room);
  ssize_t n = read(fd, bytes.data(), bytes.size());
  if (n < 0) {
    EXPECT_EQ(errno, EAGAIN);
    return events;
  }
  for (ssize_t at = 0; at < n;) {
    inotify_event e;
    EXPECT_LE(at + static_cast<ssize_t>(sizeof(e)), n);
    std::memcpy(&e, bytes.data() + at, sizeof(e));
    at += static_cast<ssize_t>(sizeof(e));
    events.push_back({e.wd, e.mask, e.cookie, e.len, e.len > 0 ? std::string(bytes.data() + at) : std::string()});
    at += e.len;
  }
  return events;
}

std::string Words(uint32_t mask) {
  static constexpr std::pair<uint32_t, const char*> kWords[] = {{IN_ACCESS, "ACCESS"},
                                                                {IN_MODIFY, "MODIFY"},
                                                                {IN_ATTRIB, "ATTRIB"},
                                                                {IN_CLOSE_WRITE, "CLOSE_WRITE"},
                                                                {IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"},
                                                                {IN_OPEN, "OPEN"},
                                                                {IN_MOVED_FROM, "MOVED_FROM"},
                                                                {IN_MOVED_TO, "MOVED_TO"},
                                                                {IN_CREATE, "CREATE"},
                                                                {IN_DELETE, "DELETE"},
                                                                {IN_DELETE_SELF, "DELETE_SELF"},
                                                                {IN_MOVE_SELF, "MOVE_SELF"},
                                                                {IN_UNMOUNT, "UNMOUNT"},
                                                                {IN_Q_OVERFLOW, "Q_OVERFLOW"},
                                                                {IN_IGNORED, "IGNORED"},
                                                                {IN_ISDIR, "ISDIR"}};
  std::string words;
  for (auto [bit, word] : kWords) {
    if ((mask & bit) == 0) continue;
    mask &= ~bit;
    words += (words.empty() ? "" : "|") + std::string(word);
  }
  if (mask != 0) words += "|" + std::to_string(mask);
  return words;
}

// A directory and an instance that does not block. Events are told as "label WHAT name".
class Inotify : public ::testing::Test {
 protected:
  void SetUp() override {
    fd_.reset(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    ASSERT_OK(fd_.get());
  }
  int Watch(const std::string& label, const std::string& path, uint32_t mask = IN_ALL_EVENTS) {
    int wd = inotify_add_watch(fd_.get(), path.c_str(), mask);
    EXPECT_OK(wd) << path;
    labels_[wd] = label;
    return wd;
  }
  std::vector<std::string> Events() {
    std::vector<std::string> result;
    while (true) {
      std::vector<Event> events = ReadOnce(fd_.get());
      if (events.empty()) return result;
      for (const Event& e : events) {
        result.push_back(labels_[e.wd] + " " + Words(e.mask) + (e.name.empty() ? "" : " " + e.name));
      }
    }
  }

  TempDir dir_;
  ScopedFd fd_;
  std::map<int, std::string> labels_{{-1, "-"}};
};

// --- instances

TEST_F(Inotify, FlagsOfInit) {
  EXPECT_RETURNS(fcntl(fd_.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(fd_.get(), F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY | O_NONBLOCK);
  ScopedFd plain(inotify_init());
  ASSERT_OK(plain.get());
  EXPECT_RETURNS(fcntl(plain.get(), F_GETFD), 0);
  EXPECT_EQ(fcntl(plain.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_ERRNO(inotify_init1(1), EINVAL);
  EXPECT_ERRNO(inotify_init1(IN_NONBLOCK | O_APPEND), EINVAL);
}

TEST_F(Inotify, IsAnAnonymousFile) {
  char name[64] = {};
  EXPECT_OK(readlink(("/proc/self/fd/" + std::to_string(fd_.get())).c_str(), name, sizeof(name) - 1));
  EXPECT_STREQ(name, "anon_inode:inotify");
  EXPECT_ERRNO(write(fd_.get(), name, 1), EBADF);
  EXPECT_RETURNS(lseek(fd_.get(), 0, SEEK_SET), 0);
  int n = 0;
  EXPECT_ERRNO(ioctl(fd_.get(), TIOCGWINSZ, &n), ENOTTY);
}

TEST_F(Inotify, NoDescriptorLeftFailsWithEmfile) {
  EXPECT_EQ(RunChild([] {
              rlimit none{};
              getrlimit(RLIMIT_NOFILE, &none);
              none.rlim_cur = 3;
              EXPECT_OK(setrlimit(RLIMIT_NOFILE, &none));
              EXPECT_ERRNO(inotify_init(), EMFILE);
              return 0;
            }),
            0);
}

// --- add and remove

TEST_F(Inotify, ErrorsOfAddWatch) {
  const std::string file = dir_.File("f");
  const char* path = file.c_str();
  EXPECT_ERRNO(inotify_add_watch(-1, path, IN_OPEN), EBADF);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), path, 0), EINVAL);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), path, 0x00010000), EINVAL);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), path, IN_OPEN | 0x00010000), EINVAL);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), path, IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE), EINVAL);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), "", IN_OPEN), ENOENT);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), (dir_ / "none").c_str(), IN_OPEN), ENOENT);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), (file + "/x").c_str(), IN_OPEN), ENOTDIR);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), path, IN_OPEN | IN_ONLYDIR), ENOTDIR);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), std::string(5000, 'x').c_str(), IN_OPEN), ENAMETOOLONG);
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), std::string(300, 'x').c_str(), IN_OPEN), ENAMETOOLONG);
  EXPECT_ERRNO(syscall(SYS_inotify_add_watch, fd_.get(), 8L, IN_OPEN), EFAULT);
  EXPECT_OK(inotify_add_watch(fd_.get(), dir_.path().c_str(), IN_OPEN | IN_ONLYDIR));
  ScopedFd other(open(path, O_RDONLY));
  EXPECT_ERRNO(inotify_add_watch(other.get(), path, IN_OPEN), EINVAL);
  ScopedFd place(open(path, O_PATH));
  EXPECT_ERRNO(inotify_add_watch(place.get(), path, IN_OPEN), EBADF);
}

TEST_F(Inotify, WithoutReadPermissionFailsWithEacces) {
  ASSERT_OK(chmod(dir_.path().c_str(), 0755));
  const std::string secret = dir_.File("secret", "", 0300);
  const std::string open_to_all = dir_.File("open", "", 0444);
  EXPECT_EQ(RunAsNobody([&] {
              ScopedFd fd(inotify_init());
              EXPECT_ERRNO(inotify_add_watch(fd.get(), secret.c_str(), IN_OPEN), EACCES);
              EXPECT_OK(inotify_add_watch(fd.get(), open_to_all.c_str(), IN_OPEN));
            }),
            0);
}

TEST_F(Inotify, RemovingSaysIgnored) {
  const int wd = Watch("f", dir_.File("f"));
  EXPECT_RETURNS(inotify_rm_watch(fd_.get(), wd), 0);
  EXPECT_THAT(Events(), ElementsAre("f IGNORED"));
  ScopedFd f = dir_.Open("f");
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_ERRNO(inotify_rm_watch(fd_.get(), wd), EINVAL);
  EXPECT_ERRNO(inotify_rm_watch(fd_.get(), -1), EINVAL);
  EXPECT_ERRNO(inotify_rm_watch(-1, wd), EBADF);
  EXPECT_ERRNO(inotify_rm_watch(f.get(), 1), EINVAL);
}

TEST_F(Inotify, DescriptorsAreNotUsedAgainSoon) {
  const std::string file = dir_.File("f");
  const int first = Watch("f", file);
  EXPECT_EQ(first, 1);
  ASSERT_OK(inotify_rm_watch(fd_.get(), first));
  EXPECT_EQ(Watch("f", file), 2);
  // An instance counts for itself.
  ScopedFd other(inotify_init());
  EXPECT_RETURNS(inotify_add_watch(other.get(), file.c_str(), IN_OPEN), 1);
}

TEST_F(Inotify, AFileHasOneWatchOfAnInstance) {
  const std::string file = dir_.File("f");
  const int wd = Watch("f", file, IN_OPEN);
  ASSERT_OK(link(file.c_str(), (dir_ / "g").c_str()));
  ASSERT_OK(symlink("f", (dir_ / "l").c_str()));
  // The new mask stands in the place of the old one.
  EXPECT_EQ(Watch("f", dir_ / "g", IN_CLOSE), wd);
  dir_.Open("f").reset();
  EXPECT_THAT(Events(), ElementsAre("f CLOSE_WRITE"));
  EXPECT_EQ(Watch("f", dir_ / "l", IN_OPEN | IN_MASK_ADD), wd);
  dir_.Open("f").reset();
  EXPECT_THAT(Events(), ElementsAre("f OPEN", "f CLOSE_WRITE"));
  EXPECT_ERRNO(inotify_add_watch(fd_.get(), file.c_str(), IN_OPEN | IN_MASK_CREATE), EEXIST);
  EXPECT_OK(inotify_add_watch(fd_.get(), dir_.path().c_str(), IN_OPEN | IN_MASK_CREATE));
}

TEST_F(Inotify, DontFollowWatchesTheLink) {
  dir_.File("f");
  ASSERT_OK(symlink("f", (dir_ / "l").c_str()));
  Watch("link", dir_ / "l", IN_ALL_EVENTS | IN_DONT_FOLLOW);
  Watch("file", dir_ / "l", IN_ALL_EVENTS);
  ASSERT_OK(chmod((dir_ / "l").c_str(), 0600));
  ASSERT_OK(lchown((dir_ / "l").c_str(), getuid(), getgid()));
  ASSERT_OK(unlink((dir_ / "l").c_str()));
  EXPECT_THAT(Events(), ElementsAre("file ATTRIB", "link ATTRIB", "link DELETE_SELF", "link IGNORED"));
}

TEST_F(Inotify, OneshotHearsOnce) {
  Watch("d", dir_.path(), IN_CREATE | IN_ONESHOT);
  dir_.File("a");
  dir_.File("b");
  EXPECT_THAT(Events(), ElementsAre("d CREATE a", "d IGNORED"));
}

// --- what is told

TEST_F(Inotify, CreatingReadingAndWriting) {
  Watch("d", dir_.path());
  ScopedFd f(open((dir_ / "f").c_str(), O_CREAT | O_RDWR, 0644));
  char c = 'x';
  ASSERT_RETURNS(write(f.get(), &c, 1), 1);
  ASSERT_RETURNS(read(f.get(), &c, 1), 0);
  EXPECT_THAT(Events(), ElementsAre("d CREATE f", "d OPEN f", "d MODIFY f"));
  ASSERT_RETURNS(write(f.get(), "", 0), 0);
  ASSERT_RETURNS(pread(f.get(), &c, 1, 0), 1);
  ASSERT_RETURNS(pwrite(f.get(), &c, 1, 0), 1);
  iovec v{&c, 1};
  ASSERT_RETURNS(preadv(f.get(), &v, 1, 0), 1);
  ASSERT_RETURNS(pwritev(f.get(), &v, 1, 0), 1);
  ASSERT_RETURNS(lseek(f.get(), 0, SEEK_SET), 0);
  ASSERT_RETURNS(readv(f.get(), &v, 1), 1);
  ASSERT_RETURNS(writev(f.get(), &v, 1), 1);
  EXPECT_THAT(Events(),
              ElementsAre("d ACCESS f", "d MODIFY f", "d ACCESS f", "d MODIFY f", "d ACCESS f", "d MODIFY f"));
  f.reset();
  EXPECT_THAT(Events(), ElementsAre("d CLOSE_WRITE f"));
}

TEST_F(Inotify, TheDirectoryHearsBeforeTheFile) {
  Watch("f", dir_.File("f", "text"));
  Watch("d", dir_.path());
  ScopedFd f(open((dir_ / "f").c_str(), O_WRONLY | O_TRUNC));
  f.reset();
  EXPECT_THAT(Events(),
              ElementsAre("d OPEN f", "f OPEN", "d MODIFY f", "f MODIFY", "d CLOSE_WRITE f", "f CLOSE_WRITE"));
}

TEST_F(Inotify, OnlyTheLastReferenceCloses) {
  Watch("f", dir_.File("f"));
  ScopedFd f(open((dir_ / "f").c_str(), O_RDONLY));
  ScopedFd copy(dup(f.get()));
  f.reset();
  EXPECT_EQ(RunChild([] { return 0; }), 0);
  EXPECT_THAT(Events(), ElementsAre("f OPEN"));
  copy.reset();
  EXPECT_THAT(Events(), ElementsAre("f CLOSE_NOWRITE"));
}

TEST_F(Inotify, AMappingKeepsTheFileOpen) {
  Watch("f", dir_.File("f", "text"));
  ScopedFd f(open((dir_ / "f").c_str(), O_RDWR));
  void* p = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f.get(), 0);
  ASSERT_NE(p, MAP_FAILED);
  static_cast<volatile char*>(p)[0] = 'T';
  f.reset();
  // What is done to mapped memory is not told.
  EXPECT_THAT(Events(), ElementsAre("f OPEN"));
  ASSERT_OK(munmap(p, 4096));
  EXPECT_THAT(Events(), ElementsAre("f CLOSE_WRITE"));
}

TEST_F(Inotify, APlaceIsNotOpened) {
  Watch("f", dir_.File("f"));
  ScopedFd(open((dir_ / "f").c_str(), O_PATH)).reset();
  struct stat st{};
  ASSERT_OK(stat((dir_ / "f").c_str(), &st));
  ASSERT_OK(access((dir_ / "f").c_str(), R_OK));
  EXPECT_THAT(Events(), IsEmpty());
}

TEST_F(Inotify, Attributes) {
  const std::string file = dir_.File("f", "text");
  const char* path = file.c_str();
  Watch("d", dir_.path());
  ASSERT_OK(chmod(path, 0600));
  EXPECT_THAT(Events(), ElementsAre("d ATTRIB f"));
  ASSERT_OK(chown(path, getuid(), getgid()));
  EXPECT_THAT(Events(), ElementsAre("d ATTRIB f"));
  ASSERT_OK(utimensat(AT_FDCWD, path, nullptr, 0));
  EXPECT_THAT(Events(), ElementsAre("d ATTRIB f"));
  // As Linux has it, one time alone looks like what would have set it.
  const timespec access_only[] = {{1, 0}, {0, UTIME_OMIT}}, modification_only[] = {{0, UTIME_OMIT}, {1, 0}};
  ASSERT_OK(utimensat(AT_FDCWD, path, access_only, 0));
  ASSERT_OK(utimensat(AT_FDCWD, path, modification_only, 0));
  EXPECT_THAT(Events(), ElementsAre("d ACCESS f", "d MODIFY f"));
  ASSERT_OK(truncate(path, 100));
  EXPECT_THAT(Events(), ElementsAre("d MODIFY f"));
  if (setxattr(path, "user.a", "b", 1, 0) == 0) {
    EXPECT_THAT(Events(), ElementsAre("d ATTRIB f"));
    ASSERT_OK(removexattr(path, "user.a"));
    EXPECT_THAT(Events(), ElementsAre("d ATTRIB f"));
  }
  ScopedFd f(open(path, O_RDWR));
  ASSERT_OK(fchmod(f.get(), 0644));
  ASSERT_OK(ftruncate(f.get(), 5));
  EXPECT_THAT(Events(), ElementsAre("d OPEN f", "d ATTRIB f", "d MODIFY f"));
  if (fallocate(f.get(), 0, 0, 10) == 0) {
    EXPECT_THAT(Events(), ElementsAre("d MODIFY f"));
  }
  ASSERT_OK(chmod(dir_.path().c_str(), 0700));
  EXPECT_THAT(Events(), ElementsAre("d ATTRIB|ISDIR"));
}

TEST_F(Inotify, Directories) {
  Watch("d", dir_.path());
  ASSERT_OK(mkdir((dir_ / "s").c_str(), 0755));
  Watch("s", dir_ / "s");
  EXPECT_THAT(Events(), ElementsAre("d CREATE|ISDIR s"));
  DIR* s = opendir((dir_ / "s").c_str());
  ASSERT_NE(s, nullptr);
  EXPECT_THAT(Events(), ElementsAre("d OPEN|ISDIR s", "s OPEN|ISDIR"));
  ASSERT_NE(readdir(s), nullptr);
  EXPECT_THAT(Events(), ElementsAre("d ACCESS|ISDIR s", "s ACCESS|ISDIR"));
  ASSERT_OK(closedir(s));
  EXPECT_THAT(Events(), ElementsAre("d CLOSE_NOWRITE|ISDIR s", "s CLOSE_NOWRITE|ISDIR"));
  ASSERT_OK(rmdir((dir_ / "s").c_str()));
  EXPECT_THAT(Events(), ElementsAre("s DELETE_SELF", "s IGNORED", "d DELETE|ISDIR s"));
}

TEST_F(Inotify, WhatIsMadeWithoutOpening) {
  Watch("d", dir_.path());
  ASSERT_OK(symlink("x", (dir_ / "link").c_str()));
  ASSERT_OK(mkfifo((dir_ / "fifo").c_str(), 0644));
  ASSERT_OK(mknod((dir_ / "node").c_str(), S_IFREG | 0644, 0));
  ScopedFd s(socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_OK(Bind(s, At(dir_ / "socket")));
  char text[8];
  ASSERT_OK(readlink((dir_ / "link").c_str(), text, sizeof(text)));
  EXPECT_THAT(Events(), ElementsAre("d CREATE link", "d CREATE fifo", "d CREATE node", "d CREATE socket"));
}

TEST_F(Inotify, CopiesInsideTheKernel) {
  ScopedFd from = dir_.Open("from", "hello"), to = dir_.Open("to");
  Watch("d", dir_.path());
  off_t at = 0;
  ASSERT_RETURNS(sendfile(to.get(), from.get(), &at, 5), 5);
  EXPECT_THAT(Events(), ElementsAre("d ACCESS from", "d MODIFY to"));
  loff_t in = 0;
  ASSERT_RETURNS(copy_file_range(from.get(), &in, to.get(), nullptr, 5, 0), 5);
  EXPECT_THAT(Events(), ElementsAre("d ACCESS from", "d MODIFY to"));
  int ends[2];
  ASSERT_OK(pipe(ends));
  in = 0;
  ASSERT_RETURNS(splice(from.get(), &in, ends[1], nullptr, 5, 0), 5);
  ASSERT_RETURNS(splice(ends[0], nullptr, to.get(), nullptr, 5, 0), 5);
  EXPECT_THAT(Events(), ElementsAre("d ACCESS from", "d MODIFY to"));
  close(ends[0]);
  close(ends[1]);
}

TEST_F(Inotify, AProgramThatIsRunIsOpenedAndRead) {
  // This program's own file, which may be on a file system where nothing can be made.
  ScopedFd self(open("/proc/self/exe", O_RDONLY)), copy = dir_.Open("program");
  struct stat st{};
  ASSERT_OK(fstat(self.get(), &st));
  for (off_t at = 0; at < st.st_size;) ASSERT_GT(sendfile(copy.get(), self.get(), &at, 1 << 20), 0);
  ASSERT_OK(fchmod(copy.get(), 0755));
  copy.reset();
  Watch("p", dir_ / "program");
  const std::string path = dir_ / "program";
  EXPECT_EQ(RunChild([&] {
              ScopedFd null(open("/dev/null", O_WRONLY));
              dup2(null.get(), STDOUT_FILENO);
              execl(path.c_str(), "program", "--gtest_list_tests", nullptr);
              return 1;
            }),
            0);
  EXPECT_THAT(Events(), ElementsAre("p OPEN", "p ACCESS", "p CLOSE_NOWRITE"));
}

// --- names

TEST_F(Inotify, LinksAndTheLastOfThem) {
  const std::string file = dir_.File("f"), other = dir_ / "g";
  Watch("f", file);
  Watch("d", dir_.path());
  ASSERT_OK(link(file.c_str(), other.c_str()));
  EXPECT_THAT(Events(), ElementsAre("f ATTRIB", "d CREATE g"));
  // The name that it was found by goes first.
  ASSERT_OK(unlink(file.c_str()));
  EXPECT_THAT(Events(), ElementsAre("f ATTRIB", "d DELETE f"));
  ASSERT_OK(chmod(other.c_str(), 0600));
  EXPECT_THAT(Events(), ElementsAre("d ATTRIB g", "f ATTRIB"));
  ASSERT_OK(unlink(other.c_str()));
  EXPECT_THAT(Events(), ElementsAre("f ATTRIB", "f DELETE_SELF", "f IGNORED", "d DELETE g"));
}

TEST_F(Inotify, AnOpenFileOutlivesItsName) {
  const std::string file = dir_.File("f");
  Watch("f", file);
  Watch("d", dir_.path());
  ScopedFd f(open(file.c_str(), O_RDWR));
  ASSERT_OK(unlink(file.c_str()));
  EXPECT_THAT(Events(), ElementsAre("d OPEN f", "f OPEN", "f ATTRIB", "d DELETE f"));
  ASSERT_RETURNS(write(f.get(), "x", 1), 1);
  EXPECT_THAT(Events(), ElementsAre("d MODIFY f", "f MODIFY"));
  f.reset();
  EXPECT_THAT(Events(), ElementsAre("d CLOSE_WRITE f", "f CLOSE_WRITE", "f DELETE_SELF", "f IGNORED"));
}

TEST_F(Inotify, ExclUnlinkHearsNothingOfTheNameless) {
  const std::string file = dir_.File("f");
  Watch("f", file, IN_ALL_EVENTS | IN_EXCL_UNLINK);
  Watch("d", dir_.path(), IN_ALL_EVENTS | IN_EXCL_UNLINK);
  ScopedFd f(open(file.c_str(), O_RDWR));
  ASSERT_OK(unlink(file.c_str()));
  Events();
  ASSERT_RETURNS(write(f.get(), "x", 1), 1);
  EXPECT_THAT(Events(), IsEmpty());
  // What is done to the file and not by reading or writing is told all the same.
  ASSERT_OK(fchmod(f.get(), 0600));
  EXPECT_THAT(Events(), ElementsAre("d ATTRIB f", "f ATTRIB"));
  f.reset();
  EXPECT_THAT(Events(), ElementsAre("f DELETE_SELF", "f IGNORED"));
}

TEST_F(Inotify, Renaming) {
  const std::string file = dir_.File("f"), to = dir_ / "t";
  Watch("f", file);
  Watch("d", dir_.path());
  ASSERT_OK(rename(file.c_str(), to.c_str()));
  EXPECT_THAT(Events(), ElementsAre("d MOVED_FROM f", "d MOVED_TO t", "f MOVE_SELF"));
  // It is watched under its new name, and goes by that.
  ScopedFd(open(to.c_str(), O_RDONLY)).reset();
  EXPECT_THAT(Events(), ElementsAre("d OPEN t", "f OPEN", "d CLOSE_NOWRITE t", "f CLOSE_NOWRITE"));
  ASSERT_OK(rename(to.c_str(), to.c_str()));
  EXPECT_THAT(Events(), IsEmpty());
}

TEST_F(Inotify, TheTwoEventsOfARenameHaveACookie) {
  dir_.Dir("a");
  dir_.Dir("b");
  dir_.File("a/f");
  const int a = Watch("a", dir_ / "a"), b = Watch("b", dir_ / "b");
  ASSERT_OK(rename((dir_ / "a/f").c_str(), (dir_ / "b/g").c_str()));
  ASSERT_OK(rename((dir_ / "b/g").c_str(), (dir_ / "a/f").c_str()));
  std::vector<Event> events = ReadOnce(fd_.get());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].wd, a);
  EXPECT_EQ(events[0].mask, static_cast<uint32_t>(IN_MOVED_FROM));
  EXPECT_EQ(events[1].wd, b);
  EXPECT_EQ(events[1].mask, static_cast<uint32_t>(IN_MOVED_TO));
  EXPECT_NE(events[0].cookie, 0u);
  EXPECT_EQ(events[0].cookie, events[1].cookie);
  EXPECT_EQ(events[2].cookie, events[3].cookie);
  EXPECT_NE(events[0].cookie, events[2].cookie);
  dir_.File("a/g");
  for (const Event& e : ReadOnce(fd_.get())) EXPECT_EQ(e.cookie, 0u);
}

TEST_F(Inotify, RenamingOverAFileAndADirectory) {
  const std::string file = dir_.File("f"), old = dir_.File("old"), s = dir_.Dir("s"), e = dir_.Dir("e");
  Watch("f", file);
  Watch("old", old);
  Watch("e", e);
  Watch("d", dir_.path());
  ASSERT_OK(rename(file.c_str(), old.c_str()));
  EXPECT_THAT(Events(), ElementsAre("d MOVED_FROM f", "d MOVED_TO old", "old ATTRIB", "f MOVE_SELF", "old DELETE_SELF",
                                    "old IGNORED"));
  ASSERT_OK(rename(s.c_str(), e.c_str()));
  EXPECT_THAT(Events(), ElementsAre("d MOVED_FROM|ISDIR s", "d MOVED_TO|ISDIR e", "e ATTRIB|ISDIR", "e DELETE_SELF",
                                    "e IGNORED"));
}

TEST_F(Inotify, ExchangingIsTwoRenames) {
  const std::string file = dir_.File("f"), s = dir_.Dir("s");
  Watch("f", file);
  Watch("d", dir_.path());
  if (renameat2(AT_FDCWD, file.c_str(), AT_FDCWD, s.c_str(), RENAME_EXCHANGE) != 0) {
    ASSERT_EQ(errno, EINVAL);
    GTEST_SKIP() << "not on this file system";
  }
  EXPECT_THAT(Events(), ElementsAre("d MOVED_FROM f", "d MOVED_TO s", "f MOVE_SELF", "d MOVED_FROM|ISDIR s",
                                    "d MOVED_TO|ISDIR f"));
}

TEST_F(Inotify, AFileWithoutAName) {
  Watch("d", dir_.path());
  ScopedFd f(open(dir_.path().c_str(), O_TMPFILE | O_RDWR, 0600));
  if (f.get() < 0) GTEST_SKIP() << "not on this file system";
  const std::string place = "/proc/self/fd/" + std::to_string(f.get());
  Watch("f", place);
  Events();
  ASSERT_OK(linkat(AT_FDCWD, place.c_str(), AT_FDCWD, (dir_ / "t").c_str(), AT_SYMLINK_FOLLOW));
  EXPECT_THAT(Events(), ElementsAre("f ATTRIB", "d CREATE t"));
  f.reset();
  Events();
  // It has a name now, so closing was not the end.
  ASSERT_OK(chmod((dir_ / "t").c_str(), 0644));
  EXPECT_THAT(Events(), ElementsAre("d ATTRIB t", "f ATTRIB"));
  f.reset(open(dir_.path().c_str(), O_TMPFILE | O_RDWR, 0600));
  Watch("g", "/proc/self/fd/" + std::to_string(f.get()), IN_DELETE_SELF);
  Watch("d", dir_.path(), IN_DELETE);
  Events();
  f.reset();
  EXPECT_THAT(Events(), ElementsAre("g DELETE_SELF", "g IGNORED"));
}

// --- reading

TEST_F(Inotify, NamesArePadded) {
  Watch("d", dir_.path(), IN_CREATE);
  dir_.File("a");
  dir_.File(std::string(15, 'b'));
  dir_.File(std::string(16, 'c'));
  dir_.File(std::string(255, 'd'));
  std::vector<Event> events = ReadOnce(fd_.get());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].len, 16u);
  EXPECT_EQ(events[1].len, 16u);
  EXPECT_EQ(events[2].len, 32u);
  EXPECT_EQ(events[3].len, 256u);
  EXPECT_EQ(events[3].name, std::string(255, 'd'));
}

TEST_F(Inotify, ReadGivesWholeEvents) {
  Watch("d", dir_.path(), IN_CREATE);
  char bytes[256];
  // What would be too small for any is not looked at while there is none.
  EXPECT_ERRNO(read(fd_.get(), bytes, 1), EAGAIN);
  dir_.File("a");
  dir_.File("b");
  dir_.File("c");
  int n = 0;
  EXPECT_OK(ioctl(fd_.get(), FIONREAD, &n));
  EXPECT_EQ(n, 96);
  EXPECT_ERRNO(read(fd_.get(), bytes, sizeof(inotify_event)), EINVAL);
  EXPECT_ERRNO(read(fd_.get(), bytes, 31), EINVAL);
  EXPECT_RETURNS(read(fd_.get(), bytes, 32), 32);
  EXPECT_RETURNS(read(fd_.get(), bytes, sizeof(bytes)), 64);
  EXPECT_OK(ioctl(fd_.get(), FIONREAD, &n));
  EXPECT_EQ(n, 0);
}

TEST_F(Inotify, ReadInPieces) {
  Watch("d", dir_.path(), IN_CREATE);
  dir_.File("a");
  dir_.File("b");
  char bytes[63];
  EXPECT_RETURNS(read(fd_.get(), bytes, sizeof(bytes)), 32);
  EXPECT_ERRNO(syscall(SYS_read, fd_.get(), 8L, 100L), EFAULT);
}

TEST_F(Inotify, TheSameAsTheLastIsToldOnce) {
  const std::string file = dir_.File("f");
  Watch("f", file, IN_ATTRIB | IN_OPEN);
  for (int i = 0; i < 3; i++) ASSERT_OK(chmod(file.c_str(), 0600));
  ScopedFd(open(file.c_str(), O_RDONLY)).reset();
  ASSERT_OK(chmod(file.c_str(), 0600));
  EXPECT_THAT(Events(), ElementsAre("f ATTRIB", "f OPEN", "f ATTRIB"));
}

TEST_F(Inotify, ReadWaits) {
  ASSERT_OK(fcntl(fd_.get(), F_SETFL, 0));
  Watch("d", dir_.path(), IN_CREATE);
  const pid_t pid = getpid(), tid = gettid();
  std::thread maker([&] {
    EXPECT_TRUE(WaitUntilAsleep(pid, tid));
    dir_.File("a");
  });
  std::vector<Event> events = ReadOnce(fd_.get());
  maker.join();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].name, "a");
}

TEST_F(Inotify, PollAndEpoll) {
  Watch("d", dir_.path(), IN_CREATE);
  ScopedFd ep(epoll_create1(0));
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  ASSERT_OK(epoll_ctl(ep.get(), EPOLL_CTL_ADD, fd_.get(), &event));
  pollfd p{fd_.get(), POLLIN | POLLOUT, 0};
  EXPECT_RETURNS(poll(&p, 1, 0), 0);
  EXPECT_RETURNS(epoll_wait(ep.get(), &event, 1, 0), 0);
  dir_.File("a");
  EXPECT_RETURNS(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLIN);
  EXPECT_RETURNS(epoll_wait(ep.get(), &event, 1, 0), 1);
  EXPECT_RETURNS(epoll_wait(ep.get(), &event, 1, 0), 0);
  Events();
  EXPECT_RETURNS(poll(&p, 1, 0), 0);
}

TEST_F(Inotify, Sigio) {
  Watch("d", dir_.path(), IN_CREATE);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGIO);
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &set, nullptr), 0);
  ASSERT_OK(fcntl(fd_.get(), F_SETOWN, getpid()));
  ASSERT_OK(fcntl(fd_.get(), F_SETFL, O_ASYNC | O_NONBLOCK));
  dir_.File("a");
  const timespec five = {5, 0};
  EXPECT_RETURNS(sigtimedwait(&set, nullptr, &five), SIGIO);
}

// --- bounds

int64_t Sysctl(const std::string& name) {
  int64_t value = -1;
  std::ifstream("/proc/sys/fs/inotify/" + name) >> value;
  return value;
}

TEST_F(Inotify, MoreThanTheQueueHoldsOverflows) {
  const int64_t most = Sysctl("max_queued_events");
  ASSERT_GT(most, 2);
  ASSERT_LT(most, 1 << 20);
  const std::string file = dir_.File("f");
  Watch("f", file, IN_ATTRIB | IN_OPEN | IN_CLOSE);
  for (int64_t i = 0; i < most; i++) ScopedFd(open(file.c_str(), O_RDONLY)).reset();
  std::vector<std::string> events = Events();
  ASSERT_EQ(events.size(), static_cast<size_t>(most) + 1);
  EXPECT_EQ(events.back(), "- Q_OVERFLOW");
  ASSERT_OK(chmod(file.c_str(), 0600));
  EXPECT_THAT(Events(), ElementsAre("f ATTRIB"));
}

TEST_F(Inotify, InstancesOfAUserAreCounted) {
  const int64_t most = Sysctl("max_user_instances");
  ASSERT_GT(most, 0);
  ASSERT_LT(most, 1000);
  EXPECT_EQ(RunAsNobody([&] {
              std::vector<ScopedFd> all;
              while (static_cast<int64_t>(all.size()) < most) {
                ScopedFd fd(inotify_init());
                if (fd.get() < 0) break;
                all.push_back(std::move(fd));
              }
              EXPECT_EQ(static_cast<int64_t>(all.size()), most);
              EXPECT_ERRNO(inotify_init(), EMFILE);
              all.pop_back();
              ScopedFd again(inotify_init());
              EXPECT_OK(again.get());
            }),
            0);
}

TEST_F(Inotify, LimitsCanBeRead) {
  EXPECT_GT(Sysctl("max_queued_events"), 0);
  EXPECT_GT(Sysctl("max_user_instances"), 0);
  EXPECT_GE(Sysctl("max_user_watches"), 8192);
}

// --- mounts, descriptors, several who watch

TEST_F(Inotify, UnmountingEndsTheWatches) {
  const std::string at = dir_.Dir("m");
  EXPECT_EQ(RunChild([&] {
              if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
                EXPECT_EQ(errno, EPERM);
                return 0;
              }
              EXPECT_OK(mount("none", at.c_str(), "tmpfs", 0, nullptr));
              ScopedFd f(open((at + "/f").c_str(), O_CREAT | O_WRONLY, 0644));
              f.reset();
              Watch("m", at, IN_OPEN);
              Watch("f", at + "/f", IN_OPEN);
              // A watch is not a use.
              EXPECT_OK(umount(at.c_str()));
              EXPECT_THAT(Events(),
                          ::testing::UnorderedElementsAre("m UNMOUNT|ISDIR", "m IGNORED", "f UNMOUNT", "f IGNORED"));
              return 0;
            }),
            0);
}

TEST_F(Inotify, SeveralInstancesHearTheSame) {
  ScopedFd second(inotify_init1(IN_NONBLOCK));
  Watch("d", dir_.path(), IN_CREATE);
  ASSERT_OK(inotify_add_watch(second.get(), dir_.path().c_str(), IN_CREATE | IN_DELETE));
  const std::string file = dir_.File("f");
  ASSERT_OK(unlink(file.c_str()));
  EXPECT_THAT(Events(), ElementsAre("d CREATE f"));
  EXPECT_EQ(ReadOnce(second.get()).size(), 2u);
  // One that is closed takes its watches along.
  second.reset();
  dir_.File("g");
  EXPECT_THAT(Events(), ElementsAre("d CREATE g"));
}

TEST_F(Inotify, FdinfoTellsTheWatches) {
  const std::string file = dir_.File("f");
  Watch("f", file, IN_OPEN | IN_CLOSE_WRITE);
  struct stat st{};
  ASSERT_OK(stat(file.c_str(), &st));
  char line[128];
  snprintf(line, sizeof(line), "inotify wd:1 ino:%lx sdev:%x mask:28 ignored_mask:0 ", st.st_ino,
           major(st.st_dev) << 20 | minor(st.st_dev));
  EXPECT_THAT(ReadAll("/proc/self/fdinfo/" + std::to_string(fd_.get())), ::testing::HasSubstr(line));
}

TEST_F(Inotify, AnotherProcessIsHeard) {
  Watch("d", dir_.path(), IN_CREATE | IN_CLOSE_WRITE);
  EXPECT_EQ(RunChild([&] {
              dir_.File("f", "x");
              return 0;
            }),
            0);
  EXPECT_THAT(Events(), ElementsAre("d CREATE f", "d CLOSE_WRITE f"));
}

TEST_F(Inotify, PipesCanBeWatched) {
  int ends[2];
  ASSERT_OK(pipe(ends));
  Watch("p", "/proc/self/fd/" + std::to_string(ends[0]), IN_MODIFY | IN_ACCESS);
  ASSERT_RETURNS(write(ends[1], "x", 1), 1);
  char c;
  ASSERT_RETURNS(read(ends[0], &c, 1), 1);
  EXPECT_THAT(Events(), ElementsAre("p MODIFY", "p ACCESS"));
  close(ends[0]);
  close(ends[1]);
}

TEST_F(Inotify, WatchesComeAndGoWhileFilesDo) {
  constexpr int kRounds = 100;
  const std::string a = dir_ / "a", b = dir_ / "b";
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    for (int i = 0; i < kRounds; i++) {
      ScopedFd(open(a.c_str(), O_CREAT | O_RDWR, 0644)).reset();
      rename(a.c_str(), b.c_str());
      unlink(b.c_str());
    }
  });
  threads.emplace_back([&] {
    for (int i = 0; i < kRounds; i++) {
      const int wd = inotify_add_watch(fd_.get(), (i % 2 != 0 ? a : b).c_str(), IN_ALL_EVENTS);
      if (wd > 0 && i % 3 == 0) inotify_rm_watch(fd_.get(), wd);
    }
  });
  threads.emplace_back([&] {
    for (int i = 0; i < kRounds; i++) {
      ScopedFd fd(inotify_init1(IN_NONBLOCK));
      inotify_add_watch(fd.get(), a.c_str(), IN_ALL_EVENTS | (i % 2 != 0 ? IN_ONESHOT : 0));
      inotify_add_watch(fd.get(), dir_.path().c_str(), IN_ALL_EVENTS);
      ReadOnce(fd.get());
    }
  });
  for (std::thread& t : threads) t.join();
  // With all files gone each watch of them has ended, once.
  std::map<int, int> ended;
  for (std::vector<Event> events; !(events = ReadOnce(fd_.get())).empty();) {
    for (const Event& e : events) {
      EXPECT_EQ(ended[e.wd], 0) << e.wd;
      if ((e.mask & IN_IGNORED) != 0) ended[e.wd]++;
    }
  }
  for (auto [wd, count] : ended) {
    EXPECT_EQ(count, 1) << wd;
  }
}

}  // namespace
}  // namespace redoubt::testing
