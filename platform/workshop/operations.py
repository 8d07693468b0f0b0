"""What is done to a stage that is up: scale, kill, stop, start, restart. A joined service is handled like any other."""

import signal

from workshop import builds, drivers, lifecycle, paths, processes, programs, status, supervisor
from workshop.errors import WorkshopError
from workshop.lifecycle import Progress
from workshop.stage import Stage
from workshop.state import Up
from workshop.supervisor import Program


def scale(stage: Stage, up: Up, counts: dict[str, int], say: Progress) -> None:
    """Have so many instances of each service; new ones are in rotation before others begin to drain."""
    for name in counts:
        up.refuse_canary(name)
        if up.versions.get(name) == builds.WORKING_TREE:
            raise WorkshopError(
                f"{name} runs from a working tree, as one instance. To scale it, `./workshop leave {name}` and join it "
                "without --dev."
            )
        if any(process.state == "STOPPED" for process in processes_of(name)):
            raise WorkshopError(f"{name} is stopped: `./workshop start {name}` comes first.")
    added, kept, removed = [], [], []
    for name, count in counts.items():
        ours = counted(name)
        states = {instance.id: instance.state for instance in status.instances(stage)[name]}
        # Those that serve stay, if others have to go.
        names = sorted((process.name for process in ours), key=lambda instance: states.get(instance) != "UP")
        kept += names[:count]
        removed += names[count:]
        added += programs.of(stage, name, up, max(0, count - len(names)))
    new = [program.name for program in added]
    try:
        supervisor.add(added)
        lifecycle.wait_until_up(stage, new, watched=new)
        lifecycle.wait_until_up(stage, kept)
    except BaseException:  # the interrupt key too
        remove(new)
        raise
    with processes.not_interrupted():  # otherwise more instances could be left than `counts` says
        up.counts |= counts
        up.save()
        remove(removed)
    for name, count in counts.items():
        say(f"{name}: {count} {'in rotation' if name in stage.services else 'at work'}")


def kill(stage: Stage, target: str, sent: signal.Signals, say: Progress) -> None:
    """Send a signal to the processes of one instance, or of all instances of a service: not to their sidecars."""
    status.ensure_ours(stage, target)
    everything = status.instances(stage)
    chosen = everything.get(target) or [i for found in everything.values() for i in found if i.id == target]
    if not chosen:
        known = ", ".join([*everything, *(i.id for found in everything.values() for i in found)])
        raise WorkshopError(f"There is no service or instance {target!r}: there are {known}.")
    driver = drivers.current()
    sent_to = [i for i in chosen if i.pid and driver.signal(i.id, i.pid, sent)]
    for instance in sent_to:
        say(f"{instance.id}: {sent.name} to process {instance.pid}")
    if not sent_to:
        raise WorkshopError(f"{target} has no process now: `./workshop status` says whether one is being started.")


def stop(stage: Stage, name: str) -> None:
    """End all instances of a service, and its workers, until `start`: requests to it are answered with 503."""
    supervisor.stop([process.name for owner in affected(stage, name) for process in processes_of(owner)])


def start(stage: Stage, up: Up, name: str) -> None:
    """Start what `stop` has ended, or what an interrupted command has left out."""
    owners = affected(stage, name)
    supervisor.restart([process.name for owner in owners for process in processes_of(owner)])
    start_missing(stage, up, owners)


def restart(stage: Stage, up: Up, name: str, say: Progress) -> None:
    """Deploy the old way: end all instances, migrate, start as many of the new build. Nobody is served meanwhile."""
    if name in stage.workers:
        raise WorkshopError(f"{name} is restarted with its service: use `restart {stage.workers[name].service}`.")
    owners, service = affected(stage, name), stage.services[name]
    up.ensure_not_joined(name, "restart")
    up.refuse_canary(name)
    version = builds.build(service)  # before anything is stopped: a build that fails changes nothing
    old = [process.name for owner in owners for process in counted(owner)]
    say(f"stopping {', '.join(old)}")
    remove(old)
    after = up.deployed(name, version)
    lifecycle.migrate(stage, service, after, say)  # should it fail, `start` starts what was there before
    after.save()
    start_missing(stage, after, owners)
    say(f"{name} {version} is up")


def start_missing(stage: Stage, up: Up, owners: list[str]) -> None:
    """Have as many instances of services and workers as there are to be, and wait until all of them serve."""
    added = [p for owner in owners for p in programs.of(stage, owner, up, up.counts[owner] - len(counted(owner)))]
    supervisor.add(added)
    names = [process.name for owner in owners for process in processes_of(owner)]
    lifecycle.wait_until_up(stage, names, watched=names)


def start_service(stage: Stage, up: Up, name: str, say: Progress) -> None:
    """Build, migrate and start a service with its workers; instances that are there already count."""
    service, owners = stage.service(name), affected(stage, name)
    up.settings = service.chosen_settings() | up.settings
    up.versions[name] = builds.build(service)
    up.counts |= {owner: up.counts.get(owner) or stage.program(owner).instances for owner in owners}
    up.save()
    say(f"starting {name} {up.versions[name]}")
    lifecycle.make_databases(stage, up)
    lifecycle.migrate(stage, service, up, say)
    start_missing(stage, up, owners)


def start_new(stage: Stage, added: list[Program]) -> list[str]:
    """Start programs and wait until they serve; return their names. Remove them again if one does not."""
    names = [program.name for program in added]
    try:
        supervisor.add(added)
        lifecycle.wait_until_up(stage, names, watched=names)
    except WorkshopError as error:
        remove(names)
        raise WorkshopError(f"{error}\nIt has been removed again; what served before still does.") from None
    except BaseException:  # KeyboardInterrupt
        remove(names)
        raise
    return names


def affected(stage: Stage, name: str) -> list[str]:
    """Return a service with the workers that run its code. Raises WorkshopError when there is none of that name."""
    status.ensure_ours(stage, name)
    stage.program(name)
    return [name, *(worker.name for worker in stage.workers.values() if worker.service == name)]


def processes_of(name: str) -> list[supervisor.Process]:
    """Return what the supervisor runs for a service or worker."""
    return [process for process in supervisor.processes() if process.name.split("_")[0] == name]


def counted(name: str) -> list[supervisor.Process]:
    """Return those that run from a build: an instance from a working tree is beside them, and is never replaced."""
    return [process for process in processes_of(name) if not builds.is_working_tree(process.name)]


def remove(names: list[str]) -> None:
    """Drain and stop instances and workers, and forget them; an interrupt waits until that is done."""
    with processes.not_interrupted():
        supervisor.remove(names)
        drivers.clean_up(names)
        for name in names:
            (paths.INSTANCES / f"{name}.json").unlink(missing_ok=True)
