"""PostgreSQL: who may open which database, and what is kept when the server dies."""

import itertools
import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import requests
from tests.load import pid_of, still_running, stopped, summary
from tests.workshops import NOT_COPIED, REPOSITORY, make_workshop

from workshop import lifecycle, paths, postgres, stores, supervisor
from workshop import stage as stage_file
from workshop.errors import WorkshopError
from workshop.haproxy import Runtime
from workshop.probe import Probe

KEPT = {"nickname": "keeper", "password": "a long password"}


@pytest.fixture(scope="module")
def on_postgres():
    """A stage that is up with PostgreSQL, and that has a second database, of which nobody makes use."""
    folder = Path(tempfile.mkdtemp(prefix="copy-"))
    shutil.copytree(REPOSITORY, folder / "repository", ignore=NOT_COPIED)
    for shared in (".venv", "node_modules"):
        (folder / "repository" / shared).symlink_to(REPOSITORY / shared)
    file = folder / "repository" / "stage0-monolith" / "stage.toml"
    file.write_text(file.read_text().replace("[stores]", '[stores]\nother-one.kind = "sql"'))
    made = make_workshop(folder / "repository")
    made.db = "postgres"
    made.up()
    yield made
    made.destroy()
    shutil.rmtree(folder)


def port(workshop) -> int:
    return json.loads((workshop.run_folder / "stage.json").read_text())["ports"]["postgres"]


def host(workshop) -> str:
    return urlsplit(workshop.environment("monolith")["DATABASE_URL"]).hostname


def connect(workshop, role: str, database: str, **options) -> psycopg.Connection:
    """Connect as a service does that may use the store called `role`."""
    password = json.loads((workshop.run_folder / "secrets.json").read_text()).get(f"POSTGRES_PASSWORD_{role}")
    options = {"host": host(workshop), "port": port(workshop), "password": password, "autocommit": True} | options
    return psycopg.connect(user=role, dbname=database, connect_timeout=5, **options)


def refusal(*arguments, **options) -> str:
    with pytest.raises(psycopg.OperationalError) as refused:
        connect(*arguments, **options)
    return str(refused.value)


def server(workshop) -> psutil.Process:
    return psutil.Process(pid_of(workshop, "postgres"))


def test_a_role_opens_its_own_database_and_no_other(on_postgres):
    names = stores.databases(stage_file.read("stage0", on_postgres.repository / "stage0-monolith"))
    assert len(names) == 2
    for role in names:
        with connect(on_postgres, role, role) as connection:
            connection.execute("CREATE TEMPORARY TABLE mine (id integer)")
    for role, database in [*itertools.permutations(names, 2), *itertools.product(names, ("postgres", "template1"))]:
        assert f'permission denied for database "{database}"' in refusal(on_postgres, role, database)


