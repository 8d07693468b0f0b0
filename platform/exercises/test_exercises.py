"""The exercises, as learners do them: in a copy of the repository, against a stage that is up."""

import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from exercises.conftest import assert_again, git, left_of_checks, what_is_there
from workshop import exercises

EXERCISES = exercises.all_of_them()
JUMP = 60  # seconds within which the stage and the files of an exercise are ready


@pytest.fixture(scope="module", params=EXERCISES, ids=lambda exercise: exercise.folder.name)
def exercise(request, classroom):
    """An exercise to which the learner has just jumped, and the seconds that the jump took."""
    started = time.monotonic()
    classroom.run("exercise", "jump", request.param.number)
    return request.param, time.monotonic() - started


@pytest.fixture
def learner(classroom, exercise):
    return Desk(classroom, exercise[0])


class Desk:
    """Where a learner sits: the files of one exercise, in the copy of the repository."""

    def __init__(self, workshop, exercise):
        self.workshop, self.exercise = workshop, exercise
        self.folder = workshop.repository / "work" / exercise.folder.name

    def put(self, *folders: Path) -> None:
        """Have the files of these folders as one's own, those of the last one over the others."""
        shutil.rmtree(self.folder)
        for folder in folders:
            shutil.copytree(folder, self.folder, dirs_exist_ok=True)

    def check(self, expect: int) -> str:
        return self.workshop.run("exercise", "check", self.exercise.number, expect=expect).stdout


def test_a_jump_is_quick_and_gives_the_starter_in_a_clean_tree(exercise, learner, print_figure):
    what, took = exercise
    print_figure(f"jump to {what.number}: {took:.1f} s")
    assert took < JUMP
    assert git(learner.workshop, "status", "--porcelain") == ""
    assert not subprocess.run(["diff", "-r", what.folder / "starter", learner.folder]).returncode
    assert learner.workshop.status()["stage"] == what.needs


def test_the_starter_is_not_done_yet(learner):
    assert learner.check(1).startswith(f"NOT DONE YET {learner.exercise.name}: ")


def test_a_missing_or_empty_file_is_never_accepted(learner):
    for name in learner.exercise.files:
        learner.put(learner.exercise.folder / "solution")
        (learner.folder / name).write_text("\n")
        assert f"{name} is empty" in learner.check(1)
        (learner.folder / name).unlink()
        assert f"{name} is missing" in learner.check(1)


@pytest.mark.timeout(1200)  # seconds: a dozen checks, of which some wait for their own deadline
def test_each_wrong_answer_fails_with_a_text_of_its_own(learner):
    before = what_is_there(learner.workshop)
    told = {}
    for answer in sorted((learner.exercise.folder / "wrong").iterdir()):
        learner.put(learner.exercise.folder / "solution", answer)
        printed = learner.check(1)
        assert holds(printed, (answer / "expected.txt").read_text()), f"{answer.name}:\n{printed}"
        told[answer.name] = printed.splitlines()[0]
    assert len(told) >= 2
    assert len(set(told.values())) == len(told), told
    assert_again(learner.workshop, before)


def test_each_other_right_answer_passes(learner):
    for answer in sorted((learner.exercise.folder / "right").glob("*")):
        learner.put(learner.exercise.folder / "solution", answer)
        assert learner.check(0).startswith(f"PASSED {learner.exercise.name}"), answer.name


def holds(printed: str, expected: str) -> bool:
    """Tell whether lines hold the expected ones, in that order; `…` stands for anything."""
    parts = [part for line in expected.splitlines() for part in line.split("…")]
    return bool(re.search(".*".join(re.escape(part.strip()) for part in parts), printed, re.DOTALL))


def test_the_solution_passes(learner, print_figure):
    learner.put(learner.exercise.folder / "solution")
    started = time.monotonic()
    assert learner.check(0).startswith(f"PASSED {learner.exercise.name}")
    print_figure(f"check of {learner.exercise.number}: {time.monotonic() - started:.1f} s")
    assert left_of_checks(learner.workshop) == []


def test_the_solution_passes_with_one_core_busy_and_leaves_everything_as_it_was(learner, print_figure):
    before = what_is_there(learner.workshop)
    learner.put(learner.exercise.folder / "solution")
    started = time.monotonic()
    with busy_core():
        assert learner.check(0).startswith(f"PASSED {learner.exercise.name}")
    print_figure(f"check of {learner.exercise.number}, one core busy: {time.monotonic() - started:.1f} s")
    assert_again(learner.workshop, before)


@contextmanager
def busy_core():
    process = subprocess.Popen(["python3", "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
