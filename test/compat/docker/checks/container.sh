#@ exec-options: exec takes user, directory, environment and input, and gives the exit code
docker run -d --name "$N" box sleep 1000 >/dev/null
is "$(docker exec -u nobody -w /tmp -e A=b "$N" sh -c 'id -un; pwd; echo $A')" $'nobody\n/tmp\nb'
is "$(echo in | docker exec -i "$N" cat)" in
exits 9 docker exec "$N" sh -c 'exit 9'
refused docker exec "$N" no-such-program
has "$said" 'executable file not found'

#@ exec-detach: exec -d runs on in the container
docker run -d --name "$N" box sleep 1000 >/dev/null
docker exec -d "$N" sh -c 'echo done > /tmp/done'
soon 5 docker exec "$N" test -s /tmp/done

#@ exec-stopped: exec into a stopped container is refused
docker create --name "$N" box >/dev/null
refused docker exec "$N" true
has "$said" 'is not running'

#@ exec-many: twenty execs at the same time each give their own output
docker run -d --name "$N" box sleep 1000 >/dev/null
for i in $(seq 10 29); do docker exec "$N" echo "exec $i" >"o$i" & done
wait $(jobs -p)
is "$(cat o*)" "$(for i in $(seq 10 29); do echo "exec $i"; done)"

#@ exec-pty: exec -it is a terminal: size, input, Ctrl-C
docker run -d --name "$N" nginx sleep 1000 >/dev/null
out=$(tool pty docker exec -it "$N" sh <<'SCRIPT'
expect #
send stty size; tty\r
expect 24 80
expect /dev/
send echo go-$((1+1)); sleep 1000\r
expect go-2
send \x03
expect #
send exit 6\r
SCRIPT
) && fail "it ended with 0: $out" || is $? 6

#@ run-pty: run -it is a terminal, and its exit code is docker's
out=$(tool pty docker run -it --rm --name "$N" nginx sh <<'SCRIPT'
expect #
send test -t 0 && test -t 1 && echo a-$((40+2))\r
expect a-42
send exit 3\r
SCRIPT
) && fail "it ended with 0: $out" || is $? 3

#@ run-pty-resize: a terminal that changes its size changes the container's
docker run -d --name "$N" nginx sleep 1000 >/dev/null
tool pty docker exec -it "$N" sh <<'SCRIPT' >/dev/null
expect #
send while [ "$(stty size)" != "24 80" ]; do sleep 0.1; done; sleep 0.5; echo it-was-$((1+1))\r
expect it-was-2
size 50 132
send while [ "$(stty size)" != "50 132" ]; do sleep 0.1; done; echo it-is-$((1+1))\r
expect it-is-2
send exit\r
SCRIPT

#@ attach-detach-keys: Ctrl-P Ctrl-Q leaves a container running, attach takes it up again
tool pty docker run -it --name "$N" nginx sh <<'SCRIPT' >/dev/null || true
expect #
send echo one-$((1+0))\r
expect one-1
send \x10\x11
SCRIPT
is "$(inspect "$N" '{{.State.Running}}')" true
tool pty docker attach "$N" <<'SCRIPT' >/dev/null || true
send echo two-$((1+1))\r
expect two-2
send exit\r
SCRIPT
is "$(docker wait "$N")" 0

#@ stop-default: a PID 1 that handles no SIGTERM is killed after the grace period
docker run -d --name "$N" box sleep 1000 >/dev/null
docker stop -t 1 "$N" >/dev/null
is "$(inspect "$N" '{{.State.ExitCode}}')" 137

#@ attach-output: attach shows what comes, and passes a signal on
docker run -d --name "$N" box tool signals >/dev/null
soon 5 sh -c "docker logs $N | grep ready"
docker attach "$N" >out 2>&1 &
soon 5 sh -c "docker kill -s HUP $N >/dev/null && grep SIGHUP out"
kill -USR2 %1
is "$(docker wait "$N")" 0

#@ attach-vanish: a client that vanishes in the middle of attach harms nothing
docker run -d -i --name "$N" box sh -c 'while read line; do echo "got $line"; done; sleep 1000' >/dev/null
mkfifo pipe
docker attach "$N" <pipe >out 2>&1 &
client=$!
exec 9>pipe
echo one >&9
told out 'got one'
kill -KILL "$client"
exec 9>&-
is "$(inspect "$N" '{{.State.Running}}')" true
docker exec "$N" true

