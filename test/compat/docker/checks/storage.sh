#@ volume-named: a named volume keeps what containers write, and is filled from the image
docker volume create --label x=y "$N" >/dev/null
docker run --rm -v "$N:/etc" box sh -c 'echo added > /etc/added'
is "$(docker run --rm -v "$N:/v" box sh -c 'cat /v/added; head -c 4 /v/passwd')" $'added\nroot'
is "$(docker volume ls -q --filter label=x=y --filter "name=$N")" "$N"
has "$(docker volume inspect "$N" --format '{{.Mountpoint}}')" "/volumes/$N/_data"
docker volume rm "$N" >/dev/null

#@ volume-in-use: a volume in use is not removed
docker run -d --name "$N" -v "$N-v:/v" box sleep 1000 >/dev/null
refused docker volume rm "$N-v"
has "$said" 'in use'

#@ volume-nocopy-readonly: volume-nocopy leaves a volume empty, readonly refuses writes
docker run --rm --mount "type=volume,src=$N,dst=/etc/init.d,volume-nocopy" box true
is "$(docker run --rm --mount "type=volume,src=$N,dst=/v,readonly" box sh -c 'ls -A /v; touch /v/f 2>&1 || true')" 'touch: /v/f: Read-only file system'

#@ volume-shared: two containers see each other's changes, and --volumes-from takes them
docker run -d --name "$N" -v "$N-v:/shared" box sleep 1000 >/dev/null
docker run --rm --volumes-from "$N" box sh -c 'echo from-b > /shared/f'
is "$(docker exec "$N" cat /shared/f)" from-b

#@ volume-tmpfs: a volume of the local driver on tmpfs
docker volume create --driver local --opt type=tmpfs --opt device=tmpfs --opt o=size=1m "$N" >/dev/null
has "$(docker run --rm -v "$N:/v" box sh -c 'dd if=/dev/zero of=/v/f bs=1M count=2 2>&1' || true)" 'No space left'

#@ volume-bind-option: a volume of the local driver that binds a directory
mkdir there && echo x >there/f
docker volume create --opt type=none --opt "device=$W/there" --opt o=bind "$N" >/dev/null
is "$(docker run --rm -v "$N:/v" box cat /v/f)" x

#@ volume-subpath: --mount volume-subpath mounts a part of a volume
#@ needs docker >= 26.0
docker run --rm -v "$N:/v" box sh -c 'mkdir -p /v/part && echo p > /v/part/f'
is "$(docker run --rm --mount "type=volume,src=$N,dst=/p,volume-subpath=part" box cat /p/f)" p

#@ bind: a directory and a file of the place, read-write, read-only, and missing
mkdir dir && echo here >dir/f
is "$(docker run --rm -v "$W/dir:/d" box sh -c 'cat /d/f; echo back > /d/g')" here
is "$(cat dir/g)" back
is "$(docker run --rm -v "$W/dir/f:/f:ro" box sh -c 'echo x > /f || cat /f' 2>/dev/null)" here
docker run --rm -v "$W/made:/d" box true
[ -d made ] || fail 'the missing directory was not made'
refused docker run --rm --mount "type=bind,src=$W/missing,dst=/d" box true
has "$said" 'does not exist'

#@ bind-propagation: a mount made later in a shared bind is seen by the container
docker create --name "$N-b" box >/dev/null && docker cp -q "$N-b:/bin/busybox" mount && cp mount umount
undo() { ./umount shared/sub; ./umount shared; } 2>/dev/null
mkdir shared && ./mount --bind shared shared && ./mount --make-shared shared
docker run -d --name "$N" -v "$W/shared:/s:rslave" box sleep 1000 >/dev/null
mkdir shared/sub && ./mount -t tmpfs tmpfs shared/sub && echo seen >shared/sub/f
is "$(docker exec "$N" cat /s/sub/f)" seen

#@ bind-owner: files that a container's user makes belong to that user outside
mkdir dir && chmod 777 dir
docker run --rm --user 1234:1234 -v "$W/dir:/d" box touch /d/f
is "$(stat -c %u:%g dir/f)" 1234:1234

#@ mount-tmpfs: --mount type=tmpfs with a size
is "$(docker run --rm --mount type=tmpfs,dst=/t,tmpfs-size=3145728,tmpfs-mode=0700 box sh -c "df -k /t | awk 'END {print \$2}'; stat -c %a /t")" $'3072\n700'

#@ volume-inotify: a change in a volume wakes a watcher in another container
docker run -d --name "$N" -v "$N-v:/v" box tool watch /v file >/dev/null
soon 5 sh -c "docker logs $N | grep ready"
docker run --rm -v "$N-v:/v" box sh -c 'echo x > /v/file'
is "$(timeout 10 docker wait "$N")" 0
has "$(docker logs "$N")" 'saw file'

#@ bind-inotify: a change outside wakes a watcher in a container
mkdir dir
docker run -d --name "$N" -v "$W/dir:/v" box tool watch /v file >/dev/null
soon 5 sh -c "docker logs $N | grep ready"
echo x >dir/file
is "$(timeout 10 docker wait "$N")" 0

