"""The learner's running system, as checks see and change it; whatever they change, they change back."""

import contextlib
import dataclasses
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from learner import listening, refuse_todo

from workshop import builds, checking, evolution, paths, processes, state, supervisor
from workshop.counters import LINE
from workshop.haproxy import HAProxyUnavailable, Runtime
from workshop.probe import Load, Probe, session, sign_up
from workshop.registry import Registry, RegistryUnavailable, client_files
from workshop.sidecar import Instance
from workshop.verdict import CannotCheck, Hop, NotYet, Wrong
from workshop.waiting import wait_until

COMMAND_TIMEOUT = 60  # seconds for a command of the workshop; a version that never becomes healthy takes 20
JOIN_TIMEOUT = 10  # seconds for a service that joins to be in rotation
LEAVE_TIMEOUT = 15  # seconds for its sidecars to drain it and end; measured: 0.3
LOG_TIMEOUT = 5  # seconds for a line to be in a log
ANSWER_TIMEOUT = 10  # seconds for etcd to answer once it was started; measured: 0.3
REQUEST_TIMEOUT = 10  # seconds: longer than the system lets any request take
ENVIRONMENT = dict(os.environ)  # as it is before the learner's code is loaded, which may change it


@dataclass(frozen=True)
class Passage:
    """One passage of a request through the load balancer, as its log has it."""

    backend: str
    instance: str
    method: str
    path: str
    status: int


class Person:
    """A user who has registered and is signed in."""

    def __init__(self, url: str, nickname: str):
        self.url, self.nickname, self.password = url, nickname, secrets.token_urlsafe(16)
        try:
            self.id, self.token = sign_up(url, nickname, self.password)
        except requests.RequestException as error:
            raise CannotCheck(
                f"a user can't register or sign in: {error}. "
                "Check again when `./workshop status` shows an instance of every service in rotation."
            ) from error
        self.http = session()
        self.http.headers["Connection"] = "close"  # or it would stay with a load balancer from before a reload

    def send(self, method: str, path: str, **options) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return self.http.request(method, self.url + path, headers=headers, timeout=REQUEST_TIMEOUT, **options)

    def get(self, path: str, **options) -> requests.Response:
        return self.send("GET", path, **options)

    def post(self, path: str, **options) -> requests.Response:
        return self.send("POST", path, **options)

    def put(self, path: str, **options) -> requests.Response:
        return self.send("PUT", path, **options)

    def delete(self, path: str, **options) -> requests.Response:
        return self.send("DELETE", path, **options)

    def say(self, source: str) -> dict:
        answer = self.post("/api/messages", json={"source": source})
        answer.raise_for_status()
        return answer.json()


def registry_session() -> requests.Session:
    """Return what sends requests to etcd itself, with the client's certificate."""
    http = session()
    http.verify, http.cert = client_files()
    return http


