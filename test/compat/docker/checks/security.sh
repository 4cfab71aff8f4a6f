#@ caps-default: a container has Docker's fourteen capabilities
is "$(docker run --rm box sh -c "grep CapEff /proc/self/status | awk '{print \$2}'")" 00000000a80425fb

#@ caps-drop: --cap-drop takes away what it names
exits 1 docker run --rm --cap-drop CHOWN box chown 1:1 /etc/passwd
is "$(docker run --rm --cap-drop ALL box sh -c "grep CapEff /proc/self/status | awk '{print \$2}'")" 0000000000000000
is "$(docker run --rm --cap-drop ALL --cap-add CHOWN box sh -c "grep CapEff /proc/self/status | awk '{print \$2}'")" 0000000000000001

#@ caps-add-net-admin: --cap-add NET_ADMIN lets a container make an interface
exits 2 docker run --rm box ip link add dummy0 type dummy
docker run --rm --cap-add NET_ADMIN box ip link set lo mtu 1400

#@ caps-add-sys-admin: --cap-add SYS_ADMIN lets a container mount
exits 1 docker run --rm box mount -t tmpfs tmpfs /tmp
docker run --rm --cap-add SYS_ADMIN --security-opt apparmor=unconfined box mount -t tmpfs tmpfs /tmp

#@ caps-add-sys-ptrace: --cap-add SYS_PTRACE is granted
has "$(docker run --rm --cap-add SYS_PTRACE box sh -c "grep CapEff /proc/self/status")" 00000000a80c25fb

#@ caps-add-sys-time: --cap-add SYS_TIME, of the capabilities outside the sandbox's 17, is granted
#@ differs minimal: capability
#@ differs full: capability
has "$(docker run --rm --cap-add SYS_TIME box grep CapEff /proc/self/status)" 00000000aa0425fb

#@ caps-add-ipc-lock: --cap-add IPC_LOCK, which databases ask for, is granted
#@ differs minimal: capability
#@ differs full: capability
has "$(docker run --rm --cap-add IPC_LOCK box grep CapEff /proc/self/status)" 00000000a80465fb

#@ privileged: a privileged container runs, and may mount
docker run --rm --privileged box sh -c 'mount -t tmpfs tmpfs /tmp && touch /tmp/file'

#@ security-opt: no-new-privileges is in force, seccomp=unconfined is accepted
is "$(docker run --rm --security-opt no-new-privileges box sh -c "grep NoNewPrivs /proc/self/status | awk '{print \$2}'")" 1
docker run --rm --security-opt seccomp=unconfined box true

#@ seccomp-profile: a seccomp profile of one's own binds
echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}' >profile.json
exits 1 docker run --rm --security-opt seccomp=profile.json box mkdir /made
docker run --rm box mkdir /made

#@ sysctl: --sysctl sets one of the container's network namespace
is "$(docker run --rm --sysctl net.ipv4.ip_unprivileged_port_start=80 box cat /proc/sys/net/ipv4/ip_unprivileged_port_start)" 80

#@ sysctl-somaxconn: --sysctl net.core.somaxconn, which servers ask for
is "$(docker run --rm --sysctl net.core.somaxconn=1024 box cat /proc/sys/net/core/somaxconn)" 1024

#@ low-port: a user who is not root may listen on a low port, as Docker allows
docker run -d --name "$N" --user 1000 box tool echo tcp :80 >/dev/null
soon 5 sh -c "docker logs $N | grep ready"

#@ masked-paths: /proc/kcore and the like are masked, /proc/sys is read-only
is "$(docker run --rm box sh -c 'cat /proc/kcore | wc -c')" 0
exits 1 docker run --rm box sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'

#@ user-by-name: --user takes a name of the image, and refuses an unknown one
is "$(docker run --rm --user nobody box id -un)" nobody
refused docker run --rm --user "$N" box true
has "$said" 'unable to find user'
