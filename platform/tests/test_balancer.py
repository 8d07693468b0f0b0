"""The load-balancer manager, with a real HAProxy and a real etcd."""

import concurrent.futures
import re
import shutil
import signal
import socket
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from workshop.registry import BALANCE, TTL, Backend, Upstream


def test_a_path_that_nobody_answers_gets_a_json_error_with_the_request_id(load_balancer):
    answer = load_balancer.get("/nobody", headers={"X-Request-ID": "my-own.id_1"})

    assert answer.status_code == 404
    assert answer.json() == {"error": "No service answers this path.", "request_id": "my-own.id_1"}
    assert answer.headers["X-Request-ID"] == "my-own.id_1"


def test_a_malformed_request_id_is_replaced(load_balancer):
    answer = load_balancer.get("/nobody", headers={"X-Request-ID": 'quote" and space'})

    assert len(answer.headers["X-Request-ID"]) == 36
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


def test_a_service_without_an_instance_gives_503_in_json(load_balancer):
    answer = load_balancer.get("/tiny")

    assert answer.status_code == 503
    assert answer.json()["error"].startswith("No instance of this service")


def test_a_browser_that_navigates_gets_a_page_that_tries_again_until_an_instance_answers(
    load_balancer, start_sidecar, until
):
    navigating = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for path, status, sentence in (
        ("/tiny", 503, "No instance of this service (tiny) can be reached"),
        ("/nobody", 404, "No service answers this path."),
    ):
        answer = load_balancer.get(path, headers=navigating | {"X-Request-ID": "my-own.id_1"})
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        assert sentence in answer.text
        assert "my-own.id_1" in answer.text
        assert '<meta http-equiv="refresh" content="3">' in answer.text
        assert not re.search("(src|href)=|url[(]|<script", answer.text)
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert load_balancer.get("/tiny", headers=headers).json()["error"].startswith("No instance")
    posted = requests.post(load_balancer.url + "/tiny", headers=navigating, timeout=5)
    assert posted.json()["error"].startswith("No instance")
    internal = load_balancer.get("/internal/x", headers=navigating)
    assert internal.json()["error"] == "No service answers this path."

    start_sidecar("tiny_v1_aaaa")
    until(lambda: load_balancer.get("/tiny", headers=navigating).text == "ok", 10, "the service's own answer")


def test_an_instance_that_breaks_off_gives_a_browser_the_page_too(load_balancer, start_sidecar, until):
    start_sidecar("tiny_v1_aaaa", behaviour="vanish")
    until(lambda: load_balancer.in_rotation("tiny"), 10, "in rotation")

    answer = load_balancer.get("/tiny", headers={"Accept": "text/html"})

    assert answer.status_code == 502
    assert "The instance ended" in answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


