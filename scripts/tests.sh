# shellcheck shell=bash disable=SC2034,SC2154 # variables cross the files
# Sourced: runs test suites and keeps count. A suite that fails is noted, and the
# next one runs all the same.

# Tests start servers of their own.
unset INNERDOCK_HOST INNERDOCK_API_KEY

results=${INNERDOCK_RESULTS:-}
if [ -z "$results" ]; then
	results=$(mktemp)
	trap 'rm -f "$results"' EXIT
fi
failed=

# run NAME COMMAND... notes a command that fails.
run() {
	local name=$1
	shift
	say "$name"
	"$@" || failed="$failed, $name"
}

# go_test NAME ARGUMENTS... runs `go test`, never from its cache.
go_test() {
	local name=$1
	shift
	say "$name"
	go test -json -count=1 "$@" | python3 "$root/scripts/count.py" go "$name" "$results" || failed="$failed, $name"
}

# python_test NAME DIRECTORY ARGUMENTS... runs pytest there.
python_test() {
	local name=$1 directory=$2 report
	shift 2
	say "$name"
	report=$(mktemp)
	(cd "$directory" && PYTHONPATH=$python_path "$venv/bin/python" -m pytest -p no:cacheprovider \
		-o junit_family=xunit1 --junitxml="$report" "$@") || true
	python3 "$root/scripts/count.py" junit "$name" "$results" "$report" || failed="$failed, $name"
	rm -f "$report"
}

# finish prints the outcome and is the script's exit.
finish() {
	if [ -n "$failed" ]; then
		printf '\nFAILED after %s: %s\n' "$(elapsed)" "${failed#, }"
		exit 1
	fi
	printf '\n%s in %s\n' "$1" "$(elapsed)"
}
