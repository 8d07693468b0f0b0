"""What runs, as the load balancer and the supervisor see it."""

from dataclasses import dataclass

from workshop import drivers, evolution, paths, ports, postgres, registry, stores, supervisor
from workshop.errors import WorkshopError
from workshop.haproxy import HAProxyUnavailable, Runtime
from workshop.programs import OWN
from workshop.stage import Service, Stage
from workshop.state import Up

FILE_TIMEOUT = 0.2  # seconds for a look into a database file: `status --watch` takes one twice a second


@dataclass
class InstanceStatus:
    """An instance of a service, or a worker, as `status` shows it."""

    id: str
    version: str
    address: str | None
    pid: int | None  # of the service, not of its sidecar
    state: str  # STARTING, UP, DRAIN or DOWN


def instances(stage: Stage) -> dict[str, list[InstanceStatus]]:
    """Return the instances of every service and worker of the stage, by name."""
    servers = _servers()
    processes = supervisor.processes()
    pids = drivers.current().pids([p for p in processes if p.name not in OWN])
    found: dict[str, list[InstanceStatus]] = {}
    for name, program in (stage.services | stage.workers).items():
        mine = [process for process in processes if process.name.split("_")[0] == name]
        if isinstance(program, Service):
            rows = servers.get(name, {})
            found[name] = [_instance(process, pids[process.name], rows.get(process.name)) for process in mine]
            # A foreign service's instances have registered themselves: we know only what the balancer knows.
            for stranger in sorted(rows.keys() - {process.name for process in mine}):
                row = rows[stranger]
                found[name].append(InstanceStatus(stranger, "", row["addr"], None, balancer_state(row)))
        else:
            found[name] = [_worker(process, pids[process.name]) for process in mine]
    return found


def foreign(stage: Stage) -> dict[str, list[InstanceStatus]]:
    """Return the instances of services that registered themselves, by name: the platform has not started them."""
    return {
        name: [InstanceStatus(instance, "", row["addr"], None, balancer_state(row)) for instance, row in rows.items()]
        for name, rows in sorted(_servers().items())
        if rows and name not in stage.services and name not in registry.RESERVED
    }


def ensure_ours(stage: Stage, target: str) -> None:
    """Raise WorkshopError for a service, or an instance, that registered itself."""
    ours = {process.name for process in supervisor.processes()}
    for name, rows in _servers().items():
        strangers = sorted(rows.keys() - ours)
        if target in strangers or (strangers and target == name and name not in stage.services):
            addresses = ", ".join(rows[stranger]["addr"] for stranger in strangers)
            raise WorkshopError(
                f"{target} registered itself in etcd, at {addresses}. The platform did not start it: control it, and "
                "read its log, where it was started. `./workshop join` starts a program that the platform controls."
            )


def states(stage: Stage) -> dict[str, str]:
    """Return the states alone, by instance or worker: to find their process ids takes ten times as long."""
    servers, found = _servers(), {}
    for process in supervisor.processes():
        owner = process.name.split("_")[0]
        if owner in stage.services:
            found[process.name] = _instance_state(process, servers.get(owner, {}).get(process.name))
        elif owner in stage.workers:
            found[process.name] = _worker_state(process)
    return found


def report(stage: Stage, up: Up) -> dict:
    """Return what `status --json` prints; how far the stage is on its way to the next one only if it is."""
    programs = stage.services | stage.workers
    answered = _routes()
    ours, others = instances(stage), foreign(stage)
    return {
        "stage": up.stage,
        "url": up.url,
        "stats_url": up.stats_url,
        "driver": up.driver,
        "db": up.db,
        "services": [
            {
                "name": name,
                "origin": "foreign" if name in others else "joined" if name in up.joined else "stage",
                "routes": sorted(prefix for prefix, service in answered.items() if service == name),
                # None: it is just being started, or ended, or is foreign.
                "version": up.versions.get(service_of(programs[name]), "") if name in programs else "",
                "instances": [vars(instance) for instance in found],
            }
            for name, found in (ours | others).items()
        ],
        "stores": _stores(stage, up),
    } | ({"on_the_way": evolution.progress(up)} if up.is_on_the_way else {})


def _routes() -> dict[str, str]:
    """Return which service answers which path prefix; empty when the load balancer is away."""
    try:
        return Runtime(paths.HAPROXY).routes()
    except HAProxyUnavailable:
        return {}


def service_of(program) -> str:
    """Return the service whose build a program runs: its own, or that of the service a worker belongs to."""
    return program.name if isinstance(program, Service) else program.service


def balancer_state(server: dict[str, str]) -> str:
    """Return the state of a row of HAProxy's statistics in our words."""
    match server["status"].split()[0]:
        case "UP" | "no":  # "no check"
            return "UP"
        case "MAINT" | "DRAIN" | "NOLB":
            return "DRAIN"
        case _:
            return "DOWN"


def _servers() -> dict:
    try:
        return Runtime(paths.HAPROXY).servers()
    except HAProxyUnavailable:
        return {}  # then nothing is in rotation


def _instance(process: supervisor.Process, pid: int | None, server: dict[str, str] | None) -> InstanceStatus:
    state, address = _instance_state(process, server), server["addr"] if server else None
    return InstanceStatus(process.name, process.name.split("_")[1], address, pid, state)


def _worker(process: supervisor.Process, pid: int | None) -> InstanceStatus:
    return InstanceStatus(process.name, process.name.split("_")[1], None, pid, _worker_state(process))


def _instance_state(process: supervisor.Process, server: dict[str, str] | None) -> str:
    return balancer_state(server) if server else _supervised_state(process)


def _worker_state(process: supervisor.Process) -> str:
    return "UP" if process.state == "RUNNING" else _supervised_state(process)


def _supervised_state(process: supervisor.Process) -> str:
    """Return the state of what is not in rotation."""
    if process.state == "STOPPING":
        return "DRAIN"
    return "DOWN" if process.state in supervisor.STOPPED else "STARTING"


def _answers(up: Up, server: str) -> bool:
    return ports.answers(up.ports[server], up.host(server))


def _stores(stage: Stage, up: Up) -> list[dict]:
    """Return the registry and the stores; a process is UP when it accepts connections, a file when it is whole."""
    rows = [("registry", up.registry, _answers(up, "registry"))]
    is_there = up.db == "postgres" and postgres.accepts_connections(up)
    for name, store in stage.stores.items():
        if store.kind == "redis":
            rows.append((name, up.address("queue"), _answers(up, "queue")))
        elif up.db == "postgres":
            rows.append((name, up.address("postgres"), is_there))
        else:
            file = stores.sqlite_file(name)
            is_whole = file.exists() and not stores.damage(file, timeout=FILE_TIMEOUT)
            rows.append((name, str(file), is_whole))
    return [{"name": name, "address": address, "state": "UP" if up else "DOWN"} for name, address, up in rows]
