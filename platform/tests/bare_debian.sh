#!/usr/bin/env bash
# Runs a script in a bare Debian (no Python, no git, no sudo), with a copy of the repository in /home/learner/workshop.
#
#   bare_debian.sh SUITE FILE           as root, in Debian's SUITE, such as trixie; exit status: the script's own, or 125
#                                       when the system cannot be made
#   bare_debian.sh SUITE FILE BUNDLE    without a network, with the file BUNDLE as /home/learner/bundle.tar
#
# The system is a debootstrap minbase in a chroot with processes of its own, made once and kept as an archive; it uses
# this machine's network, and reaches package registries with this machine's client settings. What the script leaves
# running is ended with it.
set -euo pipefail
suite=$1
script=$(readlink -f "$2")
bundle=${3:-}
repository=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
archive=${XDG_CACHE_HOME:-$HOME/.cache}/workshop/$suite.tar

root=$(mktemp -d /tmp/bare-debian.XXXXXX)
trap 'rm -rf --one-file-system "$root"' EXIT

make_archive() {
    mkdir -p "$(dirname "$archive")"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" >"$archive.log" 2>&1 ||
        { tail -n 20 "$archive.log" >&2 && return 1; }
    tar -C "$root" -cf "$archive.part" . && mv "$archive.part" "$archive"
}

if [ -f "$archive" ]; then tar -C "$root" -xf "$archive"; else make_archive; fi || exit 125
chmod 755 "$root"

for settings in /etc/apt/apt.conf.d /etc/ssl/certs/ca-certificates.crt /etc/pip.conf /etc/npmrc /root/.npmrc \
    /etc/resolv.conf /etc/hosts; do
    if [ -e "$settings" ]; then
        mkdir -p "$root$(dirname "$settings")"
        cp -rL "$settings" "$root$(dirname "$settings")"
    fi
done
mkdir -p "$root/home/learner/workshop"
tar -C "$repository" --exclude=./.git --exclude=./.run --exclude=./.venv --exclude=./node_modules --exclude=./work \
    --exclude=__pycache__ --exclude='.*_cache' -cf - . | tar -C "$root/home/learner/workshop" -xf -
cp "$script" "$root/script"
without=()
if [ -n "$bundle" ]; then
    cp "$bundle" "$root/home/learner/bundle.tar"
    without=(--net) # a network of its own, in which there is loopback and nothing else
fi

environment=(HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
for name in HTTP_PROXY HTTPS_PROXY PIP_CERT PIP_INDEX_URL; do
    if [ -n "${!name:-}" ]; then environment+=("$name=${!name}"); fi
done
# shellcheck disable=SC2016  # expanded by the inner shell, in the new namespaces
unshare "${without[@]}" --mount --pid --fork --kill-child --propagation private bash -c '
    root=$1 bundle=$2; shift 2
    [ -z "$bundle" ] || ip link set lo up
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    exec chroot "$root" /usr/bin/env -i "$@" bash /script
' bare-debian "$root" "$bundle" "${environment[@]}"
