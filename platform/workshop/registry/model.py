"""What the registry holds, and which of its values the load balancer uses."""

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

HEARTBEAT = 3  # seconds between two refreshes of an instance's key
TTL = 10  # seconds until the key of an instance expires: two refreshes may fail, the third must succeed
TIMEOUT = 2  # seconds for a call; far more than loopback needs, and less than a heartbeat
# Seconds. Bounds a watch for an index that a wiped etcd will not reach for long, and shows within a heartbeat whether
# etcd still answers.
WATCH_TIMEOUT = 2
DRAINED_TTL = 60  # seconds for which such a key stays: longer than any sidecar waits for its confirmation

# An instance's share of the requests is its weight among all weights of its service. That of every ordinary instance,
# and of one that says none, leaves room below it and above it for a canary's.
WEIGHT = 100
MOST_WEIGHT = 256  # HAProxy's

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
PREFIX = re.compile(r"/[A-Za-z0-9._~/-]{0,127}")
# HAProxy's configuration has sections, and its statistics rows, of these names already.
RESERVED = {"public", "internal", "statistics", "no_route", "FRONTEND", "BACKEND"}
# What one service may register. HAProxy refuses its whole configuration for a line of more than 64 words or 2,047
# bytes, and all sticky prefixes of a service are on one line: 8 of 128 bytes are half of that.
MOST_LOCATIONS, MOST_STICKY = 32, 8
# The health checks of all instances, two a second each, are HAProxy's work: it refuses none, so the registry does.
MOST_SERVICES, MOST_INSTANCES = 32, 64
MOST_ROUTES = 128
BALANCE = ("roundrobin", "leastconn", "source", "first", "random")  # those that servers can join at run time
UPSTREAM = re.compile(r"(?P<host>[0-9.]{7,15}):(?P<port>[0-9]{1,5})(?: weight (?P<weight>[0-9]{1,3}))?")


class RegistryUnavailable(Exception):
    """etcd cannot be reached, or does not answer in time."""


class NotRegistered(Exception):
    """The instance's key has expired, or etcd has lost it."""


@dataclass(frozen=True)
class Entry:
    """One key of etcd, with its value."""

    key: str
    value: str
    created: int  # etcd's index at its creation: a smaller one is older


@dataclass(frozen=True)
class Upstream:
    """One instance as the load balancer sees it."""

    host: str  # an IPv4 address
    port: int
    weight: int = WEIGHT

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass
class Backend:
    """A service as the load balancer sees it: in HAProxy's words, a backend."""

    name: str
    locations: list[str] = field(default_factory=list)
    balance: str = "roundrobin"
    sticky: list[str] = field(default_factory=list)
    upstreams: dict[str, Upstream] = field(default_factory=dict)  # by the instance's name


@dataclass
class Snapshot:
    """Everything that the registry holds at one moment."""

    services: dict[str, Backend]
    routes: dict[str, str]  # prefixes, separated by spaces → service
    index: int  # etcd's, to watch from
    # (service, instance): those that deregistered within the last DRAINED_TTL. The key of any other that is missing has
    # expired, or etcd has lost it.
    deregistered: set[tuple[str, str]] = field(default_factory=set)

    def service(self, name: str) -> Backend:
        """Return the service called `name`, added if it is new."""
        return self.services.setdefault(name, Backend(name))

    def locations(self) -> dict[str, str]:
        """Return which service says of itself that it answers which prefix."""
        return {prefix: service.name for service in self.services.values() for prefix in service.locations}

    def table(self) -> dict[str, str]:
        """Return which service answers which prefix: the services' locations, then the routes over them."""
        known = {prefixes: name for prefixes, name in self.routes.items() if name in self.services}
        return self.locations() | {prefix: name for prefixes, name in known.items() for prefix in prefixes.split()}


