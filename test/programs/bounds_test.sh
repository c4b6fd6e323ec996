#!/usr/bin/env bash
# What all of a sandbox may hold at a time: the limits in /proc/sys, those of file systems, and memory.
. "$(dirname "$0")/lib.sh"
cat >"$SCRATCH/bounds.py" <<'P'
import ctypes, errno, os, resource, select, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))

def sysctl(name, value=None):
    path = "/proc/sys/" + name
    if value is not None:
        with open(path, "w") as f: f.write(str(value))
    with open(path) as f: return f.read().strip()

def check(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

# How often `f` can be done, and why no more often.
def until(f, most=100000):
    for n in range(most):
        try: f()
        except OSError as e: return n, errno.errorcode[e.errno]
    return most, None

# In a child, as nobody if asked for.
def child(f, nobody=False):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if nobody: os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
            os.write(w, repr(f()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(w)
    data = os.read(r, 4096)
    os.close(r)
    _, status = os.waitpid(pid, 0)
    return eval(data) if data else "status %x" % status

failures = 0
def expect(name, got, ok):
    global failures
    if not ok:
        failures += 1
        print("FAIL:", name, got)

def forks():
    pids = []
    def one():
        pid = os.fork()
        if pid == 0:
            while True: signal.pause()
        pids.append(pid)
    r = until(one)
    for pid in pids: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
    return r

old = sysctl("kernel/threads-max")
sysctl("kernel/threads-max", 40)
n, why = forks()
expect("threads-max", (n, why), 20 < n < 40 and why == "EAGAIN")
sysctl("kernel/threads-max", old)
for bad in ("0", "1000000", "x", "-1"):
    expect("threads-max " + bad, 0, until(lambda: sysctl("kernel/threads-max", bad), 1) == (0, "EINVAL"))

def opens(): return until(lambda: os.open("/dev/null", os.O_RDONLY))
old = sysctl("fs/file-max")
sysctl("fs/file-max", 300)
n, why = child(opens, True)
expect("file-max", (n, why), 200 < n < 300 and why == "ENFILE")
n, why = child(lambda: until(lambda: os.open("/dev/null", os.O_RDONLY), 500))
expect("file-max of the privileged", (n, why), n == 500)
sysctl("fs/file-max", old)
before = int(sysctl("fs/file-nr").split()[0])
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
after = int(sysctl("fs/file-nr").split()[0])
expect("file-nr", (before, after), 100 <= after - before < 110)
for fd in held: os.close(fd)

os.makedirs("/tmp/m", exist_ok=True)
def mount(options=b"", flags=0, source=b"t", type=b"tmpfs"): check(libc.mount(source, b"/tmp/m", type, flags, options))
MS_BIND, MS_REC, MNT_DETACH = 4096, 16384, 2
old = sysctl("fs/mount-max")
sysctl("fs/mount-max", 60)
n, why = until(mount)
expect("mount-max", (n, why), 10 < n < 60 and why == "ENOSPC")
expect("mount-max: a namespace's copy", 0, child(lambda: until(lambda: check(libc.unshare(0x20000)), 1)) == (0, "ENOSPC"))
for _ in range(n): check(libc.umount2(b"/tmp/m", MNT_DETACH))
# Twice as many each time.
n, why = until(lambda: check(libc.mount(b"/tmp", b"/tmp/m", None, MS_BIND | MS_REC, None)))
expect("mount-max: recursive", (n, why), n < 10 and why == "ENOSPC")
while libc.umount2(b"/tmp/m", MNT_DETACH) == 0: pass
sysctl("fs/mount-max", old)

def watches():
    e = select.epoll()
    fds = [os.eventfd(0) for _ in range(20)]
    return until(lambda: e.register(fds.pop()), 20)
old = sysctl("fs/epoll/max_user_watches")
sysctl("fs/epoll/max_user_watches", 10)
expect("epoll watches", watches(), watches() == (10, "ENOSPC"))
expect("epoll watches of another user", 0, child(watches, True) == (10, "ENOSPC"))
sysctl("fs/epoll/max_user_watches", old)

old = {name: sysctl("fs/inotify/" + name) for name in ("max_user_instances", "max_user_watches", "max_queued_events")}
for name, value in zip(old, (5, 7, 3)): sysctl("fs/inotify/" + name, value)
IN_OPEN, IN_CREATE, IN_DONT_FOLLOW = 0x20, 0x100, 0x02000000
def instances():
    held = []
    r = until(lambda: held.append(check(libc.inotify_init1(os.O_NONBLOCK))))
    for fd in held: os.close(fd)
    return r
def inotify_watches():
    fd = check(libc.inotify_init1(os.O_NONBLOCK))
    names = iter(os.listdir("/dev"))
    r = until(lambda: check(libc.inotify_add_watch(fd, b"/dev/" + next(names).encode(), IN_OPEN | IN_DONT_FOLLOW)), 20)
    os.close(fd)
    return r
expect("inotify instances", instances(), instances() == (5, "EMFILE"))
expect("inotify instances of another user", 0, child(instances, True) == (5, "EMFILE"))
expect("inotify watches", inotify_watches(), inotify_watches() == (7, "ENOSPC"))
fd = check(libc.inotify_init1(os.O_NONBLOCK))
check(libc.inotify_add_watch(fd, b"/tmp", IN_CREATE))
for n in range(5): os.close(os.open("/tmp/inotify%d" % n, os.O_CREAT))
# Three events with a name of 16 bytes, and IN_Q_OVERFLOW.
expect("inotify events", 0, len(os.read(fd, 4096)) == 3 * 32 + 16)
os.close(fd)
for name, value in old.items(): sysctl("fs/inotify/" + name, value)

held = []
sysctl("fs/pipe-user-pages-hard", 100)
n, why = child(lambda: until(lambda: held.append(os.pipe())), True)
expect("pipe-user-pages-hard", (n, why), 6 <= n <= 8 and why == "ENFILE")
sysctl("fs/pipe-user-pages-hard", 0)

old = sysctl("vm/max_map_count")
sysctl("vm/max_map_count", 300)
libc.mmap.restype = ctypes.c_long
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
flip = [0]
def map():
    flip[0] ^= 2
    check(libc.mmap(None, 4096, 1 | flip[0], 0x22, -1, 0))
n, why = child(lambda: until(map))
expect("max_map_count", (n, why), n < 300 and why == "ENOMEM")
sysctl("vm/max_map_count", old)

sets = []
n, why = until(lambda: sets.append(check(libc.semget(0, 32000, 0o1600))))
expect("semaphores", (n, why), n == 32 and why == "ENOSPC")
for s in sets: check(libc.semctl(s, 0, 0))
expect("semaphores: removed", 0, until(lambda: sets.append(check(libc.semget(0, 32000, 0o1600))), 1)[0] == 1)
check(libc.semctl(sets[-1], 0, 0))

mount(b"nr_inodes=10,size=1m")
n, why = until(lambda: os.close(os.open("/tmp/m/%d" % len(os.listdir("/tmp/m")), os.O_CREAT)))
expect("tmpfs inodes", (n, why), n == 9 and why == "ENOSPC")
numbers = iter(range(1000))
n, why = until(lambda: os.setxattr("/tmp/m/0", "user.%d" % next(numbers), b"x" * 1000))
expect("tmpfs extended attributes", (n, why), 5 < n <= 10 and why == "ENOSPC")
os.unlink("/tmp/m/0")
os.close(os.open("/tmp/m/new", os.O_CREAT))
expect("tmpfs extended attributes: gone", 0, until(lambda: os.setxattr("/tmp/m/new", "user.x", b"x" * 5000), 1)[0] == 1)
n, why = until(lambda: os.write(big, b"x" * 65536)) if (big := os.open("/tmp/m/1", os.O_WRONLY)) else None
expect("tmpfs size", (n, why), n == 16 and why == "ENOSPC")
check(libc.umount2(b"/tmp/m", MNT_DETACH))
expect("tmpfs defaults", 0, os.statvfs("/dev/shm").f_files > 0 if os.path.ismount("/dev/shm") else True)

# devpts(5): its own number of terminals.
held = []
n, why = child(lambda: until(lambda: held.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))))
expect("pseudo-terminals", (n, why), n <= 4096 and why == "ENOSPC")
print("done", failures)
P
same "limits" "done 0" "$(sandbox python3 "$SCRATCH/bounds.py" 2>&1)"
finish