def test_clear_text_http_2_is_refused(load_balancer, start_sidecar, until):
    start_sidecar("tiny_v1_aaaa", behaviour="echo")
    until(lambda: load_balancer.in_rotation("tiny"), 10, "in rotation")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
    for port in (load_balancer.up.ports[name] for name in ("public", "internal", "statistics")):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(preface)
            answer = b"".join(iter(lambda connection=connection: connection.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 400 ")

    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    answer = load_balancer.get("/tiny", headers=upgrade)
    assert answer.status_code == 200
    assert "upgrade: h2c" not in answer.text.lower()  # what the instance was sent
    assert "x-request-id: " in answer.text.lower()


def test_an_internal_path_is_refused_in_public_in_whatever_way_it_is_written(load_balancer):
    for path in ("/internal/x", "//internal/x", "/%69nternal/x", "/INTERNAL/", "/internal", "/%2finternal/x"):
        request = requests.Request("GET", load_balancer.url)
        with requests.Session() as session:
            prepared = session.prepare_request(request)
            prepared.url = load_balancer.url + path
            assert session.send(prepared, timeout=5).json()["error"] == "No service answers this path.", path


def test_the_longest_prefix_decides_and_only_whole_segments_count(load_balancer, start_sidecar, until):
    start_sidecar("tiny_v1_aaaa")
    start_sidecar("deep_v1_aaaa", "deep", location="/tiny/deep")
    until(lambda: load_balancer.in_rotation("tiny") and load_balancer.in_rotation("deep"), 10, "in rotation")
    until(lambda: load_balancer.served_by("/tiny/deep") == "deep_v1_aaaa", 5, "routed")

    assert load_balancer.served_by("/tiny/deep/x") == "deep_v1_aaaa"
    assert load_balancer.served_by("/tiny/deeper") == "tiny_v1_aaaa"
    assert load_balancer.served_by("/tiny") == "tiny_v1_aaaa"
    assert load_balancer.get("/tinyx").status_code == 404


def test_a_new_instance_serves_soon_after_it_is_registered(
    load_balancer, service_registry, print_figure, start_sidecar, until
):
    start_sidecar("tiny_v1_aaaa")
    until(lambda: load_balancer.in_rotation("tiny"), 10, "the first one is in rotation")
    address = service_registry.snapshot().services["tiny"].upstreams["tiny_v1_aaaa"]
    times = []
    for name in (f"tiny_v2_{number}" for number in range(20)):
        # The same process under other names: only the way from the registry to the first request is measured.
        registered = time.monotonic()
        service_registry.register(Backend("tiny", ["/tiny"], upstreams={name: address}), name)
        until(lambda name=name: load_balancer.served_by("/tiny") == name, 5, "served")
        times.append(1000 * (time.monotonic() - registered))
        service_registry.deregister("tiny", name)
        until(lambda name=name: name not in load_balancer.in_rotation("tiny"), 5, "out again")
    print_figure(f"registered → served: median {statistics.median(times):.0f} ms, most {max(times):.0f} ms")
    assert max(times) < 250


def test_an_instance_joins_whatever_the_balance(load_balancer, service_registry, start_sidecar, until):
    start_sidecar("tiny_v1_aaaa")
    until(lambda: load_balancer.in_rotation("tiny"), 10, "in rotation")
    address = service_registry.snapshot().services["tiny"].upstreams["tiny_v1_aaaa"]
    for balance in BALANCE:
        service_registry.register(Backend(balance, [f"/{balance}"], balance, upstreams={"one": address}), "one")
    for balance in BALANCE:
        until(lambda balance=balance: load_balancer.served_by(f"/{balance}") == "one", 5, balance)


def test_a_hostile_registry_changes_nothing(load_balancer, service_registry, start_sidecar, until):
    start_sidecar()
    until(lambda: load_balancer.in_rotation("tiny"), 10, "in rotation")
    before = (load_balancer.folder / "haproxy.cfg").read_text()
    service_registry.etcd.write("/services/tiny/upstream/evil", "127.0.0.1:80\n  server x 127.0.0.1:81")
    service_registry.etcd.write("/services/tiny/backend/balance", "roundrobin\n  http-request deny")
    start_sidecar("tiny_v1_bbbb")  # a good value after the bad ones: it gets in, so they have been seen
    until(lambda: "tiny_v1_bbbb" in load_balancer.in_rotation("tiny"), 10, "in rotation")

    after = (load_balancer.folder / "haproxy.cfg").read_text()
    assert [line for line in after.splitlines() if "tiny_v1_bbbb" not in line] == before.splitlines()


@pytest.fixture
def own_sidecar(start_sidecar, folder):
    """Start a sidecar of the platform's own, as the command line does: its instance is declared below .run/."""
    (folder / "instances").mkdir()

    def start(name: str, *arguments: str) -> None:
        start_sidecar(name, *arguments)
        shutil.copy(folder / f"{name}.json", folder / "instances")

    return start


def lines_of(load_balancer, words: str) -> list[str]:
    return [line for line in (load_balancer.folder / "manager.log").read_text().splitlines() if words in line]


def test_a_foreign_program_does_not_speak_for_a_service_of_the_platform(
    load_balancer, service_registry, own_sidecar, until
):
    own_sidecar("tiny_v1_aaaa")
    until(lambda: load_balancer.served_by("/tiny") == "tiny_v1_aaaa", 10, "served")
    foreign = Backend("tiny", ["/foreign"], "leastconn", ["/foreign"], {"stranger": Upstream("127.0.0.1", 9)})
    other = Backend("other", ["/tiny", "/other"], upstreams={"other": Upstream("127.0.0.1", 9)})

    def described() -> tuple[list[str], str, list[str]]:
        tiny = service_registry.snapshot().services["tiny"]
        return tiny.locations, tiny.balance, tiny.sticky

    for _ in range(2):
        service_registry.register(foreign, "stranger")
        service_registry.register(other, "other")
        until(lambda: {"stranger"} <= load_balancer.servers("tiny").keys(), 5, "the stranger has joined")
        until(lambda: load_balancer.get("/other").status_code == 503, 5, "other serves what is its own")
        assert load_balancer.get("/foreign").status_code == 404
        assert load_balancer.served_by("/tiny") == "tiny_v1_aaaa"  # the stranger refuses connections
        # Also after it has left: what it has overwritten is written again.
        service_registry.deregister("tiny", "stranger")
        until(lambda: described() == (["/tiny"], "roundrobin", []), 10, "written again")
        assert load_balancer.served_by("/tiny") == "tiny_v1_aaaa"

    assert len(lines_of(load_balancer, "tiny: the registry has other locations")) == 1
    assert len(lines_of(load_balancer, "other: the registry has /tiny as a location")) == 1


def test_a_service_that_registers_too_much_does_not_stop_the_manager(load_balancer, service_registry, until):
    sticky = " ".join(f"/p{number}" for number in range(100))
    service_registry.etcd.write("/services/greedy/location", "/greedy")
    service_registry.etcd.write("/services/greedy/backend/sticky", sticky)
    one = {"one": Upstream("127.0.0.1", 9)}
    service_registry.register(Backend("late", ["/late"], upstreams=one), "one")

    until(lambda: load_balancer.get("/late").status_code == 503, 5, "a service that registers later is served")
    assert load_balancer.get("/greedy").status_code == 503
    assert len(lines_of(load_balancer, "100 path prefixes, at most 8")) == 1


def test_the_manager_says_what_haproxy_says_of_an_instance_and_why(
    load_balancer, service_registry, start_sidecar, until
):
    start_sidecar()
    until(lambda: lines_of(load_balancer, "tiny_v1_aaaa: in rotation at"), 10, "in rotation")

    class WithoutHealthCheck(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), WithoutHealthCheck) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        foreign = Backend("foreign", ["/foreign"], upstreams={"sick": Upstream("127.0.0.1", server.server_port)})
        service_registry.register(foreign, "sick")
        until(lambda: lines_of(load_balancer, "sick: DOWN at"), 10, "the manager says that it is down")
        server.shutdown()

    assert lines_of(load_balancer, "sick: DOWN at")[0].endswith("GET /healthz is answered with 404")
    assert lines_of(load_balancer, "sick: in rotation") == []


def test_a_request_in_flight_is_answered_before_its_instance_ends(load_balancer, start_sidecar, until):
    sidecar = start_sidecar(behaviour="slow")
    until(lambda: load_balancer.in_rotation("tiny"), 10, "in rotation")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(load_balancer.get, "/tiny")
        until(lambda: load_balancer.runtime.sessions("tiny", "tiny_v1_aaaa"), 5, "in flight")
        sidecar.send_signal(signal.SIGTERM)
        assert answer.result().status_code == 200
    assert sidecar.wait(10) == 0


def test_an_instance_that_is_lost_while_etcd_is_away_leaves_one_ttl_after_its_return(
    load_balancer, service_registry, etcd, until
):
    service = Backend("tiny", ["/tiny"], upstreams={"tiny_v1_gone": Upstream("127.0.0.1", 9)})
    service_registry.register(service, "tiny_v1_gone")
    until(lambda: "tiny_v1_gone" in load_balancer.servers("tiny"), 5, "known")
    etcd.stop()
    until(lambda: "the last good set stays" in (load_balancer.folder / "manager.log").read_text(), 10, "noticed")
    etcd.start()

    until(lambda: "tiny_v1_gone" not in load_balancer.servers("tiny"), 3 * TTL, "taken out")


def test_a_manager_that_is_started_again_changes_nothing_and_goes_on(load_balancer, start_sidecar, until):
    start_sidecar()
    until(lambda: load_balancer.in_rotation("tiny"), 10, "in rotation")
    load_balancer.manager.kill()
    load_balancer.manager.wait(5)
    assert load_balancer.get("/tiny").status_code == 200

    load_balancer.start_manager()
    start_sidecar("tiny_v1_bbbb")
    until(lambda: len(load_balancer.in_rotation("tiny")) == 2, 10, "the new one is in rotation too")
