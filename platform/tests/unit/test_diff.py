"""The lesson between two stages: its table, what has become of each file, and how that is shown."""

from itertools import combinations

import lxml.html
import pytest
from click.testing import CliRunner

from workshop import lesson, lesson_page, stage
from workshop.commands import diff

LEAST_KEPT = 70  # percent of its lines that a moved resource keeps: else the diff shows a rewrite, not a move
REWRITTEN = {"tasks.py"}  # no move: stage 2 has threads where the others have Celery
STAGES = list(stage.stages())
each_stage = pytest.mark.parametrize("name", STAGES)
each_lesson = pytest.mark.parametrize("earlier, later", list(combinations(STAGES, 2)))


def changes_of(old, new):
    """Return what became of files whose lines are single letters: path → (kind, where it was)."""
    found = lesson.changes({p: list(text) for p, text in old.items()}, {p: list(text) for p, text in new.items()})
    return {change.path: (change.kind, change.old) for change in found}


# The table


@each_stage
def test_every_file_of_a_stage_belongs_to_exactly_one_topic(name):
    files = lesson.read(stage.folder(name))
    assert len(files) > 30
    for path in files:
        lesson.topic_of(path)  # raises an error that names the file


def test_the_table_names_nothing_that_is_not_there():
    paths = [path for name in STAGES for path in lesson.read(stage.folder(name))]
    for patterns in (lesson.TABLE["aside"], *(topic["files"] for topic in lesson.TOPICS.values())):
        assert [pattern for pattern in patterns if not any(lesson.matches(path, [pattern]) for path in paths)] == []
    assert set(lesson.TABLE["renames"]) <= set(paths)


def test_every_topic_says_why_it_changes_on_the_way_to_each_stage_and_what_that_costs():
    for topic in lesson.TOPICS.values():
        for name in STAGES[1:]:
            for text, most in ((topic[name]["why"], 4), (topic[name]["cost"], 2)):
                assert 1 <= text.count(". ") + 1 <= most and text.endswith(".")


@each_lesson
def test_a_moved_resource_keeps_most_of_its_lines(earlier, later, print_figure):
    moved = []
    for chapter in lesson.chapters(earlier, later):
        added, removed = (sum(getattr(change, what) for change in chapter.changes) for what in ("added", "removed"))
        print_figure(f"diff {earlier} → {later}, {chapter.topic}: {added} lines added, {removed} removed")
        moved += [change for change in chapter.changes if change.old and change.new and change.old != change.new]
    # The wiring, the settings, the schema and the requirements were everybody's: they are divided, not moved.
    resources = [change for change in moved if lesson.topic_of(change.old) != "platform"]
    assert len(resources) >= 15
    for change in resources:
        if change.kind == "changed":
            print_figure(f"    {change.places} keeps {change.percent_kept} % of its lines")
        assert change.percent_kept >= LEAST_KEPT or lesson.name_of(change.old) in REWRITTEN, change.places


# What has become of a file


def test_unchanged_moved_changed_new_and_gone_files_are_told_apart():
    old = {"common/auth.py": "a", "parley/markup.py": "b", "parley/links.py": "c", "parley/worker.py": "d"}
    new = {
        "common/auth.py": "a",
        "messages/parley/markup.py": "b",
        "messages/parley/links.py": "ce",
        "common/seen.py": "f",
    }

    assert changes_of(old, new) == {
        "common/auth.py": ("unchanged", "common/auth.py"),
        "messages/parley/markup.py": ("moved", "parley/markup.py"),
        "messages/parley/links.py": ("changed", "parley/links.py"),
        "common/seen.py": ("new", None),
        "parley/worker.py": ("gone", "parley/worker.py"),
    }


def test_several_services_take_over_one_file_but_none_that_stays_where_it_is():
    old = {"monolith/parley/__init__.py": "a", "ui/parley/__init__.py": "b"}
    new = {"ui/parley/__init__.py": "b", "users/parley/__init__.py": "b", "messages/parley/__init__.py": "a"}

    assert changes_of(old, new) == {
        "ui/parley/__init__.py": ("unchanged", "ui/parley/__init__.py"),
        "users/parley/__init__.py": ("changed", "monolith/parley/__init__.py"),
        "messages/parley/__init__.py": ("moved", "monolith/parley/__init__.py"),
    }


def test_of_two_files_with_the_name_it_comes_from_the_one_of_which_more_is_left():
    old = {"bridge/parley/api/users.py": "abxy", "monolith/parley/api/users.py": "abcd"}

    assert changes_of(old, {"users/parley/api/users.py": "abcde"})["users/parley/api/users.py"] == (
        "changed",
        "monolith/parley/api/users.py",
    )


def test_a_file_that_got_another_name_is_found_by_the_table():
    moved = changes_of({"monolith/parley/api/internal_users.py": "a"}, {"users/parley/api/internal.py": "a"})

    assert moved == {"users/parley/api/internal.py": ("moved", "monolith/parley/api/internal_users.py")}


