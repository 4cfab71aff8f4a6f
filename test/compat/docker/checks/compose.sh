#@ compose-up-down: up starts services in their order, down removes them
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  web: {image: box, command: tool http :80 from-web}
  client: {image: box, command: sh -c 'until wget -qO- -T 2 http://web/; do sleep 0.2; done', depends_on: [web]}
EOF
compose up -d
soon 15 sh -c "docker logs $N-client-1 2>/dev/null | grep from-web"
is "$(compose ps -q web | wc -l)" 1
compose down
is "$(docker ps -aq --filter "name=$N")" ''
refused docker network inspect "${N}_default"

#@ compose-health: depends_on waits for healthy, started and completed
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  db: {image: box, command: "sh -c 'sleep 1; touch /ready; sleep 1000'", healthcheck: {test: [CMD, test, -e, /ready], interval: 300ms, retries: 40}}
  migrate: {image: box, command: "sh -c 'echo migrated > /data/state'", volumes: ["data:/data"], depends_on: {db: {condition: service_healthy}}}
  app: {image: box, command: "sh -c 'cat /data/state; sleep 1000'", volumes: ["data:/data"], depends_on: {migrate: {condition: service_completed_successfully}, db: {condition: service_healthy}}}
volumes: {data: {}}
EOF
compose up -d
soon 5 sh -c "docker logs $N-app-1 | grep -x migrated"
compose down -v
is "$(docker volume ls -q --filter "name=$N")" ''

#@ compose-wait: up --wait waits for health, and fails when a service is unhealthy
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  well: {image: box, command: sleep 1000, healthcheck: {test: "true", interval: 300ms}}
  ill: {image: box, command: sleep 1000, profiles: [ill], healthcheck: {test: "false", interval: 300ms, retries: 2}}
EOF
compose up -d --wait
is "$(docker inspect -f '{{.State.Health.Status}}' "$N-well-1")" healthy
refused compose --profile ill up -d --wait
has "$said" unhealthy

#@ compose-run-exec: run and exec, with environment, arguments, input and exit codes
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  box: {image: box, command: sleep 1000, environment: {A: from-file}}
EOF
compose up -d
is "$(docker compose -p "$N" exec -T -e B=given box sh -c 'echo $A $B')" 'from-file given'
exits 6 docker compose -p "$N" exec -T box sh -c 'exit 6'
is "$(echo in | docker compose -p "$N" run --rm -T -e A=other box sh -c 'cat; echo $A' 2>/dev/null)" $'in\nother'
exits 7 docker compose -p "$N" run --rm -T box sh -c 'exit 7'

#@ compose-logs: logs names services, and follows
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  one: {image: box, command: "sh -c 'echo first; sleep 1; echo last'"}
  two: {image: box, command: echo other}
EOF
compose up -d
docker compose -p "$N" logs -f --no-color >out &
told out '| last'
has "$(cat out)" one-1
has "$(cat out)" '| other'
out=$(docker compose -p "$N" logs --no-log-prefix --tail 1 one)
has "$out" last
lacks "$out" first

#@ compose-attached: up in the foreground shows output and ends with a service's exit code
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  job: {image: box, command: "sh -c 'sleep 0.5; echo at work; exit 4'"}
  server: {image: box, command: sleep 1000, stop_grace_period: 0s}
EOF
exits 4 docker compose -p "$N" up --exit-code-from job
has "$said" 'at work'

#@ compose-interrupt: Ctrl-C of up in the foreground stops the services
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  box: {image: box, command: "sh -c 'echo is-up; exec tool signals'", stop_signal: SIGUSR2}
EOF
docker compose -p "$N" up >out 2>&1 &
told out is-up
kill -INT $!
wait $! || true
is "$(inspect "$N-box-1" '{{.State.Running}}')" false

#@ compose-scale: scale up and down; the name of a service is all of its containers
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  web: {image: box, command: sleep 1000, stop_grace_period: 0s}
EOF
compose up -d --scale web=3
is "$(compose ps -q | wc -l)" 3
out=$(docker compose -p "$N" exec -T web nslookup web 127.0.0.11)
is "$(printf '%s\n' "$out" | grep -c '^Address.*172\|^Address.*192\|^Address.*10\.')" 3
compose up -d --scale web=1
is "$(compose ps -q | wc -l)" 1

#@ compose-profiles: a profile's services start only when it is asked for
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  main: {image: box, command: sleep 1000}
  debug: {image: box, command: sleep 1000, profiles: [debug]}
EOF
compose up -d
is "$(compose ps --services)" main
compose --profile debug up -d
is "$(compose ps --services | sort | tr '\n' ' ')" 'debug main '

#@ compose-build: build, up --build, and a target with arguments
#@ differs minimal: bridge
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  app:
    image: ${N}-app
    build: {context: ., target: second, args: {WHO: "${WHO:-nobody}"}}
