# --network=sandbox: a sandbox on the interfaces of its network namespace, with programs on both sides, and a second sandbox.
#
#   outside (192.0.2.1, 198.51.100.1) --- inside (192.0.2.2)
#                                     \-- other (198.51.100.2)
#
# All of it in namespaces of this test's own; nothing is done to the machine's.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/networks.sh"
OUTSIDE=rdtest-o-$$ INSIDE=rdtest-i-$$ OTHER=rdtest-x-$$ EMPTY=rdtest-e-$$
IN_OUTSIDE="ip netns exec $OUTSIDE"
outside() { $IN_OUTSIDE "$@"; }
make_namespaces $OUTSIDE $INSIDE $OTHER $EMPTY
wire $OUTSIDE to-inside $INSIDE
ip -n $OUTSIDE link add to-other type veth peer name eth0 netns $OTHER
outside sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
address $OUTSIDE to-other 198.51.100.1 2001:db8:1::1
address $OTHER eth0 198.51.100.2 2001:db8:1::2
gateways() { # NAMESPACE IPV4 IPV6
  ip -n "$1" route add default via "$2" mtu 1400 metric 7 && ip -n "$1" -6 route add default via "$3"
}
gateways $INSIDE 192.0.2.1 2001:db8::1
gateways $OTHER 198.51.100.1 2001:db8:1::1
has() { ip -n $INSIDE addr show dev eth0 | grep -v fe80 | grep -o 'inet6\? [0-9a-f:./]*'; ip -n $INSIDE route; ip -n $INSIDE -6 route | grep -v fe80; }
before=$(has)

echo "nameserver 192.0.2.1" >"$SCRATCH/resolv.conf"
# bundle NAME NAMESPACE-PATH COMMAND...: this machine's files, read-only, in that namespace.
bundle() {
  local directory=$SCRATCH/$1 path=$2
  shift 2
  mkdir -p "$directory"
  python3 - "$directory" "$path" "$SCRATCH/resolv.conf" "$@" <<'SCRIPT'
import json, sys
directory, path, resolv, *args = sys.argv[1:]
mounts = [("/proc", "proc", "proc", []), ("/dev", "tmpfs", "tmpfs", []), ("/dev/shm", "tmpfs", "shm", []),
          ("/etc/resolv.conf", "bind", resolv, ["bind", "ro"])]
json.dump({"ociVersion": "1.0.2",
           "process": {"args": args, "cwd": "/", "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/dev/shm"],
                       "capabilities": {k: ["CAP_NET_BIND_SERVICE"] for k in ("bounding", "permitted", "effective")}},
           "root": {"path": "/", "readonly": True},
           "mounts": [{"destination": d, "type": t, "source": s, "options": o} for d, t, s, o in mounts],
           "linux": {"namespaces": [{"type": "network", "path": path} if path else {"type": "network"}]}}, open(directory + "/config.json", "w"))
SCRIPT
}
run() { timeout "${LIMIT:-120}" "$RUNSC" run --bundle "$SCRATCH/$1" "$1-$$"; }

make_iperf "$SCRATCH/iperf"

# Outside: a capture, a web server of each IP version, names, iperf3.
mkdir "$SCRATCH/www"
echo "hello from outside" >"$SCRATCH/www/small"
head -c 3000000 /dev/urandom >"$SCRATCH/www/large"
sum=$(sha256sum <"$SCRATCH/www/large")
background $IN_OUTSIDE tshark -q -i to-inside -s 200 -w "$SCRATCH/capture" 2>/dev/null
for address in 192.0.2.1 2001:db8::1; do
  background $IN_OUTSIDE python3 -m http.server -d "$SCRATCH/www" --bind $address 8000 >/dev/null 2>&1
