"""What all answers have in common, beyond what the client checks in each of them: request ids, errors, instances."""

import pytest

from workshop.waiting import wait_until

# Begins here, in the first module: when test_socketio.py looks at who has vanished, the minute is over already.
pytestmark = pytest.mark.usefixtures("vanished")


def test_the_document_is_valid_openapi(document):
    document.validate()


def test_an_address_answers_the_methods_that_are_in_the_document_and_no_others(ann, document):
    own = {"user_id": ann.id, "message_id": ann.say("hello")["id"]}
    for path, item in document.raw_schema["paths"].items():
        documented = {name.upper() for name in item if name in ("get", "put", "post", "delete")}
        answer = ann.send("PATCH", path.format(**own))  # which nothing here knows
        assert answer.status_code == 405, path
        allowed = set(answer.headers["Allow"].replace(",", " ").split())
        assert allowed - {"HEAD", "OPTIONS"} == documented, path
        assert ("HEAD" in allowed) == ("GET" in documented), path


def test_each_part_of_the_api_is_answered_by_the_service_that_the_stage_names(anonymous, differences):
    for path, service in differences["services"].items():
        assert anonymous.get(path).headers["X-Served-By"].startswith(f"{service}_"), path


def test_requests_are_served_by_several_instances(anonymous):
    assert len({anonymous.get("/api/messages?limit=1").headers["X-Served-By"] for _ in range(6)}) > 1


def test_head_answers_like_get_without_a_body(ann):
    path = f"/api/users/{ann.id}"
    head = ann.http.head(ann.url + path)
    assert (head.status_code, head.text) == (200, "")
    assert head.headers["Content-Length"] == ann.get(path).headers["Content-Length"]


def test_the_clients_request_id_is_kept(anonymous):
    answer = anonymous.get("/api/messages?limit=1", headers={"X-Request-ID": "from-my.client_1"})
    assert answer.headers["X-Request-ID"] == "from-my.client_1"


@pytest.mark.parametrize("sent", ["two words", "<b>", "x" * 65, "", "good,b@d", 'a","b":"c'])
def test_an_ill_formed_request_id_is_replaced(anonymous, sent):
    answer = anonymous.get("/api/messages?limit=1", headers={"X-Request-ID": sent})
    assert answer.headers["X-Request-ID"] not in (sent, "")


def test_two_requests_have_different_ids(anonymous):
    assert len({anonymous.get("/api/messages?limit=1").headers["X-Request-ID"] for _ in range(4)}) == 4


def test_a_request_is_found_in_the_logs_of_all_that_it_passed_by_its_id(make_client, running_stage, site, until):
    def seen(request_id: str) -> set[str]:
        logs = (running_stage.run_folder / "logs").glob("*.log")
        return {log.stem for log in logs if request_id in log.read_text(errors="replace")}

    def is_followed() -> bool:
        author = make_client().register()  # somebody new, whose name no service has in its cache
        request_id = f"find-{author.nickname}"
        source = site.add("/", "A title")
        answer = author.post("/api/messages", json={"source": source}, headers={"X-Request-ID": request_id})
        at_once = {"haproxy", answer.headers["X-Served-By"]}
        return wait_until(lambda: at_once <= (logs := seen(request_id)) and len(logs) > 2, 2)

    # One of several, since a message that no worker took within 2 s is expanded by a sweep, on nobody's request.
    until(is_followed, 10, "all have logged it")


def test_paths_for_services_among_themselves_are_refused_by_the_load_balancer(anonymous):
    for path in ("/internal", "/internal/revocations", "//internal/x", "/%69nternal/x", "/INTERNAL/x"):
        answer = anonymous.http.get(anonymous.url + path)
        assert answer.status_code == 404, path
        assert set(answer.json()) == {"error", "request_id"}
        assert "X-Served-By" not in answer.headers


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
