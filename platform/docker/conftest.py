"""What the tests of the image and of the dev container share: a clean clone, and a Debian 13 to begin with."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.engine import docker, engine, have_image
from tests.workshops import REPOSITORY

DEBIAN_13 = "debian:trixie-slim"
BASE = "workshop-test-base"
# How this machine reaches package registries.
SETTINGS = ("/etc/apt/apt.conf.d", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf", "/etc/npmrc")
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "PIP_INDEX_URL")


@pytest.fixture(scope="session")
def base():
    """The name of an image of Debian 13 that reaches package registries as this machine does."""
    with engine(), tempfile.TemporaryDirectory(prefix="base-") as name:
        try:
            have_image(DEBIAN_13, "trixie")
        except subprocess.CalledProcessError:
            pytest.skip(f"there is no image {DEBIAN_13}, and debootstrap cannot make one")
        for setting in filter(Path.exists, map(Path, SETTINGS)):
            copy = Path(name, "settings", *setting.parts[1:])
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(setting, copy) if setting.is_dir() else shutil.copy(setting, copy)
        variables = [f"ENV {variable}={os.environ[variable]}" for variable in VARIABLES if os.environ.get(variable)]
        certificates = "RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates"
        # Twice: the installation of the package overwrites the file of the certificates.
        lines = [f"FROM {DEBIAN_13}", *variables, "COPY settings /", certificates, "COPY settings /"]
        Path(name, "Dockerfile").write_text("\n".join(lines), encoding="utf-8")
        subprocess.run(["docker", "build", "--quiet", "--network=host", f"--tag={BASE}", name], check=True)
        yield BASE
        docker("image", "rm", BASE)


@pytest.fixture(scope="module")
def clone():
    """A clean clone of the repository."""
    with tempfile.TemporaryDirectory(prefix="clone-") as name:
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, name], check=True)
        yield Path(name)
