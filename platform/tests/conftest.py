"""The platform's own tests: real etcd, HAProxy and services, on ports and in folders of their own."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import requests

from workshop import balancer, certificates, registry, stores
from workshop.haproxy import HAProxyUnavailable, Runtime
from workshop.ports import HOST, free_port
from workshop.registry import Registry, RegistryUnavailable
from workshop.sidecar import Instance
from workshop.state import Up

PLATFORM = Path(__file__).resolve().parents[1]
SERVICE = Path(__file__).with_name("tiny_service.py")


class Etcd:
    """An etcd that can be stopped and started again on the same port."""

    def __init__(self, folder: Path, api: str):
        self.folder = folder
        self.api = api
        self.certificates = folder / "certificates"
        self.port, self.peer = free_port(), free_port()
        self.address = f"{HOST}:{self.port}"
        certificates.make(self.certificates, folder, HOST, api)

    def start(self) -> None:
        command = stores.etcd_command(self.folder, self.api, self.port, self.peer)
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="platform-") as name:
        yield Path(name)


@pytest.fixture(params=registry.APIS)
def api(request):
    """The API of the registry: what needs it is tested with each of them."""
    return request.param


@pytest.fixture
def etcd(folder, api, until):
    server = Etcd(folder, api)
    server.start()

    def answers() -> bool:
        try:
            return bool(Registry(server.address, server.certificates, api).snapshot())
        except RegistryUnavailable:
            return False

    until(answers, 10, "etcd answers")
    yield server
    server.stop()


@pytest.fixture
def service_registry(etcd):
    return Registry(etcd.address, etcd.certificates, etcd.api)


@pytest.fixture
def start_sidecar(etcd, folder):
    """Start sidecars of the tiny service; what is left of them is ended with the test."""
    started = []

    def start(
        name: str = "tiny_v1_aaaa", service: str = "tiny", location: str = "/tiny", behaviour: str = ""
    ) -> subprocess.Popen:
        file = folder / f"{name}.json"
        Instance(
            name=name,
            service=service,
            locations=[location],
            balance="roundrobin",
            sticky=[],
            command=[sys.executable, str(SERVICE), "$PORT", behaviour],
            folder=str(folder),
            environment={"PATH": "/usr/bin:/bin"},
            registry=etcd.address,
            registry_api=etcd.api,
        ).save(file)
        with open(folder / f"{name}.log", "a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workshop.sidecar", str(file)],
                env={"PYTHONPATH": str(PLATFORM), "PATH": "/usr/bin:/bin", "WORKSHOP_RUN_DIR": str(folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()  # which takes its service with it, as one test makes sure
        process.wait()


class LoadBalancer:
    """HAProxy and its manager."""

    def __init__(self, folder: Path, etcd: Etcd):
        self.folder = folder / "haproxy"
        ports = {name: free_port() for name in ("public", "internal", "statistics")} | {"registry": etcd.port}
        self.up = Up("test", "process", "sqlite", ports, {}, {}, {}, registry_api=etcd.api)
        self.runtime = Runtime(self.folder)
        self.url = self.up.url.rstrip("/")

    def start(self, services: dict) -> None:
        balancer.seed(services, {}, self.up.frontends, self.folder)
        self.haproxy = subprocess.Popen(
            ["haproxy", "-W", "-db", "-f", self.folder / "haproxy.cfg", "-S", self.runtime.socket],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.start_manager()

    def start_manager(self) -> None:
        with open(self.folder / "manager.log", "a", encoding="utf-8") as log:
            self.manager = subprocess.Popen(
                [sys.executable, "-m", "workshop.balancer"],
                env={
                    "PYTHONPATH": str(PLATFORM),
                    "PATH": "/usr/sbin:/usr/bin:/bin",
                    "WORKSHOP_RUN_DIR": str(self.folder.parent),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        for process in (self.manager, self.haproxy):
            process.terminate()
            process.wait(10)

    def get(self, path: str, **options) -> requests.Response:
        return requests.get(self.url + path, timeout=5, **options)

    def served_by(self, path: str) -> str | None:
        return self.get(path).headers.get("X-Served-By")

    def servers(self, service: str) -> dict[str, dict[str, str]]:
        """Return the rows of the statistics about a service's instances; the master may be starting itself anew."""
        deadline = time.monotonic() + 2
        while True:
            try:
                return self.runtime.servers().get(service, {})
            except HAProxyUnavailable:
                if time.monotonic() > deadline:
                    raise

    def in_rotation(self, service: str) -> list[str]:
        rows = self.servers(service)
        return sorted(name for name, row in rows.items() if row["status"].startswith(("UP", "no check")))


@pytest.fixture
def load_balancer(folder, etcd, until):
    made = LoadBalancer(folder, etcd)
    made.up.save(folder / "stage.json")
    made.start({"tiny": registry.Backend("tiny", ["/tiny"])})

    def answers() -> bool:
        try:
            return made.get("/none").status_code == 404
        except requests.ConnectionError:
            return False

    until(answers, 10, "HAProxy answers")
    yield made
    made.stop()
