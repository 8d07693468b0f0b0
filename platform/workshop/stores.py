"""The stores that services keep their data in, and the registry: how each is started, and where it is reached.

What there is to say about PostgreSQL stands in postgres.py.
"""

import contextlib
import sqlite3
import time
from pathlib import Path

from workshop import binaries, drivers, paths, postgres
from workshop.docker import Container
from workshop.errors import WorkshopError
from workshop.files import write_atomically
from workshop.ports import HOST
from workshop.secrets import secret
from workshop.stage import Service, Stage
from workshop.state import Up
from workshop.supervisor import Program

REDIS = """\
bind {host}
port {port}
requirepass {password}
dir "{folder}"
# A queue and counts of connections: nothing here has to outlive the stage.
save ""
appendonly no
# Its title would be written over its environment, in which the platform's mark stands: nobody could find it again.
set-proc-title no
"""
# Of etcd, by the API of the registry.
API_OPTIONS = {
    # The JSON gateway would use etcd's own certificate as a client's, which is refused, and try for ever.
    "v2": {"enable-v2": "true", "enable-grpc-gateway": "false"},
    # etcd would keep every earlier value of each key. A watch begins at the latest revision: a minute is long enough.
    # At the level `warn`, etcd logs a line for each call through its JSON gateway.
    "v3": {"auto-compaction-mode": "periodic", "auto-compaction-retention": "1m", "log-level": "error"},
}
V2_ENDED = (3, 6)  # etcd from this version on has no v2 API
# What to do about a damaged database. A -wal file of another time would damage the copy, too.
REPAIR = "put a good copy in its place and remove its -wal and -shm files, or begin anew with `./workshop down --wipe`"


def programs(stage: Stage, up: Up) -> list[Program]:
    """Return the registry and the stores of a stage that are processes; SQLite needs none."""
    wanted = [_etcd(up)]
    if any(store.kind == "redis" for store in stage.stores.values()):
        wanted.append(_redis(up))
    if up.db == "postgres":
        wanted.append(postgres.program(up))
    return wanted


def environment(stage: Stage, service: Service, up: Up) -> dict[str, str]:
    """Return the environment variables that tell a service the addresses of its stores."""
    addresses = {"redis": _redis_url, "sql": _sql_url}
    return {variable: addresses[stage.stores[name].kind](name, up) for variable, name in service.stores.items()}


def databases(stage: Stage, service: Service | None = None) -> list[str]:
    """Return the names of the databases that the stage has, or that the service may use."""
    names = service.stores.values() if service else stage.stores
    return [name for name in names if stage.stores[name].kind == "sql"]


def data_folder(db: str) -> Path:
    """Return what lies below .run/data/ of this kind of database: each has its own data."""
    return postgres.KEPT if db == "postgres" else paths.DATA


def sqlite_file(name: str) -> Path:
    """Return where the database called `name` lies."""
    return paths.DATA / f"{name}.db"


def sqlite_files(stage: Stage, service: Service) -> list[Path]:
    """Return where the service's databases lie."""
    return [sqlite_file(name) for name in databases(stage, service)]


def damage(file: Path, is_migrated: bool = False, timeout: float = 10) -> str | None:
    """Say what is wrong with an SQLite file, and change nothing in it; None when nothing is, as far as can be seen.

    What cannot be seen: other words within a row, since SQLite keeps no checksums; what stood in a -wal file that is
    gone; and in a file so large that `timeout` seconds do not suffice, what comes later. Empty, or without tables, is
    also what a first migration leaves that was interrupted: only once `is_migrated`, that is damage.
    """
    deadline = time.monotonic() + timeout
    try:
        if is_migrated and not file.stat().st_size:
            return f"{file} is damaged: it is empty"
        # Read-only: whoever closes a database last would otherwise write the -wal file's pages into it.
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except FileNotFoundError:
        return None  # it has just been removed
    except sqlite3.DatabaseError as error:
        # Python's own errors have no code: it could not read a text that SQLite gave it.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return None  # busy, or it took too long: nothing that speaks against the file
        found, tables = str(error), 0
    if found != "ok":
        return f"{file} is damaged: {' '.join(found.split())}"
    return f"{file} is damaged: it has no tables any more" if is_migrated and not tables else None


def _sql_url(name: str, up: Up) -> str:
    if up.db == "postgres":
        return postgres.url(name, up)
    return f"sqlite:///{sqlite_file(name)}"


def _redis_url(name: str, up: Up) -> str:
    return f"redis://:{secret('REDIS_PASSWORD')}@{up.address('queue')}/0"


def _redis(up: Up) -> Program:
    folder = paths.STORES / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "redis.conf"
    password = secret("REDIS_PASSWORD")
    host, port = up.host("queue"), up.ports["queue"]
    write_atomically(configuration, REDIS.format(host=host, port=port, password=password, folder=folder))
    return drivers.server(up, Container("redis", ["redis-server", str(configuration)], host=host, folders=[folder]))


def _etcd(up: Up) -> Program:
    """The registry describes what runs, and at first nothing does: its folder is a new one at each `up`."""
    from workshop import certificates  # only here: cryptography takes 0.05 s to import, and only `up` needs it

    folder = paths.STORES / "etcd"
    host = up.host("registry")
    certificates.make(paths.CERTIFICATES, folder, host, up.registry_api)
    command = etcd_command(folder, up.registry_api, up.ports["registry"], up.ports["registry_peer"], host)
    return drivers.server(up, Container("etcd", command, host=host, folders=[folder]))


def registry_api(wanted: str | None) -> str:
    """Return the API of the registry: the one that is wanted, or the one for the etcd that is installed.

    Raises WorkshopError if etcd does not have the API.
    """
    has_v2 = binaries.number(version := binaries.version("etcd")) < V2_ENDED
    if wanted == "v2" and not has_v2:
        raise WorkshopError(f"etcd {version} no longer has the v2 API. Use `--registry v3`, or omit the option.")
    return wanted or ("v2" if has_v2 else "v3")


def etcd_command(folder: Path, api: str, port: int, peer_port: int, host: str = HOST) -> list[str]:
    """Return the command of an etcd of one member, with its data and its certificates in `folder`.

    Both ports refuse clients that have no certificate of the authority in ca.pem.
    """
    client, peer = f"https://{host}:{port}", f"https://{host}:{peer_port}"
    authority, own = str(folder / "ca.pem"), str(folder / "server.pem")
    options = {
        "data-dir": str(folder / "data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "client-cert-auth": "true",
        "trusted-ca-file": authority,
        "cert-file": own,
        "key-file": own,
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": authority,
        "peer-cert-file": own,
        "peer-key-file": own,
        # No page of another origin may read an answer, not even in a browser that has the client's certificate. The
        # default allows all origins, and so does an empty list.
        "cors": client,
        # A single member need not wait for others: it elects itself after 0.1 s instead of 1 s.
        "heartbeat-interval": "10",
        "election-timeout": "100",
        "log-level": "warn",
    } | API_OPTIONS[api]
    return ["etcd", *(f"--{key}={value}" for key, value in options.items())]
