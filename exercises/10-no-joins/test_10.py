"""Checks that a digest takes one request to each of two services, and does with what it gets."""

import json
import secrets
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from workshop import paths
from workshop.probe import TIMEOUT, session
from workshop.verdict import Hop, expect

FILE, ROUTE, SERVICE = "digest.py", "/api/digest", "digest"
STAGE2 = str(paths.REPOSITORY / "stage2-microservices")  # where `common` lies
COMMAND = ["gunicorn", "--worker-class", "gevent", "--no-control-socket", "--bind", "$HOST:$PORT"]
NOBODY = 2**31 - 1  # the last id that there can be
LIMIT = 20
AUTHORS = 60  # of as many messages
AGAIN = "The digest asks users again and again: each author costs a hop, and a longer digest more of them."


@pytest.fixture
def digest(learner, monkeypatch):
    """The learner's module."""
    monkeypatch.syspath_prepend(STAGE2)
    return learner.load(FILE)


@pytest.fixture(scope="module")
def chat(stage):
    """What two people have just said, and their nicknames by their ids."""
    ann, bob = stage.user(), stage.user()
    messages = [person.say(f"digest {number}") for number, person in enumerate([ann, bob, ann, ann, bob])]
    return messages, {person.id: person.nickname for person in (ann, bob)}


@pytest.fixture
def tap(stage):
    """Stands before the internal frontend, as the learner's service sees it."""
    server = Tap(stage.internal_url)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def quiet_tap(tap, chat):
    """A tap that answers with the messages of those two only, however many others post."""
    tap.change = lambda _: chat[0]
    return tap


class Tap(ThreadingHTTPServer):
    """Passes requests on, notes their addresses, and changes the answers if a test says how."""

    daemon_threads = True

    def __init__(self, target: str):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.url, self.target = f"http://127.0.0.1:{self.server_port}", target
        self.asked: list[str] = []
        self.change = lambda messages: messages
        self.change_users = lambda users: users
        self.declines_users = False

    def asked_of_users(self) -> list[str]:
        return [path for path in self.asked if path.startswith("/api/users")]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            with session() as http:
                answer = http.get(self.server.target + self.path, timeout=TIMEOUT)
            body, status = answer.json(), answer.status_code
            if "users" in body:
                body["users"] = self.server.change_users(body["users"])
                if self.server.declines_users:
                    body, status = {"error": "Too many requests."}, 429
            if "messages" in body:
                body["messages"] = self.server.change(body["messages"])
            self.send_response(status)
            if served_by := answer.headers.get("X-Served-By"):
                self.send_header("X-Served-By", served_by)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            """Nothing: the tests look at `asked`."""


def entry(message: dict, nickname: str | None) -> dict:
    author = {"id": message["user_id"], "nickname": nickname}
    return {"id": message["id"], "created_at": message["created_at"], "html": message["html"], "author": author}


def application(digest, url: str):
    """Return the learner's application, in this process, which finds the other services at `url`."""
    return digest.create_app({"SERVICE": SERVICE, "INTERNAL_URL": url})


def entries(digest, url: str) -> list[dict]:
    """Return the entries of a digest; an exception of the learner's code comes through."""
    app = application(digest, url)
    with app.test_request_context(f"{ROUTE}?limit={LIMIT}"):
        answer = digest.index()
        try:
            shown = app.make_response(answer).get_json(silent=True)  # of a dictionary, or of jsonify's
        except TypeError:
            shown = None  # nothing that Flask could answer with
    expect(
        isinstance(shown, dict) and isinstance(shown.get("messages"), list),
        "index() does not return what a digest is: nobody who asks for one could read it.",
        hop=Hop.CODE,
        seen=repr(answer)[:200],
        expected='{"messages": [entry, …]}',
        show=f"grep -n -A 5 'def index' work/10-no-joins/{FILE}",
    )
    return shown["messages"]


def test_an_entry_has_the_nickname_of_its_author(digest):
    message = {"id": 5, "created_at": 1, "updated_at": 2, "source": "hi", "html": "<p>hi</p>", "user_id": 7}
    for nicknames, nickname in (({7: "ann", 8: "bob"}, "ann"), ({8: "bob"}, None)):
        made = digest.compose(message, nicknames)
        expect(
            made == entry(message, nickname),
            "compose() does not make the entry of a message.",
            hop=Hop.CODE,
            seen=f"compose(message, {nicknames}) is {made!r}",
            expected=repr(entry(message, nickname)),
            show=f"grep -n -A 5 'def compose' work/10-no-joins/{FILE}",
        )


