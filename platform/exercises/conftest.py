"""A classroom: a copy of the repository in which learners work, and what has to be there after each check."""

import re
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
from tests.workshops import copy_of_the_repository

from workshop import processes
from workshop.waiting import wait_until

collect_ignore = ["99-adding"]
OUR_OWN = Path(__file__).with_name("99-adding")  # an exercise for the tests of the harness


@pytest.fixture(scope="module")
def classroom():
    """A copy of the repository with one exercise more, of which git knows every file."""
    with copy_of_the_repository() as made:
        shutil.copytree(OUR_OWN, made.repository / "exercises" / OUR_OWN.name)
        git(made, "init", "--quiet", "--initial-branch", "master")
        git(made, "add", "--all")
        git(made, "commit", "--quiet", "--message", "As it came")
        made.up()  # on a port of its own, which each jump keeps: the usual one is the learner's
        yield made


def git(workshop, *words: str) -> str:
    identity = ("-c", "user.name=learner", "-c", "user.email=learner@localhost")
    command = ["git", "-C", workshop.repository, *identity, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def what_is_there(workshop) -> dict:
    """Return all that a check has to leave as it was."""
    status = workshop.status()
    return {
        "tree": git(workshop, "status", "--porcelain"),
        "services": [(s["name"], s["routes"], s["version"], len(s["instances"])) for s in status["services"]],
        "registry": sorted(key for key in workshop.registry().entries() if not re.search("/(upstream|drained)/", key)),
        "processes": len(workshop.processes()),
    }


def assert_again(workshop, before: dict) -> None:
    """Assert that everything is as before, at the latest when what was deregistered has gone."""
    wait_until(lambda: what_is_there(workshop) == before, 10)
    assert what_is_there(workshop) == before


def left_of_checks(workshop) -> list[str]:
    """Return the processes in this classroom that are not the stage's: those of checks, and of their programs."""
    supervisor = psutil.Process(int((workshop.run_folder / "supervisor" / "supervisord.pid").read_text()))
    stage = {supervisor, *supervisor.children(recursive=True)}
    ours = processes.marked("WORKSHOP_RUN_DIR", str(workshop.run_folder))
    return [str(process) for process in ours if process not in stage]
