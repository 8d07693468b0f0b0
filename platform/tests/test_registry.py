"""The registry, against a real etcd."""

import base64
import datetime
import socket
import time
from pathlib import Path

import pytest
import requests
from cryptography import x509

from workshop import balancer, certificates, haproxy, registry
from workshop.errors import WorkshopError
from workshop.ports import HOST, LOOPBACK
from workshop.registry import Backend, NotRegistered, Registry, RegistryUnavailable, Upstream
from workshop.state import Frontends

TINY = Backend("tiny", ["/tiny"], upstreams={"tiny_v1_a": Upstream("127.0.0.1", 21001)})


def test_a_registered_instance_is_in_the_snapshot(service_registry):
    service_registry.register(TINY, "tiny_v1_a")

    assert service_registry.snapshot().services == {"tiny": TINY}
    assert service_registry.snapshot().table() == {"/tiny": "tiny"}


def test_a_deregistered_instance_is_gone_and_its_service_stays(service_registry):
    service_registry.register(TINY, "tiny_v1_a")
    service_registry.deregister("tiny", "tiny_v1_a")
    service_registry.deregister("tiny", "tiny_v1_a")  # no harm in saying it twice

    assert service_registry.snapshot().services["tiny"].upstreams == {}
    assert service_registry.snapshot().table() == {"/tiny": "tiny"}


def test_an_instance_that_is_not_refreshed_expires(service_registry, until, monkeypatch):
    monkeypatch.setattr(registry.client, "TTL", 1)
    service_registry.register(TINY, "tiny_v1_a")
    until(lambda: not service_registry.snapshot().services["tiny"].upstreams, 5, "the key has expired")

    with pytest.raises(NotRegistered):
        service_registry.refresh("tiny", "tiny_v1_a")


def test_an_instance_whose_key_was_removed_is_not_registered_any_more(service_registry):
    service_registry.register(TINY, "tiny_v1_a")
    service_registry.etcd.delete("/services/tiny/upstream/tiny_v1_a")  # the lease of v3 remains

    with pytest.raises(NotRegistered):
        service_registry.refresh("tiny", "tiny_v1_a")


def test_an_instance_that_registers_again_outlives_the_ttl_of_its_earlier_life(service_registry, monkeypatch):
    monkeypatch.setattr(registry.client, "TTL", 1)
    service_registry.register(TINY, "tiny_v1_a")
    monkeypatch.undo()
    service_registry.register(TINY, "tiny_v1_a")
    time.sleep(2.5)  # the subject of this test: what has a TTL of 1 s has expired

    assert service_registry.snapshot().services == {"tiny": TINY}


def test_a_refresh_does_not_wake_those_who_watch(service_registry, monkeypatch):
    monkeypatch.setattr(registry.client, "WATCH_TIMEOUT", 1)
    service_registry.register(TINY, "tiny_v1_a")
    index = service_registry.snapshot().index
    service_registry.refresh("tiny", "tiny_v1_a")

    started = time.monotonic()
    service_registry.wait(index)
    assert time.monotonic() - started > 0.9


def test_a_write_wakes_those_who_watch(service_registry):
    index = service_registry.snapshot().index
    service_registry.register(TINY, "tiny_v1_a")

    started = time.monotonic()
    service_registry.wait(index)
    assert time.monotonic() - started < 1


def test_a_route_wins_over_a_location_and_over_nothing_that_does_not_exist(service_registry):
    service_registry.register(TINY, "tiny_v1_a")
    service_registry.announce(Backend("other", ["/other"]))
    service_registry.set_route("/tiny", "other")
    service_registry.set_route("/other", "nobody")

    assert service_registry.snapshot().routes == {"/tiny": "other", "/other": "nobody"}
    assert service_registry.snapshot().table() == {"/tiny": "other", "/other": "other"}
    service_registry.remove_route("/tiny")
    assert service_registry.snapshot().table() == {"/tiny": "tiny", "/other": "other"}


