"""A disk that is full, or cannot be written: what cannot go on says so, and everything goes on once there is room."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import requests
from tests.load import in_rotation
from tests.privileges import as_root
from tests.workshops import make_workshop

from workshop import builds, paths, stage

pytestmark = as_root  # to mount a disk that is small enough to fill

SIZE = "400m"  # as much as `up` asks for, and a little
ATTEMPTS = 5  # at filling the disk
FULL = "The disk of the database is full."


class Disk:
    """A small disk, in memory."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.filler = folder / "filler"

    def mount(self, options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.folder], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def fill(self) -> None:
        """Take all the room there is, to the last byte, and what others, removing a file, give back meanwhile."""
        for _ in range(ATTEMPTS):
            with open(self.filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            if os.statvfs(self.folder).f_bavail == 0:
                return
        pytest.fail("the disk does not stay full")

    def make_room(self) -> None:
        self.filler.unlink()


@pytest.fixture
def workshop_on_disk():
    """A workshop whose run folder is on a disk of its own."""
    made = make_workshop()
    disk = Disk(made.run_folder)
    disk.mount(f"size={SIZE}")
    made.run_folder, made.disk = disk.folder / "run", disk
    yield made
    try:
        made.destroy()
    finally:
        disk.unmount()
        disk.folder.rmdir()


def assert_nothing_is_left(workshop) -> None:
    assert workshop.processes() == []
    assert not (workshop.run_folder / "stage.json").exists()
    assert list(workshop.run_folder.rglob("*.part")) == []


def test_up_on_a_full_disk_says_so_and_leaves_nothing(workshop_on_disk):
    workshop_on_disk.disk.fill()

    assert (
        "Error: 0 MiB of disk free, 300 are needed: make room" in workshop_on_disk.run("up", "stage0", expect=1).stderr
    )
    assert_nothing_is_left(workshop_on_disk)


def test_up_on_a_read_only_disk_says_so_and_doctor_says_what_to_do(workshop_on_disk):
    workshop_on_disk.disk.mount("remount,ro")

    assert "Read-only file system" in workshop_on_disk.run("up", "stage0", expect=1).stderr
    assert_nothing_is_left(workshop_on_disk)
    report = workshop_on_disk.run("doctor", expect=1).stdout
    assert "its disk is read-only\n  → have `WORKSHOP_RUN_DIR` name a folder of your own" in report
    workshop_on_disk.disk.mount("remount,rw")


def test_a_disk_that_fills_during_up_leaves_nothing(workshop_on_disk, until):
    process = workshop_on_disk.popen("up", "stage0")
    until((workshop_on_disk.run_folder / "stage.json").exists, 20, "it has begun")
    process.send_signal(signal.SIGSTOP)  # it could be done before the disk is full
    workshop_on_disk.disk.fill()
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 1, out
    assert "300 are needed: make room on the disk of" in err  # whatever was written at that moment
    assert "\nTraceback" not in err
    assert_nothing_is_left(workshop_on_disk)
    workshop_on_disk.disk.make_room()
    workshop_on_disk.up()


def test_a_build_for_which_there_is_no_room_leaves_nothing_half_made(workshop_on_disk, monkeypatch):
    monkeypatch.setattr(paths, "BUILDS", workshop_on_disk.disk.folder / "builds")
    paths.BUILDS.mkdir()
    workshop_on_disk.disk.fill()

    with pytest.raises(OSError, match="No space left on device"):
        builds.build(stage.load("stage0").services["monolith"])
    assert [file.name for file in paths.BUILDS.rglob("*")] in ([], ["monolith"])


class Author:
    """Posts messages and remembers which of them were acknowledged."""

    def __init__(self, url: str):
        self.url, self.acknowledged = url, []
        self.http = requests.Session()
        self.http.trust_env = False
        user = {"nickname": "ann", "password": "a long password"}
        self.send("POST", "users", json=user).raise_for_status()
        token = self.send("POST", "tokens", auth=tuple(user.values())).json()["token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    def send(self, method: str, what: str, **options) -> requests.Response:
        return self.http.request(method, f"{self.url}/api/{what}", timeout=10, **options)

    def post(self) -> requests.Response:
        answer = self.send("POST", "messages", json={"source": "words " * 100})
        if answer.status_code == 201:
            self.acknowledged.append(answer.json()["id"])
        return answer

    def lost(self) -> set[int]:
        kept = self.send("GET", "messages", params={"limit": 500}).json()["messages"]
        return set(self.acknowledged) - {message["id"] for message in kept}


def test_on_a_full_disk_reading_goes_on_and_posting_is_refused_until_there_is_room(
    workshop_on_disk, until, print_figure
):
    stage_ = workshop_on_disk
    stage_.up()
    stage_.run("scale", "monolith=3")
    author = Author(stage_.url)
    author.post()
    stage_.disk.fill()

    until(lambda: author.post().status_code == 503, 20, "posting is refused, when no file has room within it any more")
    assert author.post().json()["error"].startswith(FULL)
    assert author.send("GET", "messages").status_code == 200
    assert {i["state"] for i in stage_.instances()} == {"UP"}
    assert "No space left on device" in stage_.run("scale", "monolith=4", expect=1).stderr
    assert "0 MiB of disk free" in stage_.run("doctor", expect=1).stdout
    victim = stage_.instances()[0]
    os.killpg(victim["pid"], signal.SIGKILL)
    until(lambda: victim["id"] not in in_rotation(stage_), 5, "the killed one is out of rotation")
    until(lambda: len(in_rotation(stage_)) == 3, 15, "its successor is in rotation, on a full disk too")
    for process in (p for p in map(psutil.Process, stage_.processes()) if p.name() in ("etcd", "redis-server")):
        process.kill()
    until(lambda: {store["state"] for store in stage_.status()["stores"]} == {"UP"}, 15, "the stores are back")
    assert FULL in author.post().text

    stage_.disk.make_room()
    started = time.monotonic()
    until(lambda: author.post().status_code == 201, 20, "posting goes on")
    took = time.monotonic() - started
    print_figure(f"room on a full disk → posting goes on: {took:.2f} s")
    assert took < 5
    assert author.lost() == set()
    until(lambda: all_written(stage_), 15, "what could not be written has been written")
    assert {i["state"] for i in stage_.instances()} == {"UP"}


def all_written(stage_) -> bool:
    """Tell whether the files from which HAProxy and its manager would start name the instances as they are."""
    addresses = [instance["address"] for instance in stage_.instances()]
    config, last_good = (
        (stage_.run_folder / "haproxy" / name).read_text() for name in ("haproxy.cfg", "last_good.json")
    )
    return all(address in config and address.split(":")[1] in last_good for address in addresses)


def test_down_wipe_works_on_a_full_disk(workshop_on_disk):
    workshop_on_disk.up()
    workshop_on_disk.disk.fill()

    workshop_on_disk.run("down", "--wipe")
    assert workshop_on_disk.processes() == []
    assert not workshop_on_disk.run_folder.exists()
