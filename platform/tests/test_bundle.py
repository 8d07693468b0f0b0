"""A class without a network: a bundle is made where there is one, and a bare Debian is set up from it."""

import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tests.privileges import as_root

HERE = Path(__file__).parent
TIMEOUT = 300  # seconds for the bare system; measured: 55, and 30 more when its archive is made
NO_SYSTEM = 125  # the script's exit status when the bare system cannot be made
PROGRAMS = {"debootstrap", "ip"}
RELEASE = platform.freedesktop_os_release()
SCRIPT = r"""
set -euo pipefail
cd /home/learner/workshop
echo "--- network"
cut -d: -f1 /proc/net/dev | tail -n +3
status=0
apt-get update -o APT::Update::Error-Mode=any >/dev/null 2>&1 || status=$?
echo "exit status $status"

echo "--- set-up"
began=$(date +%s)
./workshop setup --bundle ../bundle.tar
echo "set-up without network: $(( $(date +%s) - began )) s"
for left in /var/tmp/* /usr/sbin/policy-rc.d /etc/postgresql-common/createcluster.d/workshop.conf /etc/postgresql/*; do
    test ! -e "$left"
done

echo "--- stage"
./workshop up stage0
url=$(./workshop status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["url"])')
python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())' "$url"
./workshop down

echo "--- again"
apt-get remove -y -qq etcd-client >/dev/null
./workshop setup --bundle=../bundle.tar
head -c 100000000 ../bundle.tar >../half.tar
./workshop setup --bundle ../half.tar || echo "exit status $?"
test ! -e /var/tmp/bundle.*
"""


@as_root  # to make a chroot
@pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)),
    reason=f"{', '.join(sorted(PROGRAMS))}: one of them is missing: provision.sh --test installs them",
)
@pytest.mark.skipif(
    RELEASE["ID"] != "debian", reason="a bundle is for the system that it was made on, and the bare one is a Debian"
)
@pytest.mark.timeout(TIMEOUT + 300)  # downloading takes the rest
def test_a_bare_debian_without_network_is_set_up_from_a_bundle(workshop, tmp_path, print_figure):
    file = tmp_path / "bundle.tar"
    began = time.monotonic()
    made = subprocess.run([workshop.repository / "workshop", "bundle", file], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    size = file.stat().st_size / 1_000_000
    print_figure(f"a bundle of {size:.0f} MB, made in {time.monotonic() - began:.0f} s")
    assert f"{file} is written: {size:.0f} MB, for {RELEASE['NAME']} {RELEASE.get('VERSION_ID', '')}, " in made.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.tar"]

    script = tmp_path / "script"
    script.write_text(SCRIPT)
    # timeout(1) ends the script, whose trap clears up, with all that runs in it.
    command = [
        "timeout",
        "--kill-after=20",
        str(TIMEOUT),
        HERE / "bare_debian.sh",
        RELEASE["VERSION_CODENAME"],
        script,
        file,
    ]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode == NO_SYSTEM:
        pytest.skip(f"no bare system could be made: {result.stdout[-300:]}")
    assert result.returncode == 0, result.stdout
    parts = dict(re.findall(r"(?ms)^--- ([a-z-]+)$(.*?)(?=^--- |\Z)", result.stdout))

    assert parts["network"].split() == ["lo", "exit", "status", "100"], result.stdout
    assert "bundle.tar is whole, and for this machine." in parts["set-up"]
    for installed in ("haproxy: the load balancer", "Installing the Python packages", "Installing the front-end files"):
        assert installed in parts["set-up"]
    assert "The monolith is up: http://127.0.0.1:" in parts["stage"]
    assert "<title>Parley</title>" in parts["stage"]
    assert "Installing packages of the system:\n  etcd-client: " in parts["again"]
    assert parts["again"].count("Installing") == 1
    assert re.search(r"half\.tar cannot be unpacked \(.*\): copy it again.*\nexit status 1\n\Z", parts["again"])
    print_figure(re.search(r"set-up without network: .*", result.stdout)[0])
