"""Who answers which path: changed at run time, in the registry, from where it reaches the load balancer's map.

A route is in force when the map has it. It says nothing to the workers that HAProxy keeps from before a reload: so
nothing is moved until these have no clients left but WebSockets, which belong to their instance anyway.
"""

import contextlib
import time
from collections.abc import Collection, Iterator

import requests

from workshop import evolution, haproxy, paths, status
from workshop.errors import WorkshopError
from workshop.haproxy import Runtime, prefix_key
from workshop.lifecycle import ANSWER_TIMEOUT, Progress
from workshop.registry import Backend, Registry, Snapshot
from workshop.stage import PREFIX
from workshop.state import Up
from workshop.waiting import wait_until

IN_FORCE_TIMEOUT = 5  # seconds for a route to reach the map; measured: 0.02
SETTLE_TIMEOUT = 15  # seconds: a client that is idle is let go after 10, `timeout http-keep-alive` in haproxy.cfg.j2
LONGEST_REQUEST = 5  # seconds: `timeout server` is 4.5 there
HOLD = 2.0  # seconds after which writes that are held go on by themselves
CLOSE_TIMEOUT = 10  # seconds until the last WebSocket must be closed


def route(up: Up, prefix: str, service: str, say: Progress) -> None:
    """Have a service answer a path prefix from now on. Raises WorkshopError, and changes nothing, if it does not."""
    if not PREFIX.fullmatch(prefix):
        raise WorkshopError(f"{prefix!r} is no path prefix: allowed is something like /api/users.")
    if up.is_on_the_way and any(step.rows and prefix in step.routes for step in evolution.of(up).steps):
        raise WorkshopError(f"{prefix} moves together with its rows: `./workshop evolve` does that.")
    registry = Registry(up.registry)
    snapshot = registry.snapshot()
    refuse_who_does_not_serve(snapshot, prefix, service)
    settle(say)
    move(registry, {prefix: service})
    say(f"{prefix} is answered by {service}")


def refuse_who_does_not_serve(snapshot: Snapshot, prefix: str, name: str) -> None:
    """Raise WorkshopError unless the service has an instance, and declares the prefix or at least knows the path."""
    service = snapshot.services.get(name)
    if service is None:
        raise WorkshopError(f"There is no service {name!r}: there are {', '.join(sorted(snapshot.services))}.")
    if not service.upstreams:
        raise WorkshopError(f"{name} has no instance that could answer: `./workshop start {name}` comes first.")
    if prefix not in service.locations and not _knows(service, prefix):
        declared = ", ".join(service.locations)
        raise WorkshopError(f"{name} does not serve {prefix}: it serves {declared}. Nothing was moved.")


def _knows(service: Backend, prefix: str) -> bool:
    """Tell whether an instance knows the path, whatever it answers to a GET without a token."""
    address = next(iter(service.upstreams.values())).address
    with requests.Session() as http:
        http.trust_env = False
        try:
            status = http.get(f"http://{address}{prefix}", timeout=ANSWER_TIMEOUT).status_code
        except requests.RequestException as error:
            raise WorkshopError(f"{service.name} does not answer: {error}. Nothing was moved.") from None
    return status != 404 and status < 500


def pin(registry: Registry, owners: dict[str, str]) -> None:
    """Fix who answers each prefix: what services say of themselves as they come and go changes nothing then."""
    known = registry.snapshot().routes
    move(registry, {prefix: service for prefix, service in owners.items() if prefix not in known})


def move(registry: Registry, routes: dict[str, str]) -> None:
    """Set routes, and wait until they are in force."""
    for prefix, service in routes.items():
        registry.set_route(prefix, service)
    wait_until_in_force(routes)


def wait_until_in_force(routes: dict[str, str], timeout: float = IN_FORCE_TIMEOUT) -> None:
    """Wait until the load balancer's map has these routes. Raises WorkshopError."""
    if not wait_until(lambda: are_in_force(routes), timeout):
        raise WorkshopError(
            f"The load balancer does not take over the routes within {timeout:.1f} s: see `./workshop logs balancer`."
        )


def are_in_force(routes: dict[str, str]) -> bool:
    return routes.items() <= status.routes().items()


def verify(up: Up, routes: dict[str, str]) -> None:
    """Ask for each prefix, as a client would. Raises WorkshopError when another service answers, or none."""
    with requests.Session() as http:
        http.trust_env = False
        for prefix, service in routes.items():
            try:
                served_by = http.get(up.internal_url + prefix, timeout=ANSWER_TIMEOUT).headers.get("X-Served-By", "")
            except requests.RequestException as error:
                served_by = str(error)
            if not served_by.startswith(f"{service}_"):
                raise WorkshopError(
                    f"{prefix} should be answered by {service} now, and is not: {served_by or 'no instance answers'}."
                )


def settle(say: Progress) -> None:
    """Wait until nobody is served by a table from before a reload any more."""
    runtime = Runtime(paths.HAPROXY)
    if runtime.outdated_clients():
        say("waiting until the clients of the load balancer before its reload have a new connection: at most 10 s")
    if not wait_until(lambda: not runtime.outdated_clients(), SETTLE_TIMEOUT):
        raise WorkshopError(
            f"{runtime.outdated_clients()} clients are still busy with the load balancer from before its reload: "
            "try again when their requests are done."
        )


def wait_for_requests(service: str) -> None:
    """Wait until all requests that are under way to a service now are answered."""
    runtime = Runtime(paths.HAPROXY)
    begun = _requests(runtime, service)
    if not wait_until(lambda: not begun & _requests(runtime, service), LONGEST_REQUEST):
        raise WorkshopError(f"{service} has not answered within {LONGEST_REQUEST} s what it was asked: try again.")


def _requests(runtime: Runtime, service: str) -> set[tuple[str, int]]:
    return {(s.worker, s.number) for s in runtime.sessions(service) if not s.is_websocket}


def close_websockets(service: str) -> int:
    """Close the WebSockets to a service, whose clients connect again, to whom the routes say; return how many."""
    runtime, closed = Runtime(paths.HAPROXY), set()

    def all_are_closed() -> bool:
        sessions = [session for session in runtime.sessions(service) if session.is_websocket]
        for session in sessions:
            runtime.shut(session)
            closed.add((session.worker, session.number))
        return not sessions

    if not wait_until(all_are_closed, CLOSE_TIMEOUT):
        raise WorkshopError(f"{service} still has WebSockets after {CLOSE_TIMEOUT} s: try again.")
    return len(closed)


class Hold:
    """Writes to some prefixes that wait at the load balancer, until they are let go or the time is over."""

    def __init__(self):
        self.since = time.time()  # the clock of the map, which HAProxy reads
        self.ends = self.since + HOLD

    def seconds_left(self) -> float:
        return self.ends - time.time()


@contextlib.contextmanager
def held(prefixes: Collection[str]) -> Iterator[Hold]:
    """Hold the writes to these prefixes. Should this process die, they go on by themselves when the time is over."""
    runtime, file = Runtime(paths.HAPROXY), paths.HAPROXY / haproxy.HOLDS
    hold = Hold()
    wanted = {prefix_key(prefix): f"{hold.ends:.3f}" for prefix in prefixes}
    try:
        runtime.set_map(file, wanted)
        # In the file as well: a worker that is started meanwhile knows it then.
        file.write_text("".join(f"{key} {ends}\n" for key, ends in wanted.items()))
        yield hold
    finally:
        file.write_text("")
        runtime.set_map(file, {})
