"""Services that join a stage while it runs: join, join --dev, leave.

A joined service is part of what is up (`Up.joined`), so every command finds it beside the stage's own services. It runs
from a build. With --dev, one instance runs from the working tree instead: of a new service, or beside the instances of
one of the stage's own.
"""

import dataclasses
import shutil
from collections.abc import Collection
from pathlib import Path

from workshop import (
    builds,
    migrations,
    operations,
    paths,
    processes,
    programs,
    rollout,
    routing,
    status,
    supervisor,
)
from workshop import stage as stages
from workshop.errors import WorkshopError
from workshop.haproxy import HAProxyUnavailable, Runtime
from workshop.lifecycle import Progress
from workshop.processes import base_environment
from workshop.registry import PREFIX, WEIGHT, Registry
from workshop.stage import Service, Stage
from workshop.state import Up
from workshop.waiting import wait_until

GONE_TIMEOUT = 10  # seconds for the load balancer to forget a service; measured: 0.1


def declare(stage: Stage, folder: Path | None, command: list[str], name: str | None, routes: list[str]) -> Service:
    """Return the service that is to join: its folder's table, or the stage's, changed by what is given.

    Without a folder, the command runs a program that is installed, in an empty folder. Raises WorkshopError.
    """
    if folder and (folder / stages.SERVICE_FILE).is_file():
        service = stages.read_service(folder, stage.stores)
    elif name in stage.services:
        service = dataclasses.replace(stage.services[name], folder=folder)
    else:
        known = stages.read(stage.name, stages.folder(stage.name)).services
        is_optional = name in known and known[name].folder == folder
        service = known[name] if is_optional else Service(name or "", folder or Path(), [], [])
    service = dataclasses.replace(
        service, name=name or service.name, command=command or service.command, routes=routes or service.routes
    )
    if not service.name:
        raise WorkshopError("The service has no name. Add `--name NAME`.")
    if problem := stages.problem_with_name(service.name):
        raise WorkshopError(f"{service.name!r} cannot be the name of a service: {problem}.")
    if not service.command:
        raise WorkshopError(
            f"{folder} has no {stages.SERVICE_FILE} that says how the program is started. Add its command: "
            f"`./workshop join {folder} --name {service.name} -- COMMAND`."
        )
    if not service.routes and service.name not in stage.services:
        raise WorkshopError(f"{service.name} has no route. Add one, such as `--route /api/{service.name}`.")
    for prefix in service.routes:
        if not PREFIX.fullmatch(prefix):
            raise WorkshopError(f"{prefix!r} is not a path prefix. Use one such as /api/{service.name}.")
    return service if folder else dataclasses.replace(service, folder=_empty_folder(service.name))


def ensure_is_program(words: list[str]) -> None:
    """Raise WorkshopError unless the words are a command that runs without a folder of its own."""
    for word in words:
        if not Path(word).is_absolute() and Path(word).is_file():
            place = Path(word).parent
            raise WorkshopError(
                f"{word} is a file, and instances run from a copy of its folder. Name the folder, and the command from "
                f"there: `./workshop join {place} --name NAME --route PREFIX -- COMMAND`."
            )
    if not shutil.which(words[0], path=base_environment()["PATH"]):
        raise WorkshopError(f"{words[0]} is neither a folder nor an installed program. Correct it and try again.")


def join(stage: Stage, up: Up, service: Service, say: Progress) -> None:
    """Start a new service from a build. One that does not serve is removed again; the stage goes on without it."""
    ensure_free(stage, up, service)
    up.joined[service.name] = service.as_json()
    joined = dataclasses.replace(stage, services=stage.services | {service.name: service})
    _start_or_forget(joined, up, service, say)


def start_optional(stage: Stage, up: Up, names: Collection[str], say: Progress) -> None:
    """Start the stage's optional services of these names. The stage stays up without one that does not serve."""
    for name in sorted(set(names) - up.counts.keys()):
        try:
            _start_or_forget(stage, up, stage.services[name], say)
        except WorkshopError as error:
            say(error.message)


def _start_or_forget(stage: Stage, up: Up, service: Service, say: Progress) -> None:
    try:
        operations.start_service(stage, up, service.name, say)
        routing.wait_until_in_force(dict.fromkeys(service.routes, service.name))
    except BaseException as error:  # KeyboardInterrupt too
        with processes.not_interrupted():
            forget(stage, up, service.name)
        if isinstance(error, WorkshopError):
            raise WorkshopError(f"{error}\n{service.name} has been removed; {up.stage} stays up without it.") from None
        raise
    say(f"{service.name} answers {' '.join(service.routes)}")


