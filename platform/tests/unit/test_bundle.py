"""Which bundles set-up refuses, and in which words; and that none is left half made."""

import io
import os
import signal
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from workshop import bundle, paths
from workshop.errors import WorkshopError

MADE_FOR = subprocess.run([bundle.PROVISION, "--made-for"], capture_output=True, text=True, check=True).stdout
MACHINE, LOCKS, PACKAGES = MADE_FOR.splitlines()
WHEEL = b"a wheel" * 10_000


def write_bundle(file, machine=MACHINE, locks=LOCKS, packages=PACKAGES):
    members = {
        "made-for": f"{machine}\n{locks}\n{packages}\n".encode(),
        "SHA256SUMS": f"{sha256(WHEEL).hexdigest()}  wheels/one.whl\n".encode(),
        "wheels/one.whl": WHEEL,
    }
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where bundles are unpacked and made: empty again at the end of each test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(bundle, "SCRATCH", folder)
    yield folder
    assert list(folder.iterdir()) == []


def set_up(*arguments):
    """Run it as on a machine that is set up already: there is nothing to install, whatever it says."""
    return subprocess.run([paths.REPOSITORY / "workshop", "setup", *arguments], capture_output=True, text=True)


def refusal(file):
    """Return the one sentence with which a file is refused."""
    refused = set_up("--bundle", file)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    return refused.stderr.removesuffix("\n")


def test_a_bundle_that_is_whole_and_for_this_machine_is_taken(tmp_path, scratch):
    file = write_bundle(tmp_path / "my bundle.tar")

    for arguments in (["--bundle", file], [f"--bundle={file}"]):
        taken = set_up(*arguments)
        assert taken.returncode == 0, taken.stderr
        assert taken.stderr == f"{file} is whole, and for this machine.\n"


@pytest.mark.parametrize("arguments", [["--bundle"], ["--bundle="], ["--bundle", ""], ["--bundle", "a", "b"]])
def test_no_file_is_an_error_of_usage(arguments):
    refused = set_up(*arguments)
    assert refused.returncode == 2
    assert refused.stderr == "Usage: ./workshop setup --bundle FILE\n\nError: which FILE?\n"


def test_a_file_that_is_missing_or_is_no_bundle_is_refused(tmp_path, scratch):
    missing, text = tmp_path / "missing.tar", tmp_path / "text.tar"
    text.write_text("no archive")

    assert refusal(missing) == f"{missing} is missing, or no file that you may read."
    assert refusal(tmp_path) == f"{tmp_path} is missing, or no file that you may read."
    assert refusal(text) == f"{text} is no bundle: `./workshop bundle FILE` makes one."


@pytest.mark.parametrize("other", ["Fedora 44, amd64, Python 3.14", MACHINE + "1", MACHINE.replace(", ", "1, ", 1)])
def test_a_bundle_for_another_machine_is_refused(tmp_path, scratch, other):
    file = write_bundle(tmp_path / "bundle.tar", machine=other)
    assert refusal(file) == f"{file} is for {other}; this machine is {MACHINE}."


@pytest.mark.parametrize("other", [{"locks": "0" * 64}, {"packages": PACKAGES + " nginx"}])
def test_a_bundle_with_other_packages_than_this_version_of_the_workshop_needs_is_refused(tmp_path, scratch, other):
    file = write_bundle(tmp_path / "bundle.tar", **other)
    assert refusal(file).startswith(f"{file} is for another version of the workshop, which needs other packages: ")


def test_a_bundle_that_was_cut_off_or_damaged_is_refused(tmp_path, scratch):
    file = write_bundle(tmp_path / "bundle.tar")
    whole = file.read_bytes()
    at_a_member = whole.index(WHEEL) - tarfile.BLOCKSIZE  # where tar does not notice
    for damaged in (whole[:10_000], whole[:at_a_member], whole.replace(b"wheela", b"wheelb", 1)):
        file.write_bytes(damaged)
        assert refusal(file).startswith(f"{file} cannot be unpacked (")


# Making one


@pytest.fixture
def apt_get(tmp_path, monkeypatch):
    """Put a script in the place of apt-get."""

    def replace(script):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "apt-get").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    return replace


@pytest.fixture
def room(tmp_path):
    """The folder that a bundle is written to."""
    folder = tmp_path / "room"
    folder.mkdir()
    return folder


def test_without_network_no_bundle_is_left_and_one_that_was_there_is_kept(scratch, room, apt_get):
    apt_get("echo E: Unable to locate package haproxy >&2; exit 100")
    old = room / "old.tar"
    old.write_text("the one before")

    with pytest.raises(WorkshopError, match=r"^apt-get failed\. Is the network there\?(.|\n)*\nE: Unable to locate"):
        bundle.make(old, print)
    assert [path.name for path in room.iterdir()] == ["old.tar"]
    assert old.read_text() == "the one before"


def test_a_bundle_that_cannot_be_written_is_refused_before_anything_is_downloaded(scratch, room, apt_get):
    apt_get(f"touch {room}/downloading")
    a_file = room.parent / "bin" / "apt-get"
    for file in (room, room / "nowhere" / "bundle.tar", a_file / "bundle.tar", Path("/proc/bundle.tar")):
        with pytest.raises(WorkshopError, match=r"cannot be (written|made): "):
            bundle.make(file, print)
    assert list(room.iterdir()) == []


def test_an_interrupt_leaves_nothing_behind(scratch, room, apt_get, until):
    apt_get(f"touch {scratch.parent}/begun; exec tail --pid $PPID -f /dev/null")
    command = [sys.executable, "-m", "workshop", "bundle", room / "bundle.tar"]
    environment = os.environ | {"PYTHONPATH": str(paths.REPOSITORY / "platform")}
    making = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until((scratch.parent / "begun").exists, 20, "the download has begun")

    making.send_signal(signal.SIGTERM)
    _, said = making.communicate(timeout=20)
    assert (making.returncode, said.strip()) == (1, b"Aborted!")
    assert list(room.iterdir()) == []
