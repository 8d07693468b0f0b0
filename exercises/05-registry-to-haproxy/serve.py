"""Runs a manager on a live registry, with an HAProxy of its own beside the stage's. There is nothing to edit here.

serve.py ETCD PORT FOLDER, where PYTHONPATH names the platform and the folder of manager.py.
"""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests
from manager import HAPROXY, Backend, Rejected, apply, render

from workshop.ports import answers
from workshop.registry import client_files
from workshop.waiting import wait_until

PAUSE = 0.5  # seconds between two looks at the registry; the real manager is woken by it
TIMEOUT = 2  # seconds for a call of the registry; far more than loopback needs
START_TIMEOUT = 5  # seconds until an HAProxy that was started listens; measured: 0.1

log = logging.getLogger("manager")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    etcd, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "haproxy.cfg").unlink(missing_ok=True)  # of an earlier life, whose HAProxy has ended with it
    haproxy = HAProxy(folder, port)
    while True:
        try:
            if apply(render(read(etcd), port), folder, haproxy.reload):
                log.info("HAProxy has another configuration")
        except (Rejected, requests.RequestException) as error:
            log.warning("%s: the last good configuration stays", error)
        time.sleep(PAUSE)


def read(etcd: str) -> dict[str, Backend]:
    """Return the services that stand in the registry, as they stand there."""
    with requests.Session() as http:
        http.trust_env = False  # a proxy from the environment has no business on loopback
        http.verify, http.cert = client_files()  # without a certificate, etcd refuses the connection
        answer = http.get(f"https://{etcd}/v2/keys/services", params={"recursive": "true"}, timeout=TIMEOUT)
    answer.raise_for_status()
    services: dict[str, Backend] = {}
    for key, value in _leaves(answer.json()["node"]):
        match key.split("/")[1:]:
            case ["services", service, "location"]:
                services.setdefault(service, Backend()).location = value
            case ["services", service, "upstream", instance]:
                services.setdefault(service, Backend()).upstreams[instance] = value
    return services


def _leaves(node: dict) -> Iterator[tuple[str, str]]:
    """Return the keys and values below a folder of etcd."""
    for child in node.get("nodes", []):
        yield from _leaves(child)
    if "value" in node:
        yield node["key"], node["value"]


class HAProxy:
    """The HAProxy that is managed: the first reload starts it."""

    def __init__(self, folder: Path, port: int):
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen | None = None

    def reload(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGUSR2)  # the master starts a new worker, and the old one finishes
            return
        # Should we die, the kernel ends it.
        command = ["setpriv", "--pdeathsig", "TERM", "--", HAPROXY, "-W", "-db", "-f", self.folder / "haproxy.cfg"]
        self.process = subprocess.Popen(command)
        if not wait_until(lambda: answers(self.port), START_TIMEOUT):
            sys.exit(f"HAProxy does not listen on port {self.port}")


if __name__ == "__main__":
    main()
