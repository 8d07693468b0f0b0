"""What a check says of code that no exercise expects, and what it leaves: with an exercise of the tests' own."""

import fcntl
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from exercises.conftest import OUR_OWN, assert_again, git, left_of_checks, what_is_there
from workshop import checking, limits, restoring
from workshop.ports import free_port
from workshop.waiting import wait_until

DEADLINE = 20 + checking.ABORT + restoring.TIMEOUT + 5  # seconds: the exercise's, and those to end everything
STEP_TIMEOUT = 15  # seconds for a check to come to a step that it names


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
    "a changed environment": (
        "import os\nos.environ.clear()\ndef add_one(x):\n    return x\n",
        "1 and 1 are 2",
        "seen              1",
    ),
    "another folder": ("import os\nos.chdir('/')\ndef add_one(x):\n    return x\n", "1 and 1 are 2", "[your file]"),
    "no search path": ("import sys\nsys.path.clear()\ndef add_one(x):\n    return x\n", "1 and 1 are 2", "seen"),
    "a closed stream": ("import sys\nsys.stdout.close()\ndef add_one(x):\n    return x\n", "1 and 1 are 2", "seen"),
    "no modules": ("import sys\nsys.modules.clear()\n", "was ended in the middle", "no result"),
    "no environment": (
        "import os\nos.environ = None\ndef add_one(x):\n    return x\n",
        "1 and 1 are 2",
        "seen              1",
    ),
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


HIDDEN = """
import os, pathlib, subprocess, sys
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
pids = [subprocess.Popen(sleep, start_new_session=True).pid, subprocess.Popen(sleep, env={}).pid]
if os.fork() == 0:
    os.setsid()
    pathlib.Path(__file__).with_name("pids").write_text(" ".join(map(str, [*pids, os.getpid()])))
    os.execve(sleep[0], sleep, {})
"""


@pytest.mark.parametrize("end", ["", "os._exit(0)\n"], ids=["to its end", "in the middle"])
def test_what_a_check_has_started_is_gone_after_it(classroom, file, until, end):
    """Also what has no environment, a session of its own and a parent that has ended."""
    pids = file.with_name("pids")
    wait = "while not pathlib.Path(__file__).with_name('pids').exists():\n    pass\n"
    file.write_text(HIDDEN + wait + end + file.read_text())
    classroom.run("exercise", "check", "99", expect=1 if end else 0)
    assert not any(psutil.pid_exists(int(pid)) for pid in pids.read_text().split())
    assert left_of_checks(classroom) == []
    pids.unlink()


# It bounds itself, so that it does no harm where the limit fails: to 512 processes, for half a minute.
FORKS = "import os, time\nfor _ in range(9):\n    os.fork() or os.setsid()\ntime.sleep(30)\nos._exit(0)\n"


@pytest.mark.parametrize("command", ["check", "watch"])
def test_an_answer_that_forks_without_end_is_ended_and_the_verdict_says_so(classroom, file, command):
    before = what_is_there(classroom)
    file.write_text(FORKS)
    process = classroom.popen("exercise", command, "99")
    printed = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    end(process)
    assert printed.startswith(f"WRONG 99 Adding: your code started more than {limits.TASKS} processes and threads.")
    assert left_of_checks(classroom) == []
    assert_again(classroom, before)


# Waits until the check has changed the stage, and then does something.
MEANWHILE = """
import json, os, pathlib, signal, threading, time
def meanwhile():
    state = pathlib.Path(os.environ["WORKSHOP_RUN_DIR"], "stage.json")
    while json.loads(state.read_text())["counts"]["monolith"] != 2:
        time.sleep(0.02)
    {action}
if __name__ != "__main__":
    threading.Thread(target=meanwhile, daemon=True).start()
"""


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ("os._exit(0)", "was ended in the middle"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended in the middle"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "did not end within 20 s"),
    ],
)
def test_the_stage_is_restored_when_the_check_cannot_do_it(classroom, file, action, sentence):
    before = what_is_there(classroom)
    file.write_text(MEANWHILE.format(action=action) + file.read_text())
    process = classroom.popen("exercise", "check", "99")
    out, err = process.communicate(timeout=DEADLINE)
    assert sentence in out
    assert "./workshop scale monolith=1" in err
    assert "not restored" not in out
    assert left_of_checks(classroom) == []
    assert_again(classroom, before)


