#!/usr/bin/env bash
# What is told of the program and of the host: doctor, syscalls, features, help, install.
. "$(dirname "$0")/lib.sh"
said=$("$RUNSC" doctor) || fail "doctor finds no platform: $said"
for what in kernel 'platform systrap' 'platform ptrace' 'platform kvm' namespaces 'user namespaces' yama 'outer seccomp filter' io_uring 'control groups' 'open files'; do
  grep -qE "^(ok|poor|no) +$what" <<<"$said" || fail "doctor says nothing of $what"
done
grep -q '^ok  *platform systrap' <<<"$said" || fail "doctor: $said"
grep -qE '^ +0 read +yes$' <<<"$("$RUNSC" syscalls)" || fail "syscalls"
"$RUNSC" syscalls --missing | grep -q ' yes$' && fail "syscalls --missing lists what is there"
"$RUNSC" features | python3 -c 'import json, sys; f = json.load(sys.stdin); assert f["ociVersionMax"] >= "1.2.0" and "startContainer" in f["hooks"] and f["linux"]["cgroup"]["v1"]' || fail "features"
grep -q '^runsc version .*' <<<"$("$RUNSC" --version)" || fail "--version"
[ -z "$("$RUNSC" --version 2>&1 >/dev/null)" ] || fail "--version writes to stderr"

"$RUNSC" >"$SCRATCH/out" 2>&1 && fail "no command is no error"
grep -q '^Subcommands:' "$SCRATCH/out" || fail "no command: no help"

# Each command has help that names each of its flags with a text.
commands=$("$RUNSC" help | sed -n '/^Subcommands:/,$p' | awk '/^  [a-z]/ { print $1 }')
[ "$(wc -w <<<"$commands")" -ge 25 ] || fail "help lists too few commands: $commands"
for c in $commands; do
  help=$("$RUNSC" help "$c") || fail "help $c"
  same "help $c and $c --help" "$help" "$("$RUNSC" "$c" --help)"
  bare=$(grep -E '^  -[^ ]+( [A-Z:]+)*$' <<<"$help" | grep -v -- --help)
  # A long flag's text may be on the next line.
  while read -r flag; do
    [ -z "$flag" ] || grep -A1 -F -- "$flag" <<<"$help" | tail -1 | grep -q '^          *[^ ]' || fail "help $c: no text for $flag"
  done <<<"$bare"
done
out=$("$RUNSC" delte 2>&1)
same "a slip is met halfway" 'runsc: unknown command "delte", did you mean "delete"?; see `runsc help`' "$out"

# Registered with engines, and taken back.
E=$SCRATCH/etc
mkdir -p "$E/docker"
echo '{"log-driver": "none"}' >"$E/docker/daemon.json"
"$RUNSC" install --etc "$E" docker containerd podman >"$SCRATCH/said" || fail "install"
[ "$(wc -l <"$SCRATCH/said")" -eq 3 ] || fail "install: $(cat "$SCRATCH/said")"
python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert d["log-driver"] == "none" and d["runtimes"]["runsc"]["path"] == sys.argv[2]' "$E/docker/daemon.json" "$RUNSC" || fail "install: docker"
grep -q "BinaryName = \"$RUNSC\"" "$E/containerd/config.toml" || fail "install: containerd"
CONTAINERS_CONF=$(ls "$E"/containers/containers.conf.d/*) podman info --format '{{.Host.OCIRuntime.Name}}' >/dev/null 2>&1 || fail "podman cannot read what install wrote"
"$RUNSC" uninstall --etc "$E" docker containerd podman >/dev/null || fail "uninstall"
python3 -c 'import json, sys; assert json.load(open(sys.argv[1])) == {"log-driver": "none"}' "$E/docker/daemon.json" || fail "uninstall: docker"
[ -z "$(ls "$E/containers/containers.conf.d")" ] || fail "uninstall: podman"
finish
