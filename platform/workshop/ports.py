"""Loopback ports that are free, and whose processes stand in the way when one is not."""

import errno
import fcntl
import ipaddress
import json
import os
import random
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TextIO

import psutil

from workshop.errors import WorkshopError

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost", "[::1]")  # as the Host header of a request names it
# The port of each page that a command serves, unless the port is taken or another one is asked for.
DEFAULTS: dict[str, int] = json.loads(Path(__file__).parents[1].joinpath("ports.json").read_text(encoding="utf-8"))
PUBLIC_PORT = DEFAULTS["chat"]  # the statistics are one above
BIND = os.environ.get("WORKSHOP_BIND") or HOST  # where pages listen; in a VM and in the image, on every interface
SERVICE_PORT = 5000  # of an instance that has an address of its own
# Below the ephemeral range of Linux (32768–60999), from which outgoing connections take theirs, so that no
# connection of anybody's can grab a port between our looking and the service's binding. Drawn at random, so
# that the port of an instance that has just died is not soon another's.
RANGE = range(20000, 32000)
ATTEMPTS = 100
CONNECT_TIMEOUT = 0.5  # seconds; loopback takes microseconds


def is_free(port: int) -> bool:
    """Tell whether a server of this user could listen on this loopback port now."""
    return _refusal(port) is None


def problem(port: int) -> str | None:
    """Say what keeps a server of this user from listening on this loopback port; None when nothing does."""
    match _refusal(port):
        case None:
            return None
        case errno.EADDRINUSE:
            return f"Port {port} is taken by {listener(port)}"
        case _:
            return f"Port {port} is for root only, as all below 1024 are"


def _refusal(port: int) -> int | None:
    """Return why this user cannot listen on this loopback port, EADDRINUSE or EACCES; None when it can."""
    with socket.socket() as probe:
        # Servers set SO_REUSEADDR too: connections lingering in TIME_WAIT do not keep them from binding.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            return error.errno
    return None


def answers(port: int, host: str = HOST) -> bool:
    """Tell whether something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True


def free_port(wanted: int | None = None, avoid: Collection[int] = ()) -> int:
    """Return `wanted` if it is free, or a free port of RANGE not to be avoided. Raises WorkshopError without one."""
    if wanted and is_free(wanted):
        return wanted
    for port in random.sample(RANGE, ATTEMPTS):
        if port not in avoid and is_free(port):
            return port
    raise WorkshopError(
        f"Of {ATTEMPTS} ports between {RANGE[0]} and {RANGE[-1]}, none is free: end some of what listens there "
        "(`ss -ltn` lists it)."
    )


def choose(page: str, asked: int | None, say: Callable[[str], None]) -> int:
    """Return the port for a page: `asked`, or its default. If the default is taken, report that and return another.

    Raises WorkshopError when `asked` is taken.
    """
    wanted = DEFAULTS[page] if asked is None else asked
    taken = problem(wanted)
    if not taken:
        return wanted
    if asked is not None:
        raise WorkshopError(f"{taken}: choose another one with --port.")
    other = free_port()
    say(f"{taken}: {other} instead.")
    return other


def claim_address(network: str, folder: Path) -> tuple[str, TextIO]:
    """Return an address for a container, drawn at random, and an open file: until it is closed, nobody else gets it.

    The first addresses are the servers', the last ones Docker's. Raises WorkshopError when all others are claimed.
    """
    addresses = ipaddress.ip_network(network)
    ours = range(16, addresses.num_addresses - 64)
    for number in random.sample(ours, min(ATTEMPTS, len(ours))):
        file = open(folder / f"{addresses[number]}.claim", "w", encoding="utf-8")  # noqa: SIM115  # the caller keeps it open
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return str(addresses[number]), file
    raise WorkshopError(f"Of {ATTEMPTS} addresses in {network}, none is free.")


def listener(port: int) -> str:
    """Describe the process that listens on this port; only root may see everybody's."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()}, process {connection.pid}"
            except psutil.NoSuchProcess:
                return "a process that has just ended"
    return f"a process that you may not see (`sudo ss -ltnp 'sport = :{port}'` names it)"
