. "$(dirname "$0")/lib.sh"
# The program signals, stops and kills at random: it runs inside only.
cat >"$SCRATCH/stress.c" <<'SCRIPT'
/* Many processes and threads that signal, stop, kill, fork, execute, map, fault and rename at once; ends in order. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kWorkers = 6, kThreads = 4 };

struct Shared {
  _Atomic int stop;
  _Atomic int futex;
  _Atomic long work, faults, signals, deaths, errors;
  _Atomic int pids[kWorkers];
};
static struct Shared* shared;
static __thread sigjmp_buf* fault_exit;
static __thread unsigned seed;
static int ring[2];

static unsigned Random(unsigned n) { return (seed = seed * 1103515245u + 12345u) / 65536 % n; }

static double Now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void Bad(const char* what) {
  shared->errors++;
  dprintf(2, "%d: %s: %s\n", getpid(), what, strerror(errno));
}

static void OnFault(int sig, siginfo_t* info, void* context) {
  (void)sig, (void)info, (void)context;
  if (!fault_exit) _exit(99);
  siglongjmp(*fault_exit, 1);
}
static void OnSignal(int sig) {
  (void)sig;
  shared->signals++;
}

static void Faults(void) {
  sigjmp_buf env;
  char* volatile p = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return Bad("mmap");
  memset(p, 1, 65536);
  if (mprotect(p + 4096, 8192, PROT_READ)) Bad("mprotect");
  volatile int expect = Random(3);
  if (expect == 2 && munmap(p + 4096, 4096)) Bad("munmap");
  if (sigsetjmp(env, 1) == 0) {
    fault_exit = &env;
    if (expect == 0) p[0] = 2;
    if (expect == 1) p[4096] = 2;
    /* Other threads map too and may have taken the hole, so only the protected page must fault. */
    if (expect == 1) Bad("no fault");
  } else {
    if (expect == 0) Bad("a fault");
    shared->faults++;
  }
  fault_exit = 0;
  /* In the hole another thread may have put a mapping of its own. */
  if (expect == 2) munmap(p, 4096), munmap(p + 8192, 65536 - 8192);
  else munmap(p, 65536);
}

static void Files(void) {
  char a[64], b[64], buffer[300];
  snprintf(a, sizeof a, "/tmp/stress.%d.%d", Random(4), Random(4));
  snprintf(b, sizeof b, "/tmp/stress.%d.%d", Random(4), Random(4));
  int fd = open(a, O_RDWR | O_CREAT | (Random(2) ? O_TRUNC : 0), 0600);
  if (fd < 0) return Bad("open");
  memset(buffer, 'x', sizeof buffer);
  if (pwrite(fd, buffer, sizeof buffer, Random(100000)) != sizeof buffer) Bad("pwrite");
  char* m = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
  if (m != MAP_FAILED) munmap(m, 4096);
  close(fd);
  struct stat st;
  if (rename(a, b) && errno != ENOENT) Bad("rename");
  if (stat(b, &st) && errno != ENOENT) Bad("stat");
  if (Random(2) && unlink(b) && errno != ENOENT) Bad("unlink");
}

static void Pipes(void) {
  int p[2];
  char data[5000], back[5000];
  if (pipe2(p, O_CLOEXEC)) return Bad("pipe");
  memset(data, 'a' + Random(26), sizeof data);
  if (write(p[1], data, sizeof data) != sizeof data) Bad("write");
  close(p[1]);
  size_t got = 0;
  for (ssize_t n; (n = read(p[0], back + got, sizeof back - got)) != 0;) {
    if (n > 0) got += n;
    else if (errno != EINTR) { Bad("read"); break; }
  }
  close(p[0]);
  if (got != sizeof data || memcmp(data, back, got)) Bad("pipe contents");
}

/* A token that everybody passes on through one pipe. */
static void Ring(void) {
  char token;
  struct pollfd pfd = {ring[0], POLLIN, 0};
  if (poll(&pfd, 1, Random(5)) == 1 && read(ring[0], &token, 1) == 1 && write(ring[1], &token, 1) != 1) Bad("ring");
}

static void Futexes(void) {
  struct timespec t = {0, Random(3) * 1000000};
  int seen = shared->futex;
  if (Random(2)) syscall(SYS_futex, &shared->futex, FUTEX_WAIT, seen, &t, 0, 0);
  shared->futex++;
  syscall(SYS_futex, &shared->futex, FUTEX_WAKE, Random(5), 0, 0, 0);
}

