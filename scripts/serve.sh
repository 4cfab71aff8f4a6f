# shellcheck shell=bash disable=SC2034,SC2154 # variables cross the files
# Sourced: starts and stops a server of this checkout. A server is one
# directory: its data, its socket, its log and its process ID.

images=$cache/images # built images, shared by every server of this user

# use_server DIR POOL names the server that the functions below speak of. Servers
# that may run at the same time have different pools of addresses.
use_server() {
	server=$1
	pool=$2
	server_log=$server/server.log
	export INNERDOCK_HOST=unix://$server/innerdock.sock
	unset INNERDOCK_API_KEY
}

# server_pid prints the process ID of the server if it runs.
server_pid() {
	local pid
	pid=$(cat "$server/pid" 2>/dev/null) && [ -n "$pid" ] || return 1
	# Not some other process that has the number by now.
	tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF -- "$server/data" || return 1
	echo "$pid"
}

# start_server returns when the server listens. It has a session of its own, so
# that Ctrl-C reaches the script alone.
start_server() {
	local pid
	mkdir -p "$server" "$images"
	rm -f "$server/innerdock.sock"
	setsid "$bin" server --data "$server/data" --images "$images" --runsc "$(runsc)" \
		--socket "$server/innerdock.sock" --pool "$pool" </dev/null >"$server_log" 2>&1 &
	pid=$!
	echo "$pid" >"$server/pid"
	listening "$pid" || die "the server ended; its log is $server_log:
$(tail -n 20 "$server_log")"
}

# listening waits until the server listens; it fails if that ends.
listening() {
	until [ -S "$server/innerdock.sock" ]; do
		kill -0 "$1" 2>/dev/null || return 1
		sleep 0.1
	done
}

# stop_server terminates the server's sandboxes, stops it and waits for it. A
# server that died and left sandboxes is started once more to end them.
stop_server() {
	local pid
	if ! server_pid >/dev/null && [ -n "$(ls -A "$server/data/sandboxes" 2>/dev/null)" ]; then
		(start_server) || warn "sandboxes of an earlier server are left in $server/data"
	fi
	if pid=$(server_pid); then
		if listening "$pid" && ! "$bin" rm --all >/dev/null; then
			warn "not every sandbox was terminated"
		fi
		kill -TERM "$pid" 2>/dev/null || true
		if ! gone "$pid" 60; then
			warn "the server did not stop in a minute and is killed; its log is $server_log"
			kill -KILL "$pid" 2>/dev/null || true
			gone "$pid" 10 || true
		fi
	fi
	rm -f "$server/pid" "$server/innerdock.sock"
}

# gone PID SECONDS waits for the end of a process.
gone() { timeout "$2" tail --pid="$1" -s 0.1 -f /dev/null; }

# with_server DIR POOL IMAGE... starts a server that ends with the script, however
# that ends, and seeds its registry cache.
with_server() {
	use_server "$1" "$2"
	shift 2
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	stop_server # an earlier one, if its script was killed
	say "starting a server (log: $server_log)"
	start_server
	"$root/scripts/seed" "$@"
}

clean_up() {
	trap '' INT TERM # once is enough
	stop_server
}
