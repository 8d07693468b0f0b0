"""Examines this machine: each finding says what was seen, and what to do if it is not well."""

import os
import platform
import shutil
from dataclasses import dataclass

import psutil

from workshop import binaries, lifecycle, paths, ports, state, supervisor
from workshop.errors import WorkshopError

READY, MEND, ADMINISTRATOR = 0, 1, 2
LEAST_MEMORY = 700  # MiB available: what stage 0 takes with three instances, and room
LEAST_DISK = 500  # MiB free for databases, logs and builds


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    severity: int
    what: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything that `up` needs."""
    system_ = f"{platform.freedesktop_os_release().get('PRETTY_NAME', 'Linux')}, {platform.machine()}"
    return [
        Finding(READY, f"{system_}, Python {platform.python_version()}, {os.cpu_count()} cores"),
        *[binary(name) for name in binaries.BINARIES],
        run_folder(),
        disk(),
        memory(),
        public_port(),
    ]


def binary(name: str) -> Finding:
    """Look whether a program is there and of a version that will do."""
    if not binaries.find(name):
        return Finding(ADMINISTRATOR, f"{name} is missing", "./workshop setup installs it, or says who can")
    version = binaries.version(name)
    if not binaries.will_do(name, version):
        return Finding(
            ADMINISTRATOR,
            f"{name} {version} will not do: {binaries.BINARIES[name].why}",
            "use Debian 12 or Ubuntu 24.04",
        )
    return Finding(READY, f"{name} {version}")


def run_folder() -> Finding:
    """Look whether .run/ is ours, can be written, and has a path that the servers can live with."""
    try:
        state.refuse_foreign_folder()
    except WorkshopError as error:
        return Finding(ADMINISTRATOR, error.message)
    parent = paths.RUN if paths.RUN.exists() else paths.RUN.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        return Finding(MEND, f"{parent} cannot be written by you", "put the repository where you can write")
    if problem := supervisor.problem_with_path():
        return Finding(MEND, problem)
    return Finding(READY, f"{paths.RUN} can be written")


def disk() -> Finding:
    free = shutil.disk_usage(paths.RUN if paths.RUN.exists() else paths.RUN.parent).free >> 20
    if free < LEAST_DISK:
        return Finding(
            MEND, f"{free} MiB of disk free, {LEAST_DISK} are needed", "make room, or ./workshop down --wipe"
        )
    return Finding(READY, f"{free} MiB of disk free")


def memory() -> Finding:
    available = psutil.virtual_memory().available >> 20
    if available < LEAST_MEMORY:
        return Finding(MEND, f"{available} MiB of memory available, {LEAST_MEMORY} are needed", "end other programs")
    return Finding(READY, f"{available} MiB of memory available")


def public_port() -> Finding:
    """Look whether the page's usual port is free, or ours."""
    if paths.STATE.exists() and supervisor.is_running():
        return Finding(READY, f"a stage is up: {paths.STATE}")
    if paths.STATE.exists():
        return Finding(MEND, "a run was cut off, or this machine has crashed", "`down` cleans up, and so does `up`")
    if problem := ports.problem(lifecycle.PUBLIC_PORT):
        return Finding(READY, f"{problem}: `up` will choose another and say which")
    return Finding(READY, f"port {lifecycle.PUBLIC_PORT} is free")
