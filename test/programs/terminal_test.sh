. "$(dirname "$0")/lib.sh"
same "a shell on a terminal" "terminal ok" "$(timeout 100 python3 "$(dirname "$0")/terminal.py" "$RUNSC" 2>&1)"
finish
