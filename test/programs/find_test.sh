. "$(dirname "$0")/lib.sh"
LIMIT=300
find / -xdev >"$SCRATCH/native.out" 2>"$SCRATCH/native.err"
sandbox find / -xdev >"$SCRATCH/inside.out" 2>"$SCRATCH/inside.err"
# Files of the build come and go meanwhile, on both sides.
grep -vE 'No such file or directory' "$SCRATCH/inside.err" | sort > "$SCRATCH/inside.errors"
grep -vE 'No such file or directory' "$SCRATCH/native.err" | sort > "$SCRATCH/native.errors"
same "errors native does not have" "" "$(comm -13 "$SCRATCH/native.errors" "$SCRATCH/inside.errors")"
for tree in /usr/bin /usr/lib /etc; do
  same "names below $tree" "$(grep "^$tree/" "$SCRATCH/native.out" | sort | sha256sum)" "$(grep "^$tree/" "$SCRATCH/inside.out" | sort | sha256sum)"
done
finish
