#!/usr/bin/env bash
# Programs that see and send frames (packet(7)), and programs that say whose sockets there are (sock_diag(7)).
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/networks.sh"
OUTSIDE=rdtest-co-$$ INSIDE=rdtest-ci-$$

# The loopback: a capture of two datagrams and their answers among other traffic; the file is read outside.
cat >"$SCRATCH/loopback.sh" <<'SCRIPT'
tcpdump -i lo -Z root --immediate-mode -U -w - -c 4 "$1" 2>/dev/shm/said &
until grep -q 'listening on lo' /dev/shm/said; do sleep 0.05; done
python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 5555))
c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); c.bind(("127.0.0.1", 0))
for i in range(2):
    c.sendto(b"noise", ("127.0.0.1", 5556))
    c.sendto(b"question %d" % i, ("127.0.0.1", 5555))
    data, peer = s.recvfrom(100)
    s.sendto(b"answer to " + data, peer)
'
wait
grep -o 'link-type EN10MB (Ethernet)\|4 packets captured\|0 packets dropped by kernel' /dev/shm/said >&2
SCRIPT
sandbox bash "$SCRATCH/loopback.sh" 'udp port 5555' >"$SCRATCH/lo.pcap" 2>"$SCRATCH/lo.said"
same "what tcpdump says" "link-type EN10MB (Ethernet)
4 packets captured
0 packets dropped by kernel" "$(cat "$SCRATCH/lo.said")"
same "the loopback, read outside" "question 0
answer to question 0
question 1
answer to question 1" "$(tshark -r "$SCRATCH/lo.pcap" -T fields -e data.data 2>/dev/null | python3 -c 'import sys
for line in sys.stdin: print(bytes.fromhex(line.strip()).decode())')"
same "malformed frames on the loopback" "" "$(tshark -r "$SCRATCH/lo.pcap" -Y _ws.malformed 2>/dev/null)"

# On all interfaces, cooked, and text instead of a file.
cat >"$SCRATCH/any.sh" <<'SCRIPT'
tcpdump -n -t -i any -Z root --immediate-mode -l -c 1 'tcp[tcpflags] & tcp-syn != 0' >/dev/shm/out 2>/dev/shm/said &
until grep -q 'listening on any' /dev/shm/said; do sleep 0.05; done
python3 -c '
import socket
s = socket.create_server(("127.0.0.1", 5557))
socket.create_connection(s.getsockname())'
wait
sed -E 's/ +/ /g; s/\.[0-9]+ >/ >/; s/, seq.*//' /dev/shm/out
SCRIPT
same "all interfaces" "lo In IP 127.0.0.1 > 127.0.0.1.5557: Flags [S]" "$(sandbox bash "$SCRATCH/any.sh")"

# Whose sockets there are.
cat >"$SCRATCH/owners.py" <<'SCRIPT'
import os, socket, subprocess
tcp = socket.create_server(("127.0.0.1", 5558))
client = socket.create_connection(tcp.getsockname())
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 5559))
local = socket.socket(socket.AF_UNIX); local.bind("\0owners"); local.listen(5)
pair = socket.socketpair()
packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88b5))
def run(command):
    return subprocess.run(command, shell=True, capture_output=True, text=True, close_fds=True).stdout
me = "pid=%d," % os.getpid()
fd = lambda s: "fd=%d" % s.fileno()
for name, command, s in (("tcp", "ss -Hltnp sport = 5558", tcp), ("client", "ss -Htnp dport = 5558", client),
                         ("udp", "ss -Hlunp sport = 5559", udp), ("unix", "ss -Hxlp", local), ("packet", "ss -H -0 -p", packet)):
    out = run(command)
    print(name, me + fd(s) in out)
out = run("ss -Hxp")
print("pair", all(me + fd(s) in out for s in pair))
out = run("lsof -nP -i -a -p %d" % os.getpid())
print("lsof", "TCP 127.0.0.1:5558 (LISTEN)" in out, "UDP 127.0.0.1:5559" in out)
SCRIPT
same "owners" "tcp True
client True
udp True
unix True
packet True
pair True
lsof True True" "$(sandbox python3 "$SCRATCH/owners.py" 2>&1)"

