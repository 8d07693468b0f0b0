"""Bringing a stage up and down: nothing is left half running, and every command works after an interrupted one."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

import requests

from workshop import (
    balancer,
    builds,
    copies,
    drivers,
    evolution,
    paths,
    ports,
    postgres,
    processes,
    programs,
    registry,
    state,
    status,
    stores,
    supervisor,
)
from workshop.errors import WorkshopError
from workshop.files import give, write_atomically
from workshop.stage import Service, Stage
from workshop.state import Up
from workshop.waiting import wait_until

DRIVER = "process"  # unless it is said otherwise
START_TIMEOUT = 30  # seconds for a stage, or new instances, to be in rotation; measured: 3
MIGRATE_TIMEOUT = 120  # seconds
ANSWER_TIMEOUT = 2  # seconds for one request to the stage
LAST_LINES = 15  # of the log of a program that does not come up
FAILED = ("BACKOFF", "EXITED", "FATAL")  # supervisord's states of a program that has ended unasked

Progress = Callable[[str], None]


def up(
    stage: Stage,
    db: str | None,
    driver: str | None,
    port: int | None,
    say: Progress,
    names: Collection[str] = (),
    registry_api: str | None = None,
) -> Up:
    """Bring up a stage without its optional services; a stage that is up already stays as it is.

    `names` are the host names by which browsers reach it, besides those of loopback. `registry_api` is etcd's, v2 or
    v3; by default, the etcd that is installed decides.

    Raises WorkshopError, and leaves nothing running then.
    """
    clean_after_crash(say)
    if paths.STATE.exists():
        current = state.load()
        if current.stage != stage.name:
            raise WorkshopError(
                f"{current.stage} is up: end it first, with `./workshop down`, or take it there with "
                "`./workshop evolve`, while it runs."
            )
        if port and port != current.ports["public"]:
            raise WorkshopError(f"{current.stage} is up already, at {current.url}: `./workshop down` comes first.")
        if missing := stage.services.keys() - current.counts.keys():
            name, *_ = sorted(missing)
            folder = os.path.relpath(stage.services[name].folder, paths.REPOSITORY)
            raise WorkshopError(
                f"{current.stage} is up already, without {name}. Add it with `./workshop join {folder} --name {name}`."
            )
        if unknown := sorted(set(names) - set(current.hosts)):
            raise WorkshopError(
                f"{current.stage} is up already, without the name {unknown[0]}: `./workshop down` comes first."
            )
        for wanted, what in ((db, current.db), (driver, current.driver), (registry_api, current.registry_api)):
            if wanted and wanted != what:
                raise WorkshopError(f"{current.stage} is up already, with {what}: `./workshop down` comes first.")
        say(f"{current.stage} is up already.")
        return current
    left = state.left_on_the_way()
    if left and (left.stage, left.db) != (stage.name, db or left.db):
        raise WorkshopError(
            f"{left.stage} was taken down on its way to the next stage, and so were its data: "
            f"`./workshop up {left.stage} --db {left.db}` goes on from there, `./workshop down --wipe` begins anew."
        )
    if left:
        stage, db = evolution.current(left), left.db
    stage = stage.only([])
    settings = {name: value for s in stage.services.values() for name, value in s.chosen_settings().items()}
    counts = {name: program.instances for name, program in (stage.services | stage.workers).items()}
    driver = driver or DRIVER
    db = db or drivers.DRIVERS[driver].db
    if db == "sqlite":
        refuse_damaged(stage)
    new = Up(stage.name, driver, db, _choose_ports(driver, port, say), {}, counts, settings, bind=ports.BIND)
    new.names, new.registry_api = list(names), stores.registry_api(registry_api)
    if left:
        say(f"{left.stage} goes on from where it was on its way to the next stage.")
        new.steps, new.has_begun, new.routes = left.steps, left.has_begun, left.routes
        new.settings |= left.settings
    else:
        copies.unmark(new, stage.stores)
    try:
        _bring_up(stage, new, say)
    except BaseException:  # KeyboardInterrupt too: nothing may be left half running
        with processes.not_interrupted():
            tear_down()
        raise
    return new


def clean_after_crash(say: Progress) -> None:
    """End what an interrupted command, a crash of this machine, or somebody who removed .run/, has left behind."""
    if remains():
        say("Cleaning up what an interrupted run has left behind.")
        tear_down()


def remains() -> str | None:
    """Say what has been left behind; None when a whole stage is up, or nothing at all."""
    try:
        if not supervisor.is_running():
            return f"{state.load().stage} was up, and its supervisor is gone"
        return None if state.load().ready else f"{state.load().stage} was never brought up entirely"
    except WorkshopError:
        if paths.STATE.exists():
            return f"{paths.STATE} cannot be read"
    if lost := processes.left_over():
        return f"{len(lost)} processes run on that belong to no stage, such as {lost[0].name()}, process {lost[0].pid}"
    return None


def refuse_damaged(stage: Stage) -> None:
    """Raise WorkshopError when an SQLite database is damaged: nothing is to be written into it."""
    for service in stage.services.values():
        for file in stores.sqlite_files(stage, service):
            if file.exists() and (problem := stores.damage(file, is_migrated=migrated(service, "sqlite").exists())):
                raise WorkshopError(f"{problem}: {stores.REPAIR}.")


def migrated(service: Service, db: str) -> Path:
    """Return the file that names the build to whose schema the service's database has been brought."""
    return stores.data_folder(db) / f"{service.name}.migrated"


