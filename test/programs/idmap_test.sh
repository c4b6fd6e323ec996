#!/usr/bin/env bash
# User namespaces with mappings, and ID-mapped mounts: whose files are whose, on both sides.
. "$(dirname "$0")/lib.sh"
R=$SCRATCH/rootfs
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$SCRATCH/root" --ignore-cgroups "$@"; }
cleanup() {
  for c in first second held; do runsc delete --force $c >/dev/null 2>&1; done
  [ -n "${holder:-}" ] && kill "$holder"
  rm -rf "$SCRATCH"
}
trap cleanup EXIT
# As engines have it: the directories above are open to all.
chmod 755 "$SCRATCH"
mkdir -p "$R"/{bin,tmp,foreign} "$SCRATCH/volume" "$SCRATCH/plain"
cp /bin/busybox "$R/bin/"
for name in sh cat echo stat ls mkdir mkfifo ln rm touch chown chmod id sleep head tr; do ln -s busybox "$R/bin/$name"; done
chown -Rh 100000:100000 "$R"
chmod 1777 "$R/tmp"
echo secret >"$R/foreign/secret" && chmod 600 "$R/foreign/secret"
echo shown >"$R/foreign/shown" && chmod 644 "$R/foreign/shown"
chown 5:5 "$R/foreign/shown"
echo open >"$R/foreign/open" && chmod 666 "$R/foreign/open"

# config SCRIPT: as user and with mounts as $EDIT says (Python, on `c`).
config() {
  rm -f "$SCRATCH/config.json"
  "$RUNSC" spec --bundle "$SCRATCH" -- sh -c "$1" || fail "spec"
  python3 - "$SCRATCH/config.json" "$SCRATCH" <<PY
import json, sys
c = json.load(open(sys.argv[1]))
S = sys.argv[2]
c["root"]["readonly"] = False
c["process"]["capabilities"] = {k: ["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN"] for k in ["bounding", "effective", "permitted"]}
def ids(*lines): return [{"containerID": a, "hostID": b, "size": n} for a, b, n in lines]
def userns(*lines, **more):
    c["linux"]["namespaces"].append({"type": "user", **more})
    if lines: c["linux"]["uidMappings"] = c["linux"]["gidMappings"] = ids(*lines)
def mount(destination, source, *options, **more):
    c["mounts"].append({"destination": destination, "type": "bind", "source": source, "options": list(options), **more})
${EDIT:-}
json.dump(c, open(sys.argv[1], "w"))
PY
}
run() { runsc run --bundle "$SCRATCH" "${1:-first}" 2>&1; }
refused() {
  local said
  said=$(run) && fail "it ran, but \"$1\" was to be refused"
  [[ $said == *"$1"* ]] || fail "said \"$said\", not \"$1\""
  [ "$(wc -l <<<"$said")" -eq 1 ] || fail "more than one line: $said"
}
owner() { stat -c '%u %g' "$@"; }

# --- both directions
EDIT='userns((0, 100000, 65536), (70000, 1000, 2))' config '
id -u; stat -c "%u %g" /bin/busybox /foreign/secret /foreign/shown
cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups | tr -s " "
cat /foreign/shown /foreign/secret; echo x >/foreign/shown; echo more >>/foreign/open; chown 0 /foreign/shown; chmod 777 /foreign/open
cd /tmp; echo made >file; mkdir dir; mkfifo fifo; ln -s file link; ln file hard
chown 7:8 file; chown 70001:70000 dir; chown -h 3:4 link
stat -c "%n %u %g" file dir fifo link
chown 65536 fifo; chown :80000 fifo; chown 65535 fifo && stat -c %u fifo
chmod 2775 dir; mkdir dir/sub; stat -c "%a %g" dir/sub'
same "inside" "0
0 0
65534 65534
65534 65534
 0 100000 65536
 70000 1000 2
 0 100000 65536
 70000 1000 2
