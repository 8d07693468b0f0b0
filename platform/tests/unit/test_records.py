"""Copying rows between two databases, here of SQLite; with PostgreSQL, the live tests do it."""

import sqlite3
import time

import pytest

from workshop import copies, paths, records, stores
from workshop.errors import WorkshopError
from workshop.evolution import Rows, Share
from workshop.state import Up

UP = Up("test", "process", "sqlite", {}, {}, {}, {})
ROWS = Rows("old", "new", ["messages", "keys"], work={"messages": "expand_after"})
SCHEMA = """
CREATE TABLE messages (id INTEGER PRIMARY KEY, source TEXT NOT NULL, expand_after INTEGER);
CREATE TABLE keys (id INTEGER PRIMARY KEY, key TEXT UNIQUE, message_id INTEGER REFERENCES messages (id));
CREATE TABLE revocations (id INTEGER PRIMARY KEY, jti TEXT, user_id INTEGER, expires_at INTEGER);
"""


@pytest.fixture(autouse=True)
def databases(tmp_path, monkeypatch):
    """Two databases with the same tables, by name."""
    monkeypatch.setattr(paths, "DATA", tmp_path)
    made = {name: sqlite3.connect(stores.sqlite_file(name), isolation_level=None) for name in ("old", "new")}
    for connection in made.values():
        connection.executescript(SCHEMA)
    yield made
    for connection in made.values():
        connection.close()


@pytest.fixture
def engines():
    with records.open_stores(UP, "old", "new") as opened:
        yield opened


def copy_rest(engines, rows=ROWS) -> int:
    source, target = engines
    with records.locked(source, rows.tables) as old, records.locked(target, rows.tables) as new:
        return records.copy_rest(old, new, rows)


def compare(engines) -> dict[str, str]:
    with engines[0].connect() as old, engines[1].connect() as new:
        return records.compare(old, new, ROWS)


def test_what_differs_is_copied_and_what_does_not_is_left_alone(databases, engines):
    databases["old"].execute("INSERT INTO messages VALUES (1, 'same', NULL), (2, 'edited', NULL), (3, 'new', NULL)")
    databases["new"].execute("INSERT INTO messages VALUES (1, 'same', NULL), (2, 'before', NULL), (9, 'gone', NULL)")
    databases["old"].execute("INSERT INTO keys VALUES (1, 'a', 2)")

    assert copy_rest(engines) == 4  # rows 2, 3 and 9, and the key
    assert databases["new"].execute("SELECT source FROM messages ORDER BY id").fetchall() == [
        ("same",), ("edited",), ("new",)
    ]  # fmt: skip
    assert compare(engines)["keys"].startswith("1 rows, ")
    assert copy_rest(engines) == 0


def test_many_rows_are_copied_while_both_are_in_use(databases, engines):
    databases["old"].executemany("INSERT INTO messages VALUES (?, 'm', NULL)", [(n,) for n in range(1, 1201)])

    assert records.copy_early(*engines, ROWS) == 1200
    assert records.copy_early(*engines, ROWS) == 0
    assert compare(engines)["messages"].startswith("1200 rows, ")


def test_a_row_that_means_work_is_copied_with_the_rest(databases, engines):
    databases["old"].execute("INSERT INTO messages VALUES (1, 'a link', 1700000000), (2, 'no link', NULL)")

    assert records.copy_early(*engines, ROWS) == 1
    assert databases["new"].execute("SELECT id FROM messages").fetchall() == [(2,)]
    assert copy_rest(engines) == 1
    assert databases["new"].execute("SELECT expand_after FROM messages WHERE id = 1").fetchall() == [(1700000000,)]


def test_values_that_have_to_be_unique_may_have_changed_places(databases, engines):
    databases["old"].execute("INSERT INTO keys VALUES (1, 'a', NULL), (2, 'b', NULL)")
    databases["new"].execute("INSERT INTO keys VALUES (1, 'b', NULL), (2, 'a', NULL)")

    assert copy_rest(engines) == 2
    assert databases["new"].execute("SELECT id, key FROM keys ORDER BY id").fetchall() == [(1, "a"), (2, "b")]


def test_rows_that_differ_are_named(databases, engines):
    databases["old"].execute("INSERT INTO messages VALUES (1, 'one', NULL), (2, 'two', NULL)")
    databases["new"].execute("INSERT INTO messages VALUES (1, 'one', NULL), (2, 'TWO', NULL), (3, 'three', NULL)")

    with pytest.raises(records.Differs) as refused:
        compare(engines)
    assert refused.value.message.startswith("messages: 2 rows, ")
    assert refused.value.message.endswith("different: 2, 3")


def test_an_empty_table_equals_an_empty_one(engines):
    assert set(compare(engines)) == {"messages", "keys"}


