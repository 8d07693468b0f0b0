"""The sidecar of an instance that runs from a working tree: what `join --dev` starts.

link the files into the instance's folder → the life of an instance, as sidecar.py describes it
a file changes       → the same as SIGTERM: deregister, drain, stop; then from the beginning
it does not start    → wait for the next change: nothing else can help. The first time, exit: `join` shows why.
it dies later        → exit, as a sidecar does: the supervisor starts a new one
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

from workshop import builds
from workshop.logs import log_to_stdout
from workshop.sidecar import SIGNALS, Instance, Sidecar, log

POLL = 0.5  # seconds between two looks at size and time of each file: a folder shared with a VM's host sends no events
ENDS = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    log_to_stdout()
    sys.exit(run(Instance.load(Path(sys.argv[1]))))


def run(instance: Instance) -> int:
    """Run the working tree until SIGTERM; return the exit status."""
    tree, has_served = WorkingTree(instance), False
    while True:
        tree.link()
        # A child inherits the mask, which `Sidecar.run` sets once the service has started.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        sidecar = WorkingTreeSidecar(instance, tree)
        status = sidecar.run()
        has_served = has_served or sidecar.is_registered
        if sidecar.is_told_to_end:
            return status
        if status and not tree.has_changed():
            if sidecar.is_registered or not has_served:
                return status
            log.info("%s: waiting for a change", instance.name)
            while not tree.has_changed():
                if signal.sigtimedwait(ENDS, POLL):
                    return 0


class WorkingTree:
    """The files of a service as they are being edited, as links in the folder in which the instance runs."""

    def __init__(self, instance: Instance):
        self.folder = Path(instance.folder)
        self.sources = {place: Path(source) for place, source in instance.sources.items()}
        self.seen: dict[str, tuple[int, int]] = {}

    def link(self) -> None:
        """Make the links anew, and remember the files as they are now."""
        self.seen = self.look()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for inside, source in builds.files(self.sources).items():
            link = self.folder / inside
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)

    def has_changed(self) -> bool:
        return self.look() != self.seen

    def look(self) -> dict[str, tuple[int, int]]:
        """Return size and time of each file, without those of editors."""
        found = {}
        for inside, source in builds.files(self.sources).items():
            if source.name.startswith("#") or source.name.endswith("~"):
                continue
            try:
                status = os.stat(source)
            except FileNotFoundError:
                continue  # an editor replaces files
            found[inside] = (status.st_size, status.st_mtime_ns)
        return found


class WorkingTreeSidecar(Sidecar):
    """A sidecar that ends its instance in good order when a file of the working tree has changed."""

    def __init__(self, instance: Instance, tree: WorkingTree):
        super().__init__(instance)
        self.tree = tree
        self.is_told_to_end = False
        self.next_look = time.monotonic() + POLL

    def next_signal(self, timeout: float) -> int | None:
        """Return the next signal; SIGTERM when a file has changed; None when neither comes within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0, deadline - time.monotonic())
            received = super().next_signal(min(left, POLL))
            if received in ENDS:
                self.is_told_to_end = True
            if received:
                return received
            if time.monotonic() >= self.next_look:
                self.next_look = time.monotonic() + POLL
                if self.tree.has_changed():
                    log.info("%s: a file has changed", self.instance.name)
                    return signal.SIGTERM
            if time.monotonic() >= deadline:
                return None


if __name__ == "__main__":
    main()
