"""What is up: written by `up`, read by every other command and by the platform's own processes."""

import contextlib
import dataclasses
import fcntl
import ipaddress
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import psutil

from workshop import paths
from workshop.errors import WorkshopError
from workshop.files import write_atomically
from workshop.ports import DEFAULTS, HOST, LOOPBACK
from workshop.waiting import wait_until

# Which have addresses of their own in a network of containers: the first ones, after the gateway's.
SERVERS = ("registry", "queue", "postgres", "balancer")
PATIENCE = 0.2  # seconds for a lock: `doctor`, looking whether it is held, holds it for an instant


@dataclass(frozen=True)
class Frontends:
    """Where the load balancer listens, as address:port, and the hosts by which it may be addressed."""

    public: str
    internal: str
    statistics: str
    hosts: list[str]


@dataclass
class Up:
    """A stage that is up, or being brought up."""

    stage: str
    driver: str
    db: str
    ports: dict[str, int]  # public, internal, statistics, registry, registry_peer, queue, postgres
    versions: dict[str, str]  # service → the version that its instances run
    counts: dict[str, int]  # service or worker → the instances that it is to have
    settings: dict[str, str]  # environment variable → the value it was given when the stage was brought up
    ready: bool = False  # `up` has seen it answer
    previous: dict[str, str] = field(default_factory=dict)  # service → the version before, to which `rollback` goes
    canaries: dict[str, str] = field(default_factory=dict)  # service → the version that one instance tries out
    steps: int = 0  # of the way to the next stage that are done
    has_begun: bool = False  # a further one has: unless a command is at work on it, it was interrupted
    routes: dict[str, str] = field(default_factory=dict)  # to begin with, where it was taken down on that way
    bind: str = HOST  # where the page and the statistics are
    joined: dict[str, dict] = field(default_factory=dict)  # service that `join` has added → its declaration
    names: list[str] = field(default_factory=list)  # by which browsers reach it, besides those of loopback
    registry_api: str = "v2"  # etcd's: v2 or v3
    network: str = ""  # of the containers, such as 172.18.0.0/16; none: everything is on loopback

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.ports['public']}/"

    @property
    def chosen(self) -> set[str]:
        """Return the services and workers that stage.toml declares and that run: of the optional ones, those chosen."""
        return self.counts.keys() - self.joined.keys()

    @property
    def is_on_the_way(self) -> bool:
        """Tell whether it is between its stage and the next one."""
        return self.steps > 0 or self.has_begun

    @property
    def stats_url(self) -> str:
        return f"http://{HOST}:{self.ports['statistics']}/"

    @property
    def internal_url(self) -> str:
        """Return where services call each other."""
        return f"http://{self.host('balancer')}:{self.ports['internal']}"

    @property
    def registry(self) -> str:
        return self.address("registry")

    @property
    def frontends(self) -> Frontends:
        host = self.host("balancer")
        outside = host if self.network else self.bind
        addresses = {"public": outside, "statistics": outside, "internal": host}
        return Frontends(**{name: f"{at}:{self.ports[name]}" for name, at in addresses.items()}, hosts=self.hosts)

    @property
    def hosts(self) -> list[str]:
        """Return what the Host header of a request may name: any other is that of a page (DNS rebinding)."""
        return list(dict.fromkeys([*LOOPBACK, self.host("balancer"), *self.names]))

    def host(self, server: str) -> str:
        """Return the IP address of one of the SERVERS."""
        return str(ipaddress.ip_network(self.network)[2 + SERVERS.index(server)]) if self.network else HOST

    def address(self, server: str) -> str:
        return f"{self.host(server)}:{self.ports[server]}"

    def deployed(self, service: str, version: str) -> "Up":
        """Return what is up once `version` of the service is: it becomes what runs, and what did the previous one."""
        if version == self.versions[service]:
            return self
        previous = self.previous | {service: self.versions[service]}
        return dataclasses.replace(self, versions=self.versions | {service: version}, previous=previous)

    def refuse_canary(self, service: str) -> None:
        """Raise WorkshopError when a canary of the service is being tried out: its end has to be decided first."""
        if service in self.canaries:
            raise WorkshopError(
                f"{service} has a canary, {self.canaries[service]}: "
                f"`./workshop promote {service}` or `./workshop abort {service}` comes first."
            )

    def ensure_not_joined(self, service: str, command: str) -> None:
        """Raise WorkshopError for a service that `join` has added: its code is not deployed in versions."""
        if service in self.joined:
            raise WorkshopError(
                f"{service} has joined from outside stage.toml, and `{command}` handles only the stage's own services. "
                f"Use `./workshop leave {service}`, then `join` it again to run its code as it is now."
            )

    def save(self, file: Path = paths.STATE) -> None:
        write_atomically(file, json.dumps(dataclasses.asdict(self), indent=2))


