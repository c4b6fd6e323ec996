"""Drives a shell inside a sandbox on a pseudo-terminal as a person would. Usage: terminal.py RUNSC"""
import fcntl, os, pty, re, select, signal, struct, sys, termios, time

PROMPT = "ready> "


class Terminal:
    def __init__(self, command, rows=24, columns=80):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = PROMPT
            os.environ["TERM"] = "dumb"
            os.execv(command[0], command)
        self.text = ""
        self.resize(rows, columns)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        """False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        self.text += data.decode(errors="replace")
        return bool(data)

    def expect(self, pattern, seconds=20):
        """Reads on to `pattern` and returns what stood before it."""
        end = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.text)
            if found:
                before = self.text[: found.start()]
                self.text = self.text[found.end():]
                return before
            if time.monotonic() > end or not self.read(0.2):
                print(f"FAIL: no {pattern!r} in {self.text!r}")
                os.kill(self.pid, signal.SIGKILL)
                sys.exit(1)

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def run(self, line, *patterns):
        self.type(line + "\n")
        self.expect(re.escape(line) + r"\r\n")  # the echo
        for pattern in patterns:
            self.expect(pattern)

    def command(self, line, *patterns):
        self.run(line, *patterns)
        self.expect(re.escape(PROMPT))

    def end(self):
        while self.read(20):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def main():
    t = Terminal([sys.argv[1], "do", "bash", "--norc", "--noprofile", "-i"])
    banner = t.expect(re.escape(PROMPT))
    assert "job control" not in banner, banner
    t.command("echo $((6 * 7))", r"42\r\n")

    t.run("sleep 100")
    time.sleep(0.5)
    began = time.monotonic()
    t.type("\x03")
    t.expect(r"\^C")
    t.expect(re.escape(PROMPT))
    assert time.monotonic() - began < 3, "Ctrl-C took long"
    t.command("echo status $?", r"status 130\r\n")

    t.run("sleep 100")
    time.sleep(0.5)
    t.type("\x1a")
    t.expect(r"Stopped")
    t.expect(re.escape(PROMPT))
    t.command("jobs", r"Stopped +sleep 100")
    t.run("fg", r"sleep 100\r\n")
    time.sleep(0.5)
    t.type("\x03")
    t.expect(re.escape(PROMPT))
    t.command("jobs; echo none", r"^none\r\n")

    # A spinning program must hear the keyboard too, and a background job must stop when it reads.
    t.run("while :; do :; done")
    time.sleep(0.5)
    t.type("\x03")
    t.expect(re.escape(PROMPT))
    t.command("cat & sleep 0.5; jobs", r"Stopped \(tty input\)|Stopped")
    t.command("kill -9 %1; wait 2>/dev/null; echo gone", r"gone\r\n")

    # Line editing by the line discipline, end of file.
    t.run("cat")
    time.sleep(0.5)  # the shell has given the terminal its line editing back
    t.type("wrongx\x7f\x15right\n")
    t.expect(r"\r\nright\r\n|right\r\n.*right\r\n")
    t.type("\x04")
    t.expect(re.escape(PROMPT))

    t.command("stty size", r"24 80\r\n")
    t.command("trap 'echo resized' WINCH", "")
    t.resize(50, 132)
    time.sleep(0.3)
    t.command("stty size", r"50 132\r\n")

    # A pseudo-terminal of the sandbox's own.
    t.command("python3 -c \"import pty; pty.spawn(['sh', '-c', 'tty; stty size; echo inner'])\"", r"/dev/pts/\d+\r\n", r"inner\r\n")
    t.command("stty -a | grep -o ' icanon'", r"icanon")  # spawn has put the outer one back

    t.type("exit 7\n")
    code = t.end()
    assert code == 7, f"exit code {code}"
    print("terminal ok")


main()
