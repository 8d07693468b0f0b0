"""The sidecar of an instance: starts a service, and keeps the registry true about it.

    start the command on a port of its own → wait until GET /healthz answers → register → refresh, every 3 s
    the process dies        → deregister at once, and exit: the supervisor starts a new sidecar
    it answers no more      → the same, after killing it
    SIGTERM                 → deregister → wait until the load balancer confirms that nothing is in flight
                              → SIGTERM to the service → reap it → exit

The service knows nothing of this. It may be written in any language: it listens on $HOST:$PORT, answers
GET /healthz with 200 when it can serve, and ends at SIGTERM.
"""

import json
import logging
import os
import queue
import signal
import string
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import requests

from workshop import paths
from workshop.files import write_atomically
from workshop.logs import log_to_stdout
from workshop.ports import HOST, SERVICE_PORT, claim_address, free_port
from workshop.registry import HEARTBEAT, WEIGHT, Backend, NotRegistered, Registry, RegistryUnavailable, Upstream
from workshop.waiting import POLL

START_TIMEOUT = 20  # seconds for a service to answer its first health check
HEALTH_TIMEOUT = 2  # seconds for a health check: less than a heartbeat
RETRY = 0.5  # seconds until what has failed is tried again, instead of at the next heartbeat
FAILED_CHECKS = 3  # in a row: a service that is frozen is killed after 10 s at most (3 + 2 + 0.5 + 2 + 0.5 + 2)
DRAIN_TIMEOUT = 8  # seconds: HAProxy lets no request take longer than 5, then 3 more
STOP_TIMEOUT = 5  # seconds between SIGTERM and SIGKILL to a service that has nothing in flight

CLEAN_UP_TIMEOUT = 10  # seconds; measured: 0.03 to 0.2

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}

log = logging.getLogger("sidecar")


@dataclass
class Instance:
    """What a sidecar is told: a file that the command line writes and the sidecar reads."""

    name: str  # <service>_v<version>_<id>
    service: str
    locations: list[str]
    balance: str
    sticky: list[str]
    command: list[str]  # $HOST and $PORT stand for where it is to listen
    folder: str
    environment: dict[str, str]
    registry: str  # host:port
    registry_api: str = "v2"  # or v3; files of a stage that came up before there was v3 do not say
    weight: int = WEIGHT
    network: str = ""  # from which its address is to be; none: loopback
    sources: dict[str, str] = field(default_factory=dict)  # of a working tree: place in `folder` → what it links to
    clean_up: list[str] = field(default_factory=list)  # the command that ends what killing the process does not

    def save(self, file: Path) -> None:
        write_atomically(file, json.dumps(asdict(self), indent=2))  # it holds secrets: readable by the owner only

    @classmethod
    def load(cls, file: Path) -> "Instance":
        return cls(**json.loads(file.read_text(encoding="utf-8")))


def main() -> None:
    log_to_stdout()
    sys.exit(Sidecar(Instance.load(Path(sys.argv[1]))).run())