# An interface of the host's.
make_namespaces $OUTSIDE $INSIDE
wire $OUTSIDE to-inside $INSIDE
mkdir "$SCRATCH/www"
head -c 1000000 /dev/urandom >"$SCRATCH/www/large"
background ip netns exec $OUTSIDE python3 -m http.server -d "$SCRATCH/www" --bind 192.0.2.1 8000 >/dev/null 2>&1
for i in $(seq 100); do ip netns exec $OUTSIDE curl -s http://192.0.2.1:8000/ >/dev/null && break; sleep 0.1; done
inside() { timeout 100 ip netns exec $INSIDE "$RUNSC" --network=sandbox do "$@"; }
cat >"$SCRATCH/capture.sh" <<'SCRIPT'
tcpdump -i eth0 -Z root --immediate-mode -U -w - "$1" 2>/dev/shm/said &
dump=$!
until grep -q 'listening on eth0' /dev/shm/said; do sleep 0.05; done
busybox ping -c 3 -i 0.2 192.0.2.1 >&2
curl -sS http://192.0.2.1:8000/large | wc -c >&2
sleep 0.5
kill -INT $dump
wait
SCRIPT
inside bash "$SCRATCH/capture.sh" icmp >"$SCRATCH/icmp.pcap" 2>"$SCRATCH/said"
same "pings, both ways" "8 192.0.2.2
0 192.0.2.1
8 192.0.2.2
0 192.0.2.1
8 192.0.2.2
0 192.0.2.1" "$(tshark -r "$SCRATCH/icmp.pcap" -T fields -E separator=' ' -e icmp.type -e ip.src 2>/dev/null)"
inside bash "$SCRATCH/capture.sh" 'tcp port 8000' >"$SCRATCH/http.pcap" 2>"$SCRATCH/said"
same "one transfer, whole" "1000000" "$(tail -1 "$SCRATCH/said")"
same "a capture of it" "GET /large" "$(tshark -r "$SCRATCH/http.pcap" -Y http.request -T fields -E separator=' ' -e http.request.method -e http.request.uri 2>/dev/null)"
same "of TCP only" "tcp" "$(tshark -r "$SCRATCH/http.pcap" -T fields -e frame.protocols 2>/dev/null | cut -d: -f4 | sort -u)"
same "answers seen whole" "1000000" "$(tshark -r "$SCRATCH/http.pcap" -Y http.response -T fields -e http.content_length 2>/dev/null)"
for f in icmp http; do same "malformed frames: $f" "" "$(tshark -r "$SCRATCH/$f.pcap" -Y _ws.malformed 2>/dev/null | head -5)"; done

# Frames of programs' own making.
same "arping" "2 packets transmitted, 2 packets received" \
  "$(inside arping -c 2 -w 5 -I eth0 192.0.2.1 2>&1 | grep -o '2 packets transmitted, 2 packets received')"
cat >"$SCRATCH/frames.py" <<'SCRIPT'
# Sends a frame, and sends back the one that comes, turned around.
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88b5))
s.bind((sys.argv[1], 0x88b5))
s.settimeout(20)
broadcast, mine = b"\xff" * 6, s.getsockname()[4]
if sys.argv[2] == "ask":
    s.send(broadcast + mine + b"\x88\xb5" + b"first from inside")
data, (name, protocol, kind, hatype, address) = s.recvfrom(2000)
print(sys.argv[2], data[14:].rstrip(b"\0").decode(), name, hex(protocol), kind, hatype, address == data[6:12])
if sys.argv[2] == "answer":
    s.send(data[6:12] + mine + b"\x88\xb5" + b"then from outside")
SCRIPT
background ip netns exec $OUTSIDE python3 "$SCRATCH/frames.py" to-inside answer >"$SCRATCH/answered"
sleep 0.5
same "a frame there and back, inside" "ask then from outside eth0 0x88b5 0 1 True" "$(inside python3 "$SCRATCH/frames.py" eth0 ask 2>&1)"
for i in $(seq 50); do [ -s "$SCRATCH/answered" ] && break; sleep 0.1; done
same "a frame there and back, outside" "answer first from inside to-inside 0x88b5 1 1 True" "$(cat "$SCRATCH/answered")"
finish
