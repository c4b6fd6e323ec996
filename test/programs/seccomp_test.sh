# Filters of system calls: those that a configuration asks for, and those of programs themselves.
. "$(dirname "$0")/lib.sh"
cd "$SCRATCH" || exit 1
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$SCRATCH/state" "$@"; }

mkdir -p bundle/rootfs/{bin,proc,tmp}
cp "$(command -v busybox)" bundle/rootfs/bin/busybox
for c in sh echo mkdir rmdir cat grep sleep true chmod kill; do ln -s busybox bundle/rootfs/bin/$c; done
"$RUNSC" spec --bundle bundle -- sh -c true
cp bundle/config.json plain.json
# profile JSON COMMAND: a configuration with that linux.seccomp.
profile() {
  python3 - "$1" "$2" <<'PY'
import json, sys
c = json.load(open("plain.json"))
c["root"]["readonly"] = False
c["process"]["args"] = ["sh", "-c", sys.argv[2]]
c["linux"]["seccomp"] = json.loads(sys.argv[1])
json.dump(c, open("bundle/config.json", "w"))
PY
}

# --- what a profile refuses
deny='{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
  "syscalls": [{"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
               {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_KILL_PROCESS"}]}'
profile "$deny" 'mkdir /tmp/d; echo $?; grep Seccomp /proc/self/status; grep NoNewPrivs /proc/self/status'
out=$(runsc run --bundle bundle a 2>&1)
same "a call that is refused" $'mkdir: can\'t create directory \'/tmp/d\': No space left on device\n1\nSeccomp:\t2\nSeccomp_filters:\t1\nNoNewPrivs:\t1' "$out"
profile "$deny" 'chmod 700 /tmp'
runsc run --bundle bundle a >out 2>&1
same "a call that kills" 159 $?
# Without no_new_privs it is installed all the same.
profile "$deny" 'mkdir /tmp/d 2>&1; grep NoNewPrivs /proc/self/status'
sed -i 's/"noNewPrivileges": true/"noNewPrivileges": false/' bundle/config.json
out=$(runsc run --bundle bundle a 2>&1)
same "with new privileges" $'mkdir: can\'t create directory \'/tmp/d\': No space left on device\nNoNewPrivs:\t0' "$out"
# By an argument: signal 10 is refused.
profile '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11,
  "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]}' 'kill -10 $$; kill -0 $$ && echo may'
same "by an argument" $'sh: can\'t kill pid 1: Resource temporarily unavailable\nmay' "$(runsc run --bundle bundle a 2>&1)"

# --- processes that come later have it too
profile "$deny" 'while true; do sleep 0.1; done'
runsc run --detach --bundle bundle b >/dev/null 2>&1 </dev/null || fail "run --detach"
same "exec" "mkdir: can't create directory '/tmp/d': No space left on device" "$(runsc exec b mkdir /tmp/d 2>&1)"
echo '{"args": ["mkdir", "/tmp/e"], "cwd": "/"}' >process.json
same "exec --process" "mkdir: can't create directory '/tmp/e': No space left on device" "$(runsc exec --process process.json b 2>&1)"
runsc delete --force b || fail "delete"

# --- what is not understood
refused() { # NAME PROFILE LINE
  profile "$2" true
  out=$(runsc run --bundle bundle c 2>&1)
  same "$1: code" 125 $?
  [[ $out == *"$3"* && $(wc -l <<<"$out") = 1 ]] || fail "$1: $out"
  [ -e state/c ] && fail "$1: something is left"
}
refused "unknown action" '{"defaultAction": "SCMP_ACT_ALOW"}' 'linux.seccomp.defaultAction: unknown action "SCMP_ACT_ALOW"'
refused "a listener" '{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l"}' "listenerPath: a supervisor outside is not supported"
refused "wrong type" '{"defaultAction": 5}' "linux.seccomp.defaultAction: must be a string"
"$RUNSC" features | python3 -c '
import json, sys
s = json.load(sys.stdin)["linux"]["seccomp"]
assert s["enabled"] and "SCMP_ACT_ERRNO" in s["actions"] and "SCMP_CMP_MASKED_EQ" in s["operators"] and "SCMP_ARCH_X86_64" in s["archs"], s' ||
  fail "features"

# --- the profile that podman gives every container
default=/usr/share/containers/seccomp.json
if [ -r $default ]; then
  default=$(python3 - $default <<'PY'
import json, sys
p = json.load(open(sys.argv[1]))
calls = []
for c in p["syscalls"]:
    inc, exc = c.get("includes", {}), c.get("excludes", {})
    if inc.get("caps") or (inc.get("arches") and "amd64" not in inc["arches"]): continue
    if exc.get("arches") and "amd64" in exc["arches"]: continue
    rule = {"names": c["names"], "action": c["action"], "args": c.get("args") or []}
    if "errnoRet" in c: rule["errnoRet"] = c["errnoRet"]
    calls.append(rule)
print(json.dumps({"defaultAction": p["defaultAction"], "defaultErrnoRet": p["defaultErrnoRet"],
                  "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": calls}))
PY
)
  profile "$default" 'mkdir /tmp/f && echo made; echo $(grep Seccomp: /proc/self/status); (exec 3</proc/self/ns/uts) 2>/dev/null; echo done'
  same "the default profile" $'made\nSeccomp: 2\ndone' "$(runsc run --bundle bundle d 2>&1)"
else
  fail "podman's profile is not here: $default"
fi

# --- programs that filter themselves
for program in man ctags; do command -v $program >/dev/null || fail "$program is not here"; done
MANWIDTH=80 LC_ALL=C same_as_native "man" sh -c 'man -P cat ls | sort | uniq -c | tail -40'
printf 'int f(int a) { return a; }\n' >f.c
same_as_native "ctags in its own sandbox" sh -c "printf '{\"command\":\"generate-tags\", \"filename\":\"f.c\", \"size\":27}\nint f(int a) { return a; }\n' | ctags --_interactive=sandbox"
finish
