#!/usr/bin/env bash
# --network=host: programs in a sandbox on sockets of a network namespace's own stack, with peers in that namespace and in another, both
# directions, IPv4 and IPv6.
#
#   outside (192.0.2.1) --- inside (192.0.2.2), where runsc is
#
# All of it in namespaces of this test's own; nothing is done to the machine's.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/networks.sh"
OUTSIDE=rdhost-o-$$ INSIDE=rdhost-i-$$
make_namespaces $OUTSIDE $INSIDE
wire $OUTSIDE veth0 $INSIDE
ip -n $INSIDE tuntap add other mode tun
ip -n $INSIDE addr add 198.51.100.7/32 dev other
ip -n $INSIDE link set other up
ip -n $INSIDE route add default via 192.0.2.1
ip netns exec $INSIDE sh -c 'echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range'
outside() { ip netns exec $OUTSIDE "$@"; }
inside() { ip netns exec $INSIDE "$@"; }
in_sandbox() { timeout "${LIMIT:-100}" ip netns exec $INSIDE "$RUNSC" --network=host do "$@"; }
# A prefix of a command, for background: what is killed is the program, not a shell around it.
IN_SANDBOX="ip netns exec $INSIDE timeout 150 $RUNSC --network=host do"
addresses() { ip -n $INSIDE -o addr | grep -v fe80; }  # which come when they like
addresses=$(addresses)

