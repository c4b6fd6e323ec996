. "$(dirname "$0")/lib.sh"
cat >"$SCRATCH/t.py" <<'SCRIPT'
import asyncio, concurrent.futures, mmap, multiprocessing, os, select, signal, socket, sqlite3, subprocess, sys, tempfile, threading, time

total = []
threads = [threading.Thread(target=lambda i=i: total.append(i)) for i in range(50)]
[t.start() for t in threads]; [t.join() for t in threads]
print("threads", sum(total))
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print("pool", sum(pool.map(lambda x: x * x, range(100))))
p = subprocess.run(["sh", "-c", "read x; echo got $x; echo err >&2; exit 3"], input=b"in\n", capture_output=True)
print("subprocess", p.returncode, p.stdout, p.stderr)
out = subprocess.check_output("seq 1 100000 | tail -1", shell=True)
print("shell", out)

async def main():
    async def f(i):
        await asyncio.sleep(0.01)
        return i
    print("gather", sum(await asyncio.gather(*[f(i) for i in range(100)])))
    p = await asyncio.create_subprocess_exec("echo", "async child", stdout=asyncio.subprocess.PIPE)
    print("asyncio", (await p.communicate())[0])
asyncio.run(main())

m = mmap.mmap(-1, 1 << 20)
m[:5] = b"hello"
pid = os.fork()
if pid == 0:
    m[0:5] = b"child"
    os._exit(0)
os.waitpid(pid, 0)
print("shared mmap", m[:5])
with tempfile.NamedTemporaryFile() as f:
    f.write(b"x" * 10000); f.flush()
    fm = mmap.mmap(f.fileno(), 0); fm[5] = 65; fm.flush()
    print("file mmap", open(f.name, "rb").read()[4:7])
with tempfile.TemporaryDirectory() as d:
    db = sqlite3.connect(d + "/db")
    db.execute("create table t (a integer primary key, b text)")
    db.executemany("insert into t values (?, ?)", [(i, str(i)) for i in range(1000)])
    db.commit()
    print("sqlite", db.execute("select sum(a), max(b) from t").fetchone())
a, b = socket.socketpair()
a.send(b"ping"); print("socketpair", b.recv(10))
def handler(*_): print("alarm")
signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 0.02); signal.pause()
r, w = os.pipe(); os.write(w, b"z")
e = select.epoll(); e.register(r, select.EPOLLIN); print("epoll", len(e.poll(1)))
q = multiprocessing.Queue()
child = multiprocessing.Process(target=q.put, args=(os.getpid() != 0,)); child.start(); print("multiprocessing", q.get()); child.join()
before = time.monotonic(); time.sleep(0.05); print("sleep", 0.04 < time.monotonic() - before < 2)
try:
    open("/nonexistent")
except FileNotFoundError as err:
    print(err)
SCRIPT
cd "$SCRATCH"
same_as_native "python" python3 "$SCRATCH/t.py"
finish
