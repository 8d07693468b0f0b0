import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from parley.database import db, write_transaction
from parley.models.message import Message
from parley.models.user import User


@pytest.fixture
def context(app):
    with app.app_context():
        yield


@pytest.fixture
def other(tmp_path):
    """A connection of another process."""
    connection = sqlite3.connect(tmp_path / "parley.db", isolation_level=None, timeout=0, check_same_thread=False)
    yield connection
    connection.close()


def test_the_migrations_make_what_the_models_say(environ):
    command = [sys.executable, "-m", "flask", "--app", "parley", "db", "check"]
    subprocess.run(command, cwd=Path(__file__).parent.parent, env=environ, check=True, timeout=30, capture_output=True)


ANEW = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "9999", "{newest}"


def upgrade():
    with op.batch_alter_table("users") as batch:
        batch.alter_column("nickname", type_=sa.String(length=64))
"""


def test_a_migration_waits_for_those_who_write_and_can_make_a_table_anew(environ, other, tmp_path, context, ann):
    with write_transaction() as session:
        session.add(Message(created_at=1, updated_at=1, source="hi", html="hi", user_id=ann))
    stage = Path(__file__).parent.parent
    shutil.copytree(stage / "migrations", tmp_path / "migrations")
    versions = tmp_path / "migrations" / "versions"
    newest = max(file.name[:4] for file in versions.glob("0*.py"))
    (versions / "9999.py").write_text(ANEW.format(newest=newest))

    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(3, other.rollback)  # longer than SQLite itself would wait, and than `flask` takes to start
    timer.start()
    command = [sys.executable, "-m", "flask", "--app", "parley", "db", "upgrade", "-d", tmp_path / "migrations"]
    subprocess.run(command, cwd=stage, env=environ, check=True, timeout=30, capture_output=True)
    timer.join()

    assert other.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
    assert other.execute("SELECT user_id FROM messages").fetchone() == (ann,)


def test_reading_takes_no_write_lock(context, other):
    db.session.get(User, 1)
    other.execute("BEGIN IMMEDIATE")


def test_writing_takes_the_write_lock_at_once(context, other):
    with write_transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")


def test_a_writer_waits_for_its_turn(context, other):
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.1, other.rollback)
    timer.start()
    with write_transaction():
        pass
    timer.join()


def test_of_several_writers_only_one_asks_for_the_lock(app, context, other):
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


def test_a_writer_gives_up_in_time_and_readers_go_on(context, other):
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(OperationalError), write_transaction(lock_wait=0.1):
        pass
    assert time.monotonic() - started < 1
    assert db.session.get(User, 1) is None


def test_a_failed_transaction_leaves_nothing(context, auth, ann):
    with pytest.raises(ZeroDivisionError), write_transaction() as session:
        session.get(User, ann).nickname = "bob"
        session.flush()
        raise ZeroDivisionError
    assert db.session.get(User, ann).nickname == "ann"


def test_an_answer_is_given_although_the_database_goes_away_after_it_was_read(app, client, ann, monkeypatch):
    def fail(_connection):
        raise sqlite3.OperationalError("gone")

    with app.app_context():
        monkeypatch.setattr(db.engine.dialect, "do_rollback", fail)
    assert client.get(f"/api/users/{ann}").json["nickname"] == "ann"
    monkeypatch.undo()
    assert client.get(f"/api/users/{ann}").json["nickname"] == "ann"
