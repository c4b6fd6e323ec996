#!/usr/bin/env bash
# What lets people watch a sandbox: --summary, --strace-syscalls, --debug-log, top, metrics, debug --stacks.
. "$(dirname "$0")/lib.sh"
ROOT=$SCRATCH/root
BUNDLE=$SCRATCH/bundle
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$ROOT" "$@"; }
trap 'for c in $("$RUNSC" --root "$ROOT" list -q); do "$RUNSC" --root "$ROOT" delete --force "$c"; done; rm -rf "$SCRATCH"' EXIT
cd "$SCRATCH"
has() { # NAME PATTERN FILE
  grep -qE -- "$2" "$3" || fail "$1: no line like /$2/: $(head -20 "$3")"
}
has_not() { grep -qE -- "$2" "$3" && fail "$1: a line like /$2/: $(grep -E -- "$2" "$3" | head -3)"; }

# --- at the end of a run. 429 is move_mount, which is not there; 500 is nobody's number.
cat >missing.py <<'P'
import ctypes
libc = ctypes.CDLL(None)
for i in range(3): libc.syscall(429, 0, 0, 0)
with open("/proc/self/comm", "w") as f: f.write("evil\033[2J")
libc.syscall(500)
P
timeout 60 "$RUNSC" --summary do python3 missing.py >out 2>err
same "--summary: stdout is the program's" "" "$(cat out)"
has "--summary" '^runsc: [0-9]{3,} system calls; [0-9]+\.[0-9]{2} s of processor time in programs, [0-9]+\.[0-9]{2} s in their calls$' err
has "--summary: missing" '^runsc: not implemented: move_mount \(3 calls, the first by python3\)$' err
has "--summary: a name is made harmless" '^runsc: not implemented: 500 \(1 calls, the first by evil\?\[2J\)$' err
timeout 60 "$RUNSC" --report-missing do python3 missing.py 2>err
has_not "--report-missing: nothing else" '^runsc: [0-9]' err
has "--report-missing" '^runsc: not implemented: move_mount' err
timeout 60 "$RUNSC" --summary do busybox true 2>err
# The C library asks for rseq(2) whether it is there or not.
same "--summary: nothing else is missing" 1 "$(grep -vc ' rseq ' err)"

