"""PostgreSQL, for `up --db postgres`: a private server, and in it one database and one role for each `sql` store."""

import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from workshop import binaries, drivers, paths
from workshop.docker import Container
from workshop.drivers import Driver
from workshop.errors import WorkshopError
from workshop.files import give, write_atomically
from workshop.processes import base_environment
from workshop.secrets import secret
from workshop.state import Up
from workshop.supervisor import Program

INSTALLED = Path("/usr/lib/postgresql")  # <major version>/bin: Debian puts none of it on the PATH
KEPT = paths.DATA / "postgres"  # what outlives `down`
CLUSTER = KEPT / "cluster"
# Where its socket is, in .run/, which is for its owner only. Four characters longer than the supervisor's: 98 at most.
SOCKETS = paths.STORES / "postgres"
SUPERUSER = "postgres"
# Names that a store cannot have: roles and databases that every PostgreSQL has, and what it takes for a keyword.
RESERVED = {SUPERUSER, "template0", "template1", "public", "none"}
LAST_LINES = 5  # of a command that failed
INIT_TIMEOUT = 60  # seconds; measured: 1
CONNECT_TIMEOUT = 2  # seconds; libpq knows nothing shorter
UNSHARE = ["unshare", "--user", f"--map-user={SUPERUSER}", f"--map-group={SUPERUSER}", "--"]

