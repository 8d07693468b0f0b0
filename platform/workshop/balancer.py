"""The load-balancer manager: makes HAProxy serve what the registry says.

    registry ──watch──▶ snapshot ──▶ desired set ──▶ haproxy.cfg, and then
                                                       other services:  a reload
                                                       other instances: the Runtime API

It never trusts its own memory of the instances: each pass compares those wanted with those that HAProxy reports,
so a pass after any accident (HAProxy restarted, a command refused, this process killed) mends it.

Which instances are wanted. A key that expires says that its sidecar was silent for one TTL, but only if etcd could hear
it. After a silence of more than SILENCE between two answers of etcd, or a jump of the clock by which keys expire, the
expiry says nothing until every sidecar had the time to register again: the manager doubts for one TTL.

    in the registry                           etcd answers    in doubt, until one TTL after the silence
    the instance's key                        wanted          wanted
    no key, and the instance deregistered     not wanted      not wanted
    no key, it has expired or etcd lost it    not wanted      wanted, as it was last; HAProxy's health check decides

Doubt begins with the first answer after: etcd stopped or killed, the whole machine suspended, the clock set forward,
etcd wiped, the manager started.

Which service answers what. Any program that may write to the registry can register under the name of a service that
this platform runs. Such an instance joins the others, but it does not speak for the service: location, balance and
sticky prefixes are those with which the platform has started its own instances (.run/instances/), and no other service
gets one of these prefixes by its location. `./workshop route` may give it one.
"""

import contextlib
import dataclasses
import json
import logging
import queue
import threading
import time
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from workshop import haproxy, paths, state
from workshop.errors import WorkshopError
from workshop.files import write_atomically
from workshop.haproxy import HAProxyUnavailable, Phase, Runtime, Session
from workshop.logs import log_to_stdout
from workshop.registry import HEARTBEAT, TTL, Backend, Registry, RegistryUnavailable, Snapshot, Upstream
from workshop.sidecar import Instance

RECONCILE = 5  # seconds between two passes when nothing happens
CHECK_POLL = 0.5  # seconds between two looks at an instance that HAProxy has not checked yet; it checks that often
CLIENT_POLL = 1  # seconds between two looks at requests that have not arrived
DRAIN_POLL = 0.02  # seconds between two looks at an instance that is finishing its requests
RETRY = 0.5  # seconds between two attempts to reach a registry or an HAProxy that is away
# Seconds without an answer of etcd (at rest it answers every 2 s) that may cost a sidecar a refresh. A key outlives one
# that fails, and expires after a silence of TTL - HEARTBEAT = 7 s at the earliest; on a busy machine, 5 s.
SILENCE = HEARTBEAT
# Seconds after which no ordinary request can be in flight any more: HAProxy's `timeout server` is 4.5 s. Only a long
# poll of Socket.IO may take longer.
LONGEST_REQUEST = 5

log = logging.getLogger("balancer")


def main() -> None:
    log_to_stdout()
    up = state.load()
    registry = Registry(up.registry)
    Balancer(registry, Runtime(paths.HAPROXY), up.frontends, paths.HAPROXY).run()


class LastGood:
    """What was in rotation last: in doubt, it completes what the registry says. (The module's docstring says when.)"""

    def __init__(self, file: Path):
        self.file = file
        saved = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.services = {name: _service_from(value) for name, value in saved.get("services", {}).items()}
        self.routes: dict[str, str] = saved.get("routes", {})
        self.index: int = saved.get("index", 0)
        self.is_saved = True
        self.lost_routes: dict[str, str] = {}  # no sidecar tells the registry again: the manager has to
        self.doubt_ends = 0.0  # on the monotonic clock

    def doubt(self) -> None:
        """From now on for one TTL, do not take a key that has expired for an instance that is gone."""
        self.doubt_ends = time.monotonic() + TTL

    def complete(self, snapshot: Snapshot) -> dict[str, Backend]:
        """Return the snapshot's services, completed by what may not count as gone yet."""
        if snapshot.index < self.index:  # etcd was wiped
            self.lost_routes = self.routes
            self.doubt()
        self.lost_routes = {prefix: s for prefix, s in self.lost_routes.items() if prefix not in snapshot.routes}
        completed = dict(snapshot.services)
        if time.monotonic() < self.doubt_ends:
            for known in self.services.values():
                if service := _completed(completed.get(known.name), known, snapshot.deregistered):
                    completed[known.name] = service
        routes = self.lost_routes | snapshot.routes
        self.index = snapshot.index
        if (completed, routes) != (self.services, self.routes) or not self.is_saved:
            self.services, self.routes = completed, routes
            self.is_saved = save(self.file, Snapshot(completed, routes, snapshot.index))
        return completed


