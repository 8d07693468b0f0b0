"""The programs of the system that the platform starts, and which versions of them will do."""

import re
import shutil
import subprocess
from dataclasses import dataclass

from workshop.processes import base_environment

ASK_TIMEOUT = 10  # seconds for a program to say its version


@dataclass(frozen=True)
class Binary:
    option: str  # that makes it say its version
    oldest: tuple[int, int]
    why: str


BINARIES = {
    "haproxy": Binary("-v", (2, 6), "servers are added while it runs"),
    "redis-server": Binary("--version", (6, 0), "the oldest that a supported distribution has"),
    "etcd": Binary("--version", (3, 4), "its v3 API must be at /v3"),
    "setpriv": Binary("--version", (2, 33), "it must know --pdeathsig"),
}


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


def will_do(name: str, its_version: str) -> bool:
    """Tell whether the platform works with this version of a program."""
    return number(its_version) >= BINARIES[name].oldest


def number(its_version: str) -> tuple[int, int]:
    """Return a version's first two numbers, to be compared."""
    major, minor = (int(part) for part in its_version.split(".")[:2])
    return major, minor
