"""What a check says of code that no exercise expects, and what it leaves: with an exercise of the tests' own."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from exercises.conftest import OUR_OWN, assert_again, git, left_of_checks, what_is_there
from workshop import checking
from workshop.ports import free_port

DEADLINE = 20 + checking.TEARDOWN + 5  # seconds: that of the exercise, and those to end everything


@pytest.fixture(scope="module", autouse=True)
def begun(classroom):
    """The learner has the files of the exercise; the stage that it needs is up."""
    classroom.run("exercise", "start", "99")


@pytest.fixture
def file(classroom):
    """The learner's file, with the solution in it."""
    path = classroom.repository / "work" / OUR_OWN.name / "adding.py"
    path.parent.mkdir(parents=True, exist_ok=True)  # a jump that was interrupted may have put it aside
    shutil.copyfile(OUR_OWN / "solution" / "adding.py", path)
    return path


UNSTOPPABLE = """
import time
def add_one(x):
    while True:
        try:
            time.sleep(9)
        except BaseException:
            pass
"""
# What the learner has written, and what the check says of it.
ANSWERS = {
    "an endless loop": (
        "def add_one(x):\n    while True:\n        pass\n",
        "does not come to an end",
        "adding.py, line ",
    ),
    "one that cannot be interrupted": (UNSTOPPABLE, "did not end within 20 s", "line 6"),
    "a syntax error": ("def add_one(x:\n    return x\n", "is no valid Python", "line 1"),
    "an exception at import": ("import nothing_of_that_name\n", "ModuleNotFoundError", "line 1"),
    "an exception": ("def add_one(x):\n    return [][x]\n", "IndexError", "line 2"),
    "nothing but a comment": ("# nothing\n", "has no add_one", "the starter's names"),
    "other arguments": ("def add_one():\n    return 2\n", "takes other arguments", "0 positional arguments"),
    "a long message": ("def add_one(x):\n    raise ValueError('no\\n' * 300)\n", "ValueError", "line 2"),
    "a skipped test": ("import pytest\npytest.skip('later', allow_module_level=True)\n", "an exception", "Skipped"),
    "an end of the check": ("import pytest\npytest.exit('enough', returncode=0)\n", "was ended", "status 0"),
    "an end of the process": ("import os\nos._exit(0)\n", "was ended in the middle", "status 0"),
    "an exit": ("import sys\nsys.exit()\n", "SystemExit", "line 2"),
    "a wrong port": ("PORT", "does not come into rotation", "it listens on 127.0.0.1:"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_check_ends_in_time_and_says_what_happened(classroom, file, name):
    text, *sentences = ANSWERS[name]
    port = file.read_text().replace('int(os.environ["PORT"])', str(free_port()))
    file.write_text(port if text == "PORT" else text)
    started = time.monotonic()
    printed = classroom.run("exercise", "check", "99", expect=1).stdout
    assert time.monotonic() - started < DEADLINE
    assert printed.startswith("WRONG 99 Adding: ")
    assert len(printed.splitlines()) <= 24
    for sentence in sentences:
        assert sentence in printed


def test_what_a_check_has_started_is_gone_after_it(classroom, file):
    leave = 'import subprocess\nsubprocess.Popen(["sleep", "600"], start_new_session=True)\n'
    file.write_text(leave + file.read_text())
    classroom.run("exercise", "check", "99")
    assert left_of_checks(classroom) == []


def test_a_deleted_file_is_named(classroom, file):
    file.unlink()
    assert "adding.py is missing" in classroom.run("exercise", "check", "99", expect=1).stdout


@pytest.mark.parametrize(
    ("sent", "after"), [(signal.SIGINT, 0), (signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGHUP, 3)]
)
def test_an_interrupted_check_leaves_no_process_and_the_system_as_it_was(classroom, file, sent, after):
    before = what_is_there(classroom)
    process = classroom.popen("exercise", "watch", "99")
    assert "Checking" in process.stderr.readline()
    time.sleep(after)  # whatever it does then
    process.send_signal(sent)
    end(process)
    assert left_of_checks(classroom) == []
    assert_again(classroom, before)


def end(process: subprocess.Popen) -> None:
    """Wait for the end of a command that was interrupted; no later test is to meet it."""
    try:
        process.communicate(timeout=DEADLINE)
    finally:
        process.kill()


def test_a_second_check_at_the_same_time_is_refused(classroom, file, until):
    file.write_text("import time\ntime.sleep(2.5)\n" + file.read_text())
    first = classroom.popen("exercise", "check", "99")
    until(lambda: left_of_checks(classroom), 5, "the first one is at work")
    second = classroom.popen("exercise", "check", "99").communicate(timeout=DEADLINE)[0]
    reset = classroom.popen("exercise", "reset", "99").communicate(timeout=DEADLINE)[1]
    out, _ = first.communicate(timeout=DEADLINE)
    assert out.startswith("PASSED")
    assert "at work" in second
    assert "at work" in reset


def test_reset_begins_anew_and_keeps_what_there_was(classroom, file):
    file.write_text("# mine\n")
    said = classroom.run("exercise", "reset", "99").stdout
    backup = said.splitlines()[0].split()[-1].rstrip(".")
    assert (classroom.repository / backup / "adding.py").read_text() == "# mine\n"
    assert "TODO 1" in file.read_text()
    assert git(classroom, "status", "--porcelain") == ""


def test_watch_checks_again_when_a_file_is_saved(classroom, file):
    solution = file.read_text()
    file.write_text("def add_one(x):\n    return x\n")
    process = classroom.popen("exercise", "watch", "99")
    while "Ctrl-C" not in (line := process.stdout.readline()):
        assert line, process.communicate()
    file.write_text(solution)
    out, _ = process.communicate(timeout=DEADLINE)
    assert "PASSED 99 Adding" in out
    assert process.returncode == 0


def test_hints_come_one_at_a_time_and_the_solution_when_it_is_confirmed_or_earned(classroom, file):
    file.write_text("def add_one(x):\n    return x\n")
    progress = classroom.repository / "work" / "progress.json"
    progress.unlink(missing_ok=True)
    assert "hint 1 comes before hint 2" in classroom.run("exercise", "hint", "99", "2", expect=1).stderr
    first, second, third = (classroom.run("exercise", "hint", "99").stdout for _ in range(3))
    assert "One more." in first
    assert "x + 1" in second
    assert second == third
    assert "One more." in classroom.run("exercise", "hint", "99", "1").stdout
    assert "hints 1 to 2" in classroom.run("exercise", "hint", "99", "3", expect=1).stderr
    assert "hints 1 to 2" in classroom.run("exercise", "hint", "99", "0", expect=1).stderr
    assert "return x + 1" in classroom.run("exercise", "solution", "99", "--yes").stdout
    classroom.popen("exercise", "solution", "99", stdin=subprocess.DEVNULL).communicate()
    shutil.copyfile(OUR_OWN / "solution" / "adding.py", file)
    classroom.run("exercise", "check", "99")
    assert "return x + 1" in classroom.run("exercise", "solution", "99").stdout
    assert "passed" in classroom.run("exercises").stdout


def test_without_its_stage_an_exercise_cannot_be_checked(classroom, file):
    classroom.run("down")
    refused = classroom.run("exercise", "check", "99", expect=2).stdout
    assert refused.startswith("CANNOT CHECK 99 Adding: stage0 has to be up for it")
    assert "doctor" in refused
    assert "no exercise '98'" in classroom.run("exercise", "check", "98", expect=2).stderr


def test_a_jump_puts_aside_what_was_there_and_says_where(classroom, file):
    """What was changed, the learner's files and the messages can all be had back."""
    readme = classroom.repository / "README.md"
    original = readme.read_text()
    readme.write_text("mine")
    (classroom.repository / "new.txt").write_text("mine, too")
    file.write_text("# mine\n")
    classroom.run("down")
    classroom.run("up", "stage2")
    said = classroom.run("exercise", "jump", "99").stdout
    assert git(classroom, "status", "--porcelain") == ""
    assert readme.read_text() == original
    assert "TODO 1" in file.read_text()
    assert classroom.status()["stage"] == "stage0"
    (backup,) = [line.split()[-1].rstrip(".") for line in said.splitlines() if "Your files" in line]
    assert (classroom.repository / backup / "adding.py").read_text() == "# mine\n"
    (data,) = [line.split()[-1].rstrip(".") for line in said.splitlines() if "databases" in line]
    assert Path(data, "messages.db").exists()
    git(classroom, "stash", "pop", "--index")
    assert readme.read_text() == "mine"
    assert (classroom.repository / "new.txt").read_text() == "mine, too"
    git(classroom, "stash", "push", "--include-untracked")


@pytest.mark.parametrize("after", [0.6, 2, 4])
def test_an_interrupted_jump_leaves_nothing_half_done_and_can_be_repeated(classroom, file, after):
    process = classroom.popen("exercise", "jump", "99")
    time.sleep(after)  # whatever it does then
    process.send_signal(signal.SIGTERM)
    end(process)
    assert git(classroom, "status", "--porcelain") == ""
    state = classroom.run_folder / "stage.json"
    assert state.exists() or classroom.processes() == []
    classroom.run("exercise", "jump", "99")
    assert "TODO 1" in file.read_text()


def test_a_jump_is_refused_in_the_middle_of_a_merge(classroom, file):
    readme = classroom.repository / "README.md"
    git(classroom, "checkout", "--quiet", "-b", "other")
    for branch in ("other", "master"):
        git(classroom, "checkout", "--quiet", branch)
        readme.write_text(branch)
        git(classroom, "commit", "--quiet", "--all", "--message", branch)
    subprocess.run(["git", "-C", classroom.repository, "merge", "other"], capture_output=True)
    assert "is not finished" in classroom.run("exercise", "jump", "99", expect=1).stderr
    git(classroom, "merge", "--abort")
