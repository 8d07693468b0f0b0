"""The check: notes move between two small services, while people write, edit and delete them through the balancer."""

import contextlib
import itertools
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import notes
import pytest
import requests

from workshop import paths, routing
from workshop.errors import WorkshopError
from workshop.probe import session
from workshop.registry import Registry
from workshop.verdict import Hop, Wrong, expect
from workshop.waiting import wait_until

FOLDER = paths.RUN / "exercise-09"  # stays after the check: one can look into it
BOARD, NOTES = FOLDER / "board.db", FOLDER / "notes.db"
PREFIX = "/api/notes"
ROWS = 3000
POSTERS = 3
ANSWER_TIMEOUT = 10  # seconds: longer than the system lets any request take
WRITES_TIMEOUT = 15  # seconds until everybody must have written once more: an answer, and a new request
HERE = Path(__file__).parent
DIFF = f".venv/bin/python exercises/09-move-a-table/notes.py diff {BOARD} {NOTES}".replace(f"{paths.REPOSITORY}/", "")
LOG = f"./workshop logs haproxy | grep {PREFIX}"
SHOW = "grep -n -A22 'def move' work/09-move-a-table/move.py"
WRITER_LOCK = 1  # second
HELD = routing.held
CUT = "CREATE TRIGGER on_{0} AFTER {0} ON notes BEGIN UPDATE notes SET text = substr(text, 1, 4) WHERE id = NEW.id; END"


def test_what_is_different_is_copied_under_its_id(learner):
    module = learner.load("move.py")
    make(rows=30)
    run(module.differences)  # the first thing to do
    run(module.copy)
    theirs, ours = notes.read(BOARD), notes.read(NOTES)
    wrong = {"hop": Hop.CODE, "show": DIFF}
    expect(
        ours.keys() == theirs.keys() or sorted(ours.values()) != sorted(theirs.values()),
        "`copy` gives the notes new ids: all links to them, and what other services have stored, would lead elsewhere.",
        seen=f"ids {_first(ours)}",
        expected=f"ids {_first(theirs)}: those that they have",
        **wrong,
    )
    expect(
        ours == theirs,
        "After `copy` into an empty table, not all notes are there.",
        seen=f"{len(ours)} notes, {len(theirs.items() - ours.items())} of {len(theirs)} missing or different",
        expected=f"the same {len(theirs)} as in the old one",
        **wrong,
    )
    execute(BOARD, "UPDATE notes SET text = 'edited' WHERE id = 3")
    execute(BOARD, "DELETE FROM notes WHERE id = 4")
    execute(BOARD, "INSERT INTO notes (text) VALUES ('new')")
    run(module.copy)
    theirs, ours = notes.read(BOARD), notes.read(NOTES)
    expect(
        ours.get(3) == "edited",
        "A note that was edited after the first `copy` stays as it was in the second: what is there need not be right.",
        seen=f"note 3 is {ours.get(3)!r}",
        expected="'edited'",
        **wrong,
    )
    expect(
        4 not in ours,
        "A note that was deleted after the first `copy` is still there after the second: everybody would see it again.",
        seen=f"note 4 is {ours.get(4)!r}",
        expected="no note 4",
        **wrong,
    )
    expect(
        ours == theirs,
        "A note that was written after the first `copy` is missing after the second.",
        seen=f"{len(ours)} notes",
        expected=f"the same {len(theirs)} as in the old one",
        **wrong,
    )
    written = run(module.copy)
    expect(
        not written,
        "`copy` writes notes that are the same already: in the hold, that would take as long as copying all of them.",
        seen=f"{written} rows written, and none was different",
        expected="0",
        **wrong,
    )


def test_notes_that_differ_are_found(learner):
    module = learner.load("move.py")
    make_the_same(rows=30)
    expect(
        not differs(module),
        "`compare` raises Differs, and both databases have the same notes.",
        hop=Hop.CODE,
        seen="Differs",
        expected="the number of notes",
        show=DIFF,
    )
    for what, statement in (
        ("has another text", "UPDATE notes SET text = 'note' WHERE id = 7"),
        ("is missing", "DELETE FROM notes WHERE id = 7"),
        ("is there only in the new database", "INSERT INTO notes VALUES (100, 'note 100')"),
    ):
        make_the_same(rows=30)
        execute(NOTES, statement)
        expect(
            differs(module),
            f"`compare` does not notice that a note {what}: afterwards people would.",
            hop=Hop.CODE,
            seen="no Differs",
            expected="Differs",
            show=DIFF,
        )


@pytest.mark.timeout(45)
def test_notes_move_while_people_write(learner, pair, monkeypatch):
    move(learner, pair, monkeypatch, "board", "notes")