def _completed(seen: Backend | None, known: Backend, deregistered: set[tuple[str, str]]) -> Backend | None:
    """Return a service with those of its known instances that did not deregister; None if it is gone with all of them.

    A service without a registered instance is as it was: what is known of it may be about to be written again.
    """
    upstreams = {name: found for name, found in known.upstreams.items() if (known.name, name) not in deregistered}
    if seen is None and known.upstreams and not upstreams:
        return None
    described = seen if seen and seen.upstreams else known
    return dataclasses.replace(described, upstreams=upstreams | (seen.upstreams if seen else {}))


def save(file: Path, known: Snapshot) -> bool:
    services = {name: dataclasses.asdict(service) for name, service in known.services.items()}
    saved = {"services": services, "routes": known.routes, "index": known.index}
    return write_if_possible(file, json.dumps(saved, indent=2))


def write_if_possible(file: Path, text: str) -> bool:
    """Replace a file that only a restart reads; False on a full disk: HAProxy is told, and a later pass writes it."""
    try:
        write_atomically(file, text)
    except OSError as error:
        log.warning("%s stays as it was: %s", file, error)
        return False
    return True


def own_instances() -> dict[str, list[Instance]]:
    """Return the instances that this platform has started, by service, the newest last."""
    found = []
    for file in paths.INSTANCES.glob("*.json"):
        try:
            found.append((file.stat().st_mtime_ns, _instance(file, file.stat().st_mtime_ns)))
        except FileNotFoundError:
            continue  # just removed
    ours: dict[str, list[Instance]] = {}
    for _, instance in sorted(found, key=lambda pair: pair[0]):
        ours.setdefault(instance.service, []).append(instance)
    return ours


@lru_cache(maxsize=256)
def _instance(file: Path, _written: int) -> Instance:
    return Instance.load(file)


def _clocks() -> tuple[float, float]:
    """Return the time by both clocks: etcd's v2 keys expire by the second, which a resumed machine sets forward."""
    return time.monotonic(), time.time()


def _service_from(saved: dict) -> Backend:
    upstreams = {name: Upstream(**upstream) for name, upstream in saved["upstreams"].items()}
    return Backend(**saved | {"upstreams": upstreams})


def seed(services: dict[str, Backend], routes: dict[str, str], frontends: state.Frontends, folder: Path) -> None:
    """Write the files HAProxy starts with: the stage's services, without an instance yet."""
    first = Snapshot(services, routes, 0)
    (folder / haproxy.SOCKETS).mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "haproxy.cfg", haproxy.render(services, frontends, folder))
    for name, content in read_at_reload(haproxy.render_map(first.table())).items():
        write_atomically(folder / name, content)
    save(folder / "last_good.json", first)


def read_at_reload(routes: str) -> dict[str, str]:
    """Return what HAProxy reads beside its configuration when it starts or reloads: file name → first content."""
    return {haproxy.ROUTES: routes, haproxy.HOLDS: "", haproxy.HOLD_SCRIPT: hold_script()}


@cache
def hold_script() -> str:
    return Path(__file__).with_name(haproxy.HOLD_SCRIPT).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Leaving:
    """An instance that gets no more requests and is finishing those it has."""

    address: str
    since: float  # on the monotonic clock


class SlowClients(threading.Thread):
    """Closes the connection of each request that takes too long to arrive, because each byte renews HAProxy's timeouts.

    It sends no answer: HAProxy 3 would go on reading the request after an answer. A request has LONGEST_REQUEST and at
    most two CLIENT_POLL.
    """

    def __init__(self, runtime: Runtime):
        super().__init__(name="slow clients", daemon=True)
        self.runtime = runtime
        self.sending: dict[Session, float] = {}  # the requests that have not arrived, and when we first saw each

    def run(self) -> None:
        while True:
            with contextlib.suppress(HAProxyUnavailable):  # the manager's next pass logs it
                self.close()
            time.sleep(CLIENT_POLL)

    def close(self) -> None:
        now = time.monotonic()
        sending = [session for session in self.runtime.sessions() if session.phase is Phase.SENDING]
        self.sending = {session: self.sending.get(session, now) for session in sending}
        for session, since in self.sending.items():
            if now - since >= LONGEST_REQUEST:
                self.runtime.shut(session)
                log.info("closed a connection: its request did not arrive within %s s", LONGEST_REQUEST)


