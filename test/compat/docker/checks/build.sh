#@ build-steps: a Dockerfile's instructions do what they say
#@ differs minimal: bridge
mkdir ctx && echo copied >ctx/file && tar -cf ctx/archive.tar -C ctx file
cat >ctx/Dockerfile <<'EOF'
FROM box
ENV A=env
WORKDIR /w
COPY file renamed
ADD archive.tar /unpacked/
RUN echo "$A" > ran && echo 'somebody:x:1234:1234::/:/bin/sh' >> /etc/passwd
COPY --chown=1234:1234 --chmod=600 file owned
USER somebody
CMD ["sh", "-c", "cat renamed /unpacked/file ran; stat -c '%u %a' owned; id -un"]
EOF
docker build -q -t "$N" ctx >/dev/null
is "$(docker run --rm "$N")" $'copied\ncopied\nenv\n1234 600\nsomebody'

#@ build-multi-stage: stages copy from each other and from an image; --target stops at one
#@ differs minimal: bridge
cat >Dockerfile <<'EOF'
FROM box AS first
RUN echo made > /made
FROM box AS second
COPY --from=first /made /second
CMD cat /second
FROM scratch
COPY --from=second /second /third
COPY --from=busybox /bin/busybox /bin/cat
CMD ["/bin/cat", "/third"]
EOF
docker build -q -t "$N" . >/dev/null
is "$(docker run --rm "$N")" made
docker build -q --target second -t "$N-second" . >/dev/null
is "$(docker run --rm "$N-second")" made

#@ build-args: --build-arg, defaults, the ones that are predefined, and ARG before FROM
#@ differs minimal: bridge
cat >Dockerfile <<'EOF'
ARG BASE=none
FROM $BASE
ARG ONE=default
ARG TWO
ARG TARGETARCH
RUN echo "$ONE $TWO ${TARGETARCH:+arch}" > /args
EOF
TWO=from-env docker build -q --build-arg BASE=box --build-arg TWO -t "$N" . >/dev/null
is "$(docker run --rm "$N" cat /args)" 'default from-env arch'

#@ build-dockerignore: what .dockerignore names is not in the context, but for exceptions
mkdir -p ctx/node_modules && touch ctx/keep.txt ctx/drop.log ctx/important.log ctx/node_modules/x
printf '*.log\n!important.log\nnode_modules\n' >ctx/.dockerignore
printf 'FROM box\nCOPY . /c\n' >ctx/Dockerfile
docker build -q -t "$N" ctx >/dev/null
is "$(docker run --rm "$N" sh -c 'cd /c && find . -type f | sort | tr "\n" " "')" './.dockerignore ./Dockerfile ./important.log ./keep.txt '

#@ build-cache: an unchanged build takes everything from its cache; --no-cache nothing
#@ differs minimal: bridge
printf 'FROM box\nRUN cat /proc/sys/kernel/random/uuid > /uuid\n' >Dockerfile
docker build -q -t "$N" . >/dev/null
first=$(docker run --rm "$N" cat /uuid)
docker build -q -t "$N" . >/dev/null
is "$(docker run --rm "$N" cat /uuid)" "$first"
docker build -q --no-cache -t "$N" . >/dev/null
[ "$(docker run --rm "$N" cat /uuid)" != "$first" ] || fail '--no-cache took it from the cache'

#@ build-stdin: a Dockerfile, or a whole context as a tar, from standard input
#@ differs minimal: bridge
printf 'FROM box\nRUN echo stdin > /f\nCMD cat /f\n' | docker build -q -t "$N" - >/dev/null
is "$(docker run --rm "$N")" stdin
mkdir ctx && echo x >ctx/f && printf 'FROM box\nCOPY f /g\nCMD cat /g\n' >ctx/Other
tar -C ctx -c . | docker build -q -t "$N-2" -f Other - >/dev/null
is "$(docker run --rm "$N-2")" x

#@ build-heredoc: heredocs in RUN and COPY
#@ differs minimal: bridge
#@ needs docker >= 23
cat >Dockerfile <<'END_OF_FILE'
FROM box
RUN <<EOF
set -e
echo one > /f
echo two >> /f
EOF
COPY <<EOF /g
three
EOF
CMD cat /f /g
END_OF_FILE
docker build -q -t "$N" . >/dev/null
is "$(docker run --rm "$N")" $'one\ntwo\nthree'

