#!/usr/bin/env bash
# Makes the image that ours begin with where there is no registry to pull it from, by debootstrap.
#
#   sudo platform/docker/make-base.sh [NAME [SUITE]]
#
# NAME    such as debian:bookworm-slim, which `up --driver docker` looks for
# SUITE   such as trixie: another release than this machine's
set -euo pipefail
# shellcheck source=/dev/null
. /etc/os-release
if [ "$ID" = ubuntu ]; then usual=ubuntu:$VERSION_ID; else usual=debian:$VERSION_CODENAME-slim; fi
root=$(mktemp -d "${TMPDIR:-/var/tmp}/base.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT

debootstrap --variant=minbase "${2:-$VERSION_CODENAME}" "$root/system" >"$root/log" 2>&1 ||
    { tail -n 20 "$root/log" >&2 && exit 1; }
rm -rf "$root"/system/var/cache/apt/archives/*.deb "$root"/system/var/lib/apt/lists/*
tar -C "$root/system" -c . | docker import - "${1:-$usual}"
