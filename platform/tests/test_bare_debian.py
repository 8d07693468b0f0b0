"""A newcomer's first minutes: a bare Debian, the repository, and one command."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.privileges import as_root

HERE = Path(__file__).parent
TIMEOUT = 400  # seconds, of which downloading takes the most; measured: 80 to 160
NO_SYSTEM = 125  # the script's exit status when the bare system cannot be made
# As root; then as a user who may not become root, with something missing; then as one who may.
SCRIPT = r"""
set -euo pipefail
cd /home/learner/workshop
began=$(date +%s)
echo "--- as root"
./workshop up stage0
./workshop status
./workshop doctor
./workshop down
echo "set-up, up and down: $(( $(date +%s) - began )) s"
status=0
./workshop up stage0 --db postgres || status=$?
echo "exit status $status"
test ! -e /etc/postgresql/*/main
test ! -e /etc/postgresql-common/createcluster.d/workshop.conf

useradd --shell /bin/bash learner
chown -R learner /home/learner
rm -rf .run node_modules
apt-get remove -y -qq etcd-client >/dev/null
echo "--- as a user without sudo"
status=0
su learner -c './workshop up stage0' || status=$?
echo "exit status $status"
status=0
su learner -c './workshop doctor' || status=$?
echo "doctor's exit status $status"

apt-get install -y -qq --no-install-recommends sudo >/dev/null
echo 'learner ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/learner
echo "--- as a user with sudo"
su learner -c './workshop up stage0 && ./workshop scale monolith=2 && ./workshop down'
su learner -c './workshop up stage0 --db postgres && ./workshop down'
echo "--- again"
su learner -c './workshop setup'
test ! -e /usr/sbin/policy-rc.d
echo "--- the end"
"""


@as_root  # to make a chroot
@pytest.mark.skipif(not shutil.which("debootstrap"), reason="debootstrap is missing: provision.sh --test installs it")
@pytest.mark.timeout(TIMEOUT + 30)
def test_one_command_brings_up_the_application_on_a_bare_debian(tmp_path, print_figure):
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    # timeout(1) ends the script, whose trap clears up, with all that runs in it.
    command = ["timeout", "--kill-after=20", str(TIMEOUT), HERE / "bare_debian.sh", script]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode == NO_SYSTEM:
        pytest.skip(f"no bare system could be made: {result.stdout[-300:]}")
    assert result.returncode == 0, result.stdout
    parts = dict(re.findall(r"(?ms)^--- ([a-z ]+)$(.*?)(?=^--- |\Z)", result.stdout))

    assert "The monolith is up: http://127.0.0.1:" in parts["as root"], result.stdout
    assert "haproxy: the load balancer" in parts["as root"]  # what is installed, and why
    # There are no user namespaces in a chroot.
    assert "Error: PostgreSQL refuses to run as root" in parts["as root"]
    assert "exit status 1" in parts["as root"]
    without = parts["as a user without sudo"]
    assert "Ask an administrator to run:\n  apt-get install --no-install-recommends etcd-client" in without
    assert "exit status 2" in without
    assert "doctor's exit status 2" in without
    assert parts["as a user with sudo"].count("The monolith is up: http://127.0.0.1:") == 2
    assert "Installing" not in parts["again"]
    assert "Traceback" not in result.stdout
    print_figure(re.search(r"set-up, up and down: .*", result.stdout)[0])
