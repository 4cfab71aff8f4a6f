#@ run-hello: hello-world runs and says so
has "$(docker run --rm hello-world)" 'Hello from Docker!'

#@ run-exit-code: the program's exit code is docker's; 125, 126, 127 mean what they mean
exits 42 docker run --rm box sh -c 'exit 42'
exits 127 docker run --rm box no-such-program
exits 126 docker run --rm box /etc
exits 125 docker run --rm --no-such-flag box true

#@ run-streams: standard output and standard error stay apart
#@ differs minimal: dockerd warns on standard error that forwarding is off, as the seed wants it
docker run --rm box sh -c 'echo out; echo err >&2' >out 2>err
is "$(cat out)" out
is "$(cat err)" err

#@ run-stdin: -i passes standard input and its end
is "$(seq 100000 | docker run -i --rm box sh -c 'cat | wc -l')" 100000

#@ run-env: -e and --env-file, with a value from the client's environment
printf '# comment\nFROM_FILE=one two\nPASSED\n' >env
is "$(PASSED=yes GIVEN=here docker run --rm --env-file env -e SET='a b=c' -e GIVEN box sh -c 'echo "$FROM_FILE|$PASSED|$SET|$GIVEN"')" 'one two|yes|a b=c|here'

#@ run-workdir-user: --workdir is made, --user and --group-add apply
is "$(docker run --rm --workdir /new/dir --user 1234:567 --group-add 890 box sh -c 'pwd; id -u; id -g; id -G')" $'/new/dir\n1234\n567\n567 890'

#@ run-entrypoint: --entrypoint replaces the image's, and its arguments follow
is "$(docker run --rm --entrypoint /bin/echo box -n a b)" 'a b'

#@ run-hostname: --hostname, --domainname and --add-host are in the container's files
#@ differs minimal: bridge
out=$(docker run --rm --hostname web --domainname example.test --add-host db:10.1.2.3 box sh -c 'hostname; cat /etc/hosts')
has "$out" 'web'
has "$out" 'web.example.test web'
has "$out" $'10.1.2.3\tdb'

#@ run-dns-options: --dns, --dns-search and --dns-option are in resolv.conf
out=$(docker run --rm --dns 10.9.8.7 --dns-search example.test --dns-option ndots:3 box cat /etc/resolv.conf)
has "$out" 'nameserver 10.9.8.7'
has "$out" 'search example.test'
has "$out" 'ndots:3'

#@ run-read-only: the root is read-only, a tmpfs in it is not
exits 1 docker run --rm --read-only box touch /file
docker run --rm --read-only --tmpfs /scratch:size=1m box sh -c 'touch /scratch/file'

#@ run-tmpfs: a tmpfs has the size and mode that it was given
out=$(docker run --rm --tmpfs /t:size=2m,mode=1770 box sh -c 'stat -c %a /t; dd if=/dev/zero of=/t/f bs=1M count=4 2>&1; ls -l /t/f')
has "$out" '1770'
has "$out" 'No space left'
has "$out" '2097152'

#@ run-shm-size: --shm-size is the size of /dev/shm
is "$(docker run --rm --shm-size 32m box sh -c "df -k /dev/shm | awk 'END {print \$2}'")" 32768

#@ run-ulimit: --ulimit sets soft and hard limits
is "$(docker run --rm --ulimit nofile=1000:2000 --ulimit core=0 box sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c')" $'1000\n2000\n0'

#@ run-label-cidfile: labels and the container's ID in a file
docker run -d --name "$N" --label a=b --label c --cidfile id box sleep 100 >out
is "$(cat id)" "$(cat out)"
is "$(inspect "$N" '{{.Config.Labels.a}}{{.Config.Labels.c}}')" b
is "$(docker ps -q --no-trunc --filter label=a=b --filter "name=$N")" "$(cat id)"
refused docker run --cidfile id box true
has "$said" 'container ID file found'

#@ run-name-taken: a name is given once
docker create --name "$N" box >/dev/null
refused docker create --name "$N" box
has "$said" 'already in use'

#@ run-bad-names: a name with a newline, and a missing image, are refused clearly
refused docker create --name $'a\nb' box
has "$said" 'Invalid container name'
refused docker run --rm --pull never "$N-nothing" true
has "$said" "$N-nothing"

#@ run-rm: --rm removes the container and its anonymous volumes
docker run --rm --name "$N" -v /data box touch /data/file
refused docker inspect "$N"

#@ run-detach-wait: wait prints exit codes in the order of its arguments
docker run -d --name "$N-a" box sh -c 'sleep 1; exit 3' >/dev/null
docker run -d --name "$N-b" box sh -c 'exit 4' >/dev/null
is "$(docker wait "$N-a" "$N-b")" $'3\n4'

#@ run-concurrent: ten containers at once, each with its own output
for i in 0 1 2 3 4 5 6 7 8 9; do docker run --rm box echo "I am $i" >"out$i" & done
wait $(jobs -p)
is "$(cat out?)" "$(for i in 0 1 2 3 4 5 6 7 8 9; do echo "I am $i"; done)"
#@ seconds 120

