#!/usr/bin/env bash
# `runsc do` with what it may be granted, as root and as an ordinary user.
. "$(dirname "$0")/lib.sh"
chmod 755 "$SCRATCH"
mkdir -p "$SCRATCH/bin" "$SCRATCH/dir/sub" "$SCRATCH/home"
cp "$RUNSC" "$SCRATCH/bin/runsc"
chown -R 12345:12345 "$SCRATCH/home"
echo host >"$SCRATCH/dir/file"
cd "$SCRATCH"
# /dev/kvm is not for everybody.
USERS_PLATFORM=${RUNSC_PLATFORM/kvm/auto}
as_user() { RUNSC_PLATFORM=$USERS_PLATFORM timeout "${LIMIT:-60}" setpriv --reuid 12345 --regid 12345 --clear-groups "$SCRATCH/bin/runsc" "$@"; }
refused() { # TEXT ARGS...
  local text=$1 said
  shift
  said=$(timeout 60 "$RUNSC" "$@" 2>&1) && fail "$* succeeded"
  [[ $said == *"$text"* ]] || fail "$*: said \"$said\", not \"$text\""
  [ "$(wc -l <<<"$said")" -eq 1 ] || fail "$*: more than one line: $said"
}

# --- files
same "nothing granted: inside" in "$(sandbox sh -c 'echo in > dir/file; cat dir/file')"
same "nothing granted: outside" host "$(cat dir/file)"
same "--rw: inside" "in lost" "$(sandbox --rw dir sh -c 'echo in > dir/file; echo lost > beside; echo $(cat dir/file beside)')"
same "--rw: outside" "in" "$(cat dir/file)"
[ -e beside ] && fail "--rw dir let a write beside it reach the host"
same "--rw of a single file" out "$(echo in >single; sandbox --rw=single sh -c 'echo out > single; echo x > other' && cat single)"
[ -e other ] && fail "--rw of a file let a write beside it reach the host"
same "--volume" $'in\nwritten' "$(sandbox --volume dir:/mnt/v --volume dir:/mnt/w:ro sh -c 'cat /mnt/v/file; echo written > /mnt/v/file; cat /mnt/w/file; echo x > /mnt/w/file' 2>err)"
grep -q 'Read-only file system' err || fail "--volume with :ro can be written: $(cat err)"
same "--volume: outside" written "$(cat dir/file)"
[ -e /mnt/v ] && fail "the mount point of --volume was made on the host"
refused '--rw /no/such: No such file or directory' do --rw /no/such true
refused '--volume x: must be SRC:DST or SRC:DST:ro' do --volume x true
refused '--volume dir:rel: must be' do --volume dir:rel true
refused '--volume dir:/x:rwx: must be' do --volume dir:/x:rwx true
refused '--volume no:/x: no: No such file' do --volume no:/x true

# --- identity and surroundings
same "--env" "1 two" "$(A=0 sandbox --env A=1 -e B=two sh -c 'echo $A $B; env | grep -c "^A="' | tr '\n' ' ' | sed 's/ 1 $//')"
refused '--env A: must be NAME=VALUE' do --env A true
same "--user by number" "7 7 7" "$(sandbox --user 7 sh -c 'echo $(id -u; id -g; id -G)')"
same "--user with a group" "7 9" "$(sandbox --user 7:9 sh -c 'echo $(id -u; id -g)')"
same "--user by name" "$(id -u nobody) $(id -g nobody)" "$(sandbox -u nobody sh -c 'echo $(id -u; id -g)')"
same "another user has no rights of root's" 1 "$(sandbox -u nobody sh -c 'cat /etc/shadow 2>&1 | grep -c "Permission denied"')"
refused '--user nonesuch: no user "nonesuch"' do --user nonesuch true
refused '--user 1:x: must be' do --user 1:x true
same "--cwd and --hostname" "/usr elsewhere" "$(sandbox --cwd /usr --hostname elsewhere sh -c 'echo $(pwd; uname -n)')"
same "what follows the command is its own" "--rw x" "$(sandbox echo --rw x)"
same "a -- of the command" "x -- y" "$(sandbox echo x -- y)"
same "and after --" "a" "$(sandbox --env A=a -- sh -c 'echo $A')"

# --- the network: the guard, and a namespace of one's own
refused "the machine's own network namespace" do --net true
refused '--net contradicts --network=none' --network=none do --net true
# A namespace that ends with its command; its addresses are 10.9.9.1 on one end and the guest's on the other.
cat >net.sh <<'N'
ip link set lo up
ip link add v0 type veth peer name v1
ip addr add 10.9.9.1/24 dev v0
ip link set v0 up
ip link set v1 up
timeout 60 "$RUNSC" do --net sh -c 'busybox ifconfig v0 | grep -o "addr:10.9.9.1"'
N
same "--net" addr:10.9.9.1 "$(RUNSC=$RUNSC unshare -n sh net.sh 2>&1)"

# --- an ordinary user
out=$(as_user do sh -c 'id -u; echo lost > /tmp/lost && cat /tmp/lost; exit 9' 2>err)
same "user: code" 9 $?
same "user: output" $'12345\nlost' "$out"
same "user: nothing of its own" "" "$(cat err)"
[ -e /tmp/lost ] && fail "a write reached the host"
as_user do --rw home sh -c 'echo kept > home/f' || fail "user: --rw"
same "user: --rw" "kept 12345" "$(echo $(cat home/f; stat -c %u home/f))"
same "user: no more than he may" 1 "$(as_user do --rw dir sh -c 'echo x > dir/file' 2>&1 | grep -c 'Permission denied')"
same "user: root inside is himself outside" "0 12345" "$(as_user do --user 0 --rw home sh -c 'id -u; echo r > home/root' | tr '\n' ' '; stat -c %u home/root)"
same "user: root inside cannot read what he may not" 1 "$(as_user do --user 0 cat /etc/shadow 2>&1 | grep -c 'Permission denied')"

# --- containers of an ordinary user
mkdir -p home/bundle/rootfs/bin
cp /bin/busybox home/bundle/rootfs/bin/busybox
for name in sh sleep echo id cat; do ln -s busybox "home/bundle/rootfs/bin/$name"; done
chown -R 12345:12345 home
cd home/bundle
user_runsc() { as_user --root "$SCRATCH/home/state" --rootless true "$@"; }
user_runsc spec -- sh -c 'id -u; exit 3' || fail "user: spec"
same "user: run" "0 3" "$(echo $(user_runsc run r; echo $?))"
rm -f config.json
user_runsc spec -- sleep 1000
user_runsc create c </dev/null >out 2>&1 || fail "user: create: $(cat out)"
user_runsc start c || fail "user: start"
same "user: exec" inside "$(user_runsc exec c echo inside)"
user_runsc kill c KILL || fail "user: kill"
for _ in $(seq 100); do user_runsc state c 2>/dev/null | grep -q stopped && break; sleep 0.05; done
user_runsc delete c || fail "user: delete"
same "user: nothing is left" "" "$(ls -A "$SCRATCH/home/state")"
finish