def test_nicknames_do_not_depend_on_the_order_in_which_users_answers(digest, quiet_tap, chat):
    _, nicknames = chat
    quiet_tap.change_users = lambda users: users[::-1]
    authors = [one["author"] for one in entries(digest, quiet_tap.url)]
    wrong = [author for author in authors if author["nickname"] != nicknames.get(author["id"], author["nickname"])]
    expect(
        not wrong,
        "A message shows the nickname of another author: users says which id each nickname belongs to, and promises "
        "no order.",
        hop=Hop.SERVICE,
        seen=json.dumps(wrong[:2]),
        expected=json.dumps([{"id": id_, "nickname": name} for id_, name in nicknames.items()]),
        show=f"grep -n -A 9 'def find_nicknames' work/10-no-joins/{FILE}",
    )


def test_the_newest_messages_are_shown_with_their_authors(digest, stage, quiet_tap, chat):
    messages, nicknames = chat
    wanted = [entry(message, nicknames[message["user_id"]]) for message in messages]
    shown = entries(digest, quiet_tap.url)
    expect(
        shown == wanted,
        "The digest does not show the newest messages, oldest first, with the nicknames of their authors.",
        hop=Hop.SERVICE,
        seen=f"{len(shown)} entries, the last one {json.dumps(shown[-1:])}",
        expected=f"{len(wanted)} entries, the last one {json.dumps(wanted[-1:])}",
        show=f"curl -s '{stage.url}/api/messages?limit=2'",
    )


def test_a_digest_takes_one_request_to_each_service(stage, work, chat):
    request_id = f"digest-{secrets.token_hex(4)}"
    with (
        stage.joined(SERVICE, [*COMMAND, "digest:create_app()"], work, [ROUTE], environment={"PYTHONPATH": STAGE2}),
        session() as http,
    ):
        headers = {"X-Request-ID": request_id}
        answer = http.get(f"{stage.url}{ROUTE}?limit={LIMIT}", headers=headers, timeout=TIMEOUT)
        hops, log = stage.hops(request_id), stage.log(SERVICE)
    lines = "; ".join(f"{hop.backend} {hop.method} {hop.path} {hop.status}" for hop in hops)
    show = f"grep {request_id} {stage.run_folder}/logs/haproxy.log"
    expect(
        answer.status_code == 200,
        "The service is registered and reached, and does not answer with a digest.",
        hop=Hop.SERVICE,
        seen=f"GET {ROUTE}: {answer.status_code} {answer.text[:120]}",
        expected="200",
        show=show,
        log=log,
    )
    count = Counter(hop.backend for hop in hops)
    expect(
        count["messages"] and count["users"],
        "The load balancer has not seen the digest's own requests under the id of the one that it answered: "
        "who looks for that id finds half of the way. services.call passes it on.",
        hop=Hop.SERVICE,
        seen=lines,
        expected="digest, messages and users",
        show=show,
    )
    expect(
        count["users"] == 1,
        AGAIN,
        hop=Hop.SERVICE,
        seen=f"{count['users']} requests to users: {lines}",
        expected="one, GET /api/users?ids=…, for all authors together",
        show=show,
    )
    expect(
        count["messages"] == 1,
        "The digest asks messages more than once: one answer has all that it shows.",
        hop=Hop.SERVICE,
        seen=lines,
        expected="one request to messages, and one to users",
        show=show,
    )


def test_users_is_asked_for_the_authors_only_and_for_each_once(digest, quiet_tap):
    authors = {str(one["author"]["id"]) for one in entries(digest, quiet_tap.url)}
    paths_asked = quiet_tap.asked_of_users()
    asked = next(iter(paths_asked), "")
    ids = parse_qs(urlsplit(asked).query).get("ids", [""])[0].split(",")
    show = f"curl -s '{quiet_tap.target}/api/users?ids={ids[0] or 1}'"
    expect(
        len(paths_asked) <= 1,
        AGAIN,
        hop=Hop.SERVICE,
        seen="; ".join(f"GET {unquote(path)}" for path in paths_asked),
        expected="one, GET /api/users?ids=…, for all authors together",
        show=show,
    )
    expect(
        ids != [""],
        "The digest asks for all users there are, for the sake of a few: with a million of them, that is no answer.",
        hop=Hop.SERVICE,
        seen=f"GET {unquote(asked)}",
        expected=f"the authors' ids: ?ids={','.join(sorted(authors))}",
        show=show,
    )
    expect(
        sorted(ids) == sorted(authors),
        "The digest does not ask for each author once: the list is limited, and who has said much would fill it alone.",
        hop=Hop.SERVICE,
        seen=f"GET {unquote(asked)}",
        expected=f"?ids={','.join(sorted(authors))}",
        show=show,
    )


