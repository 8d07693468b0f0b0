"""What a migration means to a version that still runs on the schema before."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from workshop import builds, migrations, paths
from workshop.errors import WorkshopError
from workshop.stage import Service, Stage, Store
from workshop.state import Up

REVISION = """\
import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = {before!r}


def upgrade():
{body}
"""
COMPATIBLE = [
    'op.add_column("users", sa.Column("bio", sa.Text()))',
    'op.add_column("users", sa.Column("age", sa.Integer(), nullable=False, server_default="0"))',
    'op.create_table("rooms", sa.Column("id", sa.Integer(), primary_key=True))',
    'op.create_index("ix", "users", ["bio"])',
    'op.drop_index("ix", "users")',
    'op.drop_constraint("uq", "users", type_="unique")',
    'op.alter_column("users", "bio", nullable=True)',
    'op.alter_column("users", "bio", server_default="")',
    """op.execute("UPDATE users SET bio = ''")""",
    'op.execute(sa.delete(sa.table("users")))',
    'op.bulk_insert(sa.table("users", sa.column("id")), [{"id": 1}])',
]
BREAKING = [
    ('op.drop_table("users")', "drop table users", "older versions still use it"),
    ('op.drop_column("users", "bio")', "drop column users.bio", "older versions still use it"),
    ('op.rename_table("users", "people")', "rename table users to people", "older versions still use it"),
    ('op.alter_column("users", "bio", new_column_name="text")', "(name text)", "still use the old name"),
    ('op.alter_column("users", "bio", type_=sa.Integer())', "(type INTEGER)", "expect the type that it had"),
    ('op.alter_column("users", "bio", nullable=False)', "(NOT NULL)", "may give it no value"),
    ('op.alter_column("users", "bio", server_default=None)', "(no server default)", "rely on the server's default"),
    ('op.add_column("users", sa.Column("a", sa.Integer(), nullable=False))', "(INTEGER, NOT NULL)", "give it no value"),
    ('op.create_index("ix", "users", ["bio"], unique=True)', "create unique index on users (bio)", "it forbids"),
    ('op.create_unique_constraint("uq", "users", ["bio"])', "create unique constraint users", "it forbids"),
    ('op.execute("DROP TABLE users")', "execute DROP TABLE users", "cannot be judged"),
    ('op.execute("DELETE FROM users; DROP TABLE users")', "execute", "cannot be judged"),
    ('op.get_bind().execute(sa.text("DROP TABLE users"))', "it uses the connection itself", "cannot be judged"),
    ('raise ZeroDivisionError("oh")', "ZeroDivisionError: oh", "cannot be judged"),
]


class Tiny:
    """A service with a database, which is at revision 1."""

    def __init__(self, folder: Path):
        self.service = Service("tiny", folder / "code", ["run"], ["/"], stores={"DATABASE_URL": "tiny"})
        self.stage = Stage("test", "A test", {"tiny": Store("sql")}, {"tiny": self.service}, {})
        self.up = Up("test", "process", "sqlite", {}, {"tiny": "v1"}, {"tiny": 1}, {})
        self.migration("1", None, 'op.create_table("users", sa.Column("id", sa.Integer(), primary_key=True))')
        self.set_revision("1")

    def migration(self, name: str, before: str | None, *operations: str) -> None:
        file = self.service.folder / "migrations" / "versions" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        body = "\n".join(f"    {operation}" for operation in operations)
        file.write_text(REVISION.format(name=name, before=before, body=body))

    def set_revision(self, name: str) -> None:
        paths.DATA.mkdir(exist_ok=True)
        with contextlib.closing(sqlite3.connect(paths.DATA / "tiny.db")) as database:
            database.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num)")
            database.execute("DELETE FROM alembic_version")
            database.execute("INSERT INTO alembic_version VALUES (?)", [name])
            database.commit()

    def plan(self, folder: Path | None = None) -> migrations.Plan:
        return migrations.plan(self.stage, self.service, self.up, folder or self.service.folder)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILDS", tmp_path / "builds")
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    return Tiny(tmp_path)


@pytest.mark.parametrize("operation", COMPATIBLE)
def test_what_an_older_version_survives(tiny, operation):
    tiny.migration("2", "1", operation)
    (step,) = tiny.plan().pending

    assert (step.revision, step.problem) == ("2", None)
    tiny.plan().refuse_breaking()


@pytest.mark.parametrize(("operation", "what", "problem"), BREAKING)
def test_what_an_older_version_does_not_survive_is_refused_with_its_reason(tiny, operation, what, problem):
    tiny.migration("2", "1", operation)
    (step,) = tiny.plan().pending

    assert what in step.what
    assert problem in step.problem
    with pytest.raises(WorkshopError, match="would not survive this migration:\n    2: "):
        tiny.plan().refuse_breaking()


def test_operations_in_batch_mode_are_judged_as_well(tiny):
    batch = 'with op.batch_alter_table("users") as batch:\n        '
    tiny.migration("2", "1", batch + 'batch.drop_column("bio")\n        batch.add_column(sa.Column("x", sa.Text()))')

    assert [(s.what, bool(s.problem)) for s in tiny.plan().pending] == [
        ("drop column users.bio", True),
        ("add column users.x (TEXT, may be NULL)", False),
    ]


def test_what_is_done_to_a_table_that_is_new_itself_breaks_nobody(tiny):
    tiny.migration("2", "1", 'op.create_table("rooms", sa.Column("id", sa.Integer(), primary_key=True))')
    tiny.migration("3", "2", 'op.create_index("ix", "rooms", ["id"], unique=True)', 'op.drop_table("rooms")')

    assert [step.problem for step in tiny.plan().pending] == [None] * 3


NEW_COLUMN = 'op.add_column("users", sa.Column("key", sa.Text(){}))'


def test_a_unique_index_with_a_new_column_that_older_versions_leave_null_breaks_nobody(tiny):
    tiny.migration("2", "1", NEW_COLUMN.format(""), 'op.create_index("ix", "users", ["key", "bio"], unique=True)')
    assert [step.problem for step in tiny.plan().pending] == [None] * 2

    with_default = NEW_COLUMN.format(', server_default=""')
    tiny.migration("2", "1", with_default, 'op.create_index("ix", "users", ["key"], unique=True)')
    assert [bool(step.problem) for step in tiny.plan().pending] == [False, True]


def test_where_two_branches_meet_the_one_that_the_database_has_not_seen_is_judged_as_well(tiny):
    tiny.migration("2", "1", 'op.drop_table("users")')
    tiny.migration("3", "1", NEW_COLUMN.format(""))
    tiny.migration("4", ("2", "3"), "pass")
    for revision, pending in (("1", {"2", "3"}), ("2", {"3"}), ("3", {"2"}), ("4", set())):
        tiny.set_revision(revision)
        assert {step.revision for step in tiny.plan().pending} == pending


def test_a_plan_changes_nothing_and_ends_at_the_databases_revision(tiny):
    tiny.migration("2", "1", 'op.drop_table("users")')
    before = (paths.DATA / "tiny.db").read_bytes()
    assert len(tiny.plan().pending) == 1
    assert (paths.DATA / "tiny.db").read_bytes() == before

    tiny.set_revision("2")
    assert tiny.plan() == migrations.Plan()


@pytest.mark.parametrize("operation", [COMPATIBLE[0], BREAKING[0][0]])
def test_an_older_build_is_refused_only_when_the_schema_has_left_it_behind(tiny, operation):
    old = builds.folder("tiny", builds.build(tiny.service))
    tiny.migration("2", "1", operation)
    builds.build(tiny.service)
    tiny.set_revision("2")
    plan = tiny.plan(old)

    assert plan.pending == []
    assert [step.revision for step in plan.ahead] == ["2"]
    if operation == COMPATIBLE[0]:
        plan.refuse_left_behind("tiny", "v1")
    else:
        with pytest.raises(WorkshopError, match="the schema has left it behind"):
            plan.refuse_left_behind("tiny", "v1")


def test_a_revision_that_no_build_knows_is_named(tiny):
    tiny.set_revision("9")
    with pytest.raises(WorkshopError, match="at revision 9, which no build knows"):
        tiny.plan()


def test_migrations_that_cannot_be_read_are_named(tiny):
    tiny.migration("2", "1", "pass")
    tiny.migration("3", "1", "pass")  # two newest ones
    with pytest.raises(WorkshopError, match="cannot be read"):
        tiny.plan()


def test_a_service_without_migrations_or_without_a_database_has_nothing_to_migrate(tiny, tmp_path):
    assert tiny.plan(tmp_path) == migrations.Plan()
    service = Service("tiny", tiny.service.folder, ["run"], ["/"])
    assert migrations.plan(tiny.stage, service, tiny.up, service.folder) == migrations.Plan()
