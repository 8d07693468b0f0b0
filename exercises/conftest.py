"""What all checks share: the learner's files, the running system, and how the first failure becomes a verdict."""

import traceback
from pathlib import Path

import pytest
from learner import Learner
from system import System

from workshop import checking, exercises
from workshop.verdict import CannotCheck, Hop, NotYet, Verdict, Wrong

OURS = Path(__file__).parent


def pytest_addoption(parser) -> None:
    parser.addoption("--work", type=Path, required=True, help="the folder with the learner's files")
    parser.addoption("--verdict", type=Path, required=True, help="where the first failure is written to")


@pytest.fixture
def work(pytestconfig) -> Path:
    """The folder with the learner's files."""
    return pytestconfig.getoption("work")


@pytest.fixture
def learner(work):
    """The learner's files, and the programs that run them; these are ended after the test."""
    made = Learner(work)
    yield made
    made.end_all()


@pytest.fixture(scope="session")
def exercise(pytestconfig):
    """What exercise.toml says."""
    return exercises.find(Path(pytestconfig.args[0]).name[:2])


@pytest.fixture(scope="session")
def stage(exercise):
    """The learner's running system, with as many instances as the exercise needs; afterwards as many as before."""
    system = System()
    wanted = {name: count for name, count in exercise.counts.items() if len(system.instances(name)) < count}
    with system.scaled(**wanted):
        yield system


def pytest_sessionfinish(session) -> None:
    """Say that the check has come to its end: the learner's code could end the process before, with any status."""
    checking.end_of(session.config.getoption("verdict")).touch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    file = item.config.getoption("verdict")
    if call.excinfo and not report.skipped and not file.exists():
        error = call.excinfo.value
        if not isinstance(error, NotYet | Wrong | CannotCheck):
            error = explain(error, call.excinfo.traceback, item.config.getoption("work"))
        if error:
            Verdict.of(error).save(file)
    return report


def explain(error: BaseException, frames, work: Path) -> NotYet | Wrong | None:
    """Return what an exception says of the learner's file, if it is there that it was raised; None if it is ours."""
    for frame in reversed(frames):
        if frame.path.is_relative_to(work):
            break
        if frame.path.is_relative_to(OURS):
            return None
    else:
        return None
    if isinstance(error, NotImplementedError):
        return NotYet(str(error) or f"line {frame.lineno + 1} of {frame.path.name}.")
    place = f"{exercises.shown(frame.path)}, line {frame.lineno + 1}"
    if isinstance(error, pytest.fail.Exception) and "Timeout" in str(error):
        what, seen = f"your code does not come to an end: it was stopped in {place}.", "time is over"
    else:
        what, seen = f"your code has raised an exception, in {place}.", f"{type(error).__name__}: {error}"
    log = "".join(traceback.format_exception(error)[-1:])
    return Wrong(
        what,
        hop=Hop.CODE,
        seen=seen,
        expected="an answer",
        show=f"sed -n {frame.lineno + 1}p {place.split(',')[0]}",
        log=log,
    )