EOF
printf 'FROM box AS first\nFROM box AS second\nARG WHO\nRUN echo $WHO > /who\nCMD cat /who\nFROM scratch\n' >Dockerfile
WHO=one compose build -q
is "$(docker run --rm "$N-app")" one
WHO=two compose up -d --build
soon 10 sh -c "docker logs $N-app-1 | grep -x two"

#@ compose-watch: watch syncs a changed file into the container
#@ needs compose
#@ needs docker >= 23
mkdir src && echo one >src/f
cat >compose.yaml <<'EOF'
services:
  app:
    image: ${N}-app
    build: .
    command: sleep 1000
    develop: {watch: [{action: sync, path: ./src, target: /src}]}
EOF
printf 'FROM box\nCOPY src /src\n' >Dockerfile
compose up -d --build
docker compose -p "$N" watch --no-up >out 2>&1 &
told out 'atch'
sleep 1
echo two >src/f
soon 15 sh -c "docker exec $N-app-1 grep -x two /src/f"

#@ compose-config: config merges files, variables and .env, and refuses what is wrong
#@ needs compose
printf 'TAG=from-dotenv\n' >.env
printf 'services:\n  a: {image: "box:${TAG}", environment: {X: "1"}}\n' >compose.yaml
printf 'services:\n  a: {environment: {Z: "2"}}\n' >more.yaml
out=$(docker compose -p "$N" -f compose.yaml -f more.yaml config)
has "$out" 'image: box:from-dotenv'
has "$out" 'X: "1"'
has "$out" 'Z: "2"'
printf 'services:\n  a: {image: "box\n' >wrong.yaml
refused docker compose -p "$N" -f wrong.yaml config
has "$said" 'yaml'
printf 'services:\n  a: {image: box, no_such_key: 1}\n' >wrong.yaml
refused docker compose -p "$N" -f wrong.yaml config
has "$said" no_such_key

#@ compose-env-files: env_file, environment and the shell's variables, in their order
#@ needs compose
printf 'A=file\nB=file\n' >vars.env
cat >compose.yaml <<'EOF'
services:
  box: {image: box, env_file: vars.env, environment: [B=direct, C], command: sh -c 'echo $$A $$B $$C'}
EOF
is "$(C=shell docker compose -p "$N" run --rm -T box 2>/dev/null)" 'file direct shell'

#@ compose-secrets-configs: secrets and configs are files in the container
#@ needs compose
echo secret-content >s.txt
echo config-content >c.txt
cat >compose.yaml <<'EOF'
services:
  box:
    image: box
    command: cat /run/secrets/key /etc/app.conf
    secrets: [key]
    configs: [{source: conf, target: /etc/app.conf}]
secrets: {key: {file: s.txt}}
configs: {conf: {file: c.txt}}
EOF
is "$(docker compose -p "$N" run --rm -T box 2>/dev/null)" $'secret-content\nconfig-content'

#@ compose-networks: services on several networks, with aliases; others are out of reach
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  front: {image: box, command: sleep 1000, networks: [public]}
  app: {image: box, command: tool http :80 app, networks: {public: {aliases: [api]}, private: {}}}
  db: {image: box, command: tool http :80 db, networks: {private: {aliases: [store]}}}
