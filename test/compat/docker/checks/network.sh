#@ net-publish-tcp: a published TCP port answers on localhost and on the place's address
#@ differs minimal: bridge
docker run -d --name "$N" -p "$P:80" nginx >/dev/null
has "$(fetch "http://localhost:$P/")" 'Welcome to nginx'
address=$(hostname -I | awk '{print $1}')
has "$(fetch "http://$address:$P/")" 'Welcome to nginx'

#@ net-publish-udp: a published UDP port answers
#@ differs minimal: bridge
docker run -d --name "$N" -p "$P:7000/udp" box tool udp :7000 >/dev/null
is "$(tool ask udp "127.0.0.1:$P" datagram)" datagram

#@ net-publish-ephemeral: -p 80 and -P choose ports, which docker port tells
#@ differs minimal: bridge
docker run -d --name "$N" --expose 81 -P -p 82 box tool http :81 published >/dev/null
at=$(docker port "$N" 81/tcp | head -n 1)
is "$(fetch "http://localhost:${at##*:}/")" published
has "$(docker port "$N")" '82/tcp -> 0.0.0.0:'

#@ net-publish-range: a range of ports is published one to one
#@ differs minimal: bridge
docker run -d --name "$N" -p "$P-$((P + 2)):9000-9002" box sh -c 'tool http :9000 a & tool http :9002 c & wait' >/dev/null
is "$(fetch "http://localhost:$P/")" a
is "$(fetch "http://localhost:$((P + 2))/")" c

#@ net-publish-loopback: a port published on 127.0.0.1 is not open on other addresses
#@ differs minimal: bridge
docker run -d --name "$N" -p "127.0.0.1:$P:80" box tool http :80 mine >/dev/null
is "$(fetch "http://127.0.0.1:$P/")" mine
address=$(hostname -I | awk '{print $1}')
exits 7 curl -sS --max-time 3 "http://$address:$P/"

#@ net-publish-taken: a port that is taken is a clear error, and free again afterwards
#@ differs minimal: bridge
docker run -d --name "$N" -p "$P:80" box sleep 1000 >/dev/null
refused docker run --name "$N-2" -p "$P:80" box true
has "$said" 'port is already allocated'
docker rm -f "$N" >/dev/null
docker run --rm -p "$P:80" box true

#@ net-publish-source: behind a published port, a server sees a client that is not itself
#@ differs minimal: bridge
docker run -d --name "$N" -p "$P:80" nginx >/dev/null
fetch -o /dev/null "http://localhost:$P/"
soon 5 sh -c "docker logs $N | grep 'GET / HTTP'"
client=$(docker logs "$N" 2>/dev/null | awk '/GET/ {print $1; exit}')
is "$client" "$(gateway bridge)"

#@ net-bridge-default: containers of the default bridge reach each other by address
#@ differs minimal: bridge
docker run -d --name "$N" box tool http :80 neighbour >/dev/null
is "$(docker run --rm box wget -qO- -T 5 "http://$(ip_of "$N")/")" neighbour

#@ net-host-to-container: the place reaches a container by its address
#@ differs minimal: bridge
docker run -d --name "$N" box tool http :80 inner >/dev/null
is "$(fetch "http://$(ip_of "$N")/")" inner

#@ net-container-to-host: a container reaches a server of the place at the gateway
#@ differs minimal: bridge
tool http "0.0.0.0:$P" host >server &
told server ready
is "$(docker run --rm box wget -qO- -T 5 "http://$(gateway bridge):$P/")" host

#@ net-host-gateway: host.docker.internal is the place
#@ differs minimal: bridge
#@ needs docker >= 20.10
tool http "0.0.0.0:$P" host >server &
told server ready
is "$(docker run --rm --add-host host.docker.internal:host-gateway box wget -qO- -T 5 "http://host.docker.internal:$P/")" host

#@ net-egress: a container reaches a server outside, from the default bridge and a network
#@ differs minimal: bridge
docker run --rm box wget -qO /dev/null -T 5 "$OUTSIDE"
docker network create "$N" >/dev/null
docker run --rm --network "$N" box wget -qO /dev/null -T 5 "$OUTSIDE"

#@ net-host: --network host is the place's network
tool http "127.0.0.1:$P" host >server &
told server ready
is "$(docker run --rm --network host box wget -qO- -T 5 "http://127.0.0.1:$P/")" host

#@ net-none: --network none has a loopback and nothing else
is "$(docker run --rm --network none box sh -c 'ls /sys/class/net')" lo
docker run --rm --network none box sh -c 'ip address show lo | grep 127.0.0.1'

#@ net-container: --network container: shares one
docker run -d --name "$N" box tool http 127.0.0.1:80 shared >/dev/null
is "$(docker run --rm --network "container:$N" box wget -qO- -T 5 http://127.0.0.1/)" shared

