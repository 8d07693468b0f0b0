"""The exercises as they are written, and the small parts of their harness."""

import re
from pathlib import Path

import pytest

from workshop import checking, exercises
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
        ("a.py", b"\0", "cannot be read"),
        ("a.toml", b"x = [\n", "cannot be read"),
        ("a.json", b"{", "cannot be read"),
        ("a.txt", b"\xff\xfe", "cannot be read"),
        ("a.txt", b" \n", "is empty"),
        ("a.txt", None, "is missing"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found = checking.problem_with(tmp_path / name)
    assert found == problem if problem is None else problem in found
