"""The process supervisor (supervisord): starts every program, restarts what dies, keeps what they print."""

import http.client
import os
import re
import signal
import subprocess
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from workshop import paths
from workshop.errors import WorkshopError
from workshop.files import write_atomically
from workshop.processes import base_environment
from workshop.waiting import wait_until

SOCKET = paths.SUPERVISOR / "supervisor.sock"
PROGRAMS = paths.SUPERVISOR / "programs"
START_TIMEOUT = 5  # seconds for supervisord itself to answer; measured: 0.3
STOP_TIMEOUT = 20  # seconds between the stop signal and SIGKILL: a sidecar drains for 8 and waits for its service for 5
ENDED = ("STOPPED", "FATAL", "UNKNOWN")  # supervisord's states of a program that it does not start anew
STOPPED = (*ENDED, "EXITED")
# What a look at supervisord raises when it is gone; the last one when it is just ending.
GONE = (OSError, http.client.HTTPException, xmlrpc.client.Fault)
# Characters of this socket's path: Linux allows 107. HAProxy's, with the process id and .tmp that it adds, has 13 more.
LONGEST_SOCKET = 94
# What a path may consist of that stands in the configuration files of supervisord, HAProxy, etcd, Redis and PostgreSQL.
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+@~,-]+")

CONFIGURATION = f"""\
[supervisord]
logfile = {paths.LOGS}/supervisord.log
logfile_maxbytes = 1MB
logfile_backups = 1
pidfile = {paths.SUPERVISOR}/supervisord.pid
childlogdir = {paths.LOGS}
umask = 077

[unix_http_server]
file = {SOCKET}
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://{SOCKET}

[include]
files = {PROGRAMS}/*.conf
"""


@dataclass
class Program:
    """A process that is to run."""

    name: str
    command: list[str]
    folder: Path
    environment: dict[str, str]
    stop_signal: str = "TERM"

    def configuration(self) -> str:
        """Return the [program] section: restarted whenever it ends, for ever."""
        section = {
            "command": " ".join(_quoted(word) for word in self.command),
            "directory": str(self.folder).replace("%", "%%"),
            "environment": ",".join(f"{key}={_quoted(value)}" for key, value in self.environment.items()),
            "autostart": "false",  # `add` starts it, at once instead of at the next tick
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "1000000",  # one second apart, then two, three … until it has stayed up for startsecs
            "stopsignal": self.stop_signal,
            "stopwaitsecs": str(STOP_TIMEOUT),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(log_file(self.name)).replace("%", "%%"),
            "stdout_logfile_maxbytes": "5MB",
            "stdout_logfile_backups": "1",
        }
        return f"[program:{self.name}]\n" + "".join(f"{key} = {value}\n" for key, value in section.items())


@dataclass(frozen=True)
class Process:
    """What the supervisor knows of a program."""

    name: str  # of an instance or worker: <service or worker>_<version>_<id>
    state: str  # supervisord's: STARTING, RUNNING, BACKOFF, STOPPING, STOPPED, EXITED, FATAL
    pid: int  # 0 when it does not run


def log_file(name: str) -> Path:
    return paths.LOGS / f"{name}.log"


def _quoted(text: str) -> str:
    """Quote a word for supervisord, which splits like a shell and expands percent signs."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def problem_with_path() -> str | None:
    """Say what keeps the folder from being used, and what to do; None when it can be."""
    if not PLAIN_PATH.fullmatch(str(paths.RUN)):
        return f"{paths.RUN!s:.90} has blanks or unusual characters in its path: move the repository to a plain one."
    if len(str(SOCKET)) > LONGEST_SOCKET:
        return f"{paths.RUN} is too long a path for sockets: move the repository to a shorter one."
    return None


def start() -> None:
    """Start supervisord, without a program yet. Raises WorkshopError when it does not answer."""
    if problem := problem_with_path():
        raise WorkshopError(problem)
    for folder in (PROGRAMS, paths.LOGS):
        folder.mkdir(parents=True, exist_ok=True)
    for left_over in PROGRAMS.glob("*.conf"):
        left_over.unlink()
    write_atomically(paths.SUPERVISOR / "supervisord.conf", CONFIGURATION)
    command = [paths.BIN / "supervisord", "-c", paths.SUPERVISOR / "supervisord.conf"]
    try:
        started = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT, env=base_environment())
    except subprocess.TimeoutExpired:
        raise WorkshopError(f"The process supervisor does not start within {START_TIMEOUT} s: try again.") from None
    if started.returncode or not wait_until(is_running, START_TIMEOUT):
        raise WorkshopError(f"The process supervisor does not start: {(started.stderr or started.stdout).strip()}")


def is_running() -> bool:
    """Tell whether supervisord answers."""
    try:
        return _supervisord().getState()["statename"] == "RUNNING"
    except GONE:
        return False


def has_logs() -> bool:
    """Tell whether what runs can write its logs: whether their folder, with supervisord's own one, is there."""
    return log_file("supervisord").exists()


