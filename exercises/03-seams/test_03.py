"""03: the map has everything that the running monolith consists of, once, and agrees with what the stages did."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from workshop import paths
from workshop import stage as stages
from workshop.registry import PREFIX
from workshop.sidecar import Instance
from workshop.verdict import CannotCheck, Hop, Wrong, expect

SERVICES = ["ui", "tokens", "users", "messages", "socketio"]
PLACES = [*SERVICES, "shared", "gone"]
KINDS = {"tables": "table", "modules": "module", "routes": "route", "events": "event"}
HOPS = {"tables": Hop.DATABASE, "modules": Hop.CODE, "routes": Hop.BALANCER, "events": Hop.SERVICE}
CODE = "stage0-monolith/parley"
SHOW = {
    "tables": f"grep -rn __tablename__ {CODE}/models",
    "modules": f"find {CODE} -name '*.py'",
    "routes": f"grep -rnE 'url_prefix|@ui.get' {CODE}",
    "events": f"grep -n '@on(' {CODE}/events.py",
}
FACTS = Path(__file__).with_name("facts.py")
FACTS_TIMEOUT = 20  # seconds to start the application; it takes one
# Where the stages chose one of two defensible answers, this is the other one.
DEFENSIBLE = {"push.py": "socketio", "tasks.py": "gone", "worker.py": "messages"}
BECAUSE = {
    "users": "who registers or is online stands there, and one service alone writes it",
    "messages": "one service alone writes what people have said",
    "idempotency_keys": "a key is stored in the same transaction as the message that it belongs to, so in one database",
    "revocations": "it says which tokens still count, whoever has revoked them; that a new password signs its user out "
    "becomes a call",
    "api/users.py": "a resource goes where its path goes",
    "api/tokens.py": "a resource goes where its path goes; what it asks of users becomes a call",
    "api/messages.py": "a resource goes where its path goes",
    "models/user.py": "a model goes where its table goes",
    "models/revocation.py": "a model goes where its table goes",
    "models/message.py": "a model goes where its table goes",
    "passwords.py": "passwords are hashed and compared where their column is, in the table users",
    "attempts.py": "wrong passwords are counted where they are found wrong: look who imports it",
    "presence.py": "it writes the column users.online, and no service writes into a table of another one",
    "markup.py": "it makes the HTML that is stored with each message",
    "links.py": "it reads and writes the table messages",
    "ui/__init__.py": "it is the page",
    "events.py": "an event comes through a connection, to the one who holds it",
    "socket_server.py": "it holds the connections",
    "auth.py": "each service checks the tokens that come to it by itself, with nothing but the key: else each request "
    "to any of them would cost a call",
    "push.py": "whoever changes something pushes it, through Redis, and whoever holds connections listens",
    "tasks.py": "it is Celery's, and what it does is done by those whose rows it reads",
    "worker.py": "it is Celery's",
    "ping_user": "it comes through a connection, to the one who holds it; that somebody is online becomes a call",
    "post_message": "it comes through a connection, to the one who holds it; that it is stored becomes a call",
    "disconnect": "a connection has ended, and only the one who has held it knows",
}


@pytest.fixture
def facts(stage) -> dict:
    """What the monolith consists of, as the running one says."""
    instance = stage.instances("monolith")[0]["id"]
    return facts_of(stage.run_folder / "instances" / f"{instance}.json")


@functools.cache
def facts_of(file: Path) -> dict:
    instance = Instance.load(file)
    asked = subprocess.run(
        [sys.executable, FACTS],
        cwd=instance.folder,
        env=instance.environment | {"PYTHONPATH": instance.folder},
        capture_output=True,
        text=True,
        timeout=FACTS_TIMEOUT,
    )
    if asked.returncode:
        raise CannotCheck(f"the monolith's code does not start: {asked.stderr.strip().splitlines()[-1]}")
    found = json.loads(asked.stdout)
    # More may be stored, by a later stage that this one was on its way to.
    if missing := set(found["tables"]) - set(found["stored"]):
        raise CannotCheck(f"the running database has no table {missing.pop()}: `./workshop logs monolith` may say why.")
    return found


@pytest.fixture
def seams(learner) -> dict[str, dict[str, list[str]]]:
    """The learner's map: place → kind → names."""
    tables = learner.toml("seams.toml")
    for place, kinds in tables.items():
        expect(
            place in PLACES and isinstance(kinds, dict),
            f"{place} is no place on this map.",
            hop=Hop.CODE,
            seen=f"{place} in seams.toml",
            expected=", ".join(f"[{name}]" for name in PLACES),
            show="cat work/03-seams/seams.toml",
        )
        for kind, names in kinds.items():
            expect(
                kind in KINDS and isinstance(names, list) and all(isinstance(name, str) for name in names),
                f"{kind} in [{place}] can't be read.",
                hop=Hop.CODE,
                seen=f"{kind} = {names!r:.80}",
                expected=f'one of {", ".join(KINDS)}, each a list of texts: ["…", "…"]',
                show="cat work/03-seams/seams.toml",
            )
    return tables


def test_each_table_belongs_to_one_service(seams, facts):
    check_places(seams, "tables", facts["tables"], owner_of_table)


def test_each_module_belongs_to_one_place(seams, facts):
    placed = check_places(seams, "modules", facts["modules"], owners_of_module)
    if placed.get("worker.py") == "messages" and placed.get("tasks.py") == "gone":
        sentence = (
            "worker.py in messages has nothing to run: it runs the tasks of tasks.py, and that is gone. Keep both in "
            "messages, or put both in gone."
        )
        raise wrong("modules", sentence, "worker.py in messages, tasks.py in gone", "both in one place", "tasks.py")


