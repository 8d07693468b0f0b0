"""Attacks on other people's things, and with requests that are too large, too slow, or not quite HTTP."""

import contextlib
import json
import secrets
import socket
import threading
import time

import pytest
import requests
import websocket
from contract.by_hand import send

LIMIT = 64 * 1024  # bytes of a body, and of a Socket.IO packet
PASSWORD = "correct horse"  # noqa: S105


def processes(workshop) -> dict[str, int]:
    """Return the process of every instance."""
    return {i["id"]: i["pid"] for s in workshop.status()["services"] for i in s["instances"] if i["state"] == "UP"}


@pytest.fixture(scope="module", autouse=True)
def no_instance_is_harmed(running_stage, url):
    """In the end, all instances are in rotation, and none was started anew."""
    before = processes(running_stage)
    yield
    assert processes(running_stage) == before


# Somebody else's


def test_ones_own_fields_can_not_be_chosen(anonymous, ann, random_nickname):
    nickname = random_nickname()
    body = {"nickname": nickname, "password": PASSWORD, "id": ann.id, "password_hash": "x", "online": True}
    body |= {"created_at": 1, "updated_at": 1, "last_seen_at": 1, "_links": {"self": "/"}}
    user = anonymous.post("/api/users", json=body).json()
    assert user["id"] != ann.id
    assert user["created_at"] > 1
    assert user["updated_at"] > 1
    assert user["last_seen_at"] > 1
    assert user["online"] is False

    anonymous.nickname, anonymous.password = nickname, PASSWORD
    anonymous.sign_in()
    changes = {"id": ann.id, "password_hash": "x", "created_at": 1, "online": True, "user_id": ann.id}
    assert anonymous.put(f"/api/users/{user['id']}", json=changes).status_code == 204
    anonymous.sign_in()
    assert anonymous.user(user["id"])["online"] is False
    assert anonymous.user(user["id"])["created_at"] == user["created_at"]


def test_nobody_writes_in_somebody_elses_name(ann, bob, listen):
    forged = {"user_id": bob.id, "id": 1, "created_at": 1, "updated_at": 1, "html": "<script>", "expand_after": 1}
    message = ann.post(f"/api/messages?user_id={bob.id}", json={"source": "hello"} | forged).json()
    acknowledged = listen().call("post_message", {"source": "hello"} | forged, ann.token, None, bob.id)
    for posted in (message, ann.read(acknowledged["id"])):
        assert posted["user_id"] == ann.id
        assert posted["html"] == "<p>hello</p>\n"
        assert posted["created_at"] > 1

    ann.put(f"/api/messages/{message['id']}", json={"source": "edited"} | forged)
    edited = ann.read(message["id"])
    assert (edited["user_id"], edited["created_at"]) == (ann.id, message["created_at"])


def test_nobody_edits_somebody_elses_message_whatever_the_way(ann, bob, anonymous):
    message = ann.say("mine")
    path = f"/api/messages/{message['id']}"
    change = {"source": "stolen"}
    assert bob.put(path, json=change).status_code == 403
    assert bob.put(f"{path}?user_id={bob.id}", json=change | {"user_id": bob.id}).status_code == 403
    assert anonymous.put(path, json=change).status_code == 401
    for other in (f"{path}/", f"{path}.json", f"/api/messages/0{message['id']}x"):
        assert bob.put(other, json=change).status_code in (403, 404, 405), other
    for method in ("PATCH", "DELETE", "POST"):
        assert bob.send(method, path, json=change).status_code == 405
    assert ann.read(message["id"]) == message


