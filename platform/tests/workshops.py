"""A workshop of a test's own, beside the one that a learner runs: the command line, and what it has brought up.

Not in conftest.py, of which pytest makes another module when a test imports it: each would have a `driver` of its own.
"""

import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from sqlalchemy import Engine, create_engine

from workshop import paths
from workshop.ports import HOST, free_port
from workshop.registry import Registry
from workshop.sidecar import Instance
from workshop.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
POLL = 0.01  # seconds between two looks at what a test waits for
COMMAND_TIMEOUT = {"process": 90, "docker": 600}  # seconds for any command of the workshop: images take some minutes
NOT_COPIED = shutil.ignore_patterns(".git", ".run", ".venv", "node_modules", "work", "__pycache__", ".*_cache")
DIFFERENCES = tomllib.loads((REPOSITORY / "platform" / "contract" / "differences.toml").read_text())
# Where the pages are served whose links are expanded in tests, which link expansion refuses otherwise: on loopback; to
# containers, by the gateway of their network, which Docker takes from these.
SITES = {"process": "127.0.0.0/8", "docker": "172.16.0.0/12, 192.168.0.0/16"}
DBS = {"process": "sqlite", "docker": "postgres"}  # unless another one is asked for


@dataclass
class Workshop:
    """The command line, run as a user does, with a folder of its own below /tmp for what it creates."""

    repository: Path
    run_folder: Path
    stage: str = "stage0"
    db: str = "sqlite"
    driver: ClassVar[str] = "process"  # of all: --driver
    registry_api: ClassVar[str | None] = None  # of all: --registry

    def popen(self, *arguments: str, **options) -> subprocess.Popen:
        environment = os.environ | {
            "LINK_ALLOWED_NETWORKS": SITES[self.driver],
            "WORKSHOP_RUN_DIR": str(self.run_folder),
        }
        if arguments[0] == "up" and "--port" not in arguments:
            arguments += ("--port", str(free_port()))  # the usual one is the learner's
        if arguments[0] == "up" and "--driver" not in arguments:
            arguments += ("--driver", self.driver)
        if arguments[0] == "up" and self.registry_api and "--registry" not in arguments:
            arguments += ("--registry", self.registry_api)
        return subprocess.Popen(
            [str(self.repository / "workshop"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            **options,
        )

    def run(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess:
        """Run a command; assert that it exits with `expect`."""
        process = self.popen(*arguments)
        try:
            out, err = process.communicate(timeout=COMMAND_TIMEOUT[self.driver])
        except BaseException:
            process.kill()
            raise
        assert process.returncode == expect, f"./workshop {' '.join(arguments)}: {process.returncode}\n{out}\n{err}"
        assert not re.search("(?m)^Traceback", err), err  # a log that is quoted is indented
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def up(self, *arguments: str) -> dict:
        self.run("up", self.stage, "--db", self.db, *arguments)
        return self.status()

    def status(self) -> dict:
        return json.loads(self.run("status", "--json").stdout)

    @property
    def differences(self) -> dict:
        """Return what is meant to differ from stage to stage: this stage's row of contract/differences.toml."""
        return DIFFERENCES[self.stage]

    @property
    def url(self) -> str:
        return self.status()["url"].rstrip("/")

    @property
    def chat(self) -> str:
        """Return the service that reads and stores messages: what the probe's load goes to."""
        return self.differences["services"]["/api/messages"]

    @property
    def site_host(self) -> str:
        """Return the address at which a test can serve pages to the stage that is up: see SITES."""
        network = json.loads((self.run_folder / "stage.json").read_text())["network"]
        return str(ipaddress.ip_network(network)[1]) if network else HOST

    def instances(self, service: str | None = None) -> list[dict]:
        return next(s["instances"] for s in self.status()["services"] if s["name"] == (service or self.chat))

    def registry(self) -> Registry:
        """Return a connection to the registry of the stage that is up."""
        address = next(store["address"] for store in self.status()["stores"] if store["name"] == "registry")
        api = json.loads((self.run_folder / paths.STATE.name).read_text())["registry_api"]
        return Registry(address, self.run_folder / paths.CERTIFICATES.name, api)

    def environment(self, service: str) -> dict[str, str]:
        """Return what an instance of the service was told, such as the addresses of its stores."""
        instance = self.instances(service)[0]["id"]
        return Instance.load(self.run_folder / "instances" / f"{instance}.json").environment

    @contextmanager
    def database(self, service: str) -> Iterator[Engine]:
        """Reach the database of a service, whichever it is."""
        engine = create_engine(self.environment(service)["DATABASE_URL"])
        yield engine
        engine.dispose()

    def processes(self, variable: str = "WORKSHOP_PLATFORM") -> list[int]:
        """Return every process that belongs to this workshop, as its environment says, whoever its parent is by now."""
        mark = f"{variable}={self.run_folder}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
            except OSError:
                continue  # ended meanwhile, or somebody else's
        return found

    def names(self) -> list[str]:
        """Return the command lines of all processes."""
        found = []
        for pid in self.processes():
            try:
                found.append(Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " "))
            except OSError:
                continue  # ended meanwhile
        return found

    def destroy(self) -> None:
        """End everything at once, by pid: how `down` ends it in good order is tested where that is the subject."""
        until(lambda: not self.kill_all(), 10, "all processes ended")
        if self.driver == "docker":
            self.run("down", "--wipe")  # containers and images
        shutil.rmtree(self.run_folder, ignore_errors=True)

    def kill_all(self) -> list[int]:
        """Kill all processes, which may be starting others, and commands that go on; return those there were."""
        pids = self.processes() + self.processes("WORKSHOP_RUN_DIR")
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended meanwhile
        return pids


def make_workshop(repository: Path = REPOSITORY) -> Workshop:
    # Not pytest's own temporary folders: their paths are too long for sockets.
    return Workshop(repository, Path(tempfile.mkdtemp(prefix="workshop-")))


@contextmanager
def copy_of_the_repository():
    """Yield a workshop in a copy of the repository, whose files a test may change."""
    folder = Path(tempfile.mkdtemp(prefix="copy-"))
    shutil.copytree(REPOSITORY, folder / "repository", ignore=NOT_COPIED)
    for shared in (".venv", "node_modules"):
        (folder / "repository" / shared).symlink_to(REPOSITORY / shared)
    made = make_workshop(folder / "repository")
    try:
        yield made
    finally:
        made.destroy()
        shutil.rmtree(folder)


def at_full_strength(workshop: Workshop) -> Workshop:
    """Bring a stage to several instances of everything, all up: stage 0 to three web instances and two workers."""
    wanted = workshop.differences["instances"]

    def is_whole() -> bool:
        states = {s["name"]: [i["state"] for i in s["instances"]] for s in workshop.status()["services"]}
        return all(states[name] == ["UP"] * count for name, count in wanted.items())

    if not is_whole():
        workshop.run("scale", *(f"{service}={count}" for service, count in wanted.items()))
        until(is_whole, timeout=20, what="all instances up")
    return workshop


def until(condition, timeout: float, what: str):
    """Ask `condition`, at least once, until it returns something true; return that, fail after `timeout` seconds."""
    return wait_until(condition, timeout, POLL) or pytest.fail(f"not within {timeout} s: {what}")
