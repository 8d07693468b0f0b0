"""A check of a learner's work: pytest in a process of its own, ended at the latest when its time is over.

Whatever the learner's code does, nothing of it is left afterwards: all that a check starts has a mark in its
environment, by which it is found.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from workshop import exercises, lifecycle, paths, processes, state
from workshop.errors import WorkshopError
from workshop.exercises import Exercise
from workshop.verdict import CANNOT_CHECK, PASSED, WRONG, CannotCheck, Hop, NotYet, Verdict, Wrong
from workshop.waiting import wait_until

MARK = "WORKSHOP_CHECK"
TEST_TIMEOUT = 30  # seconds for one test of a check that does not say otherwise
TEARDOWN = 30  # seconds for a check that is interrupted to leave the system as it was: a roll back takes ten
ABORT = 2  # seconds to say where it was
PYTEST_REFUSES = 4  # wrong usage, before anything has begun
DOCTOR = "`./workshop doctor` says what is wrong with this machine."


def check(exercise: Exercise) -> tuple[Verdict, str]:
    """Check the learner's files; return the verdict, and all that pytest has printed."""
    try:
        exercises.progress()
        refuse_without_files(exercise)
        refuse_without_stage(exercise)
        with exercises.alone(), tempfile.TemporaryDirectory(prefix="check-") as folder:
            output, result = Path(folder, "output"), Path(folder, "verdict")
            status = _run(exercise, output, result)
            printed = output.read_text(errors="replace")
            return _verdict(exercise, status, result, printed), printed
    except (NotYet, Wrong, CannotCheck) as error:
        return Verdict.of(error), ""
    except WorkshopError as error:
        return Verdict(CANNOT_CHECK, error.message), ""
    except OSError as error:
        return Verdict(CANNOT_CHECK, f"{error}. {DOCTOR}"), ""


def _verdict(exercise: Exercise, status: int | None, result: Path, printed: str) -> Verdict:
    """Say what has come out of a check that ended with a status, None if it had to be ended."""
    if result.exists():
        return Verdict.load(result)
    end = end_of(result).read_text() if end_of(result).exists() else None
    if status == 0 and end == PASSED:
        return Verdict(PASSED, "well done.")
    if status is None or status == -signal.SIGABRT:
        late = f"the check did not end within {exercise.deadline} s"
        where = _last_place(exercise, printed)
        if not where:
            return Verdict(CANNOT_CHECK, f"{late}, and it was not in your files: is this machine too busy? {DOCTOR}")
        sentence = f"{late}: something goes on for ever{where}."
        if status is not None:
            sentence += f" It had to be killed: `./workshop exercise jump {exercise.number}` puts everything in order."
    elif (status and end) or status == PYTEST_REFUSES:
        last = next((line for line in reversed(printed.splitlines()) if line.startswith("E ")), "")
        return Verdict(CANNOT_CHECK, f"the check itself has failed. {DOCTOR}", log=last or printed)
    else:
        sentence = f"the check's process was ended in the middle, with status {status}, by something in your files."
    show = f"./workshop exercise check {exercise.number} -v"
    return Verdict(WRONG, sentence, Hop.CODE, seen="no result", expected="an end", show=show, log=printed)


def end_of(result: Path) -> Path:
    """Return the file by which a check says that it has come to its end."""
    return result.with_suffix(".ended")


def _last_place(exercise: Exercise, printed: str) -> str:
    """Return where in the learner's files Python was when it was killed, from what faulthandler has printed."""
    for file, line in re.findall(r'(?m)(?:File "|^)(/\S+?\.\w+)(?:", line |:)(\d+)', printed):
        if Path(file).is_relative_to(exercise.work):
            return f", at {exercises.shown(Path(file))}, line {line}"
    return ""


