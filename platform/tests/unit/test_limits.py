"""The limits on a check, for root and for an ordinary user.

Each answer below bounds itself, so that it does no harm where a limit fails: it starts at most 256 processes, and each
of them ends after half a minute.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from workshop import limits, paths
from workshop.waiting import wait_until

ORDINARY = 64_001  # an id of a user that no account has
FORKS = "import os, time\nfor _ in range(8):\n    {each}\ntime.sleep(30)\nos._exit(0)\n"
ANSWERS = {
    "forks": (FORKS.format(each="os.fork()"), "started more than 60 processes and threads"),
    "forks in sessions of their own": (
        FORKS.format(each="os.fork() or os.setsid()"),
        "started more than 60 processes and threads",
    ),
    "threads": (
        "import threading, time\nfor _ in range(200):\n    threading.Thread(target=time.sleep, args=(30,)).start()\n",
        "started more than 60 processes and threads",
    ),
    "memory": ("import time\nkept = b'x' * 400_000_000\ntime.sleep(30)\n", "took more than 200 MB of memory"),
    "CPU time": (
        "import os, time\nos.fork()\nend = time.time() + 30\nwhile time.time() < end:\n    pass\n",
        "used more than 1 s of CPU time",
    ),
    "programs that hide": (
        "import os, subprocess, sys\nsleep = [sys.executable, '-c', 'import time; time.sleep(30)']\n"
        "subprocess.Popen(sleep, env={}, start_new_session=True)\n"
        "if os.fork() == 0:\n    os.setsid()\n    os.fork() or os.execve(sleep[0], sleep, {})\n",
        "None",
    ),
}
# What the command does that runs a check: wait until it is over, or until a limit is exceeded.
WATCHER = """
import sys
from workshop import cgroup, limits
from workshop.waiting import wait_until
limits.TASKS, limits.MEMORY = 60, 200
if "--no-cgroup" in sys.argv:
    cgroup.Cgroup.__init__ = lambda self, tasks, memory: vars(self).update(name="", prefix=[], folder=None)
with limits.Confined([sys.executable, "-c", sys.argv[1]], cpu=1) as confined:
    print(wait_until(confined.excess, 30, limits.POLL) if sys.argv[2] != "None" else confined.process.wait(30))
"""


@pytest.fixture
def packages():
    """A folder that every user can read, with what the limits are made of."""
    with tempfile.TemporaryDirectory(prefix="limits-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - it holds nothing secret
        for package in (Path(limits.__file__).parent, Path(psutil.__file__).parent):
            shutil.copytree(package, Path(folder, package.name))
        yield folder


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("user", ["as we are", "without a control group", "ordinary"])
def test_an_answer_beyond_a_limit_is_ended_with_all_that_it_has_started(packages, user, answer):
    code, excess = ANSWERS[answer]
    become = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]
    options = ["--no-cgroup"] if user == "without a control group" else []
    done = subprocess.run(
        [
            *(become if user == "ordinary" and os.getuid() == 0 else []),
            *(os.path.realpath(sys.executable), "-c", WATCHER, f"{code}# {packages}", excess, *options),
        ],
        env={"PYTHONPATH": packages, "PATH": os.environ["PATH"], "WORKSHOP_RUN_DIR": f"{packages}/run"},
        cwd=packages,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == ("0" if excess == "None" else excess), done.stderr
    assert [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == packages] == []


def test_what_a_fork_shares_with_its_parent_counts_once():
    def process(pid: int, parent: int, image: int, memory: int) -> limits.Process:
        return limits.Process(pid, "R", parent, 1, cpu=0, threads=1, started=0, memory=memory, image=image)

    program = process(2, parent=1, image=7, memory=50)
    forks = [process(3, parent=2, image=7, memory=50), process(4, parent=3, image=7, memory=80)]
    another = process(5, parent=2, image=8, memory=10)
    assert limits._memory([program, *forks, another]) == 50 + 0 + 30 + 10


def test_a_control_group_is_removed_after_the_check():
    with limits.Confined([sys.executable, "-c", "import time; time.sleep(30)"], cpu=10) as confined:
        assert confined.excess() is None
        folder = confined.cgroup.folder
    assert folder is None or wait_until(lambda: not folder.exists(), 10)  # None: there can be none here


def test_where_no_stage_is_up_only_the_processes_of_the_check_count(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "SUPERVISOR", tmp_path)
    with limits.Confined([sys.executable, "-c", "import time; time.sleep(30)"], cpu=10) as confined:
        _, deployed = confined._processes()
        assert deployed == []


DEPLOYMENT = """
import sys
from pathlib import Path
from workshop import limits, paths
from workshop.waiting import wait_until
limits.TASKS, paths.SUPERVISOR = 60, Path(sys.argv[1])
with limits.Confined([sys.executable, "-c", "import time; time.sleep(30)"], cpu=60) as confined:
    print(confined.excess(), flush=True)
    print(wait_until(confined.excess, 20), flush=True)
    confined.kill_deployed()
"""


def test_what_the_stage_runs_of_an_answer_counts_as_well(tmp_path):
    """An instance is no child of the check, but of the supervisor; what ran before does not count."""
    before = [sys.executable, "-c", "import time; time.sleep(30)"]
    deployed = [sys.executable, "-c", ANSWERS["forks"][0]]
    supervisor = f"import subprocess\nsubprocess.Popen({before})\ninput()\nsubprocess.Popen({deployed})\ninput()\n"
    environment = {"PYTHONPATH": str(paths.REPOSITORY / "platform"), "PATH": os.environ["PATH"]}
    watcher = [sys.executable, "-c", DEPLOYMENT, str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", supervisor], stdin=subprocess.PIPE, start_new_session=True) as ours:
        children = psutil.Process(ours.pid).children
        try:
            (tmp_path / "supervisord.pid").write_text(str(ours.pid))
            assert wait_until(children, 10)
            with subprocess.Popen(watcher, stdout=subprocess.PIPE, text=True, env=environment) as watching:
                assert watching.stdout.readline() == "None\n"
                ours.stdin.write(b"\n")
                ours.stdin.flush()
                assert "60 processes" in watching.communicate(timeout=60)[0]
            assert [child.cmdline() for child in children() if child.status() != psutil.STATUS_ZOMBIE] == [before]
        finally:
            os.killpg(ours.pid, signal.SIGKILL)
