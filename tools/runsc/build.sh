#!/bin/sh
# Builds the pinned runsc, with patches/ applied and its seccomp filters compiled
# in, unless it is there already. Prints its path on stdout and progress on stderr.
#   build.sh             build it if it is missing
#   build.sh --path      print the path alone, built or not
#   build.sh --into DIR  build it into DIR, and the sidecar gvisor_sentry as well,
#                        for measure.sh
#
# The result is outside the checkout, by version and recipe (these files), so that
# checkouts with different recipes do not replace each other's:
#   ${INNERDOCK_CACHE:-${XDG_CACHE_HOME:-~/.cache}/innerdock}/runsc/VERSION-RECIPE/runsc
# The same recipe and Go version give the same bytes, wherever the checkout lies.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${INNERDOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/innerdock}
version=$(sed -n 's|^.*gvisor\.dev/gvisor \(v[^ ]*\).*$|\1|p' "$here/go.mod")
recipe=$(cd "$here" && cat build.sh go.mod go.sum filters/* patches/* | sha256sum | cut -c1-12)
out=$cache/runsc/$version-$recipe

say() { echo "runsc: $*" >&2; }

# prepare makes a working directory and goes there: a copy of this module with a
# copy of gVisor's source, because the filters are written into it. Its path
# relative to the module is what ends up in the binary.
prepare() {
    mkdir -p "$cache/runsc"
    work=$(mktemp -d "$cache/runsc/building.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    export CGO_ENABLED=0 GOWORK=off GOFLAGS="-trimpath -buildvcs=false"
    cd "$here"
    go mod download gvisor.dev/gvisor
    cp -R "$(go list -m -f '{{.Dir}}' gvisor.dev/gvisor)" "$work/gvisor"
    chmod -R u+w "$work/gvisor"
    for file in "$here"/patches/*.patch; do
        say "applying $(basename "$file")"
        patch --silent --strip=1 --fuzz=0 --directory="$work/gvisor" <"$file"
    done
    cp -R go.mod go.sum filters sentry "$work"
    cd "$work"
    go mod edit -replace gvisor.dev/gvisor=./gvisor
    say "compiling the seccomp filters"
    go run ./filters gvisor >&2
}

# compile PACKAGE FILE
compile() {
    say "compiling $(basename "$2")"
    go build -ldflags "-s -w -buildid= -X gvisor.dev/gvisor/runsc/version.version=$version" -o "$2" "$1"
}

case ${1:-} in
--path)
    echo "$out/runsc"
    exit ;;
--into)
    target=$(mkdir -p "$2/gvisor-bin" && cd "$2" && pwd)
    prepare
    compile gvisor.dev/gvisor/runsc "$target/runsc"
    compile ./sentry "$target/gvisor-bin/gvisor_sentry"
    exit ;;
esac

if [ ! -x "$out/runsc" ]; then
    mkdir -p "$out"
    exec 9>"$cache/runsc/lock"
    flock 9
fi
if [ ! -x "$out/runsc" ]; then # no other build was faster
    say "building $version once, in 2 to 4 minutes"
    prepare
    compile gvisor.dev/gvisor/runsc runsc
    mv -f runsc "$out/runsc"
    say "built $("$out/runsc" --version | head -n 1)"
fi
echo "$out/runsc"
