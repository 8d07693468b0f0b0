"""What all checks share: the learner's files, the running system, and how the first failure becomes a verdict."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from learner import Learner
from system import System

from workshop import checking, exercises
from workshop.verdict import PASSED, WRONG, CannotCheck, Hop, NotYet, Verdict, Wrong

OURS = Path(__file__).parent


def pytest_addoption(parser) -> None:
    parser.addoption("--work", type=Path, required=True, help="the folder with the learner's files")
    parser.addoption("--verdict", type=Path, required=True, help="where the first failure is written to")


def say(config: pytest.Config, sentence: str) -> None:
    """Tell the learner what is being tried."""
    with open(checking.steps_of(config.getoption("verdict")), "a", encoding="utf-8") as file:
        file.write(f"{sentence}\n")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item) -> None:
    items = item.session.items
    sentence = item.name.removeprefix("test_").replace("_", " ")
    say(item.config, f"{items.index(item) + 1}/{len(items)} {sentence}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with own_process():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with own_process():
        return (yield)


@contextmanager
def own_process() -> Iterator[None]:
    """Put back what the learner's code can change in this process, and the check and pytest need."""
    environ, environment, folder, path = os.environ, dict(os.environ), os.getcwd(), [*sys.path]
    try:
        yield
    finally:
        os.environ = environ  # noqa: B003 - the object itself may have been replaced
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[:] = path


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
def stage(exercise, pytestconfig):
    """The learner's running system, with as many instances as the exercise needs; afterwards as many as before."""
    system = System(lambda sentence: say(pytestconfig, f"    {sentence}"))
    wanted = {name: count for name, count in exercise.counts.items() if len(system.instances(name)) < count}
    with system.scaled(**wanted):
        yield system


def pytest_sessionfinish(session, exitstatus) -> None:
    """Say how the check has come to its end: the learner's code could end the process before, or have tests skipped."""
    passed = session.config.pluginmanager.get_plugin("terminalreporter").stats.get("passed", [])
    is_passed = exitstatus == 0 and len(passed) == session.testscollected > 0
    checking.end_of(session.config.getoption("verdict")).write_text(PASSED if is_passed else WRONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    file = item.config.getoption("verdict")
    if call.excinfo and not file.exists():
        error = call.excinfo.value
        while not isinstance(error, NotYet | Wrong) and isinstance(error.__context__, NotYet | Wrong):
            error = error.__context__  # which came first: then the system could not be put in order
        if not isinstance(error, NotYet | Wrong | CannotCheck):
            error = explain(error, call.excinfo.traceback, item.config.getoption("work"))
        if error:
            Verdict.of(error).save(file)
    return report


def explain(error: BaseException, frames, work: Path) -> NotYet | Wrong | None:
    """Return what an exception says of the learner's file; None if it is the check's own."""
    frame = innermost(frames, work)
    if not frame:
        return explain_call(error, work)
    if isinstance(error, NotImplementedError):
        return NotYet(str(error) or f"line {frame.lineno + 1} of {frame.path.name}.")
    file, line = exercises.shown(frame.path), frame.lineno + 1
    if isinstance(error, pytest.fail.Exception) and "Timeout" in str(error):
        sentence, seen = f"your code does not come to an end: it was stopped in {file}, line {line}.", "time is over"
    else:
        sentence = f"your code has raised an exception, in {file}, line {line}."
        seen = f"{type(error).__name__}: {error}"
    return Wrong(sentence, hop=Hop.CODE, seen=seen, expected="an answer", show=f"sed -n {line}p {file}")


def innermost(frames, work: Path):
    """Return the frame of the learner's in which something was raised, or in what it called; None if it is ours."""
    for frame in reversed(frames):
        if frame.path.is_relative_to(work):
            return frame
        if frame.path.is_relative_to(OURS):
            return None
    return None


def explain_call(error: BaseException, work: Path) -> Wrong | None:
    """Return what is wrong when the check could not call what it calls; None when it is something else."""
    file = next(iter(sorted(work.glob("*.py"))), work)
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        file = Path(error.obj.__file__ or "")
        sentence = f"{file.name} has no {error.name}: the check calls it by the name that it has in the starter."
    elif isinstance(error, TypeError) and re.match(r"[\w.]+\(\) (takes|missing|got) ", str(error)):
        sentence = (
            "a function of yours cannot be called as the check calls it: it takes other arguments in the starter."
        )
    else:
        return None
    if not file.is_relative_to(work):
        return None
    show = f"grep -n 'def ' {exercises.shown(file)}"
    return Wrong(sentence, hop=Hop.CODE, seen=str(error), expected="the starter's names and arguments", show=show)
