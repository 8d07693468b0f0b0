"""The service registry, kept in etcd: who answers which paths, and at which addresses.

The layout is one that public HAProxy templates for etcd use, so that a service of any origin can join:

    /services/<service>/location              /api/users           path prefixes, separated by spaces
    /services/<service>/backend/balance       roundrobin
    /services/<service>/backend/sticky        /socket.io           prefixes that stay with one instance
    /services/<service>/upstream/<instance>   127.0.0.1:21034 weight 100   with a TTL: its sidecar keeps it alive
    /routes/<prefixes, slashes escaped>       <service>            wins over the locations; all of them move at once
    /drained/<service>/<instance>             127.0.0.1:21034      empty when an instance deregisters; the load balancer
                                                                   writes the address once nothing is in flight there

Any program that joins writes to the registry, and its values end up in the load balancer's configuration: `snapshot`
leaves out each value that is not exactly of these forms, or that exceeds the limits below. It logs the key and the
reason once, and never the value: a foreign program may have put a secret there.

python-etcd, which speaks etcd's v2 API, is used in this module only. etcd refuses each client that does not have the
certificate in .run/certificates: see certificates.py.
"""

import ipaddress
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

import etcd

from workshop import paths
from workshop.errors import WorkshopError

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

CA, CLIENT = "ca.pem", "client.pem"  # in paths.CERTIFICATES; client.pem holds a certificate and its private key

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
MOST_LOGGED = 20  # keys, of those that one reading leaves out: a flood of keys is not to be a flood of lines
BALANCE = ("roundrobin", "leastconn", "source", "first", "random")  # those that servers can join at run time
UPSTREAM = re.compile(r"(?P<host>[0-9.]{7,15}):(?P<port>[0-9]{1,5})(?: weight (?P<weight>[0-9]{1,3}))?")

log = logging.getLogger(__name__)


class RegistryUnavailable(Exception):
    """etcd cannot be reached, or does not answer in time."""


class NotRegistered(Exception):
    """The instance's key has expired, or etcd has lost it."""


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


