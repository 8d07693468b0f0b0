"""etcd's v2 API, through python-etcd, which is used in this module only.

Keys are a tree: a key such as /services/users/location is in the folder /services/users. A key has its TTL itself. etcd
has this API up to version 3.5, and from 3.4 on only with --enable-v2.
"""

import logging
from urllib.parse import quote

import etcd

from workshop.registry.model import TIMEOUT, Entry, NotRegistered, RegistryUnavailable

log = logging.getLogger(__package__)


class Etcd:
    """A connection to etcd. Every method raises RegistryUnavailable when etcd does not answer."""

    def __init__(self, address: str, ca: str, client: str):
        host, port = address.split(":")
        # allow_reconnect makes the constructor look for other members of a cluster, and fail without one.
        self.client = etcd.Client(
            host=host,
            port=int(port),
            protocol="https",
            ca_cert=ca,
            cert=client,
            read_timeout=TIMEOUT,
            allow_reconnect=False,
        )
        # urllib3 would try four times, and wait TIMEOUT each time: our callers decide what is tried again, and when.
        self.client.http.connection_pool_kw["retries"] = False

    def read(self) -> tuple[list[Entry], int]:
        """Return every key, and etcd's index at this moment, to wait from."""
        root = self._call(self.client.read, "/", recursive=True)
        entries = [Entry(node.key, node.value, node.createdIndex) for node in root.leaves if node.value is not None]
        return entries, root.etcd_index

    def get(self, key: str) -> str | None:
        try:
            return self._call(self.client.read, quote(key)).value
        except etcd.EtcdKeyNotFound:
            return None

    def ttl(self, key: str) -> int | None:
        """Return the seconds until a key expires; None if it has no TTL, or does not exist."""
        try:
            return self._call(self.client.read, quote(key)).ttl
        except etcd.EtcdKeyNotFound:
            return None

    def write(self, key: str, value: str, ttl: int | None = None) -> None:
        """Write a key, which expires after `ttl` seconds unless it is refreshed."""
        self._call(self.client.write, quote(key), value, ttl=ttl)

    def refresh(self, key: str, ttl: int) -> None:
        """Reset a key's TTL, without waking its watchers. Raises NotRegistered if the key is gone."""
        try:
            self._call(self.client.refresh, quote(key), ttl=ttl)
        except etcd.EtcdKeyNotFound:
            raise NotRegistered(key) from None

    def replace(self, old: str, new: str, value: str, ttl: int) -> None:
        """Write the key `new`, and remove the key `old`, which may be gone already."""
        self.write(new, value, ttl)
        self.delete(old)

    def delete(self, key: str) -> None:
        """Remove a key, which may be gone already."""
        self._delete(key)

    def delete_folder(self, folder: str) -> None:
        """Remove every key below a folder."""
        self._delete(folder, recursive=True)

    def wait(self, index: int, timeout: float) -> None:
        """Return when something has been written after `index`, after `timeout` seconds at the latest."""
        try:
            self._call(self.client.watch, "/", index=index + 1, timeout=timeout, recursive=True)
        except (etcd.EtcdWatchTimedOut, etcd.EtcdEventIndexCleared):
            pass  # nothing was written, or so much that etcd no longer has the event: the caller reads everything again

    def _delete(self, key: str, **options: bool) -> None:
        try:
            self._call(self.client.delete, quote(key), **options)
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
