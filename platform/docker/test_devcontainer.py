"""The dev container, as the `devcontainer` command line makes it from a clean clone."""

import json
import subprocess
import sys
import time

import pytest
import requests
from tests import devcontainer
from tests.engine import LONGEST_BUILD, docker

from workshop import installers, paths
from workshop.files import give

CLI = "@devcontainers/cli@0.89.0"
LEARNER = 1000  # the user's number in the container

pytestmark = pytest.mark.timeout(1200)  # seconds: a build with other programs beside it


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    """Run the `devcontainer` command line with words; return what it printed."""
    folder = tmp_path_factory.mktemp("cli")
    npm = (sys.executable, "-I", installers.__file__, "npm", "install", "--ignore-scripts", f"--prefix={folder}", CLI)
    installed = subprocess.run(npm, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"npm cannot install {CLI}: {installed.stderr[-300:]}")
    program = folder / "node_modules" / "@devcontainers" / "cli" / "devcontainer.js"

    def run(command: str, workspace, *words: str) -> str:
        options = (f"--user-data-folder={folder}", f"--workspace-folder={workspace}")
        result = subprocess.run(
            [paths.NODE / "node", program, command, *options, *words], capture_output=True, text=True
        )
        assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr[-2000:]}"
        return result.stdout

    return run


def reach_the_network(clone, base: str) -> None:
    """Configure the clone's dev container for our base and for this machine's network: `engine` has no other."""
    config = devcontainer.config()
    config["build"] |= {"args": {"BASE": base}, "options": ["--network=host"]}
    config["runArgs"] = ["--network=host"]
    (clone / devcontainer.FILE.relative_to(paths.REPOSITORY)).write_text(json.dumps(config), encoding="utf-8")


def test_a_dev_container_comes_up_from_a_clean_clone_in_minutes(base, clone, cli, print_figure):
    reach_the_network(clone, base)
    # For other users than root, the command line gives the container's user the same number as theirs.
    give(clone, LEARNER)
    started = time.monotonic()
    container = json.loads(cli("up", clone, "--buildkit=never"))["containerId"]
    seconds = time.monotonic() - started
    print_figure(f"dev container from a clean clone: {seconds:.0f} s")
    host = json.loads(docker("inspect", "--format={{json .HostConfig}}", container))
    try:
        assert seconds < LONGEST_BUILD
        assert (host["Privileged"], host["CapAdd"]) == (False, None)
        assert cli("exec", clone, "id", "--user", "--name").strip() == "learner"
        cli("exec", clone, "./workshop", "up", "stage2")
        url = json.loads(cli("exec", clone, "./workshop", "status", "--json"))["url"]
        assert "<title>Parley</title>" in requests.get(url, timeout=5).text
        assert "Ready." in cli("exec", clone, "./workshop", "doctor")
        cli("exec", clone, "./workshop", "down", "--wipe")
    finally:
        docker("rm", "--force", container)
        made = docker("image", "ls", "--quiet", f"--filter=reference=vsc-{clone.name}-*").split()
        docker("image", "rm", "--force", *made)
