"""A check of a learner's work: pytest in a process of its own, under limits, ended at the latest when its time is over.

The learner's code runs inside that process. So everything that has to hold whatever the code does is done by this one,
from outside: it kills the check and all that the check has started, and then it has the stage as it was before.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

from workshop import exercises, lifecycle, limits, paths, processes, restoring, state
from workshop.errors import WorkshopError
from workshop.exercises import Exercise
from workshop.lifecycle import Progress
from workshop.verdict import CANNOT_CHECK, PASSED, WRONG, CannotCheck, Hop, NotYet, Verdict, Wrong
from workshop.waiting import wait_until

TEST_TIMEOUT = 30  # seconds for one test of a check that does not say otherwise
ABORT = 2  # seconds for a check that is late to say where it was
PYTEST_REFUSES = 4  # wrong usage, before anything has begun
DOCTOR = "`./workshop doctor` says what is wrong with this machine."


@dataclass
class Run:
    """How a check has ended."""

    status: int | None = None  # its exit status; None if it had to be killed
    excess: str | None = None  # the limit that it exceeded
    is_late: bool = False
    changed: list[str] = field(default_factory=list)  # files of the repository
    left: list[str] = field(default_factory=list)  # in what the stage still differs


def check(exercise: Exercise, say: Progress) -> tuple[Verdict, str]:
    """Check the learner's files, and say what is being tried; return the verdict, and all that pytest has printed."""
    try:
        exercises.progress()
        refuse_without_files(exercise)
        refuse_without_stage(exercise)
        with exercises.alone(), tempfile.TemporaryDirectory(prefix="check-") as folder:
            output, result = Path(folder, "output"), Path(folder, "verdict")
            with processes.interrupts_noted() as interrupts:
                run = _run(exercise, output, result, interrupts, say)
            printed = output.read_text(encoding="utf-8", errors="replace")
            return replace(_verdict(exercise, run, result, printed), left="\n".join(run.left)), printed
    except (NotYet, Wrong, CannotCheck) as error:
        return Verdict.of(error), ""
    except WorkshopError as error:
        return Verdict(CANNOT_CHECK, error.message), ""
    except OSError as error:
        return Verdict(CANNOT_CHECK, f"{error}. {DOCTOR}"), ""


def _verdict(exercise: Exercise, run: Run, result: Path, printed: str) -> Verdict:
    """Say what has come out of a check."""
    end = end_of(result).read_text() if end_of(result).exists() else None
    show = f"./workshop exercise check {exercise.number} -v"
    if run.excess:
        sentence = f"your code {run.excess}. The check has killed all of it."
        expected = "less: these limits are for mistakes, no solution comes near them"
        return Verdict(WRONG, sentence, Hop.CODE, seen=run.excess, expected=expected, show=show)
    if run.changed:
        sentence = (
            "files of the repository were changed while the check ran. If your code did that, it must not. "
            "If you edited them, check again."
        )
        seen, expected = "\n".join(run.changed), f"changes below {exercises.shown(exercise.work)} only"
        return Verdict(WRONG, sentence, Hop.CODE, seen=seen, expected=expected, show="git status; git diff")
    if result.exists():
        return Verdict.load(result)
    if run.status == 0 and end == PASSED:
        return Verdict(PASSED, "well done.")
    if run.is_late:
        late = f"the check did not end within {exercise.deadline} s"
        where = _last_place(exercise, printed)
        if not where:
            return Verdict(CANNOT_CHECK, f"{late}, and it was not in your files: is this machine too busy? {DOCTOR}")
        sentence = f"{late}: something goes on for ever{where}."
    elif (run.status and end) or run.status == PYTEST_REFUSES:
        last = next((line for line in reversed(printed.splitlines()) if line.startswith("E ")), "")
        return Verdict(CANNOT_CHECK, f"the check itself has failed. {DOCTOR}", log=last or printed)
    else:
        sentence = f"the check's process was ended in the middle, with status {run.status}, by something in your files."
    return Verdict(WRONG, sentence, Hop.CODE, seen="no result", expected="an end", show=show, log=printed)


def end_of(result: Path) -> Path:
    """Return the file by which a check says that it has come to its end."""
    return result.with_suffix(".ended")


