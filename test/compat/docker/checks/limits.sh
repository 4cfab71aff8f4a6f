#@ limit-memory: what takes more than --memory is killed, with 137 and OOMKilled
docker run --name "$N" --memory 64m --memory-swap 64m box timeout 8 tool hog 200 >/dev/null && fail 'it took 200 MiB' || is $? 137
is "$(inspect "$N" '{{.State.OOMKilled}} {{.State.ExitCode}}')" 'true 137'

#@ limit-memory-enough: what takes less than --memory lives
docker run -d --name "$N" --memory 128m box tool hog 40 >/dev/null
soon 10 sh -c "docker logs $N | grep 'holds 40'"
is "$(inspect "$N" '{{.State.OOMKilled}} {{.State.Running}}')" 'false true'

#@ limit-pids: --pids-limit stops a container from having more processes
out=$(docker run --rm --pids-limit 10 box sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 5 & done; sleep 1; echo started' 2>&1 || true)
has "$out" "can't fork"

#@ limit-cpus: --cpus is accepted and recorded
docker run --name "$N" --cpus 0.5 --cpu-shares 512 box true
is "$(inspect "$N" '{{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}}')" '500000000 512'

#@ limit-cpus-bind: --cpus 0.25 holds a busy program to much less than one without it
#@ differs minimal: cpus
#@ differs full: cpus
docker run -d --name "$N-free" box tool spin 4 >/dev/null
docker run -d --name "$N-held" --cpus 0.25 box tool spin 4 >/dev/null 2>&1
docker wait "$N-free" "$N-held" >/dev/null
free=$(docker logs "$N-free")
held=$(docker logs "$N-held")
awk "BEGIN {exit !($free > 0 && $held < 0.6 * $free)}" || fail "it used $held s of CPU, and $free s without"

#@ limit-update: update changes the limits of a running container
docker run -d --name "$N" --memory 64m box sleep 1000 >/dev/null
docker update --memory 128m --memory-swap 256m --restart on-failure:3 "$N" >/dev/null
is "$(inspect "$N" '{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}')" '134217728 3'

#@ limit-stats: stats tells memory, its limit, processes and CPU
docker run -d --name "$N" --memory 128m box tool hog 30 >/dev/null
soon 10 sh -c "docker logs $N | grep holds"
out=$(docker stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' "$N")
has "$out" "$N "
has "$out" '/ 128MiB'
pids=${out##* }
[ "$pids" -ge 1 ] || fail "$out"
used=$(printf '%s' "$out" | awk '{print $2}' | sed -n 's/\(.*\)MiB/\1/p')
awk "BEGIN {exit !(${used:-0} >= 30 && ${used:-0} < 100)}" || fail "$out"
docker run -d --name "$N-busy" box tool spin 20 >/dev/null
out=$(docker stats --no-stream --format '{{.CPUPerc}}' "$N-busy")
awk "BEGIN {exit !(${out%\%} > 5)}" || fail "a busy container uses $out of CPU"

#@ limit-oom-only-itself: a container that runs out of memory harms no other
docker run -d --name "$N-well" box sleep 1000 >/dev/null
docker run --rm --memory 32m --memory-swap 32m box timeout 8 tool hog 300 >/dev/null 2>&1 && fail 'it took 300 MiB'
is "$(inspect "$N-well" '{{.State.Running}}')" true
