"""Examines this machine: each finding says what was seen, and what to do if it is not well."""

import os
import platform
import resource
import time
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from workshop import (
    binaries,
    drivers,
    haproxy,
    lifecycle,
    paths,
    ports,
    postgres,
    remedies,
    stage,
    state,
    stores,
    supervisor,
    wsl,
)
from workshop.errors import WorkshopError

READY, MEND, ADMINISTRATOR = 0, 1, 2
LEAST_MEMORY = 700  # MiB available: what stage 0 takes with three instances, and room
LEAST_DISK = 300  # MiB free: etcd alone sets 128 aside for its log; the rest is for databases, logs and builds
LEAST_FILES = 1000  # that the disk has room for: stage 0 makes 150
LEAST_OPEN_FILES = 4096  # the kernel's own default; HAProxy needs 3,850 for its 1,900 connections
LEAST_FILE_SIZE = 100 << 20  # bytes: etcd sets 64 MB aside for its log
SPARE = 50  # MiB of memory and of disk that a stage which is up needs in addition
ELSEWHERE = "have `WORKSHOP_RUN_DIR` name a folder of your own instead of .run/"
CLOCK_TOLERANCE = 60  # seconds: a file server's clock may differ a little
# Where SQLite's write-ahead log, Unix sockets and file locks do not work, or not reliably.
SHARED = {"vboxsf", "vmhgfs", "prl_fs", "9p", "drvfs", "virtiofs", "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs"}
SHARED |= {"fakeowner"}  # of Docker Desktop on macOS
SHARED |= {f"fuse.{name}" for name in ("sshfs", "vmhgfs-fuse", "rclone", "grpcfuse", "osxfs", "prl_fsd", "s3fs")}
# All that is spoken on loopback is http: https_proxy does not concern it, and curl does not look at HTTP_PROXY.
PROXIES = ("http_proxy", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    severity: int
    what: str
    remedy: str = ""
    stops_up: bool = False  # nothing can run like this: `up` refuses instead of warning

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}."


def examine() -> list[Finding]:
    """Look at everything."""
    findings = [*machine(), *what_up_needs(), postgresql(), docker()]
    if run_folder().severity == READY:  # otherwise it may not even be readable
        findings += [*databases(), *what_is_up()]
    return findings


def stop_or_warn(db: str | None, driver: str, say: lifecycle.Progress) -> None:
    """Raise WorkshopError for what no stage can run with; say what else is not well."""
    if problem := drivers.DRIVERS[driver].problem():
        raise WorkshopError(f"{problem[0].upper()}{problem[1:]}.")
    if driver == "process" and db == "postgres" and (problem := postgres.problem()):
        raise WorkshopError(f"{problem}.")
    for finding in what_up_needs():
        if finding.stops_up:
            raise WorkshopError(str(finding))
        if finding.severity != READY:
            say(f"Warning: {finding}")


def what_up_needs() -> list[Finding]:
    """Look at what must be well before a stage is brought up."""
    return [
        *[binary(name) for name in binaries.FOR_UP],
        repository(),
        open_files(),
        file_size(),
        run_folder(),
        shared_folder(),
        disk(),
        memory(),
        clock(),
        proxy(psutil.Process().environ()),  # as we were started with it: since then, cli.py has changed it
    ]


def machine() -> list[Finding]:
    """Say what somebody wants to know first to whom the report is sent."""
    version = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return [
        Finding(READY, f"workshop {version}, Python {platform.python_version()}"),
        Finding(READY, f"{system}, Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} cores"),
    ]


def binary(name: str) -> Finding:
    """Look whether a program is there and of a version that will do."""
    if not binaries.find(name):
        return Finding(
            ADMINISTRATOR, f"{name} is missing", "run `./workshop setup`, which installs it or says who can", True
        )
    version = binaries.version(name)
    if problem := binaries.problem(name, version):
        remedy = f"use the one of Debian 12 or 13 instead of {binaries.find(name)}"
        return Finding(ADMINISTRATOR, problem, remedy, stops_up=True)
    return Finding(READY, f"{name} {version}")


def postgresql() -> Finding:
    """Look whether `up --db postgres` would do; everything else is ready without."""
    if problem := postgres.problem():
        return Finding(READY, f"no `up --db postgres` here: {problem}")
    return Finding(READY, f"PostgreSQL {postgres.version()}, for `up --db postgres`")


def docker() -> Finding:
    """Look whether `up --driver docker` would do; everything else is ready without."""
    try:
        problem = drivers.DRIVERS["docker"].problem()
    except WorkshopError as error:  # it hangs
        problem = error.message
    if problem:
        return Finding(READY, f"no `--driver docker`: {problem}")
    return Finding(READY, "Docker, for `up --driver docker`")