def test_the_prefixes_of_a_route_move_at_once(service_registry):
    service_registry.announce(Backend("other", []))
    index = service_registry.snapshot().index
    service_registry.set_route("/tiny /internal/tiny", "other")

    assert service_registry.snapshot().index == index + 1
    assert service_registry.snapshot().table() == {"/tiny": "other", "/internal/tiny": "other"}


def test_a_service_that_is_forgotten_is_known_no_more(service_registry):
    service_registry.register(TINY, "tiny_v1_a")
    service_registry.announce(other := Backend("tiny2", ["/tiny2"]))
    service_registry.forget("tiny")
    service_registry.forget("tiny")  # no harm in saying it twice

    assert service_registry.snapshot().services == {"tiny2": other}


@pytest.mark.parametrize("api", ["v3"])  # v2 keeps the last 1,000 events
def test_a_watch_from_an_index_that_etcd_no_longer_has_returns_at_once(service_registry):
    index = service_registry.snapshot().index
    service_registry.register(TINY, "tiny_v1_a")
    service_registry.etcd._call("kv/compaction", revision=service_registry.snapshot().index)

    started = time.monotonic()
    service_registry.wait(index)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("api", ["v3"])  # v2 stores text only
def test_bytes_that_are_no_text_do_not_get_in(service_registry):
    key, value = base64.b64encode(b"/services/tiny/upstream/\xff").decode(), base64.b64encode(b"\xff").decode()
    service_registry.etcd._call("kv/put", key=key, value=value)
    service_registry.register(TINY, "tiny_v1_a")

    assert service_registry.snapshot().services == {"tiny": TINY}


def test_the_longest_prefix_of_whole_segments_owns_a_path():
    table = {"/": "ui", "/api": "old", "/api/users": "users"}
    owners = {path: registry.owner(table, path) for path in ("/", "/api/users/1", "/api/usersx", "/apix")}

    assert owners == {"/": "ui", "/api/users/1": "users", "/api/usersx": "old", "/apix": "ui"}
    assert registry.owner({"/api": "old"}, "/") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.1:21002\n    server evil 10.0.0.1:80"),
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.1:21002 weight 1 check disabled"),
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.1:99999"),
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.256:80"),
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.1:21002 weight 1000"),
        ("/services/tiny/upstream/two words", "127.0.0.1:21002"),
        ("/services/tiny/backend/balance", "roundrobin\n    option forwardfor"),
        ("/services/tiny/backend/sticky", "/x } { always_true"),
        ("/services/tiny/location", '/tiny" /evil'),
        ("/services/ti ny/location", "/evil"),
        ("/services/tiny/unknown", "value"),
        ("/elsewhere", "value"),
        ("/services/no_route/location", "/evil"),
        ("/services/public/location", "/evil"),
        ("/services/tiny/upstream/FRONTEND", "127.0.0.1:21002"),
    ],
)
def test_a_hostile_value_does_not_get_in(service_registry, key, value):
    service_registry.etcd.write(key, value)
    service_registry.register(TINY, "tiny_v1_a")

    snapshot = service_registry.snapshot()
    assert snapshot.services == {"tiny": TINY}
    assert snapshot.routes == {}


def test_what_is_left_out_is_logged_once_without_its_value(service_registry, caplog):
    service_registry.etcd.write("/services/tiny/secret", "token-of-a-foreign-program")
    service_registry.etcd.write("/services/tiny/location", "/tiny token=of-a-foreign-program")
    for _ in range(3):
        service_registry.snapshot()

    lines = [record.getMessage() for record in caplog.records if record.name == "workshop.registry"]
    assert len(lines) == 2
    assert [line for line in lines if "of-a-foreign-program" in line] == []
    assert "/services/tiny/location" in "".join(lines)
    service_registry.etcd.delete("/services/tiny/secret")
    service_registry.snapshot()
    service_registry.etcd.write("/services/tiny/secret", "it is back")
    service_registry.snapshot()
    assert len([record for record in caplog.records if "/services/tiny/secret" in record.getMessage()]) == 2


