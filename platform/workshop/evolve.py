"""A system that runs is taken to its next stage, and back, one step after the other, and serves all the time.

Every part of a step goes by what is there, not by what was done: a step that was interrupted is done again, or undone.
Of two stores with the same tables, that one is true to whose service the route leads; the other is overwritten.

How rows move to another service, with nobody noticing but a few writes that take longer:

    copy what there is                        while their service goes on serving
    pause the workers                         nothing is swept or expanded meanwhile
    hold writes at the load balancer          queued, not refused; for 2 s at most, whatever becomes of us
        wait for what is under way
        lock the tables                       no write can slip in, even if the hold should be over
            copy the rest, compare            when rows differ, or it takes too long, the route stays
            move the route
    let the writes go                         to the new service
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Engine

from workshop import (
    builds,
    copies,
    evolution,
    joining,
    operations,
    paths,
    processes,
    records,
    rollout,
    routing,
    stage,
)
from workshop.errors import WorkshopError
from workshop.evolution import Evolution, Rows, Step
from workshop.haproxy import Runtime
from workshop.lifecycle import Progress
from workshop.registry import Registry
from workshop.routing import Hold
from workshop.stage import Service, Stage
from workshop.state import Up


@dataclass(frozen=True)
class Move:
    """Routes that are to lead to other services, and the rows that go along."""

    old: dict[str, str]  # prefixes → service
    new: dict[str, str]
    rows: Rows | None

    @property
    def owners(self) -> set[str]:
        return set(self.old.values())

    def back(self) -> "Move":
        rows = self.rows and dataclasses.replace(self.rows, source=self.rows.target, target=self.rows.source)
        return Move(self.new, self.old, rows)


def take(up: Up, way: Evolution, say: Progress) -> Up:
    """Do the next step, or the one that was interrupted; return what is up then."""
    number = up.steps
    step, up = way.steps[number], _begin(up, way, number)
    declared = evolution.current(up)  # all that is there before the step, or after it
    for name in step.start:
        operations.start_service(declared, up, name, say)
    _share(step, up, say)
    for name in step.roll:
        _roll(way.at(number + 1), up, name, say)
    _move(declared, up, _move_of(way, number), say)
    _share(step, up, say)
    for name in step.retire:
        _retire(declared, up, name, say)
    return _arrive(up, way, number + 1)


def undo(up: Up, way: Evolution, number: int, say: Progress) -> Up:
    """Undo the step of that number, of which all or part has been done; return what is up then."""
    step, up = way.steps[number], _begin(up, way, number)
    declared = evolution.current(up)
    for name in step.retire:
        operations.start_service(declared, up, name, say)
    _share(step, up, say)
    _move(declared, up, _move_of(way, number).back(), say)
    for name in step.roll:
        _roll(way.at(number), up, name, say)
    _share(step, up, say)
    for name in step.start:
        _retire(declared, up, name, say)
    return _arrive(up, way, number)


def last_step(up: Up) -> tuple[Evolution, int]:
    """Return the way, and the number of the step on it, that was gone last. Raises WorkshopError at the beginning."""
    if up.is_on_the_way:
        return evolution.of(up), up.steps if up.has_begun else up.steps - 1
    names = list(stage.stages())
    if up.stage == names[0]:
        raise WorkshopError(f"{up.stage} is the beginning of the way: there is nothing to undo.")
    way = evolution.between(names[names.index(up.stage) - 1], up.chosen)
    return way, len(way.steps) - 1


def _move_of(way: Evolution, number: int) -> Move:
    step, before, after = way.steps[number], way.routes_at(number), way.routes_at(number + 1)
    return Move({key: before[key] for key in step.routes}, {key: after[key] for key in step.routes}, step.rows)


def _begin(up: Up, way: Evolution, number: int) -> Up:
    """Enter that a step has begun; see to it that no route changes by itself, whoever comes and goes."""
    evolution.ensure_joined_can_stay(up, way)
    joining.ensure_no_working_tree(up)
    registry = Registry(up.registry)
    done = len(way.steps) if up.stage == way.after.name else up.steps
    for name in way.steps[number].roll:
        up.refuse_canary(name)
    if not up.has_begun:  # otherwise a route may have moved already
        routing.pin(registry, way.routes_at(done))
    _announce(registry, way.after.services | way.before.services)
    begun = dataclasses.replace(up, stage=way.before.name, steps=number, has_begun=True)
    begun.save()
    return begun


def _announce(registry: Registry, services: dict[str, Service]) -> None:
    """Have the load balancer know all services of the way: it is reloaded for these, and not for their instances."""
    known = registry.snapshot().services
    for name in services.keys() - known.keys():
        registry.announce(services[name].backend())
    routing.wait_until_known(services)


def _arrive(up: Up, way: Evolution, done: int) -> Up:
    """Enter that so many steps are done. At an end of the way, a stage is up as if it had been brought up so."""
    arrived = dataclasses.replace(up, steps=done, has_begun=False, previous={})  # `rollback` would move no rows
    if done == len(way.steps):
        arrived = dataclasses.replace(arrived, stage=way.after.name, steps=0)
    if not arrived.is_on_the_way:
        _tidy(way, evolution.current(arrived), Registry(arrived.registry))
    arrived.save()
    return arrived


def _tidy(way: Evolution, reached: Stage, registry: Registry) -> None:
    """Forget the services that are not there any more, and the routes: the services say the same themselves."""
    for name in (way.before.services.keys() | way.after.services.keys()) - reached.services.keys():
        registry.forget(name)
    snapshot = registry.snapshot()
    for prefixes in snapshot.routes:
        registry.remove_route(prefixes)
    routing.wait_until_in_force(snapshot.locations())


def _roll(declared: Stage, up: Up, name: str, say: Progress) -> None:
    """Replace the service's instances by those of the build that it has in that stage."""
    service = declared.service(name)
    up.settings = service.chosen_settings() | up.settings
    rollout.upgrade(declared, up, name, None, allow_breaking=False, say=say)
    up.versions[name] = builds.build(service)