#@ run-attach-stdin: create -i and start -ai pass input and exit code
docker create -i --name "$N" box sh -c 'read line; echo "got $line"; exit 5' >/dev/null
exits 5 sh -c "echo hello | docker start -ai $N"
has "$said" 'got hello'

#@ run-init: --init runs a PID 1 that reaps and passes signals on
docker run -d --init --name "$N" box sleep 1000 >/dev/null
has "$(docker exec "$N" cat /proc/1/cmdline | tr '\0' ' ')" 'docker-init'
docker stop -t 10 "$N" >/dev/null
is "$(inspect "$N" '{{.State.ExitCode}}')" 143

#@ run-pid-namespace: --pid container shares processes, and alone it sees none else
docker run -d --name "$N" box sleep 4321 >/dev/null
has "$(docker run --rm --pid "container:$N" box ps)" 'sleep 4321'
lacks "$(docker run --rm box ps)" 'sleep 4321'

#@ run-ipc: --ipc shareable and container: share /dev/shm
docker run -d --name "$N" --ipc shareable box sh -c 'echo hi > /dev/shm/x; sleep 1000' >/dev/null
soon 5 docker exec "$N" test -s /dev/shm/x
is "$(docker run --rm --ipc "container:$N" box cat /dev/shm/x)" hi
exits 1 docker run --rm box cat /dev/shm/x

#@ run-device: --device passes a node
docker run --rm --device /dev/null:/dev/own:rw box sh -c 'test -c /dev/own && echo x > /dev/own'

#@ run-stop-signal: --stop-signal is what stop sends
docker run -d --name "$N" --stop-signal USR2 box tool signals >/dev/null
soon 5 sh -c "docker logs $N | grep ready"
docker stop -t 20 "$N" >/dev/null
is "$(docker logs "$N")" $'ready\nSIGUSR2'
is "$(inspect "$N" '{{.State.ExitCode}}')" 0

#@ run-stop-timeout: stop kills what ignores its signal when the time is up
docker run -d --name "$N" --stop-timeout 1 box tool signals >/dev/null
soon 5 sh -c "docker logs $N | grep ready"
docker stop "$N" >/dev/null
has "$(docker logs "$N")" SIGTERM
is "$(inspect "$N" '{{.State.ExitCode}}')" 137

#@ run-kill-signal: kill -s sends that signal and no other
docker run -d --name "$N" box tool signals >/dev/null
soon 5 sh -c "docker logs $N | grep ready"
docker kill -s HUP "$N" >/dev/null
soon 5 sh -c "docker logs $N | grep SIGHUP"
docker kill -s USR2 "$N" >/dev/null
is "$(docker wait "$N")" 0
is "$(docker logs "$N")" $'ready\nSIGHUP\nSIGUSR2'

#@ run-restart-always: a container that was killed inside is restarted
docker run -d --name "$N" --restart always box sh -c 'sleep 0.3; exit 1' >/dev/null
soon 20 sh -c "[ \$(docker inspect -f '{{.RestartCount}}' $N) -ge 2 ]"

#@ run-restart-on-failure: on-failure:2 tries two more times, and not after success
docker run -d --name "$N" --restart on-failure:2 box sh -c 'exit 7' >/dev/null
soon 20 sh -c "[ \$(docker inspect -f '{{.RestartCount}} {{.State.Status}}' $N | tr ' ' -) = 2-exited ]"
docker run -d --name "$N-ok" --restart on-failure:2 box true >/dev/null
docker wait "$N-ok"
is "$(inspect "$N-ok" '{{.RestartCount}}')" 0

#@ run-restart-stop: stop ends a restarting container, start begins it again
docker run -d --name "$N" --restart unless-stopped box sleep 1000 >/dev/null
docker stop -t 0 "$N" >/dev/null
is "$(inspect "$N" '{{.State.Running}}')" false
docker start "$N" >/dev/null
docker restart -t 0 "$N" >/dev/null
is "$(inspect "$N" '{{.State.Running}}')" true

#@ run-health: a health check becomes unhealthy and healthy again
docker run -d --name "$N" --health-cmd 'test -e /well' --health-interval 500ms --health-retries 1 box sleep 1000 >/dev/null
soon 15 sh -c "docker inspect -f '{{.State.Health.Status}}' $N | grep -x unhealthy"
docker exec "$N" touch /well
soon 15 sh -c "docker inspect -f '{{.State.Health.Status}}' $N | grep -x healthy"

#@ run-pull-policy: --pull never does not pull
refused docker run --rm --pull never "localhost:1/$N" true
lacks "$said" 'Pulling from'

#@ run-platform: the container is this machine's platform
is "$(docker run --rm box uname -m)" "$(uname -m)"

#@ run-cgroup-files: a container sees its limit of memory in its cgroup
out=$(docker run --rm --memory 64m box sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null' || true)
is "$out" 67108864

#@ run-after-many: a container starts although many have started before it
# Each container joins a session keyring; so does this, 300 times.
python3 - <<'EOF'
import ctypes, os
keyctl, join = {"x86_64": 250, "aarch64": 219}[os.uname().machine], 1
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(300):
    assert libc.syscall(keyctl, join, None) > 0, os.strerror(ctypes.get_errno())
EOF
docker run --rm box true
