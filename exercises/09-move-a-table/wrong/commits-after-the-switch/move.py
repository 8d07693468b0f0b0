"""Notes move from one service's database to another's, while people write, edit and delete them.

    copy what there is              while its service goes on serving
    hold the writes                 at the load balancer: queued, not refused; for 2 s at most
        wait for what is under way
        lock the old database       no write can slip in, even if the hold should be over
            copy the rest, compare  when rows differ, the route stays
            move the route
    let the writes go               to the new service

move.py FROM.db TO.db               only copies and compares: between two files that nobody uses
"""

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workshop import routing
from workshop.errors import WorkshopError
from workshop.registry import Registry
from workshop.routing import Hold

LOCK_WAIT = 1.0  # seconds for a lock that the services' transactions, of about a millisecond, take as well
NAMED = 10  # rows that a message names when they differ


class Differs(WorkshopError):
    """Source and target have not the same rows."""


@dataclass(frozen=True)
class Side:
    """A service, and its database."""

    service: str
    database: Path


@contextlib.contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Connect to a database; a transaction begins and ends with `locked`."""
    connection = sqlite3.connect(database, timeout=LOCK_WAIT, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def locked(connection: sqlite3.Connection) -> Iterator[None]:
    """Give a transaction during which nobody else writes; if it raises, nothing was written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def differences(old: sqlite3.Connection, new: sqlite3.Connection) -> dict[int, str | None]:
    """Return the notes that are not the same in both, by id: as in the old database; None: only the new one has it."""
    theirs, ours = (dict(connection.execute("SELECT id, text FROM notes")) for connection in (old, new))
    return {id_: theirs.get(id_) for id_ in theirs.keys() | ours.keys() if theirs.get(id_) != ours.get(id_)}


def copy(old: sqlite3.Connection, new: sqlite3.Connection) -> int:
    """Make the notes in the new database what they are in the old one; return how many were not."""
    found = differences(old, new)
    new.executemany("DELETE FROM notes WHERE id = ?", [[id_] for id_ in found])
    rows = [[id_, text] for id_, text in found.items() if text is not None]
    new.executemany("INSERT INTO notes (id, text) VALUES (?, ?)", rows)
    return len(found)


def compare(old: sqlite3.Connection, new: sqlite3.Connection) -> int:
    """Return how many notes both have. Raises Differs, which names some, when these are not the same."""
    if found := differences(old, new):
        raise Differs(f"{len(found)} notes are different: {', '.join(map(str, sorted(found)[:NAMED]))}")
    return old.execute("SELECT count(*) FROM notes").fetchone()[0]


def move(source: Side, target: Side, prefix: str, registry: Registry) -> None:
    """Move the notes and the route of a path prefix; if it raises, nothing has moved."""
    with opened(source.database) as old, opened(target.database) as new:
        with locked(new):
            early = copy(old, new)
        with routing.held({prefix: target.service}) as hold:
            if left := routing.wait_for_requests(source.service, hold.seconds_left()):
                raise WorkshopError(f"{len(left)} requests to {source.service} do not come to an end.")
            with locked(old), locked(new):
                rest = copy(old, new)
                same = compare(old, new)
                hold.check()
                switch(source, target, prefix, registry, hold)
    print(f"{early} notes copied early, {rest} while writes were held; {target.service} has the same {same}")


def switch(source: Side, target: Side, prefix: str, registry: Registry, hold: Hold) -> None:
    """Have the target's service answer. If that comes too late, the source's goes on to; raises WorkshopError."""
    try:
        registry.set_route(prefix, target.service)
        routing.wait_until_in_force({prefix: target.service}, hold.seconds_left())
    except BaseException:  # the interrupt key too
        routing.take_back(registry, {prefix: source.service})
        raise


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    with opened(source) as old, opened(target) as new, locked(new):
        print(f"{copy(old, new)} notes copied; {target.stem} has the same {compare(old, new)}")


if __name__ == "__main__":
    main()