def _retire(declared: Stage, up: Up, name: str, say: Progress) -> None:
    """End a service that nobody calls any more, in good order; its data stays, for the way back."""
    if answered := [prefix for prefix, owner in Runtime(paths.HAPROXY).routes().items() if owner == name]:
        raise WorkshopError(f"{name} still answers {' '.join(sorted(answered))}: `./workshop route` moves that first.")
    owners = operations.affected(declared, name)
    operations.remove([process.name for owner in owners for process in operations.processes_of(owner)])
    for owner in owners:
        up.counts.pop(owner, None)
    up.versions.pop(name, None)
    up.save()
    say(f"{name}: drained and ended")


def _share(step: Step, up: Up, say: Progress) -> None:
    if step.share:
        with records.open_stores(up, *step.share.stores) as (first, second):
            copied = records.share(first, second, step.share)
        say(f"{step.share.table}: {copied} rows copied, {' and '.join(step.share.stores)} have the same now")


def _move(declared: Stage, up: Up, move: Move, say: Progress) -> None:
    """Move routes from their old owners to the new ones, and before them the rows, if they have any."""
    if not move.new:
        return
    routing.settle(say)
    if move.rows:
        _move_rows(declared, up, move, say)
    else:
        routing.move(Registry(up.registry), move.new)
    prefixes = {prefix for prefixes in move.new for prefix in prefixes.split()}
    for name in move.owners:
        if prefixes & set(declared.services[name].sticky):
            say(f"{routing.close_sockets(name)} connections of Socket.IO to {name} closed; their clients connect again")
        else:
            routing.wait_for_requests(name)
    routing.verify(up, move.new)
    say(", ".join(f"{prefixes} → {service}" for prefixes, service in move.new.items()))


def _move_rows(declared: Stage, up: Up, move: Move, say: Progress) -> None:
    """Move rows and their routes; where the routes have moved already, only what remains to be done."""
    rows = move.rows
    with records.open_stores(up, rows.source, rows.target) as (source, target):
        has_moved = routing.are_in_force(move.new)
        if not has_moved:
            records.refuse_to_overwrite(target, rows, up)
            copies.mark(up, rows.source, rows.target, rows.tables)
            _copy_early(source, target, rows, say)
        with _workers_paused(declared, up, say):
            if has_moved:
                with records.locked(source, rows.tables) as left:
                    records.leave_no_work(left, rows)
            else:
                _hand_over(source, target, move, Registry(up.registry), say)
            copies.mark(up, rows.target, rows.source, rows.tables)


def _copy_early(source: Engine, target: Engine, rows: Rows, say: Progress) -> None:
    """Copy what there is while its service goes on serving, until little is left."""
    copied, before = records.copy_early(source, target, rows), None
    while before is None or records.CHUNK < copied < before:
        say(f"{', '.join(rows.tables)}: {copied} rows copied")
        copied, before = records.copy_early(source, target, rows), copied


@contextlib.contextmanager
def _workers_paused(declared: Stage, up: Up, say: Progress) -> Iterator[None]:
    """Keep the workers from working meanwhile."""
    names = [name for name in declared.workers if name in up.counts]
    if names:
        say(f"pausing {' and '.join(names)}")
        operations.remove([process.name for name in names for process in operations.processes_of(name)])
    try:
        yield
    finally:
        if names:
            with processes.not_interrupted():
                operations.start_missing(declared, up, names)


def _hand_over(source: Engine, target: Engine, move: Move, registry: Registry, say: Progress) -> None:
    """Copy the last rows and move the routes, while writes are held; if it raises, nothing has moved."""
    rows = move.rows
    with routing.held(move.new) as hold:
        for name in move.owners:
            routing.wait_for_requests(name, hold.seconds_left())
        hold.check()
        with records.locked(source, rows.tables) as theirs:
            with records.locked(target, rows.tables) as ours:
                rest = records.copy_rest(theirs, ours, rows, hold.check)
                same = records.compare(theirs, ours, rows, hold.check)
            failure = _switch(registry, move, hold)
            if failure:  # what the new service was told until its routes were taken back
                with records.locked(target, rows.tables) as ours:
                    records.copy_rest(ours, theirs, rows)
            else:
                records.leave_no_work(theirs, rows)
    took = time.time() - hold.since  # until they have been let go
    if failure:
        raise failure
    say(f"the last {rest} rows copied; writes were held for {1000 * took:.0f} ms")
    for table, summary in same.items():
        say(f"{table}: {summary}, in {rows.source} as in {rows.target}")


def _switch(registry: Registry, move: Move, hold: Hold) -> BaseException | None:
    """Move the routes while writes are held; return what kept them from it, once they lead where they led."""
    try:
        for prefixes, service in move.new.items():
            registry.set_route(prefixes, service)
        in_time = routing.come_into_force(move.new, hold.seconds_left()) and hold.seconds_left() > 0
        # A reload in this very moment: the worker from before it knows only the old route.
        if in_time and not Runtime(paths.HAPROXY).outdated_clients():
            return None
        failure = WorkshopError("The load balancer did not take over the routes in time: all is as it was before.")
    except BaseException as error:  # KeyboardInterrupt too
        failure = error
    with processes.not_interrupted():
        routing.take_back(registry, move.old)
        for name in set(move.new.values()):
            routing.wait_for_requests(name)
    return failure
