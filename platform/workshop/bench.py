"""The same work on several stages, side by side: what an architecture costs.

All of them are up at the same time, and loaded in turn, a moment each, over and over: whatever else this machine does
meanwhile hits all alike. So the ratios say more than the figures.
"""

import ast
import contextlib
import http.client
import io
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, quantiles
from time import monotonic, perf_counter

from socketio.exceptions import SocketIOError

from workshop import builds, processes
from workshop.errors import WorkshopError
from workshop.lifecycle import Progress
from workshop.stage import Stage
from workshop.subject import Subject

ROUNDS = 5  # into which the time of each measurement is cut
CLIENTS = 4  # at the same time, where requests per second are measured; otherwise one
WARM_UP = 20  # requests of each kind for each instance
KINDS = {
    "reading": Subject.reading,
    "posting over HTTP": Subject.posting,
    "posting over Socket.IO": Subject.posting_over_socket,
}
MEASURED = [*((kind, 1) for kind in KINDS), ("reading", CLIENTS), ("posting over HTTP", CLIENTS)]
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True)
class Row:
    """One thing that was measured, on each stage."""

    name: str
    unit: str
    values: dict[str, float]  # by stage


@dataclass(frozen=True)
class Report:
    """What came out."""

    instances: dict[str, dict[str, int]]  # stage → service → how many
    rows: list[Row]
    wins: dict[str, str]  # stage → a sentence, from its stage.toml
    loses: dict[str, str]


def run(stages: list[Stage], seconds: float, say: Progress) -> Report:
    """Measure these stages for so many seconds per measurement. Raises WorkshopError; leaves nothing behind."""
    with contextlib.ExitStack() as stack:
        subjects = [Subject(stage, share) for stage, share in zip(stages, equal_shares(stages), strict=True)]
        try:
            for subject in subjects:
                say(f"bringing up {subject.name} with {listed(subject.instances)}")
                stack.enter_context(subject)
            work = measure_work(subjects, seconds, say)
        except (OSError, http.client.HTTPException, SocketIOError) as error:  # OSError: those of requests, too
            raise WorkshopError(f"A stage stopped answering, {error!r}: begin again.") from None
        return Report(
            instances={subject.name: subject.instances for subject in subjects},
            rows=work + measure_size(subjects),
            wins={stage.name: stage.wins for stage in stages},
            loses={stage.name: stage.loses for stage in stages},
        )


def equal_shares(stages: list[Stage]) -> list[dict[str, int]]:
    """Return how many instances each service gets: as in stage.toml, and the first one what the stage lacks.

    So each stage has as many processes that answer as the one that has the most.
    """
    shares = [{service.name: service.instances for service in stage.services.values()} for stage in stages]
    most = max(sum(share.values()) for share in shares)
    for share in shares:
        share[next(iter(share))] += most - sum(share.values())
    return shares


def listed(instances: dict[str, int]) -> str:
    return " ".join(f"{service}={count}" for service, count in instances.items())


def measure_work(subjects: list[Subject], seconds: float, say: Progress) -> list[Row]:
    """Measure how fast they read and post, and how often a request passes the load balancer."""
    say("warming up")
    for subject, kind in product(subjects, KINDS.values()):
        with kind(subject) as act:
            for _ in range(WARM_UP * sum(subject.instances.values())):
                act()
    hops = {subject.name: subject.hops() for subject in subjects}  # now, while the logs are short
    times = defaultdict(list)
    for number in range(1, ROUNDS + 1):
        say(f"measuring, round {number} of {ROUNDS}")
        for (kind, clients), subject in product(MEASURED, subjects):
            times[kind, clients, subject.name] += repeat(subject, KINDS[kind], clients, seconds / ROUNDS)
    return rows_of_times(times, list(hops)) + [
        Row(f"{kind}, hops", "", {name: found[kind] for name, found in hops.items()}) for kind in hops[subjects[0].name]
    ]


def rows_of_times(times: dict[tuple[str, int, str], list[float]], names: list[str]) -> list[Row]:
    """Return what follows from the times, in seconds, by kind, number of clients and stage."""
    rows = []
    for kind, clients in MEASURED:
        of_stage = {name: times[kind, clients, name] for name in names}
        if clients == 1:
            for percent in (50, 99):
                values = {name: 1000 * quantiles(found, n=100)[percent - 1] for name, found in of_stage.items()}
                rows.append(Row(f"{kind}, p{percent}", "ms", values))
        else:
            # Little's law: how many are inside = how many come per second × how long each is inside.
            values = {name: clients / mean(found) for name, found in of_stage.items()}
            rows.append(Row(f"{kind}, {clients} clients", "per s", values))
    return rows


def repeat(subject: Subject, kind: Callable, clients: int, seconds: float) -> list[float]:
    """Have clients do something again and again, each on its own connection; return how long each time took, in s."""

    def work(_: int) -> list[float]:
        took = []
        with kind(subject) as act:
            act()  # opens the connection
            end = monotonic() + seconds
            while monotonic() < end:
                start = perf_counter()
                act()
                took.append(perf_counter() - start)
        return took

    with ThreadPoolExecutor(clients) as pool:
        return [time for times in pool.map(work, range(clients)) for time in times]


def measure_size(subjects: list[Subject]) -> list[Row]:
    """Measure what they take when they have nothing to do, and count their lines."""
    running = {subject.name: processes.of(subject.folder) for subject in subjects}
    of_services = {name: processes.of_services(found) for name, found in running.items()}
    return [
        Row("processes of the services", "", of_each(of_services, len)),
        Row("processes with the platform", "", of_each(running, len)),
        Row("memory of the services", "MB", of_each(of_services, processes.memory)),
        Row("memory with the platform", "MB", of_each(running, processes.memory)),
        Row("lines of Python", "", {subject.name: lines_of_python(subject.stage) for subject in subjects}),
    ]


def of_each(found: dict[str, list], measure: Callable) -> dict[str, float]:
    return {name: measure(of_stage) for name, of_stage in found.items()}


def lines_of_python(stage: Stage) -> int:
    """Count the lines of the services and of what they share, once each: no migrations, and no tests."""
    return sum(code_lines(file) for file in sources(stage) if file.suffix == ".py" and "migrations" not in file.parts)


def sources(stage: Stage) -> set[Path]:
    """Return the files of which the builds of a stage are made."""
    return {source for service in stage.services.values() for source in builds.contents(service).values()}


def code_lines(file: Path) -> int:
    """Count the lines of a program on which something is done: not blank, no comment, no docstring."""
    text = file.read_text(encoding="utf-8")
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in NO_CODE]
    constants = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    return len(lines((t.start[0], t.end[0]) for t in tokens) - lines((n.lineno, n.end_lineno) for n in constants))


def lines(spans: Iterable[tuple[int, int]]) -> set[int]:
    """Return the numbers of the lines that lie in at least one of the spans, each from its first line to its last."""
    return {line for first, last in spans for line in range(first, last + 1)}
