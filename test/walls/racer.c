/* Inside a sandbox: what a file system, a path or a structure says, while others change it. Writes what it must never
 * see. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double Now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}
static double end;
static long tries, seen[3];

/* Reads and makes files below a directory that the host swaps with a symbolic link out of the tree. */
static void Swaps(void) {
  char name[64], text[64];
  for (long n = 0; Now() < end || ((tries < 200 || !seen[1]) && Now() < end + 20); n++) {
    snprintf(name, sizeof name, "/spin/d/x%ld", n % 200);
    int fd = open(name, O_RDONLY);
    if (fd >= 0) {
      ssize_t got = read(fd, text, sizeof text - 1);
      text[got > 0 ? got : 0] = 0;
      if (strstr(text, "canary")) printf("READ %s: %s\n", name, text);
      seen[strncmp(text, "inside", 6) == 0]++;
      close(fd);
    }
    snprintf(name, sizeof name, "/spin/d/made%ld", n);
    fd = open(name, O_WRONLY | O_CREAT, 0600);
    if (fd >= 0) seen[2]++, close(fd), unlink(name);
    (void)!rename("/spin/d/a", "/spin/d/b");
    (void)!rename("/spin/d/b", "/spin/d/a");
    (void)!chmod("/spin/d/a", 0600 + n % 8);
    (void)!truncate("/spin/d/a", n % 8);
    tries++;
  }
}

static _Atomic int stop;
static struct {
  _Atomic unsigned char bytes[256];
}* flipped;
static const char *first, *second;
static size_t flip_at, flip_length;
static void* Flip(void* arg) {
  while (!stop) {
    for (size_t i = 0; i < flip_length; i++) flipped->bytes[flip_at + i] = first[i];
    for (size_t i = 0; i < flip_length; i++) flipped->bytes[flip_at + i] = second[i];
  }
  return arg;
}
static pthread_t Start(const void* a, const void* b, size_t at, size_t length) {
  pthread_t t;
  first = a, second = b, flip_at = at, flip_length = length, stop = 0;
  pthread_create(&t, 0, Flip, 0);
  return t;
}
static void End(pthread_t t) {
  stop = 1;
  pthread_join(t, 0);
}

/* A path of which the permission is checked and which is then opened: as nobody, so that "/secret" is out of reach. */
static void Paths(void) {
  memcpy(flipped, "/public", 8);
  pthread_t t = Start("/public", "/secret", 0, 7);
  char text[16];
  for (int n = 0; n < 20000; n++) {
    int fd = open((char*)flipped, O_RDONLY);
    if (fd < 0) {
      seen[0]++;
      continue;
    }
    ssize_t got = read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = 0;
    if (strstr(text, "secret")) printf("READ /secret\n");
    seen[1]++;
    close(fd);
  }
  End(t);
  tries += 20000;
}

/* The program and its first argument: what is executed is one of the two, with a whole argument. */
static void Programs(void) {
  memcpy(flipped, "/bin/racer", 11);
  pthread_t t = Start("/bin/racer", "/bin/nopes", 0, 10);
  for (int n = 0; n < 60; n++) {
    pid_t pid = vfork();
    if (pid == 0) {
      char* argv[] = {(char*)flipped, "noop", 0};
      execv((char*)flipped, argv);
      _exit(errno == EACCES || errno == ENOENT ? 3 : 4);
    }
    int status;
    waitpid(pid, &status, 0);
    if (status == 0)
      seen[1]++;
    else if (status == 3 << 8)
      seen[0]++;
    else
      printf("EXECVE: status %x\n", status);
  }
  End(t);
  tries += 60;
}

/* A socket's address: connected is to one of the two that listen, or to none. */
static void Addresses(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "\0first"},
                     b = {.sun_family = AF_UNIX, .sun_path = "\0other"};
  socklen_t length = offsetof(struct sockaddr_un, sun_path) + 6;
  int la = socket(AF_UNIX, SOCK_DGRAM, 0), lb = socket(AF_UNIX, SOCK_DGRAM, 0);
  bind(la, (struct sockaddr*)&a, length), bind(lb, (struct sockaddr*)&b, length);
  memcpy(flipped, &a, length);
  pthread_t t = Start(&a, &b, 0, length);
  for (int n = 0; n < 5000; n++) {
    int s = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (connect(s, (struct sockaddr*)flipped, length) == 0) {
      struct sockaddr_un peer;
      socklen_t size = sizeof peer;
      getpeername(s, (struct sockaddr*)&peer, &size);
      if (size != length || (memcmp(&peer, &a, length) && memcmp(&peer, &b, length))) printf("CONNECT: another\n");
      seen[memcmp(&peer, &a, length) == 0]++;
    }
    close(s);
  }
  End(t);
  tries += 5000;
}

/* A vector's length, small and enormous: what is sent is what the call says. */
static void Vectors(void) {
  int p[2];
  static char data[4096], sink[1 << 16];
  socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p);
  struct iovec small = {data, 16}, large = {data, (size_t)1 << 62};
  struct iovec* v = (struct iovec*)flipped;
  *v = small;
  struct msghdr m = {.msg_iov = v, .msg_iovlen = 1};
  pthread_t t = Start(&small.iov_len, &large.iov_len, offsetof(struct iovec, iov_len), sizeof(size_t));
  for (int n = 0; n < 20000; n++) {
    ssize_t sent = n % 2 ? writev(p[0], v, 1) : sendmsg(p[0], &m, 0);
    ssize_t got = 0;
    for (ssize_t r; (r = read(p[1], sink, sizeof sink)) > 0;) got += r;
    if (sent >= 0 ? got != sent : got != 0) printf("SENT %zd, got %zd\n", sent, got);
    seen[sent == 16]++;
  }
  End(t);
  /* More vectors than there may be, and more bytes than there are. */
  m.msg_iovlen = (size_t)1 << 40;
  if (sendmsg(p[0], &m, 0) >= 0 || errno != EMSGSIZE) printf("SENDMSG: %s\n", strerror(errno));
  small.iov_len = (size_t)-1;
  if (writev(p[0], &small, 1) >= 0 || errno != EINVAL) printf("WRITEV: %s\n", strerror(errno));
  tries += 20000;
}

int main(int argc, char** argv) {
  if (argc > 1 && !strcmp(argv[1], "noop")) return 0;
  if (argc < 3) return 2;
  flipped = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  end = Now() + atof(argv[2]);
  if (!strcmp(argv[1], "swaps")) {
    Swaps();
    printf("swaps: %s\n", tries >= 200 && seen[1] > 0 ? "enough" : "too few");
  } else {
    if (setgid(65534) || setuid(65534)) return 3;
    Paths();
    printf("paths: %s\n", seen[0] && seen[1] ? "both" : "one only");
    seen[0] = seen[1] = 0;
    Programs();
    printf("programs: %s\n", seen[0] + seen[1] == 60 ? "whole" : "broken");
    Addresses();
    Vectors();
    printf("done\n");
  }
  if (getenv("RACER_VERBOSE")) fprintf(stderr, "%ld tries, %ld %ld %ld\n", tries, seen[0], seen[1], seen[2]);
  return 0;
}
