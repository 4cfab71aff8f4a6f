#!/bin/sh
# Builds a whole Docker from Go modules, for places that cannot reach Docker's own
# packages, unless it is there already: dockerd, docker-proxy, containerd and its
# shim, ctr, runc, docker and the plugins docker-buildx and docker-compose. Prints
# the directory that holds them on stdout and progress on stderr.
#   build.sh             the newest version there is a directory for
#   build.sh 28          that one
#   build.sh --path 28   print the directory alone, built or not
#
# The versions are those of the go.mod files in VERSION/engine and
# VERSION/clients: two modules, because the two sides want different versions of
# what they share. The result is outside the checkout, by what it is made of:
#   ${INNERDOCK_CACHE:-${XDG_CACHE_HOME:-~/.cache}/innerdock}/docker/VERSION-KEY/bin
#
# All are static. runc needs a C compiler, pkg-config and libseccomp's archive
# (Debian: gcc libc6-dev pkg-config libseccomp-dev). containerd is without its
# Kubernetes plugin, which Docker turns off; docker-init is not here, because it
# is no Go program (Debian's tini is one).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${INNERDOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/innerdock}

say() { echo "docker: $*" >&2; }
die() { say "$@"; exit 1; }

build=yes
[ "${1:-}" != --path ] || { build=; shift; }
major=${1:-$(cd "$here" && printf '%s\n' [0-9]* | sort -n | tail -n 1)}
[ -d "$here/$major" ] || die "there is no version $major; there are: $(cd "$here" && echo [0-9]*)"
cd "$here/$major"

# of MODULE FILE prints the version of a module.
of() { sed -n "s|^.*$1 v\([^ +]*\).*|\1|p" "$2/go.mod"; }

version=$(of github.com/docker/cli clients)
key=$(cd "$here" && cat build.sh "$major"/*/go.mod "$major"/*/go.sum | sha256sum | cut -c1-12)
out=$cache/docker/$version-$key

# Modules without a go.mod of their own count as Go 1.16, which they are not.
lang=-lang=go$(sed -n 's/^go \(1\.[0-9]*\).*/\1/p' engine/go.mod)

# compile MODULE TARGET FLAGS... PACKAGE...; flags are linker's -X NAME=VALUE alone.
compile() {
    module=$1 target=$2 flags='-s -w'
    shift 2
    while [ "$1" = -X ]; do
        flags="$flags -X $2"
        shift 2
    done
    say "compiling $*"
    (cd "$module" && nice go build -tags "$tags" -gcflags "github.com/docker/docker/...=$lang" \
        -gcflags "github.com/docker/cli/...=$lang" -ldflags "$flags ${linker:-}" -o "$target" "$@")
}

engine() {
    compile engine "$work/bin/" -X "github.com/$1/dockerversion.Version=$version" \
        "github.com/$1/cmd/dockerd" "github.com/$1/cmd/docker-proxy"
}

all() {
    export GOWORK=off GOFLAGS="-trimpath -buildvcs=false" CGO_ENABLED=0
    tags="netgo osusergo static_build grpcnotrace nri_no_wasm no_btrfs no_cri" linker=
    if grep -q 'github.com/moby/moby/v2/cmd/dockerd$' engine/go.mod; then
        engine moby/moby/v2
    else
        engine docker/docker # before it became a module
    fi
    containerd=github.com/containerd/containerd/v2
    compile engine "$work/bin/" -X "$containerd/version.Version=v$(of $containerd engine)" \
        "$containerd/cmd/containerd" "$containerd/cmd/containerd-shim-runc-v2" "$containerd/cmd/ctr"
    compile clients "$work/bin/docker" -X "github.com/docker/cli/cli/version.Version=$version" github.com/docker/cli/cmd/docker
    compile clients "$work/bin/docker-buildx" \
        -X "github.com/docker/buildx/version.Version=v$(of github.com/docker/buildx clients)" github.com/docker/buildx/cmd/buildx
    compose=$(sed -n 's|^.*\(github.com/docker/compose/v[0-9]*\) v.*|\1|p' clients/go.mod)
    compile clients "$work/bin/docker-compose" -X "$compose/internal.Version=v$(of "$compose" clients)" "$compose/cmd"
    export CGO_ENABLED=1
    tags="netgo osusergo seccomp urfave_cli_no_docs" linker="-linkmode external -extldflags -static"
    compile engine "$work/bin/runc" github.com/opencontainers/runc
}

if [ -n "$build" ] && [ ! -d "$out" ]; then
    for tool in go gcc pkg-config; do
        command -v $tool >/dev/null || die "$tool is not installed"
    done
    pkg-config --exists libseccomp || die "libseccomp's headers are not installed (Debian: libseccomp-dev)"
    mkdir -p "$cache/docker"
    exec 9>"$cache/docker/lock"
    flock 9
    if [ ! -d "$out" ]; then # no other build was faster
        say "building Docker $version once, in 5 to 15 minutes"
        work=$(mktemp -d "$cache/docker/building.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        trap 'exit 1' INT TERM
        mkdir "$work/bin"
        all
        chmod 755 "$work"
        mv "$work" "$out"
        say "built $("$out/bin/dockerd" --version)"
    fi
fi
echo "$out/bin"
