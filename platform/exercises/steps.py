"""The steps of an exercise's README, as commands and what they print, and the terminals in which they are typed."""

import os
import re
import shlex
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.command_lines import commands_of

from workshop.waiting import wait_until

TIMEOUT = 130  # seconds for a command: the longest check may take that
PROMPT = "$ "
# A fenced block, or a span of inline code that is a command of the workshop.
BLOCK = re.compile(r"(?ms)^( *)```(?P<language>\w*)\n(?P<block>.*?)^ *```$|(?P<span>`\./workshop [^`]+`)")
# What each run prints anew: a pattern that finds it in a README, and the one that stands for it.
VARIES = (
    (r"…", r".*?"),
    (r"(?<=_v\d_)[a-z0-9]{4}\b", r"[a-z0-9]{4}"),  # the end of an instance's name
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d"),
    (r"\b(?=[a-f]*\d)[0-9a-f]{4,}(?:-[0-9a-f]{4,})*", r"[0-9a-f-]+"),  # an id, or a large number
    (r"\b(?:0|(?:200|401|404|503)(?!,))\b(?![.,:]\d)", None),  # a status, or none: stays as it is
    (r"(?<![A-Za-z\d])\d(?:[\d.,:]*\d)?", r"\d(?:[\d.,:]*\d)?"),  # a number, a time, an address
    (r"\s+", r"\s+"),
)
ANY = re.compile("|".join(f"({found})" for found, _ in VARIES))
# Types what is written to it, in one and the same shell; job control is on, as at a real terminal.
LOOP = """
set -m
while IFS= read -r -u {pipe} line; do
    eval "$line" < /dev/null
    printf '\\nexit status %d, %d\\n' $? $((++typed))
    jobs > /dev/null
done
"""


@dataclass(frozen=True)
class Step:
    command: str | None  # None when a block shows only what was printed
    shown: str  # what is printed, or a part of it


def of(readme: Path) -> list[Step]:
    """Return what a README has its reader do in its steps, in their order."""
    section = re.search(r"(?ms)^## Steps\n(.*?)^## ", readme.read_text(encoding="utf-8"))[1]
    return [step for found in BLOCK.finditer(section) for step in _steps(found, readme)]


def _steps(found: re.Match, readme: Path) -> Iterator[Step]:
    if span := found["span"]:
        (command,) = commands_of(re.sub(r"\s+", " ", span), readme, 0)
        if command.is_whole:
            yield Step(str(command), "")
    elif not found["language"]:  # what is in a language is for the reader's editor
        block = textwrap.dedent(found["block"])
        shown, *typed = re.split(r"(?m)^\$ ", block)
        if shown:
            yield Step(None, shown)
        for one in typed:
            command, _, shown = re.sub(r"\\\n\s*", "", one).partition("\n")
            yield Step(command, shown)


def holds(printed: str, shown: str) -> bool:
    """Tell whether a text holds what a README shows, with any ids, numbers and times; `…` stands for anything."""
    pattern, end, shown = "", 0, shown.strip()
    for varying in ANY.finditer(shown):
        replacement = VARIES[varying.lastindex - 1][1]
        pattern += re.escape(shown[end : varying.start()])
        pattern += re.escape(varying[0]) if replacement is None else replacement
        end = varying.end()
    return bool(re.search(pattern + re.escape(shown[end:]), printed, re.DOTALL))


class Terminals:
    """A shell in which commands are typed one after the other, and others that go on beside it."""

    def __init__(self, workshop, folder: Path):
        self.folder = folder
        self.typed = self.others = 0
        here, self.pipe = os.pipe()
        environment = os.environ | {
            "WORKSHOP_RUN_DIR": str(workshop.run_folder),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "COLUMNS": "120",
            "PYTHONUNBUFFERED": "1",  # as at a terminal, where each line is seen at once
        }
        self.main = folder / "main.log"
        with open(self.main, "w", encoding="utf-8") as log:
            self.shell = subprocess.Popen(
                ["bash", "-c", LOOP.format(pipe=here)],
                cwd=workshop.repository,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(here,),
                start_new_session=True,
            )
        os.close(here)

    def type(self, command: str) -> Callable[[], str]:
        """Type a command, and wait for its end; return how to see what is printed from then on.

        Raises AssertionError when it does not exit with 0.
        """
        before = len(self.main.read_text(errors="replace"))
        os.write(self.pipe, f"{command}\n".encode())
        self.typed += 1
        ended = re.compile(rf"(?m)^exit status (\d+), {self.typed}$")
        status = wait_until(lambda: ended.search(self.main.read_text(errors="replace")), TIMEOUT)
        assert status and status[1] == "0", f"$ {command}\n{self.printed()}"
        return lambda: self.main.read_text(errors="replace")[before:]

    def type_in_another(self, command: str) -> Callable[[], str]:
        """Start a command that goes on; `$OTHER` is the process group that Ctrl-C reaches. Return as `type` does."""
        self.others += 1
        log = self.folder / f"other{self.others}.log"
        self.type(f"eval {shlex.quote(command)} > {log} 2>&1 & OTHER=$!")
        return log.read_text

    def printed(self) -> str:
        """Return what all of them have printed so far, one terminal after the other."""
        return "".join(log.read_text(errors="replace") for log in sorted(self.folder.glob("*.log")))

    def __enter__(self) -> "Terminals":
        return self

    def __exit__(self, *exception) -> None:
        self.shell.kill()
        self.shell.wait()
        os.close(self.pipe)
