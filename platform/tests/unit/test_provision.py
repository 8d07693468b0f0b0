"""What set-up does about a package of the system that the distribution does not have."""

import os
import subprocess

from workshop import bundle

MISSING = "vagrant"
# All packages are installed but one, which apt does not have.
DPKG_QUERY = f'#!/bin/sh\ncase "$*" in *{MISSING}) exit 1 ;; *) echo installed ;; esac\n'
APT_CACHE = '#!/bin/sh\nprintf "%s:\\n  Installed: (none)\\n  Candidate: (none)\\n" "$2"\n'
APT_GET = "#!/bin/sh\necho E: there is no network\nexit 100\n"


def test_a_package_for_the_tests_that_the_distribution_lacks_stops_nothing(tmp_path):
    for name, script in {"dpkg-query": DPKG_QUERY, "apt-cache": APT_CACHE, "apt-get": APT_GET}.items():
        (tmp_path / name).write_text(script, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    command = ["bash", bundle.PROVISION, "--test"]
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60)

    sentence = "This distribution has no package vagrant. What needs it is skipped (checks the Vagrantfile)."
    assert done.stdout.splitlines()[-1] == sentence
    assert done.returncode == 0, done.stderr
