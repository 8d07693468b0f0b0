"""HAProxy: its configuration file, and its Runtime API through the socket of its master process."""

import contextlib
import csv
import io
import os
import re
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

import jinja2

from workshop.errors import WorkshopError
from workshop.files import write_atomically
from workshop.registry import Backend, Upstream
from workshop.state import Frontends
from workshop.waiting import wait_until

COOKIE = "sticky_instance"
ROUTES, HOLDS = "routes.map", "holds.map"  # in its folder: prefix → service; prefix → until when writes to it wait
HOLD_SCRIPT = "hold.lua"
SOCKETS = "sockets"  # a folder of their own: it is the only one that HAProxy writes to
CHECK_TIMEOUT = 10  # seconds for `haproxy -c`
COMMAND_TIMEOUT = 5  # seconds for a command of the Runtime API, which answers within one millisecond
RELOAD_TIMEOUT = 5  # seconds until the new worker must be there; measured: 50 ms

# A check every 500 ms, two failures take it out: dead within 0.6 s, frozen within 1.75 s (0.5 + 0.6 + 0.05 + 0.6).
# A failed connection takes it out at once, the next good check puts it back. The same words serve in the
# configuration file and for `add server`, which takes no defaults from anywhere.
SERVER_OPTIONS = "check inter 500ms fastinter 50ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down"

ERRORS = {
    400: "The load balancer could not read this request.",
    403: "The load balancer refused this request.",
    408: "The request was not sent in time.",
    500: "The load balancer failed: see its log.",
}
UNAVAILABLE = {  # errors that may pass: a browser gets a page that tries again
    404: "No service answers this path.",
    502: "The instance ended or answered nonsense before its answer was complete.",
    503: "No instance of this service (%b) can be reached: try again in a few seconds.",
    504: "The instance did not answer in time.",
}
PAGE = "unavailable.html"
FOREIGN_HOST = (
    "This server is not known by the name in the Host header. "
    "Use the address that `./workshop status` shows, or add the name with `./workshop up STAGE --host NAME`."
)
FOREIGN_ORIGIN = (
    "A page of another origin sent this request. "
    "Open the page at its own address; `./workshop up STAGE --host NAME` adds a name to that."
)
# Bytes. Our services refuse a longer body at once, so HAProxy must not wait for it.
LONGEST_BODY = 64 * 1024
MOST_DRAINED = 1024 * 1024  # bytes of a body that HAProxy may have to read after an answer
# Bytes of a request whose body has no known length, headers included: HAProxy waits for a whole one up to 14 KB.
LONGEST_CHUNKED = 12 * 1024


class HAProxyUnavailable(Exception):
    """HAProxy's socket cannot be reached, or it refused a command."""


def server_options(upstream: Upstream) -> str:
    return f"weight {upstream.weight} {SERVER_OPTIONS}"


def prefix_key(prefix: str) -> str:
    """Return the prefix as a key of the map: with a slash at its end, as is appended to the request's path."""
    return prefix.rstrip("/") + "/"


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)
    environment.filters["prefix_key"] = prefix_key
    return environment.get_template("haproxy.cfg.j2")


def _page() -> list[str]:
    """Return what comes before and after the sentence on the page for browsers, in log-format on one line each."""
    page = " ".join(Path(__file__).with_name(PAGE).read_text().split()).replace("%", "%%")
    return page.replace("REQUEST_ID", "%[var(txn.request_id)]").split("SENTENCE")


def render(services: dict[str, Backend], frontends: Frontends, folder: Path) -> str:
    """Return the whole haproxy.cfg for this set of services and instances."""
    page_begins, page_ends = _page()
    return _template().render(
        services=sorted(services.values(), key=lambda service: service.name),
        frontends=frontends,
        folder=folder,
        errors=ERRORS,
        unavailable=UNAVAILABLE,
        page_begins=page_begins,
        page_ends=page_ends,
        foreign_host=FOREIGN_HOST,
        foreign_origin=FOREIGN_ORIGIN,
        longest_body=LONGEST_BODY,
        most_drained=MOST_DRAINED,
        longest_chunked=LONGEST_CHUNKED,
        cookie=COOKIE,
        routes=ROUTES,
        holds=HOLDS,
        hold_script=HOLD_SCRIPT,
        sockets=SOCKETS,
        server_options=server_options,
    )


