# What the walls of a running sandbox look like from outside, as root and as an ordinary user; what is inherited, and what
# is done where the host lets not all of them be built.
. "$(dirname "$0")/../programs/lib.sh"
chmod 755 "$SCRATCH"
cp "$RUNSC" "$SCRATCH/runsc" && chmod 755 "$SCRATCH/runsc" || exit 1
R="$SCRATCH/runsc"
hostname=$(hostname)
mounts=$(grep -vc ' /run/netns' /proc/mounts)
WORDS="$SCRATCH/words"

# of CLI NAME: the number of the CLI's child of that name.
child() { for _ in $(seq 100); do pgrep -P "$1" -x "$2" && return; sleep 0.05; done; }
field() { awk -v f="$2:" '$1 == f { print $2 }' "/proc/$1/status"; }
check_namespaces() { # WHO PID NAMES...
  local who=$1 pid=$2 name
  shift 2
  for name in "$@"; do
    [ "$(readlink "/proc/$pid/ns/$name")" != "$(readlink "/proc/self/ns/$name")" ] || fail "$who shares the host's $name namespace"
  done
}
check_empty_root() { # WHO PID
  same "$1: its root" "" "$(ls -A "/proc/$2/root/")"
  same "$1: its mounts" "/ ro,nosuid,nodev,noexec" "$(awk '{ sub(",relatime", "", $6); print $5, $6 }' "/proc/$2/mountinfo")"
}
check_common() { # WHO PID
  same "$1: number" 1 "$(awk '$1 == "NSpid:" { print $NF }' "/proc/$2/status")"
  same "$1: no_new_privs" 1 "$(field "$2" NoNewPrivs)"
  same "$1: core" 0 "$(awk '/^Max core/ { print $6 }' "/proc/$2/limits")"
  for t in "/proc/$2/task"/*/status; do same "$1: filter of each thread" 2 "$(awk '$1 == "Seccomp:" { print $2 }' "$t")"; done
  check_empty_root "$1" "$2"
}

echo secret >"$SCRATCH/secret"
mkdir "$SCRATCH/private"
mkfifo "$SCRATCH/go"
SECRET_VARIABLE=1 timeout 60 "$R" do sh -c 'echo ready; read line' <"$SCRATCH/go" >"$WORDS" 7<"$SCRATCH/private" 8<"$SCRATCH/secret" &
exec 9>"$SCRATCH/go"
for _ in $(seq 100); do grep -q ready "$WORDS" && break; sleep 0.05; done
cli=$(child $! runsc)
boot=$(child "$cli" runsc-sandbox)
gofer=$(child "$cli" runsc-gofer)
check_common Sentry "$boot"
check_common gofer "$gofer"
check_namespaces Sentry "$boot" user pid mnt net ipc uts cgroup
check_namespaces gofer "$gofer" pid mnt net ipc uts cgroup
same "Sentry: capabilities" "0000000000000000 0000000000000000 0000000000000000" "$(field "$boot" CapEff) $(field "$boot" CapPrm) $(field "$boot" CapBnd)"
same "gofer: capabilities" "000000000000001b 000000000000001b" "$(field "$gofer" CapPrm) $(field "$gofer" CapBnd)"
[ "$(field "$boot" Uid)" -ge $((0x70000000)) ] || fail "Sentry: user $(field "$boot" Uid)"
same "Sentry: groups" "" "$(field "$boot" Groups)"
same "Sentry: environment" "" "$(tr '\0' '\n' <"/proc/$boot/environ")"
same "gofer: environment" "" "$(tr '\0' '\n' <"/proc/$gofer/environ")"
leaked=$(for p in $boot $gofer; do find "/proc/$p/fd" -lname "$SCRATCH/private" -o -lname "$SCRATCH/secret"; done)
same "descriptors that the caller had open" "" "$leaked"
same "Sentry: directories" "" "$(find "/proc/$boot/fd" -type l -exec test -d {} \; -print)"
# Nobody without the right may look into it, not even as the same user.
same "Sentry: dumpable" "0 0" "$(stat -c '%u %g' "/proc/$boot/fd")"
# Stopped and continued from outside in the midst of its waits (restart_syscall(2)), it goes on.
kill -STOP "$boot"; sleep 0.2; kill -CONT "$boot"
echo >&9
exec 9>&-
wait
same "host name" "$hostname" "$(hostname)"

# Without privileges.
cat >"$SCRATCH/user.sh" <<EOF
'$R' --root='$SCRATCH/state' do sh -c 'id -u; cat /etc/hostname >/dev/null && echo reads; test -e "$SCRATCH/secret" && echo sees'
EOF
mkdir -m 777 "$SCRATCH/state"
same "as a user" $'12345\nreads\nsees' "$(cd / && setpriv --reuid=12345 --regid=12345 --clear-groups sh "$SCRATCH/user.sh" 2>&1)"

# A host that refuses: in a user namespace with limits of its own.
cat >"$SCRATCH/weak.sh" <<EOF
echo 0 >/proc/sys/user/max_net_namespaces
'$R' do echo runs; echo \$?
'$R' --allow-weak-box do echo weak; echo \$?
hostname
EOF
weak=$(unshare --user --map-root-user --mount --pid --fork --mount-proc sh "$SCRATCH/weak.sh" 2>"$SCRATCH/weak.err")
same "where a namespace is refused" $'125\nweak\n0\n'"$hostname" "$weak"
grep -q 'cannot build the box: network namespace: .*; .*--allow-weak-box' "$SCRATCH/weak.err" || fail "no word of what is missing: $(cat "$SCRATCH/weak.err")"
grep -q 'the sandbox goes without: network namespace' "$SCRATCH/weak.err" || fail "weakness is not logged"

# The guest's own program is never runsc's; what it writes to it goes nowhere.
before=$(sha256sum <"$R")
timeout 20 "$R" do sh -c 'for i in 1 2 3; do echo overwritten >/proc/self/exe; done; exec 5</proc/self/exe; echo x >&5; true' >/dev/null 2>&1
same "runsc's own file" "$before" "$(sha256sum <"$R")"
same "what the guest runs" "/bin/readlink" "$(timeout 20 "$R" do /bin/readlink /proc/self/exe | sed 's|^/usr||')"
same "mounts" "$mounts" "$(grep -vc ' /run/netns' /proc/mounts)"
finish
