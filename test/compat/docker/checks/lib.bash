# Before every check: N begins the names of all that it makes, P is the first of
# ten ports of its own, OUTSIDE the URL of a server outside.
set -euo pipefail
export N P
export DOCKER_CLI_HINTS=false BUILDKIT_PROGRESS=plain COMPOSE_PROGRESS=plain HOME=/tmp/$N
W=/tmp/$N # a directory of its own, and its home
mkdir -p "$W" && cd "$W"

undo() { :; } # a check may have its own

ended() {
	local code=$?
	trap - EXIT
	set +eu
	# What it left running here, and in Docker.
	[ -z "$(jobs -p)" ] || kill $(jobs -p) 2>/dev/null
	tool sweep "$N" || code=1
	undo
	cd / && rm -rf "$W"
	exit $code
}
trap ended EXIT
trap 'exit 124' TERM
trap 'echo "line $((LINENO)) of the check: $BASH_COMMAND" >&2' ERR

fail() { printf 'failed: %s\n' "$*" >&2; exit 1; }
# is GOT WANTED
is() { [ "$1" = "$2" ] || fail "it is $(printf %q "${1:0:2000}"), not $(printf %q "$2")"; }
# has TEXT PART
has() { case $1 in *"$2"*) ;; *) fail "$(printf %q "${1:0:3000}") does not contain $(printf %q "$2")" ;; esac; }
# lacks TEXT PART
lacks() { case $1 in *"$2"*) fail "$(printf %q "${1:0:3000}") contains $(printf %q "$2")" ;; *) ;; esac; }
# refused COMMAND...: it fails; what it says is in $said, its exit code in $code
refused() {
	code=0
	said=$("$@" 2>&1) || code=$?
	[ "$code" != 0 ] || fail "$* succeeded: $said"
}
# exits CODE COMMAND...
exits() {
	local want=$1
	shift
	code=0
	said=$("$@" 2>&1) || code=$?
	[ "$code" = "$want" ] || fail "$* ended with $code, not $want: $said"
}
# soon SECONDS COMMAND...: it succeeds within that time
soon() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >"$W/.soon" 2>&1; do
		[ $SECONDS -lt $end ] || fail "$* did not succeed in time: $(cat "$W/.soon")"
		sleep 0.2
	done
}
# told FILE TEXT: a file in which TEXT comes to stand
told() { soon 15 grep -qF -- "$2" "$1"; }
# inspect OBJECT FORMAT
inspect() { docker inspect --format "$2" "$1"; }
# fetch URL...
fetch() { curl -fsS --max-time 5 --retry 20 --retry-delay 0 --retry-max-time 10 --retry-all-errors "$@"; }
# ip_of CONTAINER [NETWORK]
ip_of() { inspect "$1" "{{(index .NetworkSettings.Networks \"${2:-bridge}\").IPAddress}}"; }
gateway() { docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' "$1"; }
# compose ARGUMENT...: of this check's project, quietly
compose() {
	docker compose -p "$N" "$@" 2>"$W/.compose" || { cat "$W/.compose" >&2; return 1; }
}
