. "$(dirname "$0")/lib.sh"
mkdir -p "$SCRATCH/bundle/rootfs/bin" && cd "$SCRATCH/bundle"
cp "$(command -v busybox)" rootfs/bin/busybox
for c in sh ls echo cat touch id uname mkdir mount; do ln -s busybox rootfs/bin/$c; done
"$RUNSC" spec -- sh -c 'echo hello from $(uname -n); ls /; touch /x || echo read-only; id -u; echo $$ is init; true' || fail "spec"
state() { (cd rootfs && find . -printf '%p %y %m %s %T@\n' | sort | sha256sum); }
before=$(state)
out=$(timeout 60 "$RUNSC" run --bundle "$SCRATCH/bundle" test1 2>&1)
same "exit code" 0 $?
same "output" $'hello from runsc\nbin\ndev\nproc\nsys\ntouch: /x: Read-only file system\nread-only\n0\n1 is init' "$out"
same "the root file system is unchanged" "$before" "$(state)"
"$RUNSC" spec >/dev/null 2>&1 && fail "spec overwrote config.json"
# Writable: the write lands on the host.
sed -i 's/"readonly": true/"readonly": false/' config.json
sed -i 's/touch \/x || echo read-only/echo written > \/x/' config.json
timeout 60 "$RUNSC" run -b . test2 >/dev/null 2>&1 || fail "writable run"
same "a writable root is written" "written" "$(cat rootfs/x 2>/dev/null)"
finish
