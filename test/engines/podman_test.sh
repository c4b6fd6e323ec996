#!/usr/bin/env bash
# podman drives runsc, as it drives runc.
. "$(dirname "$0")/lib.sh"
# Short: podman puts sockets below it.
STORE=$(mktemp -d /tmp/rdpod.XXXX)
HOST_NETWORK=rdpod-h-$$
# The machine's limits are lower than those that podman asks for by itself (ulimits); the rest keeps this test to itself.
cat >"$STORE/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runsc"
tmp_dir = "$STORE/tmp"
[engine.runtimes]
runsc = ["$RUNSC"]
CONF
export CONTAINERS_CONF=$STORE/containers.conf
podman() { timeout "${LIMIT:-60}" /usr/bin/podman --root "$STORE/root" --runroot "$STORE/run" "$@"; }
cleanup() {
  podman rm --all --force --time 0 >/dev/null 2>&1
  podman umount --all >/dev/null 2>&1
  umount "$STORE/root/overlay" 2>/dev/null
  ip netns del $HOST_NETWORK 2>/dev/null
  rm -rf "$STORE" "$SCRATCH"
}
trap cleanup EXIT

make_rootfs "$STORE/rootfs"
tar -C "$STORE/rootfs" -c . | podman import - localhost/bb >/dev/null 2>&1 || fail "import"
run() { podman run --rm "$@"; }

# --- run
same "run: output" "hi" "$(run localhost/bb echo hi 2>&1)"
run localhost/bb sh -c 'exit 7'
same "run: code" 7 $?
run localhost/bb sh -c 'kill -KILL $$; exit 8'
same "run: the first process is safe from inside" 8 $?
podman run -d --name k localhost/bb sleep 1000 >/dev/null || fail "run -d"
podman kill k >/dev/null || fail "kill"
same "run: death by signal" 137 "$(podman wait k)"
podman rm k >/dev/null || fail "rm"
same "run: stdin" typed "$(echo typed | run -i localhost/bb cat)"
out=$(run localhost/bb nonesuch 2>&1)
same "run: not found" 127 $?
[[ $out == *"executable file not found"* ]] || fail "run: not found: $out"
out=$(run localhost/bb /etc/passwd 2>&1)
same "run: not executable" 126 $?
[[ $out == *"permission denied"* ]] || fail "run: not executable: $out"
same "run --user" "uid=7(user) gid=8(users)" "$(run --user user localhost/bb id | sed 's/ groups=.*//')"
same "run: environment, directory, hostname" "v /tmp h" "$(run -e A=v -w /tmp --hostname h localhost/bb sh -c 'echo $A $(pwd) $(hostname)')"
same "run: it is in the sandbox" "redoubt" "$(run localhost/bb uname -r | sed 's/.*-//')"

# --- system calls
same "the default profile is in force" 2 "$(run localhost/bb awk '/^Seccomp:/ { print $2 }' /proc/self/status)"
same "--security-opt seccomp=unconfined" 0 "$(run --security-opt seccomp=unconfined localhost/bb awk '/^Seccomp:/ { print $2 }' /proc/self/status)"
echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}' >"$SCRATCH/profile.json"
same "--security-opt seccomp=FILE" "mkdir: can't create directory '/tmp/d': No space left on device" "$(run --security-opt seccomp="$SCRATCH/profile.json" localhost/bb mkdir /tmp/d 2>&1)"

# --- a terminal
cat >"$SCRATCH/in_terminal.py" <<'PY'
import os, pty, sys
data = b""
def read(fd):
    global data
    d = os.read(fd, 1024)
    data += d
    return d
os.environ["COLUMNS"] = "80"
code = pty.spawn(sys.argv[1:], read, lambda fd: b"")
sys.exit(os.waitstatus_to_exitcode(code))
PY
out=$(timeout 60 python3 "$SCRATCH/in_terminal.py" /usr/bin/podman --root "$STORE/root" --runroot "$STORE/run" run --rm -it localhost/bb sh -c 'test -t 0 && test -t 1 && tty; exit 5' </dev/null)
same "run -it: code" 5 $?
[[ $out == *"/dev/"* ]] || fail "run -it: no terminal: $out"

# --- files
mkdir "$SCRATCH/volume" && echo from-host >"$SCRATCH/volume/a"
same "volume" from-host "$(run -v "$SCRATCH/volume:/v" localhost/bb sh -c 'cat /v/a; echo written > /v/b')"
same "volume: written" written "$(cat "$SCRATCH/volume/b")"
run -v "$SCRATCH/volume:/v:ro" localhost/bb sh -c 'echo x > /v/c' 2>/dev/null && fail "a read-only volume was written"
podman volume create named >/dev/null
run -v named:/d localhost/bb sh -c 'echo kept > /d/k'
same "named volume" kept "$(run -v named:/d localhost/bb cat /d/k)"
out=$(run --read-only localhost/bb sh -c 'echo x > /x; echo y > /tmp/y && cat /tmp/y && ls -d /run' 2>&1)
[[ $out == *"Read-only file system"*y*/run* ]] || fail "--read-only: $out"

