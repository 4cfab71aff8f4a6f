# Builds the Dockerfile in the directory $2 and saves the image as $1/image.tar. With
# $3, its files come as a tar archive on standard input. The other arguments are
# for docker build.
set -eu
umask 022
files=$1 private=$2 archive=$3
shift 3

# A signal goes to docker build as well: this script outlives it.
trap 'exit 143' TERM

mkdir -p "$files/context" "$private"
[ -z "$archive" ] || tar -x -f - -C "$files/context" --no-same-owner || {
	echo 'innerdock: the archive of the files is not a tar archive'
	exit 1
}
export DOCKER_CONFIG=$private DOCKER_BUILDKIT=1 BUILDKIT_PROGRESS=plain
docker build --progress=plain --iidfile "$files/id" --file "$private/Dockerfile" "$@" "$files/context"
rm -rf "$private" "$files/context"
image=$(cat "$files/id")
docker save --output "$files/image.tar" "$image"
docker image rm --force "$image" >/dev/null
