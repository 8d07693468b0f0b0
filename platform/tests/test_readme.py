"""The README's commands, read from it and typed in its order, as by somebody who tries one after the other."""

import signal
import time
from collections.abc import Callable

import pytest
from tests.command_lines import in_text
from tests.terminal import Terminal
from tests.workshops import until

from workshop import paths

README = paths.REPOSITORY / "README.md"
POSTS = 50  # that the probe is given time for: about two seconds
CHANGED = "stage0-monolith/parley/health.py"  # what the reader edits before an upgrade


def commands() -> list[tuple[str, ...]]:
    """Return the words of those that begin a line, which are the ones in blocks."""
    lines = README.read_text().splitlines()
    return [command.words for command in in_text(README) if lines[command.line - 1].startswith(str(command))]


def until_interrupted(workshop, *words: str, seen: str, is_at_work: Callable[[], bool] = lambda: True) -> str:
    """Run a command that goes on; interrupt it once a text was seen and it is at work; return all that it shows."""
    terminal = Terminal(workshop, *words)
    assert terminal.read_until(seen), terminal.seen
    until(is_at_work, 10, f"{words} is at work")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until("\0")  # all that comes until its end
    assert terminal.end() == 0, terminal.seen
    assert "Traceback" not in terminal.seen
    return terminal.seen


def with_keys(workshop, *words: str) -> None:
    """Run a command that waits for a key before each step."""
    terminal = Terminal(workshop, *words)
    while terminal.read_until("ny key"):
        terminal.press(" ")
    assert terminal.end() == 0, terminal.seen


def status(workshop, *words: str) -> None:
    assert "monolith_v1_" in until_interrupted(workshop, *words, seen="UP")


def kill(workshop, command: str, name: str) -> None:
    shown = [instance["id"] for instance in workshop.instances("monolith")]
    workshop.run(command, next(one for one in shown if one.startswith(name.removesuffix("…"))))


def probe(workshop, *words: str) -> None:
    log = workshop.run_folder / "logs" / "haproxy.log"

    def is_at_work() -> bool:
        return log.read_text().count("POST /api/messages") > POSTS

    assert "longest silence" in until_interrupted(workshop, *words, seen=" s …", is_at_work=is_at_work)


def upgrade(workshop, *words: str) -> None:
    with open(workshop.repository / CHANGED, "a", encoding="utf-8") as file:
        file.write("# edited\n")
    assert "v2" in workshop.run(*words).stdout
    workshop.run("rollback", "monolith")


def canary(workshop, *words: str) -> None:
    until_interrupted(workshop, *words, seen="p99")
    workshop.run("abort", "monolith")


def slides(workshop, *words: str) -> None:
    until_interrupted(workshop, *words, "--port", "0", seen="Ctrl-C ends this")


def tour(workshop, *words: str) -> None:
    if "--serve" in words:
        until_interrupted(workshop, *words, "--port", "0", seen="Ctrl-C ends this")
    else:
        workshop.run(*words)


# Those that are not typed as they stand: they run until somebody interrupts them, wait for keys, or want a name, an
# edited file, or what the comment beside them says.
BY_HAND = {
    "status": status,
    "kill": kill,
    "probe": probe,
    "upgrade": upgrade,
    "canary": canary,
    "demo": with_keys,
    "evolve": with_keys,
    "slides": slides,
    "tour": tour,
}
NOT_HERE = {
    "test": "it would run itself",
    "bench": "it takes minutes: test_bench.py runs it",
}


@pytest.mark.timeout(900)  # seconds; measured: 106, and 300 with five other test runs beside it
def test_each_command_of_the_readme_works_in_its_order(copied_workshop, monkeypatch, print_figure):
    monkeypatch.chdir(copied_workshop.repository)  # where some of them write a file
    typed = commands()
    assert len(typed) > 20
    assert {*BY_HAND, *NOT_HERE} <= {words[0] for words in typed}
    started = time.monotonic()
    for words in typed:
        if words[0] not in NOT_HERE:
            BY_HAND.get(words[0], type(copied_workshop).run)(copied_workshop, *words)
    print_figure(f"{len(typed)} commands of the README: {time.monotonic() - started:.0f} s")
    assert copied_workshop.processes() == []
    assert not copied_workshop.run_folder.exists()
