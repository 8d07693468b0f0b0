"""Rows that move from one database to another while both are in use.

Copying means: what is different in the target is deleted there, and inserted as it is in the source. So it can be
repeated, and interrupted, as often as one likes. And so it is done only where nothing can be lost: into tables that are
empty, or of which we know that they are a copy.
"""

import contextlib
import hashlib
import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    Row,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from workshop import copies, postgres, stores
from workshop.errors import WorkshopError
from workshop.evolution import Rows, Share
from workshop.state import Up

LOCK_WAIT = 1.0  # seconds for a lock that the application's transactions, of about a millisecond, take as well
CHUNK = 500  # rows that are written in one transaction: the application may have to wait for it
NAMED = 10  # rows that a message names when they differ

Check = Callable[[], None]  # raises WorkshopError when there is no time left


class Differs(WorkshopError):
    """Source and target have not the same rows."""


@dataclass(frozen=True)
class Difference:
    """A row that is not the same in both."""

    id: int
    row: Row | None  # as it is in the source; None: it is in the target only


@contextlib.contextmanager
def open_stores(up: Up, *names: str) -> Iterator[list[Engine]]:
    """Connect to stores, in the role of each, but hindered by no foreign key. Raises WorkshopError when that fails."""
    # An error is shown, and the rows of users have the hashes of their passwords.
    options = {"isolation_level": "AUTOCOMMIT", "hide_parameters": True}
    engines = [create_engine(_address(name, up), **options) for name in names]
    for engine in engines:
        if engine.dialect.name == "postgresql":
            event.listen(engine, "connect", _take_role)
    try:
        yield engines
    except SQLAlchemyError as error:
        shown = str(error).partition("\nDETAIL:")[0]  # PostgreSQL's detail may quote a whole row
        raise WorkshopError(f"The rows of {' and '.join(names)} cannot be copied: {shown}") from None
    finally:
        for engine in engines:
            engine.dispose()


def _take_role(connection, _record) -> None:
    """Be no superuser any more, but the owner of the database, whose triggers and foreign keys are not looked at."""
    connection.execute("SET session_replication_role = replica")
    connection.execute("SELECT set_config('role', current_database(), false)")
    connection.commit()


def _address(name: str, up: Up) -> str:
    if up.db == "postgres":
        return postgres.superuser_url(name, up)
    return f"sqlite:///{stores.sqlite_file(name)}?timeout={LOCK_WAIT}"


@contextlib.contextmanager
def locked(engine: Engine, tables: Iterable[str]) -> Iterator[Connection]:
    """Give a transaction during which nobody else writes to these tables. (SQLite: to any.)"""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(1000 * LOCK_WAIT)}")  # milliseconds
            quoted = ", ".join(engine.dialect.identifier_preparer.quote(table) for table in tables)
            connection.exec_driver_sql(f"LOCK TABLE {quoted} IN SHARE ROW EXCLUSIVE MODE")
        try:
            yield connection
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise


def copy_early(source: Engine, target: Engine, rows: Rows) -> int:
    """Copy what is different, except what means work to its owner, while both are in use; return how many rows."""
    copied = 0
    for name in rows.tables:
        table = _table(source, name)
        with source.connect() as old, target.connect() as new:
            found = list(differences(old, new, table))
        work = rows.work.get(name)
        wanted = iter(d for d in found if not (work and d.row is not None and d.row._mapping[work]))
        while chunk := list(islice(wanted, CHUNK)):
            with locked(target, [name]) as new:
                _replace(new, table, chunk)
            copied += len(chunk)
    return copied


def copy_rest(old: Connection, new: Connection, rows: Rows, check: Check = lambda: None) -> int:
    """Copy all that is different, within transactions in which nothing changes; return how many rows that were."""
    tables = [_table(old, name) for name in rows.tables]
    found = {table: list(differences(old, new, table, check)) for table in tables}
    for table in reversed(tables):  # first those rows that refer to others
        _delete(new, table, found[table])
    for table in tables:
        _insert(new, table, found[table])
        _go_on_counting(old, new, table)
    return sum(len(rows) for rows in found.values())


def compare(old: Connection, new: Connection, rows: Rows, check: Check = lambda: None) -> dict[str, str]:
    """Return what both have, by table: how many rows, and their checksum. Raises Differs, which names rows."""
    same = {}
    for name in rows.tables:
        table = _table(old, name)
        ours, theirs = _summary(old, table, check), _summary(new, table, check)
        if ours != theirs:
            ids = [str(difference.id) for difference in islice(differences(old, new, table), NAMED)]
            raise Differs(f"{name}: {ours} in {rows.source}, {theirs} in {rows.target}; different: {', '.join(ids)}")
        same[name] = ours
    return same