def render_map(table: dict[str, str]) -> str:
    """Return the map file: which service answers which prefix."""
    return "".join(f"{prefix_key(prefix)} {service}\n" for prefix, service in sorted(table.items()))


def frame(config: str) -> str:
    """Return a configuration without its instances: what HAProxy must be reloaded for when it changes."""
    return re.sub(r"(?m)^ +server .*\n", "", config)


def check(config: str, folder: Path) -> None:
    """Have HAProxy check a configuration. Raises WorkshopError with what it says."""
    candidate = folder / "haproxy.cfg.new"
    write_atomically(candidate, config)
    command = ["haproxy", "-c", "-f", candidate]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise WorkshopError(f"HAProxy does not check {candidate} within {CHECK_TIMEOUT} s.") from None
    if result.returncode:
        raise WorkshopError(f"HAProxy does not accept {candidate}: {result.stderr.strip()}")
    candidate.unlink()


def is_checked(server: dict[str, str]) -> bool:
    """Tell whether a health check of a server (a row of `show stat`) has a result; one that runs just now has none."""
    return "INI" not in server["check_status"] and server["check_code"] != "0"


def is_down(server: dict[str, str]) -> bool:
    """Tell whether HAProxy sends a server nothing because its health check fails, or a connection to it did."""
    return server["status"].startswith("DOWN")


def last_check(server: dict[str, str]) -> str:
    """Say how the last health check of a server ended, without a word of what it answered: it may be a foreign one."""
    match server["check_status"].lstrip("* "):
        case "L7STS":
            return f"GET /healthz is answered with {server['check_code']}"
        case "L7TOUT":
            return "GET /healthz is not answered within 0.6 s"
        case "L4CON":
            return "it refuses the connection"
        case _:
            return server["check_desc"]


class Phase(Enum):
    """What a session is waiting for."""

    SENDING = "the client, to send the rest of its request"
    ANSWERING = "the instance, to answer"
    READING = "the client, to read the answer"
    WEBSOCKET = "nothing: either side may send at any time"


@dataclass(frozen=True)
class Session:
    """A request or a WebSocket that is under way."""

    worker: str
    id: str
    number: int  # counted by the worker; the id is an address, which the next request may have again
    phase: Phase = field(compare=False)

    @property
    def is_websocket(self) -> bool:
        return self.phase is Phase.WEBSOCKET


def _phase(session: str) -> Phase:
    """Read the phase from what `show sess all` says of a session."""
    if "MSG_TUNNEL" in session:
        return Phase.WEBSOCKET
    if "rsp.st=MSG_DATA" in session:
        return Phase.READING
    return Phase.SENDING if re.search("req.st=MSG_(BODY|DATA)", session) else Phase.ANSWERING


