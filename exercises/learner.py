"""The learner's files: read, imported, or run as programs of their own."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil

from workshop import paths
from workshop.processes import base_environment
from workshop.verdict import Hop, NotYet, Wrong
from workshop.waiting import wait_until

LAST = 12  # lines of a program's output
ERROR = re.compile(r"(?m)^(?P<type>[A-Za-z_][\w.]*)(: (?P<text>.*))?$")


class Learner:
    """What a check does with the learner's files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.programs: list[Program] = []

    def path(self, name: str) -> Path:
        return self.folder / name

    def text(self, name: str) -> str:
        """Return a file. Raises NotYet as long as there is a TODO in it."""
        refuse_todo(self.path(name))
        return self.path(name).read_text("utf-8-sig")  # an editor of Windows may begin it with a byte order mark

    def toml(self, name: str) -> dict:
        """Return a file as a table. Raises NotYet as long as there is a TODO in it."""
        return tomllib.loads(self.text(name))

    def load(self, name: str) -> ModuleType:
        """Import a file, anew each time."""
        spec = importlib.util.spec_from_file_location(f"learner_{Path(name).stem}", self.path(name))
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
        spec.loader.exec_module(module)
        return module

    def start(self, name: str, *arguments: str, **environment: str) -> "Program":
        """Start a Python file that goes on; it is ended after the test at the latest."""
        return self.launch([sys.executable, str(self.path(name)), *map(str, arguments)], self.folder, **environment)

    def launch(self, command: list[str], folder: Path, **environment: str) -> "Program":
        """Start a program in any language that goes on; it is ended after the test at the latest."""
        self.programs.append(Program(self, command, folder, _environment(environment)))
        return self.programs[-1]

    def end_all(self) -> None:
        for program in self.programs:
            program.end()

    def refuse_error(self, printed: str, command: list[str]) -> None:
        """Raise NotYet or Wrong when a program has printed a traceback that ends it."""
        _, begin, trace = printed.rpartition("Traceback (most recent call last):\n")
        if not begin:
            return
        error = next((found for found in ERROR.finditer(trace) if not found[0].startswith(" ")), None)
        kind, text = (error["type"], error["text"] or "") if error else ("an exception", "")
        if kind == "NotImplementedError":
            raise NotYet(text or "a function is not written yet.")
        lines = [
            line for file, line in re.findall(r'File "(.+?)", line (\d+)', trace) if file.startswith(str(self.folder))
        ]
        place = f", in line {lines[-1]}" if lines else ""
        raise Wrong(
            f"{Path(command[1]).name} has raised an exception{place}.",
            hop=Hop.CODE,
            seen=f"{kind}: {text}",
            expected="that it goes on",
            show=self.shown(command),
            log=trace,
        )

    def shown(self, command: list[str]) -> str:
        """Return a command as the learner would type it, from the repository's folder."""
        words = [word.replace(sys.executable, ".venv/bin/python") for word in command]
        return "PYTHONPATH=platform " + " ".join(word.replace(f"{paths.REPOSITORY}/", "") for word in words)


def refuse_todo(file: Path) -> None:
    """Raise NotYet, with its text, as long as there is a TODO in a file."""
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if "TODO" in line:
            left = line[line.index("TODO") :].rstrip('"),]*/ ')
            raise NotYet(f"there is one left in {file.name}, line {number}. {left}")


class Program:
    """A program of the learner's that goes on."""

    def __init__(self, learner: Learner, command: list[str], folder: Path, environment: dict[str, str]):
        self.learner, self.command = learner, command
        self.was_killed = False
        self.file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by `end`
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=self.file, stderr=self.file, start_new_session=True
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def status(self) -> int | None:
        return self.process.poll()

    def output(self, lines: int = LAST) -> str:
        """Return the last lines that it has printed."""
        size = os.fstat(self.file.fileno()).st_size
        printed = os.pread(self.file.fileno(), size, 0).decode(errors="replace")
        return "\n".join(printed.splitlines()[-lines:])

    def until(self, condition: Callable, timeout: float):
        """Return what is true as soon as it is; None after `timeout` seconds, or when the program has ended."""
        found = wait_until(lambda: condition() or (self.has_ended and "ended"), timeout)
        if found == "ended":
            self.learner.refuse_error(self.output(100), self.command)
            return condition() or None
        return found

    def signal(self, number: int) -> None:
        if not self.has_ended:
            self.process.send_signal(number)

    def wait(self, timeout: float) -> int | None:
        """Return the exit status; None if it still runs after `timeout` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, timeout: float = 5) -> int:
        """End it with SIGTERM, and with SIGKILL if it has not ended within `timeout` seconds; return its status."""
        self.signal(signal.SIGTERM)
        if self.wait(timeout) is None:
            self.was_killed = True
            _kill_group(self.process)
        return self.process.wait()

    def end(self) -> None:
        """Kill it and whatever it has started in its process group."""
        _kill_group(self.process)
        self.process.wait()
        self.file.close()

    def listens_on(self) -> list[str]:
        """Return the addresses on which it accepts connections, or a process that it has started."""
        return listening(self.pid)


def listening(pid: int) -> list[str]:
    """Return the addresses on which a process accepts connections, or one that it has started."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        found = {c.laddr for process in family for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
    except psutil.NoSuchProcess:
        return []
    return sorted(f"{address.ip}:{address.port}" for address in found)


def _environment(more: dict[str, str]) -> dict[str, str]:
    platform = {"PYTHONPATH": str(paths.REPOSITORY / "platform"), "PYTHONDONTWRITEBYTECODE": "1"}
    return base_environment() | platform | {name: str(value) for name, value in more.items()}


def _kill_group(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of it has ended
