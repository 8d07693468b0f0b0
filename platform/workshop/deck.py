"""The deck: the Markdown files of slides/, made into one page for reveal.js.

Each file is a template first, so that code, terminals and drawings stand on a slide as they are in the repository.
"""

import re
import shutil
import textwrap
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import jinja2

from workshop import exercises, paths, state
from workshop.errors import WorkshopError

SOURCES = paths.REPOSITORY / "slides"
PARTS = "[0-9][0-9]-*.md"  # in the order of their names
REVEAL = paths.NPM / "reveal.js" / "dist"
CLASSES = ("3h", "1d")
# Whose slides a class shows, by their data-timetable: the day all but those that the short class alone has.
SHOWN = {"3h": ("3h", "3h-only"), "1d": ("", "3h")}
CLOSING = 60  # seconds of an exercise's minutes that its closing slide takes
PAUSES = ("Break", "Lunch")  # the headings of slides that are none
LANGUAGES = {".py": "python", ".js": "javascript", ".toml": "ini", ".lua": "lua", ".yaml": "yaml", ".html": "xml"}
FENCED = re.compile(r"(?ms)^```\w+\n(.*?)\n```$")
# The room for code on a slide, and the largest type for it, in its pixels; a character's width and height, in those of
# the type.
CODE_WIDTH, CODE_HEIGHT, LARGEST = 1232, 440, 34
CHARACTER_WIDTH, LINE_HEIGHT = 0.602, 1.4
CLOSERS = (")", "]", "}", "end)")  # that end no block, but a line that was broken, or a function in Lua


class BadSlide(WorkshopError):
    """A slide asks for what is not there: names the file, and what."""


@dataclass(frozen=True)
class Slide:
    part: str  # the file's name, without its ending
    text: str  # Markdown, speaker's notes included

    @property
    def seconds(self) -> int:
        return int(self._mark("timing"))

    @property
    def timetable(self) -> str:
        return self._mark("timetable", "")

    @property
    def block(self) -> str:
        """Return of what part of a timetable it is: the talk, the exercise of some number, a break."""
        heading = self.heading
        return self._mark("exercise", heading if heading in PAUSES else "")

    @property
    def heading(self) -> str:
        found = re.search(r"(?m)^#+ (.*)$", self.text)
        return found[1].strip() if found else ""

    @property
    def code_size(self) -> int:
        """Return how large the type of its code may be, in pixels, for the longest line and all lines to fit."""
        lines = [line for block in FENCED.findall(self.text) for line in block.splitlines()]
        if not lines:
            return LARGEST
        longest = max(map(len, lines))
        fitting = min(CODE_WIDTH / (CHARACTER_WIDTH * longest), CODE_HEIGHT / (LINE_HEIGHT * len(lines)))
        return min(LARGEST, int(fitting))

    def _mark(self, name: str, default: str | None = None) -> str:
        found = re.search(rf'^<!-- \.slide:.* data-{name}="([\w-]+)"', self.text)
        if not found and default is None:
            raise BadSlide(f'{self.part}: a slide has no data-{name}: "{self.text[:60]}"')
        return found[1] if found else default


def slides(timetable: str = "1d") -> list[Slide]:
    """Return the slides that this class shows. Raises BadSlide when one asks for what is not there."""
    found = [
        Slide(file.stem, text.strip())
        for file in sorted(SOURCES.glob(PARTS))
        for text in re.split(r"(?m)^---$", render(file))
    ]
    return [slide for slide in found if slide.timetable in SHOWN[timetable]]


def timetable(name: str) -> list[tuple[str, str, int]]:
    """Return the blocks of a class: the part of the deck; the exercise's number, the break, or ""; the minutes."""
    blocks = groupby(slides(name), lambda slide: (slide.part, slide.block))
    return [(part, block, sum(slide.seconds for slide in group) // 60) for (part, block), group in blocks]


def page(timetable: str = "1d") -> str:
    """Return the deck as HTML. What it shows lies beside it: see `write`."""
    return environment(autoescape=True).get_template("deck.html.j2").render(slides=slides(timetable))


def write(folder: Path, timetable: str = "1d") -> None:
    """Write the deck into a folder, from which it can be served without a network."""
    (folder / "index.html").write_text(page(timetable))
    shutil.copy(SOURCES / "deck.css", folder)
    for name, source in {"drawings": SOURCES / "drawings", "pictures": SOURCES / "pictures", "reveal": REVEAL}.items():
        (folder / name).symlink_to(source)


def render(file: Path) -> str:
    """Return a file of the deck as Markdown, with what it includes and the ports of the stage that is up."""
    return state.with_real_ports(environment().get_template(str(file.relative_to(SOURCES))).render())


def environment(autoescape: bool = False) -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(SOURCES)
    made = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=autoescape)
    made.globals.update(code=code, terminal=terminal, drawing=drawing, exercise=exercise)
    return made


def code(file: str, marker: str, until: str | None = None) -> str:
    """Return lines of a file of the repository: from the one that begins with the marker to the end of its block.

    Spaces in front do not count. `until` begins the last line, where a block is too long for a slide.
    Raises BadSlide when there is no such file or line, or more than one line begins so.
    """
    path = paths.REPOSITORY / file
    lines = path.read_text().splitlines() if path.is_file() else []
    places = [place for place, line in enumerate(lines) if line.lstrip().startswith(marker)]
    if len(places) != 1:
        raise BadSlide(f"{file} has {len(places)} lines that begin with {marker!r}, where a slide asks for one.")
    found = block(lines[places[0] :])
    if until:
        ends = [number for number, line in enumerate(found) if line.lstrip().startswith(until)]
        if not ends:
            raise BadSlide(f"{file}: after {marker!r} no line begins with {until!r}.")
        found = found[: ends[0] + 1]
    return fenced(LANGUAGES.get(path.suffix, "plaintext"), textwrap.dedent("\n".join(found)))


def block(lines: list[str]) -> list[str]:
    """Return the lines up to the end of the block that the first one opens; of a paragraph that has none, all."""
    depth = indentation(lines[0])
    is_open = False
    for number, line in enumerate(lines[1:], 1):
        if not line.strip():
            if not is_open:
                return lines[:number]
        elif indentation(line) > depth:
            is_open = True
        elif is_open and not line.lstrip().startswith(CLOSERS):
            return "\n".join(lines[:number]).rstrip().split("\n")
    return lines


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def terminal(name: str) -> str:
    """Return what was typed and what came. The file's first line names the stage that was up: see test_slides.py."""
    file = SOURCES / "terminal" / f"{name}.txt"
    if not file.is_file():
        raise BadSlide(f"There is no {file.relative_to(paths.REPOSITORY)}.")
    return fenced("console", file.read_text().split("\n", 1)[1].rstrip())


def drawing(name: str, alternative: str) -> str:
    if not (SOURCES / "drawings" / f"{name}.svg").is_file():
        raise BadSlide(f"There is no slides/drawings/{name}.svg.")
    return f"![{alternative}](drawings/{name}.svg)"


def exercise(number: str) -> str:
    """Return the slides between which an exercise is done; the first one stays until the second one, which ends it."""
    one = exercises.find(number)
    mark = partial('<!-- .slide: data-timing="{}" data-timetable="{}" data-exercise="{}" -->'.format)
    timetable = "3h" if one.timetable == "3h" else ""
    template = environment().get_template(f"exercises/{number}.md")
    return template.render(
        number=number,
        title=one.title,
        minutes=one.minutes,
        opening=mark(60 * one.minutes - CLOSING, timetable, number),
        closing=mark(CLOSING, timetable, number),
    )


def fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