def test_each_path_is_answered_by_the_service_that_it_belongs_to(seams, facts):
    check_once(seams, "routes")
    prefixes = prefixes_of(seams)
    wanted = {prefix.rstrip("/"): service.name for service in stage2().services.values() for prefix in service.routes}
    for prefix in prefixes:
        if prefix == "/healthz":
            sentence = "/healthz needs no route: the sidecar asks each instance directly."
            raise wrong("routes", sentence, f"{prefix} in {prefixes[prefix]}", "no route of its own")
        if not any(fits(prefix, path) for path in facts["paths"]):
            sentence = f"the monolith answers nothing below {prefix}."
            raise wrong("routes", sentence, f"{prefix} in {prefixes[prefix]}", "a path that exists")
    for path in facts["paths"]:
        prefix, owner = longest(prefixes, path), wanted[longest(wanted, path)]
        if prefix is None:
            sentence = f"nobody would answer the path {path}: no prefix of your map fits."
            raise wrong("routes", sentence, "404", f"{path} → {owner}")
        if prefixes[prefix] != owner:
            sentence = (
                f"the path {path} would be answered by {prefixes[prefix]}: the longest prefix that fits decides, "
                f"and on your map that is {prefix or '/'}."
            )
            raise wrong("routes", sentence, f"{path} → {prefixes[prefix]}", f"{path} → {owner}")


def test_each_event_belongs_to_the_service_that_holds_the_connections(seams, facts):
    check_places(seams, "events", facts["events"], lambda _event: {"socketio"})


def prefixes_of(seams: dict) -> dict[str, str]:
    """Return the place of each prefix, without a slash at its end, as the load balancer knows it."""
    prefixes = {}
    for place, kinds in seams.items():
        for route in kinds.get("routes", []):
            if not PREFIX.fullmatch(route):
                sentence = (
                    f"the load balancer would not accept the route {route}. It compares a prefix with the path of each "
                    "request, and knows no placeholders. Write only the part that is the same in all requests."
                )
                raise wrong("routes", sentence, f"{route} in {place}", "a prefix such as /api/users")
            prefix = route.rstrip("/")
            if prefixes.setdefault(prefix, place) != place:
                sentence = (
                    f"{prefix} and {prefix}/ are one prefix: the load balancer ignores a slash at the end. Give the "
                    "prefix to one service."
                )
                raise wrong("routes", sentence, f"it is in {prefixes[prefix]} and in {place}", "everything once")
    return prefixes


def check_places(seams: dict, kind: str, there: list[str], owners) -> dict[str, str]:
    """Compare the map of one kind of thing with those there are, and with who may have each; return the places."""
    placed = check_once(seams, kind)
    for name in sorted(placed.keys() - set(there)):
        raise wrong(kind, f"the monolith has no {KINDS[kind]} {name}.", f"{name} in {placed[name]}", ", ".join(there))
    for name in sorted(set(there) - placed.keys()):
        sentence = f"the {KINDS[kind]} {name} belongs to nobody: it would be lost with the monolith."
        raise wrong(kind, sentence, f"{name} nowhere on the map", "everything once")
    for name, place in placed.items():
        if place not in owners(name):
            reason = BECAUSE.get(name, "all services need it alike")
            sentence = f"the {KINDS[kind]} {name} does not belong to {place}: {reason}."
            others = ", ".join(other for other in PLACES if other != place)
            raise wrong(kind, sentence, f"{name} in {place}", f"{name} in one of {others}", name)
    return placed


def check_once(seams: dict, kind: str) -> dict[str, str]:
    """Return where each thing of a kind is on the map; raise Wrong when one is there twice."""
    placed = {}
    for place, kinds in seams.items():
        for name in kinds.get(kind, []):
            if name in placed:
                sentence = f"the {KINDS[kind]} {name} has two places: then nobody can change it alone."
                raise wrong(kind, sentence, f"{name} in {placed[name]} and in {place}", "everything once")
            placed[name] = place
    return placed


def wrong(kind: str, sentence: str, seen: str, expected: str, name: str = "") -> Wrong:
    show = f"less {CODE}/{name}" if name and kind == "modules" else SHOW[kind]
    return Wrong(sentence, hop=HOPS[kind], seen=seen, expected=expected, show=show)


def fits(prefix: str, path: str) -> bool:
    """Say whether a prefix covers a path: /api/users has /api/users/1, and not /api/usersx."""
    return f"{path}/".startswith(f"{prefix}/")


def longest(prefixes, path: str) -> str | None:
    """Return the prefix that decides, as in HAProxy's map."""
    return max((prefix for prefix in prefixes if fits(prefix, path)), key=len, default=None)


@functools.cache
def stage2() -> stages.Stage:
    return stages.load("stage2")


def owner_of_table(table: str) -> set[str]:
    """Return the service of stage 2 whose migrations create a table."""
    return {
        service.name
        for service in stage2().services.values()
        for file in service.folder.glob("migrations/versions/*.py")
        if re.search(rf'create_table\(\s*"{table}"', file.read_text())
    }


def owners_of_module(module: str) -> set[str]:
    """Return where stage 2 has a module, and where else it could be."""
    if (paths.REPOSITORY / "stage2-microservices" / "common" / module).exists():
        owners = {"shared"}
    else:
        folders = {service.name: service.folder for service in stage2().services.values()}
        owners = {name for name, folder in folders.items() if (folder / "parley" / module).exists()} or {"gone"}
    return owners | {DEFENSIBLE[module]} if module in DEFENSIBLE else owners
