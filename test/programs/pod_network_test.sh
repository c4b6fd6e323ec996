#!/usr/bin/env bash
# Pods as containerd has them on a bridge: the network plug-in makes a namespace with one end of a veth pair in it, whose path
# all containers of the pod are given.
#
#   world (203.0.113.2) --- node: bridge 10.88.0.1 --- pod a (10.88.0.2): pause, web, client
#                                                  \-- pod b (10.88.0.3): pause, client
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/networks.sh"
ROOT=$SCRATCH/root
NODE=rdpod-n-$$ WORLD=rdpod-w-$$ A=rdpod-a-$$ B=rdpod-b-$$
runsc() { timeout "${LIMIT:-60}" "$RUNSC" --root "$ROOT" "$@"; }
before_cleanup() {
  for c in web client peer pause-a pause-b; do runsc delete --force $c >/dev/null 2>&1; done
}
await() {
  for _ in $(seq 200); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.05
  done
  return 1
}
make_namespaces $NODE $WORLD $A $B
ip -n $NODE link add bridge type bridge
ip -n $NODE addr add 10.88.0.1/24 dev bridge
ip -n $NODE -6 addr add fd88::1/64 dev bridge nodad
ip -n $NODE link set bridge up
plug() { # NAMESPACE NAME NUMBER
  ip -n $NODE link add "$2" type veth peer name eth0 netns "$1"
  ip -n $NODE link set "$2" master bridge up
  ip -n "$1" addr add "10.88.0.$3/24" dev eth0
  ip -n "$1" -6 addr add "fd88::$3/64" dev eth0 nodad
  ip -n "$1" link set eth0 up
  ip -n "$1" route add default via 10.88.0.1
}
plug $A pod-a 2
plug $B pod-b 3
ip -n $NODE link add world type veth peer name eth0 netns $WORLD
ip -n $NODE addr add 203.0.113.1/24 dev world
ip -n $NODE link set world up
ip -n $WORLD addr add 203.0.113.2/24 dev eth0
ip -n $WORLD link set eth0 up
ip -n $WORLD route add 10.88.0.0/24 via 203.0.113.1
ip netns exec $NODE sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
mkdir "$SCRATCH/www" && echo "from the world" >"$SCRATCH/www/page"
background ip netns exec $WORLD busybox httpd -f -p 203.0.113.2:8000 -h "$SCRATCH/www"
world() { ip netns exec $WORLD "$@"; }
await world busybox wget -q -O - http://203.0.113.2:8000/page || fail "the server outside does not come up"
has() { ip -n "$1" addr show dev eth0 | grep -v fe80 | grep -o 'inet6\? [0-9a-f:./]*'; ip -n "$1" route; }
before=$(has $A)

# bundle ID TYPE SANDBOX NAMESPACE COMMAND
bundle() {
  local b=$SCRATCH/$1 name
  mkdir -p "$b/rootfs/bin" "$b/rootfs/www" "$b/rootfs/tmp"
  cp /bin/busybox "$b/rootfs/bin/busybox"
  for name in sh cat echo sleep nc wget httpd ping seq ip; do ln -s busybox "$b/rootfs/bin/$name"; done
  echo "from $1" >"$b/rootfs/www/page"
  "$RUNSC" spec --bundle "$b" -- sh -c "$5" || fail "spec"
  python3 - "$b/config.json" "$2" "$3" "/run/netns/$4" <<'P'
import json, sys
c = json.load(open(sys.argv[1]))
c["root"]["readonly"] = False
c["annotations"] = {"io.kubernetes.cri.container-type": sys.argv[2], "io.kubernetes.cri.sandbox-id": sys.argv[3]}
c["process"]["capabilities"] = {k: ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"] for k in ["bounding", "effective", "permitted"]}
for n in c["linux"]["namespaces"]:
    if n["type"] == "network": n["path"] = sys.argv[4]
json.dump(c, open(sys.argv[1], "w"))
P
}
start() {
  runsc create --bundle "$SCRATCH/$1" "$1" </dev/null >"$SCRATCH/$1.out" 2>&1 && runsc start "$1" || fail "$1: $(cat "$SCRATCH/$1.out")"
}
bundle pause-a sandbox pause-a $A 'sleep 1000'
bundle web container pause-a $A 'httpd -p 80 -h /www; while :; do echo over the loopback | nc -l -p 7000; done'
bundle client container pause-a $A 'sleep 1000'
bundle pause-b sandbox pause-b $B 'sleep 1000'
bundle peer container pause-b $B 'sleep 1000'
for id in pause-a web client pause-b peer; do start $id; done

get() { runsc exec "$1" wget -q -O - "http://$2/page" 2>&1; }
await runsc exec client wget -q -O - http://127.0.0.1/page || fail "the web server does not come up"
same "the pod has taken the interface" "" "$(ip -n $A addr show dev eth0 | grep inet)"
same "over the loopback: the web server" "from web" "$(get client 127.0.0.1)"
same "over the loopback: a byte stream" "over the loopback" "$(runsc exec client nc 127.0.0.1 7000 </dev/null)"
same "by the pod's own address" "from web" "$(get client 10.88.0.2)"
for id in pause-a web client; do
  same "$id's address" "10.88.0.2/24" "$(runsc exec $id ip -4 addr show dev eth0 | awk '/inet/ { print $2 }')"
  same "$id to the world" "from the world" "$(get $id 203.0.113.2:8000)"
done
same "another pod" "from web" "$(get peer 10.88.0.2)"
same "another pod, IPv6" "from web" "$(get peer '[fd88::2]')"
same "another pod's loopback is its own" "wget: can't connect to remote host (127.0.0.1): Connection refused" "$(get peer 127.0.0.1)"
same "the node" "from web" "$(ip netns exec $NODE busybox wget -q -O - http://10.88.0.2/page)"
same "the world" "from web" "$(world busybox wget -q -O - http://10.88.0.2/page)"
runsc exec peer ping -c 2 -W 5 10.88.0.2 | grep -q ' 2 packets received' || fail "ping from pod to pod"
world busybox ping -c 2 -W 5 10.88.0.3 | grep -q ' 2 packets received' || fail "ping from the world"

# One that goes leaves the network to the others; its ports are free.
runsc delete --force web || fail "delete web"
same "nobody listens" "wget: can't connect to remote host (10.88.0.2): Connection refused" "$(get peer 10.88.0.2)"
same "the client is still there" "from the world" "$(get client 203.0.113.2:8000)"
start web
await runsc exec peer wget -q -O - http://10.88.0.2/page || fail "a second web server is not reached"
for id in web client pause-a; do runsc delete --force $id || fail "delete $id"; done
same "addresses and routes are given back" "$before" "$(has $A)"
same "the other pod goes on" "from the world" "$(get peer 203.0.113.2:8000)"
finish
