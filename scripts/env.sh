# shellcheck shell=bash disable=SC2034,SC2154 # variables cross the files
# Sourced by every script here: where things are, and how the scripts speak.
# Set INNERDOCK_CACHE to keep everything that is built or downloaded elsewhere.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${INNERDOCK_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/innerdock}
export INNERDOCK_CACHE=$cache
# The pip and apt of the set-up must never ask.
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1

bin=$root/bin/innerdock
generated=("$root/api" "$root/sdk/python/src/innerdock/_sync") # by go generate
python_path=$root/sdk/python/src:$root/sdk/python-beta9/src

# sudo often hides Go, and some logins hide the administrator's commands.
command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin:/usr/lib/go/bin
PATH=$PATH:/usr/sbin:/sbin

say()  { printf '==> %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die()  { printf 'error: %s\n' "$*" >&2; exit 1; }

# seconds since the script began, for the closing lines
elapsed() { printf '%d min %02d s' $((SECONDS / 60)) $((SECONDS % 60)); }

# runsc prints the path of the pinned runsc, and builds it if it is not there.
runsc() { "$root/tools/runsc/build.sh"; }

# find_venv sets venv to where the Python environment belongs: one for each
# Python and each set of requirements, shared by all checkouts.
find_venv() {
	venv=$cache/venv/$(
		{ python3 -c 'import sys; print(sys.executable, sys.version)'; cat "$root"/scripts/constraints.txt \
			"$root"/sdk/python/requirements-dev.txt "$root"/sdk/python/pyproject.toml; } | sha256sum | cut -c1-12)
}
