"""The exercises as they are written, and the small parts of their harness."""

import json
import os
import re
import warnings
from pathlib import Path

import pytest

from workshop import checking, exercises
from workshop.errors import WorkshopError
from workshop.verdict import CannotCheck, Hop, NotYet, Verdict, Wrong, expect

EXERCISES = exercises.all_of_them()
each = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.folder.name)
HEADINGS = ("Steps", "Look at", "Predict first, then look", "Go further", "The real thing")


def test_there_are_sixteen_in_four_parts():
    assert [one.number for one in EXERCISES] == [f"{number:02}" for number in range(1, 17)]
    assert [one.part for one in EXERCISES] == sorted(one.part for one in EXERCISES)
    assert {one.part for one in EXERCISES} == exercises.PARTS.keys()


@each
def test_an_exercise_is_complete(exercise):
    starter, solution = (files_in(exercise.folder / name) for name in ("starter", "solution"))
    assert starter == solution
    assert set(exercise.files) <= starter
    assert len(exercise.hints()) >= 3
    wrong = [answer for answer in (exercise.folder / "wrong").iterdir() if answer.is_dir()]
    assert len(wrong) >= 2
    for answer in wrong:
        first, *_ = (answer / "expected.txt").read_text().splitlines()
        assert first.startswith(f"WRONG {exercise.name}: ")
        changed = files_in(answer) - {"expected.txt"}
        assert changed
        assert changed <= set(exercise.files)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@each
def test_a_readme_says_what_to_do_and_its_links_lead_somewhere(exercise):
    text = (exercise.folder / "README.md").read_text()
    assert text.startswith(f"# {exercise.number} ")
    assert re.findall(r"(?m)^## (.+)$", text) == list(HEADINGS)
    assert "<details>" in text
    for link in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in link:
            assert (exercise.folder / link).exists(), link


def test_a_verdict_begins_with_its_heading_and_marks_the_hop():
    with pytest.raises(Wrong) as caught:
        expect(False, "It is gone.", hop=Hop.REGISTRY, seen="nothing", expected="a key", show="ls", log="one\n\ntwo")
    assert Verdict.of(caught.value).lines("04 Title") == [
        "WRONG 04 Title: It is gone.",
        "  first wrong hop   client → HAProxy → service → [etcd]",
        "  seen              nothing",
        "  expected          a key",
        "  look              ls",
        "  last lines of it",
        "    | one",
        "    | two",
    ]
    assert Verdict.of(caught.value).exit_code == 1
    assert Verdict.of(NotYet("TODO")).exit_code == 1
    assert Verdict.of(CannotCheck("Nothing is up.")).exit_code == 2


def test_a_verdict_fits_on_a_screen():
    wrong = Wrong(
        "It is.", hop=Hop.CODE, seen="1", expected="2", show="ls", log="\n".join("a" * 500 for _ in range(99))
    )
    lines = Verdict.of(wrong).lines("04 Title")
    assert len(lines) <= 20
    assert max(map(len, lines[1:])) <= 180
    assert len(lines[0]) <= 600


def test_a_verdict_survives_its_file(tmp_path):
    verdict = Verdict.of(Wrong("It is.", hop=Hop.BALANCER, seen="1", expected="2", show="ls"))
    verdict.save(tmp_path / "verdict")
    assert Verdict.load(tmp_path / "verdict") == verdict


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.py", b"x = 1\n", None),
        ("a.py", b"x = = 1\n", "is no valid Python"),
        ("a.py", b"\0", "has a NUL byte"),
        ("a.toml", b"x = [\n", "cannot be read"),
        ("a.json", b"{", "cannot be read"),
        ("a.txt", b"\xff\xfe", "is no UTF-8"),
        ("a.py", b"\xff\xfex\x00", "has a NUL byte"),
        ("a.txt", b"x\x00", "has a NUL byte"),
        ("a.py", "\ufeffx = 1\n".encode(), None),
        ("a.py", "# coding: latin-1\nx = 'ä'\n".encode("latin-1"), None),
        ("a.py", b"x = 1\r\n", None),
        ("a.py", b"x = '\\d'\n", None),
        ("a.py", b"x = " + b"-" * 100_000 + b"1\n", "nested too deeply"),
        ("a.toml", "\ufeffx = 1\n".encode(), None),
        ("a.json", "\ufeff{}".encode(), None),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.txt", b" \n", "is empty"),
        ("a.txt", None, "is missing"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings(action="error"):
        found = checking.problem_with(tmp_path / name)
    assert found == problem if problem is None else problem in found


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    assert checking.problem_with(tmp_path) == "is a folder, and has to be a file"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder for the learner's work, in place of the real one."""
    monkeypatch.setattr(exercises.paths, "REPOSITORY", tmp_path)
    for name, path in (("WORK", "work"), ("BACKUPS", "work/backups"), ("PROGRESS", "work/progress.json")):
        monkeypatch.setattr(exercises, name, tmp_path / path)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.mark.parametrize("call", [exercises.start, exercises.back_up])
@pytest.mark.parametrize("name", [".", "backups", "04-heartbeat"])
def test_a_file_where_a_folder_has_to_be_is_named(work, call, name):
    place = work / name
    if place.exists():
        place.rmdir()
    place.write_text("mine")
    with pytest.raises(WorkshopError, match="is not a folder"):
        call(exercises.find("04"))
    assert place.read_text() == "mine"


@pytest.mark.parametrize(
    "content", ["[]", "3", "null", '{"04": []}', '{"04": {"hints": "x"}}', '{"04": {"passed": 1}}', "{", "[" * 100_000]
)
def test_damaged_progress_is_one_sentence_for_what_is_wrong_and_one_for_what_to_do(work, content):
    (work / "progress.json").write_text(content)
    with pytest.raises(WorkshopError, match=r"work/progress.json is damaged\. Correct it"):
        exercises.progress()


def test_a_folder_called_progress_is_damaged_progress(work):
    (work / "progress.json").mkdir()
    with pytest.raises(WorkshopError, match="is damaged"):
        exercises.progress()


def test_progress_may_begin_with_a_byte_order_mark(work):
    (work / "progress.json").write_text('{"04": {"hints": 1}}', "utf-8-sig")
    assert exercises.progress() == {"04": {"hints": 1}}


def test_the_next_exercise_is_the_first_after_this_one_that_is_not_passed(work):
    def following(number: str, *passed: str) -> str | None:
        entries = {one: {"passed": "2026-01-01"} for one in passed}
        (work / "progress.json").write_text(json.dumps(entries))
        found = exercises.following(exercises.find(number))
        return found and found.number

    assert following("04", "04", "05") == "06"
    assert following("16", "16") == "01"
    assert following("16", *(one.number for one in EXERCISES)) is None


def test_a_file_that_is_changed_added_or_removed_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(exercises.paths, "REPOSITORY", tmp_path)
    for name in ("changed", "removed", "kept", "dated"):
        (tmp_path / name).write_text("before")
    before = exercises.files_of_the_repository()
    time = (tmp_path / "changed").stat()
    (tmp_path / "changed").write_text("behind")
    os.utime(tmp_path / "changed", ns=(time.st_atime_ns, time.st_mtime_ns))  # as if nothing had happened
    (tmp_path / "removed").unlink()
    (tmp_path / "added").write_text("new")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine").write_text("new")
    assert exercises.changed_files(before) == ["added", "changed", "removed"]
