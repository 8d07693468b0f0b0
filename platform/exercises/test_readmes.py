"""The READMEs of the exercises: whoever does what the steps say, and writes the solution, sees what they show."""

import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exercises import steps
from exercises.conftest import git
from workshop import exercises, processes
from workshop.ports import free_port
from workshop.waiting import wait_until

EXERCISES = exercises.all_of_them()
SEEN_WITHIN = 15  # seconds: what programs in the background print comes a little later
LATER_WITHIN = 65  # seconds: a probe in another terminal goes on for a minute, then shows its ledger
A_WRONG_ANSWER = "WRONG"  # what a README shows of one is tested with the wrong answers

# What goes on until it is interrupted, or while other commands are typed, has a terminal of its own.
IN_ANOTHER_TERMINAL = re.compile(
    r"messages 10$|serve\.py|gunicorn|flask --app|draining/sidecar\.py|server\.mjs|probe --for"
)
AGAIN = "again: "  # the README's command with these words once more
IS_SERVED = "until curl -si http://127.0.0.1:8080/slow | grep -q 'x-served-by: slow'; do sleep 0.1; done"
HELLO_IS_SERVED = IS_SERVED.replace("slow", "hello")
# A command of etcdctl that is another one with etcd's v3 API, which the README has in the comment.
OF_V3 = re.compile(r"\./workshop etcdctl [^#]*# v3: (etcdctl .*)")
IN_FLIGHT = "until tail -n 1 /tmp/slow/events | grep -q begun; do true; done"
SAY = """say() {
    curl -s http://127.0.0.1:8080/api/users --json "{\\"nickname\\": \\"$1\\", \\"password\\": \\"correct horse\\"}";
    token=$(curl -s -u "$1:correct horse" -X POST http://127.0.0.1:8080/api/tokens | cut -d'"' -f4);
    curl -sf -H "Authorization: Bearer $token" http://127.0.0.1:8080/api/messages --json "{\\"source\\": \\"$2\\"}";
}""".replace("\n", " ")
MISTAKE = r"sed -i '/^def index/ { n; s/$/\n    if time.time_ns() % 4000 < 1000: raise RuntimeError/ }' "
# What the reader does by hand, or waits for, before the command with these words; by exercise.
BY_HAND = {
    ("04", "8080/hello"): [HELLO_IS_SERVED],
    ("04", "restart etcd"): [AGAIN + "registrar.py"],
    ("05", "8090/api/users"): ["until curl -s 127.0.0.1:8090/api/users; do sleep 0.1; done"],
    ("06", "tail -n 2"): ["until [ $(grep -c checked /tmp/slow/events) -ge 2 ]; do sleep 0.1; done"],
    ("06", "seconds=1"): [IS_SERVED],
    ("06", "seconds=4"): [
        "kill -INT -- -$OTHER",
        "until grep closed /tmp/slow/events; do sleep 0.1; done",
        AGAIN + "draining/sidecar.py",
        IS_SERVED,
        f"({IN_FLIGHT}; kill -INT -- -$OTHER) &",
    ],
    ("07", "5007/healthz"): ["until curl -s 127.0.0.1:5007/healthz; do sleep 0.1; done"],
    ("10", "messages?limit"): [SAY, "for n in 1 2 3; do say ann hello; say bob 'hello from bob 3'; done"],
    ("10", "5010/api/digest"): ["until curl -s 127.0.0.1:5010/healthz; do sleep 0.1; done"],
    ("15", "probe --for"): [MISTAKE + "stage2-microservices/messages/parley/api/messages.py"],
    ("15", "$decision"): ["git checkout stage2-microservices"],
    ("16", "5016/healthz"): ["until curl -s 127.0.0.1:5016/healthz; do sleep 0.1; done"],
    ("16", "5016/api/words"): [SAY, "say ann 'deploy deploy deploy'; say ann 'done late'"],
}