def test_nobody_changes_somebody_else_whatever_the_way(ann, bob, anonymous):
    path = f"/api/users/{ann.id}"
    for change in ({"nickname": "stolen"}, {"password": PASSWORD}, {"password_hash": "x"}):
        assert bob.put(path, json=change).status_code == 403
        assert bob.put(path, json=change | {"id": bob.id}).status_code == 403
        assert anonymous.put(path, json=change).status_code == 401
    assert bob.delete(path).status_code == 405
    ann.sign_in()
    assert ann.user(ann.id)["nickname"] == ann.nickname


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"])
def test_a_method_is_not_overridden(ann, header):
    message = ann.say("mine")
    body, override = {"source": "changed", "_method": "PUT"}, {header: "PUT"}
    assert ann.post(f"/api/messages/{message['id']}?_method=PUT", json=body, headers=override).status_code == 405
    assert ann.get("/api/users/me", headers={header: "DELETE"}).status_code == 401  # asks for a password still
    assert ann.read(message["id"]) == message


def test_a_socket_belongs_to_nobody_each_event_to_its_token(ann, bob, listen):
    listener = listen()
    listener.call("ping_user", ann.token)
    assert listener.call("post_message", {"source": "hello"})["status"] == 401
    message = bob.read(listener.call("post_message", {"source": "hello"}, bob.token)["id"])
    assert message["user_id"] == bob.id


def test_an_idempotency_key_is_its_users_own(ann, bob):
    key = {"Idempotency-Key": secrets.token_hex()}
    first = ann.post("/api/messages", json={"source": "hello"}, headers=key).json()
    second = bob.post("/api/messages", json={"source": "hello"}, headers=key)
    assert second.status_code == 201
    assert second.json()["id"] != first["id"]


# Too large

