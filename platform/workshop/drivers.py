"""The drivers: by what instances, workers, stores and the load balancer are run.

    process   each is a process on loopback, with a port of its own
    docker    each is a container with an address of its own, in one private network

All else is the same with both: what runs is a program that the supervisor has started, and starts again when it ends.
For a container that program is `docker run`, which ends with it.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import ClassVar, Protocol

from workshop import docker, paths, state
from workshop.docker import Container
from workshop.errors import WorkshopError
from workshop.processes import base_environment
from workshop.state import Up
from workshop.supervisor import Process, Program

CLEAN_UP_TIMEOUT = 60  # seconds; measured: 0.03 when nothing is left


class Driver(Protocol):
    """What a driver has to be able to do."""

    db: str  # where data is kept, unless it is said otherwise
    user: int  # as whom its programs run
    ports: dict[str, int]  # of its servers; none: whichever are free

    def problem(self) -> str | None:
        """Say what keeps it from running anything here, and what to do; None when nothing does."""

    def prepare(self, say: Callable[[str], None]) -> str:
        """Make the network, and what all images are made from; return its addresses, none for loopback."""

    def package(self, service: str, version: str, folder: Path, code: str) -> None:
        """Have what instances of a build need, beside its folder; `code` is its digest. Raises WorkshopError."""

    def environment(self, told: dict[str, str]) -> dict[str, str]:
        """Return the environment of a command, of which what it is `told` reaches the program."""

    def command(self, container: Container) -> list[str]:
        """Return the command that runs a program; without containers, that is the program's own."""

    def clean_up(self, name: str) -> list[str]:
        """Return the command that ends what is left when the command has been killed; empty when nothing is."""

    def pids(self, processes: list[Process]) -> dict[str, int | None]:
        """Return the process ids of instances and workers, not of what looks after them."""

    def signal(self, name: str, pid: int, sent: signal.Signals) -> bool:
        """Send a signal to an instance or worker with all its processes; False when it has ended meanwhile."""

    def end_left_over(self) -> list[str]:
        """End and remove all that it has made and that runs on; return what ran."""

    def wipe(self) -> None:
        """Remove what it has kept of the builds."""


class Processes:
    """The process driver: no more is needed than what runs the platform itself."""

    db = "sqlite"
    user = os.getuid()
    ports: ClassVar[dict[str, int]] = {}

    def problem(self) -> str | None:
        return None

    def prepare(self, say: Callable[[str], None]) -> str:
        return ""

    def package(self, service: str, version: str, folder: Path, code: str) -> None:
        pass  # one virtual environment has the packages of all services

    def environment(self, told: dict[str, str]) -> dict[str, str]:
        return base_environment() | told

    def command(self, container: Container) -> list[str]:
        return container.words

    def clean_up(self, name: str) -> list[str]:
        return []

    def pids(self, processes: list[Process]) -> dict[str, int | None]:
        def has_sidecar(process: Process) -> bool:
            return (paths.INSTANCES / f"{process.name}.json").exists()

        return {p.name: _first_child(p.pid) if has_sidecar(p) else p.pid or None for p in processes}

    def signal(self, name: str, pid: int, sent: signal.Signals) -> bool:
        try:
            os.killpg(os.getpgid(pid), sent)
        except ProcessLookupError:
            return False
        return True

    def end_left_over(self) -> list[str]:
        return []  # processes are found by their environment, whatever the driver: see processes.py

    def wipe(self) -> None:
        pass


def _first_child(pid: int) -> int | None:
    """Return the process id of the service that a sidecar has started; `up` asks for it fifty times a second.

    The kernel knows a process's children. psutil would look at all processes there are, and ask each for its parent.
    """
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return None  # it has just ended, or not started yet
    return int(children[0]) if children else None


DRIVERS: dict[str, Driver] = {"process": Processes(), "docker": docker.Docker()}


def of(up: Up) -> Driver:
    return DRIVERS[up.driver]


def current() -> Driver:
    """Return the driver of the stage that is up, or being brought up; when none is, the process driver."""
    try:
        return of(state.load())
    except WorkshopError:
        return DRIVERS["process"]


def clean_up(names: Collection[str]) -> None:
    """End what is left of instances, workers and migrations that have been ended, or killed."""
    driver = current()
    for name in names:
        if command := driver.clean_up(name):
            subprocess.run(command, env=driver.environment({}), capture_output=True, timeout=CLEAN_UP_TIMEOUT)


def server(up: Up, container: Container, stop_signal: str = "TERM") -> Program:
    """Return the program that is a server of the platform's own; it starts in the first of its folders."""
    driver = of(up)
    return Program(container.name, driver.command(container), container.folders[0], driver.environment({}), stop_signal)
