"""stage.toml: what a stage consists of. The platform knows nothing about the application beyond this file."""

import dataclasses
import os
import re
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from workshop import paths, postgres, registry
from workshop.errors import WorkshopError

FILE = "stage.toml"
SERVICE_FILE = "service.toml"  # in the folder of a service that no stage.toml declares
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
STORE_KINDS = ("sql", "redis")
RESERVED = registry.RESERVED | postgres.RESERVED | {"etcd", "redis", "haproxy", "balancer", "supervisord"}


@dataclass(frozen=True)
class Store:
    """Where services keep data: `sql` is a database, `redis` the message queue."""

    kind: str


@dataclass(frozen=True)
class Service:
    """A program that answers HTTP, in as many instances as wanted."""

    name: str
    folder: Path
    command: list[str]  # $HOST and $PORT stand for where to listen
    routes: list[str]  # the path prefixes it answers
    sticky: list[str] = field(default_factory=list)  # prefixes whose requests stay with one instance, by cookie
    balance: str = "roundrobin"
    instances: int = 1
    optional: bool = False  # there only when it is asked for: `up --with`
    migrate: list[str] = field(default_factory=list)
    stores: dict[str, str] = field(default_factory=dict)  # environment variable → store
    secrets: list[str] = field(
        default_factory=list
    )  # environment variables, generated per installation; secrets.py says how
    settings: dict[str, str] = field(default_factory=dict)  # environment variables with their defaults
    npm: dict[str, str] = field(default_factory=dict)  # file in the build → file in node_modules
    shared: dict[str, Path] = field(default_factory=dict)  # place in the build → folder that stands there, too

    def backend(self) -> registry.Backend:
        """Return the service as the load balancer sees it, without an instance yet."""
        return registry.Backend(self.name, self.routes, self.balance, self.sticky)

    def as_json(self) -> dict:
        """Return the declaration in values that JSON knows, for `from_json`."""
        shared = {place: str(folder) for place, folder in self.shared.items()}
        return dataclasses.asdict(self) | {"folder": str(self.folder), "shared": shared}

    @classmethod
    def from_json(cls, saved: dict) -> "Service":
        shared = {place: Path(folder) for place, folder in saved["shared"].items()}
        return cls(**saved | {"folder": Path(saved["folder"]), "shared": shared})

    def chosen_settings(self) -> dict[str, str]:
        """Return each setting as the environment has it, or by default."""
        return {name: os.environ.get(name, default) for name, default in self.settings.items()}


@dataclass(frozen=True)
class Worker:
    """A program beside a service, run from the same build and environment: it answers no HTTP."""

    name: str
    service: str
    command: list[str]  # $INSTANCE stands for the worker's own name
    instances: int = 1


@dataclass(frozen=True)
class Stage:
    name: str
    title: str
    stores: dict[str, Store]
    services: dict[str, Service]
    workers: dict[str, Worker]
    wins: str = ""  # for the bench, a sentence each: what is better in this stage than in another, and what is worse
    loses: str = ""

    def only(self, chosen: Collection[str]) -> "Stage":
        """Return the stage without the optional services, and their workers, that are not among the `chosen`."""
        services = {name: s for name, s in self.services.items() if name in chosen or not s.optional}
        workers = {name: worker for name, worker in self.workers.items() if worker.service in services}
        return dataclasses.replace(self, services=services, workers=workers)

    def program(self, name: str) -> Service | Worker:
        """Return the service or worker called `name`. Raises WorkshopError with the names there are."""
        programs = self.services | self.workers
        if name not in programs:
            raise WorkshopError(f"{self.name} has no service {name!r}: it has {', '.join(programs)}.")
        return programs[name]

    def service(self, name: str) -> Service:
        """Return the service called `name`. Raises WorkshopError; for a worker, it names the worker's service."""
        program = self.program(name)
        if isinstance(program, Worker):
            raise WorkshopError(f"{name} is a worker, which runs the build of {program.service}: name that instead.")
        return program


def stages() -> dict[str, Path]:
    """Return the folders of the stages in this repository by their short names: stage0, stage1, …"""
    return {path.parent.name.split("-")[0]: path.parent for path in sorted(paths.REPOSITORY.glob(f"stage*/{FILE}"))}


def folder(name: str) -> Path:
    """Return the folder of the stage called `name`. Raises WorkshopError when there is none."""
    known = stages()
    if name not in known:
        raise WorkshopError(f"There is no stage {name!r}: choose {' or '.join(known)}.")
    return known[name]


