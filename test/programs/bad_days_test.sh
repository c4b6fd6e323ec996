# Full disks, files that vanish, damaged state: one line that names the container and the cause, and nothing left behind.
# The small disks are in a mount namespace of this test, its processes in a namespace too.
[ -n "${OWN:-}" ] || OWN=1 exec unshare --mount --propagation private --pid --fork --mount-proc bash "$0"
. "$(dirname "$0")/lib.sh"
trap 'umount "$SCRATCH"/disk* 2>/dev/null; rm -rf "$SCRATCH"' EXIT
export RUNSC
cd "$SCRATCH" || exit 1
DISK=$SCRATCH/disk
STATE=$DISK/state
runsc() { timeout 60 "$RUNSC" --root "$STATE" "$@"; }

make_bundle() { # DIRECTORY COMMAND
  mkdir -p "$1"/rootfs/{bin,proc,dev,sys}
  cp "$(command -v busybox)" "$1/rootfs/bin/busybox"
  for c in sh sleep true echo; do ln -s busybox "$1/rootfs/bin/$c"; done
  "$RUNSC" spec --bundle "$1" -- sh -c "$2" || fail "spec"
}
make_bundle bundle 'exec sleep 1000'

# In the process namespace of this test there are no others.
ours() { ps -eo pid,stat,args --no-headers | awk '$2 !~ /Z/ && $3 ~ /^runsc-(relay|sandbox|gofer)/ { print $1 }
                                                   $2 !~ /Z/ && $3 == ENVIRON["RUNSC"] { print $1 }'; }
nothing_left() { # NAME ID
  [ -e "$STATE/$2" ] && fail "$1: left in --root: $(ls -R "$STATE/$2" | tr '\n' ' ')"
  local left
  for _ in $(seq 100); do
    left=$(ours)
    [ -z "$left" ] && return
    sleep 0.05
  done
  fail "$1: processes are left: $(ps -o pid,args --no-headers -p $(tr '\n' ',' <<<"$left" | sed 's/,$//'))"
}
# one_line NAME PATTERN: of $out.
one_line() {
  [ "$(wc -l <<<"$out")" = 1 ] || fail "$1: not one line: $out"
  LC_ALL=C grep -aqE -- "$2" <<<"$out" || fail "$1: no /$2/: $out"
}

# --- --root on a full disk: with room for so many pages, and so many files
new_disk() { # OPTIONS
  mountpoint -q "$DISK" && umount "$DISK"
  mkdir -p "$DISK" && mount -t tmpfs -o "size=1m,$1" small "$DISK" || fail "mount"
}
fill_but() { # PAGES
  rm -f "$DISK/fill"
  dd if=/dev/zero of="$DISK/fill" bs=4096 2>/dev/null
  truncate -s "$(($(stat -c %s "$DISK/fill") - $1 * 4096))" "$DISK/fill"
}
refused=0 made=0
try_create() { # NAME
  # Not to a pipe, which the container would keep open.
  runsc create --bundle bundle --pid-file "$SCRATCH/pid" c >"$SCRATCH/out" 2>&1 </dev/null
  local code=$?
  out=$(cat "$SCRATCH/out")
  if [ $code = 0 ]; then
    made=$((made + 1))
    out=$(runsc delete --force c 2>&1) || fail "$1: delete: $out"
  else
    refused=$((refused + 1))
    same "$1: code" 1 $code
    one_line "$1" '^runsc: (container "c": .*|--root .*): No space left on device$'
    [ -e "$SCRATCH/pid" ] && fail "$1: a pid file"
  fi
  rm -f "$SCRATCH/pid"
  nothing_left "$1" c
}
for pages in 0 1 2 3 4 5 6 8 10 14 20; do
  new_disk nr_inodes=1000
  fill_but "$pages"
  try_create "room for $pages pages"
done
for files in 2 3 4 5 6 7 8 9 10 20; do
  new_disk nr_inodes=$files
  try_create "room for $files files"
done
{ [ $refused -ge 5 ] && [ $made -ge 2 ]; } || fail "create: $refused refused, $made made"

# --- the disk fills up later
new_disk nr_inodes=1000
runsc create --bundle bundle c >"$SCRATCH/out" 2>&1 </dev/null || fail "create: $(cat "$SCRATCH/out")"
fill_but 0
out=$(runsc start c 2>&1) && fail "start where nothing can be written down"
one_line "start" '^runsc: container "c": .*state.json: No space left on device$'
same "it has not started" created "$(runsc state c | sed -n 's/.*"status": "\(.*\)".*/\1/p')"
rm "$DISK/fill"
out=$(runsc start c 2>&1) || fail "start: $out"
fill_but 0
out=$(runsc pause c 2>&1) && fail "pause where nothing can be written down"
one_line "pause" '^runsc: container "c": .*state.json: No space left on device$'
same "it has not been paused" running "$(runsc state c | sed -n 's/.*"status": "\(.*\)".*/\1/p')"
same "exec" hi "$(runsc exec c echo hi 2>&1)"
out=$(runsc exec --detach --pid-file "$DISK/exec.pid" c sleep 1000 2>&1)
same "exec with a pid file on a full disk: code" 1 $?
grep -q '^runsc: container "c": --pid-file .*: No space left on device$' <<<"$out" || fail "exec: $out"
[ -e "$DISK/exec.pid.new" ] && fail "half a pid file"
out=$(runsc kill c KILL 2>&1) || fail "kill on a full disk: $out"
out=$(runsc wait c 2>&1)
[[ $out == *137* ]] || fail "wait: the status is not known: $out"
out=$(runsc delete c 2>&1) || fail "delete on a full disk: $out"
nothing_left "delete on a full disk" c

# --- the pid file, the log and the bundle on a full disk
umount "$DISK"
mkdir "$SCRATCH/disk2" && mount -t tmpfs -o size=64k,nr_inodes=3 small "$SCRATCH/disk2"
mkdir "$SCRATCH/disk2/d" && dd if=/dev/zero of="$SCRATCH/disk2/fill" bs=4096 2>/dev/null
runsc create --bundle bundle --pid-file "$SCRATCH/disk2/pid" c >"$SCRATCH/out" 2>&1
same "--pid-file: code" 1 $?
out=$(cat "$SCRATCH/out")
one_line "--pid-file" '^runsc: container "c": --pid-file .*/pid: No space left on device$'
nothing_left "--pid-file" c
out=$(runsc --log "$SCRATCH/disk2/log" create --bundle nowhere c 2>&1)
same "--log: code" 1 $?
grep -qE '^runsc: container "c": .*config.json: No such file or directory' <<<"$out" || fail "--log: the error is lost: $out"
grep -qE '^runsc: --log .*: No space left on device$' <<<"$out" || fail "--log: nothing is said of it: $out"
out=$(runsc --debug-log "$SCRATCH/disk2/d" create --bundle bundle c 2>&1)
same "--debug-log: code" 1 $?
one_line "--debug-log" '--debug-log .*: No space left on device$'
nothing_left "--debug-log" c
out=$(runsc spec --bundle "$SCRATCH/disk2/d" 2>&1)
same "spec: code" 1 $?
one_line "spec" 'disk2/d/config.json: No space left on device'
[ -e "$SCRATCH/disk2/d/config.json" ] && fail "half a config.json"
umount "$SCRATCH/disk2"

# --- the root file system is full: the guest is told, and nobody else is harmed
mkdir "$SCRATCH/disk3" && mount -t tmpfs -o size=3m small "$SCRATCH/disk3"
make_bundle "$SCRATCH/disk3/b" 'echo one > /a; dd if=/dev/zero of=/fill bs=4096 2>&1 | tail -1; echo two; true'
sed -i 's/"readonly": true/"readonly": false/' "$SCRATCH/disk3/b/config.json"
ln -s busybox "$SCRATCH/disk3/b/rootfs/bin/dd"; ln -s busybox "$SCRATCH/disk3/b/rootfs/bin/tail"
out=$(runsc run --bundle "$SCRATCH/disk3/b" c 2>&1)
same "a full root: code" 0 $?
same "a full root: it goes on" two "$(tail -1 <<<"$out")"
same "a full root: what was there" one "$(cat "$SCRATCH/disk3/b/rootfs/a")"
nothing_left "a full root" c
umount "$SCRATCH/disk3"

# --- files that are gone
refused() { # NAME PATTERN ARGUMENTS...
  local name=$1 pattern=$2
  shift 2
  runsc "$@" >"$SCRATCH/out" 2>&1 </dev/null
  local code=$?
  out=$(cat "$SCRATCH/out")
  [ $code = 1 ] || [ $code = 125 ] || fail "$name: code $code"
  one_line "$name" "$pattern"
  nothing_left "$name" c
}
refused "no bundle" '^runsc: container "c": .*/nowhere/config.json: No such file or directory' create --bundle nowhere c
make_bundle gone true && rm -r gone/rootfs
refused "no root" '^runsc: container "c": .*root.path: .*/gone/rootfs: No such file or directory$' create --bundle gone c
touch gone/rootfs
refused "a root that is a file" '^runsc: container "c": .*root.path: .*/gone/rootfs: not a directory$' run --bundle gone c
make_bundle later 'exec sleep 1000'
runsc create --bundle later c >/dev/null 2>&1 </dev/null || fail "create"
rm -r later
runsc start c || fail "start without the bundle"
same "state without the bundle" running "$(runsc state c | sed -n 's/.*"status": "\(.*\)".*/\1/p')"
out=$(runsc exec c sh -c 'echo hi' 2>&1)
[ "$out" = hi ] || grep -qE '^runsc: container "c": .*(not found|[Nn]o such file)' <<<"$out" || fail "exec without a root: $out"
runsc delete --force c || fail "delete without the bundle"
nothing_left "without the bundle" c

# --- damaged state
for damage in '' '{' '[]' 'null' '{"id": 5}' $'\xff\xfe\x00' "$(printf '[%.0s' $(seq 20000))"; do
  runsc create --bundle bundle c >/dev/null 2>&1 </dev/null || fail "create"
  printf '%s' "$damage" >"$STATE/c/state.json"
  for command in state start 'kill' 'exec c true' pause delete; do
    set -- $command
    [ $# = 1 ] && set -- $command c
    out=$(runsc "$@" 2>&1)
    same "damaged, $1: code" 1 $?
    one_line "damaged, $1" '^runsc: container "c": .*state.json: is damaged .*delete --force'
  done
  out=$(runsc list 2>&1) || fail "list: $out"
  out=$(runsc delete --force c 2>&1) || fail "delete --force: $out"
  same "delete --force: output" "" "$out"
  nothing_left "damaged" c
done
# A state directory that vanishes under it.
runsc create --bundle bundle c >/dev/null 2>&1 </dev/null && runsc start c || fail "create"
rm -r "$STATE/c"
out=$(runsc state c 2>&1)
one_line "no state" '^runsc: container "c" does not exist$'
kill -9 $(ours) 2>/dev/null
nothing_left "no state" c
finish
