"""The check of exercise 05: what the learner's manager makes of a registry, hostile values among it, and of HAProxy."""

import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import requests

from workshop import binaries, paths
from workshop.ports import HOST, answers, free_port
from workshop.verdict import Hop, expect
from workshop.waiting import wait_until

TINY_SERVICE = paths.REPOSITORY / "platform" / "tests" / "tiny_service.py"
SERVE = Path(__file__).with_name("serve.py")
START_TIMEOUT = 10  # seconds for a Python program to start; measured: 0.3
ASK_TIMEOUT = 5  # seconds for a question of the check's own; loopback needs milliseconds
CHECK_TIMEOUT = 10  # seconds for `haproxy -c`
# Seconds for a change of the registry to be served: serve.py looks every 0.5, a check and a reload take 0.2; on a busy
# machine much longer, and the first time serve.py and HAProxy start as well.
SERVE_TIMEOUT = 10
PORT = 8090  # of configurations that are only looked at

# A configuration that HAProxy accepts, and one that it does not.
GOOD = f"frontend public\n    mode http\n    timeout client 1s\n    bind {HOST}:{PORT}\n"
BAD = GOOD + "    use_backend nowhere\n"

# What somebody might write into the registry, with a mark in each: service, its location, instance, upstream.
HOSTILE = [
    ("shop", "/shop", "shop_v1_MARK", "127.0.0.1:21009\n    server MARK 10.0.0.1:80"),
    ("shop", "/shop", "shop_v1_MARK", "127.0.0.1:21009 weight 1 disabled"),
    ("shop", "/shop", "shop_v1_MARK", "127.0.0.1:21009 weight 1000"),
    ("shop", "/shop", "shop_v1_MARK", "MARK.example:80"),
    ("shop", "/shop", "shop v1 MARK", "127.0.0.1:21009"),
    ("shop", "/shop", "shop_v1_MARK\n", "127.0.0.1:21009"),
    ("shop", "/shop", "MARK\n    server other", "127.0.0.1:21009"),
    ("MARK shop", "/more", "more_v1_a", "127.0.0.1:21009"),
    ("MARK\nbackend other", "/more", "more_v1_a", "127.0.0.1:21009"),
    ("more", "/more } || { always_true MARK", "more_v1_a", "127.0.0.1:21009"),
    ("more", '/more"\n    http-request deny MARK', "more_v1_a", "127.0.0.1:21009"),
]
# Upstreams of the expected form, each with a number for which HAProxy refuses the whole configuration.
IMPOSSIBLE = ["127.0.0.1:99999", "127.0.0.1:0", "127.0.0.256:80", "127.0.0.1:21009 weight 300"]
# Stands for the program haproxy: first copies the haproxy.cfg that is in its place at that moment.
WITNESS = """\
#!/bin/sh
cp "{target}" "{seen}"
exec "{haproxy}" "$@"
"""


@pytest.fixture
def folder():
    # Not pytest's own temporary folder: its path is too long for HAProxy's sockets.
    with tempfile.TemporaryDirectory(prefix="manager-") as name:
        yield Path(name)


@pytest.fixture
def manager(learner):
    return learner.load("manager.py")


def services_of(manager) -> dict:
    """Return a registry's services, whose names are not in the order of the alphabet."""
    return {
        "shop": manager.Backend("/shop", {"shop_v1_b": "127.0.0.1:21002", "shop_v1_a": "127.0.0.1:21001 weight 5"}),
        "cart": manager.Backend("/shop/cart /cart", {"cart_v2_a": "127.0.0.1:21003"}),
    }


def shown(code: str) -> str:
    """Return a command that prints what the learner's functions return."""
    escaped = code.replace('"', '\\"')
    return f'PYTHONPATH=work/05-registry-to-haproxy .venv/bin/python -c "from manager import *; {escaped}"'


def show_render(services: dict) -> str:
    return shown(f"print(render({services}, {PORT}))")


def show_apply(*configs: str) -> str:
    calls = [f"print(apply({config!r}, folder, lambda: print('reload')))" for config in configs]
    return shown("; ".join(["import tempfile", "folder = Path(tempfile.mkdtemp())", *calls]))


def servers(config: str) -> dict[str, dict[str, str]]:
    """Return which servers a configuration has: backend → name → address."""
    found: dict[str, dict[str, str]] = {}
    backend = ""
    for line in config.splitlines():
        match line.split():
            case ["frontend" | "listen", *_]:
                backend = ""
            case ["backend", backend]:
                found[backend] = {}
            case ["server", name, address, *_]:
                found.setdefault(backend, {})[name] = address
    return found


