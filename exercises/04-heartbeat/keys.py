"""Keys in etcd, through the API that the registry uses, v2 or v3. There is nothing to edit here.

Each call takes a `timeout` in seconds and passes it to `requests`: without one, a call waits for ever. Each raises
requests.RequestException when etcd does not answer.

    PYTHONPATH=platform .venv/bin/python exercises/04-heartbeat/keys.py PREFIX

prints the keys that begin with PREFIX: the value of each, and the seconds until it expires.
"""

import sys
from base64 import b64encode

import requests

from workshop import state
from workshop.registry import Registry


def connect(etcd: str, certificates: str) -> "V2 | V3":
    """Return what writes keys to the etcd at a URL. `certificates` is the folder with ca.pem and client.pem."""
    http = requests.Session()
    http.trust_env = False  # a proxy from the environment is not for loopback
    http.verify, http.cert = f"{certificates}/ca.pem", f"{certificates}/client.pem"
    return {"v2": V2, "v3": V3}[state.load().registry_api](http, etcd)


class V2:
    """etcd's v2 API: a key is a URL, and has a TTL itself."""

    def __init__(self, http: requests.Session, etcd: str):
        self.http, self.url = http, f"{etcd}/v2/keys"

    def put(self, key: str, value: str, ttl: int | None = None, timeout: float | None = None) -> None:
        """Write a key. With `ttl`, it expires after so many seconds; without, it stays."""
        form = {"value": value} | ({"ttl": ttl} if ttl else {})
        self.http.put(f"{self.url}{key}", data=form, timeout=timeout).raise_for_status()

    def refresh(self, key: str, ttl: int, timeout: float | None = None) -> bool:
        """Let a key live for `ttl` seconds from now on, without waking those who watch; False if it is gone."""
        form = {"ttl": ttl, "refresh": "true", "prevExist": "true"}
        answer = self.http.put(f"{self.url}{key}", data=form, timeout=timeout)
        if answer.status_code == requests.codes.not_found:
            return False
        answer.raise_for_status()
        return True

    def delete(self, key: str, timeout: float | None = None) -> None:
        """Remove a key, which may be gone already."""
        answer = self.http.delete(f"{self.url}{key}", timeout=timeout)
        if answer.status_code != requests.codes.not_found:
            answer.raise_for_status()


class V3:
    """etcd's v3 API as JSON: a key is attached to a lease, and the lease has the TTL."""

    def __init__(self, http: requests.Session, etcd: str):
        self.http, self.url = http, f"{etcd}/v3"

    def put(self, key: str, value: str, ttl: int | None = None, timeout: float | None = None) -> None:
        """Write a key. With `ttl`, it expires with its lease, after so many seconds; without, it stays."""
        attached = {"lease": self._call("lease/grant", timeout, TTL=ttl)["ID"]} if ttl else {}
        self._call("kv/put", timeout, key=_encoded(key), value=_encoded(value), **attached)

    def refresh(self, key: str, ttl: int, timeout: float | None = None) -> bool:
        """Let a key's lease live for its TTL from now on, without waking those who watch; False if the key is gone."""
        found = self._call("kv/range", timeout, key=_encoded(key)).get("kvs", [{}])[0]
        return "lease" in found and "TTL" in self._call("lease/keepalive", timeout, ID=found["lease"])["result"]

    def delete(self, key: str, timeout: float | None = None) -> None:
        """Remove a key, which may be gone already."""
        self._call("kv/deleterange", timeout, key=_encoded(key))

    def _call(self, path: str, timeout: float | None, **body) -> dict:
        answer = self.http.post(f"{self.url}/{path}", json=body, timeout=timeout)
        answer.raise_for_status()
        return answer.json()


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def main() -> None:
    registry = Registry(state.load().registry)
    for key, value in sorted(registry.entries().items()):
        if key.startswith(sys.argv[1]):
            ttl = registry.etcd.ttl(key)
            print(f"{key} = {value}", *([f"(expires in {ttl} s)"] if ttl is not None else []))


if __name__ == "__main__":
    main()
