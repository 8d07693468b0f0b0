"""The check: the versions of the messages service replace each other on one database, never more than two at a time."""

import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
import requests
import versions

from workshop.ports import HOST, free_port
from workshop.secrets import secret
from workshop.verdict import Hop, Wrong, expect

START_TIMEOUT = 20  # seconds for a version to answer, or for a migration; measured: 1
ANSWER_TIMEOUT = 5  # seconds
# As in stage.toml.
SERVER = ["gunicorn", "--worker-class", "gevent", "--workers", "1", "--no-control-socket"]
MIGRATE = ["flask", "--app", "parley", "db", "upgrade"]
MANY = 1500  # messages, more than a migration in batches is likely to take at once
# What a worker of v5 does when it has expanded the links of a message.
SET_HTML = """
import sys
from common.database import db
from parley import create_app
from parley.models.message import Message

with create_app().app_context():
    db.session.get(Message, int(sys.argv[1])).html = "<p>with a preview of its link</p>"
    db.session.commit()
"""
TOOL = "PYTHONPATH=platform .venv/bin/python exercises/13-expand-contract/versions.py"


@pytest.mark.timeout(80)
def test_a_column_is_renamed_while_two_versions_run_on_one_schema(learner, stage):
    rename = Rename(learner, stage)
    rename.begins_with_v4()
    rename.expands_and_v5_joins_v4()
    rename.migrates_and_v6_joins_v5()
    rename.v7_joins_v6()
    rename.contracts_while_v7_runs()