done
cat >"$SCRATCH/dns.py" <<'SCRIPT'
# Answers A and AAAA questions for peer.example (RFC 1035 section 4), and knows no other name.
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("192.0.2.1", 53))
while True:
    q, peer = s.recvfrom(512)
    end = q.index(b"\0", 12) + 5
    name, kind = q[12:end - 4], struct.unpack(">H", q[end - 4:end - 2])[0]
    data = {1: socket.inet_aton("192.0.2.1"), 28: socket.inet_pton(socket.AF_INET6, "2001:db8::1")}.get(kind)
    known = name == b"\4peer\7example\0"
    answer = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data if known and data else b""
    s.sendto(q[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, bool(answer), 0, 0) + q[12:end] + answer, peer)
SCRIPT
background $IN_OUTSIDE python3 "$SCRATCH/dns.py"
background $IN_OUTSIDE iperf3 -s -p 5201 >/dev/null 2>&1
for url in http://192.0.2.1:8000/small 'http://[2001:db8::1]:8000/small'; do
  outside curl -sSg --retry 50 --retry-delay 1 --retry-connrefused "$url" >/dev/null 2>&1 || fail "the server outside does not come up"
done

cat >"$SCRATCH/udp.py" <<'SCRIPT'
# Answers a datagram by five in one call, of 1000 bytes each but the last (UDP_SEGMENT, man 7 udp).
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("192.0.2.1", 7000))
s.setsockopt(socket.IPPROTO_UDP, 103, 1000)
while True:
    s.sendto(b"".join(bytes([48 + i]) * 1000 for i in range(4)) + b"end", s.recvfrom(100)[1])
SCRIPT
background $IN_OUTSIDE python3 "$SCRATCH/udp.py"

# Clients inside.
cat >"$SCRATCH/client.sh" <<'SCRIPT'
cat /proc/net/if_inet6 | grep -v ^fe80 | awk '{print $1, $3, $NF}'
awk '{print $1, $2, $3}' /proc/net/route
for url in http://192.0.2.1:8000 'http://[2001:db8::1]:8000' http://peer.example:8000; do
  curl -sSg "$url/small"
  curl -sSg "$url/large" | sha256sum
done
curl -4 -sS http://peer.example:8000/small
curl -6 -sS http://peer.example:8000/small
busybox wget -q -O - http://192.0.2.1:8000/small
python3 -c '
import socket, urllib.request
print(urllib.request.urlopen("http://peer.example:8000/small").read())
print(sorted({a[4][0] for a in socket.getaddrinfo("peer.example", 80)}))
try: socket.getaddrinfo("nobody.example", 80)
except socket.gaierror as e: print(e)
for peer in ("192.0.2.1", 9), ("192.0.2.99", 9), ("2001:db8::1", 9):
    try: socket.create_connection(peer, timeout=10)
    except OSError as e: print(peer[0], e)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(10)
u.sendto(b"?", ("192.0.2.1", 7000))
print([(len(d), d[:3]) for d in (u.recv(65535) for _ in range(5))])
'
for way in "" -R; do
  for address in 192.0.2.1 2001:db8::1; do
    "$1" -c $address -t 1 -P 2 $way
  done
done
SCRIPT
bundle client /run/netns/$INSIDE bash "$SCRATCH/client.sh" "$SCRATCH/iperf"
out=$(run client 2>&1)
same "exit code of the clients" 0 $?
three="hello from outside
$sum"
same "clients inside" "00000000000000000000000000000001 80 lo
20010db8000000000000000000000002 40 eth0
Iface Destination Gateway
eth0 000200C0 00000000
eth0 00000000 010200C0
$three
$three
$three
hello from outside
hello from outside
hello from outside
b'hello from outside\\n'
['192.0.2.1', '2001:db8::1']
[Errno -2] Name or service not known
192.0.2.1 [Errno 111] Connection refused
192.0.2.99 [Errno 113] No route to host
2001:db8::1 [Errno 111] Connection refused
[(1000, b'000'), (1000, b'111'), (1000, b'222'), (1000, b'333'), (3, b'end')]
iperf3 True
iperf3 True
iperf3 True
iperf3 True" "$out"
same "addresses and routes are given back" "$before" "$(has)"