def test_what_could_not_be_restored_is_said(classroom, file):
    """Another command holds the lock, so that nothing can be scaled."""
    file.write_text(MEANWHILE.format(action="time.sleep(1); os._exit(0)") + file.read_text())
    with open(classroom.run_folder / "lock", encoding="utf-8") as lock:
        process = classroom.popen("exercise", "check", "99")
        read_until(process, "scale monolith=2")
        state = classroom.run_folder / "stage.json"
        assert wait_until(lambda: json.loads(state.read_text())["counts"]["monolith"] == 2, STEP_TIMEOUT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        out, _ = process.communicate(timeout=DEADLINE)
    assert "not restored      monolith has 2 instances instead of 1" in out
    assert "start afresh      ./workshop exercise jump 99 --keep-files" in out
    classroom.run("scale", "monolith=1")


@pytest.mark.parametrize("step", ["scale monolith=2", "scale monolith=1"])
def test_ctrl_c_while_the_check_changes_or_restores_the_stage_leaves_it_as_it_was(classroom, file, step):
    before = what_is_there(classroom)
    process = classroom.popen("exercise", "check", "99")
    read_until(process, step)
    time.sleep(0.5)  # in the middle of it
    for _ in range(3):  # someone who is impatient
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    end(process)
    assert left_of_checks(classroom) == []
    assert_again(classroom, before)


def read_until(process: subprocess.Popen, step: str) -> None:
    """Read what a check says that it tries, up to a step."""
    while step not in (line := process.stderr.readline()):
        assert line, process.communicate()


def test_an_answer_that_changes_the_repository_is_not_accepted(classroom, file):
    readme = classroom.repository / "README.md"
    original = readme.read_text()
    file.write_text(f"open({str(readme)!r}, 'a').write('mine')\n" + file.read_text())
    printed = classroom.run("exercise", "check", "99", expect=1).stdout
    assert printed.startswith("WRONG 99 Adding: files of the repository were changed while the check ran.")
    assert "seen              README.md" in printed
    readme.write_text(original)


def test_a_byte_order_mark_does_no_harm(classroom, file):
    file.write_text(file.read_text(), "utf-8-sig")
    classroom.run("exercise", "check", "99")


def test_a_check_says_what_it_tries_and_after_it_what_comes_next(classroom, file):
    process = classroom.popen("exercise", "check", "99")
    out, err = process.communicate(timeout=DEADLINE)
    assert "  1/2 it adds\n  2/2 it serves\n      ./workshop scale monolith=2\n" in err
    assert "next              ./workshop exercise start 01   # Run it, scale it" in out


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


def test_without_its_stage_the_check_names_the_command_that_brings_it_up_and_keeps_the_files(classroom, file):
    (classroom.repository / "new.txt").write_text("mine")
    classroom.run("down")
    refused = classroom.run("exercise", "check", "99", expect=2).stdout
    assert refused.startswith("CANNOT CHECK 99 Adding: it needs stage0. No stage is up.")
    assert "no exercise '98'" in classroom.run("exercise", "check", "98", expect=2).stderr
    classroom.run("up", "stage2")
    refused = classroom.run("exercise", "check", "99", expect=2).stdout
    assert refused.startswith("CANNOT CHECK 99 Adding: it needs stage0, and stage2 is up.")
    (command,) = re.findall("`./workshop (.+?)` brings up stage0 and keeps your files", refused)
    said = classroom.run(*command.split()).stdout
    assert "Your files stay as they are, in work/99-adding." in said
    assert (classroom.repository / "new.txt").read_text() == "mine"
    assert file.read_text() == (OUR_OWN / "solution" / "adding.py").read_text()
    classroom.run("exercise", "check", "99")
    (classroom.repository / "new.txt").unlink()


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
