import pytest

from common.origins import problem

HOSTS = ["localhost", "127.0.0.1", "[::1]", "chat.example"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:5000", "[::1]:5000", "LOCALHOST:80", "chat.example:8080"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_page_of_ours_is_served(host, scheme):
    assert problem(HOSTS, host, None) is None
    assert problem(HOSTS, host, f"{scheme}://{host.lower()}") is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "localhost.evil.example", "xlocalhost", "[::2]:1"]
)
def test_a_page_that_reaches_us_by_a_name_of_its_own_is_refused(host):
    for origin in (None, f"http://{host}"):
        assert problem(HOSTS, host, origin)[1] == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:5000"])
def test_a_page_of_another_origin_is_refused(origin):
    for host in (None, "localhost:5000"):
        assert problem(HOSTS, host, origin)[1] == 403


def test_a_health_check_of_haproxy_names_no_host():
    assert problem(HOSTS, None, None) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403)],
)
@pytest.mark.parametrize("path", ["/things", "/healthz", "/nothing"])
def test_a_foreign_page_gets_a_json_error_that_says_what_to_do(client, path, headers, status):
    for method in ("GET", "POST"):
        answer = client.open(path, method=method, headers={**headers, "X-Request-ID": "abc-1"})
        assert answer.status_code == status
        assert answer.json["request_id"] == "abc-1"
        assert "`./workshop up STAGE --host NAME`" in answer.json["error"]