#@ net-user-dns: on a user network, containers find each other by name, ID and alias
docker network create "$N" >/dev/null
id=$(docker run -d --name "$N-web" --network "$N" --network-alias web --network-alias www box tool http :80 found)
is "$(docker run --rm --network "$N" box sh -c "for n in $N-web web www ${id:0:12}; do wget -qO- -T 5 http://\$n/; done")" $'found\nfound\nfound\nfound'

#@ net-dns-unknown: an unknown name is an answer, not a time-out
docker network create "$N" >/dev/null
began=$SECONDS
exits 1 docker run --rm --network "$N" box nslookup "$N.invalid" 127.0.0.11
[ $((SECONDS - began)) -lt 20 ] || fail "it took $((SECONDS - began)) s"

#@ net-dns-external: a name outside is asked of the servers of --dns
tool dns "$(gateway bridge):$P" outside.test=10.1.2.3 >server &
told server ready
docker network create "$N" >/dev/null
[ "$P" = 53 ] || { kill %1; tool dns "$(gateway "$N"):53" outside.test=10.1.2.3 >server & told server ready; }
has "$(docker run --rm --network "$N" --dns "$(gateway "$N")" box nslookup outside.test 127.0.0.11)" 10.1.2.3

#@ net-dns-round-robin: an alias of two containers is both of them
docker network create "$N" >/dev/null
docker run -d --name "$N-1" --network "$N" --network-alias pair box sleep 1000 >/dev/null
docker run -d --name "$N-2" --network "$N" --network-alias pair box sleep 1000 >/dev/null
out=$(docker run --rm --network "$N" box nslookup pair 127.0.0.11)
has "$out" "$(ip_of "$N-1" "$N")"
has "$out" "$(ip_of "$N-2" "$N")"

#@ net-link: --link on the default bridge gives a name and variables
#@ differs minimal: bridge
docker run -d --name "$N" --expose 80 box tool http :80 linked >/dev/null
is "$(docker run --rm --link "$N:web" box sh -c 'wget -qO- -T 5 http://web/; echo $WEB_PORT_80_TCP_PORT')" $'linked\n80'

#@ net-connect: connect and disconnect change a running container's networks
docker network create "$N-a" >/dev/null
docker network create "$N-b" >/dev/null
docker run -d --name "$N-web" --network "$N-a" box tool http :80 both >/dev/null
docker network connect --alias late "$N-b" "$N-web"
is "$(docker run --rm --network "$N-b" box wget -qO- -T 5 http://late/)" both
is "$(docker run --rm --network "$N-a" box wget -qO- -T 5 "http://$N-web/")" both
docker network disconnect "$N-b" "$N-web"
is "$(docker exec "$N-web" ls /sys/class/net | grep -c eth)" 1
exits 1 docker run --rm --network "$N-b" box wget -qO- -T 3 http://late/

#@ net-isolation: two user networks do not reach each other
docker network create "$N-a" >/dev/null
docker network create "$N-b" >/dev/null
docker run -d --name "$N-web" --network "$N-a" box tool http :80 hidden >/dev/null
address=$(ip_of "$N-web" "$N-a")
is "$(docker run --rm --network "$N-a" box wget -qO- -T 5 "http://$address/")" hidden
exits 1 docker run --rm --network "$N-b" box wget -qO- -T 3 "http://$address/"
exits 1 docker run --rm box wget -qO- -T 3 "http://$address/"

#@ net-icc: containers of a network without inter-container communication do not reach each other
#@ differs minimal: icc
#@ differs full: icc
docker network create -o com.docker.network.bridge.enable_icc=false "$N" >/dev/null
docker run -d --name "$N-web" --network "$N" box tool http :80 hidden >/dev/null
exits 1 docker run --rm --network "$N" box wget -qO- -T 3 "http://$(ip_of "$N-web" "$N")/"

#@ net-internal: an internal network has no way out, but its own containers
docker network create --internal "$N" >/dev/null
docker run -d --name "$N-web" --network "$N" box tool http :80 internal >/dev/null
is "$(docker run --rm --network "$N" box wget -qO- -T 5 "http://$N-web/")" internal
exits 1 docker run --rm --network "$N" box wget -qO- -T 3 "$OUTSIDE"

#@ net-static-ip: --subnet, --ip and --gateway are kept
docker network create --subnet "10.199.$((P / 10 % 250)).0/24" --gateway "10.199.$((P / 10 % 250)).9" "$N" >/dev/null
out=$(docker run --rm --network "$N" --ip "10.199.$((P / 10 % 250)).77" box sh -c 'ip -4 address show eth0; ip route')
has "$out" "10.199.$((P / 10 % 250)).77/24"
has "$out" "default via 10.199.$((P / 10 % 250)).9"