def load(name: str, chosen: Collection[str] = ()) -> Stage:
    """Read the stage called `name`, of its optional services only the `chosen`, among which others may be.

    For a stage that is up these are its `counts`. Raises WorkshopError: unknown, or its file is wrong (file, line, key,
    allowed).
    """
    return _whole(name).only(chosen)


def load_with(name: str, asked_for: Collection[str]) -> Stage:
    """Read the stage called `name` with the optional services `asked_for`. Raises WorkshopError when one is none."""
    whole = _whole(name)
    optional = [service.name for service in whole.services.values() if service.optional]
    for wrong in [asked for asked in asked_for if asked not in optional]:
        there_are = f"there is {', '.join(optional)}" if optional else "it has none"
        raise WorkshopError(f"{name} has no optional service {wrong!r}: {there_are}.")
    return whole.only(asked_for)


def _whole(name: str) -> Stage:
    return read(name, folder(name))


def read(name: str, folder: Path) -> Stage:
    """Read the stage.toml of `folder`. Raises WorkshopError with file, line, key and what is allowed."""
    text = (folder / FILE).read_text()
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WorkshopError(f"{folder / FILE}: {error}. Correct that line and try again.") from None
    return Reader(folder, text).stage(name, tables)


def read_service(folder: Path, stores: dict[str, Store]) -> Service:
    """Read the service.toml of `folder`, which has `name` and what a [services.NAME] table of a stage.toml has.

    Raises WorkshopError with file, line, key and what is allowed.
    """
    text = (folder / SERVICE_FILE).read_text()
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WorkshopError(f"{folder / SERVICE_FILE}: {error}. Correct that line and try again.") from None
    reader = Reader(folder, text, SERVICE_FILE)
    name = reader.text_value("", table, "name")
    if problem := problem_with_name(name):
        reader.wrong("", "name", problem)
    return reader.service(name, {key: value for key, value in table.items() if key != "name"}, stores, where="")


def problem_with_name(name: str) -> str | None:
    """Return what is wrong with the name of a service, worker or store; None when nothing is."""
    if not NAME.fullmatch(name):
        return "a name has up to 32 lower-case letters, digits and hyphens, a letter first"
    return "the platform uses this name itself: choose another" if name in RESERVED else None


