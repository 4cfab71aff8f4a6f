#!/bin/sh
# Measures the start of a sandbox with several builds of runsc. They take turns,
# one start each, so that other load on the machine meets all of them: plain is
# what `go build` makes of the module alone, filters has the seccomp filters
# compiled in and is what build.sh makes, sidecar has the kernel as a binary of
# its own as well. small-table, as-it-is and run-detached are ways to call it: see
# BenchmarkStart. Prints a table of milliseconds. Needs root.
#   tools/runsc/measure.sh [ROUNDS]
set -eu
rounds=${1:-25}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

cd "$here"
"$here/build.sh" --into "$work/sidecar"
mkdir "$work/filters" "$work/plain"
cp "$work/sidecar/runsc" "$work/filters/runsc"
version=$(basename "$(dirname "$("$here/build.sh" --path)")")
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X gvisor.dev/gvisor/runsc/version.version=$version" -o "$work/plain/runsc" gvisor.dev/gvisor/runsc
cd "$here/../../pkg/runtime"
go test -c -o "$work/bench" .

round=0
while [ "$round" -lt "$rounds" ]; do
    for build in plain filters sidecar; do
        INNERDOCK_RUNSC=$work/$build/runsc "$work/bench" -test.run '^$' -test.bench Start -test.benchtime 1x |
            sed -n "s|^BenchmarkStart/\([a-z-]*[a-z]\).* \([0-9.]*\) delete-ms.* \([0-9.]*\) ready-ms.*|$build \1 \3 \2|p" >>"$work/figures"
    done
    round=$((round + 1))
    echo "round $round of $rounds" >&2
done

# at N prints the value at N hundredths of those of a build, a way and a field.
at() { awk -v b="$build" -v w="$way" -v f="$2" '$1 == b && $2 == w {print $f}' "$work/figures" | sort -n | awk -v p="$1" '{v[NR] = $1} END {print v[int((NR - 1) * p / 100) + 1]}'; }
printf '%-8s %-14s %8s %8s %8s   (%s starts each, ms)\n' build way quickest median deleted "$rounds"
cut -d' ' -f1,2 "$work/figures" | awk '!seen[$0]++' | while read -r build way; do
    printf '%-8s %-14s %8.1f %8.1f %8.1f\n' "$build" "$way" "$(at 0 3)" "$(at 50 3)" "$(at 50 4)"
done
