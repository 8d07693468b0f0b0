"""What the doctor finds, each with the real thing where that can be had: programs, ports, disks, files, clocks."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tests.privileges import as_root

from workshop import binaries, doctor, paths, ports, postgres, supervisor, wsl
from workshop.errors import WorkshopError

NOBODY = 65534


def as_nobody(ask: Callable[[], str]) -> str:
    """Return what a user without any rights is answered."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, ask().encode())
        finally:
            os._exit(0)  # nothing of pytest's is the child's business
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, encoding="utf-8") as answer:
        return answer.read()


@pytest.fixture(autouse=True)
def run_folder(tmp_path, monkeypatch):
    """A run folder of its own, in which nothing is up."""
    monkeypatch.setattr(paths, "RUN", tmp_path / "run")
    monkeypatch.setattr(supervisor, "is_running", lambda: False)
    paths.RUN.mkdir()
    return paths.RUN


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put programs into the only folder of the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(binaries, "base_environment", lambda: {"PATH": str(folder)})

    def make(name: str, says: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{says}\n")
        (folder / name).chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("name", "says", "expected"),
    [
        ("python3", "echo Python 3.10.12", "python3 3.10.12 is older than 3.11 (the code uses `tomllib`"),
        ("haproxy", "echo HAProxy version 2.4.22-0ubuntu0.22.04.3 2023/12/04", "haproxy 2.4.22 is older than 2.6 (it"),
        ("redis-server", "echo Redis server v=6.2.14 sha=00000000:0", "redis-server 6.2.14 is older than 7.0 (it"),
        ("etcd", "echo etcd Version: 3.3.25", "etcd 3.3.25 is older than 3.4 (its v3 API is at the path /v3 since"),
        ("setpriv", "echo setpriv from util-linux 2.31.1", "setpriv 2.31.1 is older than 2.33 (it has the option"),
        ("haproxy", "exit 127", "haproxy 0.0 is older than 2.6"),
    ],
)
def test_a_program_that_is_too_old(program, name, says, expected):
    program(name, says)

    found = doctor.binary(name)
    assert expected in found.what
    assert (found.severity, found.stops_up) == (doctor.ADMINISTRATOR, True)
    assert found.remedy.startswith("use the one of Debian 12 or 13 instead of /")


def test_a_program_that_is_missing(program):
    found = doctor.binary("etcd")

    assert (found.severity, found.stops_up) == (doctor.ADMINISTRATOR, True)
    assert str(found) == "etcd is missing: run `./workshop setup`, which installs it or says who can."


def test_a_program_that_will_do(program):
    program("haproxy", "echo HAProxy version 2.8.5-1ubuntu3 2024/04/01")

    assert doctor.binary("haproxy") == doctor.Finding(doctor.READY, "haproxy 2.8.5")


@as_root
def test_a_run_folder_that_this_user_may_not_write(monkeypatch):
    monkeypatch.setattr(paths, "RUN", Path("/usr/run"))
    monkeypatch.setattr(paths, "REPOSITORY", Path("/usr"))

    assert as_nobody(lambda: str(doctor.run_folder())).startswith(
        "/usr cannot be written by you: have `WORKSHOP_RUN_DIR`"
    )
    assert as_nobody(lambda: str(doctor.repository())).startswith("/usr cannot be written by you: copy the repository")


@as_root
def test_a_run_folder_that_this_user_may_not_even_look_into(monkeypatch):
    monkeypatch.setattr(paths, "RUN", Path("/root/run"))

    assert as_nobody(lambda: str(doctor.run_folder())).startswith(
        "/root/run cannot be reached by you: have `WORKSHOP_RU"
    )
    assert as_nobody(lambda: doctor.disk().what).endswith("MiB of disk free")


@as_root
def test_a_file_of_another_user_in_the_run_folder(run_folder):
    (run_folder / "data").mkdir()
    (run_folder / "data" / "parley.db").touch()
    os.chown(run_folder / "data" / "parley.db", NOBODY, NOBODY)

    found = doctor.run_folder()
    assert f"parley.db belongs to user {NOBODY}, perhaps after a `sudo ./workshop`" in found.what
    assert found.remedy == f"run `sudo chown -R root {run_folder}`"
    assert (found.severity, found.stops_up) == (doctor.ADMINISTRATOR, True)


@pytest.fixture
def disk(run_folder):
    """Mount a disk of a size, in memory, as the run folder."""

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", run_folder], check=True)

    yield mount
    while subprocess.run(["umount", "--lazy", run_folder], stderr=subprocess.DEVNULL).returncode == 0:
        pass


@as_root
def test_a_run_folder_on_a_read_only_disk(disk):
    disk("ro")

    found = doctor.run_folder()
    assert "cannot be written, its disk is read-only" in found.what
    assert (found.severity, found.stops_up) == (doctor.MEND, True)