def test_haproxy_accepts_what_is_rendered(manager, folder):
    services = services_of(manager)
    config = manager.render(services, PORT)
    expect(
        isinstance(config, str),
        "render returns no text.",
        hop=Hop.CODE,
        seen=f"{config!r:.60}",
        expected="the whole haproxy.cfg",
        show=show_render(services),
    )
    file = folder / "haproxy.cfg"
    file.write_text(config)
    command = [binaries.find("haproxy"), "-c", "-f", file]
    said = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT)
    expect(
        said.returncode == 0,
        "HAProxy does not accept what render returns.",
        hop=Hop.CODE,
        seen=next((line for line in said.stderr.splitlines() if "ALERT" in line), ""),
        expected="a valid haproxy.cfg",
        show=show_render(services),
        log=said.stderr,
    )
    wanted = {
        "cart": {"cart_v2_a": "127.0.0.1:21003"},
        "shop": {"shop_v1_a": "127.0.0.1:21001", "shop_v1_b": "127.0.0.1:21002"},
    }
    expect(
        servers(config) == wanted,
        "the configuration does not have one backend for each service, with one server for each of its instances.",
        hop=Hop.CODE,
        seen=str(servers(config)),
        expected=str(wanted),
        show=show_render(services),
        log=config,
    )


def test_the_same_services_are_the_same_text(manager):
    services = services_of(manager)
    turned = {
        name: manager.Backend(service.location, dict(reversed(service.upstreams.items())))
        for name, service in reversed(services.items())
    }
    one, other = manager.render(services, PORT).splitlines(), manager.render(turned, PORT).splitlines()
    expect(
        one == other,
        "the same services in another order give another text: HAProxy would be reloaded although nothing has changed.",
        hop=Hop.CODE,
        seen=next((f"{a.strip()!r}, then {b.strip()!r}" for a, b in zip(one, other, strict=False) if a != b), "more"),
        expected="one order, always: etcd promises none",
        show=show_render(turned),
    )


@pytest.mark.parametrize(("service", "location", "instance", "upstream"), HOSTILE)
def test_a_hostile_value_does_not_get_in(manager, service, location, instance, upstream):
    mark = f"x{secrets.token_hex(3)}"
    service, location, instance, upstream = (
        value.replace("MARK", mark) for value in (service, location, instance, upstream)
    )
    services = services_of(manager)
    hostile = services.setdefault(service, manager.Backend())
    hostile.location, hostile.upstreams[instance] = location, upstream
    config = manager.render(services, PORT)
    expect(
        mark not in config,
        "a hostile value got into the configuration: who can write to the registry can reconfigure the load balancer.",
        hop=Hop.REGISTRY,
        seen=f"{service!r} at {location!r}, {instance!r} = {upstream!r}",
        expected="what is not exactly of the expected form is left out",
        show=show_render(services),
        log="\n".join(line for line in config.splitlines() if mark in line),
    )
    refuse_without_good_instances(config, services)
    if service == "more":
        expect(
            servers(config).get(service) == {instance: upstream},
            "because of its location a service is left out with its good instances. Leave out the location alone: the "
            "service gets no rule until its location is written again.",
            hop=Hop.REGISTRY,
            seen=f"backends: {', '.join(servers(config))}",
            expected=f"a backend {service} with the server {instance}, and no rule that leads to it",
            show=show_render(services),
        )


@pytest.mark.parametrize("upstream", IMPOSSIBLE)
def test_an_impossible_number_does_not_get_in(manager, upstream):
    services = services_of(manager)
    services["shop"].upstreams["shop_v1_c"] = upstream
    config = manager.render(services, PORT)
    expect(
        "shop_v1_c" not in config,
        f"{upstream} gets into the configuration. HAProxy refuses all of it, so this one key blocks every change.",
        hop=Hop.REGISTRY,
        seen=f"server shop_v1_c {upstream}",
        expected="ports from 1 to 65535, weights from 0 to 256, IPv4 addresses that exist",
        show=show_render(services),
    )
    refuse_without_good_instances(config, services)


