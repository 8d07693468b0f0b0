"""Who answers which path: changed at run time, in the registry, from where it reaches the load balancer's map.

A route is in force when the map has it. It says nothing to the workers that HAProxy keeps from before a reload: so
nothing is moved until these have no clients left but WebSockets, which belong to their instance anyway.
"""

import contextlib
import dataclasses
import time
from collections.abc import Collection, Iterator

import requests

from workshop import evolution, haproxy, paths
from workshop.balancer import LONGEST_REQUEST
from workshop.errors import WorkshopError
from workshop.haproxy import HAProxyUnavailable, Phase, Runtime, Session, prefix_key
from workshop.lifecycle import ANSWER_TIMEOUT, Progress
from workshop.registry import PREFIX, Backend, Registry, RegistryUnavailable, Snapshot, covers, owner
from workshop.state import Up
from workshop.waiting import wait_until

IN_FORCE_TIMEOUT = 5  # seconds for a route to reach the map; measured: 0.02
# Seconds. haproxy.cfg.j2 says when HAProxy closes a connection: after 5 s if it is idle, after 11 s if the client reads
# no answer. The manager closes it after 7 s if the request has not arrived.
SETTLE_TIMEOUT = 20
CUT_TIME = 1.0  # seconds before the end of a wait at which clients that are still sending are cut off
HOLD = 2.0  # seconds after which writes that are held go on by themselves
ROUTE_TIME = 0.5  # seconds of a hold that must be left for a route to come into force
CLOSE_TIMEOUT = 10  # seconds until the last connection must be closed


def route(up: Up, prefix: str, service: str, say: Progress) -> None:
    """Have a service answer a path prefix from now on. Raises WorkshopError, and changes nothing, if it does not."""
    if not PREFIX.fullmatch(prefix):
        raise WorkshopError(f"{prefix!r} is no path prefix: allowed is something like /api/users.")
    if up.is_on_the_way:
        refuse_what_has_rows(up, prefix)
    registry = Registry(up.registry)
    snapshot = registry.snapshot()
    refuse_who_does_not_serve(snapshot, prefix, service)
    settle(say)
    # On the way to the next stage, whatever a stage declares has a route, so that it stays where it is.
    is_pinned = up.is_on_the_way and prefix in evolution.of(up).routes_at(up.steps)
    if owner_without_route(snapshot, prefix) == service and not is_pinned:
        registry.remove_route(prefix)
    else:
        registry.set_route(prefix, service)
    wait_until_in_force({prefix: service})
    say(f"{prefix} is answered by {service}")


def owner_without_route(snapshot: Snapshot, prefix: str) -> str | None:
    """Return who would answer a prefix if there were no route for it, only the others, and what services say."""
    others = {prefixes: name for prefixes, name in snapshot.routes.items() if prefixes != prefix}
    return owner(dataclasses.replace(snapshot, routes=others).table(), prefix)


def refuse_what_has_rows(up: Up, prefix: str) -> None:
    """Raise WorkshopError for a path whose rows have moved, or will: another service has none, or old ones."""
    for step in evolution.of(up).steps:
        for moved in " ".join(step.routes).split() if step.rows else ():
            if covers(moved, prefix) or (covers(prefix, moved) and prefix != "/"):
                raise WorkshopError(f"{moved} moves together with its rows: `./workshop evolve` does that.")


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


def pin(registry: Registry, routes: dict[str, str]) -> None:
    """Fix who answers what: what services say of themselves as they come and go changes nothing then.

    Raises WorkshopError when something else has been set by hand.
    """
    known = registry.snapshot().routes
    for prefixes, service in known.items():
        if routes.get(prefixes) != service:
            meant = owner(_single(routes), prefixes)
            raise WorkshopError(
                f"{prefixes} is answered by {service}, as somebody has said: "
                f"`./workshop route {prefixes} {meant}` comes first."
            )
    move(registry, {prefixes: service for prefixes, service in routes.items() if prefixes not in known})


def move(registry: Registry, routes: dict[str, str]) -> None:
    """Set routes, and wait until they are in force."""
    for prefixes, service in routes.items():
        registry.set_route(prefixes, service)
    wait_until_in_force(routes)


def wait_until_known(services: Collection[str]) -> None:
    """Wait until the load balancer has been reloaded for new services. Raises WorkshopError."""

    def are_known() -> bool:
        try:
            return set(services) <= Runtime(paths.HAPROXY).servers().keys()
        except HAProxyUnavailable:
            return False  # it is just being reloaded

    if not wait_until(are_known, IN_FORCE_TIMEOUT):
        raise WorkshopError("The load balancer does not take over the services: see `./workshop logs balancer`.")


def take_back(registry: Registry, routes: dict[str, str]) -> None:
    """Set routes as they were, even if the registry is away for a moment."""

    def are_set() -> bool:
        try:
            move(registry, routes)
        except RegistryUnavailable:
            return False
        return True

    if not wait_until(are_set, IN_FORCE_TIMEOUT):
        raise WorkshopError("The registry is away: nobody can say where the route leads once it is back.")


