"""The versions of the messages service in this exercise: v4, which is that of stage 2, and those that follow.

versions.py plan     what `./workshop upgrade` says to each of your migrations
versions.py rows     what stands in the database of the last check
"""

import runpy
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from workshop import exercises, migrations, paths
from workshop.errors import WorkshopError

EXERCISE = Path(__file__).resolve().parent
STAGE = paths.REPOSITORY / "stage2-microservices"
DATABASE = paths.RUN / "exercise-13" / "messages.db"
MIGRATIONS = ["0002_expand.py", "0003_migrate.py", "0004_contract.py"]
NEWEST = {"v4": 0, "v5": 1, "v6": 2, "v7": 2, "v8": 3}  # version → how many of these migrations it brings
CODE = {"v8": "v7"}  # versions that bring nothing but a migration run the code of another one

MODEL = "parley/models/message.py"
PART = "has_text"  # the module beside it with the columns that this is about
# What makes stage 2's model v4's: the same columns, one of them in that module.
CHANGES = {
    "class Message(db.Model):": "class Message(HasText, db.Model):",
    "    source: Mapped[str] = mapped_column(Text)\n": "",
    "\nDAY =": f"\nfrom .{PART} import HasText\n\nDAY =",
}


def assemble(version: str, work: Path, target: Path) -> Path:
    """Make the folder that a version runs from, with the learner's files of `work` in it; return it."""
    folder = target / version
    left_out = shutil.ignore_patterns("__pycache__", "tests")
    shutil.copytree(STAGE / "messages", folder, ignore=left_out)
    shutil.copytree(STAGE / "common", folder / "common", ignore=left_out)
    model = folder / MODEL
    text = model.read_text()
    for old, new in CHANGES.items():
        if old not in text:
            raise WorkshopError(f"{STAGE / 'messages' / MODEL} has no {old.strip()!r} any more.")
        text = text.replace(old, new)
    model.write_text(text)
    name = f"{CODE.get(version, version)}.py"
    shutil.copyfile(work / name if name == "v5.py" else EXERCISE / "versions" / name, model.parent / f"{PART}.py")
    for migration in MIGRATIONS[: NEWEST[version]]:
        shutil.copyfile(work / migration, folder / "migrations" / "versions" / migration)
    return folder


def judge(upgrade: Callable[[], None]) -> list[tuple[str, str | None]]:
    """Return what a migration does, and of each operation why the version before does not survive it, if so.

    Nothing is carried out. Raises whatever the migration raises.
    """
    operations = migrations.recorded(SimpleNamespace(module=SimpleNamespace(upgrade=upgrade)), "sqlite")
    return [(migrations.describe(operation), migrations.judge(operation)) for operation in operations]


def print_plan(work: Path) -> None:
    for name in MIGRATIONS:
        print(name)
        try:
            for what, problem in judge(runpy.run_path(str(work / name))["upgrade"]):
                print(f"    {what}: {f'BREAKING, {problem}' if problem else 'compatible'}")
        except Exception as error:  # it is anybody's code
            print(f"    it cannot be judged: {type(error).__name__}: {error}")


def print_rows() -> None:
    if not DATABASE.exists():
        sys.exit("There is no database yet: `./workshop exercise check 13` makes it.")
    with sqlite3.connect(f"{DATABASE.as_uri()}?mode=ro", uri=True) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(messages)")]
        shown = ["id", *(name for name in ("source", "text") if name in columns)]
        print(" | ".join(shown))
        for row in database.execute(f"SELECT {', '.join(shown)} FROM messages"):  # noqa: S608 - three names of ours
            print(" | ".join("NULL" if value is None else str(value) for value in row))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["plan"]:
            print_plan(exercises.WORK / EXERCISE.name)
        case ["rows"]:
            print_rows()
        case _:
            sys.exit(__doc__)
