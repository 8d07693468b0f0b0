#!/usr/bin/env bash
# Makes the image that ours begin with where there is no registry to pull it from: Debian 12, by debootstrap.
#
#   sudo platform/docker/make-base.sh [NAME]     NAME: debian:bookworm-slim, which `up --driver docker` looks for
set -euo pipefail
name=${1:-debian:bookworm-slim}
root=$(mktemp -d "${TMPDIR:-/var/tmp}/base.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT

debootstrap --variant=minbase bookworm "$root/system" >"$root/log" 2>&1 || { tail -n 20 "$root/log" >&2 && exit 1; }
rm -rf "$root"/system/var/cache/apt/archives/*.deb "$root"/system/var/lib/apt/lists/*
tar -C "$root/system" -c . | docker import - "$name"
