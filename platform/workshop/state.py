"""What is up: written by `up`, read by every other command and by the platform's own processes."""

import dataclasses
import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass

from workshop import paths
from workshop.errors import WorkshopError
from workshop.files import write_atomically


@dataclass
class Up:
    """A stage that is up, or being brought up."""

    stage: str
    driver: str
    db: str
    ports: dict[str, int]  # public, internal, statistics, registry, registry_peer, queue
    versions: dict[str, str]  # service → the version that its instances run
    settings: dict[str, str]  # environment variable → the value it was given when the stage was brought up
    ready: bool = False  # `up` has seen it answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['public']}/"

    @property
    def internal_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['internal']}"

    @property
    def stats_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['statistics']}/"

    @property
    def registry(self) -> str:
        return f"127.0.0.1:{self.ports['registry']}"

    def save(self) -> None:
        write_atomically(paths.STATE, json.dumps(dataclasses.asdict(self), indent=2))


def load() -> Up:
    """Return what is up. Raises WorkshopError when nothing is."""
    try:
        return Up(**json.loads(paths.STATE.read_text()))
    except FileNotFoundError:
        raise WorkshopError("No stage is up: start one with `./workshop up stage0`.") from None


@contextmanager
def locked(what: str):
    """Hold the right to change what runs; raises WorkshopError, naming the holder, when another command has it."""
    paths.RUN.mkdir(parents=True, exist_ok=True)
    with open(paths.LOCK, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise WorkshopError(f"`./workshop {file.read().strip()}` is at work: try again when it is done.") from None
        file.truncate(0)
        file.write(f"{what} (process {os.getpid()})")
        file.flush()
        yield
