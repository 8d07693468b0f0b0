"""Puts the stage back after a check: whatever a check has changed and could not change back itself.

A check changes back what it changes. But it is killed when it is interrupted, late or beyond its limits, and an answer
can end it, too. So the command that runs the check compares the stage with how it was before, and runs the commands
that make up the difference. It does so within TIMEOUT seconds, and nothing interrupts it.
"""

import dataclasses
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from workshop import evolution, operations, paths, programs, state, status, supervisor
from workshop.errors import WorkshopError
from workshop.haproxy import HAProxyUnavailable
from workshop.lifecycle import Progress
from workshop.registry import Registry, RegistryUnavailable
from workshop.state import Up
from workshop.waiting import wait_until

TIMEOUT = 60  # seconds for all of it; measured: 0.1 when nothing differs, 8 for a roll back
START_TIMEOUT = 10  # seconds for etcd to answer once it was started; measured: 0.3
POLL = 0.2  # seconds between two looks


@dataclass(frozen=True)
class Part:
    """A service or the workers of one, as a check has to leave it."""

    version: str  # that it is to run
    versions: tuple[str, ...]  # that its instances do run, in order
    up: int  # instances that serve
    is_stopped: bool
    canary: str | None

    @property
    def builds(self) -> set[str]:
        return {self.version, *self.versions}


@dataclass(frozen=True)
class Picture:
    """The stage at one moment."""

    up: Up
    names: frozenset[str]  # of the supervisor's programs
    parts: dict[str, Part]  # by service or worker
    away: frozenset[str]  # which of the platform's own programs do not run
    services: frozenset[str]  # in the registry
    routes: dict[str, str]  # that were set by hand

    @classmethod
    def take(cls) -> "Picture":
        """Look at the stage. Raises WorkshopError when its supervisor is gone."""
        up, running = state.load(), supervisor.processes()
        stage = evolution.current(up)
        states = status.states(stage)
        parts = {}
        for name, program in (stage.services | stage.workers).items():
            mine = [process for process in running if process.name.split("_")[0] == name]
            parts[name] = Part(
                up.versions[status.service_of(program)],
                tuple(sorted(process.name.split("_")[1] for process in mine)),
                sum(states[process.name] == "UP" for process in mine),
                any(process.state in supervisor.STOPPED for process in mine),
                up.canaries.get(name),
            )
        away = frozenset(p.name for p in running if p.name in programs.OWN and p.state in supervisor.STOPPED)
        services, routes = frozenset(), {}
        with suppress(RegistryUnavailable):  # etcd is away
            snapshot = Registry(up.registry).snapshot()
            services, routes = frozenset(snapshot.services), snapshot.routes
        return cls(up, frozenset(process.name for process in running), parts, away, services, routes)

    def differences(self, now: "Picture") -> list[str]:
        """Say in what the stage differs from this picture; instances more than there were up do no harm."""
        found = [f"{name} does not run" for name in sorted(now.away - self.away)]
        for name, before in self.parts.items():
            part = now.parts[name]
            if part.is_stopped != before.is_stopped or len(part.versions) != len(before.versions):
                found.append(f"{name} has {_instances(part)} instead of {_instances(before)}")
            elif (part.builds, part.canary) != (before.builds, before.canary):
                found.append(f"{name} runs {_versions(part)} instead of {_versions(before)}")
            elif part.up < before.up:
                found.append(f"{before.up - part.up} of the instances of {name} are not up")
        found += [f"{name} is still registered" for name in sorted(now.services - self.services)]
        if now.routes != self.routes:
            found.append(f"the routes are {now.routes} instead of {self.routes}")
        return found


def _instances(part: Part) -> str:
    return "no instance that runs" if part.is_stopped else f"{len(part.versions)} instances"


def _versions(part: Part) -> str:
    return ", ".join(sorted(part.builds))


def put_back(before: Picture, say: Progress, kill: Callable[[], None] | None) -> list[str]:
    """Have the stage as it was; return in what it still differs after TIMEOUT.

    If the stage itself runs code that is beyond the limits, `kill` kills that.
    """
    deadline = time.monotonic() + TIMEOUT
    try:
        if kill:
            _remove_new(before, kill)
        if before.differences(Picture.take()):
            say("Putting the stage back as it was …")
            _start_programs(before, say)
            for words in _commands(before):
                _run(words, deadline, say)
            _restore_registry(before)
            wait_until(lambda: not before.differences(Picture.take()), deadline - time.monotonic(), POLL)
        if not (left := before.differences(Picture.take())):
            _restore_history(before.up)
        return left
    except (WorkshopError, HAProxyUnavailable, RegistryUnavailable, OSError) as error:
        return [str(error)]


def _remove_new(before: Picture, kill: Callable[[], None]) -> None:
    """Remove every instance that was started since, without draining it, and kill its processes."""
    kill()
    new = [process.name for process in supervisor.processes() if process.name not in before.names]
    supervisor.begin_to_stop(new)

    def have_ended() -> bool:
        kill()
        return all(p.state in supervisor.ENDED for p in supervisor.processes() if p.name in new)

    wait_until(have_ended, supervisor.STOP_TIMEOUT)
    operations.remove(new)


def _start_programs(before: Picture, say: Progress) -> None:
    """Start what the platform itself needs, such as etcd, and wait until the registry answers."""
    if away := sorted(Picture.take().away - before.away):
        say(f"  starting {', '.join(away)}")
        supervisor.restart(away)
    wait_until(lambda: Picture.take().services >= before.services, START_TIMEOUT, POLL)


def _commands(before: Picture) -> Iterator[tuple[str, ...]]:
    """Yield the commands that make up the difference; each is chosen once those before it have been run."""
    for name, part in before.parts.items():
        if part.is_stopped:
            continue  # by the learner, before the check
        if _now(name).canary != part.canary:
            yield "abort", name
        if _now(name).is_stopped or len(_now(name).versions) < len(part.versions):
            yield "start", name
        if name in before.up.versions and _now(name).builds != part.builds:
            yield "upgrade", name, "--to", part.version
        if len(_now(name).versions) != len(part.versions):
            yield "scale", f"{name}={len(part.versions)}"


def _now(name: str) -> Part:
    return Picture.take().parts[name]


def _run(words: tuple[str, ...], deadline: float, say: Progress) -> None:
    """Run a command of the workshop; what it could not do shows in the end."""
    say(f"  ./workshop {' '.join(words)}")
    command = [*paths.LAUNCHER, *words]
    with suppress(subprocess.TimeoutExpired):
        patience = max(1, deadline - time.monotonic())
        subprocess.run(command, capture_output=True, start_new_session=True, timeout=patience)


def _restore_registry(before: Picture) -> None:
    registry, now = Registry(before.up.registry), Picture.take()
    for name in now.services - before.services:
        registry.forget(name)
    for prefixes in now.routes.keys() - before.routes.keys():
        registry.remove_route(prefixes)
    for prefixes, service in before.routes.items():
        registry.set_route(prefixes, service)


def _restore_history(before: Up) -> None:
    """Have `rollback` lead to where it did: not to a build of the check's."""
    with state.locked("exercise check"):
        if (up := state.load()).previous != before.previous:
            dataclasses.replace(up, previous=before.previous).save()
