. "$(dirname "$0")/lib.sh"
cat >"$SCRATCH/p.c" <<'SCRIPT'
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static int fact(int n) { return n <= 1 ? 1 : n * fact(n - 1); }
static volatile int total;
static void *thread(void *arg) {
  total += fact(3);
  return arg;
}
int main(int argc, char **argv) {
  pthread_t t;
  pthread_create(&t, NULL, thread, NULL);
  pthread_join(t, NULL);
  total += fact(5);
  printf("total %d\n", total);
  if (argc > 1) raise(SIGSEGV);
  return 9;
}
SCRIPT
gcc -g -O0 -o "$SCRATCH/p" "$SCRATCH/p.c" -pthread || fail "gcc"

# strace: the calls, of children and threads too, and how all ended.
trace=$(sandbox bash -c 'strace -f -qq -e trace=execve,write -e signal=none -o /tmp/log sh -c "/bin/echo one; echo two" >/dev/null; cat /tmp/log' 2>&1)
grep -q 'execve("/bin/echo", \["/bin/echo", "one"\]' <<<"$trace" || fail "strace: execve of the child: $trace"
grep -q 'write(1, "one\\n", 4) *= 4' <<<"$trace" || fail "strace: write of the child: $trace"
grep -q 'write(1, "two\\n", 4) *= 4' <<<"$trace" || fail "strace: write of the shell: $trace"
same "strace: the program's exit code" 9 "$(sandbox strace -f -o /dev/null "$SCRATCH/p" >/dev/null; echo $?)"
same "strace -c: counts" 1 "$(sandbox strace -c -f -e trace=execve /bin/true 2>&1 | awk '$NF == "execve" { print $4 }')"
same "strace: injected error" "cat: /etc/hostname: Permission denied" "$(sandbox strace -o /dev/null -e inject=openat:error=EACCES:when=3+ cat /etc/hostname 2>&1 | head -1)"
# --seccomp-bpf: only what is asked for stops.
trace=$(sandbox bash -c 'strace -f --seccomp-bpf -qq -e trace=getppid -o /tmp/log sh -c "/bin/true; true"; cat /tmp/log' 2>&1)
grep -q 'getppid() *= ' <<<"$trace" || fail "strace --seccomp-bpf: $trace"
# Attaching to what runs, and letting go.
attached=$(sandbox bash -c 'sleep 30 & sleep 0.2; timeout -s INT 1 strace -qq -o /tmp/log -p $!; kill -0 $! && echo alive; kill $!; grep -c "clock_nanosleep\|restart_syscall" /tmp/log')
same "strace -p" $'alive\n1' "$attached"

# gdb: breakpoints, threads, a call of a function, steps, a watchpoint, registers, a signal.
gdb() { sandbox gdb -q -nx -batch -ex 'set debuginfod enabled off' "$@" 2>&1; }
out=$(gdb -ex 'break fact if n == 1' -ex run -ex bt -ex 'info threads' -ex delete -ex finish -ex continue "$SCRATCH/p")
for want in 'hit Breakpoint 1, fact (n=1)' '#2 .* in fact (n=3)' '#3 .* in thread' '^\* 2 ' 'Value returned is .* = 1' 'total 126' 'exited with code 011'; do
  grep -q "$want" <<<"$out" || fail "gdb: no \"$want\" in: $out"
done
out=$(gdb -ex 'break main' -ex run -ex 'watch total' -ex continue -ex continue -ex continue "$SCRATCH/p")
grep -q 'New value = 6$' <<<"$out" || fail "gdb: watch: $out"
grep -q 'New value = 126$' <<<"$out" || fail "gdb: watch: $out"
out=$(gdb -ex 'break main' -ex run -ex next -ex next -ex stepi -ex 'print $rip > (long)main' -ex 'print $_siginfo.si_signo' -ex kill "$SCRATCH/p")
grep -q '^\$1 = 1$' <<<"$out" || fail "gdb: steps: $out"
grep -q '^\$2 = 5$' <<<"$out" || fail "gdb: siginfo: $out"
out=$(gdb -ex run -ex 'print total' -ex 'set variable total = 1' -ex 'print total + 1' -ex 'signal 0' --args "$SCRATCH/p" crash)
for want in 'received signal SIGSEGV' '^\$1 = 126$' '^\$2 = 2$' 'exited with code 011'; do
  grep -q "$want" <<<"$out" || fail "gdb: no \"$want\" in: $out"
done
finish