# --- strace of some calls, logs by role
timeout 60 "$RUNSC" --strace-syscalls=openat,execve do sh -c "cat /etc/hostname; :" >out 2>err
same "--strace-syscalls: output" "$(cat /etc/hostname)" "$(cat out)"
has "--strace-syscalls" 'openat\(AT_FDCWD, "/etc/hostname", O_RDONLY' err
has "--strace-syscalls" 'execve\(' err
has_not "--strace-syscalls: others are left out" 'mmap\(|read\(|close\(' err
timeout 60 "$RUNSC" --strace-syscalls=openat,opnat do true 2>err && fail "an unknown call is taken"
has "--strace-syscalls: unknown" 'no system call "opnat"; `runsc syscalls` lists them' err
timeout 60 "$RUNSC" --debug-log "$SCRATCH/logs" --debug --strace do true 2>err || fail "--debug-log: $(cat err)"
same "--debug-log: nothing on stderr" "" "$(cat err)"
same "--debug-log: a file a role" "boot.log gofer.log" "$(echo $(ls logs | sed 's/.*\.\([a-z]*\.log\)$/\1/'))"
has "--debug-log: boot's" 'brk\(0\)' logs/*.boot.log
runsc --debug-log "$SCRATCH/none" list >/dev/null || fail "list"
[ -e none ] && fail "a command that starts nothing made log files"

# --- a running container
mkdir -p "$BUNDLE/rootfs/bin"
cp /bin/busybox "$BUNDLE/rootfs/bin/busybox"
for name in sh cat sleep mkfifo; do ln -s busybox "$BUNDLE/rootfs/bin/$name"; done
"$RUNSC" spec --bundle "$BUNDLE" -- sh -c 'sleep 1000 | cat & while :; do :; done & wait'
runsc run --detach --bundle "$BUNDLE" w </dev/null >/dev/null 2>&1 || fail "run --detach"
sleep 1
runsc top --once w >out || fail "top --once"
has "top: the container" '^w: 4 processes, 4 threads; processor +[1-9][0-9.]* %; memory [0-9]+ of [0-9]+ MiB$' out
has "top: columns" '^ +PID +UID THR S +CPU% +RSS +TIME CMD$' out
# The spinning shell is the first, with most of a processor; the others use nothing.
sed -n 3p out | grep -qE '^ +[0-9]+ +0 +1 R +[1-9][0-9]+\.[0-9] .* sh -c' || fail "top: the busiest first: $(cat out)"
grep -cE '^ +[0-9]+ +0 +1 S +0\.0 ' out | grep -qx 3 || fail "top: the idle: $(cat out)"
timeout -s INT 2 "$RUNSC" --root "$ROOT" top --interval 300ms w >out
same "top: ^C ends it in order" 124 $?
[ "$(grep -c '^w: 4 processes' out)" -ge 3 ] || fail "top: goes on: $(cat out)"
runsc top --interval never w 2>err && fail "top: an interval that is none"

runsc metrics w >out || fail "metrics"
python3 - out <<'P' || fail "metrics: $(cat out)"
import re, sys
values, types = {}, {}
for line in open(sys.argv[1]):
    if m := re.fullmatch(r"# TYPE (\w+) (counter|gauge)\n", line):
        assert m[1] not in types, line
        types[m[1]] = m[2]
    elif not re.fullmatch(r"# HELP \w+ .+\.\n", line):
        m = re.fullmatch(r'(\w+)\{container="w"(?:,(\w+)="(\w+)")?\} ([0-9.e+]+)\n', line)
        assert m and m[1] in types, line
        assert m[1].endswith("_total") == (types[m[1]] == "counter"), line
        values[m[1], m[3]] = float(m[4])
assert values["redoubt_processes", None] == 4
assert values["redoubt_cpu_seconds_total", "user"] > 0.3
assert values["redoubt_memory_bytes", None] > 100000
assert values["redoubt_memory_limit_bytes", None] > values["redoubt_memory_bytes", None]
assert values["redoubt_syscalls_total", "execve"] >= 1
assert values["redoubt_page_faults_total", None] > 10
assert values["redoubt_gofer_messages_total", None] > 3
P
count() { runsc metrics w | sed -n 's/^redoubt_syscalls_total{container="w",name="getppid"} //p'; }
before=$(count)
runsc exec w sh -c 'echo $PPID' >/dev/null
[ "$(count)" -gt "${before:-0}" ] || fail "metrics: a call is not counted: $before, then $(count)"

runsc debug --stacks w >out || fail "debug --stacks"
has "stacks: a sleep" '^pid [0-9]+ tid [0-9]+ \(sleep\) S: waits in clock_nanosleep\(' out
has "stacks: a pipe by its name" '\(cat\) S: waits in .*; 0 is pipe:\[' out
has "stacks: in the guest" '\(sh\) R: runs in the guest' out
runsc delete --force w

# A futex, children, poll.
cat >wait.py <<'P'
import os, select, threading, time, sys
lock = threading.Lock(); lock.acquire()
threading.Thread(target=lock.acquire, daemon=True).start()
r, w = os.pipe()
threading.Thread(target=lambda: select.poll().poll() if 0 else (lambda p: (p.register(r), p.poll()))(select.poll()), daemon=True).start()
if os.fork() == 0: time.sleep(1000)
print("ready", flush=True)
os.wait()
P
sed 's|"rootfs"|"/"|' "$BUNDLE/config.json" | python3 -c 'import json, sys; c = json.load(sys.stdin); c["process"]["args"] = ["python3", sys.argv[1]]; json.dump(c, sys.stdout)' "$SCRATCH/wait.py" >config.json
runsc run --detach --bundle "$SCRATCH" f </dev/null >ready 2>&1 || fail "run --detach: $(cat ready)"
for _ in $(seq 100); do grep -q ready ready && break; sleep 0.1; done
sleep 0.3
runsc debug --stacks f >out
has "stacks: a futex" 'waits in futex\(0x[0-9a-f]+, .*; futex 0x[0-9a-f]+ holds 0x' out
has "stacks: children" 'waits in wait4\(-1, .*; its children are [0-9]+' out
has "stacks: polled descriptors" 'waits in poll\(.*; [0-9]+ is pipe:\[' out
finish