def test_a_role_has_no_rights_over_others(on_postgres):
    with connect(on_postgres, "parley", "parley") as connection:
        for statement in (
            "CREATE ROLE another",
            "CREATE DATABASE another",
            "ALTER ROLE \"other-one\" PASSWORD 'known'",
            'SET ROLE "other-one"',
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT pg_read_file('PG_VERSION')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_it_listens_on_loopback_only_and_nobody_gets_in_without_the_right_password(on_postgres):
    if on_postgres.driver == "process":  # a container has a network of its own
        pid = server(on_postgres).pid
        listening = [c.laddr for c in psutil.net_connections("tcp") if c.pid == pid and c.status == psutil.CONN_LISTEN]
        assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", port(on_postgres))]

    assert "password authentication failed" in refusal(on_postgres, "parley", "parley", password="wrong")  # noqa: S106
    assert "no password supplied" in refusal(on_postgres, "parley", "parley", password=None)
    assert "pg_hba.conf rejects" in refusal(on_postgres, "postgres", "postgres")
    # The socket is the platform's own: its folder lets nobody else in, and the services' roles come through TCP.
    sockets = str(on_postgres.run_folder / "stores" / "postgres")
    assert "no pg_hba.conf entry" in refusal(on_postgres, "parley", "parley", host=sockets)
    with connect(on_postgres, "postgres", "postgres", host=sockets) as connection:
        (stored,) = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'parley'").fetchone()
    assert stored.startswith("SCRAM-SHA-256$")


def test_no_password_is_in_a_log_or_in_what_status_shows(on_postgres):
    secrets = json.loads((on_postgres.run_folder / "secrets.json").read_text())
    shown = [on_postgres.run("status").stdout, json.dumps(on_postgres.status())]
    shown += [log.read_text() for log in (on_postgres.run_folder / "logs").glob("*.log")]
    for name in ("POSTGRES_PASSWORD_parley", "POSTGRES_PASSWORD_other-one"):
        assert not [text for text in shown if secrets[name] in text]


def test_status_shows_the_databases_and_whether_they_can_be_reached(on_postgres, until):
    def states() -> dict[str, str]:
        return {store["name"]: store["state"] for store in on_postgres.status()["stores"]}

    assert on_postgres.status()["db"] == "postgres"
    assert states() == {"registry": "UP", "queue": "UP", "parley": "UP", "other-one": "UP"}
    with stopped(on_postgres, "postgres"):
        assert states() == {"registry": "UP", "queue": "UP", "parley": "DOWN", "other-one": "DOWN"}
        answer = requests.get(f"{on_postgres.url}/api/messages", timeout=5)
        assert (answer.status_code, answer.json()["error"][:31]) == (503, "The database is busy or away. P")
    until(lambda: set(states().values()) == {"UP"}, 5, "all is back")


def test_the_server_killed_loses_nothing_acknowledged_and_answers_come_back(on_postgres, print_figure, until):
    with Probe(on_postgres.url) as probe:
        until(lambda: len(probe.ledger.acknowledged) > 10, 20, "messages are being written")
        killed = time.monotonic() - probe.started
        before = server(on_postgres)
        before.kill()
        until(lambda: pid_of(on_postgres, "postgres") not in (0, before.pid), 5, "another server has been started")
        probe.run_for(5)
    ledger = probe.ledger

    # The load comes three times a second, all at once: a server that is back within 0.3 s may be missed by none.
    back = max((answer.at + answer.took - killed for answer in ledger.failed()), default=0)
    print_figure(f"kill -9 of PostgreSQL → errors for {back:.1f} s: {summary(ledger)}")
    assert {answer.failure[:3] for answer in ledger.failed()} <= {"503"}
    assert back < 5
    assert (ledger.is_counted, ledger.lost, ledger.doubled) == (True, [], [])


def test_another_database_is_refused_while_the_stage_is_up(on_postgres):
    before = on_postgres.status()
    here = ["--port", before["url"].split(":")[2].strip("/")]
    message = on_postgres.run("up", "stage0", "--db", "sqlite", *here, expect=1).stderr
    assert "stage0 is up already, with postgres: `./workshop down` comes first" in message
    assert "is up already" in on_postgres.run("up", "stage0", *here).stdout
    assert on_postgres.status() == before


def test_a_crash_is_cleaned_up_after_by_down_and_what_was_acknowledged_is_kept(on_postgres, print_figure):
    assert requests.post(f"{on_postgres.url}/api/users", json=KEPT, timeout=5).status_code == 201
    (supervisord,) = [p for p in map(psutil.Process, on_postgres.processes()) if p.name() == "supervisord"]
    crashed, children = server(on_postgres), server(on_postgres).children(recursive=True)
    supervisord.kill()
    crashed.kill()
    on_postgres.run("down")
    assert (on_postgres.processes(), still_running([crashed, *children])) == ([], [])

    # As after a crash of the machine: the id of the server's process is another one's by now.
    pid_file = on_postgres.run_folder / "data" / "postgres" / "cluster" / "postmaster.pid"
    pid_file.write_text(re.sub(r"\A[0-9]+", str(os.getpid()), pid_file.read_text()))
    started = time.monotonic()
    on_postgres.run("up", "stage0", "--db", "postgres")
    print_figure(f"`up --db postgres` after a crash: {time.monotonic() - started:.1f} s")
    assert requests.post(f"{on_postgres.url}/api/users", json=KEPT, timeout=5).status_code == 409


def test_down_leaves_no_process_and_a_database_that_was_removed_is_made_again(on_postgres):
    sockets = str(on_postgres.run_folder / "stores" / "postgres")
    with connect(on_postgres, "postgres", "postgres", host=sockets) as connection:
        connection.execute("DROP DATABASE parley WITH (FORCE)")
    family = [server(on_postgres), *server(on_postgres).children(recursive=True)]
    on_postgres.run("down")
    assert (on_postgres.processes(), still_running(family)) == ([], [])
    assert not (on_postgres.run_folder / "data" / "postgres" / "cluster" / "postmaster.pid").exists()  # in good order

    on_postgres.up()
    assert requests.post(f"{on_postgres.url}/api/users", json=KEPT, timeout=5).status_code == 201


def test_each_kind_of_database_has_a_mark_of_its_own_that_it_is_migrated():
    service = next(iter(stage_file.load("stage0").services.values()))
    assert lifecycle.migrated(service, "sqlite") != lifecycle.migrated(service, "postgres")


def test_databases_of_a_version_that_is_not_installed_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(postgres, "CLUSTER", tmp_path)
    (tmp_path / "PG_VERSION").write_text("9\n")
    assert "was made by PostgreSQL 9, which is not installed: install postgresql-9" in postgres.problem()


def test_no_socket_has_a_longer_path_than_linux_allows():
    haproxy = f"{Runtime(paths.HAPROXY).socket}.4194303.tmp"  # so it is called until HAProxy listens
    for path in (str(postgres.SOCKETS / ".s.PGSQL.31999"), haproxy):
        assert supervisor.LONGEST_SOCKET + len(path) - len(str(supervisor.SOCKET)) <= 107


def test_a_missing_postgresql_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(postgres, "INSTALLED", tmp_path)
    assert postgres.problem().startswith("PostgreSQL is missing: run `./workshop setup`")


@pytest.mark.parametrize("name", ["postgres", "template1", "public"])
def test_a_store_cannot_be_called_what_postgresql_calls_its_own(tmp_path, name):
    (tmp_path / "stage.toml").write_text(f'title = "x"\n[stores]\n{name}.kind = "sql"\n')
    with pytest.raises(WorkshopError, match="the platform uses this name itself"):
        stage_file.read("test", tmp_path)
