"""The lesson between two stages: which files moved, which changed, and why. Its table is topics.toml."""

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from fnmatch import fnmatchcase
from itertools import groupby, zip_longest
from pathlib import Path

from workshop import stage
from workshop.errors import WorkshopError

TABLE = tomllib.loads(Path(__file__).with_name("topics.toml").read_text())
TOPICS = TABLE["topics"]
WITHIN_A_SERVICE = ("parley", "migrations", "tests")  # folders that say nothing of which service it is
NO_SOURCES = {"__pycache__", "node_modules", "lib"}  # folders that git ignores, too
CONTEXT = 3  # unchanged lines shown around each change, as git does

Files = dict[str, list[str]]  # path below the stage's folder → lines


@dataclass(frozen=True)
class Change:
    """A file of the earlier stage and what has become of it in the later one; or only one of them."""

    old: str | None  # path below the stage's folder; None: it is new
    new: str | None  # None: it is gone
    before: list[str]
    after: list[str]

    @property
    def path(self) -> str:
        return self.new or self.old

    @property
    def places(self) -> str:
        """Return where it was and is, once if that is the same."""
        return " → ".join(dict.fromkeys(path for path in (self.old, self.new) if path))

    @property
    def kind(self) -> str:
        """Return whether it is new, gone, changed, moved (and not a line changed) or unchanged."""
        if not (self.old and self.new):
            return "new" if self.new else "gone"
        if self.before != self.after:
            return "changed"
        return "unchanged" if self.old == self.new else "moved"

    @property
    def kept(self) -> int:
        """Return how many lines of the earlier file are in the later one."""
        return kept(self.before, self.after)

    @property
    def percent_kept(self) -> int:
        """Return how much of the earlier file is left, rounded down: 100 only if nothing was removed."""
        return 100 * self.kept // len(self.before) if self.before else 100

    @property
    def added(self) -> int:
        return len(self.after) - self.kept

    @property
    def removed(self) -> int:
        return len(self.before) - self.kept

    def unified(self, earlier: str, later: str) -> Iterator[str]:
        """Yield the lines of the diff between the files of these two folders, as `git diff` would show it."""
        old = f"{earlier}/{self.old}" if self.old else "/dev/null"
        new = f"{later}/{self.new}" if self.new else "/dev/null"
        return unified_diff(self.before, self.after, old, new, n=CONTEXT, lineterm="")

    def hunks(self) -> Iterator[list[tuple[bool, int | None, int | None]]]:
        """Yield the changed places, each as rows: whether it differs, and which earlier line beside which later one."""
        for operations in SequenceMatcher(None, self.before, self.after).get_grouped_opcodes(CONTEXT):
            yield [
                (operation != "equal", left, right)
                for operation, i1, i2, j1, j2 in operations
                for left, right in zip_longest(range(i1, i2), range(j1, j2))
            ]


@dataclass(frozen=True)
class Chapter:
    """What a topic has to show."""

    topic: str
    why: dict[str, str]  # a paragraph for each stage on the way
    cost: dict[str, str]  # the same
    changes: list[Change]

    def of_kind(self, kind: str) -> list[Change]:
        return [change for change in self.changes if change.kind == kind]

    def summary(self) -> dict[str, list[str]]:
        """Return what has become of its files at a glance: heading → lines, only those headings that have any."""
        unchanged = self.of_kind("unchanged")
        lines = {
            "unchanged": [counted(len(unchanged), "file")] if unchanged else [],
            "moved, not a line changed": list(moves(self.of_kind("moved"))),
            "changed": [
                f"{change.places}: {change.percent_kept} % of its lines kept, {change.added} new"
                for change in self.of_kind("changed")
            ],
            "new": [f"{change.new}: {counted(change.added, 'line')}" for change in self.of_kind("new")],
            "gone": [f"{change.old}: {counted(change.removed, 'line')}" for change in self.of_kind("gone")],
        }
        return {heading: found for heading, found in lines.items() if found}


