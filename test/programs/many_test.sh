. "$(dirname "$0")/lib.sh"
cat >"$SCRATCH/many.c" <<'SCRIPT'
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static long count;
static void* run(void* arg) {
  pthread_barrier_wait(&barrier);  /* all 100 alive at once */
  for (int i = 0; i < 1000; i++) { pthread_mutex_lock(&m); count++; pthread_mutex_unlock(&m); }
  return arg;
}
int main(void) {
  pthread_t t[100];
  pthread_barrier_init(&barrier, 0, 100);
  for (int i = 0; i < 100; i++) if (pthread_create(&t[i], 0, run, 0)) return 1;
  for (int i = 0; i < 100; i++) pthread_join(t[i], 0);
  printf("%ld\n", count);
  int ok = 0;
  for (int i = 0; i < 1000; i++) {
    pid_t p = fork();
    if (p == 0) _exit(i % 100);
    int st;
    if (p < 0 || waitpid(p, &st, 0) != p) return 2;
    ok += WIFEXITED(st) && WEXITSTATUS(st) == i % 100;
  }
  pid_t batch[200];
  for (int i = 0; i < 200; i++) if ((batch[i] = fork()) == 0) { usleep(1000); _exit(0); }
  for (int i = 0; i < 200; i++) ok += waitpid(batch[i], 0, 0) == batch[i];
  printf("%d\n", ok);
  return 0;
}
SCRIPT
gcc -O1 -pthread -o "$SCRATCH/many" "$SCRATCH/many.c" || exit 1
same "100 threads, 1000 children, 200 at once" $'100000\n1200' "$(sandbox "$SCRATCH/many" 2>&1)"
finish
