import sqlite3
import threading
import time

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from common.database import db, write_transaction
from common.tests.tiny_service import Thing


@pytest.fixture(autouse=True)
def tables(cup):
    """The tables are there."""


@pytest.fixture
def other(tmp_path):
    """A connection of another process."""
    connection = sqlite3.connect(tmp_path / "parley.db", isolation_level=None, timeout=0, check_same_thread=False)
    yield connection
    connection.close()


def test_reading_takes_no_write_lock(cup, other):
    db.session.get(Thing, cup)
    other.execute("BEGIN IMMEDIATE")


def test_writing_takes_the_write_lock_at_once(other):
    with write_transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")


def test_a_writer_waits_for_its_turn(other):
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.1, other.rollback)
    timer.start()
    with write_transaction():
        pass
    timer.join()


def test_of_several_writers_only_one_asks_for_the_lock(app, other):
    asked = []

    @event.listens_for(db.engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, *_):
        if statement == "BEGIN IMMEDIATE":
            asked.append(threading.current_thread())

    def write():
        with app.app_context(), write_transaction():
            pass

    other.execute("BEGIN IMMEDIATE")
    writers = [threading.Thread(target=write) for _ in range(5)]
    for writer in writers:
        writer.start()
    deadline = time.monotonic() + 3  # less than LOCK_WAIT
    while len(asked) < 50 and time.monotonic() < deadline:
        time.sleep(0.01)
    asked_meanwhile = set(asked)
    other.rollback()
    for writer in writers:
        writer.join()
    assert len(asked_meanwhile) == 1
    assert set(asked) == set(writers)


def test_a_writer_gives_up_in_time_and_readers_go_on(cup, other):
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(OperationalError), write_transaction(lock_wait=0.1):
        pass
    assert time.monotonic() - started < 1
    assert db.session.get(Thing, cup).name == "cup"


def test_a_failed_transaction_leaves_nothing(cup):
    with pytest.raises(ZeroDivisionError), write_transaction() as session:
        session.get(Thing, cup).name = "spoon"
        session.flush()
        raise ZeroDivisionError
    assert db.session.get(Thing, cup).name == "cup"