@pytest.mark.timeout(45)
def test_and_back(learner, pair, monkeypatch):
    """Now the target has most of the rows already, and some old ones."""
    move(learner, pair, monkeypatch, "notes", "board")


@pytest.mark.timeout(45)
def test_when_notes_differ_nothing_has_moved(learner, pair, monkeypatch):
    for event in ("INSERT", "UPDATE"):  # a store that does not keep what it is given, however it is copied
        execute(NOTES, CUT.format(event))
    writers, _, failure = try_to_move(learner, pair, monkeypatch, "board", "notes")
    expect(
        failure,
        "The new database has other texts than the old one, and `move` has moved the route: now people see those.",
        hop=Hop.DATABASE,
        seen=f"{len(notes.read(BOARD).items() - notes.read(NOTES).items())} notes are cut off after 4 characters",
        expected="`move` raises Differs, and the route stays",
        show=DIFF,
    )
    must_answer("board", writers, pair, "`move` has raised Differs, and the route does not lead where it led.")
    lost = writers.lost(notes.read(BOARD))
    expect(
        not lost,
        "`move` has raised Differs, and the old database has lost something meanwhile.",
        hop=Hop.DATABASE,
        seen="\n".join(lost[:3]),
        expected="all that was acknowledged",
        show=DIFF,
    )


@pytest.mark.timeout(45)
def test_when_requests_do_not_end_nothing_has_moved(learner, pair, monkeypatch):
    """Have a request to the source that is not answered in time: `move` is told so."""
    for event in ("INSERT", "UPDATE"):
        execute(NOTES, f"DROP TRIGGER on_{event}")
    monkeypatch.setattr(routing, "wait_for_requests", lambda *_arguments: ["a request that is still under way"])
    try:
        try_to_move(learner, pair, monkeypatch, "board", "notes")
    except WorkshopError:
        return
    raise Wrong(
        "A request to board was still under way, and `move` has moved the route: what that request writes is lost.",
        hop=Hop.BALANCER,
        seen="routing.wait_for_requests has returned a request, and `move` has gone on",
        expected="`move` raises WorkshopError, and the route stays",
        show=SHOW,
    )


@pytest.fixture(scope="module")
def pair(stage):
    """Both services beside the stage: `board` has the notes, and answers."""
    make(ROWS)
    command = ["python", "notes.py", "serve", "$PORT"]
    with (
        stage.joined("board", [*command, str(BOARD)], HERE, [PREFIX]),
        stage.joined("notes", [*command, str(NOTES)], HERE, ["/internal/notes"]),
    ):
        routing.settle(print)  # a worker from before they came knows neither them nor a hold
        try:
            yield stage
        finally:
            stage.etcd.remove_route(PREFIX)


def move(learner, stage, monkeypatch, source: str, target: str) -> None:
    """Have everybody write while the learner's `move` moves the notes; nobody may notice."""
    writers, watched, failure = try_to_move(learner, stage, monkeypatch, source, target)
    expect(
        not failure,
        "`move` finds that the notes differ: somebody still wrote while it copied and compared.",
        hop=Hop.DATABASE,
        seen=f"Differs: {failure}",
        expected="that nothing is written meanwhile",
        show=DIFF,
    )
    expect(
        not writers.failed,
        f"{len(writers.failed)} requests failed while the notes moved: a write may wait, but is not refused.",
        hop=Hop.SERVICE,
        seen="\n".join(writers.failed[:3]),
        expected="201 or 200",
        show=LOG,
        log=stage.log("haproxy"),
    )
    must_answer(target, writers, stage, f"`move` has come to its end, and {PREFIX} is not answered by {target}.")
    lost = writers.lost(notes.read(_database(target)))
    if watched.left is None:
        why = f"nobody held them at the load balancer while the last notes were copied and the route moved to {target}."
    elif not watched.moved_in_hold:
        why = f"the hold ended before the route had moved, so what had waited went on to {source}."
    else:
        why = f"they were under way to {source} when the hold began, and came after the last notes had been copied."
    expect(
        not lost,
        f"Writes were acknowledged, and are lost: {why}",
        hop=Hop.DATABASE,
        seen="\n".join(lost[:3]),
        expected=f"all that was acknowledged, in {target}",
        show=DIFF,
    )
    expect(
        not watched.slips_in,
        f"{source} can be written to while the route moves: should the hold be over by then, what is written is lost.",
        hop=Hop.DATABASE,
        seen=f"a write to {source} when the route was set",
        expected=f"`locked` around copying, comparing and switching: {source} has to wait",
        show=DIFF,
    )
    expect(
        watched.waited_for,
        f"`move` pauses instead of waiting for the requests that are under way to {source}: a slow request takes "
        "longer than the pause, and everybody's writes wait for all of it.",
        hop=Hop.BALANCER,
        seen="no call of routing.wait_for_requests in the hold",
        expected=f"routing.wait_for_requests({source!r}, hold.seconds_left()), which returns as soon as none is left",
        show=SHOW,
    )
    expect(
        not watched.uncommitted,
        "The route moves before the new database is committed: the first readers there do not find the last notes.",
        hop=Hop.DATABASE,
        seen=f"{watched.uncommitted} notes that other connections to {target} do not see when the route is set",
        expected="0: end the transaction in the new database first",
        show=SHOW,
    )
    expect(
        not watched.early_copy_locks,
        "The early copy locks the old database: everybody's writes wait for it, as long as if they were held.",
        hop=Hop.DATABASE,
        seen=f"{source} cannot be written to while `copy` runs before the hold",
        expected="a transaction in the new database only",
        show=SHOW,
    )
    expect(
        not watched.compares_unlocked,
        f"{source} can be written to while `move` compares: should the hold be over by then, a write comes after the "
        "comparison, and is lost.",
        hop=Hop.DATABASE,
        seen=f"a write to {source} during `compare`, in the hold",
        expected=f"`locked` around copying, comparing and switching: {source} has to wait",
        show=SHOW,
    )
    expect(
        (watched.left or 0) <= ROWS // 10,
        "Everybody's writes wait while all notes are copied: with a larger table, that takes longer than the 2 s.",
        hop=Hop.BALANCER,
        seen=f"{watched.left} notes still to be copied when the hold began",
        expected="a few: the others are copied before, while people go on writing",
        show=LOG,
    )