class Learner:
    """Somebody who does what a README says, in a copy of the repository in which nothing is up."""

    def __init__(self, workshop, exercise, terminals: steps.Terminals):
        self.workshop, self.exercise, self.terminals = workshop, exercise, terminals
        self.steps = steps.of(exercise.folder / "README.md")
        self.later = []  # how to see what other terminals print, and what it is to be
        self.port = free_port()  # the usual one is that of who runs the tests

    def do(self, step: steps.Step) -> None:
        """Do a step, and look for what the README shows; what another terminal shows comes later."""
        for command in self.before(step.command or ""):
            self.type(command)
        seen = self.type(step.command) if step.command else self.terminals.printed
        if step.command and step.command.startswith("./workshop exercise start"):
            work = self.workshop.repository / "work" / self.exercise.folder.name
            shutil.copytree(self.exercise.folder / "solution", work, dirs_exist_ok=True)
        if step.command and IN_ANOTHER_TERMINAL.search(step.command):
            self.later.append((seen, step.shown))
        elif not step.shown.startswith(A_WRONG_ANSWER):
            self.look_for(seen, step.shown, SEEN_WITHIN if step.command else LATER_WITHIN)

    def look_for(self, seen: Callable[[], str], shown: str, within: float) -> None:
        is_seen = wait_until(lambda: steps.holds(seen(), shown), within)
        assert is_seen, f"not seen:\n{shown}\nbut:\n{seen()}\nof all:\n{self.terminals.printed()}"

    def before(self, command: str) -> list[str]:
        for (number, words), commands in BY_HAND.items():
            if number == self.exercise.number and words in command:
                return [self.again(c.removeprefix(AGAIN)) if c.startswith(AGAIN) else c for c in commands]
        return []

    def again(self, words: str) -> str:
        return next(step.command for step in self.steps if step.command and words in step.command)

    def type(self, command: str) -> Callable[[], str]:
        command = self.here(command)
        is_other = IN_ANOTHER_TERMINAL.search(command)
        return self.terminals.type_in_another(command) if is_other else self.terminals.type(command)

    def here(self, command: str) -> str:
        """Return a command with this copy's address, folders and registry in place of those that the README has."""
        command = re.sub(r"(\./workshop up \w+)", rf"\1 --port {self.port}", command)
        if api := self.workshop.registry_api:
            command = re.sub(r"(\./workshop up \w+)", rf"\1 --registry {api}", command)
        if api == "v3":
            command = OF_V3.sub(r"./workshop \1", command)
        command = re.sub(r"(localhost|127\.0\.0\.1):8080", rf"\1:{self.port}", command)
        command = command.replace("/tmp/", f"{self.terminals.folder}/")  # noqa: S108
        command = re.sub(r"(\$PWD/)?(?<![\w.])\.run/", f"{self.workshop.run_folder}/", command)
        if re.search(r"\bADDRESS\b|\bETCD=", command):
            stores = self.workshop.status()["stores"]
            registry = next(store["address"] for store in stores if store["name"] == "registry")
            command = re.sub(r"\bADDRESS\b", registry, re.sub(r"(\bETCD=(https://)?)\S+", rf"\g<1>{registry}", command))
        return command


@pytest.fixture
def copy(classroom):
    """The copy of the repository as it came, with nothing up, and nothing left of it afterwards."""
    classroom.run("down", "--wipe")
    git(classroom, "checkout", ".")
    shutil.rmtree(classroom.repository / "work", ignore_errors=True)
    yield classroom
    classroom.run("down", "--wipe")
    for process in processes.marked("WORKSHOP_RUN_DIR", str(classroom.run_folder)):
        process.kill()  # what still runs in other terminals


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.folder.name)
def test_the_steps_lead_where_the_readme_says(copy, exercise, print_figure):
    with tempfile.TemporaryDirectory(prefix="steps-") as folder, steps.Terminals(copy, Path(folder)) as terminals:
        learner = Learner(copy, exercise, terminals)
        started = time.monotonic()
        for step in learner.steps:
            learner.do(step)
        for seen, shown in learner.later:
            learner.look_for(seen, shown, LATER_WITHIN)
        assert f"PASSED {exercise.name}" in terminals.printed()
    print_figure(f"steps of {exercise.number}: {time.monotonic() - started:.0f} s")