networks: {public: {}, private: {internal: true}}
EOF
compose up -d
is "$(docker exec "$N-front-1" wget -qO- -T 5 http://api/)" app
is "$(docker exec "$N-app-1" wget -qO- -T 5 http://store/)" db
exits 1 docker exec "$N-front-1" wget -qO- -T 3 "http://$(inspect "$N-db-1" "{{(index .NetworkSettings.Networks \"${N}_private\").IPAddress}}")/"

#@ compose-ports: published ports, a range of them, and compose port
#@ needs compose
cat >compose.yaml <<EOF
services:
  web: {image: box, command: tool http :80 published, ports: ["$P:80", "127.0.0.1::81"]}
EOF
compose up -d
is "$(fetch "http://localhost:$P/")" published
is "$(docker compose -p "$N" port web 80)" "0.0.0.0:$P"
has "$(docker compose -p "$N" port web 81)" 127.0.0.1:

#@ compose-volumes: named volumes outlive down, and are external to another project
#@ needs compose
cat >compose.yaml <<EOF
services:
  box: {image: box, command: "sh -c 'echo kept >> /v/f; cat /v/f'", volumes: ["data:/v", "./here:/h:ro"]}
volumes: {data: {name: $N-named}}
EOF
mkdir here
docker compose -p "$N" run --rm -T box >/dev/null 2>&1
compose down
is "$(docker compose -p "$N" run --rm -T box 2>/dev/null)" $'kept\nkept'

#@ compose-extends: extends, include of anchors, and a merged override file
#@ needs compose
printf 'services:\n  base: {image: box, environment: {A: base}, command: sh -c "echo $$A $$B"}\n' >base.yaml
cat >compose.yaml <<'EOF'
x-env: &env {B: anchored}
services:
  box: {extends: {file: base.yaml, service: base}, environment: *env}
EOF
printf 'services:\n  box: {environment: {A: override}}\n' >compose.override.yaml
is "$(docker compose -p "$N" run --rm -T box 2>/dev/null)" 'override anchored'

#@ compose-ps-cp-events: ps as JSON, cp, top, images and events
#@ needs compose
printf 'services:\n  box: {image: box, command: sleep 2468}\n' >compose.yaml
compose up -d
has "$(docker compose -p "$N" ps --format json)" '"Service":"box"'
echo copied >f
docker compose -p "$N" cp f box:/f 2>/dev/null
is "$(docker exec "$N-box-1" cat /f)" copied
has "$(docker compose -p "$N" images)" box
docker compose -p "$N" events --json >out &
soon 15 sh -c "docker compose -p $N restart -t 0 2>/dev/null && grep -q '\"action\":\"start\"' out"

#@ compose-restart-stop: restart, stop, start and kill of one service
#@ needs compose
printf 'services:\n  a: {image: box, command: tool signals, stop_grace_period: 0s}\n  b: {image: box, command: sleep 1000, stop_grace_period: 0s}\n' >compose.yaml
compose up -d
began=$(inspect "$N-b-1" '{{.State.StartedAt}}')
compose restart a
is "$(inspect "$N-b-1" '{{.State.StartedAt}}')" "$began"
compose stop a
is "$(inspect "$N-a-1" '{{.State.Running}} {{.State.ExitCode}}')" 'false 137'
compose start a
compose kill b
is "$(docker compose -p "$N" ps --services --filter status=running)" a

#@ compose-pause: pause and unpause
#@ differs minimal: freezer
#@ differs full: freezer
#@ needs compose
printf 'services:\n  a: {image: box, command: sleep 1000, stop_grace_period: 0s}\n' >compose.yaml
compose up -d
compose pause
is "$(inspect "$N-a-1" '{{.State.Paused}}')" true
compose unpause
is "$(inspect "$N-a-1" '{{.State.Paused}}')" false

#@ compose-recreate: a changed service is recreated, an unchanged one is not
#@ needs compose
write() { printf 'services:\n  a: {image: box, command: sleep 1000, stop_grace_period: 0s, environment: {X: "%s"}}\n  b: {image: box, command: sleep 1000, stop_grace_period: 0s}\n' "$1" >compose.yaml; }
write 1
compose up -d
a=$(inspect "$N-a-1" '{{.Id}}')
b=$(inspect "$N-b-1" '{{.Id}}')
write 2
compose up -d
[ "$(inspect "$N-a-1" '{{.Id}}')" != "$a" ] || fail 'a was not recreated'
is "$(inspect "$N-b-1" '{{.Id}}')" "$b"

#@ compose-orphans: a service that is gone from the file is removed with --remove-orphans
#@ needs compose
printf 'services:\n  a: {image: box, command: sleep 1000}\n  b: {image: box, command: sleep 1000, stop_grace_period: 0s}\n' >compose.yaml
compose up -d
printf 'services:\n  a: {image: box, command: sleep 1000, stop_grace_period: 0s}\n' >compose.yaml
compose up -d --remove-orphans
is "$(docker ps -aq --filter "name=$N-b")" ''

#@ compose-limits: limits in a file are accepted and recorded
#@ needs compose
cat >compose.yaml <<'EOF'
services:
  box:
    image: box
    command: sleep 1000
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M, pids: 50}}}
EOF
compose up -d
is "$(inspect "$N-box-1" '{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}')" '500000000 67108864'

#@ compose-port-taken: a port that is taken is a clear error, and down still cleans up
#@ differs minimal: bridge
#@ needs compose
docker run -d --name "$N-holder" -p "$P:80" box sleep 1000 >/dev/null
printf 'services:\n  a: {image: box, command: sleep 1000, ports: ["%s:80"]}\n' "$P" >compose.yaml
refused docker compose -p "$N" up -d
has "$said" 'port is already allocated'
compose down
is "$(docker ps -aq --filter "name=$N-a")" ''

#@ compose-missing-image: an image that is nowhere is a clear error
#@ needs compose
printf 'services:\n  a: {image: "127.0.0.1:1/none"}\n' >compose.yaml
refused docker compose -p "$N" up -d
has "$said" 'refused'

#@ compose-depends-cycle: a cycle of dependencies is refused
#@ needs compose
printf 'services:\n  a: {image: box, depends_on: [b]}\n  b: {image: box, depends_on: [a]}\n' >compose.yaml
refused docker compose -p "$N" up -d
has "$said" 'ycle'

#@ compose-standalone: docker-compose, as one word, is there
#@ needs compose
printf 'services:\n  a: {image: box, command: echo hyphen}\n' >compose.yaml
has "$(docker-compose -p "$N" run --rm -T a 2>/dev/null)" hyphen
