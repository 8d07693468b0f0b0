"""What stands on the slides: what they include, and how long they take."""

import itertools
import re
from collections import Counter

import pytest
from click.testing import CliRunner

from workshop import deck, exercises
from workshop.cli import cli
from workshop.deck import BadSlide, Slide

MINUTES = {"3h": 180, "1d": 480}
# of the guide's timetables: from, to, the part of the deck, what, minutes. A part's talk stands in one row.
ROW = r"(?m)^\| (\d\d:\d\d) \| (\d\d:\d\d) \| `(\d\d-\w+)` \| (talk|exercise \d\d|break|lunch) \| (\d+) \|$"
CODE = """\
[services.ui]
routes = ["/"]

[services.users]
routes = ["/api/users"]
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setattr(deck.paths, "REPOSITORY", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", deck.CLASSES)
def test_the_minutes_add_up_to_the_class(name):
    assert sum(minutes for _, _, minutes in deck.timetable(name)) == MINUTES[name]


@pytest.mark.parametrize("name", deck.CLASSES)
def test_an_exercise_has_an_opening_and_a_closing_slide_and_its_minutes_in_each_class_that_it_is_part_of(name):
    of_class = [one for one in exercises.all_of_them() if name == "1d" or one.timetable == name]
    minutes = {block: minutes for _, block, minutes in deck.timetable(name) if block.isdecimal()}
    assert minutes == {one.number: one.minutes for one in of_class}
    for one in of_class:
        opening, closing = (slide for slide in deck.slides(name) if slide.block == one.number)
        assert f"exercise start {one.number}" in opening.text
        assert one.title in opening.heading
        assert closing.heading


@pytest.mark.parametrize("name", deck.CLASSES)
def test_the_timetable_is_that_of_the_slides(name):
    shown = CliRunner().invoke(cli, ["exercises", "--timetable", name]).output
    begins = itertools.accumulate((minutes for _, _, minutes in deck.timetable(name)), initial=0)
    rows = [f"{at // 60}:{at % 60:02}" for at in begins]
    assert [line.split()[0] for line in shown.splitlines()[1:-1]] == rows[:-1]
    assert f"{MINUTES[name] // 60} h 0 min" in shown
    for one in exercises.all_of_them():
        assert (one.title in shown) == (name == "1d" or one.timetable == name)


@pytest.mark.parametrize(("name", "heading"), [("3h", "The three-hour class"), ("1d", "The one-day class")])
def test_the_guide_has_the_minutes_of_the_slides(name, heading):
    _, _, section = (deck.SOURCES / "INSTRUCTOR.md").read_text().partition(f"## {heading}\n")
    rows = re.findall(ROW, section.partition("\n## ")[0])
    assert [row[0] for row in rows[1:]] == [row[1] for row in rows[:-1]]  # one begins when the one before ends
    assert all(minutes_between(begins, ends) == int(minutes) for begins, ends, _, _, minutes in rows)
    assert [(part, block, int(minutes)) for *_, part, block, minutes in rows if block != "talk"] == [
        (part, f"exercise {block}" if block.isdecimal() else block.lower(), minutes)
        for part, block, minutes in deck.timetable(name)
        if block
    ]
    talk = Counter()
    for part, block, minutes in deck.timetable(name):
        talk[part] += 0 if block else minutes
    assert {part: int(minutes) for *_, part, block, minutes in rows if block == "talk"} == dict(+talk)


def minutes_between(begins: str, ends: str) -> int:
    (hour, minute), (end_hour, end_minute) = (map(int, time.split(":")) for time in (begins, ends))
    return 60 * (end_hour - hour) + end_minute - minute


def test_every_slide_says_its_minutes_and_what_to_say():
    for slide in deck.slides("1d") + deck.slides("3h"):
        assert slide.seconds % 30 == 0, slide.heading
        assert slide.timetable in ("", "3h", "3h-only"), slide.heading
        assert slide.heading, slide.text
        assert "\nNote:" in slide.text, f"{slide.part}: {slide.heading}"


def test_a_slide_has_few_words():
    for slide in deck.slides():
        words = re.sub(r"(?s)<!--.*?-->|```.*?```|\nNote:.*|!\[.*?\]\(.*?\)", "", slide.text).split()
        assert len(words) <= 75, f"{slide.part}: {slide.heading}: {len(words)} words"


def test_every_drawing_and_terminal_is_on_a_slide():
    text = "".join(file.read_text() for file in deck.SOURCES.glob("**/*.md"))
    assert {file.stem for file in deck.SOURCES.glob("drawings/*.svg")} == set(re.findall(r'drawing\("(.+?)"', text))
    assert {file.stem for file in deck.SOURCES.glob("terminal/*.txt")} == set(re.findall(r'terminal\("(.+?)"', text))


def test_the_figures_of_the_bench_are_those_of_the_platforms_readme():
    (costs,) = (
        slide.text.partition("Note:")[0] for slide in deck.slides() if slide.heading == "What it costs, measured"
    )
    figures = re.findall(r"[\d.]+(?= ms| MB)", costs)
    assert len(figures) == 10
    readme = (deck.paths.REPOSITORY / "platform" / "README.md").read_text()
    assert [figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d|\.\d)", readme)] == []


def test_a_block_ends_where_its_indentation_does(repository):
    lines = "@route\ndef one(\n    a,\n) -> int:\n    return 1\n\n\ndef two():\n    if 1:\n        2\n\n    return 3\n"
    (repository / "a.py").write_text(lines)
    assert deck.code("a.py", "@route") == "```python\n@route\ndef one(\n    a,\n) -> int:\n    return 1\n```"
    assert deck.code("a.py", "def two") == "```python\ndef two():\n    if 1:\n        2\n\n    return 3\n```"
    assert deck.code("a.py", "if 1") == "```python\nif 1:\n    2\n```"
    assert deck.code("a.py", "def two", until="if") == "```python\ndef two():\n    if 1:\n```"


def test_a_block_without_indentation_ends_at_an_empty_line(repository):
    (repository / "a.toml").write_text(CODE)
    assert deck.code("a.toml", "[services.ui]") == '```ini\n[services.ui]\nroutes = ["/"]\n```'
    assert deck.code("a.toml", "[services.users]").endswith('routes = ["/api/users"]\n```')


def test_the_end_of_a_function_in_lua_belongs_to_it(repository):
    (repository / "a.lua").write_text("register(function()\n    work()\nend)\n\nrest()\n")
    assert deck.code("a.lua", "register") == "```lua\nregister(function()\n    work()\nend)\n```"


@pytest.mark.parametrize(("lines", "columns", "size"), [(1, 10, 34), (5, 80, 25), (14, 40, 22), (7, 58, 34)])
def test_code_is_shown_as_large_as_it_fits(lines, columns, size):
    text = deck.fenced("console", "\n".join(["x" * columns] * lines))
    assert Slide("part", f"## A heading\n\n{text}").code_size == size


@pytest.mark.parametrize(
    ("file", "marker", "until", "says"),
    [
        ("b.toml", "[services.ui]", None, "0 lines"),
        ("a.toml", "[services.tokens]", None, "0 lines"),
        ("a.toml", "routes", None, "2 lines"),
        ("a.toml", "[services.ui]", "balance", "no line begins"),
    ],
)
def test_a_marker_that_is_missing_or_not_the_only_one_is_refused(repository, file, marker, until, says):
    (repository / "a.toml").write_text(CODE)
    with pytest.raises(BadSlide, match=says):
        deck.code(file, marker, until)


def test_a_drawing_and_a_terminal_that_are_missing_are_refused():
    with pytest.raises(BadSlide, match=r"nothing\.svg"):
        deck.drawing("nothing", "")
    with pytest.raises(BadSlide, match=r"nothing\.txt"):
        deck.terminal("nothing")
