"""Limits on a check, and on everything that it starts: tasks (processes and threads), memory and CPU time.

An answer can contain any mistake, `while True: os.fork()` too. Two mechanisms keep it from taking the machine down:

The watcher is the command that runs the check. It is the subreaper of its descendants (prctl(2)): a process whose
parent has ended becomes its child. So none leaves the tree, whatever its session, group or environment is. Every POLL
seconds the watcher adds up what the tree uses, and kills the whole tree when that is too much. It works for every
user and in every container, and it knows which limit was exceeded, so that the verdict can say it. But it is late, by a
POLL or more, and a process that forks and ends within the time of one look at it could escape every kill.

The control group is the kernel's own limit: no fork gets past it, and it kills everything inside at once. But it cannot
be had everywhere (see cgroup.py). Its limits are HARD times those of the watcher: the watcher is the one that decides.

RLIMIT_NPROC could replace neither: it does not bind root, and for any other user it counts all tasks, the stage's too.
But where an ordinary user has no control group, it is better than no hard limit: HARD times TASKS more than the user
has, when the check begins.

Two exercises deploy the learner's file: then the instances of the stage run it, as children of its supervisor. So the
watcher counts what the supervisor has started since the check began as well.
"""

import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from workshop import paths
from workshop.cgroup import Cgroup
from workshop.waiting import wait_until

# Measured over all sixteen solutions: at most 62 tasks, and 865 MB with three new instances of a service.
TASKS = 250
MEMORY = 1_500  # MB
HARD = 2  # times as much is what the control group allows
POLL = 0.1  # seconds between two looks; one takes 4 ms on a machine with 240 processes
KILL_TIMEOUT = 10  # seconds for everything to have ended after it was killed
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
TICKS = os.sysconf("SC_CLK_TCK")  # of CPU time in a second
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes


@dataclass(frozen=True)
class Process:
    """A line of /proc/<pid>/stat, see proc(5). psutil reads several files of each process for the same."""

    pid: int
    state: str
    parent: int
    group: int
    cpu: float  # seconds, with those of its children that have ended
    threads: int
    started: int  # ticks since the machine was booted
    memory: int  # bytes, resident
    image: int  # address of the stack: the kernel chooses one at random for each program, and a fork keeps it

    @classmethod
    def of(cls, pid: int, fields: list[bytes]) -> "Process":
        state, numbers = fields[0].decode(), [int(field) for field in fields[1:]]
        return cls(
            pid,
            state,
            parent=numbers[0],
            group=numbers[1],
            cpu=sum(numbers[10:14]) / TICKS,
            threads=numbers[16],
            started=numbers[18],
            memory=numbers[20] * PAGE,
            image=numbers[24],
        )

    @property
    def has_ended(self) -> bool:
        return self.state in "ZX"  # a zombie is only waiting for its parent to notice


