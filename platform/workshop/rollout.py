"""How another version comes to run, with nobody noticing: upgrade, rollback, canary, promote, abort.

    upgrade     build → judge its migrations → migrate, once → roll
    rollback    judge the schema that the old build would find → roll
    canary      as upgrade, but instead of rolling, one instance of the new version beside the others
    promote     roll to the canary's version
    abort       drain and stop the canary

A roll starts one instance of the new version, waits until the load balancer serves it, has an old one drain and stop,
and goes on. It goes by what is there, not by what it did: one that was interrupted is finished by the next, or undone.
"""

import dataclasses

from workshop import builds, lifecycle, migrations, operations, paths, programs, status, supervisor
from workshop.errors import WorkshopError
from workshop.haproxy import HAProxyUnavailable, Runtime
from workshop.lifecycle import Progress
from workshop.registry import MOST_WEIGHT, WEIGHT
from workshop.sidecar import Instance
from workshop.stage import Service, Stage
from workshop.state import Up
from workshop.status import InstanceStatus


def upgrade(stage: Stage, up: Up, name: str, wanted: str | None, allow_breaking: bool, say: Progress) -> None:
    """Have all instances, and the service's workers, run the code as it is now, or the version that is wanted."""
    service = _service(stage, up, name, "upgrade")
    up.refuse_canary(name)
    _refuse_stopped(name)
    version = wanted or builds.build(service)
    after = up.deployed(name, version)
    _prepare(stage, service, after, allow_breaking, say)
    _roll(stage, after, name, say)


def rollback(stage: Stage, up: Up, name: str, say: Progress) -> None:
    """Have all instances run the version before; or, when a roll was interrupted, the one that it began with."""
    service = _service(stage, up, name, "rollback")
    up.refuse_canary(name)
    _refuse_stopped(name)
    current, before = up.versions[name], up.previous.get(name)
    others = {instance.version for instance in _instances(stage, name)} - {current}
    after = up
    if not others or before in others:
        if before is None:
            known = ", ".join(builds.versions(name))
            raise WorkshopError(
                f"{name} has run nothing before {current} that it could go back to: "
                f"`./workshop upgrade {name} --to` takes any of {known}."
            )
        previous = {other: version for other, version in up.previous.items() if other != name}
        after = dataclasses.replace(up, versions=up.versions | {name: before}, previous=previous)
    _prepare(stage, service, after, allow_breaking=False, say=say)
    _roll(stage, after, name, say)


def canary(stage: Stage, up: Up, name: str, wanted: str | None, percent: int, say: Progress) -> None:
    """Have one instance of the code as it is now, or of the version that is wanted, answer so many percent."""
    service = _service(stage, up, name, "canary")
    _refuse_stopped(name)
    if any(instance.version == up.canaries.get(name) for instance in _instances(stage, name)):
        say(f"{name} has a canary already, {up.canaries[name]}: it stays as it is.")
        return
    version = up.canaries.get(name) or wanted or builds.build(service)
    if version == up.versions[name]:
        raise WorkshopError(f"{name} runs {version}, there is nothing to try out: change its code first.")
    if any(instance.version != up.versions[name] for instance in _instances(stage, name)):
        raise WorkshopError(
            f"An upgrade of {name} was interrupted: `./workshop upgrade {name} --to {up.versions[name]}` or "
            f"`./workshop rollback {name}` comes first."
        )
    weight = weight_for(percent, weights(name))
    tried = dataclasses.replace(up, versions=up.versions | {name: version})
    _prepare(stage, service, tried, allow_breaking=False, say=say)
    dataclasses.replace(up, canaries=up.canaries | {name: version}).save()
    say(f"{name}: starting one instance of {version}")
    try:
        operations.start_new(stage, [programs.canary(stage, service, tried, weight)])
    except BaseException:  # the interrupt key too
        dataclasses.replace(up, canaries=_without_canary(up, name)).save()
        raise


def promote(stage: Stage, up: Up, name: str, say: Progress) -> None:
    """Have all instances run the canary's version; the canary itself makes room for an ordinary instance."""
    version = _canary_of(stage, up, name, "promote")
    _refuse_stopped(name)
    after = dataclasses.replace(up.deployed(name, version), canaries=_without_canary(up, name))
    _roll(stage, after, name, say)


def abort(stage: Stage, up: Up, name: str, say: Progress) -> None:
    """End the canary; the others have been there all the time."""
    version = _canary_of(stage, up, name, "abort")
    operations.remove([instance.id for instance in _instances(stage, name) if instance.version == version])
    dataclasses.replace(up, canaries=_without_canary(up, name)).save()
    say(f"{name}: {version} is gone, {up.versions[name]} serves")


