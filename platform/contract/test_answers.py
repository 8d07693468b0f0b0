"""What all answers have in common, beyond what the client checks in each of them: request ids, errors, instances."""

import pytest


def test_requests_are_served_by_several_instances(anonymous):
    assert len({anonymous.get("/api/messages?limit=1").headers["X-Served-By"] for _ in range(6)}) > 1


def test_the_clients_request_id_is_kept(anonymous):
    answer = anonymous.get("/api/messages?limit=1", headers={"X-Request-ID": "from-my.client_1"})
    assert answer.headers["X-Request-ID"] == "from-my.client_1"


@pytest.mark.parametrize("sent", ["two words", "<b>", "x" * 65, ""])
def test_an_ill_formed_request_id_is_replaced(anonymous, sent):
    answer = anonymous.get("/api/messages?limit=1", headers={"X-Request-ID": sent})
    assert answer.headers["X-Request-ID"] not in (sent, "")


def test_two_requests_have_different_ids(anonymous):
    assert len({anonymous.get("/api/messages?limit=1").headers["X-Request-ID"] for _ in range(4)}) == 4


def test_an_unknown_address_is_not_found(anonymous):
    for path in ("/api", "/api/", "/api/rooms", "/api/usersx", "/api/users/1/x", "/nothing"):
        assert anonymous.get(path).status_code == 404, path


def test_a_method_that_an_address_does_not_know_is_refused(anonymous):
    answer = anonymous.delete("/api/messages")
    assert answer.status_code == 405
    assert {"GET", "POST"} <= set(answer.headers["Allow"].replace(",", " ").split())


def test_a_body_that_is_too_large_is_refused(ann):
    assert ann.post("/api/messages", json={"source": "x" * 100_000}).status_code == 413


def test_the_page_allows_nothing_from_elsewhere(anonymous):
    answer = anonymous.get("/")
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
