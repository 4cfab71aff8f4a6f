# Installs Docker Engine, the CLI and the Compose and Buildx plugins in an image.
#
#   $source          auto | docker-ce | distro (set by the line before this file)
#   $DOCKER_CE_URL   a mirror of Docker's repository (default: Docker's own)
#
# docker-ce is Docker's repository for this distribution and release. distro is
# the distribution's own packages; a Debian release without the plugins takes
# Docker, and nothing else, from the first release that has them. auto is
# docker-ce where it answers within a few seconds, else distro.
set -eu

ce_url=${DOCKER_CE_URL:-https://download.docker.com}
ce_url=${ce_url%/}
ce_packages='docker-ce docker-ce-cli containerd.io docker-buildx-plugin docker-compose-plugin'
plugin_dirs='/usr/libexec/docker /usr/lib/docker /usr/local/libexec/docker /usr/local/lib/docker'

# Debian 12 has Docker without the plugins, Debian 13 all four. Those packages of
# 13 want no newer libc than 12 has; runc and tini do, and come from 12 itself.
donor=trixie
donor_takers=bookworm
donor_packages='docker.io docker-cli docker-compose docker-buildx containerd'

say() { printf 'innerdock: %s\n' "$*"; }
fail() {
	printf 'innerdock: %s\n' "$*" >&2
	exit 1
}

# --- what is there ---------------------------------------------------------

have_docker() {
	command -v dockerd && docker --version && docker compose version &&
		docker buildx version && command -v iptables
} >/dev/null 2>&1

read_release() {
	id=unknown codename='' name='this image'
	if [ -r /etc/os-release ]; then
		id=$(. /etc/os-release && printf %s "${ID:-unknown}")
		codename=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
		name=$(. /etc/os-release && printf %s "${PRETTY_NAME:-$id}")
	fi
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# offered PACKAGES: apt could install them all.
offered() {
	[ "$(apt-cache show --no-all-versions "$@" 2>/dev/null | grep -c '^Package: ')" = $# ]
}

# --- apt -------------------------------------------------------------------

apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -q -y \
		-o Acquire::Languages=none -o Acquire::Retries=2 \
		-o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io \
		-o APT::Cmd::Disable-Script-Warning=true "$@"
}

install_packages() {
	apt install --no-install-recommends --no-remove "$@" ||
		fail "apt could not install $*; its reason is above"
}

install_certificates() {
	apt update || fail "could not read the package lists of $name; apt's reason is above"
	install_packages ca-certificates
}

# fetch URL FILE SECONDS: with apt's own downloader, since slim images have no other.
fetch() {
	timeout "$3" /usr/lib/apt/apt-helper -qq -o APT::Sandbox::User=root -o Acquire::Retries=0 \
		-o Acquire::http::Timeout="$3" -o Acquire::https::Timeout="$3" \
		download-file "$1" "$2" 2>"$work/fetch" && [ -s "$2" ]
}

# Packages must not start services while they are installed.
forbid_services() {
	[ ! -e /usr/sbin/policy-rc.d ] || return 0
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	made_policy=yes
}

clean_up() {
	rm -rf "$work"
	rm -f /etc/apt/sources.list.d/innerdock-donor.list /etc/apt/preferences.d/innerdock-donor
	[ -z "${made_policy:-}" ] || rm -f /usr/sbin/policy-rc.d
	apt-get clean || true
	[ -n "${had_lists:-}" ] || find /var/lib/apt/lists -mindepth 1 -delete 2>/dev/null || true
}

# remove_others PACKAGES: the other source's packages exclude ours.
remove_others() {
	for package in "$@"; do
		installed "$package" || continue
		say "removing $package, which the chosen source replaces"
		apt remove "$package" || fail "apt could not remove $package; its reason is above"
	done
}

# --- Docker's repository ---------------------------------------------------

# ce_answers SECONDS
ce_answers() { fetch "$ce_url/linux/$id/dists/$codename/InRelease" "$work/InRelease" "$1"; }

install_ce() {
	say "installing Docker from $ce_url for $id $codename"
	fetch "$ce_url/linux/$id/gpg" "$work/docker.asc" 30 ||
		fail "could not fetch the signing key $ce_url/linux/$id/gpg: $(cat "$work/fetch")"
	grep -q '^-----BEGIN PGP PUBLIC KEY BLOCK-----' "$work/docker.asc" ||
		fail "$ce_url/linux/$id/gpg is not a signing key: does something in the network answer in its place?"
	install -D -m 644 "$work/docker.asc" /etc/apt/keyrings/docker.asc
	echo "deb [arch=$(dpkg --print-architecture) signed-by=/etc/apt/keyrings/docker.asc] $ce_url/linux/$id $codename stable" \
		>/etc/apt/sources.list.d/docker.list
	# shellcheck disable=SC2086
	if ! apt update || ! offered $ce_packages; then
		rm -f /etc/apt/sources.list.d/docker.list /etc/apt/keyrings/docker.asc
		fail "apt does not accept the repository $ce_url/linux/$id ($codename): its reason is above." \
			'A signature that does not fit the key means a broken mirror or an attack; nothing was installed from it'
	fi
	remove_others docker.io docker-cli docker-compose docker-compose-v2 docker-buildx docker-doc podman-docker containerd runc
	# shellcheck disable=SC2086
	install_packages $ce_packages ca-certificates iptables procps xz-utils
}

# --- the distribution's packages -------------------------------------------

distro_packages() {
	case $id in
	ubuntu) echo 'docker.io docker-compose-v2 docker-buildx' ;;
	*) echo 'docker.io docker-cli docker-compose docker-buildx' ;;
	esac
}