def test_a_flood_of_keys_is_no_flood_of_log_lines(service_registry, caplog):
    for number in range(registry.client.MOST_LOGGED + 10):
        service_registry.etcd.write(f"/flood/{number}", "value")
    for _ in range(3):
        service_registry.snapshot()

    lines = [record.getMessage() for record in caplog.records if record.name == "workshop.registry"]
    assert len(lines) == registry.client.MOST_LOGGED + 1
    assert lines[-1] == "left out of the registry: 10 more keys"


def test_a_service_registers_no_more_than_its_share_and_ours_keep_their_place(service_registry):
    prefixes = [f"/p{number}" for number in range(100)]
    service_registry.announce(Backend("tiny", prefixes, sticky=prefixes))
    for number in range(registry.MOST_INSTANCES + 5):
        service_registry.etcd.write(f"/services/tiny/upstream/x{number}", "127.0.0.1:9")
    for number in range(registry.MOST_SERVICES + 5):
        service_registry.etcd.write(f"/services/s{number}/location", f"/s{number}")

    snapshot = service_registry.snapshot()
    assert (snapshot.services["tiny"].locations, snapshot.services["tiny"].sticky) == ([], [])
    assert len(snapshot.services["tiny"].upstreams) == registry.MOST_INSTANCES
    assert len(snapshot.services) == registry.MOST_SERVICES


def test_an_instance_of_ours_is_in_the_snapshot_however_many_others_registered_before(service_registry):
    for number in range(registry.MOST_INSTANCES):
        service_registry.etcd.write(f"/services/tiny/upstream/x{number}", "127.0.0.1:9")
    for number in range(registry.MOST_SERVICES):
        service_registry.etcd.write(f"/services/s{number}/location", f"/s{number}")
    service_registry.register(TINY, "tiny_v1_a")
    late = Backend("late", ["/late"], upstreams={"late_v1_a": Upstream("127.0.0.1", 21001)})
    service_registry.register(late, "late_v1_a")

    services = service_registry.snapshot({"tiny_v1_a", "late_v1_a"}).services
    assert "tiny_v1_a" in services["tiny"].upstreams
    assert services["late"] == late


def test_haproxy_accepts_as_much_as_a_service_may_register(service_registry, folder):
    def prefixes(count: int) -> list[str]:
        return [f"/{number}".ljust(128, "x") for number in range(count)]

    full = Backend("tiny", prefixes(registry.MOST_LOCATIONS), sticky=prefixes(registry.MOST_STICKY))
    service_registry.announce(full)
    services = service_registry.snapshot().services
    assert services == {"tiny": full}

    frontends = Frontends("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1", hosts=list(LOOPBACK))
    balancer.seed(services, {}, frontends, folder)
    haproxy.check(haproxy.render(services, frontends, folder), folder)


def test_a_confirmation_counts_for_one_address_only(service_registry):
    service_registry.confirm_drained("tiny", "tiny_v1_a", "127.0.0.1:21001")

    assert service_registry.is_drained("tiny", "tiny_v1_a", "127.0.0.1:21001")
    assert not service_registry.is_drained("tiny", "tiny_v1_a", "127.0.0.1:21002")


def test_a_confirmation_does_not_outlive_the_next_registration_or_deregistration(service_registry):
    service_registry.confirm_drained("tiny", "tiny_v1_a", "127.0.0.1:21001")
    service_registry.register(TINY, "tiny_v1_a")
    assert not service_registry.is_drained("tiny", "tiny_v1_a", "127.0.0.1:21001")

    service_registry.confirm_drained("tiny", "tiny_v1_a", "127.0.0.1:21001")
    service_registry.deregister("tiny", "tiny_v1_a")
    assert not service_registry.is_drained("tiny", "tiny_v1_a", "127.0.0.1:21001")
    assert service_registry.snapshot().deregistered == {("tiny", "tiny_v1_a")}


