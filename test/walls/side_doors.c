/* Inside a sandbox: what the kernel says of itself and of the host other than in files, and where a program's parts
 * lie. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

static int variable = 1;

int main(int argc, char** argv) {
  if (argc > 1 && !strcmp(argv[1], "layout")) {
    void* heap = malloc(100);
    void* map = mmap(0, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned long long canary;
    memcpy(&canary, (void*)getauxval(AT_RANDOM), 8);
    printf("stack %p\nheap %p\nbreak %p\nmmap %p\nprogram %p\nlibc %p\nvdso %#lx\nrandom %llx\n", (void*)&heap, heap,
           sbrk(0), map, (void*)&variable, (void*)&printf, getauxval(AT_SYSINFO_EHDR), canary);
    return 0;
  }
  struct utsname u;
  uname(&u);
  printf("uname %s|%s|%s|%s\n", u.sysname, u.nodename, u.release, u.version);
  struct ucred peer;
  socklen_t length = sizeof peer;
  /* Standard input is a socket of the host's. */
  if (getsockopt(0, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0) printf("peer %d %d\n", peer.pid, peer.uid);
  struct stat st;
  if (fstat(0, &st) == 0) printf("stdin dev %u:%u ino %lu\n", major(st.st_dev), minor(st.st_dev), st.st_ino);
  stat("/", &st);
  printf("root dev %u:%u\n", major(st.st_dev), minor(st.st_dev));
  struct statfs fs;
  statfs("/", &fs);
  printf("root fsid %lx\n", (unsigned)fs.f_fsid.__val[0] | (unsigned long)(unsigned)fs.f_fsid.__val[1] << 32);
  printf("ppid %d sid %d pgid %d\n", getppid(), getsid(0), getpgid(0));
  printf("platform %s\n", (char*)getauxval(AT_PLATFORM));
  struct ifreq r = {0};
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  for (int i = 1; i < 10; i++) {
    r.ifr_ifindex = i;
    if (ioctl(s, SIOCGIFNAME, &r) < 0) continue;
    if (ioctl(s, SIOCGIFHWADDR, &r) < 0) continue;
    unsigned char* m = (unsigned char*)r.ifr_hwaddr.sa_data;
    printf("mac %s %02x:%02x:%02x:%02x:%02x:%02x\n", r.ifr_name, m[0], m[1], m[2], m[3], m[4], m[5]);
  }
  return 0;
}