#@ logs: logs has both streams, --tail, --since, --timestamps
docker run --name "$N" box sh -c 'for i in 1 2 3 4 5; do echo "line $i"; done; echo error >&2' >/dev/null 2>&1
is "$(docker logs "$N" 2>/dev/null | wc -l)" 5
is "$(docker logs "$N" 2>&1 >/dev/null)" error
is "$(docker logs --tail 2 "$N" 2>/dev/null | tail -n 1)" 'line 5'
has "$(docker logs --timestamps "$N" 2>/dev/null | head -n 1)" "T"
is "$(docker logs --since 1h "$N" 2>/dev/null | wc -l)" 5
is "$(docker logs --until 1h "$N" 2>&1 | wc -l)" 0

#@ logs-follow: logs -f follows until the container ends
docker run -d --name "$N" box sh -c 'for i in 1 2 3; do echo $i; sleep 0.3; done' >/dev/null
is "$(timeout 20 docker logs -f "$N")" $'1\n2\n3'

#@ logs-large: 10 MB of output, followed while it is written, come whole
docker run -d --name "$N" box sh -c 'yes 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd | head -c 10485760' >/dev/null
is "$(timeout 50 docker logs -f "$N" | wc -c)" 10485760

#@ logs-drivers: --log-driver none and local, and a limit with rotation
docker run --name "$N" --log-driver none box echo x >/dev/null
refused docker logs "$N"
docker run --name "$N-local" --log-driver local --log-opt max-size=1m box echo kept >/dev/null
is "$(docker logs "$N-local")" kept

#@ cp: files and directories are copied in and out, with their mode, and as a stream
docker create --name "$N" box sleep 1000 >/dev/null
mkdir -p dir/sub && echo content >dir/sub/file && chmod 640 dir/sub/file && ln -s sub/file dir/link
docker cp dir "$N:/copied"
docker start "$N" >/dev/null
is "$(docker exec "$N" sh -c 'cat /copied/link; stat -c %a /copied/sub/file')" $'content\n640'
docker exec "$N" sh -c 'echo more > /copied/more'
docker cp "$N:/copied/." back
is "$(cat back/more back/sub/file)" $'more\ncontent'
is "$(docker cp "$N:/copied/more" - | tar -xO)" more
refused docker cp "$N:/nothing" .

#@ cp-volume: cp reaches into a volume and through a bind
docker run -d --name "$N" -v "$N-v:/vol" -v "$W:/bound" box sleep 1000 >/dev/null
echo x >f
docker cp f "$N:/vol/f"
is "$(docker exec "$N" cat /vol/f)" x
docker cp "$N:/bound/f" g
is "$(cat g)" x

#@ diff: diff tells what was added, changed and deleted
docker run --name "$N" box sh -c 'echo x > /new; echo y >> /etc/passwd; rm /etc/group' >/dev/null
out=$(docker diff "$N")
has "$out" 'A /new'
has "$out" 'C /etc/passwd'
has "$out" 'D /etc/group'

#@ top: top lists a container's processes
docker run -d --name "$N" box sleep 7654 >/dev/null
has "$(docker top "$N")" 'sleep 7654'
has "$(docker top "$N" -o pid,cmd)" 'sleep 7654'

#@ events: events tells a container's life, and filters
since=$(date +%s)
docker run --rm --name "$N" --label own="$N" box true
out=$(docker events --since "$since" --until "$(($(date +%s) + 1))" --filter label=own="$N" --format '{{.Action}}')
is "$(printf '%s' "$out" | grep -E '^(create|start|die|destroy)$' | tr '\n' ' ' )" 'create start die destroy '

#@ events-live: events shows an event as it happens
docker events --filter "container=$N" --format '{{.Action}} {{.Actor.Attributes.name}}' >out &
soon 10 sh -c "docker rm -f $N >/dev/null 2>&1; docker create --name $N box >/dev/null && grep -q 'create $N' out"

#@ ps-filters: ps filters and formats
docker run -d --name "$N-up" --label k="$N" box sleep 1000 >/dev/null
docker run --name "$N-down" --label k="$N" box sh -c 'exit 3' || true
is "$(docker ps --filter label=k="$N" --format '{{.Names}}')" "$N-up"
is "$(docker ps -a --filter label=k="$N" --filter exited=3 --format '{{.Names}} {{.Image}}')" "$N-down box"
has "$(docker ps -a --filter "name=$N-down" --format '{{.Status}}')" 'Exited (3)'
is "$(docker ps -q --filter label=k="$N" --filter status=running | wc -l)" 1
docker ps -s --filter label=k="$N" --format '{{.Size}}' | grep -q virtual

