"""The registry's client: what sidecars, the load balancer's manager and the commands read and write."""

import logging
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from workshop import paths, state
from workshop.errors import WorkshopError
from workshop.registry import v2, v3
from workshop.registry.model import DRAINED_TTL, TTL, WATCH_TIMEOUT, Backend, Snapshot, parse

CA, CLIENT = "ca.pem", "client.pem"  # in paths.CERTIFICATES; client.pem holds a certificate and its private key
APIS = {"v2": v2.Etcd, "v3": v3.Etcd}
MOST_LOGGED = 20  # keys, of those that one reading leaves out: a flood of keys must not become a flood of lines

log = logging.getLogger(__package__)


class Registry:
    """A connection to etcd. Every method raises RegistryUnavailable when etcd does not answer.

    `api` is one of APIS; by default the one with which the stage was brought up.
    """

    def __init__(self, address: str, certificates: Path = paths.CERTIFICATES, api: str | None = None):
        self.etcd = APIS[api or state.load().registry_api](address, *client_files(certificates))
        self.left_out: dict[str, str] = {}  # key → reason, at the last reading: to log each once

    def announce(self, service: Backend) -> None:
        """Write what the load balancer needs to know of a service, which may have no instance yet."""
        self._set(f"/services/{service.name}/location", " ".join(service.locations))
        self._set(f"/services/{service.name}/backend/balance", service.balance)
        self._set(f"/services/{service.name}/backend/sticky", " ".join(service.sticky))

    def forget(self, service: str) -> None:
        """Remove all keys of a service whose instances are gone."""
        self.etcd.delete_folder(f"/services/{service}")

    def set_route(self, prefixes: str, service: str) -> None:
        """Route these path prefixes to a service, whatever the locations say."""
        self._set(_route(prefixes), service)

    def remove_route(self, prefixes: str) -> None:
        """Let the locations decide again which service answers these prefixes."""
        self.etcd.delete(_route(prefixes))

    def register(self, service: Backend, instance: str) -> None:
        """Announce an instance, and with it its service."""
        self.announce(service)
        upstream = service.upstreams[instance]
        value = f"{upstream.address} weight {upstream.weight}"
        self.etcd.write(_upstream(service.name, instance), value, ttl=TTL)
        if self.etcd.get(drained := _drained(service.name, instance)) is not None:  # of an earlier life
            self.etcd.delete(drained)

    def refresh(self, service: str, instance: str) -> None:
        """Keep an instance's key from expiring, without waking those who watch. Raises NotRegistered if it is gone."""
        self.etcd.refresh(_upstream(service, instance), TTL)

    def deregister(self, service: str, instance: str) -> None:
        """Take an instance out, and ask the load balancer for a new confirmation; no harm if it is gone already."""
        self.etcd.replace(_upstream(service, instance), _drained(service, instance), "", ttl=DRAINED_TTL)

    def confirm_drained(self, service: str, instance: str, address: str) -> None:
        """Confirm, as the load balancer, that this address gets no more requests and none is in flight there."""
        self.etcd.write(_drained(service, instance), address, ttl=DRAINED_TTL)

    def is_drained(self, service: str, instance: str, address: str) -> bool:
        """Tell whether this address is confirmed as drained: an earlier life of the instance had another one."""
        return self.etcd.get(_drained(service, instance)) == address

    def snapshot(self, ours: Collection[str] = ()) -> Snapshot:
        """Read everything; leave out and log what is malformed or too much, but none of the instances called `ours`."""
        snapshot, left_out = parse(*self.etcd.read(), ours)
        new = [(key, reason) for key, reason in left_out.items() if self.left_out.get(key) != reason]
        for key, reason in new[:MOST_LOGGED]:
            log.warning("left out of the registry's %.200r: %s", key, reason)
        if len(new) > MOST_LOGGED:
            log.warning("left out of the registry: %s more keys", len(new) - MOST_LOGGED)
        self.left_out = left_out
        return snapshot

    def entries(self) -> dict[str, str]:
        """Return every key and its value as they are in etcd, well-formed or not."""
        entries, _ = self.etcd.read()
        return {entry.key: entry.value for entry in entries}

    def wait(self, index: int) -> None:
        """Return when something has been written after `index`, after WATCH_TIMEOUT at the latest.

        It may return without a change, too. The caller then reads a new snapshot, so it can miss nothing.
        """
        self.etcd.wait(index, WATCH_TIMEOUT)

    def _set(self, key: str, value: str) -> None:
        """Write only what differs: each write wakes the load balancer."""
        if self.etcd.get(key) != value:
            self.etcd.write(key, value)


def client_files(certificates: Path = paths.CERTIFICATES) -> tuple[str, str]:
    """Return the authority's certificate, and the client's with its key. Raises WorkshopError if one is missing."""
    for file in (found := (certificates / CA, certificates / CLIENT)):
        if not file.exists():  # the stage was brought up by an older version of the workshop
            raise WorkshopError(f"{file} is missing: etcd refuses us without it. Run `./workshop down`, then `up`.")
    ca, client = map(str, found)
    return ca, client


def _upstream(service: str, instance: str) -> str:
    return f"/services/{service}/upstream/{instance}"


def _drained(service: str, instance: str) -> str:
    return f"/drained/{service}/{instance}"


def _route(prefixes: str) -> str:
    """Return the key of a route. Its slashes are escaped: in etcd's v2 API a slash begins a folder."""
    return f"/routes/{quote(prefixes, safe='')}"
