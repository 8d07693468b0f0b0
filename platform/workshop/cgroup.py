"""A control group (cgroup): the kernel's own limits on a process and on everything that it starts.

There are three ways to get one, and places where there is none:

systemd runs            it makes a transient scope, for root and, with `--user`, for an ordinary user
root, without systemd   a folder below our own group's in /sys/fs/cgroup, of version 2 or 1, if that can be written to
anywhere else           no control group: the caller has to do without

See cgroups(7), systemd-run(1) and the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

import os
import secrets
import subprocess
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")  # version 2; of version 1, each controller is mounted in a folder of its own there
BOOTED = Path("/run/systemd/system")  # is there when systemd is process 1: sd_booted(3)
TRIAL_TIMEOUT = 5  # seconds for systemd to make a scope; measured: 0.1


class Cgroup:
    """A control group for one process, with at most so many tasks (processes and threads) and bytes of memory."""

    def __init__(self, tasks: int, memory: int):
        self.name = f"workshop-check-{secrets.token_hex(4)}.scope"
        self.prefix: list[str] = []  # what the command has to begin with, to run inside
        self.folder: Path | None = None
        if BOOTED.is_dir():
            limits = {"TasksMax": tasks, "MemoryMax": memory, "MemorySwapMax": 0}
            self.prefix = _systemd_run(self.name, limits)
        elif os.getuid() == 0:
            self.folder = _make(self.name, tasks, memory)

    def __bool__(self) -> bool:
        """Tell whether there is one."""
        return bool(self.prefix or self.folder)

    def take_in(self, pid: int) -> None:
        """Have a process inside that was started with our prefix."""
        if self.folder:
            (self.folder / "cgroup.procs").write_text(str(pid))

    def find_scope(self, pid: int) -> None:
        """Find out where systemd has made the scope: some time after the process was started."""
        if self.prefix and not self.folder:
            self.folder = next((folder for folder in _folders(pid) if folder.name == self.name), None)

    def kill(self) -> None:
        """Kill everything inside; where the kernel can't do that, nothing inside can start anything any more."""
        for file, value in (("cgroup.kill", "1"), ("pids.max", "0")):
            with suppress(OSError):  # Linux has cgroup.kill since 5.14, and only in version 2
                if self.folder:
                    (self.folder / file).write_text(value)

    def remove(self) -> None:
        """Remove it once everything inside has ended; systemd does that by itself."""
        if self.folder and not self.prefix:
            with suppress(OSError):  # a process that cannot be killed keeps it: it waits for a disk that is gone
                self.folder.rmdir()


def _systemd_run(name: str, limits: dict[str, int]) -> list[str]:
    """Return the words that run a command in a scope; none where systemd refuses, as it does without a session."""
    words = ["systemd-run", "--scope", "--quiet", "--collect", *(["--user"] if os.getuid() else [])]
    words += [f"--property={key}={value}" for key, value in limits.items()]
    try:
        done = subprocess.run([*words, "true"], capture_output=True, timeout=TRIAL_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [] if done.returncode else [*words, f"--unit={name}", "--"]


def _make(name: str, tasks: int, memory: int) -> Path | None:
    """Make a group below our own; None where we may not, or its processes cannot be limited."""
    for parent in _folders(os.getpid()):
        with suppress(OSError):  # version 2: some parents have these already, some may not give them to their children
            (parent / "cgroup.subtree_control").write_text("+pids +memory")
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / "pids.max").write_text(str(tasks))
        except OSError:
            folder.rmdir()
            continue
        with suppress(OSError):  # version 1 limits memory in another hierarchy: there the watcher is enough
            (folder / "memory.max").write_text(str(memory))
        return folder
    return None


def _folders(pid: int) -> list[Path]:
    """Return the folders of the groups that limit a process: that of version 2, and version 1's for processes."""
    try:
        lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []  # it has ended
    return [MOUNT / kind / path.lstrip("/") for _, kind, path in lines if kind in ("", "pids")]
