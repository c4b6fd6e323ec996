#!/usr/bin/env bash
# Pods: containers that containerd's CRI annotations put into the sandbox of another.
. "$(dirname "$0")/lib.sh"
ROOT=$SCRATCH/root
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$ROOT" "$@"; }
trap 'for c in b c d e pod; do "$RUNSC" --root "$ROOT" delete --force $c; done; rm -rf "$SCRATCH"' EXIT
mkdir -p "$SCRATCH/volume"
status() { runsc state "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["status"])'; }
pid() { runsc state "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'; }
await() {
  for _ in $(seq 200); do
    "$@" && return 0
    sleep 0.05
  done
  return 1
}
is() { [ "$(status "$1" 2>/dev/null)" = "$2" ]; }
# bundle ID TYPE COMMAND [PIDS]: a root file system of its own, whose /etc/name says the ID, and the volume. PIDS: "host" for no
# PID namespace, or the path of one.
bundle() {
  local b=$SCRATCH/$1
  mkdir -p "$b/rootfs/bin" "$b/rootfs/etc" "$b/rootfs/tmp"
  cp /bin/busybox "$b/rootfs/bin/busybox"
  for name in sh cat echo sleep kill ps hostname ls true id readlink; do ln -s busybox "$b/rootfs/bin/$name"; done
  echo "$1" >"$b/rootfs/etc/name"
  rm -f "$b/config.json"
  "$RUNSC" spec --bundle "$b" -- sh -c "$3" || fail "spec"
  python3 - "$b/config.json" "$2" "$SCRATCH/volume" "${4:-}" <<'P'
import json, sys
c = json.load(open(sys.argv[1]))
c["root"]["readonly"] = False
c["hostname"] = "pod"
c["annotations"] = {"io.kubernetes.cri.container-type": sys.argv[2], "io.kubernetes.cri.sandbox-id": "pod"}
c["mounts"].append({"destination": "/v", "type": "bind", "source": sys.argv[3], "options": ["rbind", "rw"]})
if sys.argv[4]:
    namespaces = [n for n in c["linux"]["namespaces"] if n["type"] != "pid"]
    if sys.argv[4] != "host":
        namespaces.append({"type": "pid", "path": sys.argv[4]})
    c["linux"]["namespaces"] = namespaces
json.dump(c, open(sys.argv[1], "w"))
P
}
create() { runsc create --bundle "$SCRATCH/$1" --pid-file "$SCRATCH/$1.pid" "$1" </dev/null >"$SCRATCH/$1.out" 2>&1 || fail "create $1: $(cat "$SCRATCH/$1.out")"; }
# The names of a container's processes on the host.
names() { cat /proc/"$(pid "$1")"/task/*/children | tr ' ' '\n' | while read -r p; do cat "/proc/$p/comm"; done | sort | tr '\n' ' '; }

# agree ID: whether ps in a container sees each process that runsc lists.
agree() {
  runsc exec "$1" ps >"$SCRATCH/ps" || fail "ps in $1"
  awk 'NR > 1 { print $1 }' "$SCRATCH/ps" | sort -n >"$SCRATCH/seen"
  runsc ps "$1" | awk 'NR > 1 { print $2 }' | sort -n >"$SCRATCH/own"
  comm -23 <(sort "$SCRATCH/own") <(sort "$SCRATCH/seen") >"$SCRATCH/unseen"
  [ ! -s "$SCRATCH/unseen" ]
}

bundle pod sandbox 'echo pod > /v/pod; sleep 1000'
bundle b container 'echo b > /v/b; trap "exit 5" TERM; while :; do sleep 0.1; done'
bundle c container 'echo c > /v/c; sleep 1000 & sleep 1000'
create pod
create b
runsc start pod || fail "start pod"
create c
for id in b c; do
  same "$id is created" created "$(status "$id")"
  [ -e "$SCRATCH/volume/$id" ] && fail "$id ran before start"
  runsc start $id || fail "start $id"
  await test -s "$SCRATCH/volume/$id" || fail "$id does not run"
  same "$id runs" running "$(status "$id")"
  same "the pid of $id" "$(pid $id)" "$(cat "$SCRATCH/$id.pid")"
done
same "the pod has the Sentry" "runsc-gofer runsc-sandbox " "$(names pod)"
same "the others have none" "runsc-gofer runsc-gofer " "$(names b)$(names c)"

# Each has its own root; the volume is everybody's.
for id in pod b c; do
  same "exec in $id" "$id" "$(runsc exec $id cat /etc/name)"
  same "the volume in $id" "b c pod" "$(echo $(runsc exec $id ls /v))"
done
runsc exec b sh -c 'echo shared > /v/file; echo own > /tmp/file'
same "what one writes to the volume the other reads" shared "$(runsc exec c cat /v/file)"
same "what one writes to its root the other does not see" "" "$(runsc exec c ls /tmp)"
same "the host name is the pod's" pod "$(runsc exec c hostname)"
runsc exec c sh -c 'exit 4'
same "exec: code" 4 $?
runsc ps c | grep -q 'sleep 1000' || fail "ps c: $(runsc ps c)"
runsc ps b | grep -q 'sleep 1000' && fail "ps b shows c's: $(runsc ps b)"

# Each has PIDs of its own: the first process is 1, what exec puts there has no parent, and others are not there at all.
for id in pod b c; do
  same "whose root process 1 of $id has" $id "$(runsc exec $id cat /proc/1/root/etc/name)"
  same "the parent of what exec puts into $id" 0 "$(runsc exec $id sh -c 'echo $PPID')"
  # All that is listed is the container's own, and ps from outside lists the same numbers: not at once for b, whose children come and go.
  await agree $id || fail "of what runsc lists in $id, ps there does not see: $(cat "$SCRATCH/unseen")"
  same "ps in $id starts with" 1 "$(head -n 1 "$SCRATCH/seen")"
done
same "c's processes as ps there sees them" 2 "$(runsc exec c ps | grep -c 'sleep 1000')"
runsc exec b ps | grep -q 'sleep 1000' && fail "c's processes are seen in b: $(runsc exec b ps)"
same "the namespaces differ" 3 "$(for id in pod b c; do runsc exec $id ls -l /proc/self/ns/pid; done | sed 's/.*-> //' | sort -u | wc -l)"
# A number leads to a process of the container or to none.
for n in $(seq 2 40); do
  [ -n "$(runsc exec b ls -d /proc/$n 2>/dev/null)" ] || { free=$n && break; }
done
runsc exec b kill -0 "$free" 2>/dev/null && fail "a process $free is reached from b"
# The first process is safe from inside, and takes from outside what it handles, and SIGKILL.
runsc exec c kill -KILL 1 || fail "kill 1"
runsc kill c TERM || fail "kill c TERM"
sleep 0.2
same "c goes on" running "$(status c)"

# kill(-1) and the end of one stay in it. The first process is spared, as on Linux (kill(2)).
same "c's processes" 2 "$(runsc ps c | grep -c 'sleep 1000')"
runsc exec c sh -c 'kill -KILL -1' >/dev/null 2>&1
same "kill -1" 1 "$(runsc ps c | grep -c 'sleep 1000')"
runsc kill c KILL || fail "kill c"
await is c stopped || fail "c has not ended: $(status c)"
same "b goes on" running "$(status b)"
same "and the pod" running "$(status pod)"
runsc delete c || fail "delete c"
runsc state c >/dev/null 2>&1 && fail "c is still there"
# The name is free, and the new one is new.
rm -f "$SCRATCH/volume/c"
create c
runsc start c || fail "start c again"
await test -s "$SCRATCH/volume/c" || fail "the second c does not run"

# PIDs shared on demand, as CRI has it: the path is that of a process which stands for a container outside.
bundle d container 'echo d > /v/d; sleep 2000' "/proc/$(pid c)/ns/pid"
bundle e container 'echo e > /v/e; sleep 3000' host
for id in d e; do
  create $id
  runsc start $id || fail "start $id"
  await test -s "$SCRATCH/volume/$id" || fail "$id does not run"
done
same "d is in c's namespace" "$(runsc exec c readlink /proc/1/ns/pid)" "$(runsc exec d readlink /proc/self/ns/pid)"
for id in c d; do
  runsc exec $id ps | grep -q 'sleep 1000' || fail "c's processes are not seen in $id"
  runsc exec $id ps | grep -q 'sleep 2000' || fail "d's processes are not seen in $id"
done
runsc ps d | grep -q 'sleep 2000' || fail "ps d: $(runsc ps d)"
runsc ps d | grep -q 'sleep 1000' && fail "runsc ps d lists what is c's: $(runsc ps d)"
# One without a namespace of its own is in the sandbox's, which sees all.
for n in 1000 2000 3000; do
  runsc exec e ps | grep -q "sleep $n" || fail "sleep $n is not seen in the sandbox's namespace"
done
runsc exec d ps | grep -q 'sleep 3000' && fail "e is seen in c's namespace"
runsc exec e sh -c 'kill -KILL -1' >/dev/null 2>&1
same "kill -1 in the sandbox's own namespace stays in the container" "running running running" "$(echo $(for id in b c d; do status $id; done))"
runsc delete --force e || fail "delete e"
# The end of the one that the namespace is of is the other's.
runsc kill c KILL || fail "kill c"
await is c stopped || fail "c has not ended"
await is d stopped || fail "d has outlived the PID namespace it was in: $(status d)"
runsc delete c || fail "delete c"
runsc delete d || fail "delete d"
said=$(runsc create --bundle "$SCRATCH/d" d 2>&1 </dev/null) && fail "created in a PID namespace that is gone"
[[ $said == *"linux.namespaces: pid: /proc/"* ]] || fail "PID namespace that is gone: $said"
rm -f "$SCRATCH/volume/c"
create c
runsc start c || fail "start c a third time"
await test -s "$SCRATCH/volume/c" || fail "the third c does not run"

runsc pause b || fail "pause b"
same "b is paused" paused "$(status b)"
same "c is not" c "$(runsc exec c cat /etc/name)"
runsc resume b || fail "resume b"
runsc kill b TERM || fail "kill b"
await is b stopped || fail "b has not ended: $(status b)"
same "how b ended" '{"id":"b","exitStatus":5}' "$(runsc wait b)"
same "c goes on" running "$(status c)"
runsc exec b true 2>/dev/null && fail "exec in a stopped one"
runsc delete b || fail "delete b"

# The sandbox's end is everybody's.
relay=$(pid c)
runsc kill pod KILL || fail "kill pod"
await is pod stopped || fail "the pod has not ended"
await is c stopped || fail "c has outlived the pod: $(status c)"
await test ! -d "/proc/$relay" || fail "the process that stands for c is still there"
runsc delete c || fail "delete c"
runsc delete pod || fail "delete pod"
same "nothing is left" "" "$(ls -A "$ROOT")"

# A sandbox that is not there.
said=$(runsc create --bundle "$SCRATCH/b" b 2>&1 </dev/null) && fail "created without its sandbox"
[[ $said == *'container "pod" does not exist'* ]] || fail "without its sandbox: $said"
same "nothing is left of it" "" "$(ls -A "$ROOT")"
finish
