"""What a check says about a learner's work, and how it says it: on one screen, the verdict first."""

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PASSED, NOT_YET, WRONG, CANNOT_CHECK = "PASSED", "NOT DONE YET", "WRONG", "CANNOT CHECK"
LINES = 10  # of a log: the whole verdict fits on a screen
ROWS, WIDTH = 3, 160  # of what was seen, and expected


class Hop(StrEnum):
    """Where the first thing went wrong, on the way of a request; CODE is the learner's own file, outside of any."""

    CLIENT = "client"
    BALANCER = "HAProxy"
    SERVICE = "service"
    REGISTRY = "etcd"
    QUEUE = "queue"
    DATABASE = "database"
    CODE = "your file"


WAY = [Hop.CLIENT, Hop.BALANCER, Hop.SERVICE]  # and on to a store


class NotYet(Exception):
    """Something is still to be done, which is what one expects at the beginning."""


class CannotCheck(Exception):
    """The check itself cannot be done: nothing is known about the learner's work."""


class Wrong(Exception):
    """The learner's work does not do what it is to do: at which hop, what was seen, and the command that shows it."""

    def __init__(self, sentence: str, *, hop: Hop, seen: str, expected: str, show: str, log: str = ""):
        super().__init__(sentence)
        self.details = {"hop": hop, "seen": seen, "expected": expected, "show": show, "log": log}


def expect(condition: object, sentence: str, **details: str) -> None:
    """Raise Wrong unless the condition is true."""
    if not condition:
        raise Wrong(sentence, **details)


@dataclass(frozen=True)
class Verdict:
    """The result of a check."""

    heading: str  # PASSED, NOT DONE YET, WRONG or CANNOT CHECK
    sentence: str
    hop: str = ""
    seen: str = ""
    expected: str = ""
    show: str = ""
    log: str = ""
    left: str = ""  # in what the stage is not as it was before the check

    @classmethod
    def of(cls, error: NotYet | Wrong | CannotCheck) -> "Verdict":
        match error:
            case NotYet():
                return cls(NOT_YET, str(error))
            case Wrong():
                return cls(WRONG, str(error), **error.details)
            case CannotCheck():
                return cls(CANNOT_CHECK, str(error))

    @property
    def exit_code(self) -> int:
        return {PASSED: 0, CANNOT_CHECK: 2}.get(self.heading, 1)

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(dataclasses.asdict(self), default=str), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "Verdict":
        return cls(**json.loads(file.read_text(encoding="utf-8")))

    def lines(self, title: str) -> list[str]:
        """Return what the learner reads."""
        shown = [f"{self.heading} {title}: {' '.join(self.sentence.split()):.500}"]
        if self.hop:
            shown.append(f"  first wrong hop   {_way(Hop(self.hop))}")
        for label, text in (("seen", self.seen), ("expected", self.expected), ("look", self.show)):
            if text := str(text):
                first, *others = [f"{line:.{WIDTH}}" for line in text.splitlines() if line.strip()][:ROWS] or [""]
                shown += [f"  {label:<17} {first}", *(f"{'':<20}{line}" for line in others)]
        if last := [line for line in self.log.splitlines() if line.strip()][-LINES:]:
            shown += ["  last lines of it", *(f"    | {line:.{WIDTH}}" for line in last)]
        shown += [f"  not restored      {line:.{WIDTH}}" for line in self.left.splitlines()[:ROWS]]
        return shown


def _way(hop: Hop) -> str:
    """Return the way of a request with the hop marked."""
    if hop is Hop.CODE:
        return f"[{hop}]"
    way = WAY if hop in WAY else [*WAY, hop]
    return " → ".join(f"[{one}]" if one is hop else one for one in way)