#@ net-subnet-overlap: a subnet that is in use is refused
docker network create --subnet "10.198.$((P / 10 % 250)).0/24" "$N" >/dev/null
refused docker network create --subnet "10.198.$((P / 10 % 250)).128/25" "$N-2"
has "$said" overlap

#@ net-mac: --mac-address is the interface's
#@ differs minimal: bridge
has "$(docker run --rm --mac-address 02:42:de:ad:be:ef box ip link show eth0)" 02:42:de:ad:be:ef

#@ net-ls-rm: networks are listed, inspected, and not removed while they are used
docker network create --label x=y --attachable "$N" >/dev/null
docker run -d --name "$N-c" --network "$N" box sleep 1000 >/dev/null
is "$(docker network ls --filter label=x=y --filter "name=$N" --format '{{.Name}} {{.Driver}}')" "$N bridge"
has "$(docker network inspect "$N" --format '{{range .Containers}}{{.Name}}{{end}}')" "$N-c"
refused docker network rm "$N"
has "$said" 'active endpoints'
docker rm -f "$N-c" >/dev/null
docker network rm "$N" >/dev/null

#@ net-ping: a container pings another
#@ differs minimal: bridge
docker run -d --name "$N" box sleep 1000 >/dev/null
docker run --rm box ping -c 2 -W 2 "$(ip_of "$N")"

#@ net-ipv6: containers of an IPv6 network have addresses and reach each other
#@ differs minimal: ipv6
#@ differs full: ipv6
docker network create --ipv6 --subnet "fd00:$N::/64" "$N" >/dev/null
docker run -d --name "$N-web" --network "$N" box tool http '[::]:80' six >/dev/null
address=$(inspect "$N-web" "{{(index .NetworkSettings.Networks \"$N\").GlobalIPv6Address}}")
is "$(docker run --rm --network "$N" box wget -qO- -T 5 "http://[$address]/")" six

#@ net-macvlan: containers of a macvlan network reach each other
#@ differs minimal: macvlan
#@ differs full: macvlan
docker network create -d macvlan -o parent=eth0 --subnet "10.197.$((P / 10 % 250)).0/24" "$N" >/dev/null
docker run -d --name "$N-web" --network "$N" box tool http :80 mac >/dev/null
is "$(docker run --rm --network "$N" box wget -qO- -T 5 "http://$(ip_of "$N-web" "$N")/")" mac

#@ net-half-close: a client that closes its half of a published connection still gets the answer
#@ differs minimal: bridge
docker run -d --name "$N" -p "$P:80" box tool echo tcp :80 >/dev/null
soon 5 sh -c "docker logs $N | grep ready"
is "$(tool ask tcp "127.0.0.1:$P" 'all of it')" 'all of it'

#@ net-large-transfer: 64 MB through a published port arrive whole
#@ differs minimal: bridge
docker run -d --name "$N" -p "$P:80" box sh -c 'dd if=/dev/zero bs=1M count=64 of=/tmp/big && cd /tmp && httpd -f -p 80' >/dev/null
is "$(fetch "http://localhost:$P/big" | sha256sum | cut -c1-64)" "$(head -c 67108864 /dev/zero | sha256sum | cut -c1-64)"

#@ net-mtu: large packets pass between containers on two hosts of a bridge
#@ differs minimal: bridge
docker run -d --name "$N" box tool echo tcp :80 >/dev/null
soon 5 sh -c "docker logs $N | grep ready"
text=$(head -c 30000 /dev/zero | tr '\0' x)
is "$(docker run --rm box tool ask tcp "$(ip_of "$N"):80" "$text" | wc -c)" 30001

#@ net-mtu-option: the MTU of a network is its containers'
docker network create -o com.docker.network.driver.mtu=1300 "$N" >/dev/null
is "$(docker run --rm --network "$N" box cat /sys/class/net/eth0/mtu)" 1300

#@ net-rename: a renamed container is found by its new name
docker network create "$N" >/dev/null
docker run -d --name "$N-old" --network "$N" box tool http :80 renamed >/dev/null
docker rename "$N-old" "$N-new"
is "$(docker run --rm --network "$N" box wget -qO- -T 5 "http://$N-new/")" renamed

#@ net-restart: a restarted container keeps its published port and its name
docker network create "$N" >/dev/null
docker run -d --name "$N-web" --network "$N" -p "$P:80" box tool http :80 again >/dev/null
docker restart -t 0 "$N-web" >/dev/null
is "$(fetch "http://localhost:$P/")" again
is "$(docker run --rm --network "$N" box wget -qO- -T 5 "http://$N-web/")" again