def restore_logs() -> bool:
    """Make everything that runs write its log to a new file if the files were removed; tell whether they were."""
    if has_logs():
        return False
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    os.kill(_supervisord().getPID(), signal.SIGUSR2)  # supervisord opens all logs again
    wait_until(has_logs, START_TIMEOUT)
    return True


def add(programs: list[Program]) -> None:
    """Start programs, now and whenever supervisord finds them ended."""
    restore_logs()  # without them, it reads no configuration
    for program in programs:
        write_atomically(PROGRAMS / f"{program.name}.conf", program.configuration())
    supervisord = _supervisord()
    supervisord.reloadConfig()
    for program in programs:
        supervisord.addProcessGroup(program.name)
        try:
            supervisord.startProcess(program.name, False)
        except xmlrpc.client.Fault as fault:
            raise WorkshopError(f"{program.name} cannot be started: {fault.faultString} (its command).") from None


def restart(names: list[str]) -> None:
    """Start those of the programs that were stopped, or are just being stopped."""
    if not wait_until(lambda: not any(p.state == "STOPPING" for p in processes() if p.name in names), STOP_TIMEOUT + 5):
        raise WorkshopError(f"These do not end: {', '.join(names)}. See `./workshop logs`.")
    restore_logs()
    for process in processes():
        if process.name in names and process.state in STOPPED:
            try:
                _supervisord().startProcess(process.name, False)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode != Faults.ALREADY_STARTED:  # one that had crashed, in this very moment
                    raise


def begin_to_stop(names: list[str]) -> None:
    """Have programs end, all at the same time, without waiting for it."""

    def can_be_told() -> bool:
        # One that has ended by itself is not to be told anything: supervisord starts it anew, in this very moment.
        ours = [process for process in processes() if process.name in names]
        return not any(process.state == "EXITED" or _is_only_forked(process.pid) for process in ours)

    wait_until(can_be_told, START_TIMEOUT)
    supervisord = _supervisord()
    for name in names:
        try:
            supervisord.stopProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise


def stop(names: list[str]) -> None:
    """End programs, all at the same time, and wait until they have ended."""

    def have_ended() -> bool:
        left = [process for process in processes() if process.name in names and process.state not in ENDED]
        # Again and again, for one that has ended by itself just before it was told to: it has been started anew.
        if untold := [process.name for process in left if process.state != "STOPPING"]:
            begin_to_stop(untold)
        return not left

    # supervisord itself sends SIGKILL after STOP_TIMEOUT: what is left then cannot be ended by anybody.
    if not wait_until(have_ended, STOP_TIMEOUT + 5):
        raise WorkshopError(f"These do not end: {', '.join(names)}. See `./workshop logs`.")


def remove(names: list[str]) -> None:
    """End programs and forget them, also those that an interrupted `add` has not got to yet."""
    added = [process.name for process in processes() if process.name in names]
    stop(added)
    for name in names:
        (PROGRAMS / f"{name}.conf").unlink(missing_ok=True)
    for name in added:
        _supervisord().removeProcessGroup(name)


def processes() -> list[Process]:
    """Return all programs, by name. Raises WorkshopError when supervisord is gone."""
    try:
        rows = _supervisord().getAllProcessInfo()
    except GONE:
        raise WorkshopError("The process supervisor is gone: run `./workshop down`, then `up` again.") from None
    return sorted((Process(row["name"], row["statename"], row["pid"]) for row in rows), key=lambda p: p.name)


def shut_down() -> None:
    """End supervisord with all its programs, and wait for it."""
    stop([process.name for process in processes()])
    supervisord = psutil.Process(_supervisord().getPID())
    _supervisord().shutdown()
    supervisord.wait(STOP_TIMEOUT)


def _is_only_forked(pid: int) -> bool:
    """Tell whether it is a copy of supervisord still, whose handlers would swallow a signal, not the program yet."""
    try:
        child = psutil.Process(pid)  # 0, of one that does not run, is no process either
        return child.cmdline() == psutil.Process(child.ppid()).cmdline()
    except psutil.NoSuchProcess:
        return False  # it has ended


def _supervisord():
    # The address is not used: the transport takes the socket's path.
    transport = SupervisorTransport(serverurl=f"unix://{SOCKET}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor
