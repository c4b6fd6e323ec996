/* Bombs: each takes as much as it gets of one thing, until it is refused or five seconds are over, says how often it
 * got it, and holds it until it is killed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double Now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}
static double end;
static char page[65536];

/* One more; -1 with errno if it is refused. */
static int Fork(long n) {
  (void)n;
  pid_t p = fork();
  if (p == 0) {
    /* They fork too. */
    while (Now() < end)
      if (fork() < 0) usleep(10000);
    for (;;) pause();
  }
  return p;
}
static void* Sleep(void* arg) {
  for (;;) pause();
  return arg;
}
static int Thread(long n) {
  (void)n;
  static pthread_attr_t small;
  static int set;
  if (!set++) pthread_attr_init(&small), pthread_attr_setstacksize(&small, 16384);
  pthread_t t;
  int e = pthread_create(&t, &small, Sleep, 0);
  errno = e;
  return e ? -1 : 0;
}
static int Memory(long n) {
  (void)n;
  char* p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return -1;
  memset(p, 1, 1 << 20);
  return 0;
}
static int Descriptor(long n) {
  (void)n;
  return open("/bin/busybox", O_RDONLY);
}
static int Event(long n) {
  (void)n;
  return eventfd(0, 0);
}
static int Disk(long n) {
  static int fd = -1;
  (void)n;
  if (fd < 0) fd = open("/fill", O_WRONLY | O_CREAT, 0600);
  return write(fd, page, sizeof page) == sizeof page ? 0 : -1;
}
static int Tmpfs(long n) {
  static int fd = -1;
  (void)n;
  if (fd < 0) fd = open("/tmp/fill", O_WRONLY | O_CREAT, 0600);
  return write(fd, page, sizeof page) == sizeof page ? 0 : -1;
}
static int Inode(long n) {
  char name[64];
  snprintf(name, sizeof name, "/tmp/%ld", n);
  return mknod(name, S_IFREG | 0600, 0);
}
static int Pipe(long n) {
  int p[2];
  (void)n;
  if (pipe2(p, O_NONBLOCK) < 0) return -1;
  fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
  while (write(p[1], page, sizeof page) > 0) {
  }
  return 0;
}
static int Socket(long n) {
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int fd = socket(AF_INET, n % 2 ? SOCK_STREAM : SOCK_DGRAM, 0);
  return fd < 0 ? -1 : bind(fd, (struct sockaddr*)&any, sizeof any);
}
static int Buffers(long n) {
  int p[2];
  (void)n;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p) < 0) return -1;
  while (write(p[1], page, sizeof page) > 0) {
  }
  return 0;
}
/* Pairs that are nowhere but in each other's messages. */
static int Rights(long n) {
  int p[2];
  (void)n;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, p) < 0) return -1;
  for (int i = 0; i < 2; i++) {
    struct iovec v = {page, 1};
    union {
      char bytes[CMSG_SPACE(sizeof p)];
      struct cmsghdr header;
    } c;
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c.bytes, .msg_controllen = sizeof c.bytes};
    c.header.cmsg_len = CMSG_LEN(sizeof p);
    c.header.cmsg_level = SOL_SOCKET;
    c.header.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&c.header), p, sizeof p);
    if (sendmsg(p[i], &m, MSG_DONTWAIT) < 0) {
      close(p[0]), close(p[1]);
      return -1;
    }
  }
  close(p[0]), close(p[1]);
  return 0;
}
static int Epoll(long n) {
  static int below = -1;
  (void)n;
  int e = epoll_create1(0);
  if (e < 0) return -1;
  if (below >= 0) {
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(e, EPOLL_CTL_ADD, below, &event) < 0) {
      if (errno != ELOOP) return -1;
      /* The nest is as deep as it may be: another. */
      below = -1;
    }
  }
  below = e;
  return 0;
}
static int Log(long n) { return syscall(100000 + n % 1000) < 0 && errno == ENOSYS ? 0 : -1; }
static int Signal(long n) {
  static sigset_t all;
  if (n == 0) sigfillset(&all), sigprocmask(SIG_BLOCK, &all, 0);
  return sigqueue(getpid(), SIGRTMIN, (union sigval){0});
}

int main(int argc, char** argv) {
  static const struct {
    const char* name;
    int (*one)(long);
  } kinds[] = {{"fork", Fork},   {"thread", Thread}, {"memory", Memory},   {"descriptor", Descriptor},
               {"event", Event}, {"disk", Disk},     {"tmpfs", Tmpfs},     {"inode", Inode},
               {"pipe", Pipe},   {"socket", Socket}, {"buffers", Buffers}, {"rights", Rights},
               {"epoll", Epoll}, {"log", Log},       {"signal", Signal}};
  struct rlimit files;
  if (argc < 3) return 2;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  end = Now() + atof(argv[2]);
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    if (strcmp(argv[1], kinds[k].name)) continue;
    long n = 0;
    while (Now() < end && kinds[k].one(n) >= 0) n++;
    int e = errno;
    if (Now() < end)
      dprintf(1, "%s: %ld, then %s\n", argv[1], n, strerrorname_np(e));
    else
      dprintf(1, "%s: %ld, never refused\n", argv[1], n);
    return 0;
  }
  return 2;
}
