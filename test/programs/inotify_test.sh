#!/usr/bin/env bash
# Programs that wait for changes of files: tail(1) of coreutils.
. "$(dirname "$0")/lib.sh"
cat >"$SCRATCH/follow.py" <<'P'
import os, select, shutil, subprocess, sys, tempfile
# On an overlay tail does not rely on inotify(7).
d = tempfile.mkdtemp(dir="/dev/shm")
path = d + "/log"
with open(path, "w") as f: f.write("first\n")
# Without inotify(7) it would look once a minute.
tail = subprocess.Popen(["tail", "-s", "60", "-n", "+1", "-F", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
def expect(text):
    got = b""
    while len(got) < len(text):
        if not select.select([tail.stdout], [], [], 20)[0]: sys.exit("waited in vain for %r, got %r" % (text, got))
        got += os.read(tail.stdout.fileno(), 4096)
    if got != text: sys.exit("%r is not %r" % (got, text))
expect(b"first\n")
subprocess.run(["sh", "-c", 'echo second >>"$0"', path], check=True)
expect(b"second\n")
# Rotated: the name is another file's now.
os.rename(path, path + ".1")
with open(d + "/new", "w") as f: f.write("third\n")
os.rename(d + "/new", path)
expect(b"third\n")
with open(path, "a") as f: f.write("fourth\n")
expect(b"fourth\n")
tail.kill()
tail.wait()
shutil.rmtree(d)
print("followed")
P
same "tail -F, natively" followed "$(timeout 100 python3 "$SCRATCH/follow.py" 2>&1)"
same "tail -F" followed "$(sandbox python3 "$SCRATCH/follow.py" 2>&1)"
finish