def _bring_up(stage: Stage, new: Up, say: Progress) -> None:
    new.save()
    driver = drivers.of(new)
    new.network = driver.prepare(say)
    new.save()
    for service in stage.services.values():
        new.versions[service.name] = builds.build(service)
        say(f"{service.name}: build {new.versions[service.name]}")
    new.save()
    for folder in (paths.STORES, paths.INSTANCES, paths.HAPROXY, paths.LOGS):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
    announced = {service.name: service.backend() for service in stage.services.values()}
    balancer.seed(announced, new.routes, new.frontends, paths.HAPROXY)
    supervisor.start()
    own = stores.programs(stage, new) + programs.platform(new)
    paths.DATA.mkdir(exist_ok=True)
    for folder in (paths.STORES, paths.HAPROXY, paths.DATA):
        give(folder, driver.user)
    supervisor.add(own)
    say(f"started: {', '.join(program.name for program in own)}")
    make_databases(stage, new)
    _set_routes(new)
    for service in stage.services.values():
        migrate(stage, service, new, say)
    added = [program for name in new.counts for program in programs.of(stage, name, new, new.counts[name])]
    supervisor.add(added)
    say(f"starting: {', '.join(program.name for program in added)}")
    wait_until_up(stage, [p.name for p in added], watched=[p.name for p in own + added])
    wait_until_answering(stage, new)
    new.ready = True
    new.save()
    paths.ON_THE_WAY.unlink(missing_ok=True)


def _set_routes(up: Up) -> None:
    """Set the routes of a stage that was on its way, before an instance could answer what it has no data for."""
    etcd = registry.Registry(up.registry)

    def are_set() -> bool:
        try:
            for prefix, service in up.routes.items():
                etcd.set_route(prefix, service)
        except registry.RegistryUnavailable:
            return False
        return True

    if not _wait_watching(are_set, ["etcd"]):
        raise WorkshopError(f"etcd is not up after {START_TIMEOUT} s. Its last lines:\n{last_lines('etcd')}")


def make_databases(stage: Stage, up: Up) -> None:
    """Have a database for each store: in PostgreSQL, as soon as that is there; a new one is not migrated yet."""
    if up.db != "postgres":
        return
    if not _wait_watching(lambda: postgres.accepts_connections(up), ["postgres"]):
        raise WorkshopError(f"postgres is not up after {START_TIMEOUT} s. Its last lines:\n{last_lines('postgres')}")
    new = postgres.make_databases(stores.databases(stage), up)
    for service in stage.services.values():
        if set(new) & set(stores.databases(stage, service)):
            migrated(service, up.db).unlink(missing_ok=True)


def _choose_ports(driver: str, port: int | None, say: Progress) -> dict[str, int]:
    public = ports.choose("chat", port, say)
    chosen = {"public": public, "statistics": ports.free_port(public + 1, avoid=[public])}
    for name in ("internal", "registry", "registry_peer", "queue", "postgres"):
        chosen[name] = drivers.DRIVERS[driver].ports.get(name) or ports.free_port(avoid=chosen.values())
    return chosen