#@ inspect: inspect is JSON with what was asked for; of nothing, an error
#@ differs minimal: bridge
docker run -d --name "$N" -e A=b -p "$P:80" --tmpfs /t box sleep 1000 >/dev/null
docker inspect "$N" | python3 -c "
import json, sys
c = json.load(sys.stdin)[0]
assert c['State']['Running'] and c['State']['Pid'] > 0, c['State']
assert 'A=b' in c['Config']['Env'] and c['HostConfig']['Tmpfs'] == {'/t': ''}
assert c['NetworkSettings']['Ports']['80/tcp'][0]['HostPort'] == '$P'
assert c['Name'] == '/$N'"
refused docker inspect "$N-nothing"
has "${said,,}" 'no such object'

#@ rename-update: rename, and update of a restart policy
#@ differs minimal: bridge
docker run -d --name "$N-a" box sleep 1000 >/dev/null
docker rename "$N-a" "$N-b"
is "$(inspect "$N-b" '{{.Name}}')" "/$N-b"
docker update --restart always "$N-b" >/dev/null
is "$(inspect "$N-b" '{{.HostConfig.RestartPolicy.Name}}')" always

#@ pause: pause stops every process, unpause lets them go on
#@ differs minimal: freezer
#@ differs full: freezer
docker run -d --name "$N" box sh -c 'while :; do date +%s%N > /tmp/now; sleep 0.1; done' >/dev/null
soon 5 docker exec "$N" test -s /tmp/now
docker pause "$N" >/dev/null
is "$(inspect "$N" '{{.State.Paused}}')" true
docker cp "$N:/tmp/now" before
sleep 0.5
docker cp "$N:/tmp/now" after
is "$(cat after)" "$(cat before)"
docker unpause "$N" >/dev/null
soon 5 sh -c "[ \$(docker exec $N cat /tmp/now) != $(cat after) ]"

#@ pause-error: where pause cannot be, it says so and the container goes on
docker run -d --name "$N" box sleep 1000 >/dev/null
docker pause "$N" >/dev/null 2>said || [ -s said ]
docker unpause "$N" >/dev/null 2>&1 || true
docker exec "$N" true

#@ commit: a container becomes an image, with changes of its configuration
docker run --name "$N" box sh -c 'echo committed > /file' >/dev/null
docker commit -m 'a message' -c 'CMD ["cat", "/file"]' -c 'ENV A=b' "$N" "$N-image" >/dev/null
is "$(docker run --rm "$N-image")" committed
has "$(docker history --no-trunc "$N-image")" 'a message'

#@ export-import: a container's files become a tar and an image again
docker run --name "$N" box sh -c 'echo exported > /file' >/dev/null
docker export "$N" >root.tar
has "$(tar -tf root.tar)" 'file'
docker import -c 'CMD ["/bin/cat", "/file"]' root.tar "$N-image" >/dev/null
is "$(docker run --rm "$N-image")" exported

#@ rm: a running container is not removed without force; -v takes its volumes
docker run -d --name "$N" -v /anonymous box sleep 1000 >/dev/null
refused docker rm "$N"
volume=$(inspect "$N" '{{(index .Mounts 0).Name}}')
docker rm -fv "$N" >/dev/null
refused docker volume inspect "$volume"

#@ socket-bind: a container with the daemon's socket uses the same Docker
mkdir bin && cp "$(command -v docker)" bin/docker
docker run -d --name "$N" box sleep 1000 >/dev/null
out=$(docker run --rm -v /var/run/docker.sock:/var/run/docker.sock -v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro box /usr/bin/docker ps --format '{{.Names}}')
has "$out" "$N"

#@ context: a context of the client is used and removed
docker context create "$N" --docker host=unix:///run/docker.sock >/dev/null
is "$(docker --context "$N" ps -q --filter name="$N-none")" ''
docker context use "$N" >/dev/null
docker ps >/dev/null
has "$(docker context ls)" "$N *"
docker context use default >/dev/null
docker context rm "$N" >/dev/null

#@ info-version: info and version speak of this daemon
#@ differs minimal: vfs
has "$(docker version --format '{{.Server.Version}} {{.Server.Os}}')" "$VERSION linux"
docker info --format '{{json .}}' | python3 -c "
import json, sys
i = json.load(sys.stdin)
assert not i.get('ServerErrors'), i['ServerErrors']
assert i['NCPU'] >= 1 and i['MemTotal'] > 500 << 20, (i['NCPU'], i['MemTotal'])
assert i['Driver'] in ('overlay2', 'overlayfs'), i['Driver']"