allow
shown
cat: can't open '/foreign/secret': Permission denied
sh: can't create /foreign/shown: Permission denied
chown: /foreign/shown: Operation not permitted
chmod: /foreign/open: Operation not permitted
file 7 8
dir 70001 70000
fifo 0 0
link 3 4
chown: fifo: Invalid argument
chown: fifo: Invalid argument
65535
2755 70000" "$(run)"
same "outside" "100007 100008
1001 1000
165535 100000
100003 100004
100007 100008
100000 1000" "$(cd "$R/tmp" && owner file dir fifo link hard dir/sub)"
same "what belongs to others" "secret shown open more" "$(cd "$R/foreign" && cat secret shown open | tr '\n' ' ' | sed 's/ $//')"
rm -rf "$R"/tmp/*

# In a directory of a group that has no number inside: files are of that group, which nobody can be given.
mkdir "$R/tmp/group" && chgrp 5 "$R/tmp/group" && chmod 2777 "$R/tmp/group"
EDIT='userns((0, 100000, 1000))' config 'cd /tmp/group && mkdir d && echo x >f && ln -s f l && mkfifo p && stat -c "%u %g" d f l p'
same "set-group-ID of a foreign group" $'0 65534\n0 65534\n0 65534\n0 65534' "$(run)"
same "outside" $'100000 5\n100000 5\n100000 5\n100000 5' "$(cd "$R/tmp/group" && owner d f l p)"
rm -rf "$R"/tmp/*

# --- other users, other processes
EDIT='userns((0, 100000, 65536)); c["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [9]}' config 'echo x >/tmp/user; id; sleep 1000'
runsc create --bundle "$SCRATCH" --pid-file "$SCRATCH/pid" first >"$SCRATCH/out" 2>&1 </dev/null && runsc start first || fail "create and start: $(cat "$SCRATCH/out")"
for _ in $(seq 100); do grep -q uid "$SCRATCH/out" && break; sleep 0.05; done
same "its user" "uid=1000 gid=1001 groups=9" "$(cat "$SCRATCH/out")"
same "its user's file" "101000 101001" "$(owner "$R/tmp/user")"
same "exec as another" "0 65535 65535" "$(runsc exec --user 65535:65535 first sh -c 'echo x >/tmp/other; echo $(id -u root 2>/dev/null || echo 0) $(stat -c "%u %g" /tmp/other)')"
same "outside" "165535 165535" "$(owner "$R/tmp/other")"
same "exec as nobody that there is" 'runsc: container "first": process.user.uid: 65536 is not mapped in the container'"'"'s user namespace' "$(runsc exec --user 65536 first true 2>&1)"
gofer=$(pgrep -P "$(cat "$SCRATCH/pid")" -x runsc-gofer)
same "the gofer's identity" "100000 000000000000001b" "$(awk '$1 == "Uid:" { u = $2 } $1 == "CapPrm:" { print u, $2 }' "/proc/$gofer/status")"
[ "$(readlink "/proc/$gofer/ns/user")" != "$(readlink /proc/self/ns/user)" ] || fail "the gofer is in the host's user namespace"

# --- namespaces that are there
EDIT='userns(path="/proc/'"$(cat "$SCRATCH/pid")"'/ns/user")' config 'cat /proc/self/uid_map | tr -s " "; stat -c %u /tmp/user'
same "that of another container" $' 0 100000 65536\n1000' "$(run second)"
runsc delete --force first || fail "delete"
EDIT='c["linux"]["namespaces"].append({"type": "user", "path": "/proc/self/ns/user"})' config 'cat /proc/self/uid_map | tr -s " "; stat -c %u /bin/busybox'
same "the host's" $' 0 0 4294967295\n100000' "$(run)"
unshare --user sleep 1000 &
holder=$!
for _ in $(seq 100); do [ "$(readlink /proc/$holder/ns/user)" != "$(readlink /proc/self/ns/user)" ] && break; sleep 0.05; done
EDIT='userns(path="/proc/'$holder'/ns/user")' config true
refused "linux.namespaces: user: /proc/$holder/ns/user: it has no mappings"
echo '0 100000 500' >/proc/$holder/uid_map && echo '0 200000 500' >/proc/$holder/gid_map || fail "mappings of a namespace"
EDIT='userns(path="/proc/'$holder'/ns/user")' config 'cat /proc/self/uid_map /proc/self/gid_map | tr -s " "; stat -c "%u %g" /bin/busybox; echo x >/tmp/held'
same "one that somebody has made" $' 0 100000 500\n 0 200000 500\n0 65534' "$(run)"
same "outside" "100000 200000" "$(owner "$R/tmp/held")"
EDIT='userns((0, 100000, 500), path="/proc/'$holder'/ns/user")' config true
refused "linux.uidMappings: are not those of the user namespace /proc/$holder/ns/user"
rm -rf "$R"/tmp/*

# --- ID-mapped mounts
V=$SCRATCH/volume
echo root >"$V/root"; echo five >"$V/five" && chown 5:6 "$V/five" && chmod 600 "$V/five"
SHOW='stat -c "%n %u %g" /v/root /v/five; cat /v/five; cd /v; echo x >new; mkdir dir; chown 7:8 new; stat -c "%u %g" new dir'
EDIT='userns((0, 100000, 65536)); mount("/v", S + "/volume", "rbind", "idmap", uidMappings=ids((0, 100000, 65536)), gidMappings=ids((0, 100000, 65536)))' config "$SHOW"
same "inside" $'/v/root 0 0\n/v/five 5 6\nfive\n7 8\n0 0' "$(run)"
same "what is stored" $'7 8\n0 0' "$(cd "$V" && owner new dir)"
rm -r "$V"/{new,dir}
EDIT='userns((0, 100000, 65536)); mount("/v", S + "/volume", "bind", "idmap")' config "$SHOW"
same "with the container's mappings" $'/v/root 0 0\n/v/five 5 6\nfive\n7 8\n0 0' "$(run)"
same "what is stored" $'7 8\n0 0' "$(cd "$V" && owner new dir)"
rm -r "$V"/{new,dir}
# The mount's mappings and the container's one after the other: 5 is 100000 on the host, which is 0 inside.
EDIT='userns((0, 100000, 65536)); mount("/v", S + "/volume", "bind", uidMappings=ids((5, 100000, 10)), gidMappings=ids((6, 100000, 10)))' \
  config 'stat -c "%n %u %g" /v/root /v/five; cd /v; echo more >>five; echo x >root; rm root; echo $?'
chmod 1777 "$V"
same "two mappings" $'/v/root 65534 65534\n/v/five 0 0\nsh: can\'t create root: Permission denied\nrm: can\'t remove \'root\': Value too large for defined data type\n1' "$(run)"
same "what is stored" $'five\nmore' "$(cat "$V/five")"
# Without a user namespace: the host's 5 is root. What is of IDs that are not mapped is not written to, directories included.
chown 5:6 "$V"
EDIT='mount("/v", S + "/volume", "bind", uidMappings=ids((5, 0, 1)), gidMappings=ids((6, 0, 1)))' \
  config 'stat -c "%n %u %g" /v/root /v/five; cd /v; echo x >new; mkdir d; stat -c "%u %g" new d; chown 9 new; true'
same "without a user namespace" $'/v/root 65534 65534\n/v/five 0 0\n0 0\n0 0\nchown: new: Value too large for defined data type' "$(run)"
same "what is stored" $'5 6\n5 6' "$(cd "$V" && owner new d)"
# idmap is of the mount alone, ridmap of what is mounted below it too.
for option in idmap:65534 ridmap:0; do
  EDIT='userns((0, 100000, 65536)); mount("/v", S + "/plain", "rbind", "'${option%:*}'")' config 'stat -c %u /v /v/below'
  same "${option%:*}" "0
${option#*:}" "$(mkdir -p "$SCRATCH/plain/below" && unshare --mount sh -c 'mount -t tmpfs none "$0/plain/below" && shift && timeout 60 "$1" --root "$0/root" --ignore-cgroups run --bundle "$0" first' "$SCRATCH" x "$RUNSC" 2>&1)"
done

# --- what cannot be
EDIT='c["linux"]["uidMappings"] = c["linux"]["gidMappings"] = ids((0, 100000, 1))' config true
refused 'linux.uidMappings: given, and no user namespace in linux.namespaces'
EDIT='userns()' config true
refused 'linux.uidMappings: missing, and needed for a new user namespace'
EDIT='userns((0, 100000, 10)); c["process"]["user"]["gid"] = 10' config true
refused 'process.user.gid: 10 is not mapped'
EDIT='userns((0, 100000, 10), (9, 200000, 1))' config true
refused 'linux.uidMappings: containerID 9 is mapped twice'
EDIT='mount("/v", S + "/volume", "rbind", "idmap")' config true
refused 'mounts[5]: to be ID-mapped, and neither it nor the container has mappings'
EDIT='mount("/v", S + "/volume", "rbind", uidMappings=ids((0, 1000, 1)), gidMappings=ids((0, 1000, 1)))' config true
refused "mounts[5]: its mappings leave out the container's root"
EDIT='userns((0, 100000, 10)); mount("/v", "/proc", "rbind", "ro", "idmap")' config true
said=$(runsc create --bundle "$SCRATCH" first 2>&1 </dev/null) && fail "/proc was mapped"
same "a file system without ID-mapped mounts" 'runsc: container "first": cannot map the IDs of /proc: Invalid argument; its file system may not have ID-mapped mounts' "$said"

# --- calls, by the host's own python, whose files belong to nobody inside: natively in a user namespace, then in a container with the same mappings
cat >"$SCRATCH/calls.py" <<'P'
import array, ctypes, errno, os, resource, socket, struct
def outcome(f, *args):
    try: return f(*args)
    except OSError as e: return errno.errorcode[e.errno]
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    r = getattr(libc, name)(*args)
    return errno.errorcode[ctypes.get_errno()] if r == -1 else r
print(os.stat("/usr/bin/env").st_uid, outcome(os.listdir, "/root"), outcome(os.setgroups, [7, 100]), outcome(os.setgroups, [7]), os.getgroups())
for f in os.setuid, os.setgid, os.seteuid, os.setegid: print(outcome(f, 100), outcome(f, 0), end=" ")
print()
for f in os.setresuid, os.setresgid: print(outcome(f, 100, 0, 0), outcome(f, -1, 100, -1), outcome(f, 0, 0, 100), outcome(f, 0, -1, 99), outcome(f, 0, 0, 0), end=" ")
for f in os.setreuid, os.setregid: print(outcome(f, 100, 0), outcome(f, -1, 100), end=" ")
print()
for name in "setfsuid", "setfsgid": print(*(call(name, i) for i in (100, 7, 0, 0)), end=" ")
print()
T = os.environ["T"]
os.mkdir(T + "/d")
print(outcome(os.chown, T + "/d", 100, -1), outcome(os.chown, T + "/d", -1, 100), outcome(os.chown, T + "/d", 99, 99), outcome(os.chown, T + "/none", 100, 100))
fd = os.open(T + "/d", os.O_RDONLY)
print(outcome(os.fchown, fd, 100, -1), outcome(os.lchown, T + "/d", 100, 5), outcome(os.fchown, fd, -1, -1), os.fstat(fd).st_uid)
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for ids in (0, 0), (100, 0), (0, 100), (99, 99):
    print(outcome(a.sendmsg, [b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", os.getpid(), *ids))]), end=" ")
print()
shm = libc.shmget(0, 4096, 0o1600)
ds = ctypes.create_string_buffer(112)
for ids in (100, 0), (0, 100), (99, 99):
    call("shmctl", shm, 2, ds)
    struct.pack_into("2I", ds, 4, *ids)
    print(call("shmctl", shm, 1, ds), end=" ")
call("shmctl", shm, 0, None)
print()
for name in "uid_map", "gid_map", "setgroups", "projid_map": print(open("/proc/self/" + name).read(), end="")
print(os.readlink("/proc/self/ns/user") != os.environ["NS"])
P
cat >"$SCRATCH/map.py" <<'P'
# calls.py in a user namespace of the host's.
import ctypes, os, sys
ready, mapped = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    if ctypes.CDLL(None).unshare(0x10000000): os._exit(9)
    os.write(ready[1], b"x")
    os.read(mapped[0], 1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])
    os.execvp("python3", ["python3", sys.argv[1]])
os.read(ready[0], 1)
for name in "uid_map", "gid_map": open(f"/proc/{pid}/{name}", "w").write("0 100000 100")
os.write(mapped[1], b"x")
os.waitpid(pid, 0)
P
mkdir "$SCRATCH/native" && chmod 1777 "$SCRATCH/native"
native=$(NS=$(readlink /proc/self/ns/user) T=$SCRATCH/native timeout 20 python3 "$SCRATCH/map.py" "$SCRATCH/calls.py" 2>&1)
[[ $native == *" 100000 "*True* ]] || fail "no user namespace natively: $native"
EDIT='userns((0, 100000, 100)); c["root"] = {"path": "/", "readonly": True}
c["process"].update({"args": ["python3", S + "/calls.py"], "env": ["PATH=/usr/bin:/bin", "T=/dev/shm", "NS='"$(readlink /proc/self/ns/user)"'"]})' config true
same "calls" "$native" "$(run)"

finish