def migrate(stage: Stage, service: Service, up: Up, say: Progress) -> None:
    """Bring the service's database to the schema of its build, once per build: one migrator, however many instances."""
    version = up.versions[service.name]
    done = migrated(service, up.db)
    are_there = up.db == "postgres" or all(file.exists() for file in stores.sqlite_files(stage, service))
    if not service.migrate or (done.exists() and done.read_text() == version and are_there):
        return
    if not are_there:
        done.unlink(missing_ok=True)  # should we be interrupted, the empty file is no damaged one
    from workshop import migrations  # only here: Alembic takes 0.3 s to import, and most commands migrate nothing

    plan = migrations.plan(stage, service, up, builds.folder(service.name, version))
    if plan.ahead:  # nothing to bring it to, nor back from: a schema is never downgraded
        plan.refuse_left_behind(service.name, version)
        return
    say(f"{service.name}: migrating its database")
    told, name = programs.told(stage, service, up), f"{service.name}_migration"
    try:
        result = subprocess.run(
            programs.command(stage, service, up, name, service.migrate, told),
            cwd=builds.folder(service.name, version),
            env=drivers.of(up).environment(told),
            capture_output=True,
            text=True,
            timeout=MIGRATE_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkshopError(f"The migration of {service.name} failed: {error}") from None
    finally:
        drivers.clean_up([name])
    if result.returncode:
        raise WorkshopError(f"The migration of {service.name} failed:\n{_tail(result.stdout + result.stderr)}")
    write_atomically(done, version)


def wait_until_up(stage: Stage, names: Collection[str], watched: Collection[str] = ()) -> None:
    """Wait until these instances and workers are in rotation.

    Raises WorkshopError with the last lines of the log when one is not in time, or as soon as one of those `watched`
    has ended, although the supervisor would go on starting it.
    """
    in_time = _wait_watching(lambda: not _not_up(stage, names), watched)
    if not in_time and (late := _not_up(stage, names)):
        raise WorkshopError(f"{late[0]} is not up after {START_TIMEOUT} s. Its last lines:\n{last_lines(late[0])}")


def _wait_watching(condition: Callable[[], bool], watched: Collection[str]) -> bool | None:
    """Wait for a condition; raises WorkshopError as soon as one of the programs `watched` has ended."""
    first_pid: dict[str, int] = {}

    def is_met() -> bool:
        for process in supervisor.processes():
            if process.name not in watched:
                continue
            is_another = process.pid and first_pid.setdefault(process.name, process.pid) != process.pid
            if process.state in FAILED or is_another:
                raise WorkshopError(f"{process.name} does not start. Its last lines:\n{last_lines(process.name)}")
        return condition()

    return wait_until(is_met, START_TIMEOUT)


def _not_up(stage: Stage, names: Collection[str]) -> list[str]:
    states = status.states(stage)
    return [name for name in names if states.get(name) != "UP"]


def wait_until_answering(stage: Stage, up: Up) -> None:
    """Wait until every route is answered by an instance, through the load balancer's frontend that refuses none."""
    http = requests.Session()
    http.trust_env = False

    def answers(prefix: str) -> bool:
        try:
            return "X-Served-By" in http.get(up.internal_url + prefix, timeout=ANSWER_TIMEOUT).headers
        except requests.RequestException:
            return False

    for service in stage.services.values():
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
    _remember_the_way()
    # First, since the next `up` takes what runs without this file for left over, should we be interrupted. Removing
    # needs no room on the disk; where even that is refused, everything ends nevertheless, and it fails below.
    with contextlib.suppress(OSError):
        paths.STATE.unlink(missing_ok=True)
    if supervisor.is_running():
        # First those that the load balancer and the registry let go of in good order.
        supervisor.stop([p.name for p in supervisor.processes() if p.name not in programs.OWN])
        supervisor.shut_down()
    lost = [found for driver in drivers.DRIVERS.values() for found in driver.end_left_over()]
    lost += processes.end_left_over()
    paths.STATE.unlink(missing_ok=True)
    return lost


def _remember_the_way() -> None:
    """Keep, beside the data, where a stage was on its way to the next one, and where its routes led."""
    with contextlib.suppress(WorkshopError, OSError):
        if (up := state.load()).is_on_the_way and up.ready:
            up.routes = balancer.LastGood(paths.HAPROXY / "last_good.json").routes
            up.save(paths.ON_THE_WAY)
