"""From a stage to the programs that the supervisor runs: the platform's own, instances and workers."""

import secrets
import string
import sys
from collections.abc import Collection

from workshop import builds, drivers, paths, stores
from workshop.docker import Container
from workshop.errors import WorkshopError
from workshop.haproxy import SOCKETS, Runtime
from workshop.processes import platform_environment
from workshop.registry import WEIGHT
from workshop.secrets import secret
from workshop.sidecar import Instance
from workshop.stage import Service, Stage, Worker
from workshop.state import Up
from workshop.supervisor import Program

ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is mistaken for something else when read aloud
ID_LENGTH = 4
OWN = ("etcd", "redis", "postgres", "haproxy", "balancer")  # the programs that are no instance of anything


def platform(up: Up) -> list[Program]:
    """Return HAProxy, which starts from the file as it was written last, and its manager."""
    configuration, socket = paths.HAPROXY / "haproxy.cfg", Runtime(paths.HAPROXY).socket
    haproxy = ["haproxy", "-W", "-db", "-f", str(configuration), "-S", str(socket)]
    manager = [sys.executable, "-m", "workshop.balancer"]
    sockets = paths.HAPROXY / SOCKETS
    published = [f"{up.bind}:{up.ports[name]}" for name in ("public", "statistics")]
    container = Container(
        "haproxy", haproxy, host=up.host("balancer"), folders=[sockets], reads=[paths.HAPROXY], publish=published
    )
    return [
        drivers.server(up, container),
        Program("balancer", manager, paths.RUN, platform_environment()),
    ]


def of(stage: Stage, name: str, up: Up, count: int) -> list[Program]:
    """Return the programs for `count` new instances of the service or worker called `name`.

    Raises WorkshopError when the build that they are to run was removed.
    """
    program = stage.program(name)
    service = program.name if isinstance(program, Service) else program.service
    if count > 0 and builds.is_removed(service, version := up.versions[service]):
        raise WorkshopError(
            f"Build {version} of {service} was removed. Run `./workshop restart {service}`, which builds it again."
        )
    make = _instance if isinstance(program, Service) else _worker
    return [make(stage, program, up) for _ in range(count)]


def canary(stage: Stage, service: Service, up: Up, weight: int) -> Program:
    """Return the program for a new instance of the service that gets another share of the requests than the others."""
    return _instance(stage, service, up, weight)


def working_tree(stage: Stage, service: Service, up: Up, weight: int) -> Program:
    """Return the program for an instance that runs the service's files as they are, and restarts when one changes."""
    sources = {place: str(source) for place, source in builds.sources(service).items()}
    return _instance(stage, service, up, weight, runner="workshop.working_tree", sources=sources)


def told(stage: Stage, service: Service, up: Up) -> dict[str, str]:
    """Return what the service's code is told, by its environment: as an instance, a worker or a migration."""
    settings = service.chosen_settings() | up.settings  # which has none that stage.toml has gained since `up`
    return (
        {"PYTHONUNBUFFERED": "1"}
        | stores.environment(stage, service, up)
        | {name: secret(name) for name in service.secrets}
        | {name: settings[name] for name in service.settings}
        | {"SERVICE": service.name, "VERSION": up.versions[service.name], "INTERNAL_URL": up.internal_url}
        | {"ALLOWED_HOSTS": ",".join(up.hosts)}
    )


def command(
    stage: Stage, service: Service, up: Up, name: str, words: list[str], told: Collection[str], host: str = ""
) -> list[str]:
    """Return the command that runs something of the service's build."""
    folders = [paths.DATA] if up.db == "sqlite" and stores.databases(stage, service) else []
    build = (service.name, up.versions[service.name])
    return drivers.of(up).command(Container(name, words, build, told, host, folders))


def _instance(
    stage: Stage,
    service: Service,
    up: Up,
    weight: int = WEIGHT,
    runner: str = "workshop.sidecar",
    sources: dict[str, str] | None = None,
) -> Program:
    version = up.versions[service.name]
    name = _name(service.name, version)
    file = paths.INSTANCES / f"{name}.json"
    environment = told(stage, service, up)
    listening = [*environment, "HOST", "PORT", "INSTANCE"]  # the last three are filled in by the sidecar
    Instance(
        name=name,
        service=service.name,
        locations=service.routes,
        balance=service.balance,
        sticky=service.sticky,
        command=command(stage, service, up, name, service.command, listening, host="$HOST"),
        folder=str(builds.folder(service.name, version)),
        environment=drivers.of(up).environment(environment),
        registry=up.registry,
        registry_api=up.registry_api,
        weight=weight,
        network=up.network,
        sources=sources or {},
        clean_up=drivers.of(up).clean_up(name),
    ).save(file)
    return Program(name, [sys.executable, "-m", runner, str(file)], paths.RUN, platform_environment())


def _worker(stage: Stage, worker: Worker, up: Up) -> Program:
    service = stage.services[worker.service]
    version = up.versions[service.name]
    name = _name(worker.name, version)
    environment = told(stage, service, up) | {"INSTANCE": name}
    words = [string.Template(word).safe_substitute(INSTANCE=name) for word in worker.command]
    runs = command(stage, service, up, name, words, environment)
    return Program(name, runs, builds.folder(service.name, version), drivers.of(up).environment(environment))


def _name(program: str, version: str) -> str:
    return f"{program}_{version}_{''.join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))}"