# add_donor: the newer Debian release, from the mirrors that this one uses, for
# Docker only: every other package of it has a priority that is never installed.
add_donor() {
	keyring=''
	for file in /usr/share/keyrings/debian-archive-keyring.pgp /usr/share/keyrings/debian-archive-keyring.gpg; do
		[ ! -r "$file" ] || keyring="[signed-by=$file] "
	done
	# shellcheck disable=SC2016
	apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
		sort -u | while read -r release uri component; do
		[ "$component" = main ] || continue
		case $release in
		"$codename") echo "deb $keyring$uri $donor main" ;;
		"$codename-security") echo "deb $keyring$uri $donor-security main" ;;
		esac
	done >/etc/apt/sources.list.d/innerdock-donor.list
	[ -s /etc/apt/sources.list.d/innerdock-donor.list ] ||
		fail "no source of $codename main in /etc/apt: cannot tell which mirror has $donor"
	cat >/etc/apt/preferences.d/innerdock-donor <<-END
		Package: *
		Pin: release n=$donor*
		Pin-Priority: -1

		Package: $donor_packages
		Pin: release n=$donor*
		Pin-Priority: 990
	END
}

install_distro() {
	case " $donor_takers " in
	*" $codename "*)
		say "$name has Docker without its plugins: taking Docker, and nothing else, from Debian $donor"
		add_donor
		;;
	*) say "installing Docker from the packages of $name" ;;
	esac
	apt update || fail "could not read the package lists; apt's reason is above"
	# shellcheck disable=SC2046
	offered $(distro_packages) ||
		fail "$name has no packages of Docker with the Compose and Buildx plugins;" \
			'use Debian 12 or later, Ubuntu 22.04 or later, or with_docker(source="docker-ce")'
	# shellcheck disable=SC2086
	remove_others $ce_packages
	# shellcheck disable=SC2046
	install_packages $(distro_packages) ca-certificates iptables procps xz-utils
}

# --- the result ------------------------------------------------------------

# link_binaries: everything reachable in /usr/bin, docker-compose in /usr/local/bin.
link_binaries() {
	for binary in dockerd docker containerd containerd-shim-runc-v2 runc docker-init docker-proxy; do
		[ ! -x "/usr/bin/$binary" ] || continue
		found=$(find_binary "$binary") || fail "Docker was installed without $binary"
		ln -sf "$found" "/usr/bin/$binary"
	done
	for dir in $plugin_dirs; do
		[ -x "$dir/cli-plugins/docker-compose" ] || continue
		mkdir -p /usr/local/bin
		ln -sf "$dir/cli-plugins/docker-compose" /usr/local/bin/docker-compose
		return 0
	done
}

find_binary() {
	for dir in /usr/sbin /usr/local/bin /usr/local/sbin /usr/libexec/docker /usr/lib/docker; do
		[ ! -x "$dir/$1" ] || { echo "$dir/$1" && return 0; }
	done
	return 1
}

# gVisor has the legacy tables only.
choose_legacy_iptables() {
	for tool in iptables ip6tables; do
		[ -x "/usr/sbin/$tool-legacy" ] || continue
		update-alternatives --set "$tool" "/usr/sbin/$tool-legacy" >/dev/null ||
			fail "could not choose $tool-legacy"
	done
}

verify() {
	for tool in 'dockerd --version' 'docker --version' 'docker compose version' 'docker buildx version' 'docker-compose version' 'iptables --version'; do
		# shellcheck disable=SC2086
		answer=$($tool 2>&1) || fail "\`$tool\` failed: $answer"
		say "$answer"
	done
}

finish() {
	choose_legacy_iptables
	link_binaries
	verify
}

# --- main ------------------------------------------------------------------

choose_source() {
	[ "$source" = auto ] || return 0
	if installed docker.io; then
		source=distro
	elif installed docker-ce || ce_answers 5; then
		source=docker-ce
	else
		say "$ce_url does not answer for $id $codename: using the packages of $name"
		source=distro
	fi
}

main() {
	case $source in
	auto | docker-ce | distro) ;;
	*) fail "unknown source of Docker: $source; use auto, docker-ce or distro" ;;
	esac
	if have_docker; then
		say 'Docker, Compose and Buildx are already installed'
		finish
		return
	fi
	read_release
	case $id in
	debian | ubuntu) ;;
	*) fail "cannot install Docker on $name: with_docker() works on Debian and Ubuntu images" \
		'(such as python:3.11 or debian:12); an image that has Docker already, such as docker:dind, needs no with_docker()' ;;
	esac
	[ -n "$codename" ] || fail "$name does not tell its release in /etc/os-release"
	[ "$(id -u)" = 0 ] || fail 'installing Docker needs root'

	work=$(mktemp -d)
	trap clean_up EXIT
	trap 'exit 130' INT TERM
	[ -z "$(find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null | head -n 1)" ] || had_lists=yes
	forbid_services
	[ -e /etc/ssl/certs/ca-certificates.crt ] || install_certificates

	choose_source
	case $source in
	docker-ce)
		ce_answers 30 || fail "Docker's repository $ce_url has no release $codename for $id, or cannot be reached:" \
			"$(cat "$work/fetch"). Use with_docker(source=\"distro\"), or set DOCKER_CE_URL to a mirror"
		install_ce
		;;
	distro) install_distro ;;
	esac
	finish
	say 'Docker is installed'
}

main