def test_nobody_else_writes_while_tables_are_locked(databases, engines):
    databases["old"].execute("PRAGMA busy_timeout = 0")
    with records.locked(engines[0], ["messages"]), pytest.raises(sqlite3.OperationalError, match="locked"):
        databases["old"].execute("INSERT INTO messages VALUES (1, 'slipped in', NULL)")
    databases["old"].execute("INSERT INTO messages VALUES (1, 'in order', NULL)")


def test_a_failure_takes_back_what_was_copied(databases, engines):
    databases["old"].execute("INSERT INTO messages VALUES (1, 'one', NULL)")
    with pytest.raises(ZeroDivisionError), records.locked(engines[1], ROWS.tables) as new:
        with engines[0].connect() as old:
            records.copy_rest(old, new, ROWS)
        1 / 0  # noqa: B018
    assert databases["new"].execute("SELECT * FROM messages").fetchall() == []


def test_a_store_that_was_left_has_no_work_any_more(databases, engines):
    databases["old"].execute("INSERT INTO messages VALUES (1, 'a link', 1700000000), (2, 'no link', NULL)")
    with records.locked(engines[0], ["messages"]) as left:
        records.leave_no_work(left, ROWS)

    assert databases["old"].execute("SELECT count(*) FROM messages WHERE expand_after IS NOT NULL").fetchone() == (0,)


def test_rows_are_copied_over_copies_and_over_no_others(databases, engines):
    databases["new"].execute("INSERT INTO messages VALUES (1, 'somebody wrote it here', NULL)")
    with pytest.raises(WorkshopError, match="new has messages of its own, which would be lost"):
        records.refuse_to_overwrite(engines[1], ROWS, UP)

    copies.mark(UP, "old", "new", ROWS.tables)
    records.refuse_to_overwrite(engines[1], ROWS, UP)
    copies.mark(UP, "new", "old", ROWS.tables)
    assert copies.known(UP) == {"old": ["keys", "messages"], "new": []}
    with pytest.raises(WorkshopError, match="which would be lost"):
        records.refuse_to_overwrite(engines[1], ROWS, UP)

    copies.mark(UP, "old", "new", ROWS.tables)
    copies.unmark(UP, ["new"])  # a stage has been brought up that uses it
    with pytest.raises(WorkshopError, match="which would be lost"):
        records.refuse_to_overwrite(engines[1], ROWS, UP)


def test_copying_and_comparing_end_when_there_is_no_time_left(databases, engines):
    databases["old"].executemany("INSERT INTO messages VALUES (?, 'm', NULL)", [(n,) for n in range(1, 101)])
    left = iter(range(50))

    def check():
        if next(left, None) is None:
            raise WorkshopError("too late")

    too_late = pytest.raises(WorkshopError, match="too late")
    with too_late, records.locked(engines[0], ROWS.tables) as old, records.locked(engines[1], ROWS.tables) as new:
        records.copy_rest(old, new, ROWS, check)
    assert databases["new"].execute("SELECT count(*) FROM messages").fetchone() == (0,)


def test_both_get_the_rows_that_only_the_other_has(databases, engines):
    soon = int(time.time()) + 60
    insert = "INSERT INTO revocations VALUES (?, ?, ?, ?)"
    databases["old"].executemany(insert, [(1, "a", None, soon), (2, None, 7, soon)])
    databases["new"].executemany(insert, [(1, "b", None, soon), (5, None, 7, soon), (6, "expired", None, 1700000000)])
    shared = Share("revocations", ["old", "new"], "expires_at")

    assert records.share(*engines, shared) == 2
    for database in databases.values():
        found = database.execute("SELECT jti, user_id FROM revocations WHERE expires_at > 1700000000").fetchall()
        assert sorted(found, key=str) == [("a", None), ("b", None), (None, 7)]
    assert databases["old"].execute("SELECT count(*) FROM revocations WHERE jti = 'expired'").fetchone() == (0,)
    assert records.share(*engines, shared) == 0


def test_a_database_that_cannot_be_used_is_one_sentence(databases):
    stores.sqlite_file("old").write_text("no database at all, but long enough to look like one" * 20)
    refused = pytest.raises(WorkshopError, match="The rows of old and new cannot be copied")
    with refused, records.open_stores(UP, "old", "new") as engines:
        records.copy_early(*engines, ROWS)


def test_an_error_names_no_value_of_a_row_since_it_may_be_the_hash_of_a_password(databases):
    databases["old"].execute("INSERT INTO messages VALUES (1, 'the hash', NULL)")
    databases["new"].executescript("CREATE UNIQUE INDEX one ON messages (expand_after IS NULL)")
    databases["new"].execute("INSERT INTO messages VALUES (2, '', NULL)")
    databases["old"].execute("INSERT INTO messages VALUES (2, '', NULL)")
    with (
        pytest.raises(WorkshopError, match="cannot be copied") as raised,
        records.open_stores(UP, "old", "new") as opened,
    ):
        copy_rest(opened)
    assert "the hash" not in str(raised.value)
