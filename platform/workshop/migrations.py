"""Migrations, read before they are run: what each operation means to a version that still runs on the schema.

While an upgrade rolls, and after a rollback, an older version runs on a newer schema. So a schema is only extended;
what an older version needs is taken away by a later build, when nobody runs that version any more (expand, migrate,
contract). Alembic's revisions are Python: to know what one does, its `upgrade()` is called with operations that are
noted down instead of carried out.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import sqlalchemy
from alembic.operations import BatchOperations, Operations, ops
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from workshop import builds, stores
from workshop.errors import WorkshopError
from workshop.stage import Service, Stage
from workshop.state import Up

FOLDER = "migrations"  # in a build; without it there is nothing to migrate
# One statement that changes rows, and no schema.
DATA_STATEMENT = re.compile(r"\s*(insert|update|delete)\b[^;]*;?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Step:
    """One operation of a migration."""

    revision: str
    what: str
    problem: str | None = None  # why a version that knows only the schema before does not survive it


@dataclass(frozen=True)
class Plan:
    """What lies between the schema that a database has and the one that a build is made for."""

    pending: list[Step] = field(default_factory=list)  # the build's migrations that the database lacks
    ahead: list[Step] = field(default_factory=list)  # the database's that the build does not know

    def refuse_breaking(self) -> None:
        """Raise WorkshopError when a pending operation would break the version that runs meanwhile."""
        if breaking := [step for step in self.pending if step.problem]:
            raise WorkshopError(
                f"The version that runs would not survive this migration:\n{_listed(breaking)}\n"
                "Let a build add what is new, and a later one remove what is old; or accept failures until all "
                "instances are of the new version, with `upgrade --allow-breaking`."
            )

    def refuse_left_behind(self, name: str, version: str) -> None:
        """Raise WorkshopError when the build cannot run on the database's schema; nothing downgrades a schema."""
        if breaking := [step for step in self.ahead if step.problem]:
            raise WorkshopError(
                f"{name} {version} cannot run any more: the schema has left it behind.\n{_listed(breaking)}\n"
                "Correct the newest version instead, and `upgrade` to that."
            )


def _listed(steps: list[Step]) -> str:
    return "\n".join(f"    {step.revision}: {step.what}: {step.problem}" for step in steps)


def plan(stage: Stage, service: Service, up: Up, folder: Path) -> Plan:
    """Compare a service's database with the code in `folder`, a build's or that being edited; change nothing."""
    address = database(stage, service, up)
    if address is None or not (folder / FOLDER).exists():
        return Plan()
    dialect = sqlalchemy.make_url(address).get_backend_name()
    current, script = revision(address), _load(folder)
    head = script.get_current_head()
    if current is None or _knows(script, current):
        return Plan(pending=_steps(script, head, current, dialect))
    for version in reversed(builds.versions(service.name)):
        newer = builds.folder(service.name, version)
        if (newer / FOLDER).exists() and _knows(script := _load(newer), current):
            return Plan(ahead=_steps(script, current, head, dialect))
    raise WorkshopError(
        f"The database of {service.name} is at revision {current}, which no build knows: "
        f"put that migration back into {folder / FOLDER}."
    )


def database(stage: Stage, service: Service, up: Up) -> str | None:
    """Return the address of the service's database; None when it has none."""
    addresses = stores.environment(stage, service, up)
    return next((addresses[key] for key, name in service.stores.items() if stage.stores[name].kind == "sql"), None)


def revision(address: str) -> str | None:
    """Return the revision of a database's schema; None when nothing has been migrated yet."""
    url = sqlalchemy.make_url(address)
    if url.get_backend_name() == "sqlite" and not Path(url.database).exists():
        return None  # to look would make it, as ours: it is to be whose service it is
    engine = sqlalchemy.create_engine(address)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        raise WorkshopError(f"The schema's revision cannot be read from the database: {error}") from None
    finally:
        engine.dispose()


def _load(folder: Path) -> ScriptDirectory:
    """Read a folder of migrations, each of them a Python file that is imported."""
    script = ScriptDirectory(folder / FOLDER)
    try:
        script.get_current_head()
    except Exception as error:  # it is anybody's code; or there are two newest ones
        raise WorkshopError(
            f"The migrations in {folder / FOLDER} cannot be read: {error}. They need one newest revision, "
            "and to import nothing of the service: what that means today it need not mean tomorrow."
        ) from None
    return script


def _knows(script: ScriptDirectory, name: str) -> bool:
    try:
        return script.get_revision(name) is not None
    except CommandError:
        return False


def _steps(script: ScriptDirectory, upper: str | None, lower: str | None, dialect: str) -> list[Step]:
    """Return the operations of the revisions after `lower`, up to `upper`, oldest first."""
    try:
        # implicit_base: where two branches meet, also the one that `lower` is not on.
        revisions = list(script.iterate_revisions(upper, lower or "base", implicit_base=True))
    except CommandError as error:
        raise WorkshopError(f"The migrations in {script.dir} do not lead from {lower} to {upper}: {error}") from None
    new_tables: set[str] = set()  # no version that runs knows these: it survives whatever is done to them
    empty_columns: set[tuple[str, str]] = set()  # no version that runs writes anything but NULL into these
    steps = []
    for found in reversed(revisions):
        try:
            operations = recorded(found, dialect)
        except Exception as error:  # it is anybody's code, and may do what only works with a database
            what = f"upgrade() does not tell what it does without a database ({type(error).__name__}: {error})"
            steps.append(Step(found.revision, what, "it cannot be judged"))
            continue
        for operation in operations:
            if isinstance(operation, ops.CreateTableOp):
                new_tables.add(operation.table_name)
            if isinstance(operation, ops.AddColumnOp) and operation.column.server_default is None:
                empty_columns.add((operation.table_name, operation.column.name))
            is_harmless = _table(operation) in new_tables or _is_unique_index_on(operation, empty_columns)
            problem = None if is_harmless else judge(operation)
            steps.append(Step(found.revision, describe(operation), problem))
    return steps


