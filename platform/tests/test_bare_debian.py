"""A newcomer's first minutes: a bare Debian, the repository, and one command."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.privileges import as_root
from tests.vagrantfile import provisioning

HERE = Path(__file__).parent
TIMEOUT = 600  # seconds, of which downloading takes the most; measured: 80 to 160
UNIT_TIMEOUT = 1200  # seconds; measured: 230 on Debian testing, and 590 on a machine that does much else
# The next release of Debian: only `./workshop test matrix` tries it.
TESTING = pytest.param("testing", id="debian-testing")
NO_SYSTEM = 125  # the script's exit status when the bare system cannot be made
# As a user who may not become root; then as one who may, in the place of the virtual machine's; then as root. /vagrant
# is another file system, without symbolic links, as shared folders may be; `session` does what `vagrant ssh -c` does.
SCRIPT = r"""
set -euo pipefail
session() { su vagrant -c "bash -l -c '$1'"; }

cd /home/learner/workshop
useradd --shell /bin/bash learner
chown -R learner /home/learner
echo "--- as a user without sudo"
status=0
su learner -c './workshop up stage0' || status=$?
echo "exit status $status"
status=0
su learner -c './workshop doctor' || status=$?
echo "doctor's exit status $status"

apt-get update -qq
apt-get install -y -qq --no-install-recommends sudo >/dev/null
useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/vagrant
mkdir /vagrant /below
mount -t tmpfs -o nosymfollow shared /vagrant
cp -r . /vagrant
chown -R vagrant /vagrant
cd /
began=$(date +%s)
echo "--- in a virtual machine"
provision
session './workshop doctor'
session './workshop up stage0'
status=$(session './workshop status --json')
for port in $(grep -oP 'url": "http://127\.0\.0\.1:\K\d+' <<<"$status"); do
    exec 3<>"/dev/tcp/$(hostname -I | cut -d' ' -f1)/$port"
    printf 'GET / HTTP/1.0\r\n\r\n' >&3
    cat <&3
done
session './workshop down'
echo "set-up, up and down: $(( $(date +%s) - began )) s"
session './workshop up stage0 --db postgres && ./workshop scale monolith=2 && ./workshop down --wipe'
ls -A /vagrant/.run | sed 's/^/left by down: /'
test ! -e /etc/postgresql/*/main
test ! -e /etc/postgresql-common/createcluster.d/workshop.conf
mount --bind /vagrant /below
find /below/.run /below/.venv /below/node_modules -mindepth 1 | sed 's/^/on the shared folder: /'

echo "--- at its next boot"
umount /vagrant/.run /vagrant/.venv /vagrant/node_modules
session true
boot
boot
echo "$(grep -c ' /vagrant/' /proc/mounts) folders are mounted"
session './workshop setup'
test ! -e /usr/sbin/policy-rc.d

cd /vagrant
export WORKSHOP_RUN_DIR=/root/run
rm -rf node_modules/*
apt-get remove -y -qq etcd-client >/dev/null
echo "--- as root"
./workshop up stage0
./workshop status
./workshop doctor
./workshop down --wipe
status=0
./workshop up stage0 --db postgres || status=$?
echo "exit status $status"
echo "--- the end"
"""
# As a user without any rights, where the tests that need root are skipped. Root has installed the packages.
UNIT_SCRIPT = """
set -euo pipefail
cd /home/learner/workshop
useradd --shell /bin/bash learner
bash platform/provision.sh
chown -R learner /home/learner
su learner -c '{command}'
"""
ROOT_ONLY = "only root can do this, and in some containers not even root"
NO_SHELLCHECK = "shellcheck is not installed: platform/provision.sh --test installs it"

pytestmark = [
    as_root,  # to make a chroot
    pytest.mark.skipif(
        not shutil.which("debootstrap"), reason="debootstrap is missing: provision.sh --test installs it"
    ),
]


@pytest.fixture
def run_on_bare_debian(tmp_path):
    """Return a function that runs a script on a bare Debian, and returns what it printed."""

    def run(suite: str, text: str, timeout: int) -> str:
        script = tmp_path / "script"
        script.write_text(text, encoding="utf-8")
        # timeout(1) ends the script, whose trap clears up, with all that runs in it.
        command = ["timeout", "--kill-after=20", str(timeout), HERE / "bare_debian.sh", suite, script]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode == NO_SYSTEM:
            pytest.skip(f"no bare system could be made: {result.stdout[-300:]}")
        assert result.returncode == 0, result.stdout
        return result.stdout

    return run


@pytest.mark.timeout(TIMEOUT + 30)
@pytest.mark.parametrize("suite", ["bookworm", "trixie", TESTING])
def test_one_command_brings_up_the_application_on_a_bare_debian(suite, run_on_bare_debian, print_figure):
    vagrant = ["provision() {", *provisioning(), "}", "boot() {", *provisioning(run="always"), "}"]
    printed = run_on_bare_debian(suite, "\n".join([*vagrant, SCRIPT]), TIMEOUT)
    parts = dict(re.findall(r"(?ms)^--- ([a-z ]+)$(.*?)(?=^--- |\Z)", printed))

    without = parts["as a user without sudo"]
    assert "haproxy: the load balancer" in without  # what is missing, and why
    assert "Ask an administrator to run:\n  apt-get install --no-install-recommends " in without
    assert "exit status 2" in without
    assert "doctor's exit status 2" in without

    guest = parts["in a virtual machine"]
    assert "Installing packages of the system" in guest
    assert "not on a shared folder (" in guest
    assert "Ready." in guest
    assert guest.count("The monolith is up: http://127.0.0.1:") == 2
    assert len(re.findall("HTTP/1.. 200 OK", guest)) == 2  # at the address of the machine's interface
    assert "<title>Parley</title>" in guest
    assert "Statistics Report for HAProxy" in guest
    assert "on the shared folder: " not in guest
    assert "left by down: " not in guest
    before, mounted, after = parts["at its next boot"].partition("\n3 folders are mounted\n")
    assert "type: vagrant reload" in before
    assert mounted
    assert "vagrant reload" not in after
    assert "Installing" not in after

    assert "Installing packages of the system:\n  etcd-client" in parts["as root"]
    assert "The monolith is up: http://127.0.0.1:" in parts["as root"]
    assert "Ready." in parts["as root"]
    # There are no user namespaces in a chroot.
    assert "Error: PostgreSQL refuses to run as root" in parts["as root"]
    assert "exit status 1" in parts["as root"]
    assert "Traceback" not in printed
    print_figure(f"{suite}: {re.search(r'set-up, up and down: .*', printed)[0]}")


@pytest.mark.timeout(UNIT_TIMEOUT + 30)
@pytest.mark.parametrize(
    ("suite", "command"),
    [
        pytest.param("trixie", ".venv/bin/python -m pytest platform/tests/unit", id="trixie"),
        # All unit tests, in which a warning of the newest Python is an error.
        pytest.param("testing", "./workshop test unit", id="debian-testing"),
    ],
)
def test_the_unit_tests_pass_for_an_ordinary_user(suite, command, run_on_bare_debian, print_figure):
    printed = run_on_bare_debian(suite, UNIT_SCRIPT.format(command=command), UNIT_TIMEOUT)

    skipped = set(re.findall(r"(?m)^SKIPPED \[\d+\] \S+ (.+)$", printed))
    assert skipped <= {ROOT_ONLY, NO_SHELLCHECK}
    passed = re.findall(r"(\d+) passed.* in (\d+)", printed)
    print_figure(f"{suite}, as an ordinary user: {passed[-1][0]} unit tests of the platform in {passed[-1][1]} s")