CONFIGURATION = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = '{folder}'
unix_socket_permissions = 0700
hba_file = '{folder}/pg_hba.conf'
# 3 services with a database × 20 instances × the 15 connections of SQLAlchemy's pool: 5, and 10 more when many ask at
# once. (A monolith is one service, with 20 workers × 4 threads besides.) Only those that are open cost memory.
max_connections = 1000
shared_buffers = 32MB
min_wal_size = 32MB
max_wal_size = 64MB
# After a crash it first has the disk write what the kernel still keeps: in one call, not for each of a thousand files.
recovery_init_sync_method = syncfs
# The statements are short: compiling one takes longer than running it.
jit = off
# A single server: nothing is replicated.
wal_level = minimal
max_wal_senders = 0
# Below .run/, where a crash leaves nothing behind that `down --wipe` does not remove; /dev/shm is small in a container.
dynamic_shared_memory_type = mmap
# A service that freezes in the middle of a transaction holds its locks no longer than a request may take (4.5 s).
idle_in_transaction_session_timeout = 5s
log_line_prefix = '%m [%p] %q%u@%d '
log_checkpoints = off
# An error without its detail, which may quote a whole row: that of a user has the hash of a password.
log_error_verbosity = terse
"""
# The platform itself comes through the socket, as superuser; a service through TCP, with its role's password.
ACCESS = """\
local all {superuser} trust
host all {superuser} all reject
host all all {clients} scram-sha-256
"""


def version() -> str | None:
    """Return the major version that made the databases or, if there are none yet, the newest that is installed."""
    made_by = CLUSTER / "PG_VERSION"
    return made_by.read_text().strip() if made_by.exists() else max(_installed(), key=int, default=None)


def _installed() -> list[str]:
    return [file.parts[-3] for file in INSTALLED.glob("*/bin/postgres")]


def problem() -> str | None:
    """Say what keeps PostgreSQL from running here, and what to do; None when nothing does."""
    if not _installed():
        return "PostgreSQL is missing: run `./workshop setup`, which installs it or says who can"
    if version() not in _installed():
        return (
            f"{KEPT} was made by PostgreSQL {version()}, which is not installed: install postgresql-{version()}, "
            "or begin anew with `./workshop down --wipe`"
        )
    if too_old := binaries.problem("postgres", version()):
        return f"{too_old}: use the one of Debian 12 or 13"
    if os.getuid() == 0 and not _may_be_another_user():
        return (
            "PostgreSQL refuses to run as root, and root cannot have it run as another user here "
            f"(no user namespaces, or no way into {paths.RUN} for it): be an ordinary user"
        )
    return None


def program(up: Up) -> Program:
    """Return the server, its cluster being made if there is none. Raises WorkshopError when that fails."""
    _make_cluster(up)
    SOCKETS.mkdir(parents=True, exist_ok=True)
    configuration = SOCKETS / "postgresql.conf"
    host, port = up.host("postgres"), up.ports["postgres"]
    write_atomically(configuration, CONFIGURATION.format(host=host, port=port, folder=SOCKETS))
    access = ACCESS.format(superuser=SUPERUSER, clients=up.network or f"{host}/32")
    write_atomically(SOCKETS / "pg_hba.conf", access)
    # After a crash of the machine, the process id in it may be another's by now. `up` has ended all that was ours.
    (CLUSTER / "postmaster.pid").unlink(missing_ok=True)
    command = [_program("postgres"), "-D", str(CLUSTER), "-c", f"config_file={configuration}"]
    # SIGINT closes all connections and stops; SIGTERM would wait for the clients to leave.
    words = _as_ordinary_user(command, drivers.of(up))
    container = Container("postgres", words, host=up.host("postgres"), folders=[SOCKETS, KEPT])
    return drivers.server(up, container, stop_signal="INT")


def url(store: str, up: Up) -> str:
    """Return what a service that may use the store is told: the database, its role and its password."""
    return f"postgresql+psycopg://{store}:{_password(store)}@{up.address('postgres')}/{store}?connect_timeout={CONNECT_TIMEOUT}"


def superuser_url(database: str, up: Up) -> str:
    """Return how the platform itself reaches a database: through the socket, which nobody else may open."""
    return f"postgresql+psycopg://{SUPERUSER}@/{database}?host={SOCKETS}&port={up.ports['postgres']}"


def accepts_connections(up: Up) -> bool:
    """Tell whether the server is there, and not just starting or stopping."""
    from psycopg.pq import PGconn, Ping  # here, since it takes 0.1 s: without PostgreSQL, no command has to wait for it

    host, port = up.host("postgres"), up.ports["postgres"]
    address = f"host={host} port={port} dbname={SUPERUSER} connect_timeout={CONNECT_TIMEOUT}"
    return PGconn.ping(address.encode()) == Ping.OK


def make_databases(stores: Collection[str], up: Up) -> list[str]:
    """Have a role and a database for each store; return the databases that are new.

    Nobody but its role (and the superuser) may connect to a database. Raises WorkshopError when the server refuses.
    """
    import psycopg

    options = {"host": str(SOCKETS), "port": up.ports["postgres"], "user": SUPERUSER, "dbname": SUPERUSER}
    try:
        with psycopg.connect(**options, autocommit=True) as server:
            databases = _names(server, "SELECT datname FROM pg_database WHERE datallowconn")
            for store in stores:
                _make_role(server, store)
            new = [store for store in stores if store not in databases]
            for store in new:
                _execute(server, "CREATE DATABASE {} OWNER {}", store, store)
            # PUBLIC, everybody, may connect to each new database by default.
            for database in {*databases, *new}:
                _execute(server, "REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC", database)
    except psycopg.Error as error:
        raise WorkshopError(f"PostgreSQL does not make the databases: {error} (`./workshop logs postgres`).") from None
    return new


def _make_role(server, store: str) -> None:
    """Have a role for a store, with the password that its services are told."""
    from psycopg.sql import Literal

    if store not in _names(server, "SELECT rolname FROM pg_roles"):
        _execute(server, "CREATE ROLE {} LOGIN", store)
    # Encrypted here, so that the password itself cannot come to stand in the server's log.
    encrypted = server.pgconn.encrypt_password(_password(store).encode(), store.encode(), b"scram-sha-256")
    _execute(server, "ALTER ROLE {} PASSWORD {}", store, Literal(encrypted.decode()))


def _names(server, query: str) -> set[str]:
    return {name for (name,) in server.execute(query)}


def _execute(server, statement: str, *words) -> None:
    """Execute a statement with names, quoted, in the place of its braces."""
    from psycopg.sql import SQL, Identifier

    server.execute(SQL(statement).format(*[Identifier(word) if isinstance(word, str) else word for word in words]))


def _password(store: str) -> str:
    return secret(f"POSTGRES_PASSWORD_{store}")


def _make_cluster(up: Up) -> None:
    """Make the folder that PostgreSQL keeps everything in, unless there is one; never half of it."""
    if CLUSTER.exists():
        return
    half_made = CLUSTER.with_suffix(".part")
    shutil.rmtree(half_made, ignore_errors=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    driver = drivers.of(up)
    give(KEPT, driver.user)
    options = {
        "pgdata": half_made,
        "username": SUPERUSER,
        "auth": "reject",  # what we allow stands in ACCESS
        "encoding": "UTF8",
        "locale": "C.UTF-8",  # sorts by code point, as SQLite does
    }
    command = [_program("initdb"), "--data-checksums", *(f"--{key}={value}" for key, value in options.items())]
    words = driver.command(Container("initdb", _as_ordinary_user(command, driver), folders=[KEPT]))
    if failure := _failure(words, driver.environment({})):
        raise WorkshopError(f"PostgreSQL could not make its databases in {KEPT}: {failure}")
    half_made.rename(CLUSTER)


def _program(name: str) -> str:
    return str(INSTALLED / version() / "bin" / name)


def _as_ordinary_user(command: list[str], driver: Driver) -> list[str]:
    """Return the command as it runs when it is root's, whom PostgreSQL refuses: in a user namespace.

    In there our root is the user `postgres` that Debian's package has made, and its files are that user's; outside,
    nothing changes. unshare becomes the program itself: signals reach it.
    """
    return [*UNSHARE, *command] if driver.user == 0 else command


def _may_be_another_user() -> bool:
    """Tell whether root can enter such a namespace, which is refused in a chroot, and reach our folder from there."""
    command = [*UNSHARE, "test", "-w", str(next(f for f in (paths.RUN, *paths.RUN.parents) if f.exists()))]
    return _failure(command, base_environment()) is None


def _failure(command: list[str], environment: dict[str, str]) -> str | None:
    """Run a command; return what it says about its failure, None when it has succeeded."""
    options = {"env": environment, "capture_output": True, "text": True, "timeout": INIT_TIMEOUT}
    try:
        result = subprocess.run(command, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (result.stdout + result.stderr).strip().splitlines()[-LAST_LINES:]
    return ("\n".join(said) or f"exit status {result.returncode}") if result.returncode else None