class Balancer:
    """Keeps one HAProxy in step with one registry."""

    def __init__(self, registry: Registry, runtime: Runtime, frontends: state.Frontends, folder: Path):
        self.registry = registry
        self.runtime = runtime
        self.frontends = frontends
        self.folder = folder
        self.last_good = LastGood(folder / "last_good.json")
        # That HAProxy runs. Should we be killed between writing the file and the reload, a service that is gone, or its
        # old `balance`, stays until the next reload; that HAProxy lacks a service is seen, and leads to one.
        self.frame = haproxy.frame((folder / "haproxy.cfg").read_text())
        self.news: queue.SimpleQueue[Snapshot | None] = queue.SimpleQueue()  # None: the registry is away
        self.draining: dict[tuple[str, str], Leaving] = {}  # by service and instance
        self.logged: dict[tuple[str, str], tuple[str, bool]] = {}  # (service, instance) → address, whether it is down
        self.has_unchecked = False  # an instance that HAProxy has not checked yet
        self.conflicts: set[tuple[str, str]] = set()  # those logged: (service, what another program says of it)
        self.to_repair: dict[str, Backend] = {}  # what the registry is to say again of a service
        self.repaired = 0.0  # when that was done last, on the monotonic clock

    def run(self) -> None:
        """Work until the process is ended."""
        threads = [threading.Thread(target=self.watch, name="watch", daemon=True), SlowClients(self.runtime)]
        for thread in threads:
            thread.start()
        snapshot, pause = None, RECONCILE
        while all(
            thread.is_alive() for thread in threads
        ):  # if a bug ends one, the supervisor starts the manager again
            for news in self.take_news(pause):
                snapshot = news
            if snapshot is None:
                pause = RECONCILE
            elif not self.make_pass(snapshot):
                pause = RETRY
            else:
                pause = DRAIN_POLL if self.draining else CHECK_POLL if self.has_unchecked else RECONCILE

    def take_news(self, timeout: float) -> list[Snapshot | None]:
        """Return all news there is; none after `timeout` seconds: time to look at what drains or has drifted."""
        try:
            news = [self.news.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self.news.empty():
            news.append(self.news.get())
        return news

    def watch(self) -> None:
        """Pass on each state of the registry: read it, wait for a change, read it again."""
        answered = None
        while True:
            try:
                ours = {instance.name for instances in own_instances().values() for instance in instances}
                snapshot = self.registry.snapshot(ours)
                last, answered = answered, _clocks()
                if last is None or any(now - before > SILENCE for now, before in zip(answered, last, strict=True)):
                    self.last_good.doubt()
                self.news.put(snapshot)
                self.registry.wait(snapshot.index)
            except RegistryUnavailable as error:
                log.warning("%s: the last good set stays; next attempt in %s s", error, RETRY)
                self.news.put(None)
                time.sleep(RETRY)

    def make_pass(self, snapshot: Snapshot) -> bool:
        """Make HAProxy serve what the registry says; False when something failed and is to be tried again."""
        self.declare(snapshot)
        services = self.last_good.complete(snapshot)
        table = Snapshot(services, self.last_good.routes, snapshot.index).table()
        try:
            self.apply(services, table)
            for prefix, service in self.last_good.lost_routes.items():
                self.registry.set_route(prefix, service)
            self.repair()
            self.drain()
        except (HAProxyUnavailable, RegistryUnavailable, WorkshopError, OSError) as error:  # OSError: a full disk
            log.warning("%s; next attempt in %s s", error, RETRY)
            return False
        return True

    def declare(self, snapshot: Snapshot) -> None:
        """Put the platform's own declarations in place of what other programs say, in the registry, of its services."""
        ours = own_instances()
        for service in snapshot.services.values():
            if instances := ours.get(service.name):
                self.declare_service(service, instances)
        known = [service for service in snapshot.services.values() if service.name in ours]
        owners = {prefix: service.name for service in known for prefix in service.locations}
        for service in snapshot.services.values():
            if service.name not in ours:
                for prefix in [prefix for prefix in service.locations if prefix in owners]:
                    self.log_conflict(service.name, f"{prefix} as a location, which is {owners[prefix]}'s")
                service.locations = [prefix for prefix in service.locations if prefix not in owners]

    def declare_service(self, service: Backend, instances: list[Instance]) -> None:
        """Give a service what its instances declare; of several builds, that of the newest registered instance."""
        newest = ([instance for instance in instances if instance.name in service.upstreams] or instances)[-1]
        for field in ("locations", "balance", "sticky"):
            said, unwritten = getattr(service, field), getattr(Backend(service.name), field)
            if said != unwritten and said not in [getattr(instance, field) for instance in instances]:
                self.log_conflict(service.name, f"other {field} than its instances declare")
                self.to_repair[service.name] = service
            setattr(service, field, getattr(newest, field))

    def log_conflict(self, service: str, what: str) -> None:
        if (service, what) not in self.conflicts:
            self.conflicts.add((service, what))
            log.warning("%s: the registry has %s: ignored. A program that joins needs names of its own.", service, what)

    def repair(self) -> None:
        """Write to the registry again what another program has overwritten; now and then, should it go on."""
        if self.to_repair and time.monotonic() - self.repaired >= RECONCILE:
            for service in self.to_repair.values():
                self.registry.announce(service)
            self.to_repair.clear()
            self.repaired = time.monotonic()

    def apply(self, services: dict[str, Backend], table: dict[str, str]) -> None:
        """Write haproxy.cfg; reload for other services, use the Runtime API for other instances and routes."""
        target, routes_target = self.folder / "haproxy.cfg", self.folder / haproxy.ROUTES
        config = haproxy.render(services, self.frontends, self.folder)
        routes = haproxy.render_map(table)
        self.replace_removed(routes)
        other_frame = haproxy.frame(config) != self.frame
        if other_frame:
            # Not for instances alone: their lines differ in values only, which were checked when they were read,
            # and the check takes 40 ms.
            haproxy.check(config, self.folder)
            write_atomically(target, config)
        elif not target.exists() or config != target.read_text():
            write_if_possible(target, config)
        if routes_target.read_text() != routes:
            write_if_possible(routes_target, routes)
        running = self.runtime.servers()
        if other_frame or not services.keys() <= running.keys():
            log.info("reload: the services are now %s", ", ".join(sorted(services)))
            self.runtime.reload()
            self.frame = haproxy.frame(config)
            running = self.runtime.servers()
        self.has_unchecked = False
        for service in services.values():
            self.reconcile(service, running[service.name])
            self.log_health(service, running[service.name])
        self.runtime.set_map(routes_target, dict(line.split() for line in routes.splitlines()))

    def replace_removed(self, routes: str) -> None:
        """Write again what HAProxy reads at a reload and somebody has removed: HAProxy itself has it in memory."""
        for name, content in read_at_reload(routes).items():
            if not (self.folder / name).exists():
                log.warning("%s was removed: it is written again", name)
                write_if_possible(self.folder / name, content)

    def reconcile(self, service: Backend, running: dict[str, dict[str, str]]) -> None:
        """Add, change and take out instances of one service until HAProxy has those wanted."""
        for name, upstream in service.upstreams.items():
            server = running.get(name)
            self.draining.pop((service.name, name), None)  # should it have been leaving, it does no more
            if server is None:
                self.runtime.add_server(service.name, name, upstream)
                self.has_unchecked = True
            elif server["addr"] != upstream.address or server["status"].startswith("MAINT"):
                self.runtime.move_server(service.name, name, upstream)
                self.logged.pop((service.name, name), None)
                self.has_unchecked = True
            elif server["weight"] != str(upstream.weight):
                self.runtime.set_weight(service.name, name, upstream.weight)
                log.info("%s: weight %s", name, upstream.weight)
        for name in running.keys() - service.upstreams.keys():
            if (service.name, name) not in self.draining:
                self.runtime.stop_sending(service.name, name)
                self.draining[service.name, name] = Leaving(running[name]["addr"], time.monotonic())
                self.logged.pop((service.name, name), None)
                log.info("%s: out of rotation", name)

    def log_health(self, service: Backend, running: dict[str, dict[str, str]]) -> None:
        """Say of each instance whether HAProxy sends it requests, when that has changed, and why it does not."""
        for name in service.upstreams.keys() & running.keys():
            server, key = running[name], (service.name, name)
            found = (server["addr"], haproxy.is_down(server))
            if not haproxy.is_checked(server):
                self.has_unchecked = True
            elif self.logged.get(key) != found and not server["status"].startswith("MAINT"):
                self.logged[key] = found
                if haproxy.is_down(server):
                    log.warning("%s: DOWN at %s: %s", name, server["addr"], haproxy.last_check(server))
                else:
                    log.info("%s: in rotation at %s", name, server["addr"])

    def drain(self) -> None:
        """Tell the instances that leave when nothing is in flight to them; close what would never end by itself."""
        for (service, name), leaving in list(self.draining.items()):
            sessions, waited = self.runtime.sessions(service, name), time.monotonic() - leaving.since
            for session in sessions:
                # The client of a WebSocket reconnects, to another instance, within milliseconds.
                if session.is_websocket or waited > LONGEST_REQUEST:
                    self.runtime.shut(session)
            if not sessions and self.runtime.del_server(service, name):
                self.registry.confirm_drained(service, name, leaving.address)
                del self.draining[service, name]
                log.info("%s: drained in %.0f ms", name, 1000 * waited)


if __name__ == "__main__":
    main()
