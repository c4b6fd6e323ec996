. "$(dirname "$0")/lib.sh"
cd "$SCRATCH"
expect() { # NAME CODE PATTERN COMMAND...
  local name=$1 code=$2 pattern=$3 out got
  shift 3
  out=$(timeout 60 "$@" 2>&1)
  got=$?
  [ "$got" = "$code" ] || fail "$name: exit code $got, not $code: $out"
  grep -qE -- "$pattern" <<<"$out" || fail "$name: no line like /$pattern/: $out"
  [ "$(wc -l <<<"$out")" -le 1 ] || fail "$name: more than one line: $out"
}
expect "missing program" 127 'runsc: "nosuch": executable file not found' "$RUNSC" do nosuch
expect "missing path" 127 'runsc: "/nosuch/x": no such file or directory' "$RUNSC" do /nosuch/x
expect "not executable" 126 'runsc: "/etc/passwd": permission denied' "$RUNSC" do /etc/passwd
printf '\177ELF corrupt' > corrupt && chmod +x corrupt
expect "corrupt ELF" 126 'corrupt.*[Ee]xec format error' "$RUNSC" do "$SCRATCH/corrupt"
expect "unknown flag" 1 'unknown flag --debuglog, did you mean --debug-log\?' "$RUNSC" --debuglog=x do true
expect "unknown command" 1 'unknown command "rum", did you mean "run"\?' "$RUNSC" rum x
expect "no command" 1 'no command given' "$RUNSC" do
expect "unknown platform" 1 'unknown platform "hyperdrive"; there are: ' "$RUNSC" --platform=hyperdrive do true
mkdir bundle
expect "missing config" 125 'bundle/config.json: No such file or directory' "$RUNSC" run --bundle bundle a
echo '{' > bundle/config.json
expect "malformed config" 125 'bundle/config.json: not valid JSON' "$RUNSC" run --bundle bundle a
echo '{"ociVersion":"1.0.2","process":{"args":1}}' > bundle/config.json
expect "wrong type" 125 'bundle/config.json: process.args: must be an array, is number' "$RUNSC" run --bundle bundle a
for code in 0 1 7 255; do "$RUNSC" do sh -c "exit $code"; same "exit code $code" $code $?; done
"$RUNSC" do sh -c 'kill -TERM $$'; same "death by SIGTERM" 143 $?
"$RUNSC" do sh -c 'kill -SEGV $$'; same "death by SIGSEGV" 139 $?
# Signals to the command reach the program.
"$RUNSC" do sh -c 'trap "exit 42" TERM; echo ready; while :; do sleep 0.05; done' >out &
pid=$!
for _ in $(seq 100); do grep -q ready out && break; sleep 0.1; done
kill -TERM $pid; wait $pid; same "a signal from outside" 42 $?
# Wild pointers.
cat > wild.c <<'C'
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
  /* Every call with pointers into nowhere: errors are fine, an end of the Sentry is not. */
  for (long n = 0; n < 460; n++) {
    switch (n) {
      case SYS_exit: case SYS_exit_group: case SYS_fork: case SYS_vfork: case SYS_clone: case SYS_clone3: case SYS_pause: case SYS_rt_sigreturn:
      case SYS_rt_sigsuspend: case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_munmap: case SYS_brk: case SYS_mremap: case SYS_close: case SYS_close_range: case SYS_wait4: case SYS_restart_syscall: case SYS_arch_prctl: continue;
    }
    if (n == SYS_alarm || n == SYS_setitimer || n == SYS_vhangup || n == SYS_rt_sigprocmask) continue;
    syscall(n, 0x10, 0x7ffffffff000, 0xffff800000000000, 0x10, 0xdeadbeef000, 0x1);
    syscall(n, -1, -1, -1, -1, -1, -1);
    syscall(n, 0, 0xffffffffffffff00, 64, 0xffffffffffffff00, 0xffffffffffffff00, 64);
  }
  puts("survived");
  return 0;
}
C
gcc -w -o wild wild.c && same "wild pointers" survived "$(sandbox "$SCRATCH/wild" 2>&1 | tail -1)"
# A guest that exhausts its memory dies or is told so; the sandbox ends in order.
out=$(timeout 100 "$RUNSC" --memory 200 do python3 -c 'x = bytearray(1 << 30); print(len(x))' 2>&1); code=$?
{ [ $code -eq 1 ] && grep -q MemoryError <<<"$out"; } || [ $code -eq 137 ] || fail "out of memory: $code: $out"
finish
