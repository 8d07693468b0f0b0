"""The database, and how to write to it: in short transactions that take the write lock first, where there is one."""

import logging
import os
import sqlite3
import threading
import time
from contextlib import contextmanager

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData, event, func, select
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase

log = logging.getLogger(__name__)

# How long a writer waits for its turn. Less than the load balancer's patience of 5 s, so the user is told why.
LOCK_WAIT = 4
LOCK_POLL = 0.002  # a transaction takes about a millisecond
# Whose turn it is, in this process, to ask for SQLite's write lock. If all who wait asked, they would take the time
# that the one who has it needs, and luck would say who is next.
turn = threading.Lock()
BUSY = "The database is busy or away. Please try again in a moment."
FULL = "The disk of the database is full. Nothing can be stored until there is room again."
DAMAGED = "The database is damaged. It has to be restored."
# What trying again would not change, by the error codes of SQLite and PostgreSQL.
SENTENCES = {
    sqlite3.SQLITE_FULL: FULL,
    "53100": FULL,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}
ENGINE_OPTIONS = {
    # After a restart of the server, a connection from before is noticed before it is used: this costs a round trip
    # each time (SQLite: nothing to speak of), and without it each pooled connection would fail one request.
    "pool_pre_ping": True,
    "pool_timeout": LOCK_WAIT,  # for a connection, when more ask at once than the pool has
    "hide_parameters": True,  # an error's message goes to the log, and a parameter may be the hash of a password
}


class Base(DeclarativeBase):
    """Names every constraint, so that a later migration can refer to it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


# Objects keep their values after a commit: they are pushed and answered then, without being read again.
db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False}, engine_options=ENGINE_OPTIONS)


def init_app(app):
    """Connect the application to its database."""
    db.init_app(app)
    app.teardown_appcontext(end_reading)  # before Flask-SQLAlchemy's own, which would raise
    if "FLASK_RUN_FROM_CLI" in os.environ:
        # Only `flask db …` needs it; the instances start 0.1 s faster without.
        from flask_migrate import Migrate

        Migrate(app, db)
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            event.listen(db.engine, "connect", set_pragmas)
            event.listen(db.engine, "begin", begin_sqlite)
        else:
            event.listen(db.engine, "begin", begin_postgresql)
            event.listen(db.engine, "handle_error", hide_detail)


def end_reading(_error):
    """End the transaction of what was only read: if the server dies just then, the answer is as good as before."""
    try:
        db.session.rollback()
    except OperationalError as error:
        log.warning("The database went away after it was read: %s", error)


@contextmanager
def write_transaction(lock_wait=LOCK_WAIT):
    """Yield the session for a few writes and commit them.

    Nothing slow belongs inside, and nothing that waits for the network: under gevent another request of this
    process would go on meanwhile, and might want the same lock. Hash, render and push before or after.
    Raises OperationalError when a lock, SQLite's only one or that of a row in PostgreSQL, is not free within lock_wait
    seconds.
    """
    db.session.rollback()  # what was read before may be outdated once we have the lock
    db.session.connection(execution_options={"lock_wait": lock_wait})
    try:
        yield db.session
        db.session.commit()
    finally:
        db.session.rollback()  # does nothing after the commit


def time_of_change(session, model):
    """Return the time for updated_at: now, or that of the newest change if the clock was set back since.

    Clients ask for what changed since the newest change they know: nothing may be filed before it.
    """
    return max(int(time.time()), session.scalar(select(func.max(model.updated_at))) or 0)


def explain(error):
    """Return the sentence for an error of the database, or None for any other error."""
    # A damaged SQLite file raises the general DatabaseError; its other subclasses are our own mistakes.
    if not isinstance(error, OperationalError | PoolTimeout) and type(error) is not DatabaseError:
        return None
    return SENTENCES.get(error_code(error), BUSY)


def error_code(error):
    """Return the error code of SQLite or PostgreSQL; None when the database was not even asked."""
    original = getattr(error, "orig", None)
    if hasattr(original, "sqlite_errorcode"):
        return original.sqlite_errorcode & 0xFF  # the rest of an extended code tells details
    return getattr(original, "sqlstate", None)


def hide_detail(context):
    """Take the detail out of PostgreSQL's message: it may quote the whole row, with the hash of a password."""
    diagnosis = getattr(context.original_exception, "diag", None)  # only psycopg's errors have one
    if diagnosis and diagnosis.message_detail:
        for error in (context.original_exception, context.sqlalchemy_exception):
            error.args = (error.args[0].replace(diagnosis.message_detail, "(hidden)"), *error.args[1:])


def set_pragmas(connection, _record):
    """Prepare a new SQLite connection."""
    connection.isolation_level = None  # sqlite3 shall not begin transactions, begin_sqlite does
    connection.execute("PRAGMA journal_mode=WAL")  # readers and a writer don't wait for each other
    connection.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing; a power cut could
    connection.execute("PRAGMA busy_timeout=1000")
    connection.execute("PRAGMA foreign_keys=ON")


def begin_sqlite(connection):
    """Begin a transaction: a reader takes no lock, a writer takes the write lock at once."""
    lock_wait = connection.get_execution_options().get("lock_wait")
    if lock_wait is None:
        connection.exec_driver_sql("BEGIN")
    else:
        begin_immediate(connection, time.monotonic() + lock_wait)


def begin_immediate(connection, deadline):
    """Take the write lock, waiting in Python: SQLite's own wait would stop every other request of this process."""
    connection.exec_driver_sql("PRAGMA busy_timeout=0")
    is_ours = turn.acquire(timeout=max(0, deadline - time.monotonic()))
    try:
        while True:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return
            except OperationalError as error:
                if error.orig.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(LOCK_POLL)
    finally:
        if is_ours:
            turn.release()
        connection.exec_driver_sql("PRAGMA busy_timeout=1000")


def begin_postgresql(connection):
    """Begin a transaction: a writer waits for others only where both change the same row, and no longer than lock_wait.

    So changes may be committed in another order than that of their times, up to lock_wait later. Clients that catch up
    ask with an overlap of 5 s.
    """
    lock_wait = connection.get_execution_options().get("lock_wait")
    if lock_wait is not None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(1000 * lock_wait)}")  # milliseconds