def open_files() -> Finding:
    """Look whether HAProxy may open a file for each of its connections: it raises its limit up to the hard one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < LEAST_OPEN_FILES:
        return Finding(
            ADMINISTRATOR,
            f"a process may open {hard} files at most, {LEAST_OPEN_FILES} are needed (`ulimit -Hn`)",
            "begin in a new terminal; if the limit is the same there, write "
            f"`* hard nofile {LEAST_OPEN_FILES}` into /etc/security/limits.conf and sign in again",
            True,
        )
    return Finding(READY, "no limit on open files" if hard == resource.RLIM_INFINITY else f"{hard} open files")


def file_size() -> Finding:
    """Look whether etcd may write its log, which is a file of 64 MB."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_FILE_SIZE:
        return Finding(
            MEND,
            f"a file may have {limit >> 20} MiB at most, {LEAST_FILE_SIZE >> 20} are needed (`ulimit -f`)",
            "begin in a new terminal, without this limit",
            True,
        )
    return Finding(READY, "no limit on the size of files" if limit == resource.RLIM_INFINITY else "files may be large")


def repository() -> Finding:
    """Look whether the repository can be written: exercises and set-up do so."""
    if not os.access(paths.REPOSITORY, os.W_OK | os.X_OK):
        return Finding(
            MEND, f"{paths.REPOSITORY} cannot be written by you", "copy the repository to a folder of your own"
        )
    return Finding(READY, f"{paths.REPOSITORY} can be written")


def run_folder() -> Finding:
    """Look whether .run/ and all in it is ours, can be written, and has a path that the servers can live with."""
    try:
        state.refuse_foreign_folder()
    except WorkshopError as error:
        return Finding(ADMINISTRATOR, *error.message.rstrip(".").split(": ", 1), stops_up=True)
    except PermissionError as error:
        return Finding(MEND, f"{error.filename} cannot be reached by you", ELSEWHERE, True)
    ours = (os.getuid(), drivers.DRIVERS["docker"].user, None)
    if foreign := [file for file in _all_below(paths.RUN) if _owner(file) not in ours]:
        return Finding(
            ADMINISTRATOR,
            f"{foreign[0]} belongs to user {_owner(foreign[0])}, perhaps after a `sudo ./workshop`",
            f"run `sudo chown -R {psutil.Process().username()} {paths.RUN}`",
            True,
        )
    if not os.access(_existing(paths.RUN), os.W_OK | os.X_OK):
        is_read_only = os.statvfs(_existing(paths.RUN)).f_flag & os.ST_RDONLY
        return Finding(
            MEND,
            f"{_existing(paths.RUN)} cannot be written{', its disk is read-only' if is_read_only else ' by you'}",
            ELSEWHERE,
            True,
        )
    if problem := supervisor.problem_with_path():
        return Finding(MEND, *problem.rstrip(".").split(": ", 1), stops_up=True)
    return Finding(READY, f"{paths.RUN} can be written")


def _all_below(folder: Path) -> list[Path]:
    """Return all files and folders below; unlike rglob, os.walk does not mind a folder that vanishes meanwhile."""
    return [Path(place, name) for place, folders, files in os.walk(folder) for name in folders + files]


def _owner(file: Path) -> int | None:
    """Return the user that a file belongs to; None when it has just been removed."""
    try:
        return file.lstat().st_uid
    except FileNotFoundError:
        return None


def _existing(path: Path) -> Path:
    """Return the folder, or what exists above it already."""
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))  # False if it is not for us


def shared_folder() -> Finding:
    """Look whether .run/ lies on a disk of this machine, and the repository, too."""
    kind, around = _filesystem(paths.RUN), _filesystem(paths.REPOSITORY)
    if around in SHARED and wsl.is_wsl():
        what = f"{paths.REPOSITORY} is on a drive of Windows ({around}), which is slow and lacks Unix permissions"
        return Finding(MEND, what, wsl.CLONE, stops_up=kind in SHARED)
    if kind in SHARED:
        return Finding(
            MEND,
            f"{paths.RUN} is on a shared folder ({kind}), where databases and sockets fail",
            "have `WORKSHOP_RUN_DIR` name a folder on a disk of this machine, such as /var/tmp/workshop",
            True,
        )
    if around in SHARED:
        return Finding(READY, f"the repository is on a shared folder, {paths.RUN} is not")
    return Finding(READY, f"not on a shared folder ({kind})")


def _filesystem(path: Path) -> str:
    """Return the type of the file system that a path lies on: of the last that was mounted nearest to it."""
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[folder] for folder in (path, *path.parents) if folder in mounts), "unknown")


def disk() -> Finding:
    """Look whether there is room for what a stage writes, and for as many files."""
    found = os.statvfs(_existing(paths.RUN))
    free, needed = found.f_bavail * found.f_frsize >> 20, SPARE if supervisor.is_running() else LEAST_DISK
    if free < needed:
        return Finding(
            MEND, f"{free} MiB of disk free, {needed} are needed", f"make room on the disk of {paths.RUN}", True
        )
    if found.f_files and found.f_favail < LEAST_FILES:  # some file systems have no such limit, and report 0
        return Finding(
            MEND,
            f"the disk has room for {found.f_favail} more files (inodes), {LEAST_FILES} are needed",
            f"remove files that you do not need from the disk of {paths.RUN}",
            True,
        )
    return Finding(READY, f"{free} MiB of disk free")