class Rename:
    """The whole way: which versions run beside each other, and what each must see of the other's messages."""

    def __init__(self, learner, stage):
        self.learner, self.stage = learner, stage
        self.work = learner.path("")
        self.folder = versions.DATABASE.parent  # stays after the check: one can look into the database

    def begins_with_v4(self):
        self.must_survive("v4", "0002_expand.py")
        self.learner.text("v5.py")  # not done yet while a TODO stands in it
        self.person = self.stage.user()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.v4 = self.start("v4")
        self.first = self.v4.post("written by v4, before all")

    def expands_and_v5_joins_v4(self):
        """Both write, both read, and each edits what the other has written."""
        self.v5 = self.start("v5")
        self.expect_column("text", "0002_expand.py")
        kind = self.types()["text"]
        expect(
            "(" not in kind,
            f"The new column takes {kind.strip('VARCH()')} characters, and a message may have 4,000. SQLite ignores "
            "the length, and PostgreSQL refuses longer texts.",
            hop=Hop.DATABASE,
            seen=f"text {kind}",
            expected="text TEXT, as source has",
            show=f"{TOOL} plan",
        )
        of_v4 = self.v4.post("written by v4, while v5 runs")
        of_v5 = self.v5.post("written by v5")
        self.v4.must_show(of_v5, "written by v5", "v4 does not see what v5 writes.")
        self.v5.must_show(of_v4, "written by v4, while v5 runs", "v5 does not see what v4 writes.")
        self.v4.edit(of_v5, "edited by v4")
        self.v5.must_show(
            of_v5,
            "edited by v4",
            "v5 shows what stood there before v4's edit: v4 writes the old column only, so that one is true still.",
        )
        self.v5.edit(self.first, "edited by v5")
        self.v4.must_show(self.first, "edited by v5", "v4 does not see what v5 edits.")
        self.both_columns(self.first, "edited by v5", "v5 edits a message, and leaves the new column as it was.")
        both = self.v5.post("written by v5, in both columns")
        self.both_columns(both, "written by v5, in both columns", "v5 writes a message without the new column.")
        self.set_html(both)
        self.both_columns(
            both,
            "written by v5, in both columns",
            "v5 changes only the HTML of a message, and overwrites the new column.",
        )
        as_long = self.v5.post("written by v5, too")
        self.v4.edit(as_long, "changed by v4, too")
        self.add_old_messages()
        self.messages = {
            as_long: "changed by v4, too",
            self.first: "edited by v5",
            of_v4: "written by v4, while v5 runs",
            of_v5: "edited by v4",
            both: "written by v5, in both columns",
        }
        self.alone, self.edited, self.as_long = of_v4, of_v5, as_long

    def migrates_and_v6_joins_v5(self):
        """v6 reads the new column, and writes both. Each must see the other's."""
        self.must_survive("v5", "0003_migrate.py")
        self.v4.end()
        self.v6 = self.start("v6")
        for number, sentence in (
            (self.alone, "In v6 a message has no text: v4 wrote it when the column was there already."),
            (self.edited, "In v6 a message has an old text: v5 wrote it, then v4 edited it."),
            (self.as_long, "In v6 a message has an old text: v4's edit was as long as what v5 had written."),
        ):
            self.v6.must_show(number, self.messages[number], sentence, Hop.DATABASE)
        self.expect_all_migrated()
        self.sees_all(self.v6)
        self.see_each_other(self.v5, self.v6)

    def v7_joins_v6(self):
        """v7 knows the new column only. v6 is the last one that writes the old one."""
        self.v5.end()
        self.v7 = self.start("v7", migrates=False)
        self.v7.post(
            "written by v7, which knows no source",
            "v7 cannot post: the old column, which it does not write any more, still wants a value.",
        )
        self.see_each_other(self.v6, self.v7)

    def contracts_while_v7_runs(self):
        self.operations("0004_contract.py")  # not done yet while it raises NotImplementedError
        self.v6.end()
        self.migrate("v8", versions.assemble("v8", self.work, self.folder))
        columns = self.columns()
        expect(
            "source" not in columns,
            "The old column is still there after 0004_contract.py: who reads the schema next wonders which is true.",
            hop=Hop.DATABASE,
            seen=f"messages has {', '.join(columns)}",
            expected="no source",
            show=f"{TOOL} rows",
        )
        expect(
            columns.get("text"),
            "After 0004_contract.py the new column may still be NULL, which no version expects any more.",
            hop=Hop.DATABASE,
            seen="text may be NULL",
            expected="text NOT NULL, as source was",
            show=f"{TOOL} plan",
        )
        self.sees_all(self.v7)
        self.v7.post("written after all")

    def must_survive(self, old: str, migration: str) -> None:
        """Have the platform judge what a migration means to an old version, which still runs."""
        for what, problem in self.operations(migration):
            expect(
                not problem,
                f"{migration}: {old}, which still runs, would not survive `{what}`: {problem}.",
                hop=Hop.CODE,
                seen=what,
                expected=f"operations that {old} does not notice",
                show=f"{TOOL} plan",
            )

    def operations(self, migration: str) -> list[tuple[str, str | None]]:
        try:
            return versions.judge(self.learner.load(migration).upgrade)
        except NotImplementedError:
            raise
        except Exception as error:  # it is anybody's code
            raise Wrong(
                f"{migration} cannot be judged: before a migration is run, it is read, without a database.",
                hop=Hop.CODE,
                seen=f"{type(error).__name__}: {error}",
                expected="operations of alembic.op",
                show=f"{TOOL} plan",
            ) from None

    def start(self, version: str, migrates: bool = True) -> "Version":
        """Deploy a version: first its migrations, on the database that the version before it is using, then itself."""
        folder = versions.assemble(version, self.work, self.folder)
        if migrates:
            self.migrate(version, folder)
        return Version(self, version)

    def migrate(self, version: str, folder: Path) -> None:
        program = self.learner.launch(MIGRATE, folder, **self.environment(version))
        if program.wait(START_TIMEOUT) != 0:
            raise Wrong(
                f"{version} does not come to run: its migration has failed.",
                hop=Hop.DATABASE,
                seen=f"`flask db upgrade` of {version}: exit status {program.status}",
                expected="exit status 0",
                show=f"{TOOL} plan",
                log=program.output(),
            )

    def environment(self, version: str) -> dict[str, str]:
        return {
            "SERVICE": "messages",
            "VERSION": version,
            "INSTANCE": f"messages_{version}_check",
            "DATABASE_URL": f"sqlite:///{versions.DATABASE}",
            "REDIS_URL": f"redis://{HOST}:1/0",  # nobody is there: what is posted here reaches no page
            "INTERNAL_URL": self.stage.internal_url,  # the stage's users and tokens
            "JWT_PUBLIC_KEY": secret("JWT_PUBLIC_KEY"),
        }

    def columns(self) -> dict[str, bool]:
        """Return the columns of messages, and of each whether it is NOT NULL."""
        with sqlite3.connect(versions.DATABASE) as database:
            return {row[1]: bool(row[3]) for row in database.execute("PRAGMA table_info(messages)")}

    def types(self) -> dict[str, str]:
        """Return the columns of messages, and the type of each."""
        with sqlite3.connect(versions.DATABASE) as database:
            return {row[1]: row[2] for row in database.execute("PRAGMA table_info(messages)")}

    def set_html(self, number: int) -> None:
        """Change only the HTML of a message, with the model of v5."""
        command = [sys.executable, "-c", SET_HTML, str(number)]
        program = self.learner.launch(command, self.folder / "v5", **self.environment("v5"))
        expect(
            program.wait(START_TIMEOUT) == 0,
            "v5 cannot change only the HTML of a message, as its worker does when it has expanded a link.",
            hop=Hop.SERVICE,
            seen=f"exit status {program.status}",
            expected="exit status 0",
            show="cat work/13-expand-contract/v5.py",
            log=program.output(),
        )

    def add_old_messages(self) -> None:
        """Add many messages as v4 wrote them, without the new column."""
        with sqlite3.connect(versions.DATABASE) as database:
            database.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                "INSERT INTO messages (created_at, updated_at, source, html, user_id) "
                "SELECT created_at, updated_at, 'old message ' || i, html, user_id FROM n JOIN messages "
                "WHERE messages.id = ?",
                [MANY, self.first],
            )

    def expect_all_migrated(self) -> None:
        with sqlite3.connect(versions.DATABASE) as database:
            ((left,),) = database.execute("SELECT count(*) FROM messages WHERE text IS NOT source")
        expect(
            not left,
            "After 0003_migrate.py, the two columns differ in some rows: v6 shows these messages as they were, or "
            "empty.",
            hop=Hop.DATABASE,
            seen=f"{left} rows",
            expected="0: the migration ends when every row has its text",
            show=f"{TOOL} rows",
        )

    def expect_column(self, name: str, migration: str) -> None:
        columns = self.columns()
        expect(
            name in columns,
            f"After {migration} messages have no {name}.",
            hop=Hop.DATABASE,
            seen=f"messages has {', '.join(columns)}",
            expected=f"{name}, beside source",
            show=f"{TOOL} plan",
        )

    def both_columns(self, number: int, text: str, sentence: str) -> None:
        with sqlite3.connect(versions.DATABASE) as database:
            row = database.execute("SELECT source, text FROM messages WHERE id = ?", [number]).fetchone()
        expect(
            row == (text, text),
            f"{sentence} v6 will read that one.",
            hop=Hop.DATABASE,
            seen=f"source {row[0]!r}, text {row[1]!r}",
            expected=f"{text!r} in both",
            show=f"{TOOL} rows",
        )

    def see_each_other(self, old: "Version", new: "Version") -> None:
        for writer, reader in ((old, new), (new, old)):
            number = writer.post(f"written by {writer.name}, read by {reader.name}")
            reader.must_show(number, f"written by {writer.name}, read by {reader.name}", _unseen(reader, writer))
            writer.edit(number, f"edited by {writer.name}")
            reader.must_show(number, f"edited by {writer.name}", _unseen(reader, writer))

    def sees_all(self, version: "Version") -> None:
        for number, text in self.messages.items():
            version.must_show(number, text, f"{version.name} does not show a message as it was last written.")


