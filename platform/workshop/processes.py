"""The processes of this platform: the environment they get, and how they are found again after an accident."""

import os
import signal
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from workshop import paths

# Stands in the environment of every process that a platform starts, and of no other: not in that of a shell in which
# somebody has set WORKSHOP_RUN_DIR.
MARK = "WORKSHOP_PLATFORM"
GRACE = 5  # seconds between SIGTERM and SIGKILL
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, `kill`, a terminal that was closed


def heed_interrupts() -> None:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, so that the command cleans up and ends.

    A SIGHUP that is ignored stays ignored: that is what `nohup` does.
    """

    def interrupt(number: int, _) -> None:
        _leave_closed_terminal(number)
        raise KeyboardInterrupt

    for number in INTERRUPTS:
        if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, interrupt)


@contextmanager
def not_interrupted() -> Iterator[None]:
    """Hold back interrupts until the block has ended. The block must be bounded in time."""
    received = []

    def hold_back(number: int, _) -> None:
        _leave_closed_terminal(number)
        received.append(number)

    handlers = {number: signal.signal(number, hold_back) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def _leave_closed_terminal(number: int) -> None:
    """Discard further output after SIGHUP: writing to a closed terminal raises OSError, also while we clean up."""
    if number != signal.SIGHUP:
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        for stream in (sys.__stdout__.fileno(), sys.__stderr__.fileno()):
            if stat.S_ISCHR(os.fstat(stream).st_mode):  # a terminal, not a file or a pipe
                os.dup2(nowhere.fileno(), stream)


@contextmanager
def interrupts_noted() -> Iterator[list[int]]:
    """Only note each interrupt meanwhile, in the list; afterwards, if there was one, raise KeyboardInterrupt.

    So there is no moment at which a second one could break off what the first one has begun.
    """
    came: list[int] = []
    handlers = {i: signal.signal(i, lambda number, _: came.append(number)) for i in INTERRUPTS}
    try:
        yield came
    finally:
        for interrupt, handler in handlers.items():
            signal.signal(interrupt, handler)
    if came:
        raise KeyboardInterrupt


def base_environment() -> dict[str, str]:
    """Return what every process gets: nothing of the caller's that could change it, such as a proxy."""
    return {
        "PATH": os.pathsep.join(
            [str(paths.NODE), str(paths.BIN), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/bin"]
        ),
        "HOME": os.path.expanduser("~"),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "WORKSHOP_RUN_DIR": str(paths.RUN),
        MARK: str(paths.RUN),
    }


def platform_environment() -> dict[str, str]:
    """Return what the platform's own processes get in addition: where their package lies."""
    return {"PYTHONPATH": str(paths.REPOSITORY / "platform")}


def left_over() -> list[psutil.Process]:
    """Return every process that belongs to this platform, however it got lost, apart from this one and its parents."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in of(paths.RUN) if process.pid not in mine]


def of(run_folder: Path) -> list[psutil.Process]:
    """Return every process of the platform whose run folder this is, whoever its parent is by now."""
    return marked(MARK, str(run_folder))


def marked(name: str, value: str) -> list[psutil.Process]:
    """Return every process that was started with this in its environment."""
    return [process for process in psutil.process_iter() if environment(process).get(name) == value]


def of_services(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that run the code of a service, as an instance or a worker: only these are told which service."""
    return [process for process in processes if "SERVICE" in environment(process)]


def environment(process: psutil.Process) -> dict[str, str]:
    """Return the environment that a process was started with; none if it is not for us to see."""
    try:
        return process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return {}  # gone meanwhile, or another user's: not ours


def memory(processes: Iterable[psutil.Process]) -> float:
    """Return what they take together, in MB (PSS): what several share, such as a library's code, counts once."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue  # gone meanwhile
    return total / 1e6


def end_left_over() -> list[str]:
    """End them; return what they were."""
    processes = left_over()
    described = [f"{process.name()} (process {process.pid})" for process in processes if process.is_running()]
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, GRACE)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, GRACE)
    return described


def _signal(method) -> None:
    try:
        method()
    except psutil.NoSuchProcess:
        pass  # it has ended by itself
