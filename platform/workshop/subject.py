"""A stage that is brought up for being measured, and the work that it is measured with.

The work is done over connections that are kept, through the application's public API, as its page does it.
"""

import base64
import contextlib
import http.client
import itertools
import json
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import socketio

from workshop import paths, processes
from workshop.errors import WorkshopError
from workshop.ports import HOST, free_port
from workshop.probe import session, sign_up
from workshop.stage import Stage
from workshop.waiting import wait_until

COMMAND_TIMEOUT = 90  # seconds for `up`, `scale` or `down`; measured: 4
TIMEOUT = 10  # seconds: longer than the system lets any request take
LOG_TIMEOUT = 5  # seconds for a line to be in a log
CONNECTIONS = 20  # of Socket.IO: each may send 50 events a second, and posting one after the other takes 1 to 10 ms
MESSAGE = "A message of *ordinary* length, as people write them when they chat with each other."

Action = Callable[[], None]  # does something once, and waits until it is done


@dataclass(frozen=True)
class Request:
    """A request, and the status with which it is answered."""

    method: str
    path: str
    status: int
    body: str | None = None


READ = Request("GET", "/api/messages?limit=20", 200)
POST = Request("POST", "/api/messages", 201, json.dumps({"source": MESSAGE}))
SIGN_IN = Request("POST", "/api/tokens", 200)


@dataclass
class Subject:
    """A stage in a run folder of its own, with a user who is signed in."""

    stage: Stage
    instances: dict[str, int]  # of each service

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> "Subject":
        """Bring it up, and sign a user in. Raises WorkshopError, and leaves nothing behind."""
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="bench-")), free_port()
        try:
            self._bring_up()
        except BaseException:  # the interrupt key too
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        """End it, whatever state it is in, and remove its folder; nobody can interrupt that."""
        with processes.not_interrupted():
            self._command("down", "--wipe")

    def _bring_up(self) -> None:
        self._command("up", self.name, "--port", str(self.port))
        self._command("scale", *(f"{service}={count}" for service, count in self.instances.items()))
        name, password = f"bench-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
        self.basic = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
        _user_id, self.token = sign_up(self.url, name, password)

    def _command(self, *arguments: str) -> None:
        try:
            done = subprocess.run(
                [*paths.LAUNCHER, *arguments],
                env=os.environ | {"WORKSHOP_RUN_DIR": str(self.folder)},
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT,
                start_new_session=True,  # the terminal's Ctrl-C is for us: it must not end the `down`
            )
        except subprocess.TimeoutExpired as error:
            raise WorkshopError(f"{self.name}: {error}. This machine is too busy to measure anything.") from None
        if done.returncode:
            raise WorkshopError(f"{self.name}: {done.stderr.removeprefix('Error: ').strip()}")

    def reading(self) -> contextlib.AbstractContextManager[Action]:
        """Give what reads the newest messages, as somebody who is signed in."""
        return self.requesting(READ)

    def posting(self) -> contextlib.AbstractContextManager[Action]:
        """Give what posts a message over HTTP."""
        return self.requesting(POST)

    @contextlib.contextmanager
    def requesting(self, request: Request, **headers: str) -> Iterator[Action]:
        """Give what sends a request: by http.client, which takes less of this machine than `requests`."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=TIMEOUT)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"} | headers

        def send() -> None:
            connection.request(request.method, request.path, request.body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != request.status:
                self._refuse(f"{request.method} {request.path}", f"{answer.status} {text.decode()}")

        with contextlib.closing(connection):
            yield send

    @contextlib.contextmanager
    def posting_over_socket(self) -> Iterator[Action]:
        """Give what posts a message over Socket.IO, each time over the next of several connections."""
        with contextlib.ExitStack() as stack:
            clients = []
            for _ in range(CONNECTIONS):
                client = socketio.Client(http_session=session(), reconnection=False)
                client.connect(self.url, transports=["websocket"])
                stack.callback(client.disconnect)
                clients.append(client)
            turns = itertools.cycle(clients)

            def send() -> None:
                acknowledgement = next(turns).call("post_message", ({"source": MESSAGE}, self.token), timeout=TIMEOUT)
                if "id" not in acknowledgement:
                    self._refuse("post_message", str(acknowledgement))

            yield send

    def _refuse(self, what: str, answer: str):
        raise WorkshopError(f"{self.name} answered {what} with {answer:.200}: see its logs after `up {self.name}`.")

    def hops(self) -> dict[str, int]:
        """Return how often each kind of request passes the load balancer until it is answered.

        A request has an id, the calls that it causes have the same one, and HAProxy writes a line about each of them.
        What the instances ask each other by themselves, every second, has ids of its own.
        """
        kinds = {"reading": READ, "posting over HTTP": POST, "signing in": SIGN_IN}
        ids = {kind: f"bench-{number}" for number, kind in enumerate(kinds)}
        for kind, request in kinds.items():
            authorization = self.basic if request is SIGN_IN else f"Bearer {self.token}"
            with self.requesting(request, **{"X-Request-ID": ids[kind], "Authorization": authorization}) as send:
                send()
        # Of an event HAProxy sees only the connection. The application gives it an id, and names it in its own log.
        earlier = self._events()
        with self.posting_over_socket() as send:
            send()
        (event,) = self._wait(lambda: self._events() - earlier)
        with self.requesting(READ, **{"X-Request-ID": "bench-last"}) as send:
            send()
        self._wait(lambda: " request_id=bench-last " in self._log("haproxy"))  # then all earlier lines are there, too
        lines = self._log("haproxy")
        hops = {kind: lines.count(f" request_id={name} ") for kind, name in ids.items()}
        return hops | {"posting over Socket.IO": 1 + lines.count(f" request_id={event} ")}

    def _events(self) -> set[str]:
        """Return the ids of the messages that were posted over Socket.IO."""
        return set(re.findall(r" (\S+) \S+ post_message 200 ", self._log("*")))

    def _log(self, program: str) -> str:
        files = (self.folder / "logs").glob(f"{program}.log")
        return "".join(file.read_text(errors="replace") for file in files)

    def _wait(self, condition: Callable):
        if not (found := wait_until(condition, LOG_TIMEOUT)):
            raise WorkshopError(f"{self.name} does not log its requests, so these cannot be followed: see its logs.py.")
        return found
