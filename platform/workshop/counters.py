"""What became of requests, by the version that answered them: counted from HAProxy's log.

Its statistics know no percentiles, and forget an instance that is gone.
"""

import collections
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

# What `log-format` in haproxy.cfg.j2 writes: client, frontend, backend, instance, status, time until the answer began,
# and of what could be read as a request: method, path, id.
LINE = re.compile(
    r"\S+ \S+ (?P<service>\S+) (?P<instance>\S+) (?P<status>-?\d+) (?P<time>-?\d+) ms "
    r"(?:(?P<method>\S+) (?P<path>\S+) request_id=(?P<id>\S+))?"
)


@dataclass
class Counter:
    """The requests that one version has answered."""

    requests: int = 0
    failed: int = 0  # answered with 5xx, by the version or for it
    times: collections.Counter = field(default_factory=collections.Counter)  # milliseconds → answers

    def percentile(self, percent: int) -> int | None:
        """Return the milliseconds within which so many percent of the answers began; None while there are none."""
        rank = self.times.total() * percent / 100
        for time in sorted(self.times):
            rank -= self.times[time]
            if rank <= 0:
                return time
        return None


class Counters:
    """The counters of a service's versions since one of them, its canary, got its first request."""

    def __init__(self, log: Path, service: str, canary: str):
        self.log = Log(log)
        self.service = service
        self.canary = canary
        self.has_begun = False
        self.versions: dict[str, Counter] = collections.defaultdict(Counter)

    def update(self) -> None:
        """Count what has been logged since the last time."""
        for line in self.log.new_lines():
            found = LINE.match(line)
            # Ours are named <service>_<version>_<id>; a foreign instance is not, nor is <NOSRV>.
            name = found["instance"].split("_") if found and found["service"] == self.service else []
            if len(name) != 3:
                continue
            self.has_begun = self.has_begun or name[1] == self.canary
            if self.has_begun:
                self.count(self.versions[name[1]], int(found["status"]), int(found["time"]))

    @staticmethod
    def count(counter: Counter, status: int, time: int) -> None:
        counter.requests += 1
        counter.failed += status >= 500
        if time >= 0:  # -1: there was no answer, the client or the instance has ended before
            counter.times[time] += 1


class Log:
    """A log that the supervisor writes, and renames to `.1` when it has become too long."""

    def __init__(self, file: Path):
        self.file = file
        self.inode, self.position = 0, 0

    def new_lines(self) -> list[str]:
        """Return the lines written since the last call: at first, all there are."""
        try:
            with open(self.file, "rb") as current:
                inode, lines = os.fstat(current.fileno()).st_ino, []
                if inode != self.inode:
                    lines = self._rest_of_the_one_before(inode)
                    self.inode, self.position = inode, 0
                return lines + self._read(current)
        except FileNotFoundError:
            return []  # renamed in this very moment: the next call finds all

    def _rest_of_the_one_before(self, inode: int) -> list[str]:
        try:
            with open(self.file.with_name(f"{self.file.name}.1"), "rb") as before:
                if os.fstat(before.fileno()).st_ino == inode:
                    return []  # renamed since: it is the one that is being read
                return self._read(before)
        except FileNotFoundError:
            return []

    def _read(self, file) -> list[str]:
        """Return the whole lines from our position on; half a line stays for the next time."""
        file.seek(self.position)
        whole = file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        self.position += len(whole)
        return whole.decode(errors="replace").splitlines()
