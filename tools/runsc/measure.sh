#!/bin/sh
# Measures the start of a sandbox with several builds of runsc, taking turns:
# plain is what `go build` makes of the module alone, filters has the seccomp
# filters compiled in, sidecar boots from gvisor_sentry as well, and is what
# build.sh makes. Prints a table of medians in milliseconds. Needs root.
#   tools/runsc/measure.sh [ROUNDS [STARTS_PER_ROUND]]
set -eu
rounds=${1:-5} starts=${2:-12}
here=$(cd "$(dirname "$0")" && pwd)
built=$("$here/build.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

cd "$here"
version=$(basename "$(dirname "$built")")
mkdir "$work/plain" "$work/filters"
CGO_ENABLED=0 go build -trimpath -ldflags "-X gvisor.dev/gvisor/runsc/version.version=$version" -o "$work/plain/runsc" gvisor.dev/gvisor/runsc
cp "$built" "$work/filters/runsc"
cd "$here/../../pkg/runtime"
go test -c -o "$work/bench" .

round=0
while [ "$round" -lt "$rounds" ]; do
    for build in plain filters sidecar; do
        runsc=$work/$build/runsc
        [ "$build" != sidecar ] || runsc=$built
        INNERDOCK_RUNSC=$runsc "$work/bench" -test.run '^$' -test.bench Start -test.benchtime "${starts}x" |
            sed -n "s|^BenchmarkStart/\([a-z-]*[a-z]\).* \([0-9.]*\) delete-ms.* \([0-9.]*\) ready-ms.*|$build \1 \3 \2|p" >>"$work/figures"
        echo "round $((round + 1)) of $rounds: $build" >&2
    done
    round=$((round + 1))
done

echo "medians of $((rounds * starts)) starts, ms      ready  deleted"
cut -d' ' -f1,2 "$work/figures" | awk '!seen[$0]++' | while read -r build way; do
    median() { awk -v b="$build" -v w="$way" -v f="$1" '$1 == b && $2 == w {print $f}' "$work/figures" | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
    printf '%-8s %-24s %8.1f %8.1f\n' "$build" "$way" "$(median 3)" "$(median 4)"
done