def try_to_move(learner, stage, monkeypatch, source: str, target: str):
    """Return what people wrote meanwhile, what was so at the moments that matter, and Differs if it was raised."""
    watched = Watched(stage.registry, source, target)
    # Before the learner's file is loaded, which may import the names.
    monkeypatch.setattr(routing, "held", watched.held)
    monkeypatch.setattr(routing, "wait_for_requests", watched.watch_wait(routing.wait_for_requests))
    module = learner.load("move.py")
    monkeypatch.setattr(module, "copy", watched.watch_copy(module.copy))
    monkeypatch.setattr(module, "compare", watched.watch_compare(module.compare))
    sides = [module.Side(name, _database(name)) for name in (source, target)]
    failure = None
    with Writers(stage.url + PREFIX, _database(source)) as writers:
        writers.have_written()
        try:
            module.move(*sides, PREFIX, watched)
        except module.Differs as error:
            failure = error
        writers.have_written()
    return writers, watched, failure


def must_answer(service: str, writers: "Writers", stage, sentence: str) -> None:
    last = sorted(set(writers.last.values()))
    expect(
        all(instance.startswith(f"{service}_") for instance in last),
        sentence,
        hop=Hop.BALANCER,
        seen=f"the last answers are from {', '.join(last)}",
        expected=f"from {service}",
        show=stage.etcdctl_list("/routes"),
    )


class Watched(Registry):
    """The registry that `move` is given, and the hold of the load balancer: what is so when they are used."""

    def __init__(self, address: str, source: str, target: str):
        super().__init__(address)
        self.target, self.databases = target, (_database(source), _database(target))
        self.left: int | None = None  # notes still to be copied when the hold began; None: there was no hold
        self.is_holding = self.moved_in_hold = False  # writes: now; when the route was set
        self.slips_in = False  # whether the source could be written to when the route was set
        self.waited_for = False  # whether `move` has asked, in the hold, which requests are under way
        self.uncommitted = 0  # notes that were not yet visible in the new database when the route was set
        self.early_copy_locks = self.compares_unlocked = False

    def set_route(self, prefixes: str, service: str) -> None:
        if service == self.target:
            self.moved_in_hold = self.is_holding
            self.slips_in = can_be_written(self.databases[0])
            self.uncommitted = self.missing()
        super().set_route(prefixes, service)

    def missing(self) -> int:
        """Return how many notes of the old database other connections do not see in the new one."""
        old, new = map(notes.read, self.databases)
        return len(old.items() - new.items())

    def watch_wait(self, wait):
        def wait_for_requests(*arguments, **options):
            self.waited_for = self.waited_for or self.is_holding
            return wait(*arguments, **options)

        return wait_for_requests

    def watch_copy(self, copy):
        def watched(old, new):
            if not self.is_holding:
                # A writer's own lock ends within a millisecond, that of `move` not before this call has ended.
                self.early_copy_locks = not can_be_written(self.databases[0], timeout=WRITER_LOCK)
            return copy(old, new)

        return watched

    def watch_compare(self, compare):
        def watched(old, new):
            self.compares_unlocked = self.is_holding and can_be_written(self.databases[0])
            return compare(old, new)

        return watched

    @contextlib.contextmanager
    def held(self, routes: dict[str, str]):
        with HELD(routes) as hold:
            self.left = self.missing()
            self.is_holding = True
            try:
                yield hold
            finally:
                self.is_holding = False


