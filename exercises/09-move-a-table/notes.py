"""A small service with a database of its own. The check runs two: `board` has the notes, `notes` is to have them.

    notes.py serve PORT DATABASE      GET, POST, PUT and DELETE /api/notes/ID
    notes.py make DATABASE ROWS       a database with so many notes
    notes.py diff DATABASE DATABASE   the notes that are not the same in both

It thinks before it writes, as a service does that has real work to do: some writes are always under way.
"""

import json
import os
import signal
import sqlite3
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

THINK = 0.5  # seconds
LOCK_WAIT = 4  # seconds for the write lock, as in Parley


def connect(database: Path) -> sqlite3.Connection:
    """Open a database; what is written is committed at once, unless somebody begins a transaction."""
    return sqlite3.connect(database, timeout=LOCK_WAIT, isolation_level=None)


def make(database: Path, rows: int) -> None:
    """Make a database anew. Some notes have been deleted from it: their ids are free."""
    for file in (database, Path(f"{database}-wal"), Path(f"{database}-shm")):
        file.unlink(missing_ok=True)
    connection = connect(database)
    connection.execute("PRAGMA journal_mode=WAL")  # who reads does not wait for who writes
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO notes (text) VALUES (?)", [[f"note {id_}"] for id_ in range(1, rows + 1)])
    connection.execute("DELETE FROM notes WHERE id % 10 = 0")
    connection.execute("COMMIT")
    connection.close()


def read(database: Path) -> dict[int, str]:
    """Return all notes, by id."""
    connection = connect(database)
    found = dict(connection.execute("SELECT id, text FROM notes ORDER BY id"))
    connection.close()
    return found


class Handler(BaseHTTPRequestHandler):
    database: Path

    def do_GET(self):
        if self.path == "/healthz":
            self.answer(200, {"status": "ok"})
        elif found := self.execute("SELECT id, text FROM notes WHERE id = ?", self.id()).fetchone():
            self.answer(200, {"id": found[0], "text": found[1]})
        else:
            self.answer(404, {"error": "There is no such note."})

    def do_POST(self):
        text = self.text()
        time.sleep(THINK)
        self.answer(201, {"id": self.execute("INSERT INTO notes (text) VALUES (?)", text).lastrowid, "text": text})

    def do_PUT(self):
        text = self.text()
        time.sleep(THINK)
        changed = self.execute("UPDATE notes SET text = ? WHERE id = ?", text, self.id()).rowcount
        self.answer(200 if changed else 404, {"changed": changed})

    def do_DELETE(self):
        time.sleep(THINK)
        changed = self.execute("DELETE FROM notes WHERE id = ?", self.id()).rowcount
        self.answer(200 if changed else 404, {"changed": changed})

    def id(self) -> str:
        return self.path.rpartition("/")[2]

    def text(self) -> str:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]

    def execute(self, statement: str, *values: str) -> sqlite3.Cursor:
        return connect(self.database).execute(statement, values)

    def answer(self, status: int, body: dict) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Say nothing."""


def serve(port: int, database: Path) -> None:
    Handler.database = database
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def diff(first: Path, second: Path) -> None:
    ours, theirs = read(first), read(second)
    different = [id_ for id_ in sorted(ours.keys() | theirs.keys()) if ours.get(id_) != theirs.get(id_)]
    for id_ in different:
        print(f"{id_}: {ours.get(id_)!r} in {first.stem}, {theirs.get(id_)!r} in {second.stem}")
    print(f"{len(ours)} notes in {first.stem}, {len(theirs)} in {second.stem}; {len(different)} are different")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port, database]:
            serve(int(port), Path(database))
        case ["make", database, rows]:
            make(Path(database), int(rows))
        case ["diff", first, second]:
            diff(Path(first), Path(second))
        case _:
            sys.exit(__doc__)
