"""The probe: a steady load on a live Parley, and a ledger of what became of every request.

It speaks the application's public API, as any client does, and never repeats a request: what the system fails to
answer stands in the ledger. Messages are numbered, so that afterwards each acknowledged one can be looked for.
"""

import collections
import contextlib
import itertools
import secrets
import statistics
import threading
import time
from dataclasses import dataclass, field

import requests
import socketio

from workshop.errors import WorkshopError
from workshop.waiting import wait_until

TIMEOUT = 10  # seconds: longer than the system lets any request take, so that the answer is the system's own
PUSH_TIMEOUT = 2  # seconds for the last pushes to arrive
BACK_TIMEOUT = 30  # seconds for the system to be back when the load has ended
PAGE = 500  # messages per page when looking for them afterwards, the most that the API gives


@dataclass(frozen=True)
class Load:
    """How much, of each kind; the defaults are more than 50 GETs and 20 POSTs a second."""

    readers: int = 8
    reads: float = 7.5  # GETs a second of each reader
    writers: int = 8
    writes: float = 3  # POSTs a second of each writer
    listeners: int = 3  # open Socket.IO connections

    def __str__(self) -> str:
        return f"{self.readers * self.reads:.0f} GETs and {self.writers * self.writes:.0f} POSTs a second"


@dataclass(frozen=True)
class Answer:
    """What became of one request."""

    method: str
    at: float  # seconds since the probe's start
    took: float  # seconds
    instance: str | None
    failure: str | None  # None: it was answered as it should be
    is_cut_off: bool = False  # it failed after its answer had begun: nobody can take that back and ask another one
    request_id: str | None = None  # by which the logs know it


@dataclass
class Ledger:
    """Everything that was sent, and what became of it."""

    answers: list[Answer] = field(default_factory=list)
    acknowledged: dict[int, int] = field(default_factory=dict)  # number of the message → its id
    stored: collections.Counter = field(default_factory=collections.Counter)  # number → rows
    pushed: set[int] = field(default_factory=set)  # ids that reached a listener
    reconnects: int = 0
    duration: float = 0.0  # seconds that the load lasted
    is_counted: bool = False  # whether `stored` is known: not when the system did not come back

    def of(self, method: str) -> list[Answer]:
        return [answer for answer in self.answers if answer.method == method]

    def failed(self, method: str | None = None) -> list[Answer]:
        """Return what failed before an answer had begun."""
        return [a for a in self.answers if a.failure and not a.is_cut_off and method in (None, a.method)]

    def cut_off(self, method: str | None = None) -> list[Answer]:
        """Return what failed in the middle of its answer, which happens only when its instance ends."""
        return [a for a in self.answers if a.is_cut_off and method in (None, a.method)]

    @property
    def lost(self) -> list[int]:
        """The numbers of acknowledged messages that are not there."""
        return [number for number in self.acknowledged if not self.stored[number]]

    @property
    def doubled(self) -> list[int]:
        return [number for number, rows in self.stored.items() if rows > 1]

    @property
    def longest_silence(self) -> float:
        """The longest time, in seconds, in which nobody got a good answer."""
        good = sorted(answer.at + answer.took for answer in self.answers if not answer.failure)
        return max(later - earlier for earlier, later in itertools.pairwise([0.0, *good, self.duration]))

    def percentile(self, method: str, percent: int) -> float:
        """Return the time, in milliseconds, within which so many percent of the good answers came."""
        times = [1000 * answer.took for answer in self.of(method) if not answer.failure]
        return statistics.quantiles(times, n=100)[percent - 1] if len(times) > 1 else float("nan")


