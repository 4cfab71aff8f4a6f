# Installs micromamba, and packages into $prefix. The arguments are $channels
# words that name channels, and the packages.
set -eu

say() { printf 'innerdock: %s\n' "$*"; }
fail() {
	printf 'innerdock: %s\n' "$*" >&2
	exit 1
}

program=$prefix/bin/micromamba

where() {
	case $(uname -m) in
	x86_64) platform=linux-64 ;;
	aarch64) platform=linux-aarch64 ;;
	ppc64le) platform=linux-ppc64le ;;
	*) fail "there is no micromamba for $(uname -m)" ;;
	esac
	printf %s "${MICROMAMBA_URL:-https://micro.mamba.pm/api/micromamba/$platform/latest}"
}

# fetch URL FILE: with what the image has.
fetch() {
	if command -v curl >/dev/null; then
		curl --fail --silent --show-error --location --retry 2 --connect-timeout 20 --output "$2" "$1"
	elif command -v wget >/dev/null; then
		wget -q -T 20 -O "$2" "$1"
	elif command -v python3 >/dev/null; then
		python3 -c 'import shutil, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=20) as answer, open(sys.argv[2], "wb") as file:
    shutil.copyfileobj(answer, file)' "$1" "$2"
	else
		fail 'the image has neither curl nor wget nor python3 to fetch micromamba with: install one with add_commands([...])'
	fi
}

# unpack ARCHIVE DIRECTORY: tar needs a bzip2 beside it, Python does not.
unpack() {
	if command -v python3 >/dev/null; then
		python3 -c 'import sys, tarfile
with tarfile.open(sys.argv[1]) as archive, open(sys.argv[2] + "/micromamba", "wb") as file:
    file.write(archive.extractfile("bin/micromamba").read())' "$1" "$2"
	else
		tar -xf "$1" -C "$2" --strip-components=1 bin/micromamba
	fi
}

install_program() {
	url=$(where)
	say "fetching micromamba from $url"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	fetch "$url" "$work/archive" ||
		fail "micromamba could not be fetched from $url; the reason is above." \
			'Where that site is not reachable, name a mirror with .with_envs({"MICROMAMBA_URL": "https://…"})'
	unpack "$work/archive" "$work" ||
		fail "what $url answered is not micromamba's archive: does something in the network answer in its place?"
	mkdir -p "$prefix/bin" "$prefix/conda-meta" # the latter makes it an environment
	chmod 755 "$work/micromamba"
	mv "$work/micromamba" "$program"
}

[ -x "$program" ] || install_program
"$program" --version >/dev/null || fail 'micromamba does not run in this image'

[ $# -gt "$channels" ] || exit 0
"$program" install --yes --root-prefix "$prefix" --name base "$@" ||
	fail 'micromamba could not install these packages; its reason is above.' \
		'Where the channel is not reachable, name a mirror as channel: add_micromamba_packages([...], channels=["https://…"])'
"$program" clean --yes --root-prefix "$prefix" --all >/dev/null || true