class Writers:
    """Several people at once, each with one request after the other, of which none is repeated."""

    def __init__(self, url: str, database: Path):
        self.url = url
        ids = sorted(notes.read(database))
        self.to_edit, self.to_delete, self.numbers = iter(ids), reversed(ids), itertools.count(1)
        self.acknowledged: list[tuple[int, str | None]] = []  # of each note the text; None: it was deleted
        self.failed: list[str] = []
        self.last: dict[str, str] = {}  # thread → the instance that answered it last
        self.answers = Counter()  # by thread
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self.work, args=[act], daemon=True)
            for act in (*[self.post] * POSTERS, self.edit, self.delete)
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def work(self, act) -> None:
        with session() as http:
            while not self.stopping.is_set():
                act(http)
                self.answers[threading.current_thread().name] += 1

    def post(self, http) -> None:
        text = f"posted {next(self.numbers)}"
        if answer := self.send(http, "POST", "", 201, json={"text": text}):
            self.acknowledged.append((answer["id"], text))

    def edit(self, http) -> None:
        number = next(self.to_edit)
        if self.send(http, "PUT", f"/{number}", 200, json={"text": f"edited {number}"}):
            self.acknowledged.append((number, f"edited {number}"))

    def delete(self, http) -> None:
        number = next(self.to_delete)
        if self.send(http, "DELETE", f"/{number}", 200):
            self.acknowledged.append((number, None))

    def send(self, http, method: str, path: str, expected: int, **options) -> dict | None:
        """Return what was answered; None if that was no success."""
        try:
            answer = http.request(method, self.url + path, timeout=ANSWER_TIMEOUT, **options)
        except requests.RequestException as error:
            self.failed.append(f"{method} {PREFIX}{path}: {error}")
            return None
        self.last[threading.current_thread().name] = answer.headers.get("X-Served-By", "no instance")
        if answer.status_code != expected:
            self.failed.append(f"{method} {PREFIX}{path}: {answer.status_code}")
            return None
        return answer.json()

    def have_written(self) -> None:
        """Wait until everybody has sent a request from now on, and has its answer."""
        # Two answers more: the request of the first one may have been under way already.
        wanted = {thread.name: self.answers[thread.name] + 2 for thread in self.threads}
        wait_until(lambda: all(self.answers[name] >= count for name, count in wanted.items()), WRITES_TIMEOUT)

    def lost(self, stored: dict[int, str]) -> list[str]:
        """Return which acknowledged writes are not in these notes."""
        return [
            f"note {id_} is {stored.get(id_, 'not there')!r}; acknowledged: {text or 'deleted'!r}"
            for id_, text in self.acknowledged
            if stored.get(id_) != text
        ]


def make(rows: int) -> None:
    """Make both databases anew, the old one with so many notes."""
    FOLDER.mkdir(exist_ok=True)
    notes.make(BOARD, rows)
    notes.make(NOTES, 0)


def make_the_same(rows: int) -> None:
    make(rows)
    for row in notes.read(BOARD).items():
        execute(NOTES, "INSERT INTO notes VALUES (?, ?)", *row)


def run(function) -> int:
    """Call a function of the learner's with both databases, as `move` does; return how many rows it has written."""
    old, new = notes.connect(BOARD), notes.connect(NOTES)
    with contextlib.closing(old), contextlib.closing(new):
        new.execute("BEGIN IMMEDIATE")
        before = new.total_changes
        function(old, new)
        if new.in_transaction:
            new.execute("COMMIT")
        return new.total_changes - before


def differs(module) -> bool:
    try:
        run(module.compare)
    except module.Differs:
        return True
    return False


def execute(database: Path, statement: str, *values) -> None:
    with contextlib.closing(notes.connect(database)) as connection:
        connection.execute(statement, values)


def can_be_written(database: Path, timeout: float = 0) -> bool:
    """Tell whether somebody could write to a database in this moment, or within `timeout` seconds."""
    with contextlib.closing(sqlite3.connect(database, timeout=timeout, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


def _database(service: str) -> Path:
    return FOLDER / f"{service}.db"


def _first(rows: dict[int, str]) -> str:
    return ", ".join(map(str, sorted(rows)[8:12])) + ", …"
