"""A sidecar: starts a service, registers it once it can serve, and stops it so that nobody notices.

    sidecar.py SERVICE INSTANCE PREFIX ETCD COMMAND...      $PORT in the command stands for the port

The service knows nothing of this: it answers GET /healthz with 200 when it can serve, and ends at SIGTERM.
"""

import os
import signal
import string
import subprocess
import sys
import time

import requests

from workshop.ports import HOST, free_port
from workshop.registry import HEARTBEAT, Backend, NotRegistered, Registry, RegistryUnavailable, Upstream

POLL = 0.02  # seconds between two looks at what is waited for
START_TIMEOUT = 20  # seconds for a service to answer its first health check
HEALTH_TIMEOUT = 2  # seconds for a health check: less than a heartbeat
DRAIN_TIMEOUT = 8  # seconds: HAProxy lets no request take longer than 5, then 3 more
STOP_TIMEOUT = 5  # seconds between SIGTERM and SIGKILL to a service that has nothing in flight

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def main() -> None:
    service, instance, prefix, etcd, *command = sys.argv[1:]
    sys.exit(Sidecar(service, instance, prefix, etcd, command).run())


class Sidecar:
    """One instance, from its start to its end."""

    def __init__(self, service: str, instance: str, prefix: str, etcd: str, command: list[str]):
        self.service, self.instance, self.command = service, instance, command
        self.upstream = Upstream(HOST, free_port())
        self.backend = Backend(service, [prefix], upstreams={instance: self.upstream})
        self.registry = Registry(etcd)
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy from the environment has no business on loopback
        self.http.headers["Connection"] = "close"  # an open connection would hold up the service's end

    def run(self) -> int:
        """Live the life of the instance; return the exit status."""
        self.process = self.start()
        # From here on these signals wait for us in `next_signal`, so that none arrives in the middle of a step.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if not self.begin():
            self.say("did not become healthy")
            self.kill()
            return 1
        while True:
            match self.next_signal(HEARTBEAT):
                case None:
                    self.refresh()
                case signal.SIGCHLD:
                    if self.process.poll() is not None:
                        self.say("ended by itself")
                        self.deregister()
                        return 1
                case signal.SIGTERM | signal.SIGINT:
                    self.leave()
                    return 0

    def begin(self) -> bool:
        """Register the service once it is healthy; False when it has ended, or is not healthy in time."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self.is_healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        self.register()
        return True

    def is_healthy(self) -> bool:
        """Ask the service itself, not through the load balancer."""
        try:
            answer = self.http.get(f"http://{self.upstream.address}/healthz", timeout=HEALTH_TIMEOUT)
        except requests.RequestException:
            return False
        return answer.status_code < 500

    def leave(self) -> None:
        """End the service so that nobody notices: no new request, then none in flight, then no process."""
        self.deregister()
        self.drain()
        self.stop()

    def drain(self) -> None:
        """Wait until the load balancer has confirmed that nothing is in flight."""
        deadline = time.monotonic() + DRAIN_TIMEOUT
        while not self.is_drained():
            if time.monotonic() > deadline:
                self.say(f"the load balancer did not confirm within {DRAIN_TIMEOUT} s")
                return
            time.sleep(POLL)
        self.say("drained")

    def stop(self) -> None:
        """SIGTERM to the service, and reap it; kill what is left of it."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.say(f"did not end within {STOP_TIMEOUT} s, killed")
        self.kill()

    # What follows is given.

    def start(self) -> subprocess.Popen:
        """Start the service in a process group of its own; if we die, by kill -9 even, the kernel kills it."""
        command = [string.Template(word).safe_substitute(PORT=self.upstream.port) for word in self.command]
        return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], start_new_session=True)

    def next_signal(self, timeout: float) -> int | None:
        """Return the next signal; None when none has come within `timeout` seconds."""
        info = signal.sigtimedwait(SIGNALS, timeout)
        return info.si_signo if info else None

    def register(self) -> None:
        """Write the instance's key: the load balancer sends it requests from now on."""
        self.registry.register(self.backend, self.instance)
        self.say(f"registered at {self.upstream.address}")

    def refresh(self) -> None:
        """Keep the key from expiring."""
        try:
            self.registry.refresh(self.service, self.instance)
        except NotRegistered:
            self.register()
        except RegistryUnavailable as error:
            self.say(f"serving on: {error}")

    def deregister(self) -> None:
        """Take the key away: the load balancer sends no new request. Those that have begun go on."""
        self.registry.deregister(self.service, self.instance)
        self.say("deregistered")

    def is_drained(self) -> bool:
        """Tell whether the load balancer has confirmed, through the registry, that nothing is in flight any more."""
        return self.registry.is_drained(self.service, self.instance, self.upstream.address)

    def kill(self) -> None:
        """Kill the service with all its processes, and reap it; no harm if it has ended."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended, and so have its children
        self.process.wait()

    def say(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.instance}: {what}", flush=True)


if __name__ == "__main__":
    main()