def chapters(earlier: str, later: str, topic: str | None = None, everything: bool = False) -> list[Chapter]:
    """Return what changes from one stage to a later one, of one topic or of all; `everything`: also what is aside.

    Raises WorkshopError: there is no such stage or topic, the stages stand the other way round, or a file belongs to no
    topic.
    """
    if topic and topic not in TOPICS:
        raise WorkshopError(f"There is no topic {topic!r}: choose {' or '.join(TOPICS)}.")
    old, new = stage.folder(earlier), stage.folder(later)
    steps = steps_between(earlier, later)
    found = {name: [] for name in TOPICS}
    for change in changes(read(old), read(new)):
        if everything or not matches(change.path, TABLE["aside"]):
            found[topic_of(change.path)].append(change)
    return [
        Chapter(name, *(said(name, steps, what) for what in ("why", "cost")), sorted(found[name], key=place_in_table))
        for name in ([topic] if topic else TOPICS)
    ]


def said(topic: str, steps: list[str], what: str) -> dict[str, str]:
    """Return what the table says of a topic on the way to these stages: why it changes, or what that costs."""
    return {step: TOPICS[topic][step][what].strip() for step in steps}


def moves(changes: list[Change]) -> Iterator[str]:
    """Yield a line for each folder from which files moved into another one."""

    def folders(files: tuple[Path, Path]) -> tuple[Path, Path]:
        return files[0].parent, files[1].parent

    moved = sorted(((Path(change.old), Path(change.new)) for change in changes), key=folders)
    for (before, after), files in groupby(moved, key=folders):
        names = (old.name if old.name == new.name else f"{old.name} → {new.name}" for old, new in files)
        yield f"{before}/ → {after}/: {', '.join(names)}"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def steps_between(earlier: str, later: str) -> list[str]:
    """Return the stages that are reached on the way. Raises WorkshopError when there is no way forward."""
    known = list(stage.stages())
    steps = known[known.index(earlier) + 1 : known.index(later) + 1]
    if not steps:
        raise WorkshopError(f"{later} does not come after {earlier}: name the earlier stage first, then a later one.")
    return steps


def read(folder: Path) -> Files:
    """Return the source files of a stage."""
    inside = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: path.read_text(errors="replace").splitlines()
        for name, path in inside.items()
        if not any(part in NO_SOURCES or part.startswith(".") for part in name.split("/"))
    }


def changes(old: Files, new: Files) -> list[Change]:
    """Return what has become of each file."""
    origin = {path: origin_of(path, old, new) for path in new}
    found = [Change(origin[path], path, old.get(origin[path], []), new[path]) for path in new]
    return found + [Change(path, None, old[path], []) for path in old if path not in origin.values()]


def origin_of(path: str, old: Files, new: Files) -> str | None:
    """Return from which earlier file a later one has been made, if from any.

    One that stands where it stood comes from there, and no other one does. Else it is one of the same name; several
    services may have taken over the same one. Of several with its name, it is the one of which more lines are left.
    """
    if path in old:
        return path
    name = TABLE["renames"].get(path, name_of(path))
    candidates = [other for other in old if other not in new and name_of(other) == name]
    return max(candidates, key=lambda other: kept(old[other], new[path]), default=None)


def name_of(path: str) -> str:
    """Return the name that a file has in all stages: its path below parley/, or else below its service's folder."""
    folder, _, rest = path.partition("/")
    if rest and folder not in WITHIN_A_SERVICE:
        path = rest
    return path.removeprefix("parley/")


def topic_of(path: str) -> str:
    """Return the topic of a file. Raises WorkshopError if there is not exactly one."""
    folder = path.split("/")[0]
    topics = [topic for topic, has in TOPICS.items() if folder in has["folders"]]
    topics = topics or [topic for topic, has in TOPICS.items() if matches(path, has["files"])]
    if len(topics) != 1:
        found = " and ".join(topics) or "no topic"
        raise WorkshopError(f"{path} belongs to {found}: name it once in platform/workshop/topics.toml.")
    return topics[0]


def place_in_table(change: Change) -> tuple[int, str]:
    """Return by what the files of a topic are sorted: first those that the table names, in its order."""
    patterns = TOPICS[topic_of(change.path)]["files"]
    places = [place for place, pattern in enumerate(patterns) if matches(change.path, [pattern])]
    return min(places, default=len(patterns)), change.path


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Return whether the name of a file is one of these, of which a * stands for any text."""
    return any(fnmatchcase(name_of(path), pattern) for pattern in patterns)


def kept(before: list[str], after: list[str]) -> int:
    """Return how many lines a diff would leave alone."""
    return sum(block.size for block in SequenceMatcher(None, before, after).get_matching_blocks())