mkdir "$SCRATCH/www"
echo "hello from a server" >"$SCRATCH/www/small"
head -c 3000000 /dev/urandom >"$SCRATCH/www/large"
sum=$(sha256sum <"$SCRATCH/www/large")
make_iperf "$SCRATCH/iperf"
cat >"$SCRATCH/dns.py" <<'SCRIPT'
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", 5353))
while True:
    q, peer = s.recvfrom(2048)
    end = q.index(b"\0", 12) + 5
    s.sendto(q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xcb\0\x71\7", peer)
SCRIPT
cat >"$SCRATCH/echo.py" <<'SCRIPT'
import asyncio
async def echo(r, w):
    while data := await r.read(65536):
        w.write(data)
        await w.drain()
    w.close()
async def main():
    await asyncio.start_server(echo, None, 7000)
    await asyncio.sleep(1000)
asyncio.run(main())
SCRIPT
cat >"$SCRATCH/echo_client.py" <<'SCRIPT'
import asyncio, sys
async def client(host, i):
    r, w = await asyncio.open_connection(host, 7000)
    w.write(bytes([i]) * 100000)
    w.write_eof()
    data = await r.read()
    w.close()
    return data == bytes([i]) * 100000
async def main():
    for host in sys.argv[1:]:
        print(host, sum(await asyncio.gather(*[client(host, i) for i in range(40)])))
asyncio.run(main())
SCRIPT
cat >"$SCRATCH/servers.sh" <<SCRIPT
python3 -m http.server -d $SCRATCH/www --bind :: 8000 >/dev/null 2>&1 &
python3 $SCRATCH/dns.py &
python3 $SCRATCH/echo.py &
cd /tmp && redis-server --bind 0.0.0.0 :: --protected-mode no --save '' --port 6380 >/dev/null 2>&1 &
exec iperf3 -s -p 5201 >/dev/null 2>&1
SCRIPT
# clients.sh ADDRESS BRACKETED-ADDRESS
cat >"$SCRATCH/clients.sh" <<SCRIPT
a=\$1 b=\$2
again() { for i in \$(seq 100); do "\$@" >/dev/null 2>&1 && return; sleep 0.2; done; }
again curl -sS --max-time 10 http://\$b:8000/small
curl -sS http://\$b:8000/small
curl -sS http://\$b:8000/large | sha256sum
again redis-cli -h \$a -p 6380 ping
redis-cli -h \$a -p 6380 set key "value \$a"
redis-cli -h \$a -p 6380 get key
redis-benchmark -h \$a -p 6380 -t set,get -n 2000 -c 20 --csv | grep -c '^"[SG]ET"'
again dig +time=1 -p 5353 @\$a name.example
dig +short -p 5353 @\$a name.example
python3 $SCRATCH/echo_client.py \$a
$SCRATCH/iperf -c \$a -t 1 -P 2
$SCRATCH/iperf -c \$a -t 1 -R
SCRIPT
expected() {
  printf '%s\n' "hello from a server" "$sum" OK "value $1" 2 203.0.113.7 "$1 40" "iperf3 True" "iperf3 True"
}

# --- servers inside, clients outside and beside it on the host's loopback
background $IN_SANDBOX bash "$SCRATCH/servers.sh"
for a in "192.0.2.2 192.0.2.2" "2001:db8::2 [2001:db8::2]"; do
  read -r plain bracketed <<<"$a"
  same "servers inside, $plain" "$(expected "$plain")" "$(outside timeout 100 bash "$SCRATCH/clients.sh" "$plain" "$bracketed" 2>&1)"
done
same "servers inside, by the host's loopback" "$(expected 127.0.0.1)" "$(inside timeout 100 bash "$SCRATCH/clients.sh" 127.0.0.1 127.0.0.1 2>&1)"
same "a second sandbox beside it" "$(expected ::1)" "$(in_sandbox bash "$SCRATCH/clients.sh" ::1 '[::1]' 2>&1)"
# Its walls: all namespaces but this are its own, and no capability is there.
boot=$(pgrep -x runsc-sandbox -P "$(pgrep -P "${pids[0]}")")
if [ -n "$boot" ]; then
  same "its network" "$(stat -L -c %i /run/netns/$INSIDE)" "$(stat -L -c %i "/proc/$boot/ns/net")"
  same "its capabilities" 0000000000000000 "$(awk '$1 == "CapPrm:" { print $2 }' "/proc/$boot/status")"
else
  fail "no Sentry found"
fi
kill "${pids[0]}"
wait "${pids[0]}" 2>/dev/null

# --- servers outside, clients inside
background ip netns exec $OUTSIDE bash "$SCRATCH/servers.sh"
for a in "192.0.2.1 192.0.2.1" "2001:db8::1 [2001:db8::1]"; do
  read -r plain bracketed <<<"$a"
  same "clients inside, $plain" "$(expected "$plain")" "$(in_sandbox bash "$SCRATCH/clients.sh" "$plain" "$bracketed" 2>&1)"
done
ip netns pids $OUTSIDE | xargs -r kill 2>/dev/null
wait "${pids[1]}" 2>/dev/null

# --- its own sockets are listed, and nobody else's
background ip netns exec $INSIDE busybox nc -l -p 7072
cat >"$SCRATCH/lists.py" <<'SCRIPT'
import os, socket, subprocess
s = socket.create_server(("127.0.0.1", 7070))
c = socket.create_connection(s.getsockname())
a, _ = s.accept()
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
u.bind(("::1", 7071))
lines = [line.split() for line in open("/proc/net/tcp")][1:]
print(sorted((line[1] == "0100007F:1B9E", line[3]) for line in lines))
print({int(line[9]) for line in lines} == {os.fstat(x.fileno()).st_ino for x in (s, c, a)})
print(len(list(open("/proc/net/udp6"))) - 1, subprocess.run("ss -Htan | awk '{ print $1 }' | sort; ss -Huan | awk '{ print $4 }'", shell=True,
      capture_output=True, text=True).stdout.split())
SCRIPT
same "its sockets in lists" "[(False, '01'), (True, '01'), (True, '0A')]
True
1 ['ESTAB', 'ESTAB', 'LISTEN', '[::1]:7071']" "$(in_sandbox python3 "$SCRATCH/lists.py" 2>&1)"

# --- what programs see of it, and what they may not do
cat >"$SCRATCH/look.sh" <<'SCRIPT'
ip -br addr | awk '{ print $1, $3 }' | sed 's/@[^ ]*//'
ip route
awk '{ print $1, $2, $3 }' /proc/net/route | sort
ip addr add 192.0.2.77/24 dev eth0
ip link set eth0 down
busybox ifconfig eth0 mtu 1400 2>&1
python3 - <<'PY'
import ctypes, errno, socket, struct
print(socket.if_nameindex()[0])
def attempt(what, f):
    try: print(what, f())
    except OSError as e: print(what, errno.errorcode[e.errno])
p = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
p.settimeout(10)
p.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"payload", ("127.0.0.1", 0))
answer = p.recv(100)
print("ping", answer[0], answer[8:])
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("low port", lambda: socket.create_server(("127.0.0.1", 81)))
s = socket.socket()
program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xffff))
attempt("filter", lambda: s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxP", 1, ctypes.addressof(program))))
attempt("mark", lambda: s.setsockopt(socket.SOL_SOCKET, 36, 1))
attempt("ulp", lambda: s.setsockopt(socket.IPPROTO_TCP, 31, b"tls"))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0))
# Descriptors go to nobody by a socket of the network's.
attempt("rights", lambda: u.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))], 0, u.getsockname()))
attempt("received", lambda: u.recvmsg(10, 100)[:2])
attempt("options", lambda: u.sendmsg([b"x"], [(socket.IPPROTO_IP, 7, b"\7\7\4\0\0\0\0\0")], 0, u.getsockname()))
a = socket.socket(socket.AF_UNIX); a.bind("\0of the sandbox")
PY
SCRIPT
same "what programs see" "lo 127.0.0.1/8
eth0 192.0.2.2/24
other 198.51.100.7/32
default via 192.0.2.1 dev eth0
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2
Iface Destination Gateway
eth0 00000000 010200C0
eth0 000200C0 00000000
RTNETLINK answers: Operation not permitted
RTNETLINK answers: Operation not permitted
ifconfig: SIOCSIFMTU: Operation not permitted
(1, 'lo')
ping 0 b'payload'
raw EPERM
low port EACCES
filter ENOPROTOOPT
mark EPERM
ulp ENOPROTOOPT
rights 1
received (b'x', [])
options EINVAL" "$(in_sandbox bash "$SCRATCH/look.sh" 2>&1 | sed 's/ *$//')"
same "nothing is changed" "$addresses" "$(addresses)"

