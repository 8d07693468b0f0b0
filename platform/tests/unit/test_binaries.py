"""The oldest version of each program that the platform works with."""

import re
import shutil
import tomllib

import pytest

from workshop import binaries, chromium, jump, paths, postgres
from workshop.errors import WorkshopError


@pytest.mark.parametrize("name", binaries.BINARIES)
def test_each_program_has_an_oldest_version_and_the_reason(name):
    oldest = binaries.BINARIES[name].oldest
    before = (oldest[0], oldest[1] - 1) if oldest[1] else (oldest[0] - 1, 99)

    assert binaries.problem(name, "{}.{}.1".format(*oldest)) is None
    refused = binaries.problem(name, "{}.{}".format(*before))
    assert refused.startswith(f"{name} {before[0]}.{before[1]} is older than {oldest[0]}.{oldest[1]} (")
    assert binaries.BINARIES[name].why in refused


@pytest.mark.parametrize("name", binaries.FOR_UP)
def test_each_program_that_up_needs_says_its_version(name):
    assert binaries.problem(name, binaries.version(name)) is None


def test_set_up_and_the_metadata_demand_the_same_python():
    oldest = binaries.BINARIES["python3"].oldest
    script = (paths.REPOSITORY / "platform" / "provision.sh").read_text(encoding="utf-8")
    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert re.findall(r"sys\.version_info < (\(.+?\))", script) == [str(oldest)]
    assert project["requires-python"] == ">={}.{}".format(*oldest)


def test_the_readme_names_the_same_oldest_versions():
    names = {"Python": "python3", "HAProxy": "haproxy", "Redis": "redis-server", "PostgreSQL": "postgres"}
    readme = (paths.REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (\w+) \|(?: [^|]+ \|){5} ([\d.]+) \|$", readme)

    assert len(rows) == 7
    for name, oldest in rows:
        assert binaries.number(oldest) == binaries.BINARIES[names.get(name, name.lower())].oldest


def test_a_version_may_have_one_number():
    assert binaries.number("15") == (15, 0)


def test_an_old_postgresql_is_no_database(monkeypatch):
    monkeypatch.setattr(postgres, "_installed", lambda: ["13"])
    monkeypatch.setattr(postgres, "version", lambda: "13")

    assert postgres.problem().startswith("postgres 13 is older than 14.0 (it has `recovery_init_sync_method` since 14)")


def test_a_git_that_is_too_old_puts_nothing_aside(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(jump, "_git", lambda *words: " M README.md")
    monkeypatch.setattr(binaries, "version", lambda name: "2.11.0")

    with pytest.raises(WorkshopError, match=r"^git 2\.11\.0 is older than 2\.13 \(.+\)\. Update git, or commit"):
        jump._stash(None, print)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make the only program that is called chromium, from a script or as a link; return its path."""
    file = tmp_path / "bin" / "chromium"
    file.parent.mkdir()
    monkeypatch.setattr(chromium, "PATH", str(file.parent))
    monkeypatch.setattr(binaries, "base_environment", lambda: {"PATH": str(file.parent)})

    def make(script: str = "", link: str = ""):
        if link:
            file.symlink_to(link)
        else:
            file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            file.chmod(0o755)
        return file

    return make


def test_without_chromium_there_is_a_sentence(program):
    assert chromium.problem().startswith("Chromium is missing: ")


def test_a_chromium_of_debian_will_do(program):
    program("echo Chromium 156.0.8078.114 built on Debian GNU/Linux 12")

    assert chromium.problem() is None


def test_a_chromium_that_is_too_old(program):
    program("echo Chromium 120.0.6099.224")

    assert chromium.problem().startswith("chromium 120.0.6099.224 is older than 150.0 (")


def test_a_script_that_runs_a_snap(program):
    file = program('exec /snap/bin/chromium "$@"')

    assert chromium.problem().startswith(f"{file} is a snap, ")


def test_a_link_to_snap(program, tmp_path, monkeypatch):
    snap = tmp_path / "snap"
    snap.write_text("", encoding="utf-8")
    snap.chmod(0o755)
    monkeypatch.setattr(chromium, "SNAP", snap)
    file = program(link=str(snap))

    assert chromium.problem().startswith(f"{file} is a snap, ")
