"""The programs of the system that the platform starts, and the oldest version of each that it works with.

Node.js and npm are not listed here: requirements.lock pins their version, as it does for every Python package.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass

from workshop.processes import base_environment

ASK_TIMEOUT = 10  # seconds for a program to say its version


@dataclass(frozen=True)
class Binary:
    option: str  # makes the program print its version
    oldest: tuple[int, int]
    why: str  # no older version will do
    is_for_up: bool = True  # otherwise for one option or command, which asks `problem` itself


BINARIES = {
    "python3": Binary("--version", (3, 11), "the code uses `tomllib` and `StrEnum`, which are new in Python 3.11"),
    "haproxy": Binary("-v", (2, 6), "it adds servers with health checks while it runs since 2.5; the tests use 2.6"),
    "redis-server": Binary("--version", (7, 0), "it is the oldest version that the tests use"),
    "etcd": Binary("--version", (3, 4), "its v3 API is at the path /v3 since 3.4"),
    "setpriv": Binary("--version", (2, 33), "it has the option --pdeathsig since 2.33"),
    "postgres": Binary("--version", (14, 0), "it has `recovery_init_sync_method` since 14", is_for_up=False),
    "docker": Binary("--version", (20, 10), "it supports cgroup v2, which Debian uses, since 20.10", is_for_up=False),
    "git": Binary("--version", (2, 13), "it has the command `git stash push` since 2.13", is_for_up=False),
    "chromium": Binary(
        "--version", (150, 0), "Playwright is made for version 159, and the tests use 156", is_for_up=False
    ),
}
FOR_UP = [name for name, binary in BINARIES.items() if binary.is_for_up]


def find(name: str) -> str | None:
    """Return where a program lies; None when it is missing."""
    return shutil.which(name, path=base_environment()["PATH"])


def version(name: str) -> str:
    """Return the version that a program says it has, such as 2.6.12; 0.0 when it says none."""
    command = [find(name), BINARIES[name].option]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=ASK_TIMEOUT).stdout
    except (OSError, subprocess.TimeoutExpired):  # it is made for another machine, or hangs
        said = ""
    found = re.search(r"\d+\.\d+[.\d]*", said)
    return found[0] if found else "0.0"


def problem(name: str, its_version: str) -> str | None:
    """Say that a version of a program is too old, and why; None if it is not."""
    binary = BINARIES[name]
    if number(its_version) >= binary.oldest:
        return None
    return f"{name} {its_version} is older than {binary.oldest[0]}.{binary.oldest[1]} ({binary.why})"


def number(its_version: str) -> tuple[int, int]:
    """Return the first two numbers of a version, which can be compared; the second is 0 if there is only one."""
    major, minor = (int(part) for part in [*its_version.split("."), "0"][:2])
    return major, minor
