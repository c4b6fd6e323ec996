#!/usr/bin/env bash
# Servers in a sandbox with clients outside, and the other way round, over --network=sandbox, IPv4 and IPv6: redis, nginx, PostgreSQL, ssh,
# node, DNS. All of it in namespaces of this test's own.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/networks.sh"
OUTSIDE=rdserve-o-$$ INSIDE=rdserve-i-$$
chmod 755 "$SCRATCH"
make_namespaces $OUTSIDE $INSIDE
wire $OUTSIDE veth0 $INSIDE
outside() { ip netns exec $OUTSIDE "$@"; }

# The same scripts run on either side.
D=$SCRATCH/d
mkdir -p "$D/www"
echo "hello of nginx" >"$D/www/index.html"
ssh-keygen -q -t ed25519 -N '' -f "$D/key" && ssh-keygen -q -t ed25519 -N '' -f "$D/host_key"
cat >"$D/sshd_config" <<CONF
Port 2222
HostKey $D/host_key
AuthorizedKeysFile $D/key.pub
StrictModes no
UsePAM no
PidFile none
CONF
cat >"$D/nginx.conf" <<CONF
user root;
pid /tmp/nginx.pid;
error_log /dev/null;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path /tmp/nginx-body; proxy_temp_path /tmp/nginx-proxy; fastcgi_temp_path /tmp/nginx-fastcgi;
  uwsgi_temp_path /tmp/nginx-uwsgi; scgi_temp_path /tmp/nginx-scgi;
  server { listen 8080; listen [::]:8080; root $D/www; }
}
CONF
cat >"$D/server.js" <<'JS'
require("http").createServer((request, response) => response.end("hello of node " + request.url)).listen(8081, "::");
JS
cat >"$D/client.js" <<'JS'
require("http").get(process.argv[2], (r) => { let text = ""; r.on("data", (d) => (text += d)); r.on("end", () => console.log(text)); });
JS
# Answers every question of an address with one.
cat >"$D/dns.py" <<'PY'
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", 5353))
while True:
    q, peer = s.recvfrom(2048)
    end = q.index(b"\0", 12) + 5
    s.sendto(q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xcb\0\x71\7", peer)
PY
cat >"$D/servers.sh" <<SCRIPT
mkdir -p /run/sshd /tmp/pg /tmp/redis && chown postgres /tmp/pg
cd /tmp/redis && redis-server --bind 0.0.0.0 :: --protected-mode no --save '' --daemonize no >/tmp/redis.log 2>&1 &
nginx -c $D/nginx.conf -g 'daemon off;' >/tmp/nginx.log 2>&1 &
/usr/sbin/sshd -D -f $D/sshd_config >/tmp/sshd.log 2>&1 &
node $D/server.js >/tmp/node.log 2>&1 &
python3 $D/dns.py >/tmp/dns.log 2>&1 &
pg=\$(ls -d /usr/lib/postgresql/*/bin | tail -1)
setpriv --reuid postgres --regid postgres --clear-groups \$pg/initdb -D /tmp/pg -A trust -U postgres --no-sync >/tmp/initdb.log 2>&1
printf 'host all all all trust\n' >> /tmp/pg/pg_hba.conf
exec setpriv --reuid postgres --regid postgres --clear-groups \$pg/postgres -D /tmp/pg -c listen_addresses='*' -c unix_socket_directories=/tmp >/tmp/postgres.log 2>&1
SCRIPT
# clients.sh ADDRESS BRACKETED-ADDRESS
cat >"$D/clients.sh" <<SCRIPT
a=\$1 b=\$2
again() { for i in \$(seq 150); do "\$@" >/dev/null 2>&1 && return; sleep 0.2; done; }
again redis-cli -h \$a ping
redis-cli -h \$a set key "value \$a"; redis-cli -h \$a get key
again curl -sS --max-time 10 http://\$b:8080/; curl -sS --max-time 10 http://\$b:8080/
again curl -sS --max-time 10 http://\$b:8081/; node $D/client.js http://\$b:8081/path
again dig +time=1 -p 5353 @\$a name.example; dig +short -p 5353 @\$a name.example
cp $D/key /tmp/key-\$\$ && chmod 600 /tmp/key-\$\$
s="ssh -p 2222 -i /tmp/key-\$\$ -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@\$a"
again \$s true
\$s 'echo by ssh; exit 9'; echo "code \$?"
head -c 3000000 /dev/zero | \$s 'wc -c'
rm -f /tmp/key-\$\$
again psql -h \$a -U postgres -c 'select 1'
psql -h \$a -U postgres -qAt -c 'create table if not exists t (n int); insert into t select generate_series(1, 1000); select sum(n) from t; drop table t'
SCRIPT
expected() {
  cat <<TEXT
OK
value $1
hello of nginx
hello of node /path
203.0.113.7
by ssh
code 9
3000000
500500
TEXT
}
# bundle NAME COMMAND...
bundle() {
  mkdir -p "$SCRATCH/$1"
  python3 - "$SCRATCH/$1" /run/netns/$INSIDE "${@:2}" <<'PY'
import json, sys
directory, path, *args = sys.argv[1:]
mounts = [("/proc", "proc", []), ("/dev", "tmpfs", []), ("/dev/pts", "devpts", []), ("/dev/shm", "tmpfs", []), ("/run", "tmpfs", []),
          ("/sys", "sysfs", ["ro"])]
caps = ["CAP_" + c for c in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL", "SYS_CHROOT", "NET_BIND_SERVICE", "AUDIT_WRITE")]
json.dump({"ociVersion": "1.0.2",
           "process": {"args": args, "cwd": "/", "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"],
                       "capabilities": {k: caps for k in ("bounding", "permitted", "effective")},
                       "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}]},
           "root": {"path": "/", "readonly": False},
           "mounts": [{"destination": d, "type": t, "source": t, "options": o} for d, t, o in mounts],
           "linux": {"namespaces": [{"type": "network", "path": path}]}}, open(directory + "/config.json", "w"))
PY
}
runsc() { timeout "${LIMIT:-200}" "$RUNSC" --root "$SCRATCH/root" --overlay2=root:memory "$@"; }

# --- servers inside, clients outside
bundle servers bash "$D/servers.sh"
runsc run --bundle "$SCRATCH/servers" servers >"$SCRATCH/servers.out" 2>&1 &
pids+=($!)
for a in "192.0.2.2 192.0.2.2" "2001:db8::2 [2001:db8::2]"; do
  read -r plain bracketed <<<"$a"
  same "servers inside, $plain" "$(expected "$plain")" "$(outside timeout 150 bash "$D/clients.sh" "$plain" "$bracketed" 2>&1)"
done
[ $failures -eq 0 ] || for f in postgres initdb sshd nginx redis node; do echo "== $f"; runsc exec servers tail -3 /tmp/$f.log; done
runsc kill servers KILL
wait "${pids[0]}" 2>/dev/null

# --- servers outside, clients inside. What they write is in a file system of their own.
ip netns exec $OUTSIDE unshare --mount bash -c "
  mkdir '$SCRATCH/keep' && mount --bind '$D' '$SCRATCH/keep' && cp -a '$SCRATCH/keep' /dev/shm/rd-$$ &&
  mount -t tmpfs -o mode=1777 tmpfs /tmp && mount -t tmpfs tmpfs /run && mkdir -p '$D' && cp -a /dev/shm/rd-$$/. '$D' && rm -rf /dev/shm/rd-$$ &&
  exec bash '$D/servers.sh'" >"$SCRATCH/outside.out" 2>&1 &
pids+=($!)
for a in "192.0.2.1 192.0.2.1" "2001:db8::1 [2001:db8::1]"; do
  read -r plain bracketed <<<"$a"
  bundle clients bash "$D/clients.sh" "$plain" "$bracketed"
  same "clients inside, $plain" "$(expected "$plain")" "$(runsc run --bundle "$SCRATCH/clients" clients 2>&1)"
done
finish