def refuse_without_files(exercise: Exercise) -> None:
    """Raise NotYet before the start; Wrong if a file is missing, empty, or cannot be read as what it is."""
    if not exercise.is_started:
        raise NotYet(f"you have not begun: `./workshop exercise start {exercise.number}`.")
    for name in exercise.files:
        file = exercise.work / name
        if problem := problem_with(file):
            raise Wrong(
                f"{exercises.shown(file)} {problem}.",
                hop=Hop.CODE,
                seen=f"{file.stat().st_size} bytes" if file.is_file() else "no such file",
                expected="the starter's file, with your lines in it",
                show=f"./workshop exercise reset {exercise.number}   # begins anew, and keeps what there is",
            )


def problem_with(file: Path) -> str | None:
    """Say what is wrong with a file as such; None if it can be read as what it is."""
    if not file.is_file():
        return "is missing"
    try:
        text = file.read_text()
        if not text.strip():
            return "is empty"
        match file.suffix:
            case ".py":
                compile(text, str(file), "exec")
            case ".toml":
                tomllib.loads(text)
            case ".json":
                json.loads(text)
    except SyntaxError as error:
        return f"is no valid Python: {error.msg}, in line {error.lineno}"
    except ValueError as error:  # no UTF-8, TOML or JSON
        return f"cannot be read: {error}"
    return None


def refuse_without_stage(exercise: Exercise) -> None:
    """Raise CannotCheck unless the stage that the exercise needs is up."""
    advice = f"`./workshop exercise jump {exercise.number}` brings it up and keeps your work. {DOCTOR}"
    try:
        up = state.load()
    except WorkshopError as error:
        raise CannotCheck(f"{exercise.needs} has to be up for it. {error.message} {advice}") from None
    if problem := lifecycle.remains():
        raise CannotCheck(f"{problem}: {advice}")
    if there := exercise.what_is_up_instead(up):
        raise CannotCheck(f"{exercise.needs} has to be up for it, and {there} is: {advice}")


def _run(exercise: Exercise, output: Path, result: Path) -> int | None:
    """Run the check to its end; return its exit status.

    When its time was over before, None if it has put everything in order, -SIGABRT if it had to be killed.
    """
    mark = secrets.token_hex(8)
    command = [
        *(sys.executable, "-m", "pytest", "-x", "--tb=short", "-p", "no:cacheprovider"),
        *("--rootdir", str(exercises.FOLDER), "-c", os.devnull),
        *(f"--timeout={TEST_TIMEOUT}", "--work", str(exercise.work), "--verdict", str(result), str(exercise.folder)),
    ]
    ours = {"PATH": processes.base_environment()["PATH"], MARK: mark, "PYTHONDONTWRITEBYTECODE": "1"}
    environment = os.environ | processes.platform_environment() | ours
    environment.pop("PYTEST_ADDOPTS", None)
    with open(output, "w") as file, _nothing_left(mark):
        process = subprocess.Popen(
            command, cwd=paths.REPOSITORY, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            return process.wait(exercise.deadline)
        except subprocess.TimeoutExpired:
            return _interrupt(process)
        except KeyboardInterrupt:
            print(f"Ending the check and putting everything in order, for {TEARDOWN} s at most …", file=sys.stderr)
            _interrupt(process)
            raise


def _interrupt(process: subprocess.Popen) -> int | None:
    """Have a check end in good order; if it does not, kill it, have it say where it was, and return its status."""
    with processes.not_interrupted():
        if _ends(process, signal.SIGINT, TEARDOWN):
            return None
        if not _ends(process, signal.SIGABRT, ABORT):
            process.kill()
        process.wait()
        return -signal.SIGABRT


def _ends(process: subprocess.Popen, sent: signal.Signals, patience: float) -> bool:
    process.send_signal(sent)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        return False
    return True


@contextmanager
def _nothing_left(mark: str) -> Iterator[None]:
    """Kill whatever has the mark, whoever its parent is by now."""
    try:
        yield
    finally:
        with processes.not_interrupted():
            wait_until(lambda: not _kill(processes.marked(MARK, mark)), processes.GRACE)


def _kill(left: list[psutil.Process]) -> list[psutil.Process]:
    """Kill them; return them, as some may have started others just before."""
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue  # it has ended by itself
    psutil.wait_procs(left, processes.GRACE)
    return left