BODIES = {
    "brackets": b"[" * 60_000,
    "braces": b'{"a":' * 10_000,
    "braces that are closed": b'{"source":' * 900 + b"1" + b"}" * 900,
    "a number": b'{"source":' + b"9" * 60_000 + b"}",
    "a big number": b'{"source":1e999999}',
    "no number": b'{"source":NaN}',
    "many fields": b"{" + b",".join(b'"%d":1' % n for n in range(6000)) + b"}",
    "half a character": b'{"source":"\\ud800"}',
    "not UTF-8": b'{"source":"\xff\xfe"}',
    "UTF-16": '{"source":"hello"}'.encode("utf-16"),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_hostile_body_is_refused(ann, body):
    answer = ann.post("/api/messages", data=BODIES[body], headers={"Content-Type": "application/json"})
    # UTF-16 is JSON as well, in an older sense: it may be understood, but not fail.
    assert answer.status_code in ({400, 201} if body == "UTF-16" else {400})


def test_a_body_is_refused_by_its_length(ann, url):
    assert ann.post("/api/messages", json={"source": "x" * LIMIT}).status_code == 413
    announced = [f"Authorization: Bearer {ann.token}", "Content-Type: application/json", "Content-Length: 999999999"]
    with pytest.raises(ConnectionError):
        send(url, "POST /api/messages HTTP/1.1", *announced)


def test_a_body_without_end_is_refused_while_it_is_sent(ann):
    sent = []

    def endless():
        yield b'{"source": "hello"'
        while sum(sent) < 100 * LIMIT:
            sent.append(1024)
            yield b" " * 1024

    try:
        # Not ann.post: while HAProxy is still sending, it passes such an answer on as it comes, without X-Served-By.
        answer = ann.http.post(f"{ann.url}/api/messages", data=endless(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert set(answer.json()) == {"error", "request_id"}
    except OSError:
        pass  # cut off before all was sent; requests reads no answer then
    assert sum(sent) < 100 * LIMIT


def test_a_packet_that_is_too_large_closes_its_socket_only(url, ann, listen, until):
    other = listen()
    for packet in ("4" + "x" * 2 * LIMIT, '42["post_message",{"source":"' + "x" * 2 * LIMIT + '"}]'):
        client = websocket.create_connection(
            f"{url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket", timeout=5
        )
        client.recv()
        client.send("40")
        client.recv()
        client.send(packet)
        with pytest.raises((websocket.WebSocketException, OSError)) as closed:
            until(lambda client=client: not client.recv(), 5, "closed")
            raise OSError("closed with a frame that says so")
        assert not isinstance(closed.value, websocket.WebSocketTimeoutException), "it is still open"
        client.shutdown()
    message = ann.say("still here")
    until(lambda: other.heard("Message", message["id"]), 2, "the push")


def test_a_packet_without_end_closes_its_socket(url):
    """A message in pieces, of which none is the last: what has come so far must not pile up."""
    client = websocket.create_connection(f"{url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket", timeout=5)
    client.recv()
    sent = 0
    with pytest.raises(OSError):
        client.send_frame(websocket.ABNF.create_frame("4", websocket.ABNF.OPCODE_TEXT, fin=0))
        while sent < 100 * LIMIT:
            client.send_frame(websocket.ABNF.create_frame("x" * 4096, websocket.ABNF.OPCODE_CONT, fin=0))
            sent += 4096
    client.shutdown()


def open_websocket(url: str) -> websocket.WebSocket:
    """Return a WebSocket that is connected to the default namespace."""
    client = websocket.create_connection(f"{url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket", timeout=5)
    client.recv()
    client.send("40")
    client.recv()
    return client


def frame(data: str | bytes, opcode: int = websocket.ABNF.OPCODE_TEXT, fin: int = 1) -> bytes:
    return websocket.ABNF.create_frame(data, opcode, fin).format()


# 20,000 of each would keep an instance busy for longer than its health check waits.
FLOODS = {
    "events": frame('42["ping_user","x"]'),
    "events that ask for an acknowledgement": frame('421["ping_user","x"]'),
    "pongs of Engine.IO": frame("3"),
    "upgrades of Engine.IO": frame("5"),
    "unknown packets": frame("8"),
    "connections to other namespaces": frame("40/x,"),
    "acknowledgements": frame("431[]"),
    "pings of the WebSocket": frame("x" * 100, websocket.ABNF.OPCODE_PING),
    "pongs of the WebSocket": frame("", websocket.ABNF.OPCODE_PONG),
    "empty frames": frame(""),
    "pieces of a message": frame("4", fin=0) + frame("", websocket.ABNF.OPCODE_CONT, 0) * 9,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_closes_its_connection_only(url, anonymous, flood):
    client, other = open_websocket(url), open_websocket(url)
    try:
        client.sock.sendall(FLOODS[flood] * 20_000)
    except OSError:
        pass  # closed already
    started = time.monotonic()
    other.send('421["ping_user","x"]')
    while not other.recv().startswith("431"):
        pass
    assert time.monotonic() - started < 2
    with pytest.raises((websocket.WebSocketConnectionClosedException, OSError)) as closed:
        while client.recv():
            pass
        raise OSError("closed with a frame that says so")
    assert not isinstance(closed.value, TimeoutError), "it is still open"
    client.shutdown()
    other.shutdown()
    assert anonymous.get("/api/messages?limit=1").status_code == 200


def test_a_flood_of_somebody_who_is_signed_in_is_closed_too(url, ann, listen, until):
    client, other = open_websocket(url), listen()
    client.send(f"421{json.dumps(['ping_user', ann.token])}")
    while not client.recv().startswith("431"):
        pass
    event = frame("42" + json.dumps(["post_message", {"source": "hello"}, ann.token]))
    since = ann.say("before")["id"]
    try:
        client.sock.sendall(event * 2000)
    except OSError:
        pass  # closed already
    with pytest.raises((websocket.WebSocketConnectionClosedException, OSError)) as closed:
        while client.recv():
            pass
        raise OSError("closed with a frame that says so")
    assert not isinstance(closed.value, TimeoutError), "it is still open"
    client.shutdown()
    last = ann.say("after")["id"]
    assert last - since < 200  # of 2,000
    until(lambda: other.heard("Message", last), 5, "the push")


def test_polling_is_limited_as_well(url, anonymous):
    opened = anonymous.http.get(f"{url}/socket.io/?EIO=4&transport=polling")
    path = f"{url}/socket.io/?EIO=4&transport=polling&sid={json.loads(opened.text[1:])['sid']}"
    anonymous.http.post(path, data="40")
    events = "\x1e".join(['42["ping_user","x"]'] * 16)
    statuses = [anonymous.http.post(path, data=events).status_code for _ in range(10)]
    assert statuses[0] == 200
    assert statuses[-1] == 400


MALFORMED = [
    "4",
    "4{",
    "4[",
    "4{}",
    "4[]",
    "4null",
    "41",
    "42",
    "42[]",
    "42{}",
    "42[1]",
    "42[{}]",
    '42["connect"]',
    '42["disconnect"]',
    "43",
    "43{}",
    "44",
    "46",
    "48",
    "49",
    "4x",
    '4²["x"]',
    '451-["x"]',
    "450-[]",
    '4599-["x"]',
    "461-[1]",
    '45٣-["x"]',
    "4511111111111-[]",
    '421["ping_user"',
    '421"x"',
    "x",
    "b!",
    "b4",
    "9",
    "0{}",
    "²",
    "٣",
]
MALFORMED += ["", "4" + "[" * 30_000, "42[" + "[" * 30_000, "4" + "9" * 5000, '42["x",' + "9" * 5000 + "]"]


def test_malformed_packets_are_the_clients_fault(url, running_stage, anonymous):
    """They close their own connection, and no log has a traceback."""
    for packet in MALFORMED:
        for begin in (["40"], []):
            client = websocket.create_connection(
                f"{url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket", timeout=5
            )
            for sent in (*begin, packet):
                client.send(sent)
            with contextlib.suppress(OSError):  # the server may have closed the connection by now
                for sent in ("451-[]", "x"):
                    client.send(sent)
                client.send(b"\xff\xfe", websocket.ABNF.OPCODE_BINARY)
            client.shutdown()
        opened = anonymous.http.get(f"{url}/socket.io/?EIO=4&transport=polling")
        path = f"{url}/socket.io/?EIO=4&transport=polling&sid={json.loads(opened.text[1:])['sid']}"
        for body in ("40", packet, "bAAAA", b"\xff", "d="):
            assert anonymous.http.post(path, data=body).status_code in (200, 400), packet
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    for lines in (upgrade, upgrade[:1], [*upgrade[:2], "Sec-WebSocket-Version: 8"]):
        answer = send(url, "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1", *lines)
        assert answer.status in (400, 426), lines
    assert tracebacks(running_stage) == []


@pytest.mark.parametrize("packet", ["4" + "x" * 2 * LIMIT, "9", "0{}", "\x1e" * 1000, "b!", "451-[]", "4{", ""])
def test_a_polled_packet_that_is_nonsense_or_too_large_is_refused_at_once(url, running_stage, anonymous, packet):
    opened = anonymous.http.get(f"{url}/socket.io/?EIO=4&transport=polling")
    session = json.loads(opened.text[1:])["sid"]
    path = f"{url}/socket.io/?EIO=4&transport=polling&sid={session}"
    started = time.monotonic()
    try:
        assert anonymous.http.post(path, data=packet).status_code in (200, 400)  # 200: taken, and thrown away
    except requests.ConnectionError:
        # A port that Docker publishes may lose an answer that comes before the end of what is sent.
        assert running_stage.driver == "docker"
        assert len(packet) > LIMIT
    assert time.monotonic() - started < 2


# Not quite HTTP

CHUNKED = ("Transfer-Encoding: chunked", "Content-Type: application/json")
TRAILERS = ["Content-Length: 5", "content-length: 5", "Content_Length: 5", "X: \0", "X : y", ": y", "X", "Host: x"]
CHUNKS = ["f;e=1\r\n{}\r\n", "f;" + "e" * 9000 + "\r\n{}\r\n", "f\r\n{}XX", "+f\r\n{}\r\n", "0xf\r\n{}\r\n", "f\n{}\n"]


def tracebacks(stage) -> list[str]:
    """Return the logs of instances that have a traceback."""
    logs = stage.run_folder.glob("logs/*_v*.log")
    return [log.name for log in logs if "Traceback" in log.read_text(errors="replace")]


@pytest.mark.parametrize("path", ["/api/messages", "/api/users", "/api/tokens", "/api/users/me", "/"])
def test_a_body_that_breaks_the_rules_of_chunks_is_the_clients_fault(url, ann, running_stage, path):
    authorization = f"Authorization: Bearer {ann.token}"
    good = '{"source":"hi"}'
    bodies = [f"f\r\n{good}\r\n0\r\n{trailer}\r\n\r\n" for trailer in TRAILERS]
    for body in bodies + [chunk.replace("{}", good) + "0\r\n\r\n" for chunk in CHUNKS]:
        answer = send(url, f"POST {path} HTTP/1.1", authorization, *CHUNKED, body=body)
        assert answer.status < 500, body
    assert tracebacks(running_stage) == []


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_no_traceback(url, anonymous, running_stage):
    for path in ("/api/messages", "/api/users", "/", "/socket.io/?EIO=4&transport=polling&sid=x"):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{{".encode())
    assert anonymous.get("/api/messages?limit=1").status_code == 200
    assert tracebacks(running_stage) == []


GET = "GET /api/messages?limit=1 HTTP/1.1"
POST = "POST /api/messages HTTP/1.1"
# Answered by HAProxy before there is a request: with its own built-in page, which no setting of 2.6 replaces.
UNREADABLE = {
    "more than 101 headers": (GET, *(f"X-{n}: 1" for n in range(200))),
    "20 KB of headers": (GET, "X-Long: " + "x" * 20_000),
    "20 KB of query": (f"GET /api/messages?x={'x' * 20_000} HTTP/1.1",),
    "two lengths": (POST, "Content-Length: 5", "Content-Length: 6"),
    "a negative length": (POST, "Content-Length: -5"),
    "a signed length": (POST, "Content-Length: +5"),
    "a huge length": (POST, "Content-Length: 99999999999999999999999"),
    "two encodings": (POST, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "an unknown encoding": (POST, "Transfer-Encoding: xchunked"),
    "an encoding of an encoding": (POST, "Transfer-Encoding: gzip, chunked"),
    "a blank before the colon": (GET, "X-Blank : 1"),
    "a zero byte": ("GET /\0 HTTP/1.1",),
    "a lone carriage return": (GET, "X-Return: a\rb"),
    "bytes in the path": ("GET /\xff HTTP/1.1",),
    "two hosts": (GET, "Host: elsewhere"),
    "HTTP 0.9": ("GET /",),
    "TLS": ("\x16\x03\x01\x02\x00\x01\x00",),
    "no method": ("/ HTTP/1.1",),
}
REFUSED = {
    "an unknown method": ("GRAB /api/messages HTTP/1.1", 405),
    "a method in small letters": ("get /api/messages HTTP/1.1", 400),
    "tracing": ("TRACE /api/messages HTTP/1.1", 405),
    "no path": ("OPTIONS * HTTP/1.1", 404),
    "a path out of the folder": ("GET /static/../config.py HTTP/1.1", 404),
    "the same, hidden": ("GET /static/%2e%2e/%2e%2e/config.py HTTP/1.1", 404),
    "bytes in the path, hidden": ("GET /api/%ff%00 HTTP/1.1", 404),
    "an internal path": ("GET /%69nternal/x HTTP/1.1", 404),
    "an expectation": ("POST /api/messages HTTP/1.1\r\nExpect: something", 400),
    "control characters": (f"{GET}\r\nX-Control: \x01", 400),
    "many ranges": ("GET /static/main.js HTTP/1.1\r\nRange: bytes=" + "0-," * 1000 + "0-", 416),
    "a form": ("POST /api/users HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x", 400),
    "a password that is no base64": ("POST /api/tokens HTTP/1.1\r\nAuthorization: Basic \xff", 401),
    "a password in zero bytes": ("POST /api/tokens HTTP/1.1\r\nAuthorization: Basic AAA6AAA=", 401),
    "a password without a nickname": ("POST /api/tokens HTTP/1.1\r\nAuthorization: Basic YQ==", 401),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_can_not_be_read_reaches_no_instance(url, case):
    answer = send(url, *UNREADABLE[case])
    assert 400 <= answer.status < 500
    assert "X-Served-By" not in answer.headers


@pytest.mark.parametrize("case", REFUSED)
def test_odd_requests_are_refused_in_the_one_shape(url, case):
    line, status = REFUSED[case]
    answer = send(url, line)
    assert answer.status == status
    problem = json.loads(answer.text)
    assert set(problem) == {"error", "request_id"}
    assert problem["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("lines", [[f"X-{n}: 1" for n in range(95)], ["X-Long: " + "x" * 10_000]], ids=["many", "long"])
def test_headers_that_the_load_balancer_takes_are_no_failure(url, lines):
    assert send(url, GET, *lines).status == 200


def test_a_second_request_is_not_smuggled_in_the_body_of_the_first(url, ann):
    """With a length and an encoding, two readers may disagree where the first request ends."""
    smuggled = f"PUT /api/users/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ann.token}\r\n\r\n"
    for length in (5, 5 + len(smuggled)):
        lines = [f"Content-Length: {length}", "Transfer-Encoding: chunked"]
        answer = send(url, POST, *lines, body="0\r\n\r\n" + smuggled)
        assert answer.status in (400, 401)
    answer = send(url, POST, "Transfer-Encoding: chunked", "Content_Length: 5", body="0\r\n\r\n")
    assert answer.status == 401
    assert ann.user(ann.id)["online"] is False


@pytest.mark.usefixtures("several_addresses")
def test_an_address_can_not_be_claimed(url):
    """Who claims to be somebody else at each attempt is refused after ten all the same."""
    basic = "Authorization: Basic bm9ib2R5Ondyb25n"
    answers = []
    for n in range(11):
        claims = [f"X-Forwarded-For: 192.0.2.{n}", f"X_Forwarded_For: 192.0.2.{n}", f"Forwarded: for=192.0.2.{n}"]
        claims += [f"X-Real-IP: 192.0.2.{n}", "Connection: X-Forwarded-For"]
        answers.append(send(url, "POST /api/tokens HTTP/1.1", basic, *claims, address="127.0.0.44").status)
    assert answers == [401] * 10 + [429]


def test_slow_clients_hold_up_nobody_and_are_cut_off(url, anonymous):
    """Two hundred that send a header now and then, and two hundred that never send their body."""
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    beginnings = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /api/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
    ]
    slow = [socket.create_connection(address) for _ in range(400)]
    trickle = threading.Timer(5, lambda: [connection.sendall(b"X: y\r\n") for connection in slow[::2]])
    trickle.start()
    began = time.monotonic()
    try:
        for number, connection in enumerate(slow):
            connection.sendall(beginnings[number % 2])
        for _ in range(20):
            started = time.monotonic()
            assert anonymous.get("/api/messages?limit=1").status_code == 200
            assert time.monotonic() - started < 2
        trickle.join()
        for connection in slow:
            connection.settimeout(max(0.1, began + 12 - time.monotonic()))
            try:
                answer = connection.recv(4096)
            except ConnectionResetError:
                answer = b""
            assert not answer or b" 408 " in answer or b" 504 " in answer or b" 400 " in answer, answer
    finally:
        trickle.cancel()
        trickle.join()
        for connection in slow:
            connection.close()
