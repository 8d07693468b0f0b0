"""A system that runs is taken to its next stage, and back, one step after the other, and serves all the time.

    a step          start services → share rows → roll a build → move rows and routes → share → retire services
    undoing it      the same, the other way round

Every part goes by what is there, not by what it did: a step that was interrupted is done again, or undone. Of rows that
move, those count to whose service the route leads.

How rows move to another service, with nobody noticing but a few writes that take longer:

    copy what there is                        while their service goes on serving
    pause its workers                         nothing is swept or expanded meanwhile
    hold writes at the load balancer          queued, not refused; for 2 s at most, whatever becomes of us
        wait for what was under way
        lock the tables                       no write can slip in, even if the hold should be over
            copy the rest, compare            when rows differ, or it took too long, the route stays
            move the route
    let the writes go                         to the new service
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator

from sqlalchemy import Connection, Engine

from workshop import builds, evolution, lifecycle, operations, records, rollout, routing, stage, status
from workshop.errors import WorkshopError
from workshop.evolution import Evolution, Rows, Step
from workshop.lifecycle import Progress
from workshop.registry import Backend, Registry
from workshop.routing import Hold
from workshop.stage import Service, Stage
from workshop.state import Up
from workshop.waiting import wait_until

ROUTE_TIME = 0.5  # seconds of a hold that must be left for the route to come into force, which takes 0.02


def take(up: Up, way: Evolution, say: Progress) -> Up:
    """Do the next step, or the one that was interrupted; return what is up then."""
    number = up.steps
    step, here = way.steps[number], _begin(up, way, number)
    there = evolution.current(here)  # all that is there before the step, or after it
    for name in step.start:
        _start(there, here, name, say)
    _share(step, here, say)
    for name in step.roll:
        _roll(way.at(number + 1), here, name, say)
    old, new = way.routes_at(number), way.routes_at(number + 1)
    _copy_early(step, step.rows, here, new, say)
    with _workers_paused(there, here, {name: after for name, (_, after) in step.settings.items()}, say):
        _move(step, step.rows, there, here, old, new, say)
    _share(step, here, say)
    for name in step.retire:
        _retire(there, here, name, say)
    return _arrive(here, way, number + 1)


def undo(up: Up, way: Evolution, number: int, say: Progress) -> Up:
    """Undo the step of that number, of which all or part has been done; return what is up then."""
    step, here = way.steps[number], _begin(up, way, number)
    there = evolution.current(here)
    for name in step.retire:
        _start(there, here, name, say)
    _share(step, here, say)
    rows = step.rows and dataclasses.replace(step.rows, source=step.rows.target, target=step.rows.source)
    old, new = way.routes_at(number + 1), way.routes_at(number)
    _copy_early(step, rows, here, new, say)
    with _workers_paused(there, here, {name: before for name, (before, _) in step.settings.items()}, say):
        _move(step, rows, there, here, old, new, say)
    for name in step.roll:
        _roll(way.at(number), here, name, say)
    _share(step, here, say)
    for name in step.start:
        _retire(there, here, name, say)
    return _arrive(here, way, number)


def last_step(up: Up) -> tuple[Evolution, int]:
    """Return the way, and the number of the step on it, that was gone last. Raises WorkshopError at the beginning."""
    if up.is_on_the_way:
        return evolution.of(up), up.steps if up.has_begun else up.steps - 1
    names = list(stage.stages())
    if up.stage == names[0]:
        raise WorkshopError(f"{up.stage} is the beginning of the way: there is nothing to undo.")
    way = evolution.between(names[names.index(up.stage) - 1], up.counts)
    return way, len(way.steps) - 1


def _begin(up: Up, way: Evolution, number: int) -> Up:
    """Enter that a step has begun; see to it that no route changes by itself, whoever comes and goes."""
    registry = Registry(up.registry)
    done = len(way.steps) if up.stage == way.after.name else up.steps
    routing.pin(registry, way.routes_at(done))
    known = registry.snapshot().services
    for service in (way.after.services | way.before.services).values():
        if service.name not in known:
            # All of them now: for a new service HAProxy is reloaded, for its instances it is not.
            registry.announce(Backend(service.name, service.routes, service.balance, service.sticky))
    here = dataclasses.replace(up, stage=way.before.name, steps=number, has_begun=True)
    here.routes = way.routes_at(done) | up.routes
    here.save()
    return here


def _arrive(here: Up, way: Evolution, done: int) -> Up:
    """Enter that so many steps are done. At an end of the way, a stage is up as if it had been brought up so."""
    arrived = dataclasses.replace(here, steps=done, has_begun=False, previous={})  # `rollback` would not move rows
    if done == len(way.steps):
        arrived = dataclasses.replace(arrived, stage=way.after.name, steps=0)
    if not arrived.steps:
        arrived.routes = {}
        _tidy(way, evolution.current(arrived), Registry(arrived.registry))
    arrived.save()
    return arrived


def _tidy(way: Evolution, reached: Stage, registry: Registry) -> None:
    """Forget the services that are not there any more, and the routes that say what the services say themselves."""
    for name in (way.before.services.keys() | way.after.services.keys()) - reached.services.keys():
        registry.forget(name)
    snapshot = registry.snapshot()
    locations = snapshot.locations()
    set_by_hand = {p: service for p, service in snapshot.routes.items() if locations.get(p, service) != service}
    for prefix in snapshot.routes.keys() - set_by_hand.keys():
        registry.remove_route(prefix)
    routing.wait_until_in_force(locations | set_by_hand)


def _start(there: Stage, here: Up, name: str, say: Progress) -> None:
    """Have the instances and the workers of a service; those that are there already count."""
    service, owners = there.service(name), operations.affected(there, name)
    _add_settings(here, service)
    here.versions[name] = builds.build(service)
    here.counts |= {owner: here.counts.get(owner) or there.program(owner).instances for owner in owners}
    here.save()
    say(f"starting {name} {here.versions[name]}")
    lifecycle.make_databases(there, here)
    lifecycle.migrate(there, service, here, say)
    operations.start_missing(there, here, owners)


def _roll(there: Stage, here: Up, name: str, say: Progress) -> None:
    """Replace the service's instances by those of the build that it has in the stage `there`."""
    service = there.service(name)
    _add_settings(here, service)
    rollout.upgrade(there, here, name, None, allow_breaking=False, say=say)
    here.versions[name] = builds.build(service)


