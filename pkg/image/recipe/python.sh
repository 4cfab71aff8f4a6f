# Makes python3 and pip those of $version, from the distribution's packages.
set -eu

say() { printf 'innerdock: %s\n' "$*"; }
fail() {
	printf 'innerdock: %s\n' "$*" >&2
	exit 1
}

python=python$version

apt() { DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Languages=none -o Acquire::Retries=2 -o Dpkg::Use-Pty=0 "$@"; }

distribution() {
	name='this image'
	[ ! -r /etc/os-release ] || name=$(. /etc/os-release && printf %s "${PRETTY_NAME:-$name}")
	printf %s "$name"
}

refuse() {
	fail "$(distribution) has no package of $python: use a base that has it, such as Image(python_version=\"$python\")," \
		"or .add_micromamba_packages([\"python=$version\", \"pip\"])"
}

from_apt() {
	[ -n "$(find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null | head -n 1)" ] && had_lists=yes || had_lists=''
	apt update || fail "could not read the package lists of $(distribution); apt's reason is above"
	apt-cache show --no-all-versions "$python" 2>/dev/null | grep -q '^Package: ' || refuse
	set -- "$python" "$python-venv" python3-pip ca-certificates
	apt install --no-install-recommends "$@" || fail "apt could not install $*; its reason is above"
	apt-get clean
	[ -n "$had_lists" ] || find /var/lib/apt/lists -mindepth 1 -delete
}

from_apk() {
	offered=$(apk search --no-cache --exact python3) || fail "apk could not read its package lists; its reason is above"
	case $offered in
	python3-"$version".*) ;;
	*) refuse ;;
	esac
	apk add --no-cache python3 py3-pip || fail 'apk could not install python3; its reason is above'
}

is_version() { [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ]; }

if ! command -v "$python" >/dev/null && ! is_version python3; then
	if command -v apt-get >/dev/null; then
		from_apt
	elif command -v apk >/dev/null; then
		from_apk
	else
		refuse
	fi
fi

if ! is_version python3; then
	mkdir -p /usr/local/bin
	ln -sf "$(command -v "$python")" /usr/local/bin/python3
	ln -sf "$(command -v "$python")" /usr/local/bin/python
fi

# pip belongs to the image here, not to its distribution.
rm -f "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')/EXTERNALLY-MANAGED"

is_version python3 || fail "python3 is $(command -v python3), which is not Python $version: something stands before it in PATH"
python3 -m pip --version || python3 -m ensurepip || fail "$python has no pip: install it with add_commands([...])"
say "$(python3 --version) is python3"
