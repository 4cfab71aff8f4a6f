#@ image-tag-rmi: tag gives a second name, rmi takes names and then the image
docker tag box "$N:one"
docker tag "$N:one" "$N:two"
is "$(docker images --format '{{.Tag}}' "$N" | sort | tr '\n' ' ')" 'one two '
has "$(docker rmi "$N:one")" 'Untagged'
refused docker image inspect "$N:one"
docker image inspect "$N:two" >/dev/null
refused docker rmi "$N:none"
has "$said" 'No such image'

#@ image-rmi-used: the image of a running container is not removed
#@ differs minimal: bridge
printf 'FROM box\nRUN echo x > /x\n' | docker build -q -t "$N" - >/dev/null
docker run -d --name "$N" "$N" sleep 1000 >/dev/null
refused docker rmi "$N"
has "$said" 'conflict'

#@ image-save-load: save and load carry images, their configuration and layers
#@ differs minimal: bridge
printf 'FROM box\nENV A=saved\nRUN echo content > /file\nCMD echo $A; cat /file\n' | docker build -q -t "$N" - >/dev/null
docker save -o image.tar "$N"
docker rmi "$N" >/dev/null
has "$(docker load -i image.tar)" "$N:latest"
is "$(docker run --rm "$N")" $'saved\ncontent'

#@ image-save-pipe: several images are saved to a pipe and loaded from one
docker tag box "$N-a"
docker tag hello-world "$N-b"
docker save "$N-a" "$N-b" | gzip -1 >images.tar.gz
docker rmi "$N-a" "$N-b" >/dev/null
docker load <images.tar.gz >/dev/null
has "$(docker run --rm "$N-b")" 'Hello from Docker!'

#@ image-history: history tells the steps, images the size
#@ differs minimal: bridge
printf 'FROM box\nRUN echo one > /one\nENV A=b\n' | docker build -q -t "$N" - >/dev/null
has "$(docker history --no-trunc --format '{{.CreatedBy}}' "$N")" 'echo one > /one'
has "$(docker images --format '{{.Repository}} {{.Size}}' "$N")" MB

#@ image-inspect: inspect tells layers and configuration
printf 'FROM box\nEXPOSE 80\nVOLUME /v\nLABEL k=v\nUSER 1000\nWORKDIR /w\nHEALTHCHECK CMD true\nSTOPSIGNAL SIGUSR1\nENTRYPOINT ["sh"]\n' | docker build -q -t "$N" - >/dev/null
docker image inspect "$N" | python3 -c "
import json, sys
c = json.load(sys.stdin)[0]['Config']
assert '80/tcp' in c['ExposedPorts'] and '/v' in c['Volumes'] and c['Labels']['k'] == 'v', c
assert c['User'] == '1000' and c['WorkingDir'] == '/w' and c['StopSignal'] == 'SIGUSR1', c
assert c['Healthcheck']['Test'] == ['CMD-SHELL', 'true'] and c['Entrypoint'] == ['sh'], c"