# --- a user namespace
mkdir "$SCRATCH/mapped" && chmod 777 "$SCRATCH/mapped"
out=$(run --uidmap 0:100000:5000 --gidmap 0:200000:5000 -v "$SCRATCH/mapped:/v" -v mapped:/d localhost/bb sh -c '
  stat -c "%u %g" /etc/passwd /d; echo x >/v/f; echo x >/d/f; chown 7:8 /d/f; stat -c "%u %g" /v /v/f /d/f' 2>&1)
same "--uidmap: inside" "0 0
0 0
65534 65534
0 0
7 8" "$out"
same "--uidmap: outside" "100000 200000
100007 200008" "$(stat -c '%u %g' "$SCRATCH/mapped/f" "$(podman volume inspect --format '{{.Mountpoint}}' mapped)/f")"
podman run -d --name m --uidmap 0:100000:5000 localhost/bb sleep 1000 >/dev/null || fail "run -d --uidmap"
same "--uidmap: exec" "0 0" "$(podman exec m sh -c 'echo $(id -u) $(stat -c %u /etc/passwd)')"
echo copied >"$SCRATCH/in" && podman cp "$SCRATCH/in" m:/tmp/in || fail "--uidmap: cp"
await podman exec m test -e /tmp/in
same "--uidmap: cp" "0 copied" "$(podman exec m sh -c 'stat -c %u /tmp/in; cat /tmp/in' | xargs)"
podman rm -f -t 0 m >/dev/null

# --- limits
same "--memory: the guest sees it" 65536 "$(run --memory 64m localhost/bb sh -c "awk '/MemTotal/ { print \$2 }' /proc/meminfo")"
same "--cpus: the guest sees it" 1 "$(run --cpus 1 localhost/bb nproc)"

# --- a life
podman run -d --name c localhost/bb sh -c 'echo logged; trap "exit 3" TERM; while true; do sleep 0.1; done' >/dev/null || fail "run -d"
same "ps" c "$(podman ps --format '{{.Names}}')"
same "exec" inside "$(podman exec c echo inside)"
podman exec c sh -c 'exit 9'
same "exec: code" 9 $?
podman exec c nonesuch >/dev/null 2>&1
same "exec: not found" 127 $?
same "exec --user, --env, --workdir" "7 e /tmp" "$(podman exec --user 7 --env E=e --workdir /tmp c sh -c 'echo $(id -u) $E $(pwd)')"
await sh -c "test \"\$(CONTAINERS_CONF=$CONTAINERS_CONF /usr/bin/podman --root $STORE/root --runroot $STORE/run logs c)\" = logged" || fail "logs: $(podman logs c)"
echo copied >"$SCRATCH/in"
podman cp "$SCRATCH/in" c:/tmp/in || fail "cp into it"
await podman exec c test -e /tmp/in
same "cp into it" copied "$(podman exec c cat /tmp/in)"
podman exec c sh -c 'echo made > /tmp/out'
podman cp c:/tmp/out "$SCRATCH/out" || fail "cp out of it"
same "cp out of it" made "$(cat "$SCRATCH/out")"
podman pause c >/dev/null || fail "pause"
same "paused" paused "$(podman inspect --format '{{.State.Status}}' c)"
podman unpause c >/dev/null || fail "unpause"
podman stats --no-stream --format '{{.Name}}' c | grep -qx c || fail "stats"
podman stop --time 20 c >/dev/null || fail "stop"
same "stop: code" 3 "$(podman inspect --format '{{.State.ExitCode}}' c)"
podman start c >/dev/null && same "start again" running "$(podman inspect --format '{{.State.Status}}' c)"
podman kill --signal TERM c >/dev/null || fail "kill"
same "wait" 3 "$(podman wait c)"
podman rm c >/dev/null || fail "rm"

# --- health
podman run -d --name h --health-cmd 'test -e /tmp/healthy' --health-interval disable localhost/bb sleep 1000 >/dev/null
podman healthcheck run h >/dev/null 2>&1 && fail "an ill container is healthy"
podman exec h touch /tmp/healthy
podman healthcheck run h >/dev/null || fail "a healthy container is ill"
podman rm -f -t 0 h >/dev/null

# --- another's network, and ps(1) inside
podman run -d --name w localhost/bb sh -c 'while true; do echo from w | nc -l -p 7001; done' >/dev/null || fail "run -d"
joins() { [ "$(podman run --rm --network container:w localhost/bb nc 127.0.0.1 7001 </dev/null)" = "from w" ]; }
await joins || fail "--network container:NAME"
podman run --rm --pid container:w localhost/bb true 2>/dev/null && fail "PIDs shared between sandboxes"
out=$(podman run --rm --network container:w --pid container:w localhost/bb cat /proc/1/cmdline | tr '\0' ' ')
[[ $out == *"from w"* ]] || fail "--network and --pid container:NAME: process 1 is $out"
podman top w -ef | grep -q 'from w' || fail "top: $(podman top w -ef)"
podman rm -f -t 0 w >/dev/null || fail "rm"

# --- a pod: an infrastructure container and two that join it
podman pod create --name p --network none --infra-image localhost/bb --infra-command '/bin/sleep 1000' >/dev/null || fail "pod create"
podman run -d --pod p --name p1 localhost/bb sleep 1000 >/dev/null || fail "the pod's first container"
podman run -d --pod p --name p2 localhost/bb sleep 1000 >/dev/null || fail "the pod's second container"
same "pod: running" "Running 3" "$(podman pod ps --format '{{.Status}} {{.NumberOfContainers}}')"
same "pod: exec in each" "one two" "$(podman exec p1 echo one) $(podman exec p2 echo two)"
# One network: what listens in one is reached from the other. Each has its own PIDs.
podman exec -d p1 sh -c 'echo over the loopback | nc -l -p 7000'
reach() { [ "$(podman exec p2 nc 127.0.0.1 7000 </dev/null)" = "over the loopback" ]; }
await reach || fail "pod: the other's loopback is not reached"
same "pod: each has its own processes" "1 1" "$(podman exec p1 ps | grep -c 'sleep 1000') $(podman exec p2 ps | grep -c 'sleep 1000')"
podman rm -f -t 0 p1 >/dev/null
same "pod: one that goes leaves the other" two "$(podman exec p2 echo two)"
podman pod stop -t 1 p >/dev/null 2>&1 || fail "pod stop"
podman pod rm -f p >/dev/null || fail "pod rm"
# With one PID namespace, in which the infrastructure container's process is the first.
podman pod create --name s --share net,uts,ipc,pid --network none --infra-image localhost/bb --infra-command '/bin/sleep 1000' >/dev/null || fail "pod create --share pid"
podman run -d --pod s --name s1 localhost/bb sleep 1001 >/dev/null || fail "the pod's container"
same "pod --share pid" "sleep 1000" "$(podman exec s1 cat /proc/1/cmdline | tr '\0' ' ' | sed 's/^.*bin.//; s/ *$//')"
podman exec s1 ps | grep -q 'sleep 1001' || fail "pod --share pid: ps: $(podman exec s1 ps)"
podman pod rm -f -t 0 s >/dev/null || fail "pod rm"
# Without one each is a sandbox of its own.
podman pod create --name n --infra=false >/dev/null || fail "pod create --infra=false"
podman run -d --pod n --name n1 localhost/bb sleep 1000 >/dev/null || fail "a pod without infrastructure"
podman run -d --pod n --name n2 localhost/bb sleep 1000 >/dev/null || fail "a pod without infrastructure: the second"
same "pod without infrastructure" "one two" "$(podman exec n1 echo one) $(podman exec n2 echo two)"
podman pod rm -f -t 0 n >/dev/null || fail "pod rm"

# --- the network of the host, by sockets of the host's; here that of a namespace of this test's own
ip netns add $HOST_NETWORK && ip -n $HOST_NETWORK link set lo up || fail "no network namespace can be made"
there() { timeout "${LIMIT:-60}" nsenter --net=/run/netns/$HOST_NETWORK "$@"; }
there_podman() { there /usr/bin/podman --root "$STORE/root" --runroot "$STORE/run" --runtime-flag network=host "$@"; }
there_podman run -d --name t --network host localhost/bb sh -c 'while true; do echo from inside | nc -l -p 7001; done' >/dev/null || fail "run --network host"
from_outside() { [ "$(there busybox nc 127.0.0.1 7001 </dev/null)" = "from inside" ]; }
await from_outside || fail "--network host: what listens inside is not reached"
(echo from outside | there busybox nc -l -p 7002) &
from_inside() { [ "$(there_podman exec t nc 127.0.0.1 7002 </dev/null)" = "from outside" ]; }
await from_inside || fail "--network host: what listens outside is not reached"
wait
# Without the runtime's flag it is not the host's: a loopback of its own.
same "--network host alone" "nc: can't connect to remote host (127.0.0.1): Connection refused" \
  "$(there /usr/bin/podman --root "$STORE/root" --runroot "$STORE/run" run --rm --network host localhost/bb nc 127.0.0.1 7001 2>&1)"
await from_outside || fail "--network host: it does not listen any more"
there_podman rm -f -t 0 t >/dev/null || fail "--network host: rm"

# --- build
mkdir "$SCRATCH/build"
printf 'FROM localhost/bb\nRUN echo built by $(uname -r) > /built\nRUN mkdir /d && echo second > /d/f && chown 7:8 /d/f\nCMD cat /built /d/f\n' >"$SCRATCH/build/Containerfile"
out=$(LIMIT=120 podman build --runtime "$RUNSC" --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --network none -t localhost/built "$SCRATCH/build" 2>&1) || fail "build: $out"
out=$(run localhost/built)
[[ $out == "built by "*redoubt*second ]] || fail "what was built: $out"
finish