#@ build-mount-cache: RUN --mount=type=cache is kept between builds
#@ differs minimal: bridge
cat >Dockerfile <<EOF
FROM box
ARG TURN
RUN --mount=type=cache,target=/cache,id=$N echo "turn \$TURN" >> /cache/log && cat /cache/log > /log
EOF
docker build -q --build-arg TURN=1 -t "$N" . >/dev/null
docker build -q --build-arg TURN=2 -t "$N" . >/dev/null
is "$(docker run --rm "$N" sh -c 'cat /log; ls /cache 2>/dev/null')" $'turn 1\nturn 2'

#@ build-mount-secret: RUN --mount=type=secret gives a secret that stays out of the image
#@ differs minimal: bridge
echo hidden >secret
printf 'FROM box\nRUN --mount=type=secret,id=s cat /run/secrets/s | rev > /f\n' >Dockerfile
docker build -q --secret id=s,src=secret -t "$N" . >/dev/null
is "$(docker run --rm "$N" sh -c 'cat /f; ls /run/secrets/s 2>/dev/null')" neddih || [ "$(docker run --rm "$N" cat /f)" = neddih ]
lacks "$(docker history --no-trunc "$N")" hidden

#@ build-mount-ssh: RUN --mount=type=ssh gives the client's agent
#@ differs minimal: bridge
python3 - <<'EOF' &
import os, socket
s = socket.socket(socket.AF_UNIX); s.bind("agent"); s.listen()
while True:
    c, _ = s.accept()
    while c.recv(4096):
        c.sendall(b"\x00\x00\x00\x05\x0c\x00\x00\x00\x00")  # no keys
EOF
soon 5 test -S agent
printf 'FROM box\nRUN --mount=type=ssh test -S "$SSH_AUTH_SOCK" && printf "\\0\\0\\0\\1\\13" | timeout 5 tool ask unix "$SSH_AUTH_SOCK" "" > /answer; test -S "$SSH_AUTH_SOCK" && echo socket > /f\n' >Dockerfile
docker build -q --ssh "default=$W/agent" -t "$N" . >/dev/null
is "$(docker run --rm "$N" cat /f)" socket

#@ build-mount-bind-tmpfs: RUN --mount=type=bind from the context and a stage, and tmpfs
#@ differs minimal: bridge
echo bound >file
cat >Dockerfile <<'EOF'
FROM box AS other
RUN echo staged > /s
FROM box
RUN --mount=type=bind,target=/ctx --mount=type=bind,from=other,source=/s,target=/s --mount=type=tmpfs,target=/t cat /ctx/file /s > /f && touch /t/x
CMD cat /f; ls /t
EOF
docker build -q -t "$N" . >/dev/null
is "$(docker run --rm "$N" cat /f)" $'bound\nstaged'

#@ build-network: RUN reaches a server of the place, and a server outside
#@ differs minimal: bridge
tool http "0.0.0.0:$P" reached >server &
told server ready
printf 'FROM box\nARG FROM\nARG OUTSIDE\nRUN wget -qO /f -T 5 $FROM && wget -qO /dev/null -T 5 $OUTSIDE\n' >Dockerfile
docker build -q --build-arg FROM="http://$(gateway bridge):$P/" --build-arg OUTSIDE="$OUTSIDE" -t "$N" . >/dev/null
is "$(docker run --rm "$N" cat /f)" reached

#@ build-network-none: RUN --network=none has no way out
printf 'FROM box\nRUN --network=none ! wget -qO /dev/null -T 3 %s && ls /sys/class/net > /nets || true\nRUN --network=none ip -4 address | grep -v 127.0.0.1 | grep inet && exit 1 || true\n' "$OUTSIDE" >Dockerfile
docker build -q -t "$N" . >/dev/null
printf 'FROM box\nRUN wget -qO /dev/null -T 3 %s\n' "$OUTSIDE" >Dockerfile
refused docker build -q --network none -t "$N" .