static void Children(void) {
  static char* const argv[] = {"/bin/true", 0};
  int how = Random(5), status;
  pid_t parent = getpid();
  pid_t p = how == 0 ? vfork() : fork();
  if (p < 0) return Bad("fork");
  if (p == 0) {
    /* Those that wait for ever must end with a worker that is killed. */
    if (how != 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)) _exit(97);
    if (how < 2) execv(argv[0], argv), _exit(98);
    if (how == 2) for (;;) pause();
    if (how == 3) raise(SIGSTOP);
    _exit(7);
  }
  if (how == 2) usleep(Random(2000)), kill(p, SIGKILL);
  if (how == 3) {
    pid_t r;
    while ((r = waitpid(p, &status, WUNTRACED)) < 0 && errno == EINTR) {}
    if (r != p) return Bad("waitpid of a stop");
    if (WIFSTOPPED(status)) kill(p, Random(2) ? SIGCONT : SIGKILL);
    else Bad("not stopped");
  }
  pid_t r;
  while ((r = waitpid(p, &status, 0)) < 0 && errno == EINTR) {}
  if (r != p) return Bad("waitpid");
  if (how < 2 ? status != 0 : how == 2 ? WTERMSIG(status) != SIGKILL : how == 4 ? WEXITSTATUS(status) != 7 : 0) Bad("status");
}

static void Timers(void) {
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), e = eventfd(1, EFD_CLOEXEC);
  struct itimerspec t = {{0, 500000}, {0, 1 + Random(1000000)}};
  unsigned long long n;
  timerfd_settime(fd, 0, &t, 0);
  while (read(fd, &n, 8) != 8) if (errno != EINTR) { Bad("timerfd"); break; }
  if (read(e, &n, 8) != 8 || n != 1) Bad("eventfd");
  close(fd), close(e);
}

static void* Short(void* arg) {
  shared->work++;
  return arg;
}
static void Threads(void) {
  pthread_t t;
  if (pthread_create(&t, 0, Short, 0)) return Bad("pthread_create");
  pthread_join(t, 0);
}

static void Signals(void) {
  int p = shared->pids[Random(kWorkers)];
  if (p > 1) kill(p, Random(2) ? SIGUSR1 : SIGUSR2);
  if (Random(4) == 0) syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
}

static void* Work(void* arg) {
  static void (*const kinds[])(void) = {Faults, Files, Pipes, Ring, Futexes, Children, Timers, Threads, Signals};
  seed = (unsigned)(long)arg * 7919u + getpid();
  while (!shared->stop) {
    kinds[Random(sizeof kinds / sizeof *kinds)]();
    shared->work++;
  }
  return 0;
}

static void Worker(void) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct itimerval tick = {{0, 7000}, {0, 7000}};
  setitimer(ITIMER_REAL, &tick, 0);
  pthread_t t[kThreads];
  for (long i = 0; i < kThreads; i++) if (pthread_create(&t[i], 0, Work, (void*)i)) Bad("pthread_create"), _exit(1);
  for (int i = 0; i < kThreads; i++) pthread_join(t[i], 0);
  _exit(0);
}

static void Start(int i) {
  pid_t p = fork();
  if (p < 0) return Bad("fork");
  if (p == 0) Worker();
  shared->pids[i] = p;
}