def refuse_without_good_instances(config: str, services: dict) -> None:
    there = servers(config).get("shop", {})
    expect(
        there.keys() == {"shop_v1_a", "shop_v1_b"},
        "because of one hostile value good instances are left out: who can write to the registry can stop a service.",
        hop=Hop.REGISTRY,
        seen=f"servers of shop: {', '.join(there) or 'none'}",
        expected="shop_v1_a, shop_v1_b",
        show=show_render(services),
    )


class Reloads:
    """Stands for HAProxy: remembers what the file said at each reload."""

    def __init__(self, target: Path):
        self.target = target
        self.seen: list[str] = []

    def __call__(self) -> None:
        self.seen.append(self.target.read_text() if self.target.exists() else "")


def test_a_configuration_is_applied_when_it_is_another_one(manager, folder):
    target = folder / "haproxy.cfg"
    reload = Reloads(target)
    answer = manager.apply(GOOD, folder, reload)
    expect(
        reload.seen == [GOOD] and answer is True,
        "the first configuration is not applied: HAProxy is to be reloaded once, when the file is in its place.",
        hop=Hop.BALANCER,
        seen=f"{answer}, reloads: {len(reload.seen)}, haproxy.cfg is {'there' if target.exists() else 'not there'}",
        expected="True, reloads: 1, haproxy.cfg is there",
        show=show_apply(GOOD),
    )
    answer = manager.apply(GOOD, folder, reload)
    expect(
        len(reload.seen) == 1 and answer is False,
        "nothing had changed, and HAProxy was reloaded: each reload leaves an old worker behind, with its WebSockets.",
        hop=Hop.BALANCER,
        seen=f"{answer}, reloads: {len(reload.seen) - 1}",
        expected="False, reloads: 0",
        show=show_apply(GOOD, GOOD),
    )
    other = f"# Another one.\n{GOOD}"
    with open(target, "rb", buffering=0) as reader:  # somebody who has just begun to read: HAProxy, starting
        answer = manager.apply(other, folder, reload)
        read = reader.read().decode()
    expect(
        reload.seen[1:] == [other] and answer is True,
        "another configuration is not applied: HAProxy is to be reloaded once, when the file is in its place.",
        hop=Hop.BALANCER,
        seen=f"{answer}, reloads: {len(reload.seen) - 1}",
        expected="True, reloads: 1, haproxy.cfg is the other one",
        show=show_apply(GOOD, other),
    )
    expect(
        read == GOOD,
        "haproxy.cfg is written in place: an HAProxy that starts in that moment reads half a configuration.",
        hop=Hop.BALANCER,
        seen="who had opened the old file reads words of the new one",
        expected="the old file to its end: the new one is written beside it, and renamed over it",
        show=show_apply(GOOD, other),
    )


def test_a_configuration_that_haproxy_refuses_changes_nothing(manager, folder, tmp_path, monkeypatch):
    target, seen = folder / "haproxy.cfg", tmp_path / "seen.cfg"
    manager.apply(GOOD, folder, Reloads(target))
    witness = tmp_path / "haproxy"
    witness.write_text(WITNESS.format(target=target, seen=seen, haproxy=binaries.find("haproxy")))
    witness.chmod(0o755)
    monkeypatch.setattr(manager, "HAPROXY", str(witness), raising=False)
    reload = Reloads(target)
    said = rejection(manager, BAD, folder, reload)
    expect(
        target.read_text() == GOOD and not reload.seen,
        "haproxy.cfg is one that HAProxy does not accept: should it be started again now, there is no load balancer.",
        hop=Hop.BALANCER,
        seen=f"haproxy.cfg with {BAD.splitlines()[-1].strip()!r}, reloads: {len(reload.seen)}",
        expected="haproxy.cfg as it was, reloads: 0; first the check, then the rename",
        show=show_apply(BAD),
        log=said,
    )
    expect(
        not seen.exists() or seen.read_text() == GOOD,
        "a configuration is in its place while `haproxy -c` still checks it: an HAProxy that starts in that moment "
        "fails.",
        hop=Hop.BALANCER,
        seen="during the check, haproxy.cfg was not the configuration from before",
        expected="the new one beside it, until HAProxy has accepted it",
        show="sed -n '/^def apply/,$p' work/05-registry-to-haproxy/manager.py",
    )
    expect(
        "nowhere" in said,
        "HAProxy does not accept a configuration, and nobody is told why.",
        hop=Hop.BALANCER,
        seen=f"Rejected: {said}" if said else "apply returned",
        expected="Rejected, with HAProxy's own words",
        show=show_apply(BAD),
    )
    expect(
        rejection(manager, BAD, folder, reload),
        "the second time, a configuration that HAProxy refuses counts as one that is in use. Compare with haproxy.cfg, "
        "not with what `apply` was called with before.",
        hop=Hop.BALANCER,
        seen="apply returned, and haproxy.cfg is another configuration",
        expected="Rejected, each time",
        show="sed -n '/^def apply/,$p' work/05-registry-to-haproxy/manager.py",
    )


