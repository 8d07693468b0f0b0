"""The processes of this platform: the environment they get, and how they are found again after an accident."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from workshop import paths

# Stands in the environment of every process that a platform starts, and of no other: not in that of a shell in which
# somebody has set WORKSHOP_RUN_DIR.
MARK = "WORKSHOP_PLATFORM"
GRACE = 5  # seconds between SIGTERM and SIGKILL
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the interrupt key, a `kill`, a terminal that is closed


def heed_interrupts() -> None:
    """Have each of them raise KeyboardInterrupt, so that what has begun is ended in good order."""
    for interrupt in INTERRUPTS:
        signal.signal(interrupt, signal.default_int_handler)


@contextmanager
def not_interrupted() -> Iterator[None]:
    """Let nobody interrupt us meanwhile: while we put everything in order."""
    handlers = {interrupt: signal.signal(interrupt, signal.SIG_IGN) for interrupt in INTERRUPTS}
    try:
        yield
    finally:
        for interrupt, handler in handlers.items():
            signal.signal(interrupt, handler)


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
