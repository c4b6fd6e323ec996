. "$(dirname "$0")/lib.sh"
cat >"$SCRATCH/script.sh" <<'SCRIPT'
echo "pipes: $(seq 1 1000 | grep 7 | sort -r | head -3 | tr '\n' ' ')"
cat <<HERE
here-document: $((6 * 7)) ${BASH_VERSION%%.*}
HERE
cat <<<"here-string"
trap 'echo "trapped USR1"' USR1
kill -USR1 $$
trap 'echo "bye"' EXIT
(exit 3); echo "status $?"
sleep 0.2 & wait $!; echo "waited $?"
sh -c 'kill -TERM $$'; echo "killed $?"
f() { local x=$1; echo "function $x"; }; f a; f b | cat
for i in a b c; do echo -n "$i "; done; echo
while read -r line; do echo "line $line"; done < <(printf '1\n2\n')
mkfifo fifo; (echo through a fifo > fifo) & cat fifo; wait $!
coproc cat; echo coprocess >&"${COPROC[1]}"; exec {COPROC[1]}>&-; cat <&"${COPROC[0]}"
while [ -n "${COPROC_PID:-}" ] && kill -0 "$COPROC_PID" 2>/dev/null; do sleep 0.05; done
set -m
sleep 5 & jobs %1 | sed 's/ *sleep.*//'; kill -STOP %1; sleep 0.1; jobs %1 | grep -c Stopped; kill -KILL %1; wait %1 2>/dev/null; echo "job gone $?"
(ulimit -n 64; ulimit -n)
shopt -s extglob; echo "$(printf '%s ' /etc/pass@(wd|word))"
umask 077; touch made; stat -c %a made
test -d /proc/self/fd && echo "fd $(ls /proc/self/fd | wc -w)"
SCRIPT
# Each run in an empty directory of its own; job numbers and their notices depend on timing and are cut off.
run='cd "$(mktemp -d)" && bash "$0" 2>&1 | grep -v "^\[[0-9]\].*Done"; cd / && rm -rf "$OLDPWD"'
same_as_native "bash script" bash -c "$run" "$SCRATCH/script.sh"
# Host files on standard input and output, through the ring and by threads: read past what the host does at once, synced at the end.
seq 1 300000 >"$SCRATCH/numbers"
for ring in true false; do
  timeout 60 "$RUNSC" --io-uring=$ring do sh -c 'dd bs=64k iflag=fullblock conv=fsync status=none' <"$SCRATCH/numbers" >"$SCRATCH/copy"
  same "dd of host files, --io-uring=$ring" 0 $?
  cmp "$SCRATCH/numbers" "$SCRATCH/copy" || fail "the copy differs, --io-uring=$ring"
done
finish