def leave_no_work(left: Connection, rows: Rows) -> None:
    """Take the work out of the tables that were left: whoever still looks there finds nothing to do."""
    for name, column in rows.work.items():
        table = _table(left, name)
        nothing = None if table.c[column].nullable else False
        left.execute(update(table).where(table.c[column].is_not(nothing)).values({column: nothing}))


def refuse_to_overwrite(target: Engine, rows: Rows, up: Up) -> None:
    """Raise WorkshopError when there are rows in the target that nobody has copied there."""
    with target.connect() as connection:
        for name in set(rows.tables) - set(copies.known(up).get(rows.target, [])):
            if connection.execute(select(_table(connection, name)).limit(1)).first():
                raise WorkshopError(
                    f"{rows.target} has {name} of its own, which would be lost: they were never copied from "
                    f"{rows.source}. Go on with the stage that they belong to, or begin anew: `./workshop down --wipe`."
                )


def share(first: Engine, second: Engine, shared: Share) -> int:
    """Give each of two stores the rows that only the other has, under ids of its own; return how many."""
    copied = 0
    for source, target in ((first, second), (second, first)):
        table = _table(source, shared.table)
        columns = [column for column in table.columns if not column.primary_key]
        with source.connect() as old:
            theirs = {tuple(row) for row in old.execute(select(*columns).where(table.c[shared.expires] >= time.time()))}
        with locked(target, [shared.table]) as new:
            missing = theirs - {tuple(row) for row in new.execute(select(*columns))}
            if missing:
                names = [column.name for column in columns]
                new.execute(insert(table), [dict(zip(names, row, strict=True)) for row in missing])
        copied += len(missing)
    return copied


def differences(old: Connection, new: Connection, table: Table, check: Check = lambda: None) -> Iterator[Difference]:
    """Yield the rows that are not the same in both, by id. Both tables are read once, side by side."""
    key = next(iter(table.primary_key))
    query = select(table).order_by(key)
    both = heapq.merge(
        ((row._mapping[key], 0, row) for row in old.execute(query)),
        ((row._mapping[key], 1, row) for row in new.execute(query)),
        key=lambda found: found[:2],
    )
    for id_, group in groupby(both, key=lambda found: found[0]):
        check()
        found = {side: row for _, side, row in group}
        if found.get(0) != found.get(1):
            yield Difference(id_, found.get(0))


def _table(bind: Engine | Connection, name: str) -> Table:
    return Table(name, MetaData(), autoload_with=bind, resolve_fks=False)


def _summary(connection: Connection, table: Table, check: Check) -> str:
    """Return how many rows there are, and the checksum of all that stands in them."""
    checksum, count = hashlib.sha256(), 0
    for count, row in enumerate(connection.execute(select(table).order_by(*table.primary_key)), 1):  # noqa: B007
        check()
        checksum.update(repr(tuple(row)).encode())
    return f"{count} rows, {checksum.hexdigest()[:12]}"


def _replace(connection: Connection, table: Table, found: list[Difference]) -> None:
    _delete(connection, table, found)
    _insert(connection, table, found)


def _delete(connection: Connection, table: Table, found: list[Difference]) -> None:
    key = next(iter(table.primary_key))
    for number in range(0, len(found), CHUNK):
        ids = [difference.id for difference in found[number : number + CHUNK]]
        connection.execute(delete(table).where(key.in_(ids)))


def _insert(connection: Connection, table: Table, found: list[Difference]) -> None:
    if rows := [dict(difference.row._mapping) for difference in found if difference.row is not None]:
        connection.execute(insert(table), rows)


def _go_on_counting(old: Connection, new: Connection, table: Table) -> None:
    """Have new rows get the ids after those that the source has given. (SQLite goes on after the largest there is.)"""
    if old.dialect.name == "sqlite":
        return
    column = next(iter(table.primary_key)).name
    ours, theirs = (
        connection.execute(select(func.pg_get_serial_sequence(table.name, column))).scalar_one()
        for connection in (old, new)
    )
    used = [c.exec_driver_sql(f"SELECT last_value FROM {s}").scalar_one() for c, s in ((old, ours), (new, theirs))]  # noqa: S608 (PostgreSQL has quoted the names)
    new.execute(select(func.setval(theirs, max(used))))