def test_caches_and_libraries_are_no_files_of_a_stage(tmp_path):
    for path in ("parley/api.py", "parley/__pycache__/api.pyc", "ui/static/lib/socket.io.js", ".pytest_cache/x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"\xff\n")

    assert list(lesson.read(tmp_path)) == ["parley/api.py"]


# How it is shown


def run(*arguments):
    return CliRunner().invoke(diff.command, [str(argument) for argument in arguments])


def test_a_topic_is_explained_summed_up_and_shown_without_colour_where_there_is_no_terminal():
    shown = run("stage0", "stage2", "users").output

    parts = [
        "users: stage0-monolith → stage2-microservices",
        "\nstage1: ",
        "\n\nWhat it costs: ",
        "\n\nstage2: ",
        "moved, not a line changed\n  migrations/versions/ → users/migrations/versions/: 0003_keys_of_users.py\n",
        "parley/passwords.py → users/parley/passwords.py: 99 % of its lines kept, 1 new",
        "parley/presence.py → users/parley/presence.py: 97 % of its lines kept, 4 new",
        "common/seen.py: ",
        "--- stage0-monolith/parley/api/users.py\n+++ stage2-microservices/users/parley/api/users.py\n@@ ",
        "--- /dev/null\n+++ stage2-microservices/common/seen.py\n@@ ",
    ]
    places = [shown.index(part) for part in parts]
    assert places == sorted(places)
    assert "\x1b" not in shown
    assert "tests/" not in shown


def test_the_whole_lesson_has_all_topics_and_names_new_files_only():
    shown = run("stage0", "stage2").output

    assert all(f"{topic}: stage0-monolith → stage2-microservices" in shown for topic in lesson.TOPICS)
    assert "common/services.py: " in shown
    assert "/dev/null" not in shown


def test_a_terminal_gets_colours(monkeypatch):
    shown = []
    monkeypatch.setattr(diff.click, "echo_via_pager", shown.extend)
    run("stage0", "stage2", "tokens")

    assert "\x1b[31m-from .users import check_password\x1b[0m\n" in shown
    assert "\x1b[32m+from common import auth, services\x1b[0m\n" in shown


def test_tests_and_prose_are_shown_when_asked_for():
    shown = run("stage0", "stage2", "users", "--all").output

    assert "tests/test_users.py → users/tests/test_users.py" in shown
    assert "users/README.md" in shown


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["stage0", "stage7"], "There is no stage 'stage7': choose stage0 or "),
        (["stage2", "stage2"], "stage2 does not come after stage2: name the earlier stage first"),
        (["stage2", "stage0"], "stage0 does not come after stage2: name the earlier stage first"),
        (["stage0", "stage2", "celery"], "There is no topic 'celery': choose ui or tokens or users"),
        (["stage0", "stage2", "--html", "/proc/lesson.html"], "/proc/lesson.html cannot be written"),
        (
            ["stage0", "stage2", "--html", "/dev/null"],
            "/dev/null cannot be written: name a file in a folder that exists and is yours.",
        ),
    ],
)
def test_bad_input_gets_one_sentence(arguments, sentence):
    result = run(*arguments)

    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {sentence}")
    assert result.output.count("\n") == 1


def test_the_page_shows_every_line_side_by_side_and_loads_nothing(tmp_path):
    file = tmp_path / "lesson.html"
    result = run("stage0", "stage2", "--html", file)
    assert result.output == f"{file} is written: open it in a browser.\n"
    page = lxml.html.parse(str(file)).getroot()

    assert not page.xpath("//script | //link | //img | //iframe | //@src | //@style")
    assert all(address.startswith("#") for address in page.xpath("//@href"))
    assert not {"url(", "@import"} & set(page.findtext(".//style").split())
    for chapter in lesson.chapters("stage0", "stage2"):
        section = page.get_element_by_id(chapter.topic)
        assert [p.text_content() for p in section.findall("p")] == [
            text
            for step, why in chapter.why.items()
            for text in (f"{step} {why}", f"what it costs {chapter.cost[step]}")
        ]
        changed = [
            (len(t.xpath(".//td[@class='removed']")), len(t.xpath(".//td[@class='added']")))
            for t in section.findall("table")
        ]
        assert changed == [(change.removed, change.added) for change in chapter.of_kind("changed")]
        shown = [[code.text_content() for code in new.iter("code")] for new in section.findall("details")]
        assert shown == [change.after for change in chapter.of_kind("new")]


def test_a_program_on_the_page_stays_text():
    lines = ["<script>alert(1)</script>", "", "& {{ '</code>' }}"]
    change = lesson.Change(None, "ui/parley/page.html", [], lines)
    page = lxml.html.fromstring(
        lesson_page.render(
            "stage0", "stage1", [lesson.Chapter("ui", {"stage1": "<b>why</b>"}, {"stage1": "<i>"}, [change])]
        )
    )

    assert [code.text_content() for code in page.iter("code")] == lines
    assert page.find(".//section/p").text_content() == "stage1 <b>why</b>"
    assert not page.xpath("//script")