#@ volume-unix-socket: a Unix socket in a shared volume connects two containers
docker run -d --name "$N" -v "$N-v:/run/s" box tool echo unix /run/s/sock >/dev/null
soon 5 sh -c "docker logs $N | grep ready"
is "$(docker run --rm -v "$N-v:/run/s" box tool ask unix /run/s/sock hello)" hello

#@ volume-lock: a lock in a volume keeps another container out
docker run -d --name "$N" -v "$N-v:/v" nginx sh -c 'exec 9>/v/lock; flock 9; echo locked; sleep 1000' >/dev/null
soon 5 sh -c "docker logs $N | grep locked"
exits 1 docker run --rm -v "$N-v:/v" nginx flock -n /v/lock true

#@ root-big-file: a file of 256 MB through the container's root, written, copied and read
is "$(docker run --rm box sh -c 'head -c 268435456 /dev/zero | tr "\0" "x" > /big && cp /big /copy && sync && cmp /big /copy && stat -c %s /copy')" 268435456

#@ root-many-files: 5000 small files in the root, listed, renamed and removed
is "$(docker run --rm box sh -c 'mkdir /m && cd /m && i=0; while [ $i -lt 5000 ]; do echo $i > f$i; i=$((i+1)); done; ls | wc -l; mv /m /n; cat /n/f4999; rm -r /n; ls / | grep ^n || echo gone')" $'5000\n4999\ngone'

#@ root-links: hard links, symlinks and fifos in the root
is "$(docker run --rm box sh -c 'echo x > /a && ln /a /b && echo y >> /b && cat /a && stat -c %h /a && ln -s /a /c && readlink /c && mkfifo /p && stat -c %F /p')" $'x\ny\n2\n/a\nfifo'

#@ root-lower-rename: a directory of the image is renamed and replaced
is "$(docker run --rm box sh -c 'mv /var /var2 && mkdir /var && ls /var | wc -l; ls /var2')" $'0\nspool'

#@ root-exec-mmap: a program that a container writes runs from its root
is "$(docker run --rm box sh -c 'cp /bin/busybox /tmp/busybox && /tmp/busybox echo runs')" runs

#@ diff-sizes: ps -s and system df see what a container wrote
docker run --name "$N" box sh -c 'head -c 5000000 /dev/zero > /five' >/dev/null
docker ps -as --filter "name=$N" --format '{{.Size}}' | grep -Eq '^5(\.0[0-9])?MB \(virtual'
docker system df >/dev/null
docker system df -v --format '{{json .}}' >/dev/null


#@ volume-sqlite: SQLite with mmap and a write-ahead log in a volume, from two containers
cat >write.py <<'EOF'
import sqlite3, sys
db = sqlite3.connect("/v/data.db", timeout=20)
db.execute("pragma mmap_size = 268435456")
for n in range(200):
    with db:
        db.execute("insert into t values (?, ?)", (sys.argv[1], n))
EOF
python() { docker run --rm -v /usr:/usr:ro -v "$N:/v" -v "$W:/w:ro" nginx python3 "$@"; }
docker volume create "$N" >/dev/null
# Two that begin a log at once are refused, on any kernel: the database is locked.
python -c 'import sqlite3; d = sqlite3.connect("/v/data.db"); d.execute("pragma journal_mode = wal"); d.execute("create table t (who, n)")'
python /w/write.py a & other=$!
python /w/write.py b
wait $other
is "$(python -c 'import sqlite3; d = sqlite3.connect("/v/data.db"); print(d.execute("pragma integrity_check").fetchone()[0], d.execute("select count(*) from t").fetchone()[0])')" 'ok 400'

#@ root-xattr: extended attributes are kept in a container's root and in a volume
docker run -d --name "$N" -v /usr:/usr:ro -v "$N:/v" nginx sleep 1000 >/dev/null
set='import os; [(open(f, "w").close(), os.setxattr(f, "user.own", b"value")) for f in ("/f", "/v/f")]'
docker exec "$N" python3 -c "$set"
docker restart -t 0 "$N" >/dev/null
is "$(docker exec "$N" python3 -c 'import os; print(*(os.getxattr(f, "user.own").decode() for f in ("/f", "/v/f")))')" 'value value'

#@ root-file-capability: a file's capability is kept in an image and in force
docker run --name "$N" -v /usr:/usr:ro nginx python3 -c 'import os, shutil, struct; shutil.copy("/bin/sleep", "/s"); os.setxattr("/s", "security.capability", struct.pack("<5I", 0x2000001, 1 << 13, 0, 0, 0))' >/dev/null
docker commit "$N" "$N-image" >/dev/null
docker run -d --name "$N-s" --user 1000 -v /usr:/usr:ro "$N-image" /s 1000 >/dev/null
is "$(docker exec "$N-s" grep CapEff /proc/1/status)" $'CapEff:\t0000000000002000'