class System:
    """What is up, in the learner's own run folder."""

    def __init__(self, say: Callable[[str], None] = print):
        self.say = say  # what is being tried
        self.up = state.load()
        self.run_folder = paths.RUN
        self.url = self.up.url.rstrip("/")
        self.internal_url = self.up.internal_url
        self.registry = self.up.registry
        self.registry_url = f"https://{self.registry}"
        self.etcd = Registry(self.registry)
        self.haproxy = Runtime(paths.HAPROXY)

    def run(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess:
        """Run a command of the workshop. Raises CannotCheck when it exits with another status."""
        done = self._command(*words)
        if done.returncode != expect:
            raise CannotCheck(f"`./workshop {' '.join(words)}` has failed: {done.stderr.strip()} {checking.DOCTOR}")
        return done

    def _command(self, *words: str) -> subprocess.CompletedProcess:
        """Run a command to its end. When a test's time is over meanwhile, interrupt it: then it tidies up."""
        command = [*paths.LAUNCHER, *map(str, words)]
        if words[0] != "status":
            self.say(f"./workshop {' '.join(map(str, words))}")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=paths.REPOSITORY, env=ENVIRONMENT, **pipes) as process:
            try:
                out, err = process.communicate(timeout=COMMAND_TIMEOUT)
            except BaseException:
                process.send_signal(signal.SIGINT)
                process.wait(COMMAND_TIMEOUT)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def status(self) -> dict:
        return json.loads(self.run("status", "--json").stdout)

    def instances(self, service: str) -> list[dict]:
        """Return the instances of a service, or the workers, as `status --json` has them."""
        found = next((one for one in self.status()["services"] if one["name"] == service), None)
        return found["instances"] if found else []

    def log(self, name: str, lines: int = 10) -> str:
        """Return the last lines of a program's log; of a service's, of the instance that wrote last."""
        files = [supervisor.log_file(name), *paths.LOGS.glob(f"{name}_*.log")]
        written = [file for file in files if file.exists()]
        if not written:
            return ""
        newest = max(written, key=lambda file: file.stat().st_mtime)
        return "\n".join(newest.read_text(errors="replace").splitlines()[-lines:])

    def hops(self, request_id: str) -> list[Passage]:
        """Return each passage of a request through the load balancer, the first that was answered first."""
        last = secrets.token_hex(8)  # HAProxy writes one line after the other: when this one is there, all are
        with session() as http:
            http.get(f"{self.url}/api/messages?limit=1", headers={"X-Request-ID": last}, timeout=REQUEST_TIMEOUT)
        log = supervisor.log_file("haproxy")
        if not wait_until(lambda: f"request_id={last}" in log.read_text(errors="replace"), LOG_TIMEOUT):
            raise CannotCheck(f"the load balancer writes no log. {checking.DOCTOR}")
        return [
            Passage(found["service"], found["instance"], found["method"], found["path"], int(found["status"]))
            for found in map(LINE.match, log.read_text(errors="replace").splitlines())
            if found and found["id"] == request_id
        ]

    def etcdctl_list(self, prefix: str) -> str:
        """Return the command that lists the registry's keys below a prefix."""
        words = {"v2": f"ls -r -p {prefix}", "v3": f"get --prefix --keys-only {prefix}/"}
        return f"./workshop etcdctl {words[self.up.registry_api]}"

    def etcdctl_remove(self, key: str, recursive: bool = False) -> str:
        """Return the command that removes a key, or all keys below it."""
        words = {"v2": f"rm {'--recursive ' * recursive}{key}", "v3": f"del {f'--prefix {key}/' if recursive else key}"}
        return f"./workshop etcdctl {words[self.up.registry_api]}"

    def keys(self, prefix: str = "/") -> dict[str, str]:
        """Return all keys of the registry that begin with `prefix`, and their values."""
        return {key: value for key, value in self.etcd.entries().items() if key.startswith(prefix)}

    def user(self, nickname: str | None = None) -> Person:
        """Register somebody."""
        return Person(self.url, nickname or f"check-{secrets.token_hex(4)}")

    def load(self, **fields: float) -> Probe:
        """Return a steady load, which begins and ends with a `with`."""
        return Probe(self.url, Load(**fields))

    @contextlib.contextmanager
    def scaled(self, **counts: int) -> Iterator[None]:
        """Have so many instances of each service meanwhile."""
        before = {name: len(self.instances(name)) for name in counts}
        try:
            if counts:
                self.run("scale", *(f"{name}={count}" for name, count in counts.items()))
            yield
        finally:
            if before:
                self.run("scale", *(f"{name}={count}" for name, count in before.items()))

    @contextlib.contextmanager
    def stopped(self, program: str) -> Iterator[None]:
        """Keep a service away meanwhile, or one of etcd, redis, haproxy and balancer."""
        is_service = program in self.up.versions
        self.run("stop", program) if is_service else supervisor.stop([program])
        try:
            yield
        finally:
            self.run("start", program) if is_service else supervisor.restart([program])
            if program == "etcd":
                wait_until(self._registry_answers, ANSWER_TIMEOUT)

    def _registry_answers(self) -> bool:
        try:
            return bool(self.etcd.entries())
        except RegistryUnavailable:
            return False

    def built(self, service: str, files: dict[str, Path]) -> str:
        """Build a service of the stage with these files in place of, or beside, its own; return the version.

        Raises NotYet as long as there is a TODO in one.
        """
        declared = evolution.current(self.up).service(service)
        for file in files.values():
            refuse_todo(file)
        with tempfile.TemporaryDirectory(prefix="build-") as folder:
            copy = Path(folder, service)
            shutil.copytree(declared.folder, copy)
            for place, shared in declared.shared.items():
                shutil.copytree(shared, copy / place)
            for inside, file in files.items():
                (copy / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy / inside)
            return builds.build(dataclasses.replace(declared, folder=copy, shared={}))

    @contextlib.contextmanager
    def deployed(self, service: str, files: dict[str, Path]) -> Iterator[str]:
        """Roll out a service of the stage with these files in it, and back; give the version."""
        before, version = self.up.versions[service], self.built(service, files)
        try:
            done = self._command("upgrade", service, "--to", version)
            if done.returncode:
                sentence, _, log = done.stderr.removeprefix("Error: ").partition("\n")
                raise Wrong(
                    f"{service} does not come up with your file in it.",
                    hop=Hop.SERVICE,
                    seen=sentence,
                    expected="an instance that answers GET /healthz",
                    show=f"./workshop logs {service}",
                    log=log,
                )
            yield version
        finally:
            self.run("upgrade", service, "--to", before)

    @contextlib.contextmanager
    def joined(
        self,
        name: str,
        command: list[str],
        folder: Path,
        routes: list[str],
        *,
        sticky: tuple[str, ...] = (),
        balance: str = "roundrobin",
        instances: int = 1,
        environment: dict[str, str] | None = None,
    ) -> Iterator[list[str]]:
        """Have a service that is none of the stage's beside it, each instance with a sidecar; give their names."""
        told = (
            processes.base_environment()
            | {"SERVICE": name, "VERSION": "v1", "INTERNAL_URL": self.internal_url}
            | (environment or {})
        )
        names = [f"{name}_v1_{secrets.token_hex(2)}" for _ in range(instances)]
        log, sidecars = supervisor.log_file(name), []
        with tempfile.TemporaryDirectory(prefix="join-") as scratch, contextlib.ExitStack() as stack:
            stack.callback(log.unlink)
            printed = stack.enter_context(open(log, "w", encoding="utf-8"))
            stack.callback(self._forget, name)
            stack.callback(_end, sidecars)
            for one in names:
                file = Path(scratch, f"{one}.json")
                Instance(
                    one,
                    name,
                    routes,
                    balance,
                    list(sticky),
                    command,
                    str(folder),
                    told,
                    registry=self.registry,
                    registry_api=self.up.registry_api,
                ).save(file)
                sidecars.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "workshop.sidecar", str(file)],
                        env=told | processes.platform_environment(),
                        stdout=printed,
                        stderr=printed,
                    )
                )
            wait_until(lambda: self._serves(name, names, routes) or _has_ended(sidecars), JOIN_TIMEOUT)
            if not self._serves(name, names, routes):
                raise _did_not_join(name, command, sidecars, log.read_text(errors="replace"))
            yield names

    def _serves(self, name: str, names: list[str], routes: list[str]) -> bool:
        """Tell whether the load balancer has all of these in rotation, and knows the routes."""
        try:
            rows, table = self.haproxy.servers().get(name, {}), self.haproxy.routes()
        except HAProxyUnavailable:
            return False  # it is just being reloaded
        return set(routes) <= table.keys() and all(
            rows.get(one, {}).get("status", "").startswith("UP") for one in names
        )

    def _forget(self, name: str) -> None:
        """Take a service that has left out of the registry, and wait until the load balancer has done so, too."""
        self.etcd.forget(name)

        def is_gone() -> bool:
            try:
                return name not in self.haproxy.servers()
            except HAProxyUnavailable:
                return False

        wait_until(is_gone, LOG_TIMEOUT)