def load() -> Up:
    """Return what is up. Raises WorkshopError when nothing is."""
    refuse_foreign_folder()
    if up := _read(paths.STATE):
        return up
    raise WorkshopError("No stage is up: start one with `./workshop up stage0`.")


def with_real_ports(text: str) -> str:
    """Return a text with the ports of the stage that is up in place of `localhost:8080` and `:8081`."""
    try:
        up = load()
    except WorkshopError:
        return text  # no stage is up
    real = {DEFAULTS["chat"]: up.ports["public"], DEFAULTS["statistics"]: up.ports["statistics"]}
    return re.sub(
        rf"(?<=localhost:|127\.0\.0\.1:)({'|'.join(map(str, real))})\b", lambda port: str(real[int(port[0])]), text
    )


def left_on_the_way() -> Up | None:
    """Return what was up last, if it was between two stages: its data is, too."""
    return _read(paths.ON_THE_WAY)


def _read(file: Path) -> Up | None:
    try:
        return Up(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError):
        raise WorkshopError(f"{file} is of another version, or damaged: run `./workshop down` first.") from None


def refuse_foreign_folder() -> None:
    """Raise WorkshopError when another user's processes run from our folder: we could neither see nor end them."""
    if paths.RUN.exists() and (owner := paths.RUN.stat().st_uid) != os.getuid():
        name = psutil.Process().username()
        raise WorkshopError(
            f"{paths.RUN} belongs to user {owner}, not to you: be that user, or once everything of theirs is down, "
            f"run `sudo chown -R {name} {paths.RUN}`."
        )


@contextlib.contextmanager
def locked(what: str):
    """Hold the right to change what runs; raises WorkshopError, naming the holder, when another command has it."""
    refuse_foreign_folder()
    paths.RUN.mkdir(mode=0o700, parents=True, exist_ok=True)  # databases, logs and secrets: nobody else's business
    with _open_lock() as file:
        if not wait_until(lambda: _lock(file, fcntl.LOCK_EX), PATIENCE):
            raise WorkshopError(f"{_holder(file)} is at work: try again when it is done.")
        with contextlib.suppress(OSError):  # on a full disk, the next one is not told our name: `down` must work there
            paths.LOCK.write_text(f"`./workshop {what}` (process {os.getpid()})")
        yield


def at_work() -> str | None:
    """Return the command that is changing what runs; None when none is."""
    if not paths.LOCK.exists():
        return None
    with _open_lock() as file:
        return None if _lock(file, fcntl.LOCK_SH) else _holder(file)


def _holder(file: TextIO) -> str:
    """Return the command that has the lock; on a full disk, it could not write its name."""
    return file.read() or "another command"


def _open_lock() -> TextIO:
    """Open the lock's file for reading, which needs no room on the disk; the kernel frees a lock with its process."""
    return open(os.open(paths.LOCK, os.O_RDONLY | os.O_CREAT, 0o600), encoding="utf-8")


def _lock(file: TextIO, kind: int) -> bool:
    """Lock an open file if nobody else's lock is in the way; tell whether it is locked now."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