def test_a_message_is_shown_whose_author_nobody_knows(digest, tap, chat):
    tap.change = lambda messages: [*messages[:-1], {**messages[-1], "user_id": NOBODY}]
    shown = entries(digest, tap.url)
    authors = [one["author"] for one in shown]
    expect(
        {"id": NOBODY, "nickname": None} in authors,
        "A message disappears with its author: no foreign key holds that users knows each of them, as it did in the "
        "monolith, and what somebody said is worth showing without their name.",
        hop=Hop.SERVICE,
        seen=f"{len(shown)} entries, by {json.dumps(authors[-2:])} at last",
        expected=f'an entry by {{"id": {NOBODY}, "nickname": null}} as well',
        show=f"grep -n -A 5 'def index' work/10-no-joins/{FILE}",
    )


def test_without_messages_of_the_last_day_the_digest_is_empty(digest, tap):
    tap.change = lambda messages: []
    shown = entries(digest, tap.url)
    expect(
        shown == [],
        "Nobody has said anything, and the digest shows something.",
        hop=Hop.SERVICE,
        seen=json.dumps(shown[:1]),
        expected="[]",
        show=f"grep -n -A 5 'def index' work/10-no-joins/{FILE}",
    )
    asked = tap.asked_of_users()
    expect(
        not asked,
        "There is no message, and the digest asks users for no ids: that costs a hop, and the answer depends on what "
        "users makes of an empty list.",
        hop=Hop.SERVICE,
        seen="; ".join(f"GET {unquote(path)}" for path in asked),
        expected="no request to users",
        show=f"grep -n -A 9 'def find_nicknames' work/10-no-joins/{FILE}",
    )


def test_many_authors_take_one_request(digest, tap, chat):
    tap.change = lambda messages: [{**messages[-1], "user_id": NOBODY - number} for number in range(AUTHORS)]
    entries(digest, tap.url)
    asked = tap.asked_of_users()
    expect(
        len(asked) == 1,
        "With more authors, the digest asks users more often: up to 500 ids fit into one request.",
        hop=Hop.SERVICE,
        seen=f"{len(asked)} requests to users for {AUTHORS} authors",
        expected="1",
        show=f"grep -n -A 9 'def find_nicknames' work/10-no-joins/{FILE}",
    )


def test_while_users_is_away_the_messages_are_shown_without_names(digest, stage, quiet_tap, chat):
    messages, _ = chat
    wanted = [entry(message, None) for message in messages]
    with stage.stopped("users"):
        answer = application(digest, quiet_tap.url).test_client().get(f"{ROUTE}?limit={LIMIT}")
    expect(
        answer.status_code == 200 and answer.json["messages"] == wanted,
        "Users is away, and takes the digest with it: two services that must both answer are away more often than one. "
        "Show what there is, without names.",
        hop=Hop.SERVICE,
        seen=f"GET {ROUTE}: {answer.status_code} {answer.text[-160:]}",
        expected='200, and "nickname": null for each author',
        show=f"grep -n -A 9 'def find_nicknames' work/10-no-joins/{FILE}",
    )


def test_while_users_declines_the_messages_are_shown_without_names(digest, tap, chat):
    tap.declines_users = True
    answer = application(digest, tap.url).test_client().get(f"{ROUTE}?limit={LIMIT}")
    expect(
        answer.status_code == 200 and {one["author"]["nickname"] for one in answer.json["messages"]} == {None},
        "Users declines the request, and takes the digest with it: services.call raises Declined then.",
        hop=Hop.SERVICE,
        seen=f"users: 429; GET {ROUTE}: {answer.status_code} {answer.text[:120]}",
        expected='200, and "nickname": null for each author',
        show=f"grep -n -A 9 'def find_nicknames' work/10-no-joins/{FILE}",
    )


def test_while_messages_is_away_nobody_is_told_that_nothing_was_said(digest, stage):
    with stage.stopped("messages"):
        answer = application(digest, stage.internal_url).test_client().get(ROUTE)
    is_lie = answer.status_code == 200
    expect(
        answer.status_code == 503,
        "Messages is away, and the digest says that nobody has said anything. "
        "Without names it is a digest, without messages it is a lie."
        if is_lie
        else "Messages is away, and who asks is not told that a service is missing, and that it helps to try again.",
        hop=Hop.SERVICE,
        seen=f"GET {ROUTE}: {answer.status_code} {answer.text[:160]}",
        expected="503, as services.call has it with Unavailable, if nobody catches that",
        show=f"grep -n -A 9 'def find_messages' work/10-no-joins/{FILE}",
    )