def steps_of(result: Path) -> Path:
    """Return the file in which a check says what it is trying."""
    return result.with_suffix(".steps")


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
    if file.is_dir():
        return "is a folder, and has to be a file"
    if not file.is_file():
        return "is missing"
    content = file.read_bytes()
    if not content.strip():
        return "is empty"
    if b"\0" in content:
        return "cannot be read, because it has a NUL byte: have your editor save it as UTF-8"
    try:
        match file.suffix:
            case ".py":
                with warnings.catch_warnings(action="ignore"):  # such as one about "\d"; they are the check's to show
                    compile(content, str(file), "exec")  # Python's own rules for the encoding: it may have a BOM
            case ".toml":
                tomllib.loads(content.decode("utf-8-sig"))
            case ".json":
                json.loads(content.decode("utf-8-sig"))
            case _:
                content.decode()
    except UnicodeDecodeError:
        return "is no UTF-8: have your editor save it in that encoding"
    except SyntaxError as error:
        place = f", in line {error.lineno}" if error.lineno else ""
        return f"is no valid Python: {error.msg}{place}"
    except (RecursionError, MemoryError):
        return "cannot be read: it is nested too deeply"
    except ValueError as error:  # no TOML or JSON
        return f"cannot be read: {error}"
    return None


def refuse_without_stage(exercise: Exercise) -> None:
    """Raise CannotCheck unless the stage that the exercise needs is up."""
    try:
        up = state.load()
    except WorkshopError as error:
        problem = error.message if paths.STATE.exists() else "No stage is up."
        raise CannotCheck(f"it needs {exercise.needs}. {problem} {advice(exercise)}") from None
    if problem := lifecycle.remains():
        raise CannotCheck(f"{problem}. {advice(exercise)}")
    if there := exercise.what_is_up_instead(up):
        raise CannotCheck(f"it needs {exercise.needs}, and {there} is up. {advice(exercise)}")


def _run(exercise: Exercise, output: Path, result: Path, interrupts: list[int], say: Progress) -> Run:
    """Run the check to its end, or end it; afterwards nothing of it is left, and the stage is as it was."""
    command = [
        *(sys.executable, "-m", "pytest", "-x", "--tb=short", "-p", "no:cacheprovider"),
        *("--rootdir", str(exercises.FOLDER), "-c", os.devnull),
        *(f"--timeout={TEST_TIMEOUT}", "--work", str(exercise.work), "--verdict", str(result), str(exercise.folder)),
    ]
    ours = {"PATH": processes.base_environment()["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    environment = os.environ | processes.platform_environment() | ours
    environment.pop("PYTEST_ADDOPTS", None)
    before, files, run = restoring.Picture.take(), exercises.files_of_the_repository(), Run()
    with open(output, "w", encoding="utf-8") as file:
        options = {"cwd": paths.REPOSITORY, "env": environment, "stdin": subprocess.DEVNULL}
        with limits.Confined(command, exercise.deadline, stdout=file, stderr=file, **options) as confined:
            _watch(confined, exercise.deadline, run, interrupts, Steps(steps_of(result), say))
    if interrupts:
        say("The check is ended.")
    run.left = restoring.put_back(before, say, confined.kill_deployed if run.excess else None)
    run.changed = exercises.changed_files(files)
    if interrupts and run.left:
        say(f"Not as before: {'; '.join(run.left)}.\n{advice(exercise)}")
    return run


def _watch(confined: limits.Confined, deadline: float, run: Run, interrupts: list[int], steps: "Steps") -> None:
    """Wait for the check's end, an interrupt, the deadline or an excess, whichever comes first."""

    def is_over() -> bool:
        run.status = confined.process.poll()
        run.excess = confined.excess()
        steps.say_new()
        return bool(run.status is not None or run.excess or interrupts)

    if not wait_until(is_over, deadline, limits.POLL):
        run.is_late = True
        confined.process.send_signal(signal.SIGABRT)  # faulthandler prints where it is
        wait_until(lambda: confined.process.poll() is not None, ABORT)


class Steps:
    """What the check says that it is trying, line by line."""

    def __init__(self, file: Path, say: Progress):
        self.file, self.say, self.number = file, say, 0

    def say_new(self) -> None:
        """Say what has been added since the last time."""
        lines = self.file.read_text(errors="replace").splitlines() if self.file.exists() else []
        for line in lines[self.number :]:
            self.say(f"  {line}")
        self.number = len(lines)


def advice(exercise: Exercise) -> str:
    """Say which command brings up the stage that an exercise needs."""
    return f"`./workshop exercise jump {exercise.number} --keep-files` brings up {exercise.needs} and keeps your files."