class Runtime:
    """HAProxy's Runtime API. Every method raises HAProxyUnavailable when it does not answer or refuses."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.socket = folder / SOCKETS / "master.sock"

    def ask(self, command: str, worker: str = "@1") -> str:
        """Return the answer of a worker: `@1` is the current one, `@!<pid>` any."""
        return self._send(f"{worker} {command}")

    def do(self, command: str, *answers: str) -> None:
        """Have the current worker carry out a command, which must answer nothing or one of `answers`."""
        answer = self.ask(command).strip()
        if answer and not any(answer.startswith(expected) for expected in answers):
            raise HAProxyUnavailable(f"{command}: {answer}")

    def _send(self, command: str) -> str:
        answer = bytearray()
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(COMMAND_TIMEOUT)
                connection.connect(str(self.socket))
                connection.sendall(command.encode() + b"\n")
                connection.shutdown(socket.SHUT_WR)
                while received := connection.recv(65536):
                    answer += received
        except OSError as error:
            raise HAProxyUnavailable(f"{self.socket}: {error}") from error
        return answer.decode()

    def servers(self) -> dict[str, dict[str, dict[str, str]]]:
        """Return the rows of `show stat` about instances: backend → instance → column → value."""
        text = self.ask("show stat").removeprefix("# ")
        servers: dict[str, dict[str, dict[str, str]]] = {}
        for row in csv.DictReader(io.StringIO(text)):
            if row["svname"] == "BACKEND":
                servers.setdefault(row["pxname"], {})
            elif row["svname"] != "FRONTEND":
                servers.setdefault(row["pxname"], {})[row["svname"]] = row
        return servers

    def add_server(self, backend: str, name: str, upstream: Upstream) -> None:
        """Put an instance into rotation, at once: it has answered its sidecar's check already."""
        server = f"{backend}/{name}"
        self.do(f"add server {server} {upstream.address} {server_options(upstream)}", "New server registered")
        self.do(f"enable health {server}")
        self.do(f"enable server {server}")

    def move_server(self, backend: str, name: str, upstream: Upstream) -> None:
        """Give an instance that came back, on another port perhaps, its place in rotation again."""
        server = f"{backend}/{name}"
        self.do(
            f"set server {server} addr {upstream.host} port {upstream.port}",
            "IP changed",
            "port changed",
            "no need",
        )
        self.do(f"set server {server} health up")
        self.do(f"set server {server} state ready")

    def set_weight(self, backend: str, name: str, weight: int) -> None:
        self.do(f"set server {backend}/{name} weight {weight}")

    def stop_sending(self, backend: str, name: str) -> None:
        """Send an instance nothing more; what it is answering goes on."""
        self.do(f"set server {backend}/{name} state maint")

    def del_server(self, backend: str, name: str) -> bool:
        """Forget an instance; False while a connection to it is left, be it a health check's."""
        answer = self.ask(f"del server {backend}/{name}")
        return "Server deleted" in answer or "No such server" in answer

    def map(self, file: Path) -> dict[str, str]:
        """Return the entries of a map as they are in force."""
        return dict(line.split()[1:3] for line in self.ask(f"show map {file}").splitlines() if line)

    def routes(self) -> dict[str, str]:
        """Return which service answers which path prefix."""
        found = self.map(self.folder / ROUTES)
        return {key.rstrip("/") or "/": service for key, service in found.items()}

    def set_map(self, file: Path, wanted: dict[str, str]) -> None:
        """Change the entries of a map, one by one, to those wanted."""
        known = self.map(file)
        for key, value in wanted.items():
            if key not in known:
                self.do(f"add map {file} {key} {value}")
            elif known[key] != value:
                self.do(f"set map {file} {key} {value}")
        for key in known.keys() - wanted.keys():
            self.do(f"del map {file} {key}")

    def workers(self) -> list[str]:
        """Return the addresses of all workers, the current one first; old ones live while connections do."""
        rows = [line.split() for line in self._send("show proc").splitlines()]
        return [f"@!{row[0]}" for row in rows if len(row) > 1 and row[1] == "worker"]

    def sessions(self, backend: str | None = None, name: str | None = None) -> list[Session]:
        """Return all that is under way, to a service or to one of its instances, in the old workers too."""
        service, server = (re.escape(word) if word else r"\S+" for word in (backend, name))
        wanted = re.compile(rf"\n +backend={service} .*\n +server={server} ")
        return [
            Session(worker, block.split(":")[0], int(re.search(r" id=(\d+)", block)[1]), _phase(block))
            for worker in self.workers()
            for block in self._sessions(worker)
            if wanted.search(block)
        ]

    def _sessions(self, worker: str) -> list[str]:
        """Return all that HAProxy says of each session of a worker."""
        return re.split(r"\n(?=0x)", self.ask("show sess all", worker))

    def outdated_clients(self) -> int:
        """Return how many clients have a connection to a worker from before a reload, WebSockets apart."""
        total = 0
        for worker in self.workers()[1:]:
            connections = re.search(r"(?m)^CurrConns: (\d+)", self.ask("show info", worker))
            websockets = sum(_phase(session) is Phase.WEBSOCKET for session in self._sessions(worker))
            total += int(connections[1]) - websockets if connections else 0  # None: it has just ended
        return total

    def end_outdated_workers(self) -> None:
        """End the workers from before a reload. This closes their connections: WebSockets connect to the new worker."""
        for worker in self.workers()[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(worker.removeprefix("@!")), signal.SIGTERM)

    def shut(self, session: Session) -> None:
        """Close the connections of a session, to the client and to the instance."""
        self.ask(f"shutdown session {session.id}", session.worker)

    def reload(self) -> None:
        """Have the master start a new worker with the configuration file as it is now, and wait until it serves."""
        old = self.workers()[0]
        self._send("reload")

        def new_worker_serves() -> bool:
            try:
                return self.workers()[0] != old
            except (HAProxyUnavailable, IndexError):
                return False  # the master is starting itself anew

        if not wait_until(new_worker_serves, RELOAD_TIMEOUT):
            raise HAProxyUnavailable(f"no new worker within {RELOAD_TIMEOUT} s of a reload: see HAProxy's log")