class Sidecar:
    """One instance, from its start to its end."""

    def __init__(self, instance: Instance):
        self.instance = instance
        if instance.network:
            host, self.claim = claim_address(instance.network, paths.INSTANCES)
            port = SERVICE_PORT
        else:
            host, port = HOST, free_port()
        self.upstream = Upstream(host, port, instance.weight)
        self.backend = Backend(
            instance.service,
            instance.locations,
            instance.balance,
            instance.sticky,
            {instance.name: self.upstream},
        )
        self.registry = Registry(instance.registry, api=instance.registry_api)
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy from the environment has no business on loopback
        self.http.headers["Connection"] = "close"  # an open connection of ours would hold up the service's graceful end
        self.failed_checks = 0
        self.is_registered = False
        self.signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # its `put` is safe in a signal handler

    def run(self) -> int:
        """Live the life of the instance; return the exit status."""
        self.process = self.start()
        # From here on a signal waits in a queue for `next_signal`, so that none interrupts a step. (A SIGTERM until now
        # ends the sidecar, and the service with it.) Not signal.sigtimedwait: when a stop (SIGSTOP, SIGCONT) outlasts
        # its timeout, CPython returns a signal number that it has never set.
        for number in SIGNALS:
            signal.signal(number, lambda received, _frame: self.signals.put(received))
        if not self.wait_until_healthy():
            self.kill()
            return 1
        pause = self.heartbeat()
        while True:
            match self.next_signal(pause):
                case None:
                    pause = self.heartbeat()
                case signal.SIGCHLD:
                    if self.process.poll() is not None:
                        log.error("%s: ended with status %s", self.instance.name, self.process.returncode)
                        break
                case signal.SIGTERM | signal.SIGINT:
                    self.drain()
                    self.stop()
                    return 0
                case other:
                    log.warning("%s: ignored signal %s", self.instance.name, other)
            if self.failed_checks >= FAILED_CHECKS:
                log.error("%s: not healthy in %s checks in a row, killed", self.instance.name, FAILED_CHECKS)
                break
        self.deregister()
        self.kill()
        return 1

    def start(self) -> subprocess.Popen:
        """Start the service in a process group of its own; if we die, by kill -9 even, the kernel kills it."""
        place = {"HOST": self.upstream.host, "PORT": str(self.upstream.port)}
        command = [string.Template(word).safe_substitute(place) for word in self.instance.command]
        log.info("%s: %s", self.instance.name, " ".join(command))
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            cwd=self.instance.folder,
            env=self.instance.environment | place | {"INSTANCE": self.instance.name},
            start_new_session=True,
        )

    def next_signal(self, timeout: float) -> int | None:
        """Return the next signal; None when none has come within `timeout` seconds."""
        try:
            return self.signals.get(timeout=timeout)
        except queue.Empty:
            return None

    def wait_until_healthy(self) -> bool:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.is_healthy():
                return True
            received = self.next_signal(POLL)
            if self.process.poll() is not None:
                log.error("%s: ended with status %s at its start", self.instance.name, self.process.returncode)
                return False
            if received in (signal.SIGTERM, signal.SIGINT):
                return False
        log.error("%s: did not answer GET /healthz within %s s", self.instance.name, START_TIMEOUT)
        return False

    def is_healthy(self) -> bool:
        """Ask the service itself, not through the load balancer."""
        try:
            answer = self.http.get(f"http://{self.upstream.address}/healthz", timeout=HEALTH_TIMEOUT)
        except requests.RequestException:
            return False
        return answer.ok

    def heartbeat(self) -> float:
        """Refresh the registration, or make it; return the seconds until the next time."""
        self.failed_checks = 0 if self.is_healthy() else self.failed_checks + 1
        try:
            self.keep_registered()
        except RegistryUnavailable as error:
            log.warning("%s: serving on; next attempt in %s s", error, RETRY)
            return RETRY
        return RETRY if self.failed_checks else HEARTBEAT

    def keep_registered(self) -> None:
        """Refresh the key. The first time, write it: one of an earlier life may be there still, with another port."""
        if self.is_registered:
            try:
                self.registry.refresh(self.instance.service, self.instance.name)
                return
            except NotRegistered:
                log.warning("%s: the registry has forgotten it", self.instance.name)
        self.registry.register(self.backend, self.instance.name)
        self.is_registered = True
        log.info("%s: registered at %s", self.instance.name, self.upstream.address)

    def deregister(self) -> bool:
        try:
            self.registry.deregister(self.instance.service, self.instance.name)
        except RegistryUnavailable as error:
            log.warning("%s: the registration will expire", error)
            return False
        log.info("%s: deregistered", self.instance.name)
        return True

    def drain(self) -> None:
        """Have the load balancer send nothing more, and wait until what is in flight is answered."""
        if not self.deregister():
            return
        deadline = time.monotonic() + DRAIN_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.registry.is_drained(self.instance.service, self.instance.name, self.upstream.address):
                    log.info("%s: drained", self.instance.name)
                    return
            except RegistryUnavailable as error:
                log.warning("%s: not waiting for the load balancer", error)
                return
            time.sleep(POLL)
        log.warning("%s: the load balancer did not confirm within %s s", self.instance.name, DRAIN_TIMEOUT)

    def stop(self) -> None:
        """SIGTERM to the service, and reap it; kill what is left of it."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            log.warning("%s: did not end within %s s, killed", self.instance.name, STOP_TIMEOUT)
        self.kill()

    def kill(self) -> None:
        """Kill the service with all its processes, and reap it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended, and so have its children
        self.process.wait()
        if self.instance.clean_up:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run(self.instance.clean_up, env=self.instance.environment, timeout=CLEAN_UP_TIMEOUT, **quiet)


if __name__ == "__main__":
    main()
