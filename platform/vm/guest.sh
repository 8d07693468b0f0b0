#!/usr/bin/env bash
# Makes a virtual machine ready for the workshop. As root, at each boot, once the repository's folder is mounted.
#
#   guest.sh FOLDER USER     where the repository is, and who works in it
set -euo pipefail
folder=$1 user=$2
disk=/var/lib/workshop

# A shared folder has no sockets, no locks and perhaps no symbolic links: what needs them is on this machine's own disk,
# below the names at which it is expected. These are empty folders on the host.
for name in .run .venv node_modules; do
    mkdir -p "$folder/$name"
    mountpoint --quiet "$folder/$name" && continue
    install --directory --owner="$user" --mode=700 "$disk/$name"
    mount --bind "$disk/$name" "$folder/$name"
done

# For each login shell, as `vagrant ssh` starts one, also with a command. Ports are forwarded to this machine's
# interface, not to its loopback. After a `reboot`, nobody has run this script.
cat >/etc/profile.d/workshop.sh <<PROFILE
export WORKSHOP_BIND=0.0.0.0
cd "$folder"
mountpoint --quiet .run || echo "Was this machine started without Vagrant? Log out, and type: vagrant reload" >&2
PROFILE