def memory() -> Finding:
    available, needed = psutil.virtual_memory().available >> 20, SPARE if supervisor.is_running() else LEAST_MEMORY
    if available < needed:
        return Finding(MEND, f"{available} MiB of memory available, {needed} are needed", "end other programs")
    return Finding(READY, f"{available} MiB of memory available")


def clock() -> Finding:
    """Look whether the clock is behind: then something has been written in what it takes for the future.

    That it is ahead, only another clock could tell: the report shows the time.
    """
    now = time.time()
    if (behind := wsl.seconds_behind(now)) > CLOCK_TOLERANCE:
        return Finding(MEND, f"the clock says {_time(now)}, {behind} s behind that of Windows", wsl.RESTART)
    programs = [Path(found) for name in binaries.FOR_UP if (found := binaries.find(name))]
    files = [*programs, *paths.REPOSITORY.glob("*"), *_all_below(paths.RUN)]
    written = {file: _written(file) for file in files}
    newest = max(written, key=written.get)
    if written[newest] > now + CLOCK_TOLERANCE:
        return Finding(
            MEND,
            f"the clock says {_time(now)}, but {newest} was written at {_time(written[newest])}",
            "set the clock (`sudo timedatectl set-ntp true`) or, if it is right, "
            f"run `find {paths.REPOSITORY} {paths.RUN} -newermt now -exec touch {{}} +`",
        )
    return Finding(READY, f"the clock says {_time(now)}")


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # it has just been removed
        return 0


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def proxy(environment: dict[str, str]) -> Finding:
    """Look whether clients such as curl would ask a proxy for what is on loopback. The platform's own do not."""
    exceptions = environment.get("no_proxy") or environment.get("NO_PROXY") or ","
    if requests.utils.should_bypass_proxies("http://127.0.0.1/", exceptions):  # the only host in what we print
        return Finding(READY, "no proxy for loopback")
    for name in PROXIES:
        if environment.get(name):  # not its value, which may hold a password
            return Finding(
                MEND,
                f"{name} sends curl's requests to 127.0.0.1 to a proxy",
                "run `export no_proxy=127.0.0.1,localhost`, with what it has had so far",
            )
    return Finding(READY, "no proxy for loopback")


def databases() -> list[Finding]:
    """Look whether what is kept is whole."""
    in_use = {
        file
        for declared in (stage.read(name, folder) for name, folder in stage.stages().items())
        for service in declared.services.values()
        if lifecycle.migrated(service, "sqlite").exists()
        for file in stores.sqlite_files(declared, service)
    }
    problems = [stores.damage(file, file in in_use) for file in sorted(paths.DATA.glob("*.db"))]
    return [Finding(MEND, problem, stores.REPAIR) for problem in problems if problem]


def what_is_up() -> list[Finding]:
    """Look whether a stage is up, or what a crash has left behind, or whether the pages' default ports are free."""
    if command := state.at_work():
        return [Finding(READY, f"{command} is at work")]
    if problem := lifecycle.remains():
        return [Finding(MEND, f"left behind: {problem}", "run `./workshop down`; `./workshop up` cleans up, too")]
    if paths.STATE.exists():
        up = state.load()
        losses = [Finding(MEND, loss.what, loss.remedy) for loss in remedies.losses(up)]
        is_up = Finding(READY, f"{up.stage} is up at {up.url}, with etcd's {up.registry_api} API")
        return [is_up, *losses, *instances_down(), *taken_ports(up.ports.values())]
    return [Finding(READY, "no stage is up"), *taken_ports()]


def taken_ports(ours: Collection[int] = ()) -> list[Finding]:
    """Look which default ports of pages are taken by other programs than those of the stage that is up."""
    problems = {page: ports.problem(port) for page, port in ports.DEFAULTS.items() if port not in ours}
    taken = [
        Finding(READY, f"{problem}: the {page} page will take another") for page, problem in problems.items() if problem
    ]
    numbers = ports.DEFAULTS.values()
    return taken or [Finding(READY, f"ports {min(numbers)} to {max(numbers)} are free, or this stage's")]


def instances_down() -> list[Finding]:
    """Look which instances HAProxy sends no requests to, foreign ones too, and say why."""
    try:
        servers = haproxy.Runtime(paths.HAPROXY).servers()
    except haproxy.HAProxyUnavailable:
        return [Finding(MEND, "HAProxy does not answer", "see `./workshop logs haproxy`")]
    return [
        Finding(
            MEND,
            f"{name} of {service} is DOWN at {server['addr']}: {haproxy.last_check(server)}",
            f"see its log: `./workshop logs {service}`, or where it was started; HAProxy expects 200 of GET /healthz",
        )
        for service, rows in servers.items()
        for name, server in rows.items()
        if haproxy.is_down(server)
    ]
