#!/usr/bin/env bash
# What a sandbox can find out about its host: all of /proc and /sys, and what system calls say; and what it must not
# foresee: where a program's parts lie.
. "$(dirname "$0")/../programs/lib.sh"
ROOT=$SCRATCH/root
BUNDLE=$SCRATCH/a-telling-name
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$ROOT" "$@"; }
trap 'for c in $("$RUNSC" --root "$ROOT" list -q); do "$RUNSC" --root "$ROOT" delete --force "$c"; done; rm -rf "$SCRATCH"' EXIT
R=$BUNDLE/rootfs
mkdir -p "$R/bin" "$R/tmp" "$R/lib64" "$SCRATCH/another-telling-name"
cp /bin/busybox "$R/bin/busybox"
for name in sh cat find head timeout dmesg df mount; do ln -s busybox "$R/bin/$name"; done
gcc -O1 -o "$R/bin/side_doors" -pie -fPIE "$(dirname "$0")/side_doors.c" || exit 1
for library in $(ldd "$R/bin/side_doors" | grep -o '/[^ ]*'); do mkdir -p "$R/$(dirname "$library")"; cp -L "$library" "$R/$library"; done
cat >"$R/look.sh" <<'S'
# Every file, with its name; those that wait are left after a moment, large ones are cut.
for top in /proc/* /sys/*; do
  # Of processes the first; the others are of this script.
  case $top in /proc/1 | /proc/[a-z]* | /sys/*) find "$top/" \( -type f -o -type l \) 2>/dev/null ;; esac
done | while read -r f; do
  case $f in */task/* | */mem | */pagemap | */kcore) continue ;; esac
  echo "== $f"
  if [ -L "$f" ]; then busybox readlink "$f"; else timeout 1 head -c 100000 "$f"; fi
done
echo "== else"
dmesg; df; mount; busybox ps; busybox hostid; busybox uptime
S
rm -f "$BUNDLE/config.json"
"$RUNSC" spec --bundle "$BUNDLE" -- sh -c 'sh /look.sh; side_doors' || fail "spec"
python3 - "$BUNDLE/config.json" "$SCRATCH" <<'P'
import json, sys
c = json.load(open(sys.argv[1]))
c["hostname"] = "inside"
c["linux"].pop("maskedPaths", None)
c["mounts"].append({"destination": "/v", "type": "bind", "source": sys.argv[2] + "/another-telling-name", "options": ["rbind", "rw"]})
c["linux"]["cgroupsPath"] = "/a-telling-group"
json.dump(c, open(sys.argv[1], "w"))
P
# Standard input is a socket of ours.
python3 - "$RUNSC" "$ROOT" "$BUNDLE" >"$SCRATCH/seen" 2>"$SCRATCH/err" <<'P'
import os, socket, subprocess, sys
a, b = socket.socketpair()
st = os.fstat(b.fileno())
print("HOST stdin ino %d" % st.st_ino, flush=True)
p = subprocess.run([sys.argv[1], "--root", sys.argv[2], "run", "--bundle", sys.argv[3], "a-telling-id"], stdin=b, timeout=100)
print("HOST exit", p.returncode, os.getpid())
P
sed 's/^HOST.*//' "$SCRATCH/seen" >"$SCRATCH/guest"
grep -q '^HOST exit 0' "$SCRATCH/seen" || fail "the sandbox: $(tail -3 "$SCRATCH/seen") $(head -5 "$SCRATCH/err")"
[ "$(grep -ac '^== ' "$SCRATCH/seen")" -gt 150 ] || fail "too few files were read: $(grep -ac '^== ' "$SCRATCH/seen")"
# leak WHAT STRING: it is nowhere.
leak() {
  [ -n "$2" ] || return
  grep -aqF -- "$2" "$SCRATCH/guest" || return
  fail "$1 \"$2\" is seen: $(awk -v s="$2" '/^== / { f = $2 } index($0, s) { print f ": " $0 }' "$SCRATCH/guest" | head -3)"
}
# Short names are words that may stand anywhere.
[ "$(hostname | wc -c)" -lt 6 ] || leak "the host's name" "$(hostname)"
leak "the host's kernel" "$(uname -r)"
leak "the host's kernel's build" "$(uname -v)"
leak "the boot's ID" "$(cat /proc/sys/kernel/random/boot_id)"
leak "the machine's ID" "$(cat /etc/machine-id 2>/dev/null)"
leak "the host's command line" "$(head -c 40 /proc/cmdline)"
for interface in /sys/class/net/*; do
  mac=$(cat "$interface/address")
  [ "$mac" = 00:00:00:00:00:00 ] || leak "the address of $interface" "$mac"
done
for address in $(ip -o addr show scope global 2>/dev/null | awk '{ sub("/.*", "", $4); print $4 }'); do leak "an address" "$address"; done
leak "the bundle's directory" a-telling-name
leak "a volume's directory" another-telling-name
leak "the container's ID" a-telling-id
leak "the control group" a-telling-group
leak "a directory of the host's" "$SCRATCH"
leak "runsc" "$RUNSC"
for path in $(awk '$2 != "/" && length($2) > 5 && $2 !~ "^/(proc|sys|dev)" { print $2 }' /proc/mounts); do leak "a mount of the host's" " $path "; done
leak "the root's device" "$(python3 -c 'import os, sys; d = os.stat(sys.argv[1]).st_dev; print("root dev %d:%d" % (os.major(d), os.minor(d)))' "$R")"
leak "the file system's ID" "$(python3 -c 'import os, sys; print("root fsid %x" % os.statvfs(sys.argv[1]).f_fsid)' "$R")"
ino=$(sed -n 's/^HOST stdin ino //p' "$SCRATCH/seen")
grep -aq "ino $ino\$" "$SCRATCH/guest" && fail "standard input's inode is seen"
same "SO_PEERCRED of a socket of the host's" "" "$(grep -a '^peer ' "$SCRATCH/guest")"
# PIDs are the sandbox' own.
grep -aq "^== /proc/$(sed -n 's/^HOST exit 0 //p' "$SCRATCH/seen")/" "$SCRATCH/guest" && fail "the host's process is seen"
same "parent" "ppid 0 sid 1 pgid 1" "$(grep -a '^ppid' "$SCRATCH/guest")"
same "interfaces" "mac lo 00:00:00:00:00:00" "$(grep -a '^mac ' "$SCRATCH/guest")"
same "name" inside "$(grep -a '^uname' "$SCRATCH/guest" | cut -d'|' -f2)"

# --- where a program's parts lie: of 8 runs hardly two are alike.
rm -f "$BUNDLE/config.json"
"$RUNSC" spec --bundle "$BUNDLE" -- sh -c 'for i in 1 2 3 4; do side_doors layout; done'
for _ in 1 2; do runsc run --bundle "$BUNDLE" layout </dev/null; done >"$SCRATCH/layout" 2>&1
for part in stack heap break mmap program libc vdso random; do
  same "$part: runs" 8 "$(grep -c "^$part 0*[x0-9a-f]*" "$SCRATCH/layout")"
  n=$(grep "^$part " "$SCRATCH/layout" | sort -u | wc -l)
  [ "$n" -ge 7 ] || fail "$part lies at $n places in 8 runs: $(grep "^$part " "$SCRATCH/layout" | head -3)"
done
finish
