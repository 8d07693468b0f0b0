"""What the commands do to the running system: bring it up and down, scale, kill, stop, start, restart."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable

import requests

from workshop import (
    balancer,
    binaries,
    builds,
    paths,
    ports,
    processes,
    programs,
    registry,
    state,
    status,
    stores,
    supervisor,
)
from workshop.errors import WorkshopError
from workshop.stage import Service, Stage
from workshop.state import Up
from workshop.waiting import wait_until

PUBLIC_PORT = 8080  # if it is free and no other is asked for; statistics are one above
START_TIMEOUT = 30  # seconds for a stage, or new instances, to be in rotation; measured: 3
MIGRATE_TIMEOUT = 120  # seconds
ANSWER_TIMEOUT = 2  # seconds for one request to the stage
LAST_LINES = 15  # of the log of a program that does not come up
FAILED = ("BACKOFF", "EXITED", "FATAL")  # supervisord's states of a program that has ended unasked

Progress = Callable[[str], None]


def up(wanted: Stage, db: str, driver: str, port: int | None, say: Progress) -> Up:
    """Bring up a stage; what is up already stays as it is. Raises WorkshopError, and leaves nothing running then."""
    for name in binaries.BINARIES:
        if not binaries.find(name):
            raise WorkshopError(f"{name} is missing: run `./workshop setup`, which installs it or says who can.")
    clean_after_crash(say)
    if paths.STATE.exists():
        current = state.load()
        if current.stage != wanted.name:
            raise WorkshopError(f"{current.stage} is up: end it first, with `./workshop down`.")
        say(f"{current.stage} is up already.")
        return current
    defaults = {name: value for service in wanted.services.values() for name, value in service.settings.items()}
    settings = {name: os.environ.get(name, default) for name, default in defaults.items()}
    new = Up(wanted.name, driver, db, _choose_ports(port, say), {}, settings)
    try:
        _bring_up(wanted, new, say)
    except BaseException:  # the interrupt key too: nothing may be left half running
        tear_down()
        raise
    return new


def clean_after_crash(say: Progress) -> None:
    """End what an `up` that was cut off, or a crash of this machine, has left behind."""
    if paths.STATE.exists() and not (state.load().ready and supervisor.is_running()):
        say("Cleaning up what an interrupted run has left behind.")
        tear_down()


def _bring_up(wanted: Stage, new: Up, say: Progress) -> None:
    new.save()
    for service in wanted.services.values():
        new.versions[service.name] = builds.build(service)
        say(f"{service.name}: build {new.versions[service.name]}")
    new.save()
    for folder in (paths.STORES, paths.INSTANCES, paths.HAPROXY):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    announced = {s.name: registry.Service(s.name, s.routes, s.balance, s.sticky) for s in wanted.services.values()}
    balancer.seed(announced, new.ports, paths.HAPROXY)
    supervisor.start()
    own = stores.programs(wanted, new) + programs.platform()
    supervisor.add(own)
    say(f"started: {', '.join(program.name for program in own)}")
    for service in wanted.services.values():
        migrate(wanted, service, new, say)
    added = [
        program
        for name, declared in (wanted.services | wanted.workers).items()
        for program in programs.of(wanted, name, new, declared.instances)
    ]
    supervisor.add(added)
    say(f"starting: {', '.join(program.name for program in added)}")
    wait_until_up(wanted, new, [program.name for program in added])
    wait_until_answering(wanted, new)
    new.ready = True
    new.save()


def _choose_ports(port: int | None, say: Progress) -> dict[str, int]:
    if port and not ports.is_free(port):
        holder = ports.listener(port)
        by = f" by {holder}" if holder else ""
        raise WorkshopError(f"Port {port} is taken{by}: choose another one with --port.")
    public = port or ports.free_port(PUBLIC_PORT)
    if not port and public != PUBLIC_PORT:
        say(f"Port {PUBLIC_PORT} is taken: {public} instead.")
    chosen = {"public": public, "statistics": ports.free_port(public + 1)}
    for name in ("internal", "registry", "registry_peer", "queue"):
        chosen[name] = ports.free_port(avoid=chosen.values())
    return chosen


def migrate(wanted: Stage, service: Service, up: Up, say: Progress) -> None:
    """Bring the service's database to the schema of its build, once per build: one migrator, however many instances."""
    version = up.versions[service.name]
    done = paths.DATA / f"{service.name}.migrated"
    if not service.migrate or (done.exists() and done.read_text() == version):
        return
    say(f"{service.name}: migrating its database")
    result = subprocess.run(
        service.migrate,
        cwd=builds.folder(service.name, version),
        env=programs.service_environment(wanted, service, up),
        capture_output=True,
        text=True,
        timeout=MIGRATE_TIMEOUT,
    )
    if result.returncode:
        raise WorkshopError(f"The migration of {service.name} failed:\n{_tail(result.stdout + result.stderr)}")
    done.write_text(version)


def wait_until_up(wanted: Stage, up: Up, names: list[str]) -> None:
    """Wait until these instances and workers are in rotation. Raises WorkshopError with the log of one that fails."""

    def all_up() -> bool:
        for process in supervisor.processes():
            if process.state in FAILED:
                raise WorkshopError(f"{process.name} does not start. Its last lines:\n{last_lines(process.name)}")
        states = {i.id: i.state for found in status.instances(wanted, up).values() for i in found}
        return all(states.get(name) == "UP" for name in names)

    if not wait_until(all_up, START_TIMEOUT):
        states = {i.id: i.state for found in status.instances(wanted, up).values() for i in found}
        late = next(name for name in names if states.get(name) != "UP")
        raise WorkshopError(f"{late} is not up after {START_TIMEOUT} s. Its last lines:\n{last_lines(late)}")