#@ registry-push-pull: push to a registry, pull from it by tag and by digest
#@ differs minimal: bridge
tool registry "127.0.0.1:$P" >server &
told server ready
printf 'FROM box\nRUN echo pushed > /file\nCMD cat /file\n' | docker build -q -t "127.0.0.1:$P/$N" - >/dev/null
out=$(docker push "127.0.0.1:$P/$N")
digest=$(printf '%s' "$out" | sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/\1/p')
docker rmi "127.0.0.1:$P/$N" >/dev/null
docker pull -q "127.0.0.1:$P/$N" >/dev/null
is "$(docker run --rm "127.0.0.1:$P/$N")" pushed
docker rmi "127.0.0.1:$P/$N" >/dev/null
docker pull -q "127.0.0.1:$P/$N@$digest" >/dev/null
is "$(docker run --rm "127.0.0.1:$P/$N@$digest")" pushed
docker rmi "127.0.0.1:$P/$N@$digest" >/dev/null

#@ registry-missing: an image that a registry lacks, and a registry that is not there, are clear errors
tool registry "127.0.0.1:$P" >server &
told server ready
refused docker pull "127.0.0.1:$P/$N:none"
printf '%s' "$said" | grep -Eiq 'unknown|not found' || fail "$said"
refused docker pull "127.0.0.1:1/$N"
has "$said" 'refused'

#@ registry-run-pulls: run pulls an image that is not there
tool registry "127.0.0.1:$P" >server &
told server ready
docker tag hello-world "127.0.0.1:$P/$N"
docker push -q "127.0.0.1:$P/$N" >/dev/null
docker rmi "127.0.0.1:$P/$N" >/dev/null
has "$(docker run --rm "127.0.0.1:$P/$N" 2>&1)" 'Hello from Docker!'

#@ registry-manifest: manifest inspect reads a registry
tool registry "127.0.0.1:$P" >server &
told server ready
docker tag box "127.0.0.1:$P/$N"
docker push -q "127.0.0.1:$P/$N" >/dev/null
has "$(docker manifest inspect --insecure "127.0.0.1:$P/$N")" '"layers"'

#@ layers-forty: an image of 45 layers is built, saved, loaded and run
{ echo 'FROM box'; for i in $(seq 45); do echo "COPY f /layer$i"; done; } >Dockerfile
echo content >f
docker build -q -t "$N" . >/dev/null
[ "$(docker image inspect "$N" --format '{{len .RootFS.Layers}}')" -ge 45 ] || fail 'it has fewer layers'
docker save "$N" >image.tar
docker rmi "$N" >/dev/null
docker load -qi image.tar >/dev/null
is "$(docker run --rm "$N" sh -c 'cat /layer1 /layer45; ls / | grep -c layer')" $'content\ncontent\n45'
#@ seconds 120

#@ layers-whiteouts: files and directories that later layers delete or replace are gone
#@ differs minimal: bridge
cat >Dockerfile <<'EOF'
FROM box
RUN mkdir -p /d/sub && echo 1 > /d/sub/one && echo 2 > /d/two && echo 3 > /three
RUN rm -r /d/sub && rm /three && mkdir /d/sub && echo new > /d/sub/new
RUN rm -r /d && mkdir /d && echo opaque > /d/only
EOF
docker build -q -t "$N" . >/dev/null
docker save "$N" >image.tar && docker rmi "$N" >/dev/null && docker load -qi image.tar >/dev/null
is "$(docker run --rm "$N" sh -c 'ls -A /d; cat /d/only; test -e /three || echo gone')" $'only\nopaque\ngone'

#@ layers-special: hard links, device nodes, set-user-ID and odd names survive in layers
#@ differs minimal: bridge
cat >Dockerfile <<'EOF'
FROM box
RUN echo x > /a && ln /a /b && mknod /null c 1 3 && mkfifo /fifo && cp /bin/busybox /su && chmod 4755 /su && touch '/odd name ü' && chown 12:34 /a && touch -d '2001-02-03 04:05:06' /old
EOF
docker build -q -t "$N" . >/dev/null
docker save "$N" >image.tar && docker rmi "$N" >/dev/null && docker load -qi image.tar >/dev/null
is "$(docker run --rm "$N" sh -c 'stat -c %h /a; stat -c %F /null /fifo; stat -c %a /su; test -e "/odd name ü" && echo odd; stat -c %u:%g /b; stat -c %y /old | cut -c1-19')" $'2\ncharacter special file\nfifo\n4755\nodd\n12:34\n2001-02-03 04:05:06'

#@ layers-import-device: an image with device nodes and a layer's own whiteouts is imported
mkdir -p root/dir && echo x >root/dir/f
python3 - <<'EOF'
import io, tarfile
with tarfile.open("root.tar", "w") as archive:
    archive.add("root/dir", "dir")
    for name, kind, major, minor in (("zero", tarfile.CHRTYPE, 1, 5), ("loop", tarfile.BLKTYPE, 7, 0)):
        node = tarfile.TarInfo(name)
        node.type, node.devmajor, node.devminor, node.mode = kind, major, minor, 0o666
        archive.addfile(node)
EOF
docker import root.tar "$N" >/dev/null
docker create --name "$N" "$N" /x >/dev/null
has "$(docker export "$N" | tar -tv)" 'zero'

#@ image-bad-names: an image name that is none is refused, and is never an option
refused docker run --rm -- --privileged
has "$said" 'invalid reference format'
refused docker pull 'a/UPPER'
has "$said" 'must be lowercase'

#@ prune: prune removes what is unused, by label, and keeps what is used
#@ differs minimal: bridge
printf 'FROM box\nLABEL own=%s\nRUN echo x > /x\n' "$N" | docker build -q -t "$N" - >/dev/null
docker create --name "$N-dead" --label own="$N" box >/dev/null
docker run -d --name "$N-live" --label own="$N" -v "$N-used:/v" box sleep 1000 >/dev/null
docker volume create --label own="$N" "$N-unused" >/dev/null
docker network create --label own="$N" "$N-unused" >/dev/null
docker container prune -f --filter label=own="$N" >/dev/null
refused docker inspect "$N-dead"
docker inspect "$N-live" >/dev/null
docker network prune -f --filter label=own="$N" >/dev/null
refused docker network inspect "$N-unused"
docker image prune -af --filter label=own="$N" >/dev/null
refused docker image inspect "$N"
docker volume prune -f --filter label=own="$N" >/dev/null
docker volume inspect "$N-used" >/dev/null

#@ prune-system: system prune removes stopped containers, unused networks and build cache
#@ alone
docker create --name "$N-dead" box >/dev/null
docker network create "$N-unused" >/dev/null
docker system prune -f >out
refused docker inspect "$N-dead"
refused docker network inspect "$N-unused"
has "$(cat out)" 'reclaimed space'
docker builder prune -af >/dev/null

#@ system-df: system df counts images, containers and volumes
docker volume create "$N" >/dev/null
is "$(docker system df --format '{{.Type}}' | tr '\n' ' ')" 'Images Containers Local Volumes Build Cache '