@as_root
def test_a_repository_on_a_read_only_disk(disk, monkeypatch):
    disk("ro")
    monkeypatch.setattr(paths, "REPOSITORY", paths.RUN)

    found = doctor.repository()
    assert "cannot be written by you" in found.what
    assert (found.severity, found.stops_up) == (doctor.MEND, False)


@as_root
def test_a_disk_without_room(disk):
    disk("size=20m")

    assert doctor.disk().what == "20 MiB of disk free, 300 are needed"
    assert doctor.disk().stops_up


@as_root
def test_a_disk_without_room_for_more_files(disk):
    disk("nr_inodes=100")

    assert doctor.disk().what == "the disk has room for 99 more files (inodes), 1000 are needed"
    assert doctor.disk().stops_up


def test_too_little_memory(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 << 20))

    assert doctor.memory().what == "100 MiB of memory available, 700 are needed"
    assert (doctor.memory().severity, doctor.memory().stops_up) == (doctor.MEND, False)


@pytest.mark.parametrize("kind", ["vboxsf", "9p", "nfs4", "cifs", "virtiofs", "fuse.sshfs", "fuse.vmhgfs-fuse"])
def test_a_run_folder_on_a_shared_folder(monkeypatch, run_folder, kind):
    mounts = [("/", "ext4"), (str(run_folder.parent), kind)]
    rows = [SimpleNamespace(mountpoint=folder, fstype=fstype) for folder, fstype in mounts]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: rows)

    found = doctor.shared_folder()
    assert f"is on a shared folder ({kind})" in found.what
    assert "such as /var/tmp/workshop" in found.remedy
    assert (found.severity, found.stops_up) == (doctor.MEND, True)

    rows.append(SimpleNamespace(mountpoint=str(run_folder), fstype="tmpfs"))
    assert doctor.shared_folder() == doctor.Finding(doctor.READY, "not on a shared folder (tmpfs)")


@as_root
def test_the_disk_of_a_path_is_the_one_mounted_nearest_to_it(disk, run_folder):
    disk("size=1m")

    assert doctor._filesystem(run_folder / "data" / "parley.db") == "tmpfs"
    assert doctor._filesystem(run_folder.parent) != "tmpfs"


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("exceptions", [{}, {"no_proxy": "example.org"}, {"no_proxy": "localhost"}, {"NO_PROXY": ""}])
def test_a_proxy_that_would_catch_what_is_on_loopback(variable, exceptions):
    found = doctor.proxy({variable: "http://ann:secret@proxy.example.org:3128"} | exceptions)

    assert found.what.startswith(variable)
    assert "no_proxy=127.0.0.1,localhost" in found.remedy
    assert "secret" not in str(found)
    assert (found.severity, found.stops_up) == (doctor.MEND, False)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"http_proxy": "http://proxy.example.org:3128", "no_proxy": "127.0.0.1"},
        {"http_proxy": "http://proxy.example.org:3128", "no_proxy": "127.0.0.1,localhost"},
        {"http_proxy": "http://proxy.example.org:3128", "NO_PROXY": "localhost, 127.0.0.0/8, .example.org"},
        {"all_proxy": "socks5://proxy.example.org", "no_proxy": "*"},
        {"https_proxy": "http://proxy.example.org:3128"},  # nothing on loopback is https
        {"HTTP_PROXY": "http://proxy.example.org:3128"},  # curl does not look at it
    ],
)
def test_a_proxy_that_lets_loopback_be(environment):
    assert doctor.proxy(environment).severity == doctor.READY


def test_a_clock_that_is_behind_what_has_been_written_already(run_folder, monkeypatch):
    assert doctor.clock().severity == doctor.READY
    later = time.time() + 3600
    written = [run_folder / "stage.json", run_folder / "secrets.json"]
    for file in written:
        file.touch()
        os.utime(file, (later, later))

    found = doctor.clock()
    assert f"but {run_folder}/" in found.what
    assert "timedatectl" in found.remedy
    assert (found.severity, found.stops_up) == (doctor.MEND, False)

    monkeypatch.setattr(paths, "REPOSITORY", run_folder)  # so that the learner's files are left alone
    subprocess.run(["sh", "-c", doctor.clock().remedy.split("`")[3]], check=True)
    assert doctor.clock().severity == doctor.READY


def test_a_clock_that_has_been_set_back_by_years(time_machine):
    time_machine.move_to("2001-01-01")

    assert "the clock says 2001-01-01 00:00:00 UTC, but " in doctor.clock().what


@pytest.fixture
def windows(tmp_path, monkeypatch):
    """A machine with WSL 2, whose C: is mounted at /mnt/c, and a clock of Windows that the test can set."""
    (tmp_path / "version").write_text("Linux version 6.6.87.2-microsoft-standard-WSL2 (root@builder) (gcc 11.2.0)\n")
    rows = [SimpleNamespace(mountpoint=folder, fstype=kind) for folder, kind in [("/", "ext4"), ("/mnt/c", "9p")]]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: rows)
    monkeypatch.setattr(wsl, "KERNEL", tmp_path / "version")
    monkeypatch.setattr(wsl, "HARDWARE_CLOCK", tmp_path / "since_epoch")
    return wsl.HARDWARE_CLOCK