# Servers inside, clients outside and in another sandbox. While it runs, the host's stack has no address.
cat >"$SCRATCH/server.sh" <<'SCRIPT'
python3 -m http.server -d "$1" --bind :: 8080 >/dev/null 2>&1 &
iperf3 -s -p 5202 >/dev/null 2>&1
SCRIPT
bundle server /run/netns/$INSIDE bash "$SCRATCH/server.sh" "$SCRATCH/www"
background timeout 200 "$RUNSC" run --bundle "$SCRATCH/server" server-$$
server=$!
retry=(--retry 50 --retry-delay 1 --retry-connrefused)
same "a client outside" "hello from outside" "$(outside curl -sS "${retry[@]}" http://192.0.2.2:8080/small 2>/dev/null)"
same "the host has no addresses meanwhile" "" "$(ip -n $INSIDE addr show dev eth0 | grep inet)"
same "a client outside, IPv6" "$sum" "$(outside curl -sSg 'http://[2001:db8::2]:8080/large' | sha256sum)"
same "many clients outside" 40 "$(seq 40 | outside xargs -P 8 -I{} curl -sS 'http://192.0.2.2:8080/small' | grep -c hello)"
outside busybox ping -c 3 -W 5 192.0.2.2 | grep -q ' 3 packets received' || fail "ping"
outside busybox ping -c 3 -W 5 -s 20000 192.0.2.2 | grep -q ' 3 packets received' || fail "ping with fragments"
outside busybox ping -c 3 -W 5 2001:db8::2 | grep -q ' 3 packets received' || fail "ping, IPv6"
same "iperf3 from outside" "iperf3 True" "$(outside "$SCRATCH/iperf" -c 192.0.2.2 -p 5202 -t 1)"
same "iperf3 to outside" "iperf3 True" "$(outside "$SCRATCH/iperf" -c 192.0.2.2 -p 5202 -t 1 -R)"
bundle peer /run/netns/$OTHER bash -c "
  curl -sS http://192.0.2.2:8080/large | sha256sum
  curl -sSg 'http://[2001:db8::2]:8080/large' | sha256sum
  $SCRATCH/iperf -c 192.0.2.2 -p 5202 -t 1
  $SCRATCH/iperf -c 192.0.2.2 -p 5202 -t 1 -R"
same "two sandboxes" "$sum
$sum
iperf3 True
iperf3 True" "$(run peer 2>&1)"
kill "$server"
wait "$server" 2>/dev/null
same "addresses and routes are given back after a signal" "$before" "$(has)"

# As Docker does it: a new namespace, whose interfaces are made between create and start.
mkdir -p "$SCRATCH/rootfs/bin" "$SCRATCH/rootfs/etc" && touch "$SCRATCH/rootfs/etc/resolv.conf"
cp "$(command -v busybox)" "$SCRATCH/rootfs/bin/busybox" && ln -s busybox "$SCRATCH/rootfs/bin/sh"
small() { bundle "$@" && sed -i "s|\"path\": \"/\"|\"path\": \"$SCRATCH/rootfs\"|" "$SCRATCH/$1/config.json"; }
small late "" sh -c 'busybox wget -q -O - http://203.0.113.1:8000/small; while :; do busybox sleep 0.1; done'
runsc() { timeout 60 "$RUNSC" --root "$SCRATCH/root" "$@"; }
runsc create --bundle "$SCRATCH/late" --pid-file "$SCRATCH/pid" late >"$SCRATCH/late.out" 2>&1 </dev/null || fail "create: $(cat "$SCRATCH/late.out")"
pid=$(cat "$SCRATCH/pid")
late() { nsenter --net="/proc/$pid/ns/net" ip "$@"; }
ip -n $OUTSIDE link add to-late type veth peer name eth0 netns "$pid"
address $OUTSIDE to-late 203.0.113.1 2001:db8:2::1
late addr add 203.0.113.2/24 dev eth0
late link set eth0 up
background $IN_OUTSIDE python3 -m http.server -d "$SCRATCH/www" --bind 203.0.113.1 8000 >/dev/null 2>&1
for i in $(seq 50); do outside curl -sS http://203.0.113.1:8000/small >/dev/null 2>&1 && break; sleep 0.1; done
runsc start late || fail "start"
same "the host has no address meanwhile" "" "$(late addr show dev eth0 | grep inet)"
same "exec" "hello from outside" "$(runsc exec late busybox wget -q -O - http://203.0.113.1:8000/small 2>&1)"
for i in $(seq 100); do [ -s "$SCRATCH/late.out" ] && break; sleep 0.1; done
same "its first process" "hello from outside" "$(cat "$SCRATCH/late.out")"
runsc delete --force late || fail "delete"