class Reader:
    """Checks the tables of a stage.toml one by one and says of a wrong value where it stands."""

    def __init__(self, folder: Path, text: str, file: str = FILE):
        self.folder = folder
        self.text = text
        self.file = folder / file

    def stage(self, name: str, tables: dict) -> Stage:
        self.keys("", tables, ["title", "wins", "loses", "stores", "services", "workers"])
        title = self.text_value("", tables, "title")
        sentences = {key: self.text_value("", tables, key) for key in ("wins", "loses") if key in tables}
        stores = {key: self.store(key, table) for key, table in self.tables(tables, "stores")}
        services = {key: self.service(key, table, stores) for key, table in self.tables(tables, "services")}
        workers = {key: self.worker(key, table, services) for key, table in self.tables(tables, "workers")}
        if not services:
            self.wrong("", "services", "at least one [services.NAME] table is needed")
        for key in workers:
            if key in services:
                self.wrong("workers", key, "a service has this name already: choose another")
        return Stage(name, title, stores, services, workers, **sentences)

    def store(self, name: str, table: dict) -> Store:
        where = f"stores.{name}"
        self.keys(where, table, ["kind"])
        return Store(self.choice(where, table, "kind", STORE_KINDS))

    def service(self, name: str, table: dict, stores: dict, where: str | None = None) -> Service:
        where = f"services.{name}" if where is None else where
        self.keys(where, table, [key for key in Service.__dataclass_fields__ if key != "name"])
        folder = self.existing_folder(where, "folder", self.text_value(where, table, "folder", "."))
        used = self.text_table(where, table, "stores")
        for variable, store in used.items():
            if store not in stores:
                self.wrong(f"{where}.stores".strip("."), variable, f"{store!r} is no store: {self.listed(stores)}")
        return Service(
            name=name,
            folder=folder,
            command=self.words(where, table, "command"),
            routes=self.prefixes(where, table, "routes"),
            sticky=self.prefixes(where, table, "sticky", []),
            balance=self.choice(where, table, "balance", registry.BALANCE, "roundrobin"),
            instances=self.count(where, table),
            optional=self.truth(where, table, "optional"),
            migrate=self.words(where, table, "migrate", []),
            stores=used,
            secrets=self.words(where, table, "secrets", []),
            settings=self.text_table(where, table, "settings"),
            npm=self.text_table(where, table, "npm"),
            shared=self.folders(where, table, "shared"),
        )

    def worker(self, name: str, table: dict, services: dict) -> Worker:
        where = f"workers.{name}"
        self.keys(where, table, [key for key in Worker.__dataclass_fields__ if key != "name"])
        service = self.choice(where, table, "service", services)
        return Worker(name, service, self.words(where, table, "command"), self.count(where, table))

    # One method per kind of value; each names the key and what is allowed when the value is something else.

    def tables(self, tables: dict, key: str):
        found = tables.get(key, {})
        if not isinstance(found, dict):
            self.wrong("", key, f"write [{key}.NAME] tables")
        for name, table in found.items():
            if problem := problem_with_name(name):
                self.wrong(key, name, problem)
            if not isinstance(table, dict):
                self.wrong(key, name, f"write it as a table, [{key}.{name}]")
            yield name, table

    def keys(self, where: str, table: dict, allowed: Iterable[str]) -> None:
        for key in table:
            if key not in allowed:
                self.wrong(where, key, f"there is no such key: {self.listed(allowed)}")

    def text_value(self, where: str, table: dict, key: str, default: str | None = None) -> str:
        value = table.get(key, default)
        if not isinstance(value, str) or not value:
            self.wrong(where, key, 'a text in quotes is needed, such as "parley"')
        return value

    def choice(self, where: str, table: dict, key: str, allowed, default: str | None = None) -> str:
        value = table.get(key, default)
        if value not in list(allowed):
            self.wrong(where, key, f"{value!r} is not possible: {self.listed(allowed)}")
        return value

    def count(self, where: str, table: dict) -> int:
        value = table.get("instances", 1)
        if type(value) is not int or not 1 <= value <= 20:
            self.wrong(where, "instances", f"{value!r} is not possible: allowed is a whole number from 1 to 20")
        return value

    def truth(self, where: str, table: dict, key: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            self.wrong(where, key, f"{value!r} is not possible: allowed is true, false")
        return value

    def words(self, where: str, table: dict, key: str, default: list | None = None) -> list[str]:
        value = table.get(key, default)
        if not isinstance(value, list) or (default is None and not value) or not all(isinstance(w, str) for w in value):
            self.wrong(where, key, 'a list of texts is needed, such as ["flask", "run"]')
        return value

    def prefixes(self, where: str, table: dict, key: str, default: list | None = None) -> list[str]:
        value = self.words(where, table, key, default)
        for prefix in value:
            if not registry.PREFIX.fullmatch(prefix):
                self.wrong(where, key, f"{prefix!r} is no path prefix: allowed is something like /api/users")
        return value

    def existing_folder(self, where: str, key: str, name: str) -> Path:
        folder = (self.folder / name).resolve()
        if not folder.is_dir():
            self.wrong(where, key, f"there is no folder {folder}")
        return folder

    def folders(self, where: str, table: dict, key: str) -> dict[str, Path]:
        return {
            place: self.existing_folder(where, key, name) for place, name in self.text_table(where, table, key).items()
        }

    def text_table(self, where: str, table: dict, key: str) -> dict[str, str]:
        value = table.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            self.wrong(where, key, 'a table of texts is needed, such as { NAME = "value" }')
        return value

    @staticmethod
    def listed(allowed) -> str:
        return f"allowed is {', '.join(allowed)}"

    def wrong(self, where: str, key: str, what: str):
        place = f"{where}.{key}" if where else key
        raise WorkshopError(f"{self.file}, line {self.line(where, key)}, key {place}: {what}.")

    def line(self, where: str, key: str) -> int:
        """Return the line on which `key` of the table `where` stands, or else what encloses it, or else the first."""
        wanted, table, found = f"{where}.{key}".strip("."), "", 1
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := re.match(r"\s*\[([^\[\]]+)\]", line):
                table = full = header[1].strip()
            elif assigned := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
                full = f"{table}.{assigned[1]}".strip(".")
            else:
                continue
            if full == wanted:
                return number
            if wanted.startswith(f"{full}."):
                found = number
        return found
