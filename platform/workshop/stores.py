"""The stores that services keep their data in, and the registry: how each is started, and where it is reached."""

from pathlib import Path

from workshop import paths
from workshop.files import write_atomically
from workshop.ports import HOST
from workshop.secrets import secret
from workshop.stage import Service, Stage
from workshop.state import Up
from workshop.supervisor import Program

REDIS = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
# A queue and counts of connections: nothing here has to outlive the stage.
save ""
appendonly no
"""


def programs(stage: Stage, up: Up) -> list[Program]:
    """Return the registry and the stores of a stage that are processes; SQLite needs none."""
    wanted = [_etcd(up)]
    if any(store.kind == "redis" for store in stage.stores.values()):
        wanted.append(_redis(up))
    return wanted


def environment(stage: Stage, service: Service, up: Up) -> dict[str, str]:
    """Return the environment variables that tell a service the addresses of its stores."""
    addresses = {"redis": _redis_url, "sql": _sqlite_url}
    return {variable: addresses[stage.stores[name].kind](name, up) for variable, name in service.stores.items()}


def are_there(stage: Stage, service: Service) -> bool:
    """Tell whether the service's databases exist."""
    names = [name for name in service.stores.values() if stage.stores[name].kind == "sql"]
    return all(_sqlite_file(name).exists() for name in names)


def _sqlite_file(name: str) -> Path:
    return paths.DATA / f"{name}.db"


def _sqlite_url(name: str, up: Up) -> str:
    paths.DATA.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{_sqlite_file(name)}"


def _redis_url(name: str, up: Up) -> str:
    return f"redis://:{secret('REDIS_PASSWORD')}@{HOST}:{up.ports['queue']}/0"


def _redis(up: Up) -> Program:
    folder = paths.STORES / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "redis.conf"
    password = secret("REDIS_PASSWORD")
    write_atomically(configuration, REDIS.format(port=up.ports["queue"], password=password, folder=folder))
    return Program("redis", ["redis-server", str(configuration)], folder, {})


def _etcd(up: Up) -> Program:
    """The registry describes what runs, and at first nothing does: its folder is a new one at each `up`."""
    folder = paths.STORES / "etcd"
    folder.mkdir(parents=True, exist_ok=True)
    return Program("etcd", etcd_command(folder, up.ports["registry"], up.ports["registry_peer"]), folder, {})


def etcd_command(folder: Path, port: int, peer_port: int) -> list[str]:
    """Return the command of an etcd of one member that keeps its data in `folder`."""
    client, peer = f"http://{HOST}:{port}", f"http://{HOST}:{peer_port}"
    options = {
        "enable-v2": "true",
        "data-dir": str(folder / "data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        # A single member need not wait for others: it elects itself after 0.1 s instead of 1 s.
        "heartbeat-interval": "10",
        "election-timeout": "100",
        "log-level": "warn",
    }
    return ["etcd", *(f"--{key}={value}" for key, value in options.items())]
