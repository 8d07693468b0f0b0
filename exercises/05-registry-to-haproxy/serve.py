"""Runs a manager on a live registry, with an HAProxy of its own beside the stage's. There is nothing to edit here.

serve.py ETCD PORT FOLDER, where PYTHONPATH names the platform and the folder of manager.py.
"""

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

from manager import HAPROXY, Backend, Rejected, apply, render

from workshop.ports import answers
from workshop.registry import Registry, RegistryUnavailable
from workshop.waiting import wait_until

PAUSE = 0.5  # seconds between two looks at the registry; the real manager is woken by it
START_TIMEOUT = 5  # seconds until an HAProxy that was started listens; measured: 0.1

log = logging.getLogger("manager")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    etcd, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "haproxy.cfg").unlink(missing_ok=True)  # of an earlier life, whose HAProxy has ended with it
    haproxy, registry = HAProxy(folder, port), Registry(etcd)
    while True:
        try:
            if apply(render(read(registry), port), folder, haproxy.reload):
                log.info("HAProxy has another configuration")
        except (Rejected, RegistryUnavailable) as error:
            log.warning("%s: the last good configuration stays", error)
        time.sleep(PAUSE)


def read(registry: Registry) -> dict[str, Backend]:
    """Return the services that the registry has, with their values unchecked."""
    services: dict[str, Backend] = {}
    for key, value in registry.entries().items():
        match key.split("/")[1:]:
            case ["services", service, "location"]:
                services.setdefault(service, Backend()).location = value
            case ["services", service, "upstream", instance]:
                services.setdefault(service, Backend()).upstreams[instance] = value
    return services


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
