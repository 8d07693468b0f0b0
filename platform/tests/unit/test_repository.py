"""The repository as such: style, shell scripts, locked dependencies."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from workshop import cli, paths

REPOSITORY = paths.REPOSITORY
SHELL_SCRIPTS = ["workshop", "platform/provision.sh", ".ci/run", *map(str, REPOSITORY.glob("platform/**/*.sh"))]


def test_ruff_has_nothing_to_say():
    for arguments in (["check", "--quiet"], ["format", "--check", "--quiet"]):
        result = subprocess.run([paths.BIN / "ruff", *arguments, "."], cwd=REPOSITORY, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_shellcheck_has_nothing_to_say():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed: platform/provision.sh --test installs it")
    result = subprocess.run(["shellcheck", *SHELL_SCRIPTS], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_requirement_of_a_stage_is_pinned_as_in_the_lock_file():
    locked = set(re.findall(r"(?m)^([a-z0-9-]+==[^ ]+)", (REPOSITORY / "requirements.lock").read_text()))
    files = sorted(REPOSITORY.glob("stage*/**/requirements.txt"))
    assert files
    for file in files:
        for line in file.read_text().split():
            assert line in locked, f"{file}: {line}"


def test_every_package_in_the_lock_files_has_a_hash_and_no_address():
    lock = (REPOSITORY / "requirements.lock").read_text()
    packages = re.split(r"(?m)^(?=[a-z])", lock)[1:]
    assert packages
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in lock
    assert '"resolved"' not in (REPOSITORY / "package-lock.json").read_text()


def test_every_command_has_help_with_an_example():
    for name in cli.COMMANDS:
        command = cli.cli.get_command(None, name)
        assert command.name == name
        assert command.help
        assert command.epilog.startswith(f"Example: ./workshop {name}")


def test_python_etcd_stays_inside_one_module():
    files = list(Path(paths.REPOSITORY / "platform" / "workshop").rglob("*.py"))
    assert [path.name for path in files if re.search(r"(?m)^(import|from) etcd\b", path.read_text())] == ["registry.py"]
