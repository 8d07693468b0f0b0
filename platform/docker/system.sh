#!/usr/bin/env bash
# Makes a Debian 13 ready for the workshop: the packages of provision.sh, what else is used at a prompt, and a user.
# As root, for workshop.Dockerfile and for the dev container.
set -euo pipefail
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends curl git iproute2 less nano procps
bash "$(dirname "$(readlink -f "$0")")/../provision.sh" --system
rm -rf /var/lib/apt/lists/*
useradd --uid 1000 --create-home --shell /bin/bash learner