def _add_settings(here: Up, service: Service) -> None:
    known = {name: os.environ.get(name, default) for name, default in service.settings.items()}
    here.settings = known | here.settings


def _retire(there: Stage, here: Up, name: str, say: Progress) -> None:
    """End a service that nobody calls any more, in good order; its data stays, for the way back."""
    if answered := [prefix for prefix, owner in status.routes().items() if owner == name]:
        raise WorkshopError(f"{name} still answers {' '.join(sorted(answered))}: `./workshop route` moves that first.")
    owners = operations.affected(there, name)
    operations.remove([process.name for owner in owners for process in operations.processes_of(owner)])
    for owner in owners:
        here.counts.pop(owner, None)
    here.versions.pop(name, None)
    here.save()
    say(f"{name}: drained and ended")


def _share(step: Step, here: Up, say: Progress) -> None:
    if step.share:
        with records.open_stores(here, *step.share.stores) as (first, second):
            copied = records.share(first, second, step.share)
        say(f"{step.share.table}: {copied} rows copied, {' and '.join(step.share.stores)} have the same now")


@contextlib.contextmanager
def _workers_paused(there: Stage, here: Up, settings: dict[str, str], say: Progress) -> Iterator[None]:
    """Keep the workers from working meanwhile; they go on with these settings, or as they were when it fails."""
    names = [name for name in there.workers if settings and name in here.counts]
    if names:
        say(f"pausing {' and '.join(names)}")
        operations.remove([process.name for name in names for process in operations.processes_of(name)])
    try:
        yield
        here.settings |= settings
        here.save()
    finally:
        if names:
            operations.start_missing(there, here, names)


def _copy_early(step: Step, rows: Rows | None, here: Up, new: dict[str, str], say: Progress) -> None:
    """Copy what there is while its service goes on serving, until little is left."""
    if rows is None or routing.are_in_force({prefix: new[prefix] for prefix in step.routes}):
        return
    with records.open_stores(here, rows.source, rows.target) as (source, target):
        while copied := records.copy_early(source, target, rows):
            say(f"{', '.join(rows.tables)}: {copied} rows copied")
            if copied < records.CHUNK:
                return


def _move(
    step: Step, rows: Rows | None, there: Stage, here: Up, old: dict[str, str], new: dict[str, str], say: Progress
) -> None:
    """Move the step's routes from their old owners to the new ones, and before them the rows, if they have any."""
    old, new = ({prefix: owners[prefix] for prefix in step.routes} for owners in (old, new))
    if not new:
        return
    routing.settle(say)
    if rows is None:
        routing.move(Registry(here.registry), new)
    elif not routing.are_in_force(new):  # otherwise they have been moved, and changed there since
        with records.open_stores(here, rows.source, rows.target) as (source, target):
            _move_rows(source, target, rows, Registry(here.registry), old, new, say)
    here.routes |= new
    here.save()
    for name in set(old.values()):
        routing.wait_for_requests(name)
        if step.routes.keys() & set(there.services[name].sticky):
            say(f"{routing.close_websockets(name)} WebSockets to {name} closed; their clients connect again")
    routing.verify(here, new)
    say(", ".join(f"{prefix} → {service}" for prefix, service in new.items()))


def _move_rows(
    source: Engine,
    target: Engine,
    rows: Rows,
    registry: Registry,
    old: dict[str, str],
    new: dict[str, str],
    say: Progress,
) -> None:
    """Move rows and routes, while writes to these routes are held."""
    with routing.held(new) as hold:
        for name in set(old.values()):
            routing.wait_for_requests(name)
        with records.locked(source, rows.tables) as theirs:
            with records.locked(target, rows.tables) as ours:
                rest = records.copy_rest(theirs, ours, rows)
                same = records.compare(theirs, ours, rows)
                if hold.seconds_left() < ROUTE_TIME:
                    raise WorkshopError(f"Copying the last {rest} rows took too long for a hold: no route was moved.")
            _switch(theirs, target, rows, registry, old, new, hold)
        took = time.time() - hold.since
    say(f"the last {rest} rows copied; writes were held for {1000 * took:.0f} ms")
    for table, summary in same.items():
        say(f"{table}: {summary}, in {rows.source} as in {rows.target}")


def _switch(
    theirs: Connection,
    target: Engine,
    rows: Rows,
    registry: Registry,
    old: dict[str, str],
    new: dict[str, str],
    hold: Hold,
) -> None:
    """Move the routes while writes are held; if they are not in force in time, take all of it back."""
    for prefix, service in new.items():
        registry.set_route(prefix, service)
    if wait_until(lambda: routing.are_in_force(new), hold.seconds_left()):
        return
    # The hold is over. The source is locked still: writes that went there wait, and others may have gone to the target.
    routing.move(registry, old)
    for name in set(new.values()):
        routing.wait_for_requests(name)
    with records.locked(target, rows.tables) as ours:
        records.copy_rest(ours, theirs, rows)
    raise WorkshopError("The load balancer did not take over the routes in time: all is as it was before.")
