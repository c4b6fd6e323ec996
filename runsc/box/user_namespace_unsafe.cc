#include <fcntl.h>
#include <grp.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "runsc/box/user_namespace.h"
#include "runsc/box/walls_unsafe.h"

namespace redoubt::box {
namespace {

// What a child tells its parent of.
struct Report {
  int error = 0;
  pid_t pid = 0;  // as /proc has it
};

// A forked process of which one thing is wanted and which waits until it is let go, or its parent ends.
class Helper final {
 public:
  // `work` is run in the child, and is 0 or an errno.
  template <typename F>
  explicit Helper(F work) {
    if (pipe2(up_, O_CLOEXEC) != 0 || pipe2(down_, O_CLOEXEC) != 0) {
      error_ = errno;
      return;
    }
    pid_ = fork();
    if (pid_ < 0) {
      error_ = errno;
      return;
    }
    if (pid_ == 0) {
      close(down_[1]);
      Report report{.error = work(), .pid = OutsidePid()};
      (void)!write(up_[1], &report, sizeof(report));
      char byte = 0;
      (void)!read(down_[0], &byte, 1);
      _exit(0);
    }
    close(up_[1]);
    up_[1] = -1;
    Report report;
    ssize_t n = 0;
    while ((n = read(up_[0], &report, sizeof(report))) < 0 && errno == EINTR) {
    }
    error_ = n == sizeof(report) ? report.error : ECHILD;
    outside_ = report.pid;
    if (error_ == 0 && outside_ <= 0) error_ = ENOENT;
  }
  ~Helper() {
    for (int fd : {up_[0], up_[1], down_[0], down_[1]}) {
      if (fd >= 0) close(fd);
    }
    while (pid_ > 0 && waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;

  int error() const { return error_; }
  std::string File(const char* name) const { return "/proc/" + std::to_string(outside_) + "/" + name; }

 private:
  int up_[2] = {-1, -1}, down_[2] = {-1, -1};
  pid_t pid_ = -1, outside_ = 0;
  int error_ = 0;
};

int WriteMap(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : errno;
  close(fd);
  return error;
}

int ReadAll(int fd, std::string* text) {
  char buffer[4096];
  ssize_t n = 0;
  while ((n = read(fd, buffer, sizeof(buffer))) > 0) text->append(buffer, static_cast<size_t>(n));
  return n < 0 ? errno : 0;
}

int ReadFile(const char* path, std::string* text) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = ReadAll(fd, text);
  close(fd);
  return error;
}

int NewUserNamespaceWith(const IdMaps& ids, int* fd) {
  Helper child([] {
    if (int e = NewNamespace(CLONE_NEWUSER); e != 0) return e;
    // Its /proc is the parent's to write, which may be root of a user namespace only.
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0 ? errno : 0;
  });
  if (child.error() != 0) return child.error();
  if (int e = WriteMap(child.File("uid_map"), ids.uids); e != 0) return e;
  if (int e = WriteMap(child.File("gid_map"), ids.gids); e != 0) return e;
  *fd = open(child.File("ns/user").c_str(), O_RDONLY | O_CLOEXEC);
  return *fd < 0 ? errno : 0;
}

}  // namespace

int MakeUserNamespace(const IdMaps& ids) {
  int fd = -1;
  const int error = NewUserNamespaceWith(ids, &fd);
  if (error != 0) errno = error;
  return fd;
}

int EnterUserNamespace(int user_namespace, uid_t uid, gid_t gid) {
  if (setns(user_namespace, CLONE_NEWUSER) != 0) return errno;
  if (setgroups(0, nullptr) != 0) return errno;
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return errno;
  if (setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0) return errno;
  // The change has taken the right to open the own /proc.
  return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0 ? errno : 0;
}

int MapTree(int tree, int user_namespace, bool recursive) {
  mount_attr a{};
  a.attr_set = MOUNT_ATTR_IDMAP;
  a.userns_fd = static_cast<uint64_t>(user_namespace);
  const unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0U);
  return syscall(SYS_mount_setattr, tree, "", flags, &a, sizeof(a)) != 0 ? errno : 0;
}

std::string CannotMap(const std::string& tree, int error) {
  return "cannot map the IDs of " + tree + ": " + std::strerror(error) +
         (error == EINVAL ? "; its file system may not have ID-mapped mounts" : "");
}

int ReadUserNamespace(const std::string& path, IdMaps* ids) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int texts = memfd_create("runsc-ids", MFD_CLOEXEC);
  int error = texts < 0 ? errno : 0;
  if (error == 0) {
    // What a process reads of its own namespace is in the IDs of the one above.
    Helper child([&] {
      if (setns(fd, CLONE_NEWUSER) != 0) return errno;
      std::string uids, gids;
      if (int e = ReadFile("/proc/self/uid_map", &uids); e != 0) return e;
      if (int e = ReadFile("/proc/self/gid_map", &gids); e != 0) return e;
      const std::string both = uids + '\0' + gids;
      return pwrite(texts, both.data(), both.size(), 0) == static_cast<ssize_t>(both.size()) ? 0 : errno;
    });
    error = child.error();
  }
  std::string both;
  if (error == 0) error = ReadAll(texts, &both);
  close(texts);
  close(fd);
  if (error != 0) return error;
  const size_t middle = both.find('\0');
  *ids = {.uids = both.substr(0, middle), .gids = both.substr(middle + 1)};
  return 0;
}

bool HasOneId() { return geteuid() != 0 || RootlessIds().has_value(); }

}  // namespace redoubt::box