def weight_for(percent: int, others: int) -> int:
    """Return the weight that gives an instance so many percent of the requests beside others of that total weight."""
    weight = max(1, round(others * percent / (100 - percent)))
    if weight > MOST_WEIGHT:
        most = 100 * MOST_WEIGHT // (others + MOST_WEIGHT)
        raise WorkshopError(f"One instance beside these cannot get {percent} % of the requests: at most {most} %.")
    return weight


def weights(name: str) -> int:
    """Return the sum of the weights of a service's instances, foreign ones too."""
    try:
        return sum(int(server["weight"]) for server in Runtime(paths.HAPROXY).servers()[name].values())
    except HAProxyUnavailable as error:
        raise WorkshopError(f"The load balancer does not answer: {error}. Try again in a few seconds.") from None


def _prepare(stage: Stage, service: Service, after: Up, allow_breaking: bool, say: Progress) -> None:
    """Bring the database to the schema of the version that is to run, if what runs until then survives that."""
    version = after.versions[service.name]
    plan = migrations.plan(stage, service, after, builds.find(service.name, version))
    plan.refuse_left_behind(service.name, version)
    if plan.pending:
        if not allow_breaking:
            plan.refuse_breaking()
        lifecycle.migrate(stage, service, after, say)


def _roll(stage: Stage, after: Up, name: str, say: Progress) -> None:
    """Replace every instance, then every worker, that is not as in `after`, which is what is up from the first one on.

    One that does not come up is removed again, and ends the roll: those not replaced yet go on serving.
    """
    version, leaving = after.versions[name], []
    done, old = _split(stage, after, name)
    if len(done) == after.counts[name] and not old:
        say(f"{name}: all instances are {version} already")
    try:
        while old or len(done) < after.counts[name]:
            if len(done) < after.counts[name]:
                done += operations.start_new(stage, programs.of(stage, name, after, 1))
                say(f"{name}: {done[-1]} serves")
            after.save()
            if old:
                leaving.append(old.pop(0))
                supervisor.begin_to_stop(leaving[-1:])  # it drains while the next one starts
        _replace_workers(stage, after, name, leaving)
    finally:
        operations.remove(leaving)
    say(f"{name} {version} is up")


def _replace_workers(stage: Stage, after: Up, name: str, leaving: list[str]) -> None:
    """Start all workers anew, at the same time: nobody waits for their answer. Those that have to go are `leaving`."""
    added, outdated = [], []
    for worker in operations.affected(stage, name)[1:]:
        done, old = _split(stage, after, worker)
        added += programs.of(stage, worker, after, after.counts[worker] - len(done))
        outdated += old
    operations.start_new(stage, added)
    supervisor.begin_to_stop(outdated)
    leaving += outdated


def _split(stage: Stage, after: Up, name: str) -> tuple[list[str], list[str]]:
    """Return which instances, or workers, are as they are to be, and which have to go, the dead first."""
    version = after.versions[status.service_of(stage.program(name))]
    ours = _instances(stage, name)
    done = [i.id for i in ours if i.version == version and i.state == "UP" and _is_ordinary(i.id)]
    old = sorted((i for i in ours if i.id not in done), key=lambda instance: instance.state == "UP")
    return done, [instance.id for instance in old]


def _is_ordinary(name: str) -> bool:
    """Tell whether an instance gets an ordinary share of the requests, as a canary does not; a worker gets none."""
    file = paths.INSTANCES / f"{name}.json"
    return not file.exists() or Instance.load(file).weight == WEIGHT


def _instances(stage: Stage, name: str) -> list[InstanceStatus]:
    """Return the instances of a service, or the workers, that run from a build: a foreign one has no version."""
    ours = [instance for instance in status.instances(stage)[name] if instance.version]
    return [instance for instance in ours if instance.version != builds.WORKING_TREE]


def _refuse_stopped(name: str) -> None:
    if all(process.state == "STOPPED" for process in operations.processes_of(name)):
        raise WorkshopError(f"{name} is stopped: `./workshop start {name}` comes first.")


def _service(stage: Stage, up: Up, name: str, command: str) -> Service:
    """Return a service of the stage's own. Raises WorkshopError for any other one."""
    status.ensure_ours(stage, name)
    up.ensure_not_joined(name, command)
    return stage.service(name)


def _canary_of(stage: Stage, up: Up, name: str, command: str) -> str:
    """Return the version of a service's canary. Raises WorkshopError when it has none."""
    _service(stage, up, name, command)
    if name not in up.canaries:
        raise WorkshopError(f"{name} has no canary: `./workshop canary {name}` starts one.")
    return up.canaries[name]


def _without_canary(up: Up, name: str) -> dict[str, str]:
    return {other: version for other, version in up.canaries.items() if other != name}