@pytest.mark.parametrize(("run", "stops_up"), [("/mnt/c/Users/ann/workshop/.run", True), ("/home/ann/run", False)])
def test_a_repository_on_a_drive_of_windows(windows, monkeypatch, run, stops_up):
    monkeypatch.setattr(paths, "REPOSITORY", Path("/mnt/c/Users/ann/workshop"))
    monkeypatch.setattr(paths, "RUN", Path(run))

    found = doctor.shared_folder()
    assert found.what.startswith("/mnt/c/Users/ann/workshop is on a drive of Windows (9p), which is slow")
    assert found.remedy.startswith("clone the repository into your home folder in WSL")
    assert (found.severity, found.stops_up) == (doctor.MEND, stops_up)


def test_a_repository_on_the_disk_of_wsl(windows):
    assert doctor.shared_folder() == doctor.Finding(doctor.READY, "not on a shared folder (ext4)")


def test_a_clock_of_wsl_that_is_behind_that_of_windows(windows):
    assert doctor.clock().severity == doctor.READY  # there is no clock to compare it with
    windows.write_text(f"{int(time.time()) + 5}\n")
    assert doctor.clock().severity == doctor.READY

    windows.write_text(f"{int(time.time()) + 3600}\n")
    found = doctor.clock()
    assert re.search(r"the clock says .+ UTC, (3599|3600) s behind that of Windows", found.what)
    assert found.remedy.startswith("run `wsl --shutdown` in Windows")
    assert (found.severity, found.stops_up) == (doctor.MEND, False)


def test_without_wsl_the_hardware_clock_may_show_local_time(windows):
    windows.write_text(f"{int(time.time()) + 3600}\n")
    wsl.KERNEL.write_text("Linux version 6.1.0-41-amd64 (debian-kernel@lists.debian.org)\n")

    assert doctor.clock().severity == doctor.READY


def test_a_port_that_is_taken_is_named_with_its_holder():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ports.problem(port) == f"Port {port} is taken by {psutil.Process().name()}, process {os.getpid()}"
        assert not ports.is_free(port)


@as_root
def test_a_port_whose_holder_this_user_may_not_see_is_named_with_the_command_that_shows_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def ask() -> str:
            server.close()  # the child's copy of it
            return ports.problem(port)

        problem = as_nobody(ask)
    assert f"a process that you may not see (`sudo ss -ltnp 'sport = :{port}'` names it)" in problem


def test_without_a_free_port_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda port: False)

    with pytest.raises(WorkshopError, match="Of 100 ports between 20000 and 31999, none is free: end some"):
        ports.free_port(8080)


@pytest.mark.parametrize("look", [doctor.run_folder, doctor.clock])
def test_a_folder_that_vanishes_while_it_is_looked_at(look, run_folder, monkeypatch):
    (run_folder / "stores" / "etcd").mkdir(parents=True)
    scandir = os.scandir

    def remove_first(folder):
        if str(folder) == str(run_folder / "stores"):
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", remove_first)
    assert look().severity == doctor.READY
    assert not (run_folder / "stores").exists()


def test_an_empty_database_is_damaged_once_something_was_migrated(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    (tmp_path / "parley.db").touch()

    assert doctor.databases() == []
    (tmp_path / "monolith.migrated").touch()
    (found,) = doctor.databases()
    assert found.what == f"{tmp_path}/parley.db is damaged: it is empty"


def test_up_warns_of_what_it_can_live_with_and_refuses_what_it_cannot(monkeypatch):
    findings = [doctor.Finding(doctor.MEND, "little memory", "end something")]
    monkeypatch.setattr(doctor, "what_up_needs", lambda: findings)
    said = []
    doctor.stop_or_warn("sqlite", "process", said.append)
    assert said == ["Warning: little memory: end something."]

    findings.append(doctor.Finding(doctor.MEND, "no room", "make some", stops_up=True))
    with pytest.raises(WorkshopError, match="no room: make some"):
        doctor.stop_or_warn("sqlite", "process", said.append)


def test_what_postgresql_lacks_stops_only_an_up_that_wants_it(monkeypatch):
    monkeypatch.setattr(doctor, "what_up_needs", list)
    monkeypatch.setattr(postgres, "problem", lambda: "PostgreSQL is missing: run `./workshop setup`")
    assert doctor.postgresql() == doctor.Finding(
        doctor.READY, "no `up --db postgres` here: PostgreSQL is missing: run `./workshop setup`"
    )
    doctor.stop_or_warn("sqlite", "process", print)
    with pytest.raises(WorkshopError, match="PostgreSQL is missing: run"):
        doctor.stop_or_warn("postgres", "process", print)