def wait_until_answering(wanted: Stage, up: Up) -> None:
    """Wait until every route is answered by an instance, through the load balancer."""
    http = requests.Session()
    http.trust_env = False

    def answers(prefix: str) -> bool:
        try:
            return "X-Served-By" in http.get(up.url.rstrip("/") + prefix, timeout=ANSWER_TIMEOUT).headers
        except requests.RequestException:
            return False

    for service in wanted.services.values():
        for prefix in service.routes:
            if not wait_until(lambda prefix=prefix: answers(prefix), START_TIMEOUT):
                raise WorkshopError(f"{service.name} does not answer {prefix}: see `./workshop logs {service.name}`.")


def last_lines(name: str) -> str:
    """Return the end of a program's log."""
    file = supervisor.log_file(name)
    return _tail(file.read_text(errors="replace")) if file.exists() else "(no log)"


def _tail(text: str) -> str:
    return "\n".join("    " + line for line in text.strip().splitlines()[-LAST_LINES:])


def tear_down() -> list[str]:
    """End everything; return what had got lost and was found running."""
    if supervisor.is_running():
        own = {"etcd", "redis", "haproxy", "balancer"}
        # First those that the load balancer and the registry let go of in good order.
        supervisor.stop([process.name for process in supervisor.processes() if process.name not in own])
        supervisor.shut_down()
    lost = processes.end_left_over()
    paths.STATE.unlink(missing_ok=True)
    return lost


def scale(wanted: Stage, up: Up, counts: dict[str, int], say: Progress) -> None:
    """Have so many instances of each service; new ones are in rotation before this returns, others have drained."""
    added, removed = [], []
    running = status.instances(wanted, up)
    for name, count in counts.items():
        ours = [instance.id for instance in running[name] if instance.pid or instance.state != "UP"]
        added += programs.of(wanted, name, up, max(0, count - len(ours)))
        removed += ours[count:]
    supervisor.add(added)
    names = [program.name for program in added]
    try:
        wait_until_up(wanted, up, names)
    except BaseException:
        supervisor.remove(names)
        raise
    for name in names:
        say(f"{name}: in rotation")
    _remove(removed)
    for name in removed:
        say(f"{name}: drained and gone")


def _remove(names: list[str]) -> None:
    supervisor.remove(names)
    for name in names:
        (paths.INSTANCES / f"{name}.json").unlink(missing_ok=True)


def kill(wanted: Stage, up: Up, target: str, sent: signal.Signals, say: Progress) -> None:
    """Send a signal to the processes of one instance, or of all instances of a service: not to their sidecars."""
    everything = status.instances(wanted, up)
    chosen = everything.get(target) or [i for found in everything.values() for i in found if i.id == target]
    if not chosen:
        known = ", ".join([*everything, *(i.id for found in everything.values() for i in found)])
        raise WorkshopError(f"There is no service or instance {target!r}: there are {known}.")
    if not any(instance.pid for instance in chosen):
        raise WorkshopError(f"{target} does not run: `./workshop start {chosen[0].id.split('_')[0]}` starts it.")
    for instance in chosen:
        if instance.pid:
            os.killpg(os.getpgid(instance.pid), sent)
            say(f"{instance.id}: {sent.name} to process {instance.pid}")


def programs_of(wanted: Stage, name: str) -> list[str]:
    """Return the names of the programs of a service, and of the workers that run its code."""
    wanted.program(name)
    owners = [name, *(worker.name for worker in wanted.workers.values() if worker.service == name)]
    return [process.name for process in supervisor.processes() if process.name.split("_")[0] in owners]


def stop(wanted: Stage, name: str) -> None:
    """End all instances of a service, and its workers, until `start`: requests to it are answered with 503."""
    supervisor.stop(programs_of(wanted, name))


def start(wanted: Stage, up: Up, name: str) -> None:
    """Start what `stop` has ended."""
    names = programs_of(wanted, name)
    stopped = {process.name for process in supervisor.processes() if process.state in supervisor.STOPPED}
    supervisor.restart([program for program in names if program in stopped])
    wait_until_up(wanted, up, names)


def restart(wanted: Stage, up: Up, name: str, say: Progress) -> None:
    """Deploy the old way: end all instances, build, migrate, start as many. Nobody is served meanwhile."""
    service = wanted.services.get(status.service_of(wanted.program(name)))
    counts = {program: len(found) for program, found in status.instances(wanted, up).items()}
    affected = [
        service.name,
        *(worker.name for worker in wanted.workers.values() if worker.service == service.name),
    ]
    version = builds.build(service)  # before anything is stopped: a build that fails changes nothing
    old = programs_of(wanted, service.name)
    say(f"stopping {', '.join(old)}")
    _remove(old)
    up.versions[service.name] = version
    up.save()
    migrate(wanted, service, up, say)
    added = [program for other in affected for program in programs.of(wanted, other, up, counts[other])]
    supervisor.add(added)
    wait_until_up(wanted, up, [program.name for program in added])
    say(f"{service.name} {version} is up")
