"""The live demonstrations: scripts of commands, each with what it is for and what to look at.

They run on the stage that is up, under the probe's load. What they type is what a person would type. Only the new
versions are made behind the scenes, by adding some lines to a copy of the code: nobody has to edit in front of people.
"""

import dataclasses
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workshop import builds
from workshop.errors import WorkshopError
from workshop.probe import Ledger
from workshop.stage import Service, Stage

MESSAGES = "/api/messages"  # what the probe reads and posts to: the service that answers it is the one to play with
INSTANCE = "INSTANCE"  # in a command: one of the service's instances, chosen when it is typed
STORM = 8  # kills of the demonstration of chaos

ANOTHER = """
# Another version, made by `./workshop demo`.
"""
SICK = """

# A version that is no good, made by `./workshop demo`: it fails every second request.
_good, _requests = create_app, iter(range(2**62))


def create_app(*arguments):
    app = _good(*arguments)

    @app.before_request
    def fail():
        from flask import request

        if request.path.startswith("/api/") and next(_requests) % 2:
            return {"error": "This version is no good.", "request_id": request.headers["X-Request-ID"]}, 500

    return app
"""


@dataclass(frozen=True)
class Step:
    why: str
    command: str  # without ./workshop
    look: str
    seconds: int = 2  # that the load goes on before the next step, when nobody presses keys


@dataclass(frozen=True)
class Demo:
    title: str
    steps: Callable[[Stage, Service], list[Step]]
    holds: Callable[[Ledger], bool]  # what must be true of the ledger in the end
    promise: str  # the same in words


def service_of(stage: Stage) -> Service:
    """Return the service that reads and stores messages."""
    answering = {prefix: service for service in stage.services.values() for prefix in service.routes}
    return answering[max((p for p in answering if MESSAGES.startswith(p)), key=len)]


def build_with(service: Service, lines: str) -> str:
    """Build the service with these lines added to its code; return the version."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "code"
        shutil.copytree(service.folder, folder, ignore=builds.LEFT_OUT)
        with open(folder / "parley" / "__init__.py", "a", encoding="utf-8") as code:
            code.write(lines)
        return builds.build(dataclasses.replace(service, folder=folder))


def scale(stage: Stage, service: Service) -> list[Step]:
    name = service.name
    return [
        Step(
            "Everything that people read and write goes through one process.",
            f"scale {name}=1",
            f"the statistics page: the backend {name} has one row.",
        ),
        Step(
            "Three share it from now on. Each starts, is asked whether it is well, and registers itself.",
            f"scale {name}=3",
            'the rows that appear, and "Under the hood" on the page: the instances take turns.',
        ),
        Step(
            "And back. Who leaves finishes what is in its hands first: out of rotation, drained, ended.",
            f"scale {name}=1",
            "two rows are gone when the statistics page refreshes, every 2 s. The ledger has no failed request.",
        ),
    ]


def kill(stage: Stage, service: Service) -> list[Step]:
    name = service.name
    return [
        Step("Three instances, so that one can be missed.", f"scale {name}=3", "three green rows."),
        Step(
            "One of them is killed, without a warning: kill -9.",
            f"kill {INSTANCE}",
            "its row is gone when the statistics page refreshes, every 2 s, and back seconds later. No read fails.",
        ),
        Step(
            "Now all of them at once.",
            f"kill {name}",
            "503 for a second or two, in JSON: the page says so, and sends again what it could not.",
            seconds=5,
        ),
    ]


def upgrade(stage: Stage, service: Service) -> list[Step]:
    name, version = service.name, build_with(service, ANOTHER)
    return [
        Step("Three instances of the version that runs.", f"scale {name}=3", "the names: the version is in them."),
        Step(
            f"{version} takes over: start one, wait until it serves, drain and stop an old one; and so on.",
            f"upgrade {name} --to {version}",
            "the rows: never fewer than three are green.",
        ),
        Step("Back again, in the same way.", f"rollback {name}", "the ledger: no request has failed."),
    ]


def canary(stage: Stage, service: Service) -> list[Step]:
    name, version = service.name, build_with(service, SICK)
    return [
        Step("Three instances of the version that runs.", f"scale {name}=3", "three green rows."),
        Step(
            f"{version} passes its health check. It gets a tenth of the requests, to be watched.",
            f"canary {name} --to {version}",
            "the fourth row, with a smaller weight.",
            seconds=6,
        ),
        Step("How do the two do?", f"canary {name}", "the column 5xx: it is no good, whatever its health check says."),
        Step("Away with it: a decision on evidence.", f"abort {name}", "three rows, as before.", seconds=2),
    ]


def partial_failure(stage: Stage, service: Service) -> list[Step]:
    if missing := {"tokens", "users", "socketio"} - stage.services.keys():
        raise WorkshopError(
            f"{stage.name} has no service {', '.join(sorted(missing))} that could be away alone: "
            "this demonstration is for stage2."
        )
    return [
        Step(
            "Nobody can sign in or out without tokens. Who is signed in does not notice.",
            "stop tokens",
            "the page: chat on; then try to sign in, in another window.",
        ),
        Step("It comes back.", "start tokens", "signing in works again."),
        Step(
            "Without users, nobody comes and goes. Messages are read and posted.",
            "stop users",
            "the page: post something, and reload it.",
        ),
        Step("It comes back.", "start users", "the people on the page."),
        Step(
            "Without socketio there are no pushes: the pages fetch every three seconds.",
            "stop socketio",
            "the line on top of the page, and how long a message takes.",
        ),
        Step("It comes back.", "start socketio", "the line is gone."),
    ]


def chaos(stage: Stage, service: Service) -> list[Step]:
    name = service.name
    return [
        Step("Three instances, and somebody who kills one of them again and again.", f"scale {name}=3", "green rows."),
        *[Step(f"Kill {n} of {STORM}.", f"kill {INSTANCE}", "who is missed?", seconds=1) for n in range(1, STORM)],
        Step("The last one.", f"kill {INSTANCE}", "the ledger: nothing that was acknowledged is lost.", seconds=4),
    ]


def nothing_failed(ledger: Ledger) -> bool:
    return nothing_lost(ledger) and not ledger.failed() and not ledger.cut_off()


def nothing_lost(ledger: Ledger) -> bool:
    return ledger.is_counted and not ledger.lost and not ledger.doubled


def only_the_canary_failed(ledger: Ledger) -> bool:
    """A message that the sick version has refused was never acknowledged: it may be missing, others may not."""
    return nothing_lost(ledger) and all(answer.failure.startswith("500") for answer in ledger.failed())


DEMOS = {
    "scale": Demo("From one instance to three and back", scale, nothing_failed, "no request failed"),
    "kill": Demo("An instance dies", kill, nothing_lost, "no acknowledged message was lost or doubled"),
    "upgrade": Demo("Another version, and back", upgrade, nothing_failed, "no request failed"),
    "canary": Demo("A version on trial", canary, only_the_canary_failed, "only requests to the canary failed"),
    "partial-failure": Demo("One service away", partial_failure, nothing_failed, "no message went unread or unsent"),
    "chaos": Demo("A storm", chaos, nothing_lost, "no acknowledged message was lost or doubled"),
}


def typed(command: str, instances: list[str]) -> list[str]:
    """Return the words of a command, with one of the instances where it asks for one."""
    return [random.choice(instances) if word == INSTANCE else word for word in command.split()]  # noqa: S311