#@ build-network-host: build --network host is the place's network
tool http "127.0.0.1:$P" on-host >server &
told server ready
printf 'FROM box\nRUN wget -qO /f -T 5 http://127.0.0.1:%s/\n' "$P" >Dockerfile
docker build -q --network host -t "$N" . >/dev/null
is "$(docker run --rm "$N" cat /f)" on-host

#@ build-add-host: build --add-host is in the RUN's hosts file
#@ differs minimal: bridge
printf 'FROM box\nRUN grep db.test /etc/hosts > /f\n' >Dockerfile
docker build -q --add-host db.test:10.1.2.3 -t "$N" . >/dev/null
has "$(docker run --rm "$N" cat /f)" 10.1.2.3

#@ build-add-url: ADD of a URL
tool http "0.0.0.0:$P" from-url >server &
told server ready
printf 'FROM box\nADD http://%s:%s/file /f\n' "$(hostname -I | awk '{print $1}')" "$P" >Dockerfile
docker build -q -t "$N" . >/dev/null
is "$(docker run --rm "$N" cat /f)" from-url

#@ build-output: --output writes files, or a tar, instead of an image
#@ differs minimal: bridge
printf 'FROM box AS b\nRUN echo out > /out\nFROM scratch\nCOPY --from=b /out /\n' >Dockerfile
docker build -q --output type=local,dest=result . >/dev/null
is "$(cat result/out)" out
docker build -q --output type=tar,dest=result.tar . >/dev/null
is "$(tar -xOf result.tar out)" out

#@ build-fails: a build that fails says in which step, and leaves nothing behind
printf 'FROM box\nRUN echo fine\nRUN echo the reason >&2; exit 9\n' >Dockerfile
refused docker build -t "$N" .
has "$said" 'the reason'
has "$said" '9'
refused docker image inspect "$N"
printf 'FROM box\nRUNN x\n' >Dockerfile
refused docker build -t "$N" .
has "$said" 'nknown instruction'

#@ build-missing-copy: COPY of a missing file is a clear error
printf 'FROM box\nCOPY nothing /\n' >Dockerfile
refused docker build -t "$N" .
has "$said" '/nothing'

#@ build-interrupt: a build that is interrupted ends, and its container too
#@ differs minimal: bridge
printf 'FROM box\nRUN echo started-now; sleep 987\n' >Dockerfile
docker build --progress plain -t "$N" . >out 2>&1 &
told out 'started-now'
kill -INT $!
wait $! && fail 'it succeeded' || true
soon 15 sh -c '! grep -l "sleep.987" /proc/[0-9]*/cmdline 2>/dev/null | grep -v "/$$/" | xargs -r cat | tr "\0" " " | grep -q "^sleep 987"'

#@ build-legacy: the legacy builder builds, caches and fails as ever
export DOCKER_BUILDKIT=0
echo content >file
printf 'FROM box AS a\nRUN echo legacy > /f\nFROM box\nCOPY --from=a /f /f\nCOPY file /g\nCMD cat /f /g\n' >Dockerfile
docker build -t "$N" . >out 2>&1
has "$(cat out)" 'Successfully built'
is "$(docker run --rm "$N")" $'legacy\ncontent'
has "$(docker build -t "$N" . 2>&1)" 'Using cache'
printf 'FROM box\nRUN exit 9\n' >Dockerfile
refused docker build -t "$N-2" .
has "$said" 'returned a non-zero code: 9'

#@ build-legacy-network: the legacy builder's RUN has a network
#@ differs minimal: bridge
export DOCKER_BUILDKIT=0
printf 'FROM box\nRUN wget -qO /dev/null -T 5 %s\n' "$OUTSIDE" >Dockerfile
docker build -q -t "$N" . >/dev/null 2>&1

#@ build-large-context: a context of 100 MB arrives whole
mkdir ctx && head -c 104857600 /dev/urandom >ctx/big
printf 'FROM box\nCOPY big /big\n' >ctx/Dockerfile
docker build -q -t "$N" ctx >/dev/null
is "$(docker run --rm "$N" sha256sum /big | cut -c1-64)" "$(sha256sum ctx/big | cut -c1-64)"

