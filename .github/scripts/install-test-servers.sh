#!/bin/sh
# Install what the tests need beside Python, where it is missing: Debian's curl, docker-registry,
# skopeo, docker.io, g++ (which brings the OpenMP library that LightGBM wants), mmdebstrap and
# qemu-user-static. Does nothing when all are there.
set -eu

missing=''
command -v curl >/dev/null || missing="$missing curl"
command -v docker-registry >/dev/null || missing="$missing docker-registry"
command -v skopeo >/dev/null || missing="$missing skopeo"
command -v docker >/dev/null && command -v dockerd >/dev/null || missing="$missing docker.io"
command -v gcc >/dev/null && command -v g++ >/dev/null || missing="$missing g++"
command -v mmdebstrap >/dev/null || missing="$missing mmdebstrap"
command -v qemu-aarch64-static >/dev/null || missing="$missing qemu-user-static"
[ -n "$missing" ] || exit 0

fail() {
    echo "the tests need these Debian packages:$missing" >&2
    echo "$1" >&2
    exit 1
}

command -v apt-get >/dev/null ||
    fail 'this system has no apt-get: install what these hold its own way'

if [ "$(id -u)" = 0 ]; then
    as_root=''
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    fail "run as root: apt-get install$missing"
fi

echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq >/dev/null ||
    echo 'apt-get update failed; going on with the lists that are there' >&2
# shellcheck disable=SC2086 # one word per package
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    fail "apt-get install failed; try it by hand: apt-get install$missing"