# --- containers: the namespace that config.json names, the caller's where it names none, and a new one where it asks for one.
bundle() { # NAME NAMESPACES-JSON COMMAND...
  mkdir -p "$SCRATCH/$1"
  python3 - "$SCRATCH/$1" "$2" "${@:3}" <<'PY'
import json, sys
directory, namespaces, *args = sys.argv[1:]
mounts = [("/proc", "proc", []), ("/dev", "tmpfs", []), ("/tmp", "tmpfs", ["mode=1777"])]
json.dump({"ociVersion": "1.0.2",
           "process": {"args": args, "cwd": "/", "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
           "root": {"path": "/", "readonly": True},
           "mounts": [{"destination": d, "type": t, "source": t, "options": o} for d, t, o in mounts],
           "linux": {"namespaces": json.loads(namespaces)}}, open(directory + "/config.json", "w"))
PY
}
run() { timeout 60 "$RUNSC" --root "$SCRATCH/root" --network=host run --bundle "$SCRATCH/$1" "$1-$$"; }
devices="tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | xargs"
bundle named "[{\"type\": \"network\", \"path\": \"/run/netns/$INSIDE\"}]" sh -c "$devices; python3 -c 'import socket; s = socket.create_server((\"192.0.2.2\", 0)); print(s.getsockname()[0])'"
same "a named namespace" "eth0 lo other
192.0.2.2" "$(run named 2>&1)"
bundle none '[{"type": "mount"}]' sh -c "$devices"
same "the caller's" "eth0 lo other" "$(timeout 60 ip netns exec $INSIDE "$RUNSC" --root "$SCRATCH/root" --network=host run --bundle "$SCRATCH/none" "none-$$" 2>&1)"
bundle fresh '[{"type": "network"}]' sh -c "$devices; python3 -c '
import socket
try: socket.create_connection((\"192.0.2.2\", 8000), 1)
except OSError as e: print(e)'"
same "a new one" "lo
[Errno 101] Network is unreachable" "$(timeout 60 ip netns exec $INSIDE "$RUNSC" --root "$SCRATCH/root" --network=host run --bundle "$SCRATCH/fresh" "fresh-$$" 2>&1)"

# --- without privileges; /dev/kvm is not for everybody
platform=${RUNSC_PLATFORM:-auto}
platform=${platform/kvm/auto}
cp "$RUNSC" "$SCRATCH/runsc" && chmod 755 "$SCRATCH" "$SCRATCH/runsc" && mkdir -m 777 "$SCRATCH/state"
same "as a user" "eth0 lo other
served" "$(cd / && RUNSC_PLATFORM=$platform timeout 60 ip netns exec $INSIDE setpriv --reuid=12345 --regid=12345 --clear-groups "$SCRATCH/runsc" --root="$SCRATCH/state" --network=host do sh -c "
  $devices; python3 -c '
import socket
s = socket.create_server((\"127.0.0.1\", 0)); c = socket.create_connection(s.getsockname()); a = s.accept()[0]; a.send(b\"served\"); print(c.recv(10).decode())'" 2>&1)"
same "contradictions" "runsc: --net contradicts --network=host" "$("$RUNSC" --network=host do --net true 2>&1)"
finish