def recorded(script: Script, dialect: str) -> list[ops.MigrateOperation]:
    """Call a revision's `upgrade()`; return its operations, none of which is carried out. Raises what it raises."""
    past_us = io.StringIO()  # as_sql: there is no connection, what would be sent to one is written here
    context = MigrationContext.configure(dialect_name=dialect, opts={"as_sql": True, "output_buffer": past_us})
    found: list[ops.MigrateOperation] = []

    @contextlib.contextmanager
    def batch_alter_table(table_name: str, schema: str | None = None, **options) -> Iterator[BatchOperations]:
        batch = BatchOperations(context, impl=SimpleNamespace(table_name=table_name, schema=schema))
        batch.invoke = found.append
        yield batch

    operations = Operations(context)
    operations.invoke = found.append
    operations.batch_alter_table = batch_alter_table
    operations._install_proxy()  # what Operations.context() does: `alembic.op` is then this object
    try:
        script.module.upgrade()
    finally:
        operations._remove_proxy()
    if past_us.getvalue():
        raise ValueError("it uses the connection itself")
    return found


def judge(operation: ops.MigrateOperation) -> str | None:
    """Say why a version that knows only the schema before does not survive an operation; None when it does."""
    match operation:
        case ops.CreateTableOp() | ops.DropIndexOp() | ops.DropConstraintOp() | ops.BulkInsertOp():
            return None
        case ops.CreateTableCommentOp() | ops.DropTableCommentOp():
            return None
        case ops.CreateIndexOp():
            return "older versions may write what it forbids" if operation.unique else None
        case ops.AddConstraintOp():
            return "older versions may write what it forbids"
        case ops.AddColumnOp(column=column):
            is_optional = column.nullable or column.server_default is not None
            return None if is_optional else "older versions give it no value, and it has no server default"
        case ops.AlterColumnOp():
            return _judge_alteration(operation)
        case ops.DropTableOp() | ops.DropColumnOp() | ops.RenameTableOp():
            return "older versions still use it"
        case ops.ExecuteSQLOp():
            return None if _changes_only_data(operation.sqltext) else "it cannot be judged"
        case _:
            return "it cannot be judged"


def _judge_alteration(operation: ops.AlterColumnOp) -> str | None:
    if operation.modify_name:
        return "older versions still use the old name"
    if operation.modify_type is not None:
        return "older versions expect the type that it had"
    if operation.modify_nullable is False:
        return "older versions may give it no value"
    if operation.modify_server_default is None:  # False: it stays as it is
        return "older versions may rely on the server's default"
    return None


def _changes_only_data(statement: sqlalchemy.Executable | str) -> bool:
    if isinstance(statement, sqlalchemy.Insert | sqlalchemy.Update | sqlalchemy.Delete):
        return True
    return bool(DATA_STATEMENT.fullmatch(str(statement)))


def _is_unique_index_on(operation: ops.MigrateOperation, columns: set[tuple[str, str]]) -> bool:
    """Return whether it is a unique index with one of these columns: it forbids no row that has NULL there."""
    return isinstance(operation, ops.CreateIndexOp) and any(
        (operation.table_name, str(name)) in columns for name in operation.columns
    )


def describe(operation: ops.MigrateOperation) -> str:
    """Say in a few words what an operation does."""
    match operation:
        case ops.AddColumnOp(column=column):
            kind = "may be NULL" if column.nullable else "NOT NULL"
            default = ", with a server default" if column.server_default is not None else ""
            return f"add column {operation.table_name}.{column.name} ({column.type}, {kind}{default})"
        case ops.DropColumnOp():
            return f"drop column {operation.table_name}.{operation.column_name}"
        case ops.AlterColumnOp():
            return f"alter column {operation.table_name}.{operation.column_name}{_alteration(operation)}"
        case ops.RenameTableOp():
            return f"rename table {operation.table_name} to {operation.new_table_name}"
        case ops.CreateIndexOp():
            columns = ", ".join(map(str, operation.columns))
            return f"create {'unique ' * bool(operation.unique)}index on {operation.table_name} ({columns})"
        case ops.ExecuteSQLOp():
            return f"execute {' '.join(str(operation.sqltext).split())}"
        case _:
            words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(operation).__name__.removesuffix("Op")).lower()
            return f"{words} {_table(operation) or ''}".strip()


def _table(operation: ops.MigrateOperation) -> str | None:
    """Return the table that an operation changes; None when it does not say."""
    return getattr(operation, "table_name", None) or getattr(operation, "source_table", None)


def _alteration(operation: ops.AlterColumnOp) -> str:
    changes = []
    if operation.modify_name:
        changes.append(f"name {operation.modify_name}")
    if operation.modify_type is not None:
        changes.append(f"type {operation.modify_type}")
    if operation.modify_nullable is not None:
        changes.append("may be NULL" if operation.modify_nullable else "NOT NULL")
    if operation.modify_server_default is not False:
        changes.append("server default" if operation.modify_server_default is not None else "no server default")
    return f" ({', '.join(changes)})" if changes else ""