def rejection(manager, config: str, folder: Path, reload: Reloads) -> str:
    """Return HAProxy's words when `apply` raises Rejected, an empty text when it returns."""
    try:
        manager.apply(config, folder, reload)
    except manager.Rejected as error:
        return str(error) or "Rejected"
    return ""


class Registry:
    """Two services in the stage's registry, under names that only this check knows; all at one little server."""

    def __init__(self, stage, learner):
        self.etcd = stage.etcd
        self.shop, self.cart = f"shop{secrets.token_hex(3)}", f"cart{secrets.token_hex(3)}"
        port = free_port()
        self.address = f"{HOST}:{port}"
        learner.launch([sys.executable, str(TINY_SERVICE), str(port)], TINY_SERVICE.parent)
        wait_until(lambda: answers(port), START_TIMEOUT)

    def __enter__(self):
        self.write(f"{self.shop}/location", f"/{self.shop}")
        self.write(f"{self.cart}/location", f"/{self.shop}/cart")
        self.write(f"{self.shop}/upstream/shop_v1_a", self.address)
        self.write(f"{self.cart}/upstream/cart_v1_a", self.address)
        return self

    def __exit__(self, *_):
        self.etcd.forget(self.shop)
        self.etcd.forget(self.cart)

    def write(self, path: str, value: str) -> None:
        self.etcd.etcd.write(f"/services/{path}", value)


@pytest.mark.timeout(60)
def test_haproxy_serves_what_the_registry_says(learner, stage, folder):
    port = free_port()
    with Registry(stage, learner) as registry, requests.Session() as http:
        http.trust_env = False
        http.headers["Connection"] = "close"  # or it would stay with a worker from before a reload
        program = learner.launch(
            [sys.executable, str(SERVE), stage.registry, str(port), str(folder)],
            folder,
            PYTHONPATH=f"{paths.REPOSITORY / 'platform'}:{learner.folder}",
        )

        def served_by(path: str) -> str:
            try:
                answer = http.get(f"http://{HOST}:{port}{path}", timeout=ASK_TIMEOUT)
            except requests.RequestException as error:
                return f"nobody ({type(error).__name__})"
            return answer.headers.get("X-Served-By") or f"HAProxy itself, with {answer.status_code}"

        def expect_served(path: str, *wanted: str, sentence: str) -> None:
            seen: set[str] = set()

            def are_served() -> bool:
                seen.clear()
                seen.update(served_by(path) for _ in range(2 * len(wanted)))  # they take turns
                return seen == set(wanted)

            expect(
                program.until(are_served, SERVE_TIMEOUT),
                sentence,
                hop=Hop.BALANCER,
                seen=f"GET {path} is answered by {', '.join(sorted(seen))}",
                expected=f"by {', '.join(wanted)}",
                show="PYTHONPATH=platform:work/05-registry-to-haproxy .venv/bin/python "
                f"exercises/05-registry-to-haproxy/serve.py {stage.registry} {PORT} .run/manager\n"
                "and, beside it, cat .run/manager/haproxy.cfg",
                log=program.output(),
            )

        rules = (
            "a path does not get to its service: HAProxy takes the first rule that fits, so the longest comes first."
        )
        expect_served(f"/{registry.shop}/1", "shop_v1_a", sentence=rules)
        expect_served(f"/{registry.shop}/cart/1", "cart_v1_a", sentence=rules)
        registry.write(f"{registry.shop}/upstream/shop_v1_c", "127.0.0.1:1\n    server x 10.0.0.1:80")
        registry.write(f"{registry.shop}/upstream/shop_v1_b", registry.address)
        news = "a new instance is not served: what was written into the registry before it is hostile."
        expect_served(f"/{registry.shop}", "shop_v1_a", "shop_v1_b", sentence=news)
        stage.etcd.deregister(registry.shop, "shop_v1_a")
        gone = "an instance that has left the registry is still sent requests."
        expect_served(f"/{registry.shop}", "shop_v1_b", sentence=gone)