@pytest.fixture
def client(folder, api):
    """The folder with a client's certificate, of an installation whose registry is away."""
    certificates.make(folder / "client", folder / "server", HOST, api)
    return folder / "client"


def test_a_registry_that_is_away_is_said_to_be(client, api):
    with pytest.raises(RegistryUnavailable):
        Registry("127.0.0.1:1", client, api).snapshot()


def test_a_registry_that_says_nothing_is_not_waited_for_long(client, api):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(RegistryUnavailable):
            Registry(f"127.0.0.1:{silent.getsockname()[1]}", client, api).snapshot()
    assert time.monotonic() - started < registry.TIMEOUT + 1


def test_without_a_certificate_the_error_says_what_to_do(folder):
    with pytest.raises(WorkshopError, match=r"ca\.pem is missing: .* Run `\./workshop down`, then `up`\."):
        Registry("127.0.0.1:1", folder, "v2")


def answer(port: int, *, ca: Path, cert: Path | None = None) -> int | None:
    """Return the status of an answer to an HTTPS request; None if the connection was refused."""
    try:
        return requests.get(f"https://{HOST}:{port}/version", cert=cert and str(cert), verify=ca, timeout=5).status_code
    except requests.ConnectionError:
        return None


@pytest.mark.parametrize("port", ["port", "peer"])
def test_etcd_refuses_a_client_without_a_certificate_of_this_installation(etcd, client, port):
    port, ca = getattr(etcd, port), etcd.certificates / registry.CA

    assert answer(port, ca=ca, cert=etcd.certificates / registry.CLIENT) == 200
    assert answer(port, ca=ca) is None
    assert answer(port, ca=ca, cert=client / registry.CLIENT) is None
    # etcd's own is no client's; of v3, it is its JSON gateway's.
    assert (answer(port, ca=ca, cert=etcd.folder / certificates.SERVER) is None) == (etcd.api == "v2")
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{HOST}:{port}/version", timeout=5)


def test_a_client_refuses_a_registry_of_another_installation(etcd, client):
    with pytest.raises(RegistryUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        Registry(etcd.address, client, etcd.api).snapshot()


def test_a_client_refuses_a_registry_at_an_address_that_its_certificate_does_not_name(etcd):
    with pytest.raises(RegistryUnavailable, match="localhost"):
        Registry(f"localhost:{etcd.port}", etcd.certificates, etcd.api).snapshot()


def test_etcd_lets_a_page_of_another_origin_read_nothing_even_with_the_certificate(etcd):
    ca, client = registry.client_files(etcd.certificates)
    page = {"Origin": "http://localhost"}
    method, path, body = {"v2": ("GET", "v2/keys", None), "v3": ("POST", "v3/kv/range", {"key": "Lw=="})}[etcd.api]
    url = f"https://{etcd.address}/{path}"
    answer = requests.request(method, url, json=body, cert=client, verify=ca, headers=page, timeout=5)

    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_only_the_user_can_read_the_certificates_and_their_keys(etcd):
    files = [*etcd.certificates.iterdir(), etcd.folder / registry.CA, etcd.folder / certificates.SERVER]

    assert {file.name for file in files} == {"ca.pem", "client.pem", "server.pem"}
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}


def test_each_up_replaces_the_certificates(client, folder, api):
    old = [file.read_bytes() for file in sorted(client.iterdir())]
    certificates.make(client, folder / "server", HOST, api)

    assert all(file.read_bytes() not in old for file in client.iterdir())


@pytest.mark.parametrize("year", [1970, 2025, 2100])
def test_a_certificate_is_valid_whatever_the_clock_says(client, year):
    now = datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)

    for file in client.iterdir():
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        assert certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
