"""The Python packages of requirements.lock, for each Python version and architecture that the README promises."""

import re
import subprocess
import sys
import tomllib

import pytest

from workshop import paths

VERSIONS = ["3.11", "3.12", "3.13", "3.14"]
ARCHITECTURES = ["x86_64", "aarch64"]
PLATFORMS = ["manylinux_2_28", "manylinux2014", "manylinux_2_17"]
WITHOUT_WHEELS = {"python-etcd"}  # pure Python: set-up builds it


def test_the_metadata_names_these_versions():
    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [line.rpartition(" :: ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert named == VERSIONS
    assert project["requires-python"] == f">={VERSIONS[0]}"


@pytest.mark.timeout(300)  # seconds: the first time, pip downloads 250 MB; measured: 14 to 38
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_binary_package_has_a_wheel(version, architecture, tmp_path):
    lock = re.split(r"(?m)^(?=\S)", (paths.REPOSITORY / "requirements.lock").read_text(encoding="utf-8"))
    file = tmp_path / "requirements.txt"
    file.write_text("".join(part for part in lock if part.partition("==")[0] not in WITHOUT_WHEELS), encoding="utf-8")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check"),
            *("--target", tmp_path / "target", "--python-version", version, "--only-binary=:all:"),
            *(f"--platform={name}_{architecture}" for name in PLATFORMS),
            *("--no-deps", "--require-hashes", "--requirement", file),
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
