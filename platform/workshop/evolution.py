"""The way from one stage to the next, as the next stage's evolve.toml describes it: what there is after each step.

A step says what it does by its keys, in this order: start, share, roll, rows and routes, retire. `evolve.py` does it,
and undoes it.
"""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from workshop import stage
from workshop.errors import WorkshopError
from workshop.registry import owner
from workshop.stage import Service, Stage, Worker
from workshop.state import Up

FILE = "evolve.toml"


@dataclass(frozen=True)
class Share:
    """Rows that are true in two stores: each gets those that only the other has."""

    table: str
    stores: list[str]
    expires: str  # the column that says until when a row matters, in seconds since 1970


@dataclass(frozen=True)
class Rows:
    """Tables that move from one store to another."""

    source: str
    target: str
    tables: list[str]  # one that refers to another comes after it
    # Table → column: a row in which it is set means work to the service that has the table. So such rows are copied
    # last, and in the table that was left it is set nowhere any more.
    work: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One step, which can be undone."""

    title: str
    why: str
    start: list[str] = field(default_factory=list)  # services of the next stage; nobody calls them yet
    roll: dict[str, str] = field(default_factory=dict)  # service → folder whose stage.toml describes its next build
    share: Share | None = None
    rows: Rows | None = None
    routes: dict[str, str] = field(default_factory=dict)  # prefixes that move at once → service that answers then
    retire: list[str] = field(default_factory=list)  # services that have nothing left to do

    @classmethod
    def read(cls, table: dict) -> "Step":
        parts = {name: kind(**table[name]) for name, kind in (("share", Share), ("rows", Rows)) if name in table}
        return cls(**table | parts)


@dataclass(frozen=True)
class Evolution:
    """The steps from one stage to the next."""

    before: Stage
    after: Stage
    folder: Path  # of the next stage
    steps: list[Step]

    def at(self, done: int) -> Stage:
        """Return what is declared after so many steps: a stage between the two, or one of them."""
        services, workers = dict(self.before.services), dict(self.before.workers)
        for step in self.steps[:done]:
            for name in step.start:
                _declare(services, workers, self.after, name)
            for name, folder in step.roll.items():
                _declare(services, workers, stage.read(self.before.name, self.folder / folder), name)
            for name in step.retire:
                del services[name]
                workers = {key: worker for key, worker in workers.items() if worker.service != name}
        stores = self.before.stores | self.after.stores
        return Stage(self.before.name, f"{self.before.title}, on the way", stores, services, workers)

    def routes_at(self, done: int) -> dict[str, str]:
        """Return which service answers what one of the two stages declares, after so many steps.

        Prefixes that move at once are one route.
        """
        answers = _locations(self.before)
        at_once = {prefix: prefixes for step in self.steps for prefixes in step.routes for prefix in prefixes.split()}
        declared = sorted(answers.keys() | _locations(self.after).keys())
        routes = {at_once.get(prefix, prefix): owner(answers, prefix) for prefix in declared}
        for step in self.steps[:done]:
            routes |= step.routes
        return routes


def _declare(services: dict[str, Service], workers: dict[str, Worker], source: Stage, name: str) -> None:
    services[name] = source.services[name]
    workers.update({key: worker for key, worker in source.workers.items() if worker.service == name})


def _locations(declared: Stage) -> dict[str, str]:
    return {prefix: service.name for service in declared.services.values() for prefix in service.routes}


def of(up: Up) -> Evolution:
    """Return the way on from the stage that is up, or that it has left already. Raises WorkshopError at the last."""
    return between(up.stage, up.chosen)


def between(name: str, chosen=()) -> Evolution:
    """Return the steps that follow on the stage called `name`; of optional services, with the `chosen`."""
    folders = stage.stages()
    names = list(folders)
    after = names[names.index(name) + 1 :][:1]
    if not after or not (folders[after[0]] / FILE).exists():
        raise WorkshopError(f"{name} is the end of the way: `./workshop evolve --back` leads back.")
    tables = tomllib.loads((folders[after[0]] / FILE).read_text())["step"]
    steps = [Step.read(table) for table in tables]
    return Evolution(stage.load(name, chosen), stage.load(after[0], chosen), folders[after[0]], steps)


def progress(up: Up) -> str:
    """Say how far a stage is on its way to the next one."""
    way = of(up)
    begun = ", and a further one has begun" if up.has_begun else ""
    return f"{up.steps} of {len(way.steps)} steps to {way.after.name}{begun}"


def current(up: Up) -> Stage:
    """Return what is declared of that which is up: its stage with the services that have joined.

    On the way to the next stage, return what is there by now. Raises WorkshopError when stage.toml has gained a service
    or a worker since the stage was brought up.
    """
    declared = _current(up)
    joined = {name: Service.from_json(saved) for name, saved in up.joined.items()}
    return dataclasses.replace(declared, services=declared.services | joined)


def ensure_joined_can_stay(up: Up, way: Evolution) -> None:
    """Raise WorkshopError when a service that has joined has a name or a route of one of the stages of the way."""
    declared = [*(way.before.services | way.after.services).values()]
    names = {service.name for service in declared} | way.before.workers.keys() | way.after.workers.keys()
    routes = {prefix for service in declared for prefix in service.routes}
    for name, saved in up.joined.items():
        if name in names or routes & set(saved["routes"]):
            raise WorkshopError(
                f"{name} has joined under a name or a route that {way.before.name} or {way.after.name} needs. "
                f"Run `./workshop leave {name}` first."
            )


def _current(up: Up) -> Stage:
    if not up.is_on_the_way:
        declared = stage.load(up.stage, up.chosen)
        if gained := [name for name in declared.services | declared.workers if name not in up.counts]:
            raise WorkshopError(
                f"{up.stage} was brought up before its stage.toml had {', '.join(gained)}: "
                f"`./workshop down`, then `./workshop up {up.stage}`, takes that in."
            )
        return declared
    way = of(up)
    reached = way.at(up.steps)
    if not up.has_begun:
        return reached
    ahead = way.at(up.steps + 1)  # of a step that has begun, part may be there, and part may be left
    services, workers = reached.services | ahead.services, reached.workers | ahead.workers
    return dataclasses.replace(reached, services=services, workers=workers)
