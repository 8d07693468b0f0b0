"""A Docker engine for the tests: this machine's or, where none answers, one of their own, which ends with them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.privileges import can_mount

from workshop.docker import base_image
from workshop.waiting import wait_until

MAKE_BASE = Path(__file__).resolve().parents[1] / "docker" / "make-base.sh"
# Images are kept for the next time: to make them takes some minutes.
IMAGES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workshop" / "docker"
BASE = base_image()
START_TIMEOUT = 30  # seconds; measured: 1
STOP_TIMEOUT = 30  # seconds; measured: 1
LONGEST_BUILD = 600  # seconds; measured: 105 to 263, 318 with other test runs beside it


@contextmanager
def engine() -> Iterator[None]:
    """Have an engine that answers `docker`, and the image that ours begin with; skip the test where that can't be."""
    if docker("version"):
        yield
    elif not shutil.which("dockerd"):
        pytest.skip("there is no Docker here: platform/provision.sh --test installs it")
    elif not can_mount():
        pytest.skip("no Docker answers, and only root could start one, and in some containers not even root")
    else:
        with tempfile.TemporaryDirectory(prefix="engine-") as folder, running(Path(folder)):
            yield


@contextmanager
def running(folder: Path) -> Iterator[None]:
    IMAGES.mkdir(parents=True, exist_ok=True)
    os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    options = {"host": os.environ["DOCKER_HOST"], "data-root": IMAGES, "exec-root": folder / "exec", "bridge": "none"}
    command = ["dockerd", f"--pidfile={folder}/pid", *(f"--{key}={value}" for key, value in options.items())]
    with open(folder / "log", "w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            if not wait_until(lambda: docker("version") or process.poll() is not None, START_TIMEOUT) or process.poll():
                log.seek(0)
                pytest.skip(f"no Docker can run here: {log.read()[-300:]}")
            have_image(BASE)
            yield
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT)
            # What the engine leaves mounted after a container with `--network=host`.
            for mounted in folder.glob("exec/netns/*"):
                subprocess.run(["umount", mounted])
            del os.environ["DOCKER_HOST"]


def have_image(name: str, *suite: str) -> None:
    """Have an image of Debian or Ubuntu: kept, pulled, or made. Raises CalledProcessError when it cannot be made."""
    if not docker("image", "inspect", name) and not docker("pull", name):
        subprocess.run([MAKE_BASE, name, *suite], check=True)


def docker(*arguments: str) -> str:
    """Return what Docker says; nothing when it refuses."""
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