def wait_until_in_force(routes: dict[str, str], timeout: float = IN_FORCE_TIMEOUT) -> None:
    """Wait until the load balancer follows these routes. Raises WorkshopError."""
    if not come_into_force(routes, timeout):
        raise WorkshopError(
            f"The load balancer does not follow the routes within {timeout} s: `./workshop logs balancer`."
        )


def come_into_force(routes: dict[str, str], timeout: float) -> bool:
    """Wait until the load balancer follows these routes; tell whether it does."""

    def they_are() -> bool:
        try:
            return are_in_force(routes)
        except HAProxyUnavailable:
            return False  # it is being started anew

    return bool(wait_until(they_are, timeout))


def are_in_force(routes: dict[str, str]) -> bool:
    """Tell whether the load balancer follows these routes. Raises HAProxyUnavailable."""
    table = Runtime(paths.HAPROXY).routes()
    return all(owner(table, prefix) == service for prefix, service in _single(routes).items())


def _single(routes: dict[str, str]) -> dict[str, str]:
    """Return the same routes, one prefix each."""
    return {prefix: service for prefixes, service in routes.items() for prefix in prefixes.split()}


def verify(up: Up, routes: dict[str, str]) -> None:
    """Ask for each prefix, as a client would. Raises WorkshopError when another service answers, or none."""
    with requests.Session() as http:
        http.trust_env = False
        for prefix, service in _single(routes).items():
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
        say(f"waiting until the clients of the load balancer before its reload are done: at most {SETTLE_TIMEOUT} s")
    if not wait_until(lambda: not runtime.outdated_clients(), SETTLE_TIMEOUT):
        # A client can keep HAProxy 3 reading after the answer for as long as it sends something.
        runtime.end_outdated_workers()
        if not wait_until(lambda: not runtime.outdated_clients(), CLOSE_TIMEOUT):
            raise WorkshopError(
                f"{runtime.outdated_clients()} clients are still connected to the load balancer from before its "
                "reload. Run the command again in a minute."
            )


def wait_for_requests(service: str, timeout: float = LONGEST_REQUEST) -> list[Session]:
    """Wait until the requests that are under way to a service now are answered; return those that are not in time.

    A client that is slow to read its answer is not waited for. A client that is still sending is cut off CUT_TIME
    before the end: the service has not carried out its request.
    """
    runtime = Runtime(paths.HAPROXY)
    begun, cut_at = _requests(runtime, service), time.monotonic() + timeout - CUT_TIME

    def unanswered() -> list[Session]:
        return [session for session in _requests(runtime, service) if session in begun]

    def are_answered() -> bool:
        left = unanswered()
        for session in left:
            if session.phase is Phase.SENDING and time.monotonic() >= cut_at:
                runtime.shut(session)
        return not left

    wait_until(are_answered, timeout)
    return unanswered()


def _requests(runtime: Runtime, service: str) -> set[Session]:
    return {session for session in runtime.sessions(service) if session.phase in (Phase.SENDING, Phase.ANSWERING)}


def close_sockets(service: str) -> int:
    """Close the connections of Socket.IO to a service, whose clients connect again; return how many.

    They are its WebSockets, and the long polls: nothing else takes longer than LONGEST_REQUEST.
    """
    runtime, closed = Runtime(paths.HAPROXY), set()
    polls = wait_for_requests(service)

    def all_are_closed() -> bool:
        left = [session for session in runtime.sessions(service) if session.is_websocket or session in polls]
        for session in left:
            runtime.shut(session)
        closed.update(left)
        return not left

    if not wait_until(all_are_closed, CLOSE_TIMEOUT):
        raise WorkshopError(f"{service} still has connections after {CLOSE_TIMEOUT} s: try again.")
    return len(closed)


class Hold:
    """Writes to some prefixes that wait at the load balancer, until they are let go or the time is over."""

    def __init__(self):
        self.since = time.time()  # the clock by which HAProxy lets them go
        self.ends = self.since + HOLD

    def seconds_left(self) -> float:
        return self.ends - time.time()

    def check(self) -> None:
        """Raise WorkshopError when so little time is left that a route might come too late."""
        if self.seconds_left() < ROUTE_TIME:
            raise WorkshopError(
                f"This would have taken too long for writes that are held for {HOLD} s: nothing was moved."
            )


@contextlib.contextmanager
def held(routes: dict[str, str]) -> Iterator[Hold]:
    """Hold the writes to these prefixes. Should this process die, they go on by themselves when the time is over."""
    runtime, file = Runtime(paths.HAPROXY), paths.HAPROXY / haproxy.HOLDS
    hold = Hold()
    wanted = {prefix_key(prefix): str(round(1000 * hold.ends)) for prefix in _single(routes)}
    try:
        runtime.set_map(file, wanted)
        # In the file as well: a worker that is started meanwhile knows it then.
        file.write_text("".join(f"{key} {ends}\n" for key, ends in wanted.items()))
        yield hold
    finally:
        file.write_text("")
        runtime.set_map(file, {})