class Confined:
    """A check that runs under limits; it begins and ends with a `with`, after which nothing of it is left."""

    def __init__(self, command: list[str], cpu: float, **options):
        """Have a command run with these options of Popen's; all of it may take `cpu` seconds of CPU time."""
        self.command, self.cpu, self.options = command, cpu, options

    def __enter__(self) -> "Confined":
        become_subreaper()
        self.reaped = _cpu_of_children()
        self.cgroup = Cgroup(HARD * TASKS, HARD * MEMORY * 10**6)
        try:
            self.process = subprocess.Popen(
                [*self.cgroup.prefix, *self.command], start_new_session=True, **self.options
            )
        except OSError:
            self.cgroup.remove()
            raise
        self.cgroup.take_in(self.process.pid)
        if os.getuid() != 0 and not self.cgroup:
            _limit_user(self.process.pid, HARD * TASKS)
        self.started = Process.of(self.process.pid, _stat(self.process.pid)).started
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        self.cgroup.remove()

    def excess(self) -> str | None:
        """Say which limit is exceeded; None if none is."""
        self.cgroup.find_scope(self.process.pid)
        ours, deployed = self._processes()
        for process in ours:
            if process.has_ended and process.parent == os.getpid() and process.pid != self.process.pid:
                os.waitpid(process.pid, os.WNOHANG)  # its parent ended before it did
        living = [process for process in ours + deployed if not process.has_ended]
        if sum(process.threads for process in living) > TASKS:
            return f"started more than {TASKS} processes and threads"
        if _memory(living) > MEMORY * 10**6:
            return f"took more than {MEMORY} MB of memory"
        if sum(process.cpu for process in living) + _cpu_of_children() - self.reaped > self.cpu:
            return f"used more than {self.cpu} s of CPU time"
        return None

    def kill(self) -> None:
        """Kill every process of the check; this is done when none is left."""
        self.cgroup.kill()
        _kill_all(lambda: self._processes()[0])
        self.process.wait()
        with suppress(ChildProcessError):  # all have been waited for
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def kill_deployed(self) -> None:
        """Kill every process that the stage's supervisor has started since the check began."""
        _kill_all(lambda: self._processes()[1])

    def _processes(self) -> tuple[list[Process], list[Process]]:
        """Return the processes of the check, and those that the stage's supervisor has started since it began."""
        children: dict[int, list[tuple[int, list[bytes]]]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and (fields := _stat(int(name))):
                children.setdefault(int(fields[1]), []).append((int(name), fields))
        new = [process for process in _below(_supervisor(), children) if process.started >= self.started]
        return _below(os.getpid(), children), new


def _limit_user(pid: int, more: int) -> None:
    """Let a process, and all that it starts, fork only until the user has so many tasks more than now."""
    ours = (process for process in psutil.process_iter(["uids", "num_threads"]) if process.info["uids"])
    count = sum(process.info["num_threads"] for process in ours if process.info["uids"].real == os.getuid())
    most = resource.prlimit(pid, resource.RLIMIT_NPROC)[1]
    wanted = count + more
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.prlimit(pid, resource.RLIMIT_NPROC, (limit, limit))


def become_subreaper() -> None:
    """Have every descendant whose parent ends become our child."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _supervisor() -> int:
    """Return the process id of the stage's supervisor; -1, which no process has, when there is none."""
    try:
        return int((paths.SUPERVISOR / "supervisord.pid").read_text())
    except (OSError, ValueError):
        return -1


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/<pid>/stat from the state on; none if the process has ended."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return []
    try:
        return os.read(file, 4096).rpartition(b")")[2].split()  # before it: the name, which can have brackets in it
    except ProcessLookupError:
        return []
    finally:
        os.close(file)


def _below(pid: int, children: dict[int, list[tuple[int, list[bytes]]]]) -> list[Process]:
    """Return all descendants of a process."""
    found, queue = [], [*children.get(pid, [])]
    while queue:
        found.append(Process.of(*queue.pop()))
        queue += children.get(found[-1].pid, [])
    return found


def _memory(processes: list[Process]) -> int:
    """Return about how many bytes processes take together: of a fork, only what it has more than its parent counts.

    How much they share is known exactly only to /proc/<pid>/smaps. While many processes fork, that takes seconds.
    """
    sizes = {(process.pid, process.image): process.memory for process in processes}
    return sum(max(0, process.memory - sizes.get((process.parent, process.image), 0)) for process in processes)


def _cpu_of_children() -> float:
    """Return the seconds of CPU time of our descendants that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _kill_all(find: Callable[[], list[Process]]) -> None:
    """Kill all processes that `find` finds, also those that they start meanwhile.

    They are stopped first, all of them. A stopped process neither forks nor takes the time that we need for the next
    look; and as long as it is there, a limit that is reached lets none of the others fork.
    """
    wait_until(lambda: not _signal([p for p in find() if p.state not in "TZX"], signal.SIGSTOP), KILL_TIMEOUT, poll=0)
    wait_until(lambda: not _signal([p for p in find() if not p.has_ended], signal.SIGKILL), KILL_TIMEOUT, poll=0)


def _signal(processes: list[Process], number: signal.Signals) -> bool:
    """Send a signal to processes, if there are any; tell whether there are.

    A process group gets it at once: none of it gets away by a fork meanwhile. But a process that the supervisor has
    only just forked is still in the supervisor's own group.
    """
    groups = {process.group for process in processes} - {os.getpgrp(), _group(_supervisor())}
    for send, targets in ((os.killpg, groups), (os.kill, [process.pid for process in processes])):
        for target in targets:
            with suppress(ProcessLookupError):  # it has ended by itself
                send(target, number)
    return bool(processes)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
