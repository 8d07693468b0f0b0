"""The tour through the three stages: what is to be seen, why it is so, what it costs. Its table is tour.toml."""

import base64
import tomllib
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from workshop import exercises, lesson, paths, stage
from workshop.errors import WorkshopError
from workshop.exercises import Exercise
from workshop.lesson import Chapter

TABLE = tomllib.loads(Path(__file__).with_name("tour.toml").read_text())
DRAWINGS = paths.REPOSITORY / "slides" / "drawings"


@dataclass(frozen=True)
class Station:
    """One thing to be seen."""

    number: int
    title: str
    why: str
    cost: str
    exercises: list[Exercise]
    look: str  # the command that shows it
    files: list[str]  # to read, as paths in the repository, where there is no diff
    chapter: Chapter | None = None  # the diff

    def texts(self) -> dict[str, list[str]]:
        """Return the lines of the files to read, by path."""
        return {path: (paths.REPOSITORY / path).read_text().splitlines() for path in self.files}


@dataclass(frozen=True)
class Part:
    """Stations that belong together."""

    title: str
    stations: list[Station]
    drawing: str | None  # its name; it shows where the way leads
    alt: str  # the drawing in words

    def drawing_address(self) -> str:
        """Return the drawing as an address that holds all of it: its ids and styles stay its own."""
        svg = (DRAWINGS / f"{self.drawing}.svg").read_bytes()
        return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def parts() -> list[Part]:
    """Return the whole tour; its stations are numbered from 1 on."""
    numbers = count(1)
    return [
        Part(
            part["title"],
            [_station(next(numbers), entry) for entry in _entries(part)],
            part.get("drawing"),
            part.get("alt", "").strip(),
        )
        for part in TABLE["parts"]
    ]


def find(number: str) -> tuple[Station, Station | None]:
    """Return the station of that number, and the one after it. Raises WorkshopError when there is none."""
    stations = [station for part in parts() for station in part.stations]
    if not (number.isdecimal() and 1 <= int(number) <= len(stations)):
        raise WorkshopError(f"There is no station {number!r}: `./workshop tour` lists 1 to {len(stations)}.")
    return (*stations[int(number) - 1 :], None)[:2]


def _entries(part: dict) -> list[dict]:
    """Return the stations of a part as the table has them; those of a step come from the table of the lesson."""
    if "step" not in part:
        return part["stations"]
    later, known = part["step"], list(stage.stages())
    earlier = known[known.index(later) - 1]
    chapters = {chapter.topic: chapter for chapter in lesson.chapters(earlier, later)}
    return [
        lesson.TOPICS[topic][later]
        | {"look": f"./workshop diff {earlier} {later} {topic}", "files": [], "chapter": chapters[topic]}
        for topic in part["topics"]
    ]


def _station(number: int, entry: dict) -> Station:
    said = {key: entry[key].strip() for key in ("why", "cost")}
    return Station(number, **entry | said | {"exercises": [exercises.find(one) for one in entry["exercises"]]})