def parse(entries: Iterable[Entry], index: int, ours: Collection[str]) -> tuple[Snapshot, dict[str, str]]:
    """Return the snapshot that these entries make, and the keys that it leaves out, each with the reason.

    The instances called `ours` come first, then the oldest: what was there before a flood of keys stays.
    """
    snapshot, left_out = Snapshot({}, {}, index), {}
    for entry in sorted(entries, key=lambda entry: (entry.key.split("/")[-1] not in ours, entry.created)):
        if reason := _add(snapshot, entry.key.split("/")[1:], entry.value):
            left_out[entry.key] = reason
    return snapshot, left_out


def _add(snapshot: Snapshot, path: list[str], value: str) -> str | None:
    """Add a value of the registry to the snapshot; return why it is left out instead, None if it is not."""
    match path:
        case ["services", name, *rest]:
            if not _is_name(name):
                return "this is no name of a service"
            if name not in snapshot.services and len(snapshot.services) >= MOST_SERVICES:
                return f"there are {MOST_SERVICES} services already"
            return _add_to(snapshot, name, rest, value)
        case ["routes", prefixes]:
            if problem := _problem_with(unquote(prefixes), MOST_LOCATIONS):
                return problem
            if not _is_name(value):
                return "its value is no name of a service"
            if len(snapshot.routes) >= MOST_ROUTES:
                return f"there are {MOST_ROUTES} routes already"
            snapshot.routes[unquote(prefixes)] = value
        case ["drained", service, instance]:
            snapshot.deregistered.add((service, instance))
        case _:
            return "the load balancer knows no such key"
    return None


def _add_to(snapshot: Snapshot, name: str, key: list[str], value: str) -> str | None:
    """Add a value to a service of the snapshot; return why it is left out instead, None if it is not."""
    problem: str | None = None
    match key:
        case ["location"]:
            if not (problem := _problem_with(value, MOST_LOCATIONS)):
                snapshot.service(name).locations = value.split()
        case ["backend", "sticky"]:
            if not (problem := _problem_with(value, MOST_STICKY)):
                snapshot.service(name).sticky = value.split()
        case ["backend", "balance"] if value in BALANCE:
            snapshot.service(name).balance = value
        case ["backend", "balance"]:
            problem = f"its value is none of {', '.join(BALANCE)}"
        case ["upstream", instance] if _is_name(instance) and (upstream := _parse_upstream(value)):
            known = snapshot.services.get(name)
            if known and len(known.upstreams) >= MOST_INSTANCES:
                problem = f"the service has {MOST_INSTANCES} instances already"
            else:
                snapshot.service(name).upstreams[instance] = upstream
        case ["upstream", _]:
            problem = "it is no name of an instance with an IPv4 address, a port and a weight as its value"
        case _:
            problem = "the load balancer knows no such key"
    return problem


def owner(table: dict[str, str], path: str) -> str | None:
    """Return the service that answers a path: that of the longest prefix which covers it."""
    return table.get(max((prefix for prefix in table if covers(prefix, path)), key=len, default=""))


def covers(prefix: str, path: str) -> bool:
    """Tell whether a path begins with a prefix, by whole segments."""
    return f"{path}/".startswith(prefix.rstrip("/") + "/")


def _is_name(value: str) -> bool:
    return bool(NAME.fullmatch(value)) and value not in RESERVED


def _problem_with(prefixes: str, most: int) -> str | None:
    """Say why these are not path prefixes, separated by spaces, or too many; None when they will do."""
    words = prefixes.split()
    if len(words) > most:
        return f"it has {len(words)} path prefixes, at most {most} are allowed"
    if not all(PREFIX.fullmatch(prefix) for prefix in words):
        return "it has what is no path prefix, such as /api/users, of at most 128 characters"
    return None


def _parse_upstream(value: str) -> Upstream | None:
    """Read `address:port weight N`, an IPv4 address; None when it is anything else."""
    found = UPSTREAM.fullmatch(value)
    if not found:
        return None
    host, port, weight = found["host"], int(found["port"]), int(found["weight"] or WEIGHT)
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return None
    return Upstream(host, port, weight) if 0 < port < 65536 and weight <= MOST_WEIGHT else None