def _unseen(reader: "Version", writer: "Version") -> str:
    return f"{reader.name} does not see what {writer.name} writes, and both run."


class Version:
    """An instance of the messages service, of one version; asked directly, without the load balancer."""

    def __init__(self, rename: Rename, name: str):
        self.name, self.rename = name, rename
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        command = [*SERVER, "--bind", f"{HOST}:{port}", "common.server:serve()"]
        self.program = rename.learner.launch(command, rename.folder / name, **rename.environment(name))
        if not self.program.until(self.is_healthy, START_TIMEOUT):
            raise self.wrong(f"{name} does not start.", "no answer to GET /healthz", "200")

    def is_healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthz", timeout=1).ok
        except requests.RequestException:
            return False  # not yet

    def post(self, text: str, sentence: str = "") -> int:
        answer = self.send("POST", "", json={"source": text})
        if answer.status_code != 201:
            raise self.wrong(sentence or f"{self.name} cannot post.", f"POST: {answer.status_code}", "201")
        return answer.json()["id"]

    def edit(self, number: int, text: str) -> None:
        answer = self.send("PUT", f"/{number}", json={"source": text})
        if answer.status_code != 204:
            raise self.wrong(f"{self.name} cannot edit a message.", f"PUT: {answer.status_code}", "204")

    def must_show(self, number: int, text: str, sentence: str, hop: Hop = Hop.SERVICE) -> None:
        answer = self.send("GET", f"/{number}")
        if not answer.ok:
            raise self.wrong(sentence, f"{self.name}: {answer.status_code}", repr(text), hop)
        shown = answer.json()["source"]
        expect(
            shown == text,
            sentence,
            hop=hop,
            seen=f"{self.name}: {shown!r}",
            expected=repr(text),
            show=f"{TOOL} rows",
        )

    def send(self, method: str, path: str, **options) -> requests.Response:
        """Ask as a person who is signed in at the stage."""
        person = self.rename.person
        headers = {"Authorization": f"Bearer {person.token}"}
        url = f"{self.url}/api/messages{path}"
        try:
            return person.http.request(method, url, headers=headers, timeout=ANSWER_TIMEOUT, **options)
        except requests.RequestException as error:
            raise self.wrong(f"{self.name} does not answer any more.", str(error), "an answer") from None

    def wrong(self, sentence: str, seen: str, expected: str, hop: Hop = Hop.SERVICE) -> Wrong:
        show = f"{TOOL} rows"
        return Wrong(sentence, hop=hop, seen=seen, expected=expected, show=show, log=self.program.output())

    def end(self) -> None:
        """All instances of the version after it serve: nobody needs it any more."""
        self.program.stop()
