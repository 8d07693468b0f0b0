"""The registrar of one instance: keeps its key in the registry true, from its start to its end.

    registrar.py SERVICE INSTANCE HOST:PORT ETCD CERTIFICATES

    register → refresh, every 3 s → SIGTERM → deregister, and exit
    the registry is away, or says nothing      → try again soon: the instance serves on
    the registry has forgotten the key         → register again

The registry is etcd. ETCD is its URL. CERTIFICATES is the folder with ca.pem, which signed etcd's certificate, and
client.pem, which is ours: etcd refuses every client without one. exercises/04-heartbeat/keys.py writes, refreshes and
deletes keys, through etcd's v2 API or its v3 API.
"""

import logging
import signal
import sys

import requests
from keys import connect

HEARTBEAT = 3  # seconds between two refreshes of the key
TTL = 10  # seconds until the key expires: two refreshes may fail, the third must succeed
TIMEOUT = 2  # seconds for a call; far more than loopback needs, and less than a heartbeat
RETRY = 0.5  # seconds until what has failed is tried again, instead of at the next heartbeat

SIGNALS = {signal.SIGTERM, signal.SIGINT}

log = logging.getLogger("registrar")


class NotRegistered(Exception):
    """The key has expired, or etcd has lost it."""


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    Registrar(*sys.argv[1:]).run()


class Registrar:
    """One instance in the registry. What calls etcd raises requests.RequestException when that does not answer."""

    def __init__(self, service: str, instance: str, address: str, etcd: str, certificates: str):
        self.instance = instance
        self.address = address
        self.key = f"/services/{service}/upstream/{instance}"
        self.keys = connect(etcd, certificates)
        self.is_registered = False

    def run(self) -> None:
        """Keep the key true until we are asked to stop, then take it away."""
        # From here on these signals wait for us in `sigtimedwait`, so that none arrives in the middle of a step.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pause = self.heartbeat()
        while not self.is_asked_to_stop(pause):
            pause = self.heartbeat()
        self.deregister()

    def is_asked_to_stop(self, pause: float) -> bool:
        """Wait for `pause` seconds, or until a signal asks us to stop; tell whether one did."""
        info = signal.sigtimedwait(SIGNALS, pause)
        # After a SIGSTOP and a SIGCONT, such as Ctrl-Z and `fg`, CPython returns a number that is no signal.
        return info is not None and info.si_signo in SIGNALS

    def register(self) -> None:
        """Write the key, with a TTL; its value is the address."""
        self.keys.put(self.key, self.address, ttl=TTL, timeout=TIMEOUT)

    def refresh(self) -> None:
        """Keep the key from expiring."""
        self.keys.put(self.key, self.address, ttl=TTL, timeout=TIMEOUT)

    def deregister(self) -> None:
        """Take the key away; should the registry be away, the key expires."""
        try:
            self.keys.delete(self.key, timeout=TIMEOUT)
        except requests.RequestException as error:
            log.warning("%s: the registration will expire", error)
            return
        log.info("%s: deregistered", self.instance)

    def keep_registered(self) -> None:
        """Refresh the key. The first time, write it: one of an earlier life may be there, with another address."""
        if self.is_registered:
            try:
                self.refresh()
                return
            except NotRegistered:
                log.warning("%s: the registry has forgotten it", self.instance)
        self.register()
        self.is_registered = True
        log.info("%s: registered at %s", self.instance, self.address)

    def heartbeat(self) -> float:
        """Refresh the registration, or make it; return the seconds until the next time."""
        try:
            self.keep_registered()
        except requests.RequestException as error:
            log.warning("%s: serving on; next attempt in %s s", error, RETRY)
            return RETRY
        return HEARTBEAT


if __name__ == "__main__":
    main()