def _has_ended(sidecars: list[subprocess.Popen]) -> bool:
    return any(sidecar.poll() is not None for sidecar in sidecars)


def _end(sidecars: list[subprocess.Popen]) -> None:
    for sidecar in sidecars:
        sidecar.terminate()
    for sidecar in sidecars:
        try:
            sidecar.wait(LEAVE_TIMEOUT)
        except subprocess.TimeoutExpired:
            sidecar.kill()
            sidecar.wait()


def _did_not_join(name: str, command: list[str], sidecars: list[subprocess.Popen], log: str) -> NotYet | Wrong:
    """Say why a service is not in rotation: it has ended, listens elsewhere, does not answer, or is not let in."""
    if found := re.search(r"(?m)^NotImplementedError: (.*)$", log):
        return NotYet(found[1])
    if "registered at" in log and not _has_ended(sidecars):
        return Wrong(
            f"{name} is registered, and the load balancer does not take it into rotation.",
            hop=Hop.BALANCER,
            seen="no server of it that is UP",
            expected="one for each instance",
            show="./workshop logs balancer",
            log=log,
        )
    elsewhere = sorted({address for sidecar in sidecars for address in listening(sidecar.pid)})
    if _has_ended(sidecars):
        seen = "its process ended at its start"
    elif elsewhere:
        seen = f"it listens on {', '.join(elsewhere)}"
    else:
        seen = f"nothing answered GET /healthz within {JOIN_TIMEOUT} s"
    return Wrong(
        f"{name} does not come into rotation.",
        hop=Hop.SERVICE,
        seen=seen,
        expected="a program that listens on $HOST:$PORT and answers GET /healthz with 200",
        show=(
            f"export HOST=127.0.0.1 PORT=5999; {' '.join(command)}\n"
            "curl -i http://127.0.0.1:5999/healthz   # in another terminal"
        ),
        log=log,
    )
