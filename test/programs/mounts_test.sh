#!/usr/bin/env bash
# The mounts that engines ask for, with their options, and where writes go: --overlay2, --file-access.
. "$(dirname "$0")/lib.sh"
BUNDLE=$SCRATCH/bundle
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$SCRATCH/root" "$@"; }
mkdir -p "$BUNDLE/rootfs/bin" "$BUNDLE/rootfs/full/sub" "$SCRATCH/volume"
cp /bin/busybox "$BUNDLE/rootfs/bin/busybox"
for name in sh cat echo stat ls grep mkdir rm touch find readlink chmod sleep cut df dd; do ln -s busybox "$BUNDLE/rootfs/bin/$name"; done
echo below >"$BUNDLE/rootfs/full/file"
echo deep >"$BUNDLE/rootfs/full/sub/file"
ln -s sub/file "$BUNDLE/rootfs/full/link"
chmod 0751 "$BUNDLE/rootfs/full"
chmod 0640 "$BUNDLE/rootfs/full/file"
chown 12:34 "$BUNDLE/rootfs/full/file"
echo one >"$SCRATCH/volume/file"
echo single >"$SCRATCH/single"

# config SCRIPT: the bundle's configuration, changed by $EDIT (Python, on `c`; mount() adds one).
config() {
  rm -f "$BUNDLE/config.json"
  "$RUNSC" spec --bundle "$BUNDLE" -- sh -c "$1" || fail "spec"
  python3 - "$BUNDLE/config.json" "$SCRATCH" <<PY
import json, sys
c = json.load(open(sys.argv[1]))
S = sys.argv[2]
c["root"]["readonly"] = False
c["process"]["capabilities"] = {k: ["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER", "CAP_SYS_ADMIN"] for k in ["bounding", "effective", "permitted"]}
def mount(destination, type, source, *options, **more):
    c["mounts"].append({"destination": destination, "type": type, "source": source, "options": list(options), **more})
${EDIT:-}
json.dump(c, open(sys.argv[1], "w"))
PY
}
run() { runsc ${FLAGS:-} run --bundle "$BUNDLE" m 2>&1; }
# refused TEXT: what the configuration asks for fails with one line that has TEXT.
refused() {
  local said
  said=$(run) && fail "it ran, but \"$1\" was to be refused"
  [[ $said == *"$1"* ]] || fail "said \"$said\", not \"$1\""
  [ "$(wc -l <<<"$said")" -eq 1 ] || fail "more than one line: $said"
}

# --- tmpfs
EDIT='mount("/full", "tmpfs", "tmpfs", "rw", "rprivate", "nosuid", "nodev", "tmpcopyup")' \
  config 'cd /full; cat file link; stat -c "%a %u %g" file .; readlink link; echo changed > file; echo new > sub/new; cat file; grep " /full " /proc/mounts | cut -d" " -f3'
same "tmpcopyup" $'below\ndeep\n640 12 34\n751 0 0\nsub/file\nchanged\ntmpfs' "$(run)"
same "the directory underneath is unchanged" "below file" "$(cat "$BUNDLE/rootfs/full/file") $(cd "$BUNDLE/rootfs/full/sub" && ls)"
EDIT='mount("/full", "tmpfs", "tmpfs", "notmpcopyup"); mount("/t", "tmpfs", "t", "size=64k", "nr_inodes=5", "mode=0700", "uid=5", "gid=6")' \
  config 'ls /full; stat -c %a /full; stat -c "%a %u %g" /t; touch /t/1 /t/2 /t/3 /t/4 && ! touch /t/5 2>/dev/null && echo full; df -k /t | grep -c " 64 "'
same "tmpfs with limits" $'751\n700 5 6\nfull\n1' "$(run)"
EDIT='mount("/full", "tmpfs", "tmpfs", "tmpcopyup", "nr_inodes=2")' config true
refused 'cannot mount tmpfs on /full: option tmpcopyup: copying what /full holds: No space left on device'
EDIT='mount("/t", "tmpfs", "tmpfs", "mode=0700", "frobnicate=1")' config true
refused 'cannot mount tmpfs on /t: option frobnicate=1: Invalid argument'
EDIT='mount("/full", "bind", S + "/volume", "rbind", "tmpcopyup")' config true
refused 'option tmpcopyup: is for tmpfs only'
EDIT='mount("/t", "proc", "proc", "hidepid=2")' config true
refused 'option hidepid=2: proc has no such option here'

# --- bind mounts
EDIT='mount("/v", "bind", S + "/volume", "rbind", "rprivate", "rro", "rnosuid", "z")' config 'cat /v/file; echo x > /v/file; true'
same "rro" $'one\nsh: can\'t create /v/file: Read-only file system' "$(run)"
EDIT='mount("/s", "bind", S + "/single", "bind", "rw"); mount("/w/x", "bind", S + "/single", "bind", "ro")' \
  config 'cat /s; echo more >> /s; cat /w/x; echo x > /w/x; true'
same "single files" $'single\nsingle\nmore\nsh: can\'t create /w/x: Read-only file system' "$(run)"
same "a file is written" $'single\nmore' "$(cat "$SCRATCH/single")"
ln -s file "$SCRATCH/volume/link"
EDIT='mount("/v", "bind", S + "/volume", "rbind", "nosymfollow")' config 'readlink /v/link; cat /v/link; true'
same "nosymfollow" $'file\ncat: can\'t open \'/v/link\': Too many levels of symbolic links' "$(run)"
EDIT='mount("/v", "tmpfs", "tmpfs", "idmap")' config true
refused 'mounts[5]: only bind mounts can be ID-mapped'