# Whoever stands for the container is killed: delete gives the network back.
small killed /run/netns/$INSIDE busybox sleep 1000
runsc create --bundle "$SCRATCH/killed" --pid-file "$SCRATCH/pid" killed >/dev/null 2>&1 </dev/null && runsc start killed || fail "create and start"
same "taken" "" "$(ip -n $INSIDE addr show dev eth0 | grep inet)"
kill -KILL "$(cat "$SCRATCH/pid")"
runsc delete --force killed || fail "delete"
same "given back by delete" "$before" "$(has)"

# What programs see of interfaces, addresses and routes, by AF_NETLINK.
cat >"$SCRATCH/ip.sh" <<'SCRIPT'
ip -br addr | grep -o '^eth0\|[0-9a-f:.]*/[0-9]*' | grep -v fe80
ip route
ip route get 203.0.113.9 | head -1
ip -6 route get 2001:db8:9::1 | grep -o 'via 2001:db8::1 dev eth0'
busybox ping -c 2 -W 5 192.0.2.1 | grep -o '2 packets received'
busybox ping -c 2 -W 5 2001:db8::1 | grep -o '2 packets received'
busybox traceroute -n -w 2 -m 3 192.0.2.1 2>&1 | tail -1 | awk '{print $1, $2}'
curl -sS http://192.0.2.1:8000/small
ip neigh show 192.0.2.1 | grep -o 'dev eth0 lladdr'
ip rule
ip link set lo mtu 1500 && cat /proc/net/dev | grep -c lo: && ip link show lo | grep -o 'mtu 1500'
ip addr add 192.0.2.77/24 dev eth0 && ip addr add 192.0.2.77/24 dev eth0
ip route add 203.0.113.0/25 via 192.0.2.1 && ip route show 203.0.113.0/25
ip route del 203.0.113.0/25 && ip route show 203.0.113.0/25
python3 -c '
import socket, subprocess
print(socket.if_nameindex())
s = socket.create_server(("192.0.2.77", 7777))
c = socket.create_connection(s.getsockname())
print(subprocess.run("ss -Htan | grep :7777 | tr -s \" \" | cut -d \" \" -f 1,4 | sort | uniq -c | wc -l; ss -Hltn | awk \"{ print \\$1, \\$4, \\$5 }\"", shell=True, capture_output=True, text=True).stdout.split())
'
SCRIPT
bundle admin /run/netns/$INSIDE bash "$SCRATCH/ip.sh"
sed -i 's/"CAP_NET_BIND_SERVICE"/"CAP_NET_ADMIN", "CAP_NET_RAW"/g' "$SCRATCH/admin/config.json"
same "programs that ask of the network" "127.0.0.1/8
::1/128
eth0
192.0.2.2/24
2001:db8::2/64
default via 192.0.2.1 dev eth0 metric 7 mtu 1400
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2
203.0.113.9 via 192.0.2.1 dev eth0 src 192.0.2.2
via 2001:db8::1 dev eth0
2 packets received
2 packets received
1 192.0.2.1
hello from outside
dev eth0 lladdr
0:	from all lookup local
32766:	from all lookup main
32767:	from all lookup default
1
mtu 1500
RTNETLINK answers: File exists
203.0.113.0/25 via 192.0.2.1 dev eth0
[(1, 'lo'), (2, 'eth0')]
['3', 'LISTEN', '192.0.2.77:7777', '0.0.0.0:*']" "$(run admin 2>&1 | sed 's/ *$//')"

