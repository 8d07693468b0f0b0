"""An SQLite file that is half written, or was damaged: what was acknowledged is kept, and damage is never hidden."""

import contextlib
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
import requests
from tests.load import in_rotation
from tests.workshops import make_workshop, until

from workshop import lifecycle, paths, stores
from workshop import stage as stage_file
from workshop.errors import WorkshopError
from workshop.probe import Probe

PAGE = 4096  # bytes, of SQLite


def database(workshop) -> Path:
    return workshop.run_folder / "data" / "parley.db"


def write_log_into(file: Path) -> None:
    """Have SQLite bring everything from the -wal file into the database itself."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_all_instances_killed_in_the_middle_of_writing_lose_nothing_acknowledged(stage, print_figure):
    with Probe(stage.url) as probe:
        until(lambda: len(probe.ledger.acknowledged) > 10, 20, "messages are being written")
        for instance in stage.instances():
            os.killpg(instance["pid"], signal.SIGKILL)
        until(lambda: probe.ledger.failed("POST"), 5, "nobody answers")
        until(lambda: len(in_rotation(stage)) == 3, 20, "all of them are back")
        before = len(probe.ledger.acknowledged)
        until(lambda: len(probe.ledger.acknowledged) > before + 10, 20, "messages are being written again")
    ledger = probe.ledger

    print_figure(f"kill -9 of all instances: {len(ledger.acknowledged)} messages acknowledged, {len(ledger.lost)} lost")
    assert ledger.is_counted
    assert (ledger.lost, ledger.doubled) == ([], [])
    assert stores.damage(database(stage)) is None


@pytest.fixture(scope="module")
def with_data():
    """A workshop in which a stage was up that has stored something, until the machine crashed."""
    made = make_workshop()
    made.up()
    with Probe(made.url) as probe:
        probe.run_for(1)
    until(lambda: not made.kill_all(), 10, "all processes ended")
    write_log_into(database(made))
    yield made
    made.destroy()


@pytest.fixture
def file(with_data, tmp_path):
    """Its database, which is whole again after each test."""
    whole = shutil.copy(database(with_data), tmp_path)
    yield database(with_data)
    shutil.copy(whole, database(with_data))


DAMAGES = {
    "empty": lambda content: b"",
    "half of it": lambda content: content[: len(content) // 2 // PAGE * PAGE],
    "without its last page": lambda content: content[:-PAGE],
    "something else in the middle": lambda content: content[: 3 * PAGE] + b"?" * PAGE + content[4 * PAGE :],
    "something else altogether": lambda content: b"This is not what you are looking for.\n" * 1000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_up_names_a_damaged_database_and_leaves_it_as_it_is(with_data, file, damage):
    damaged = DAMAGES[damage](file.read_bytes())
    file.write_bytes(damaged)

    message = with_data.run("up", "stage0", "--db", "sqlite", expect=1).stderr
    assert message.startswith(f"Error: {file} is damaged: ")
    assert "put a good copy in its place" in message
    assert with_data.processes() == []
    assert file.read_bytes() == damaged
    assert f"{file} is damaged: " in with_data.run("doctor", expect=1).stdout


def test_a_first_migration_that_was_interrupted_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    (tmp_path / "parley.db").touch()  # as SQLite leaves it, before it has written the first page

    lifecycle.refuse_damaged(stage_file.load("stage0"))
    (tmp_path / "monolith.migrated").touch()
    with pytest.raises(WorkshopError, match=r"parley\.db is damaged: it is empty: put a good copy"):
        lifecycle.refuse_damaged(stage_file.load("stage0"))


def test_a_database_that_has_just_been_removed_is_not_damaged(tmp_path):
    assert stores.damage(tmp_path / "parley.db", is_migrated=True) is None


def test_damage_that_can_not_even_be_read_is_damage(tmp_path):
    file = tmp_path / "parley.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE messages (x)")
        connection.execute("INSERT INTO messages VALUES (NULL)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = CAST(? AS TEXT)", [b"CREATE TABLE messages (\xff NOT NULL)"])
        connection.commit()

    assert "is damaged: Could not decode to UTF-8" in stores.damage(file)


def test_a_database_whose_tables_were_in_a_lost_log_is_damaged(tmp_path):
    file = tmp_path / "parley.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY)")
        connection.commit()
        lost = shutil.copy(file, tmp_path / "without-wal.db")

    assert stores.damage(file, is_migrated=True) is None
    assert stores.damage(lost, is_migrated=True) == f"{lost} is damaged: it has no tables any more"
    assert stores.damage(lost) is None  # a migration that was interrupted leaves such a file, too


def test_a_database_that_is_damaged_while_it_is_used_is_reported_and_kills_nobody(workshop):
    url = workshop.up()["url"].rstrip("/")
    file, before = database(workshop), workshop.instances()
    write_log_into(file)
    with open(file, "r+b") as opened:  # not replaced: the instances have it open
        opened.seek(PAGE)
        opened.write(b"?" * (file.stat().st_size - PAGE))
    with requests.Session() as http:
        http.trust_env = False
        user = {"nickname": "ann", "password": "a long password"}
        answers = [http.post(f"{url}/api/users", json=user, timeout=10), http.get(f"{url}/api/messages", timeout=10)]

    for answer in answers:
        assert (answer.status_code, answer.json()["error"]) == (503, "The database is damaged. It has to be restored.")
    assert workshop.instances() == before
    assert {store["name"]: store["state"] for store in workshop.status()["stores"]}["parley"] == "DOWN"
    assert f"{file} is damaged: " in workshop.run("doctor", expect=1).stdout
