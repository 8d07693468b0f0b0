"""etcd's v3 API, through its JSON gateway: each call is a POST with a JSON body, in which keys and values are base64.

Keys are flat: /services/users/ is a prefix that some keys have in common, not a folder. A key has no TTL of its own.
It is attached to a lease, which has one. Keeping the lease alive writes nothing, so it wakes no watcher. When the lease
expires, etcd removes the key.

etcd has this API since version 3.4: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/
"""

from base64 import b64decode, b64encode

import requests
from urllib3.exceptions import ReadTimeoutError

from workshop.registry.model import TIMEOUT, Entry, NotRegistered, RegistryUnavailable


class Etcd:
    """A connection to etcd. Every method raises RegistryUnavailable when etcd does not answer."""

    def __init__(self, address: str, ca: str, client: str):
        self.url = f"https://{address}/v3"
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy from the environment is not for loopback
        self.http.verify, self.http.cert = ca, client

    def read(self) -> tuple[list[Entry], int]:
        """Return every key, and etcd's revision at this moment, to wait from."""
        answer = self._call("kv/range", **_below("/"))
        entries = [
            Entry(_decoded(found["key"]), _decoded(found.get("value", "")), int(found["create_revision"]))
            for found in answer.get("kvs", [])
        ]
        return entries, int(answer["header"]["revision"])

    def get(self, key: str) -> str | None:
        found = self._find(key)
        return None if found is None else _decoded(found.get("value", ""))

    def ttl(self, key: str) -> int | None:
        """Return the seconds until a key expires; None if it has no lease, or does not exist."""
        lease = self._lease(key)
        return lease and int(self._call("lease/timetolive", ID=lease)["TTL"])

    def write(self, key: str, value: str, ttl: int | None = None) -> None:
        """Write a key. With `ttl`, attach it to a new lease: the key expires with the lease, after `ttl` seconds.

        A lease of an earlier write no longer has the key, and expires without it.
        """
        self._call("kv/put", **_put(key, value, self._grant(ttl) if ttl else None))

    def refresh(self, key: str, _ttl: int) -> None:
        """Keep a key's lease alive: it lasts for its whole TTL again. Raises NotRegistered if the key is gone."""
        # Ask for the key, and do not just remember its lease: a lease outlives a key that `etcdctl del` removes.
        lease = self._lease(key)
        if not lease or "TTL" not in self._call("lease/keepalive", ID=lease)["result"]:
            raise NotRegistered(key)

    def replace(self, old: str, new: str, value: str, ttl: int) -> None:
        """In one transaction, write the key `new` and remove the key `old`, which may be gone already."""
        lease = self._lease(old)
        put, delete = _put(new, value, self._grant(ttl)), {"key": _encoded(old)}
        self._call("kv/txn", success=[{"request_put": put}, {"request_delete_range": delete}])
        if lease:
            self._call("lease/revoke", may_be_gone=True, ID=lease)

    def delete(self, key: str) -> None:
        """Remove a key, which may be gone already."""
        self._call("kv/deleterange", key=_encoded(key))

    def delete_folder(self, folder: str) -> None:
        """Remove every key below a folder."""
        self._call("kv/deleterange", **_below(f"{folder}/"))

    def wait(self, index: int, timeout: float) -> None:
        """Return when something has been written after `index`, after `timeout` seconds of silence at the latest."""
        watch = {"create_request": _below("/") | {"start_revision": index + 1}}
        try:
            with self.http.post(f"{self.url}/watch", json=watch, timeout=(TIMEOUT, timeout), stream=True) as answer:
                answer.raise_for_status()
                lines = answer.iter_lines()
                next(lines, None)  # the watch exists
                next(lines, None)  # a change; or etcd no longer has that revision (compaction): read everything again
        except requests.RequestException as error:
            if not _is_silence(error):
                raise RegistryUnavailable(f"etcd: {error}") from error

    def _find(self, key: str) -> dict | None:
        return next(iter(self._call("kv/range", key=_encoded(key)).get("kvs", [])), None)

    def _lease(self, key: str) -> str | None:
        """Return the ID of the lease that a key is attached to; None if it has none, or does not exist."""
        return (self._find(key) or {}).get("lease")

    def _grant(self, ttl: int) -> str:
        """Return the ID of a new lease."""
        return self._call("lease/grant", TTL=ttl)["ID"]

    def _call(self, path: str, may_be_gone: bool = False, **body) -> dict:
        try:
            answer = self.http.post(f"{self.url}/{path}", json=body, timeout=TIMEOUT)
            if may_be_gone and answer.status_code == requests.codes.not_found:
                return {}
            answer.raise_for_status()
            return answer.json()
        except requests.RequestException as error:
            raise RegistryUnavailable(f"etcd: {error}") from error


def _put(key: str, value: str, lease: str | None) -> dict[str, str]:
    return {"key": _encoded(key), "value": _encoded(value)} | ({"lease": lease} if lease else {})


def _below(prefix: str) -> dict[str, str]:
    """Return the range of all keys with a prefix: it ends before the first string that sorts after all of them."""
    return {"key": _encoded(prefix), "range_end": _encoded(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return b64decode(text).decode(errors="replace")  # a foreign program may write any bytes


def _is_silence(error: requests.RequestException) -> bool:
    """Tell whether nothing came in time. While requests reads a stream, it raises a ConnectionError for that."""
    return isinstance(error, requests.Timeout) or any(isinstance(reason, ReadTimeoutError) for reason in error.args)