int main(int argc, char** argv) {
  double end = Now() + (argc > 1 ? atof(argv[1]) : 20);
  shared = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct sigaction fault = {.sa_sigaction = OnFault, .sa_flags = SA_SIGINFO}, counted = {.sa_handler = OnSignal, .sa_flags = SA_RESTART};
  sigaction(SIGSEGV, &fault, 0);
  sigaction(SIGBUS, &fault, 0);
  sigaction(SIGUSR1, &counted, 0);
  sigaction(SIGALRM, &counted, 0);
  counted.sa_flags = 0;
  sigaction(SIGUSR2, &counted, 0);
  if (pipe(ring) || write(ring[1], "abc", 3) != 3) return 1;
  fcntl(ring[0], F_SETFL, O_NONBLOCK);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  seed = getpid();
  for (int i = 0; i < kWorkers; i++) Start(i);
  while (Now() < end) {
    int i = Random(kWorkers), status;
    usleep(Random(20000));
    int how = Random(10);
    if (how == 0) {
      pid_t p = atomic_exchange(&shared->pids[i], 0);
      kill(p, SIGKILL);
      if (waitpid(p, &status, 0) != p) Bad("waitpid of a killed one");
      else if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) errno = 0, Bad("not killed");
      shared->deaths++;
      Start(i);
    } else if (how < 4) {
      kill(shared->pids[i], SIGSTOP);
      usleep(Random(3000));
      kill(shared->pids[i], SIGCONT);
    } else {
      kill(shared->pids[i], SIGUSR1);
    }
    /* Grandchildren of the killed ones. */
    siginfo_t info = {0};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid) {
      for (i = 0; i < kWorkers; i++) if (info.si_pid == shared->pids[i]) break;
      if (i < kWorkers) break;
      waitpid(info.si_pid, 0, 0);
      info.si_pid = 0;
    }
  }
  shared->stop = 1;
  int unwell = 0;
  for (int i = 0; i < kWorkers; i++) {
    int status = -1;
    waitpid(shared->pids[i], &status, 0);
    if (status) unwell++, dprintf(2, "worker ended with %x\n", status);
  }
  /* Nobody is killed by kill(-1): whoever runs this outside a sandbox would regret it. Grandchildren go with their parents. */
  while (wait(0) > 0) {}
  if (getenv("STRESS_VERBOSE"))
    dprintf(2, "work %ld faults %ld signals %ld deaths %ld\n", shared->work, shared->faults, shared->signals, shared->deaths);
  int enough = shared->work > 100 && shared->faults && shared->signals && shared->deaths;
  printf("stress: %ld errors, %d unwell, %s\n", shared->errors, unwell, enough ? "enough work" : "too little work");
  return 0;
}
SCRIPT
gcc -O1 -pthread -o "$SCRATCH/stress" "$SCRATCH/stress.c" || exit 1
# Own session, so that what is left can be told from other tests' sandboxes.
out=$(setsid -w timeout $((${STRESS_SECONDS:-20} + 100)) "$RUNSC" do sh -c "exec '$SCRATCH/stress' ${STRESS_SECONDS:-20}" 2>&1)
same "exit code" 0 $?
same "output" "stress: 0 errors, 0 unwell, enough work" "$out"

# Thousands of processes leave nothing behind in the Sentry: no memory, descriptors, threads or host processes.
usage() { # PID: resident KiB, descriptors, threads, stubs
  echo "$(awk '/^VmRSS/ { print $2 }' "/proc/$1/status") $(ls "/proc/$1/fd" | wc -l) $(ls "/proc/$1/task" | wc -l) $(pgrep -c -P "$1")"
}
mkfifo "$SCRATCH/go"
timeout 120 "$RUNSC" do bash -c 'for n in 200 2000; do for ((i = 0; i < n; i++)); do /bin/true; done; echo done; read; done' \
  <"$SCRATCH/go" >"$SCRATCH/steps" 2>&1 &
cli=$!
exec 9>"$SCRATCH/go"
reached() { for _ in $(seq 1200); do [ "$(grep -c done "$SCRATCH/steps")" -ge "$1" ] && return; sleep 0.05; done; fail "the loop hangs"; }
reached 1
runsc_pid=$(pgrep -P $cli)  # by now timeout(1) has started it
sleep 1.5  # idle threads end after a second
sentry=$(pgrep -P "$runsc_pid" -f '^runsc-sandbox')
before=$(usage "$sentry")
echo >&9
reached 2
sleep 1.5
after=$(usage "$sentry")
echo >&9
exec 9>&-
wait $cli
same "exit code of the loop" 0 $?
read -r rss fds threads stubs <<<"$before"
read -r rss2 fds2 threads2 stubs2 <<<"$after"
[ -n "${stubs2:-}" ] && [ "$rss2" -lt $((rss + 4096)) ] && [ "$fds2" -le $((fds + 2)) ] && [ "$threads2" -le $((threads + 2)) ] &&
  [ "$stubs2" -le $((stubs + 2)) ] || fail "resident KiB, descriptors, threads, stubs: $before, after 2000 processes: $after"
[ "${STRESS_VERBOSE:-}" ] && echo "$before -> $after"
finish