#@ build-parallel: stages that do not depend on each other, and two builds at once
#@ differs minimal: bridge
cat >Dockerfile <<'EOF'
FROM box AS a
RUN sleep 1; echo a > /a
FROM box AS b
RUN sleep 1; echo b > /b
FROM box
COPY --from=a /a /
COPY --from=b /b /
ARG WHO
RUN echo $WHO > /who
EOF
docker build -q --build-arg WHO=x -t "$N-x" . >/dev/null &
docker build -q --build-arg WHO=y -t "$N-y" . >/dev/null
wait $!
is "$(docker run --rm "$N-x" cat /a /b /who)$(docker run --rm "$N-y" cat /who)" $'a\nb\nxy'

#@ build-healthcheck: a health check of the image is the container's
printf 'FROM box\nHEALTHCHECK --interval=300ms CMD test -e /well\nCMD touch /well; sleep 1000\n' | docker build -q -t "$N" - >/dev/null
docker run -d --name "$N" "$N" >/dev/null
soon 15 sh -c "docker inspect -f '{{.State.Health.Status}}' $N | grep -x healthy"

#@ build-onbuild-shell: ONBUILD and SHELL
#@ differs minimal: bridge
printf 'FROM box\nONBUILD RUN echo triggered > /f\n' | docker build -q -t "$N-base" - >/dev/null
printf 'FROM %s-base\nSHELL ["/bin/sh", "-ec"]\nRUN echo shell > /g\n' "$N" | docker build -q -t "$N" - >/dev/null
is "$(docker run --rm "$N" cat /f /g)" $'triggered\nshell'

#@ build-privileges: RUN chroots, mounts nothing, owns files and switches users
#@ differs minimal: bridge
printf 'FROM box\nRUN chroot / true && chown 1:2 /etc/passwd && su nobody -s /bin/sh -c "id -un" > /who\n' | docker build -q -t "$N" - >/dev/null
is "$(docker run --rm "$N" cat /who)" nobody

#@ buildx-inspect: buildx lists and inspects the default builder
#@ needs buildx
has "$(docker buildx ls)" default
has "$(docker buildx inspect)" 'running'
docker buildx du >/dev/null

#@ buildx-bake: bake builds the targets of a file
#@ differs minimal: bridge
#@ needs buildx
cat >docker-bake.hcl <<EOF
variable "WHO" { default = "nobody" }
group "default" { targets = ["one", "two"] }
target "one" {
  tags = ["$N-one"]
  args = { WHO = "\${WHO}" }
}
target "two" {
  inherits = ["one"]
  tags = ["$N-two"]
  target = "other"
}
EOF
printf 'FROM box AS other\nRUN echo other > /f\nFROM box\nARG WHO\nRUN echo $WHO > /f\n' >Dockerfile
WHO=me docker buildx bake >/dev/null 2>&1
is "$(docker run --rm "$N-one" cat /f)$(docker run --rm "$N-two" cat /f)" meother
has "$(docker buildx bake --print 2>/dev/null)" "$N-two"

#@ buildx-platform: a build for this platform by name, with --load and metadata
#@ differs minimal: bridge
#@ needs buildx
printf 'FROM box\nARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM > /p\n' >Dockerfile
docker buildx build -q --platform "linux/$(docker version --format '{{.Server.Arch}}')" --load --metadata-file meta.json -t "$N" . >/dev/null
has "$(docker run --rm "$N" cat /p)" linux/
has "$(cat meta.json)" containerimage

#@ buildx-contexts: named contexts replace images and directories
#@ needs buildx
mkdir other && echo named >other/f
printf 'FROM base\nCOPY --from=files f /f\n' >Dockerfile
docker buildx build -q --build-context base=docker-image://box --build-context files=other -t "$N" . >/dev/null
is "$(docker run --rm "$N" cat /f)" named

#@ builder-prune: builder prune frees the cache
#@ differs minimal: bridge
#@ alone
printf 'FROM box\nRUN echo x > /x\n' | docker build -q -t "$N" - >/dev/null
has "$(docker builder prune -af)" Total
