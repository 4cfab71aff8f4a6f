#!/bin/sh
# Builds the pinned runsc, and the sidecars that make sandboxes start faster,
# unless they are there already. Prints the path of runsc on stdout and progress
# on stderr. `build.sh --path` prints the path alone, built or not.
#
# The result is outside the checkout, by version:
#   ${INNERDOCK_CACHE:-${XDG_CACHE_HOME:-~/.cache}/innerdock}/runsc/VERSION/runsc
# What was built from another recipe (these files) is built again. The same
# recipe and Go version give the same bytes, wherever the checkout lies.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${INNERDOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/innerdock}
version=$(sed -n 's|^.*gvisor\.dev/gvisor \(v[^ ]*\).*$|\1|p' "$here/go.mod")
out=$cache/runsc/$version

if [ "${1:-}" = --path ]; then
    echo "$out/runsc"
    exit
fi
say() { echo "runsc: $*" >&2; }

recipe=$(cd "$here" && cat build.sh go.mod go.sum filters/* sentry/* | sha256sum | cut -d' ' -f1)
current() { [ -x "$out/runsc" ] && [ -x "$out/gvisor-bin/gvisor_sentry" ] && [ "$(cat "$out/recipe" 2>/dev/null)" = "$recipe" ]; }
if current; then
    echo "$out/runsc"
    exit
fi

mkdir -p "$out/gvisor-bin"
exec 9>"$cache/runsc/lock"
flock 9
if current; then # another build was faster
    echo "$out/runsc"
    exit
fi

work=$(mktemp -d "$cache/runsc/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

say "building $version once, in 2 to 4 minutes"
cd "$here"
export CGO_ENABLED=0 GOWORK=off GOFLAGS="-trimpath -buildvcs=false"
go mod download gvisor.dev/gvisor
# A copy, because the filters are written into it; the module cache is read-only.
# It lies in a copy of this module, for a path that is the same everywhere.
cp -R "$(go list -m -f '{{.Dir}}' gvisor.dev/gvisor)" "$work/gvisor"
chmod -R u+w "$work/gvisor"
cp -R go.mod go.sum filters sentry "$work"
cd "$work"
go mod edit -replace gvisor.dev/gvisor=./gvisor
link="-s -w -buildid= -X gvisor.dev/gvisor/runsc/version.version=$version"

say "compiling the seccomp filters"
go run ./filters gvisor >&2
say "compiling runsc"
go build -ldflags "$link" -o runsc gvisor.dev/gvisor/runsc
say "compiling the sidecar gvisor_sentry"
go build -ldflags "$link" -o gvisor_sentry ./sentry

# runsc last: whoever sees the new one also sees its sidecar.
mv -f gvisor_sentry "$out/gvisor-bin/gvisor_sentry"
mv -f runsc "$out/runsc"
echo "$recipe" > recipe
mv -f recipe "$out/recipe"
say "built $("$out/runsc" --version | head -n 1)"
echo "$out/runsc"
