"""The exercises: what there is, where the learner works on them, and how far the learner is.

exercises/NN-slug/      the starter, the solution, the hints, the check: as they are in the repository
work/NN-slug/           the learner's own files
work/backups/           what `reset` and `jump` have replaced, by exercise and time
work/progress.json      which exercises have been passed, how many hints were read
"""

import fcntl
import json
import os
import re
import shutil
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from workshop import paths
from workshop.errors import WorkshopError
from workshop.files import write_atomically
from workshop.state import Up

FOLDER = paths.REPOSITORY / "exercises"
WORK = paths.REPOSITORY / "work"
BACKUPS = WORK / "backups"
PROGRESS = WORK / "progress.json"
NOT_OURS = {".git", ".run", ".venv", "node_modules", "work", "__pycache__"}  # folders that a check may write to
PARTS = {1: "The monolith", 2: "The platform", 3: "The strangler", 4: "Microservices"}


@dataclass(frozen=True)
class Exercise:
    """What exercise.toml says, and the folders."""

    number: str  # two digits
    folder: Path
    title: str
    part: int
    minutes: int
    needs: str  # the stage that has to be up
    files: list[str]  # what the learner edits
    deadline: int  # seconds after which a check is ended, whatever it does
    counts: dict[str, int]  # instances that it needs, of services that have fewer by default
    timetable: str  # the shortest class that it is part of: 3h or 1d

    @property
    def name(self) -> str:
        return f"{self.number} {self.title}"

    @property
    def work(self) -> Path:
        return WORK / self.folder.name

    @property
    def is_started(self) -> bool:
        return self.work.is_dir()

    def what_is_up_instead(self, up: Up) -> str | None:
        """Say what is up, if it is not what the exercise needs; containers could not reach what a learner starts."""
        if up.stage == self.needs and up.driver == "process" and not up.is_on_the_way:
            return None
        containers = " in containers" if up.driver == "docker" else ""
        return f"{up.stage}{containers}{', on its way to the next stage,' if up.is_on_the_way else ''}"

    def hints(self) -> list[str]:
        """Return the hints, each more of an answer than the one before."""
        return [part.strip() for part in re.split(r"(?m)^## .*$", (self.folder / "hints.md").read_text())[1:]]


def following(exercise: Exercise) -> Exercise | None:
    """Return the next exercise that is not passed: of those after this one, else of all; None if all are passed."""
    known = progress()
    left = [one for one in all_of_them() if "passed" not in known.get(one.number, {}) and one.number != exercise.number]
    return next((one for one in left if one.number > exercise.number), left[0] if left else None)


def all_of_them() -> list[Exercise]:
    return [_read(file.parent) for file in sorted(FOLDER.glob("[0-9][0-9]-*/exercise.toml"))]


def find(number: str) -> Exercise:
    """Return the exercise of that number. Raises WorkshopError when there is none."""
    for exercise in all_of_them():
        if number.isdecimal() and int(exercise.number) == int(number):
            return exercise
    raise WorkshopError(f"There is no exercise {number!r}: `./workshop exercises` lists them.")


def _read(folder: Path) -> Exercise:
    table = tomllib.loads((folder / "exercise.toml").read_text())
    return Exercise(folder.name[:2], folder, **{"counts": {}, "timetable": "1d"} | table)


def start(exercise: Exercise) -> None:
    """Give the learner the starter's files. Raises WorkshopError when there are some already, or no room for them."""
    refuse_without_folders(exercise)
    if exercise.is_started:
        raise WorkshopError(
            f"You have begun {exercise.name} already, in {shown(exercise.work)}: `./workshop exercise reset "
            f"{exercise.number}` begins anew, and keeps what there is."
        )
    half = WORK / f".{exercise.folder.name}"
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(exercise.folder / "starter", half)
    os.rename(half, exercise.work)


def refuse_without_folders(exercise: Exercise) -> None:
    """Raise WorkshopError when a file, or a link to nothing, is where a folder has to be."""
    for folder in (WORK, BACKUPS, exercise.work):
        if os.path.lexists(folder) and not folder.is_dir():
            raise WorkshopError(
                f"{shown(folder)} is not a folder, and has to be one. Move it away: mv {shown(folder)} /tmp"
            )


def back_up(exercise: Exercise) -> Path | None:
    """Put the learner's files aside; return where they are now, None if there were none."""
    refuse_without_folders(exercise)
    if not exercise.is_started:
        return None
    BACKUPS.mkdir(parents=True, exist_ok=True)
    backup = unused(BACKUPS / f"{exercise.folder.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    os.rename(exercise.work, backup)
    return backup


def unused(path: Path) -> Path:
    """Return the path, or, as long as something has that name, one with a number more."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


@contextmanager
def alone() -> Iterator[None]:
    """Hold the right to check, or to jump. Raises WorkshopError when another terminal has it."""
    paths.RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(paths.RUN / "exercise.lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkshopError("Another check, or a jump, is at work: try again when it is done.") from None
        yield


def progress() -> dict[str, dict]:
    """Return by number what was entered: `passed`, a date, and `hints`, how many were read."""
    try:
        known = json.loads(PROGRESS.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, IsADirectoryError, NotADirectoryError):
        known = None
    if not _is_progress(known):
        raise WorkshopError(f"{shown(PROGRESS)} is damaged. Correct it, or move it away to begin anew.")
    return known


def _is_progress(known: object) -> bool:
    """Tell whether it is a table of tables with a date, and a number of hints."""
    return isinstance(known, dict) and all(
        isinstance(entry, dict) and type(entry.get("hints", 0)) is int and type(entry.get("passed", "")) is str
        for entry in known.values()
    )


def enter(exercise: Exercise, **values: object) -> None:
    known = progress()
    known[exercise.number] = known.get(exercise.number, {}) | values
    write_atomically(PROGRESS, json.dumps(known, indent=2) + "\n")


def is_passed(exercise: Exercise) -> bool:
    return "passed" in progress().get(exercise.number, {})


def files_of_the_repository() -> dict[str, tuple[int, int, int]]:
    """Return the size of each file and its times: the kernel alone sets the second one."""
    found = {}
    for folder, folders, names in os.walk(paths.REPOSITORY):
        folders[:] = [name for name in folders if name not in NOT_OURS]
        for name in names:
            if is_editors_own(name):
                continue
            with suppress(FileNotFoundError):  # an editor replaces files
                status = os.lstat(os.path.join(folder, name))
                found[os.path.join(folder, name)] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def is_editors_own(name: str) -> bool:
    """Tell whether an editor keeps something in a file of this name while it has another one open."""
    return name.startswith((".", "#")) or name.endswith("~")


def changed_files(before: dict[str, tuple[int, int, int]]) -> list[str]:
    """Return which files of the repository were changed, added or removed since."""
    after = files_of_the_repository()
    return sorted(shown(Path(file)) for file in before.keys() | after.keys() if before.get(file) != after.get(file))


def shown(path: Path) -> str:
    """Return a path as the learner would type it, from the repository's folder."""
    return str(path.relative_to(paths.REPOSITORY))
