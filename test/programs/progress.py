"""Commands that take their time, on a pseudo-terminal: what they say, and that it is wiped. Usage: progress.py RUNSC DIRECTORY"""
import fcntl, json, os, pty, select, signal, subprocess, sys, threading, time

RUNSC, SCRATCH = sys.argv[1:]
FLAGS = [RUNSC, "--root", SCRATCH + "/root", "--ignore-cgroups"]
failures = 0


def fail(what):
    global failures
    failures += 1
    print("FAIL: " + what)


class OnTerminal:
    """A command with stderr, or all, on a terminal."""

    def __init__(self, command, everything=False):
        self.master, slave = pty.openpty()
        self.text = b""
        self.process = subprocess.Popen(command, env={**os.environ, "TERM": "xterm"}, stderr=slave,
                                        stdin=slave if everything else subprocess.DEVNULL,
                                        stdout=slave if everything else subprocess.DEVNULL)
        os.close(slave)

    def expect(self, wanted, seconds=20):
        end = time.monotonic() + seconds
        while wanted not in self.text and time.monotonic() < end:
            self.read(0.1)
        if wanted not in self.text:
            fail(f"no {wanted!r} in {self.text!r}")

    def read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            more = os.read(self.master, 65536)
        except OSError:
            more = b""
        self.text += more
        return bool(more)

    def end(self, *wanted):
        """Waits for its end, and compares all that it has written."""
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return fail(f"{self.process.args}: does not end: {self.text!r}")
        while self.read(0.1):
            pass
        os.close(self.master)
        if self.text not in wanted:
            fail(f"{self.process.args}: wrote {self.text!r}, not {wanted!r}")
        return code


def line(text):
    return b"\r\033[K" + text.encode() + b"\r\033[K"


def runsc(*args):
    done = subprocess.run(FLAGS + list(args), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    if done.returncode:
        fail(f"{args}: {done.stderr}")


def config(**hooks):
    if os.path.exists(SCRATCH + "/config.json"):
        os.unlink(SCRATCH + "/config.json")
    subprocess.run([RUNSC, "spec", "--bundle", SCRATCH, "--", "sleep", "1000"], check=True)
    with open(SCRATCH + "/config.json") as f:
        c = json.load(f)
    c["root"] = {"path": "/", "readonly": True}
    c["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script]}] for kind, script in hooks.items()}
    with open(SCRATCH + "/config.json", "w") as f:
        json.dump(c, f)


def boot_pid():
    with open(SCRATCH + "/root/c/state.json") as f:
        return json.load(f)["boot"]["pid"]


# A hook.
config(createRuntime="sleep 1.5; exec >&- 2>&-")
create = OnTerminal(FLAGS + ["create", "--bundle", SCRATCH, "--pid-file", SCRATCH + "/pid", "c"])
create.end(line("waiting for createRuntime hook /bin/sh"))
runsc("start", "c")

# A sandbox that does not answer.
pid = boot_pid()
os.kill(pid, signal.SIGSTOP)
pause = OnTerminal(FLAGS + ["pause", "c"])
pause.expect(b"answer")
# Who waits for that.
delete = OnTerminal(FLAGS + ["delete", "--force", "c"])
delete.expect(b"done with it")
# Not where nobody looks.
silent = subprocess.Popen(FLAGS + ["kill", "c", "0"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
time.sleep(1.2)
os.kill(pid, signal.SIGCONT)
pause.end(line('container "c": waiting for its sandbox to answer'))
delete.end(line('container "c": waiting for another command to be done with it'))
if said := silent.communicate(timeout=60)[1]:
    # It may have come after delete.
    if b"does not exist" not in said and b"not running" not in said:
        fail(f"without a terminal: {said}")

# `do`: its first answer, which is kept from it for as long as the Sentry is stopped.
def first_child(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(p) for p in f.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


for attempt in range(20):
    do = OnTerminal([RUNSC, "do", "sh", "-c", "printf unfinished; sleep 1.2"], everything=True)
    stopped = []
    while do.process.poll() is None and not stopped:
        stopped = first_child(do.process.pid)
    for pid in stopped:
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            pass
    time.sleep(1.3)
    for pid in stopped:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
    expected = line("waiting for the sandbox to be set up") + b"unfinished"
    do.process.wait(60)
    while do.read(0.1):
        pass
    # It may have been stopped too late, or where nothing is asked of it yet.
    if do.text == expected:
        break
    if do.text != b"unfinished":
        fail(f"do: wrote {do.text!r}")
        break
else:
    fail("do: nothing was shown in 20 attempts")
sys.exit(failures != 0)
