#!/usr/bin/env bash
# What is shown at a terminal of a command that takes its time.
. "$(dirname "$0")/lib.sh"
chmod 755 "$SCRATCH"
trap 'timeout 60 "$RUNSC" --root "$SCRATCH/root" delete --force c >/dev/null 2>&1; rm -rf "$SCRATCH"' EXIT
same "progress" "" "$(timeout 200 python3 "$(dirname "$0")/progress.py" "$RUNSC" "$SCRATCH" 2>&1)"
finish
