"""Which tables are copies that nobody uses: rows may be copied over these, and into empty ones, but over no others.

When rows have moved, the table that was left becomes the copy: the way back starts from it.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from workshop import stores
from workshop.files import write_atomically
from workshop.state import Up

FILE = "copies.json"  # beside the databases


def known(up: Up) -> dict[str, list[str]]:
    """Return the tables that are copies, by store."""
    file = _file(up)
    return json.loads(file.read_text()) if file.exists() else {}


def mark(up: Up, source: str, target: str, tables: Iterable[str]) -> None:
    """Enter that these tables are used in one store, and copies in the other."""
    marked = {store: set(names) for store, names in known(up).items()}
    marked[source] = marked.get(source, set()) - set(tables)
    marked[target] = marked.get(target, set()) | set(tables)
    _save(up, marked)


def unmark(up: Up, names: Iterable[str]) -> None:
    """Enter that nothing in these stores is a copy: a stage is brought up that uses them."""
    if marked := known(up):
        _save(up, {store: set(tables) for store, tables in marked.items() if store not in set(names)})


def _save(up: Up, marked: dict[str, set[str]]) -> None:
    write_atomically(_file(up), json.dumps({store: sorted(tables) for store, tables in marked.items()}))


def _file(up: Up) -> Path:
    return stores.data_folder(up.db) / FILE