class Probe:
    """Runs the load in threads. Use it as a context manager; afterwards `ledger` is complete."""

    def __init__(self, url: str, load: Load | None = None):
        self.url = url.rstrip("/")
        self.load = load or Load()
        self.ledger = Ledger()
        self.numbers = itertools.count(1)
        self.stopping = threading.Event()

    def __enter__(self) -> "Probe":
        self.started = time.monotonic()
        self.since = int(time.time()) - 1
        self.name = f"probe-{secrets.token_hex(4)}"
        try:
            password = secrets.token_urlsafe(16)
            self.user_id, self.token = sign_up(self.url, self.name, password)
            self.listeners = [self._listen() for _ in range(self.load.listeners)]
        except (requests.RequestException, socketio.exceptions.ConnectionError) as error:
            raise WorkshopError(f"The probe cannot begin, {self.url} does not answer as it should: {error}") from None
        self.threads = [
            threading.Thread(target=self._run, args=(work, rate, number % 2 == 0))
            for work, rate, count in (
                (self._read, self.load.reads, self.load.readers),
                (self._write, self.load.writes, self.load.writers),
            )
            for number in range(count)
        ]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self.ledger.duration = time.monotonic() - self.started
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        wait_until(lambda: self.ledger.pushed.issuperset(self.ledger.acknowledged.values()), PUSH_TIMEOUT)
        for listener in self.listeners:  # in the background: one whose server is gone may wait for it, for 45 s
            threading.Thread(target=listener.shutdown, daemon=True).start()
        if exception[0] is None:
            self._count_stored()

    def run_for(self, seconds: float) -> None:
        """Let the load run so long."""
        self.stopping.wait(seconds)

    def _listen(self) -> socketio.Client:
        # handle_sigint: otherwise Ctrl-C would disconnect all clients first, and wait for each.
        options = {"reconnection_delay": 0.1, "reconnection_delay_max": 1, "handle_sigint": False}
        listener = socketio.Client(http_session=session(), **options)

        @listener.on("updated_model")
        def pushed(event: dict) -> None:
            if event["class"] == "Message":
                self.ledger.pushed.add(event["model"]["id"])

        @listener.on("disconnect")
        def disconnected(*reason) -> None:
            if not self.stopping.is_set():
                self.ledger.reconnects += 1

        listener.connect(self.url, transports=["websocket"])
        return listener

    def _run(self, work, rate: float, keep_alive: bool) -> None:
        """Send one request after the other, `rate` a second, on one connection or on a new one each."""
        start = time.monotonic()
        with contextlib.ExitStack() as stack:
            kept = stack.enter_context(session())
            for number in itertools.count():
                # An open-loop pace: time lost in a slow answer is made up for.
                if self.stopping.wait(max(0.0, start + number / rate - time.monotonic())):
                    return
                if keep_alive:
                    work(kept)
                else:
                    with session() as fresh:
                        fresh.headers["Connection"] = "close"
                        work(fresh)

    def _read(self, http: requests.Session) -> None:
        self._send(http, "GET", 200, params={"limit": 10})

    def _write(self, http: requests.Session) -> None:
        number = next(self.numbers)
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = self._send(http, "POST", 201, headers=headers, json={"source": f"{self.name} {number}"})
        if answer is not None:
            self.ledger.acknowledged[number] = answer.json()["id"]

    def _send(self, http: requests.Session, method: str, expected: int, **options) -> requests.Response | None:
        """Send one request and enter it; return the answer if it is the expected one."""
        start, response, instance, request_id, failure, is_cut_off = time.monotonic(), None, None, None, None, False
        try:
            # stream: it returns when the headers are there; the body is read when it is asked for.
            response = http.request(method, f"{self.url}/api/messages", timeout=TIMEOUT, stream=True, **options)
            instance, request_id = response.headers.get("X-Served-By"), response.headers.get("X-Request-ID")
            text = response.text
            if response.status_code != expected:
                failure = f"{response.status_code} {text[:120]}"
        except requests.RequestException as error:
            failure, is_cut_off = f"{type(error).__name__}: {error}"[:160], response is not None
        at, took = start - self.started, time.monotonic() - start
        self.ledger.answers.append(Answer(method, at, took, instance, failure, is_cut_off, request_id))
        return None if failure else response

    def _count_stored(self) -> None:
        """Look for every message that this probe has sent, once the system answers again."""
        url = f"{self.url}/api/messages?updated_since={self.since}&limit={PAGE}"
        with session() as http:
            while url:
                page = wait_until(lambda url=url: _page(http, url), BACK_TIMEOUT)
                if not page:
                    return
                for message in page["messages"]:
                    if message["user_id"] == self.user_id:
                        self.ledger.stored[int(message["source"].split()[1])] += 1
                following = page["_links"].get("next")
                url = following and self.url + following
        self.ledger.is_counted = True


def _page(http: requests.Session, url: str) -> dict | None:
    try:
        answer = http.get(url, timeout=TIMEOUT)
    except requests.RequestException:
        return None
    return answer.json() if answer.ok else None


def sign_up(url: str, nickname: str, password: str) -> tuple[int, str]:
    """Register a user and sign in; return the user's id and the token. Raises requests' exceptions."""
    with session() as http:
        user = http.post(f"{url}/api/users", json={"nickname": nickname, "password": password}, timeout=TIMEOUT)
        user.raise_for_status()
        token = http.post(f"{url}/api/tokens", auth=(nickname, password), timeout=TIMEOUT)
        token.raise_for_status()
    return user.json()["id"], token.json()["token"]


def session() -> requests.Session:
    """Return a session without a proxy between us and loopback."""
    made = requests.Session()
    made.trust_env = False
    return made