# --- control groups
EDIT='
c["linux"]["resources"] = {"memory": {"limit": 67108864}, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 50}}
mount("/sys/fs/cgroup", "cgroup", "cgroup", "rprivate", "nosuid", "noexec", "nodev", "relatime", "ro")' \
  config 'cd /sys/fs/cgroup; cat cgroup.controllers memory.max cpu.max pids.max pids.current; [ $(cat memory.current) -gt 0 ] && echo used; echo 1 > memory.max; grep " cgroup2 " /proc/mounts | cut -d" " -f1-3; cat /proc/self/cgroup; grep -c "	0	1	1" /proc/cgroups'
FLAGS=--ignore-cgroups
same "cgroup" $'cpu memory pids\n67108864\n50000 100000\n50\n2\nused\nsh: can\'t create memory.max: Read-only file system\ncgroup /sys/fs/cgroup cgroup2\n0::/\n5' "$(run)"
FLAGS=

# --- --overlay2
EDIT='mount("/v", "bind", S + "/volume", "rbind", "rw"); mount("/s", "bind", S + "/single", "bind")' \
  config 'echo in > /full/new; echo in > /v/file; echo in > /s; rm /full/file; cat /full/new /v/file /s; ls /full'
FLAGS=--overlay2=all:memory
same "all:memory: inside" $'in\nin\nin\nlink\nnew\nsub' "$(run)"
same "all:memory: outside" $'file link sub|one|single\nmore' "$(echo $(ls "$BUNDLE/rootfs/full"))|$(cat "$SCRATCH/volume/file")|$(cat "$SCRATCH/single")"
FLAGS=--overlay2=root:memory
same "root:memory: inside" $'in\nin\nin\nlink\nnew\nsub' "$(run)"
same "root:memory: outside" $'file link sub|in|in' "$(echo $(ls "$BUNDLE/rootfs/full"))|$(cat "$SCRATCH/volume/file")|$(cat "$SCRATCH/single")"
FLAGS=--overlay2=root:self
before=$(find "$BUNDLE/rootfs" | sort)
same "root:self: inside" $'in\nin\nin\nlink\nnew\nsub' "$(run)"
same "root:self: outside" $'file link sub|in|in' "$(echo $(ls "$BUNDLE/rootfs/full"))|$(cat "$SCRATCH/volume/file")|$(cat "$SCRATCH/single")"
same "root:self: nothing is left" "$before" "$(find "$BUNDLE/rootfs" | sort)"
# What a guest writes does not become the Sentry's memory; with root:memory it does. In kB, of a file of 128 MiB.
sentry_memory() {
  runsc --overlay2="$1" run --detach --bundle "$BUNDLE" big >/dev/null 2>&1 </dev/null || fail "$1: run --detach"
  runsc exec big sh -c 'dd if=/dev/zero of=/big bs=1M count=128 2>/dev/null; dd if=/big of=/dev/null bs=1M 2>/dev/null; stat -c %s /big' >"$SCRATCH/size"
  same "$1: size" 134217728 "$(cat "$SCRATCH/size")"
  local relay
  relay=$(runsc state big | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
  awk '/^(RssAnon|RssShmem):/ { n += $2 } END { print n }' "/proc/$(pgrep -P "$relay" -x runsc-sandbox || pgrep -P "$relay" -f '^runsc-sandbox')/status"
  runsc delete --force big
}
EDIT= config 'exec sleep 1000'
on_disk=$(sentry_memory root:self)
[ "$on_disk" -lt 65536 ] || fail "root:self: the Sentry has $on_disk kB"
in_memory=$(sentry_memory root:memory)
[ "$in_memory" -gt 131072 ] || fail "root:memory: the Sentry has $in_memory kB, so that the measure measures nothing"
EDIT='mount("/v", "bind", S + "/volume", "rbind", "rw"); mount("/s", "bind", S + "/single", "bind")' \
  config 'echo in > /full/new; echo in > /v/file; echo in > /s; rm /full/file; cat /full/new /v/file /s; ls /full'
FLAGS=
same "none: inside" $'in\nin\nin\nlink\nnew\nsub' "$(run)"
same "none: outside" "link new sub" "$(echo $(ls "$BUNDLE/rootfs/full"))"
FLAGS=--overlay2=all:self
refused '--overlay2=all:self: the layer cannot be kept there; there are: none, root:memory, root:self, all:memory'
FLAGS=--overlay2=most
refused '--overlay2=most: not known'
FLAGS=

# --- --file-access: whether a change on the host is seen
EDIT='mount("/v", "bind", S + "/volume", "rbind")' \
  config 'cat /v/file; echo x > /v/ready; while [ ! -e /bin/go ]; do sleep 0.1; done; sleep 1.5; cat /v/file; ls /v/late 2>&1; echo mine > /v/own; cat /v/own'
seen() {
  rm -f "$SCRATCH"/volume/{ready,late,own} "$BUNDLE/rootfs/bin/go"
  echo old >"$SCRATCH/volume/file"
  run >"$SCRATCH/out" &
  for _ in $(seq 200); do [ -e "$SCRATCH/volume/ready" ] && break; sleep 0.05; done
  echo changed >"$SCRATCH/volume/file"
  touch "$SCRATCH/volume/late"
  sleep 0.1
  touch "$BUNDLE/rootfs/bin/go"
  wait $!
  cat "$SCRATCH/out"
}
same "shared" $'old\nchanged\n/v/late\nmine' "$(seen)"
FLAGS=--file-access-mounts=exclusive
same "exclusive" $'old\nold\n/v/late\nmine' "$(seen)"
FLAGS=--file-access=often
refused '--file-access=often: not known; there are: shared, exclusive'
finish
