# A network inside one sandbox: servers and clients over its loopback, of both IP versions.
. "$(dirname "$0")/lib.sh"
cat >"$SCRATCH/t.py" <<'SCRIPT'
import asyncio, http.server, os, socket, subprocess, tempfile, threading, urllib.error, urllib.request

www = tempfile.TemporaryDirectory()
with open(www.name + "/small", "w") as f: f.write("hello from the server\n")
with open(www.name + "/large", "wb") as f: f.write(bytes(range(256)) * 20000)
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def __init__(self, *args): super().__init__(*args, directory=www.name)
    def log_message(self, *args): pass
class Server6(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
for server_class, host in ((http.server.ThreadingHTTPServer, "127.0.0.1"), (Server6, "::1")):
    server = server_class((host, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = "http://%s:%d/" % ("[%s]" % host if ":" in host else host, server.server_port)
    print(host, urllib.request.urlopen(url + "small").read())
    data = urllib.request.urlopen(url + "large").read()
    print(host, len(data), data == bytes(range(256)) * 20000)
    print(host, "many", sum(len(urllib.request.urlopen(url + "small").read()) for _ in range(50)))
    print(host, "curl", subprocess.run(["curl", "-sS", "-g", url + "small", url + "large", "-w", "%{http_code} "],
                                       capture_output=True).stdout.count(b"hello"))
    try:
        urllib.request.urlopen(url + "none")
    except urllib.error.HTTPError as e:
        print(host, e)
    server.shutdown(); server.server_close()
    try:
        urllib.request.urlopen(url)
    except urllib.error.URLError as e:
        print(host, e.reason)

async def main():
    async def echo(r, w):
        while data := await r.read(65536):
            w.write(data)
            await w.drain()
        w.close()
    for host in ("127.0.0.1", "::1"):
        server = await asyncio.start_server(echo, host, 0)
        port = server.sockets[0].getsockname()[1]
        async def client(i):
            r, w = await asyncio.open_connection(host, port)
            w.write(bytes([i]) * 100000)
            w.write_eof()
            data = await r.read()
            w.close()
            return data == bytes([i]) * 100000
        print(host, "asyncio", sum(await asyncio.gather(*[client(i) for i in range(40)])))
        server.close()
asyncio.run(main())

a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(("127.0.0.1", 0))
b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.sendto(b"datagram", a.getsockname())
print("udp", a.recvfrom(100)[0])
print("names", socket.if_nametoindex("lo"), socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)[0][4])
SCRIPT
cd "$SCRATCH"
same_as_native "network" python3 "$SCRATCH/t.py"
finish