class Registry:
    """A connection to etcd. Every method raises RegistryUnavailable when etcd does not answer."""

    def __init__(self, address: str, certificates: Path = paths.CERTIFICATES):
        ca, client = client_files(certificates)
        host, port = address.split(":")
        # allow_reconnect makes the constructor look for other members of a cluster, and fail without one.
        self.etcd = etcd.Client(
            host=host,
            port=int(port),
            protocol="https",
            ca_cert=ca,
            cert=client,
            read_timeout=TIMEOUT,
            allow_reconnect=False,
        )
        # urllib3 would try four times, and wait TIMEOUT each time: our callers decide what is tried again, and when.
        self.etcd.http.connection_pool_kw["retries"] = False
        self.left_out: dict[str, str] = {}  # key → reason, at the last reading: to log each once

    def announce(self, service: Backend) -> None:
        """Say what the load balancer needs to know of a service; an instance of it need not be there yet."""
        self._set(f"/services/{service.name}/location", " ".join(service.locations))
        self._set(f"/services/{service.name}/backend/balance", service.balance)
        self._set(f"/services/{service.name}/backend/sticky", " ".join(service.sticky))

    def forget(self, service: str) -> None:
        """Remove all that is known of a service whose instances are gone."""
        self._delete(f"/services/{service}", recursive=True)

    def set_route(self, prefixes: str, service: str) -> None:
        """Have a service answer these path prefixes, whatever the locations say."""
        self._set(_route_key(prefixes), service)

    def remove_route(self, prefixes: str) -> None:
        """Let the locations decide again who answers them."""
        self._delete(_route_key(prefixes))

    def register(self, service: Backend, instance: str) -> None:
        """Announce an instance, and with it its service."""
        self.announce(service)
        upstream = service.upstreams[instance]
        value = f"{upstream.address} weight {upstream.weight}"
        self._call(self.etcd.write, self._upstream(service.name, instance), value, ttl=TTL)
        if self._get(drained := self._drained(service.name, instance)) is not None:  # of an earlier life
            self._delete(drained)

    def refresh(self, service: str, instance: str) -> None:
        """Keep an instance's key from expiring, without waking those who watch. Raises NotRegistered if it is gone."""
        try:
            self._call(self.etcd.refresh, self._upstream(service, instance), ttl=TTL)
        except etcd.EtcdKeyNotFound:
            raise NotRegistered(instance) from None

    def deregister(self, service: str, instance: str) -> None:
        """Take an instance out, and ask the load balancer for a new confirmation; no harm if it is gone already."""
        self._call(self.etcd.write, self._drained(service, instance), "", ttl=DRAINED_TTL)
        self._delete(self._upstream(service, instance))

    def confirm_drained(self, service: str, instance: str, address: str) -> None:
        """Say, as the load balancer, that nothing is sent to this address any more and nothing is in flight."""
        self._call(self.etcd.write, self._drained(service, instance), address, ttl=DRAINED_TTL)

    def is_drained(self, service: str, instance: str, address: str) -> bool:
        """Tell whether it has said so, of this address: an earlier life of the instance had another."""
        return self._get(self._drained(service, instance)) == address

    def snapshot(self, ours: Collection[str] = ()) -> Snapshot:
        """Read everything; leave out and log what is malformed or too much, but none of the instances called `ours`."""
        root = self._call(self.etcd.read, "/", recursive=True)
        snapshot, left_out = Snapshot({}, {}, root.etcd_index), {}
        # Then the oldest first: what was there before a flood stays.
        leaves = [node for node in root.leaves if node.value is not None]
        for node in sorted(leaves, key=lambda node: (node.key.split("/")[-1] not in ours, node.createdIndex)):
            if reason := _add(snapshot, node.key.split("/")[1:], node.value):
                left_out[node.key] = reason
        new = [(key, reason) for key, reason in left_out.items() if self.left_out.get(key) != reason]
        for key, reason in new[:MOST_LOGGED]:
            log.warning("left out of the registry's %.200r: %s", key, reason)
        if len(new) > MOST_LOGGED:
            log.warning("left out of the registry: %s more keys", len(new) - MOST_LOGGED)
        self.left_out = left_out
        return snapshot

    def entries(self) -> dict[str, str]:
        """Return every key and its value, as they stand there, well-formed or not."""
        root = self._call(self.etcd.read, "/", recursive=True)
        return {node.key: node.value for node in root.leaves if node.value is not None}

    def wait(self, index: int) -> None:
        """Return when something has been written after `index`, after WATCH_TIMEOUT at the latest."""
        try:
            self._call(self.etcd.watch, "/", index=index + 1, timeout=WATCH_TIMEOUT, recursive=True)
        except (etcd.EtcdWatchTimedOut, etcd.EtcdEventIndexCleared):
            pass  # either way the caller reads a new snapshot: nothing can be missed

    @staticmethod
    def _upstream(service: str, instance: str) -> str:
        return f"/services/{service}/upstream/{instance}"

    @staticmethod
    def _drained(service: str, instance: str) -> str:
        return f"/drained/{service}/{instance}"

    def _get(self, key: str) -> str | None:
        try:
            return self._call(self.etcd.read, key).value
        except etcd.EtcdKeyNotFound:
            return None

    def _set(self, key: str, value: str) -> None:
        """Write only what differs: each write wakes the load balancer."""
        if self._get(key) != value:
            self._call(self.etcd.write, key, value)

    def _delete(self, key: str, recursive: bool = False) -> None:
        try:
            self._call(self.etcd.delete, key, recursive=recursive)
        except etcd.EtcdKeyNotFound:
            log.info("%s was gone already", key)

    @staticmethod
    def _call(method, *args, **options):
        try:
            return method(*args, **options)
        except (etcd.EtcdKeyNotFound, etcd.EtcdWatchTimedOut, etcd.EtcdEventIndexCleared):
            raise  # answers, not failures: each caller knows what they mean
        except etcd.EtcdException as error:
            raise RegistryUnavailable(f"etcd: {error}") from error


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


def client_files(certificates: Path = paths.CERTIFICATES) -> tuple[str, str]:
    """Return the authority's certificate, and the client's with its key. Raises WorkshopError if one is missing."""
    for file in (found := (certificates / CA, certificates / CLIENT)):
        if not file.exists():  # the stage was brought up by an older version of the workshop
            raise WorkshopError(f"{file} is missing: etcd refuses us without it. Run `./workshop down`, then `up`.")
    ca, client = map(str, found)
    return ca, client


def owner(table: dict[str, str], path: str) -> str | None:
    """Return the service that answers a path: that of the longest prefix which covers it."""
    return table.get(max((prefix for prefix in table if covers(prefix, path)), key=len, default=""))


def covers(prefix: str, path: str) -> bool:
    """Tell whether a path begins with a prefix, by whole segments."""
    return f"{path}/".startswith(prefix.rstrip("/") + "/")


def _route_key(prefixes: str) -> str:
    """Return the key of a route. Escaped once for its name, in which a slash would begin a folder; once for the URL."""
    return f"/routes/{quote(quote(prefixes, safe=''), safe='')}"


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