def join_working_tree(stage: Stage, up: Up, service: Service, percent: int | None, say: Progress) -> None:
    """Start one instance that runs the service's files as they are, and restarts when one changes."""
    if up.driver != "process":
        raise WorkshopError(
            f"Driver {up.driver} runs images. Use --dev with `./workshop up {up.stage} --driver process`."
        )
    is_new = service.name not in stage.services
    if is_new:
        ensure_free(stage, up, service)
        weight = WEIGHT
        up.joined[service.name] = service.as_json()
        up.versions[service.name], up.counts[service.name] = builds.WORKING_TREE, 0
        up.save()
    else:
        weight = _weight_beside(stage, up, service, percent)
    joined = dataclasses.replace(stage, services=stage.services | {service.name: service})
    tried = dataclasses.replace(up, versions=up.versions | {service.name: builds.WORKING_TREE})
    try:
        (name,) = operations.start_new(joined, [programs.working_tree(joined, service, tried, weight)])
        if is_new:
            routing.wait_until_in_force(dict.fromkeys(service.routes, service.name))
    except BaseException:  # KeyboardInterrupt too
        if is_new:
            with processes.not_interrupted():
                forget(joined, up, service.name)
        raise
    say(f"{name} serves from {service.folder}; it restarts when a file changes: `./workshop logs {name} -f`")


def _weight_beside(stage: Stage, up: Up, service: Service, percent: int | None) -> int:
    """Return the weight of a working tree's instance beside the service's others. Raises WorkshopError."""
    name = service.name
    if name in up.joined:
        raise WorkshopError(f"{name} has joined already. Run `./workshop leave {name}` first.")
    if instances_of_working_tree(name):
        raise WorkshopError(f"{name} has an instance from a working tree already. Run `./workshop leave {name}` first.")
    if service.routes != stage.services[name].routes:
        raise WorkshopError(f"{name} is a service of {up.stage}, and has its routes from there. Leave out --route.")
    if pending := migrations.plan(stage, service, up, service.folder).pending:
        revisions = ", ".join(sorted({step.revision for step in pending}))
        raise WorkshopError(
            f"The working tree of {name} needs migrations that the database lacks: {revisions}. "
            f"Run `./workshop upgrade {name}` first, which migrates."
        )
    others = rollout.weights(name)
    return rollout.weight_for(percent, others) if percent and others else WEIGHT


def ensure_free(stage: Stage, up: Up, service: Service) -> None:
    """Raise WorkshopError when another service has the name or one of the routes."""
    name = service.name
    if name in up.joined:
        raise WorkshopError(f"{name} has joined already. Run `./workshop leave {name}` first.")
    if name in stage.services | stage.workers:
        raise WorkshopError(
            f"{up.stage} has {name} itself. Choose another --name, or add --dev to run one instance from your files."
        )
    status.ensure_ours(stage, name)
    table = Registry(up.registry).snapshot().table()
    for prefix in service.routes:
        if (owner := table.get(prefix.rstrip("/") or "/")) and owner != name:
            raise WorkshopError(f"{prefix} is answered by {owner}. Choose another --route.")


def leave(stage: Stage, up: Up, name: str, say: Progress) -> None:
    """Drain and remove a service that has joined, or the working tree's instance of one of the stage's own."""
    if name in up.joined:
        forget(stage, up, name)
        say(f"{name}: drained and removed")
    elif instances := instances_of_working_tree(name):
        operations.remove(instances)
        shutil.rmtree(builds.folder(name, builds.WORKING_TREE), ignore_errors=True)
        say(f"{name}: the working tree's instance is drained and removed, the others serve")
    else:
        status.ensure_ours(stage, name)
        stage.program(name)
        raise WorkshopError(
            f"{name} belongs to {up.stage}, it has not joined. To end it, use `./workshop stop {name}`."
        )


def forget(stage: Stage, up: Up, name: str) -> None:
    """Drain and remove all of a service, and delete it from the registry and from what is up."""
    owners = operations.affected(stage, name)
    operations.remove([process.name for owner in owners for process in operations.processes_of(owner)])
    shutil.rmtree(builds.folder(name, builds.WORKING_TREE), ignore_errors=True)
    for owner in owners:
        up.counts.pop(owner, None)
    up.versions.pop(name, None)
    up.joined.pop(name, None)
    up.save()
    registry = Registry(up.registry)
    for prefixes, service in registry.snapshot().routes.items():
        if service == name:
            registry.remove_route(prefixes)
    registry.forget(name)

    def is_gone() -> bool:
        try:
            return name not in Runtime(paths.HAPROXY).servers()
        except HAProxyUnavailable:
            return False  # it is being reloaded

    if not wait_until(is_gone, GONE_TIMEOUT):
        raise WorkshopError(f"The load balancer does not let go of {name}. See `./workshop logs balancer`.")


def instances_of_working_tree(name: str) -> list[str]:
    """Return the names of a service's instances that run from a working tree."""
    return [process.name for process in operations.processes_of(name) if builds.is_working_tree(process.name)]


def ensure_no_working_tree(up: Up) -> None:
    """Raise WorkshopError when a service of the stage's own has an instance from a working tree."""
    for process in supervisor.processes():
        name = process.name.split("_")[0]
        if builds.is_working_tree(process.name) and name not in up.joined:
            raise WorkshopError(
                f"{name} has an instance from your working tree, which would not follow {up.stage} to the next stage. "
                f"Run `./workshop leave {name}` first."
            )


def _empty_folder(name: str) -> Path:
    """Return an empty folder for an installed program, which needs no files of its own."""
    folder = paths.BUILDS / name / "installed"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