# Neighbours come and go as natively.
cat >"$SCRATCH/neighbours.sh" <<'SCRIPT'
told=$(mktemp)
ip neigh flush dev eth0
ip monitor neigh >$told 2>/dev/null &
sleep 0.5
ip neigh add 192.0.2.78 lladdr 02:00:00:00:00:78 dev eth0 nud permanent
ip neigh replace 192.0.2.78 lladdr 02:00:00:00:00:79 dev eth0 nud permanent
ip neigh del 192.0.2.78 dev eth0
python3 -c '
import socket
for host in "192.0.2.1", "192.0.2.99": socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (host, 9))'
sleep 4
kill $!
grep '192\.0\.2\.\(1\|78\|99\) ' $told | sed 's/lladdr [^ ]* REACHABLE/REACHABLE/; s/ *$//'
rm $told
SCRIPT
natively=$(ip netns exec $INSIDE bash "$SCRATCH/neighbours.sh" 2>&1)
[[ $natively == *"192.0.2.1 dev eth0 REACHABLE"* ]] || fail "the neighbours natively: $natively"
bundle neighbours /run/netns/$INSIDE bash "$SCRATCH/neighbours.sh"
sed -i 's/"CAP_NET_BIND_SERVICE"/"CAP_NET_ADMIN"/g' "$SCRATCH/neighbours/config.json"
same "what is told of neighbours" "$natively" "$(run neighbours 2>&1)"

# Of the machine's link addresses those on its own wire are seen and no other.
macs() { grep -aoE '([0-9a-f]{2}:){5}[0-9a-f]{2}' | sort -u; }
bundle macs /run/netns/$INSIDE sh -c 'curl -sS http://192.0.2.1:8000/small; cat /proc/net/arp; ip -o link; ip neigh'
run macs 2>&1 | macs >"$SCRATCH/seen-macs"
{ ip -n $INSIDE -o link show eth0; ip -n $OUTSIDE -o link show to-inside; echo 00:00:00:00:00:00; } | macs >"$SCRATCH/own-macs"
same "link addresses" "" "$(comm -3 "$SCRATCH/seen-macs" "$SCRATCH/own-macs" | grep -v ff:ff:ff:ff:ff:ff)"

# What cannot be done is said in a line.
bundle none /etc/passwd true
same "no namespace" "runsc: container \"none-$$\": cannot enter the network namespace /etc/passwd: Invalid argument" "$(run none 2>&1)"
bundle own /run/netns/$INSIDE true
same "its own by mistake" "runsc: container \"own-$$\": --network=sandbox: the path leads to the namespace that runsc itself runs in; use --network=none, or name \
a network namespace of the container's own in config.json, linux.namespaces" \
  "$(timeout 60 ip netns exec $INSIDE "$RUNSC" run --bundle "$SCRATCH/own" own-$$ 2>&1)"
same "and nothing is changed" "$before" "$(has)"
bundle empty /run/netns/$EMPTY bash -c 'tail -n +3 /proc/net/dev | cut -d: -f1'
same "a namespace without interfaces" "    lo" "$(run empty 2>&1)"
same "the current namespace, when asked for" "eth0" \
  "$(timeout 60 ip netns exec $INSIDE "$RUNSC" --network=sandbox do sed -n 's/^ *\(eth0\):.*/\1/p' /proc/net/dev 2>&1)"
same "not without being asked" "" "$(timeout 60 ip netns exec $INSIDE "$RUNSC" do sed -n 's/^ *\(eth0\):.*/\1/p' /proc/net/dev 2>&1)"

# All that was on the wire meanwhile.
kill "${pids[0]}"
wait "${pids[0]}" 2>/dev/null
frames=$(tshark -r "$SCRATCH/capture" 2>/dev/null | wc -l)
[ "$frames" -ge 500 ] || fail "only $frames frames were captured"
same "malformed frames" "" "$(tshark -r "$SCRATCH/capture" -Y _ws.malformed 2>/dev/null | head -5)"
finish
