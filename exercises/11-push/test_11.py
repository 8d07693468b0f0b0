"""Checks that a push reaches the clients of both instances, and that a client stays with its own."""

import json
import signal
import socket
import threading

import pytest
import redis
import socketio

from workshop import paths
from workshop.ports import HOST, free_port
from workshop.probe import TIMEOUT, session
from workshop.registry import BALANCE
from workshop.sidecar import Instance
from workshop.verdict import Hop, Wrong, expect
from workshop.waiting import wait_until

SERVICE, PATH = "live", "/live/socket.io"
FOLDER = "work/11-push"
STAGE2 = str(paths.REPOSITORY / "stage2-microservices")  # where `common` lies
EVENT = {"method": "emit", "event": "typing", "data": ["ann"]}
SOON = 2  # seconds for a push to arrive
AWAY = 1.5  # seconds in which a listener may try again to reach Redis, a few times
MANY = 10  # tries in that time: without a pause, there are thousands
QUIET = 0.3  # seconds for what was published to arrive
IDLE = 2.5  # seconds without a push
FEW = 2  # calls of get_message in that time; polling twice a second needs five
BURST = 20  # pushes at once
FROZEN = 6  # seconds for two tries: each takes TIMEOUT of common/redis_client.py, and RECONNECT_AFTER lies between them
BACK_WITHIN = 5  # seconds
SESSIONS = 4  # opened one after the other: the load balancer goes round, so each instance opens two


class Redis:
    """A Redis of this check's own, that can be away without anybody missing it."""

    def __init__(self, learner, folder):
        self.learner, self.folder, self.port = learner, folder, free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.client = redis.Redis(port=self.port)

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", HOST, "--save", ""]
        self.program = self.learner.launch(command, self.folder)
        assert self.program.until(self.answers, TIMEOUT), self.program.output()

    def answers(self) -> bool:
        try:
            return self.client.ping()
        except redis.ConnectionError:
            return False  # it is still starting

    def stop(self) -> None:
        self.program.stop()
        self.client.connection_pool.disconnect()


class Ear(threading.Thread):
    """Listens as the library's thread does: what comes stands in `heard`, what ends it in `error`."""

    def __init__(self, queue):
        super().__init__(daemon=True)  # a listener that does its work never ends
        self.queue, self.tries, self.heard, self.error = queue, 0, [], None
        self.count_tries(queue.redis.connection_pool)
        self.start()

    def count_tries(ear, pool) -> None:
        """Count how often a connection to Redis is made, or tried to be made."""

        class Counted(pool.connection_class):
            def connect(self):
                ear.tries += 1
                super().connect()

        pool.connection_class = Counted

    def run(self) -> None:
        try:
            for data in self.queue._listen():
                self.heard.append(data)
            self.error = EOFError("it has ended")
        except Exception as error:  # raised again in the test, which knows what it means
            self.error = error


class Listener:
    """A client of the live service, the instance that holds its connection, and what it has heard."""

    def __init__(self, url: str):
        self.heard: list[tuple] = []
        self.instance = None
        self.http = session()
        self.http.hooks["response"].append(self.note_instance)
        self.client = socketio.Client(http_session=self.http, reconnection=False)
        self.client.on("*", lambda *event: self.heard.append(event))
        self.client.connect(url, socketio_path=PATH, wait_timeout=TIMEOUT)

    def note_instance(self, answer, **_) -> None:
        self.instance = answer.headers.get("X-Served-By")

    def typing(self) -> list[tuple]:
        return [event for event in list(self.heard) if event[0] == "typing"]

    def has_message(self, message_id: int) -> bool:
        pushes = [data for event, data in list(self.heard) if event == "updated_model"]
        return any(push["class"] == "Message" and push["model"]["id"] == message_id for push in pushes)

    def close(self) -> None:
        self.client.disconnect()
        self.http.close()


@pytest.fixture
def push(learner, monkeypatch):
    """The learner's push.py."""
    monkeypatch.syspath_prepend(STAGE2)
    return learner.load("push.py")


@pytest.fixture
def queue_server(learner, tmp_path):
    server = Redis(learner, tmp_path)
    server.start()
    yield server
    server.client.close()


@pytest.fixture
def live(stage, learner, work):
    """Two instances of the learner's service, beside the others."""
    learner.text("live.py")  # "not done yet" while a TODO is in it: it would only be seen when somebody connects
    entry = learner.toml("service.toml")
    (one, *_) = stage.instances("socketio")
    queue_url = Instance.load(stage.run_folder / "instances" / f"{one['id']}.json").environment["REDIS_URL"]
    with stage.joined(
        SERVICE,
        entry.get("command", []),
        work,
        entry.get("routes", []),
        sticky=entry.get("sticky", []),
        balance=entry.get("balance", "roundrobin"),
        instances=2,
        environment={"PYTHONPATH": STAGE2, "REDIS_URL": queue_url},
    ) as instances:
        yield set(instances)


@pytest.fixture
def listeners(live, stage):
    """Four clients; the load balancer goes round, so each instance has two."""
    made = []
    try:
        for _ in range(4):
            made.append(Listener(stage.url))
        yield made
    except socketio.exceptions.ConnectionError as error:
        raise Wrong(
            "A client cannot connect to the live service.",
            hop=Hop.SERVICE,
            seen=str(error),
            expected=f"a connection by long polling, then by WebSocket, at {PATH}",
            show="./workshop logs haproxy",
            log=stage.log(SERVICE),
        ) from error
    finally:
        for listener in made:
            listener.close()


def test_what_is_published_stands_in_the_channel(push, queue_server):
    with queue_server.client.pubsub() as channel:
        channel.subscribe(push.CHANNEL)
        channel.get_message(timeout=TIMEOUT)  # Redis says that it is subscribed
        push.MessageQueue(queue_server.url)._publish(EVENT)
        heard = channel.get_message(timeout=SOON)
    expect(
        heard and as_json(heard["data"]) == EVENT,
        "What is published does not reach the channel as JSON: no other instance learns of it.",
        hop=Hop.QUEUE,
        seen=f"in the channel {push.CHANNEL}: {heard and heard['data']!r}",
        expected=json.dumps(EVENT),
        show=f"grep -n -A 9 'def _publish' {FOLDER}/push.py",
    )


def test_nobody_fails_who_publishes_while_redis_is_away(push, queue_server, caplog):
    queue_server.stop()
    show = f"grep -n -A 9 'def _publish' {FOLDER}/push.py"
    try:
        push.MessageQueue(queue_server.url)._publish(EVENT)
    except redis.RedisError as error:
        raise Wrong(
            "Redis is away, and who pushes fails with it: a message that is stored already would be answered with 500, "
            "and posted again. Log it: the pages catch up.",
            hop=Hop.QUEUE,
            seen=f"{type(error).__name__}: {error}",
            expected="a line in the log",
            show=show,
        ) from error
    expect(
        caplog.records,
        "Redis is away, a push is lost, and the log does not say so: nobody finds out why pages are late.",
        hop=Hop.QUEUE,
        seen="no line in the log",
        expected="a warning with the error",
        show=show,
    )


def test_no_request_fails_that_publishes_while_redis_is_frozen(push, queue_server):
    queue_server.program.signal(signal.SIGSTOP)
    try:
        push.MessageQueue(queue_server.url)._publish(EVENT)
    except redis.RedisError as error:
        raise Wrong(
            "Redis is frozen, and the request that pushes fails with it: a frozen Redis raises TimeoutError, which is "
            "no ConnectionError.",
            hop=Hop.QUEUE,
            seen=f"{type(error).__name__}: {error}",
            expected="a line in the log, as when Redis is away",
            show=f"grep -n -A 9 'def _publish' {FOLDER}/push.py",
        ) from error
    finally:
        queue_server.program.signal(signal.SIGCONT)


def test_listening_goes_on_when_redis_was_away(push, queue_server, monkeypatch):
    looks = count_looks(monkeypatch)
    ear = Ear(push.MessageQueue(queue_server.url))
    show = f"grep -n -A 20 'def _listen' {FOLDER}/push.py"

    def hears() -> bool:
        queue_server.client.publish(push.CHANNEL, json.dumps(EVENT))
        return bool(ear.heard or ear.error)

    wait_until(hears, SOON)
    if ear.error:
        raise ear.error
    expect(
        ear.heard and as_json(ear.heard[0]) == EVENT,
        "_listen() does not yield what comes through the channel, and nothing else.",
        hop=Hop.QUEUE,
        seen=f"{ear.heard[:1]!r}",
        expected=json.dumps(EVENT),
        show=show,
    )
    must_wait(ear, looks, show)
    must_hear_all(ear, queue_server, push.CHANNEL, show)

    queue_server.stop()
    tries = ear.tries
    wait_until(lambda: ear.error or ear.tries > tries + MANY, AWAY)
    expect(
        ear.tries <= tries + MANY,
        "While Redis is away, _listen() tries again without a pause: that takes a whole core, and fills the log.",
        hop=Hop.QUEUE,
        seen=f"more than {MANY} tries within {AWAY} s",
        expected="a pause of RECONNECT_AFTER between two",
        show=show,
    )
    if isinstance(ear.error, redis.RedisError | EOFError):
        raise Wrong(
            "When Redis goes, _listen() ends. One that returns is never called again; one that raises is called again "
            "at once, thousands of times a second.",
            hop=Hop.QUEUE,
            seen=f"{type(ear.error).__name__}: {ear.error}",
            expected="it waits for RECONNECT_AFTER, subscribes anew, and goes on",
            show=show,
        )
    if ear.error:
        raise ear.error

    must_survive_a_frozen_redis(ear, queue_server.port, show)

    queue_server.start()
    ear.heard.clear()
    expect(
        wait_until(hears, BACK_WITHIN) and not ear.error,
        f"Redis is back, and after {BACK_WITHIN} s nothing comes through the channel.",
        hop=Hop.QUEUE,
        seen=f"{ear.tries - tries} tries to connect, {ear.error or 'nothing heard'}",
        expected="what is published after a second or two",
        show=show,
    )


def count_looks(monkeypatch) -> list[float]:
    """Return a list to which each call of `PubSub.get_message` adds its timeout."""
    looks, original = [], redis.client.PubSub.get_message

    def get_message(self, ignore_subscribe_messages=False, timeout=0.0):
        looks.append(timeout)
        return original(self, ignore_subscribe_messages, timeout)

    monkeypatch.setattr(redis.client.PubSub, "get_message", get_message)
    return looks


def must_wait(ear: Ear, looks: list[float], show: str) -> None:
    """Expect hardly a call while nothing is published."""
    wait_until(lambda: ear.error, QUIET)  # what has been published so far arrives
    looks.clear()
    wait_until(lambda: len(looks) > MANY, IDLE)
    for most, sentence in (
        (MANY, "_listen() asks without a pause: it takes a whole core while nothing is pushed."),
        (FEW, "_listen() asks again and again instead of waiting: a push is late, or an idle process works."),
    ):
        expect(
            len(looks) <= most,
            sentence,
            hop=Hop.QUEUE,
            seen=f"{len(looks)} calls of get_message(timeout={looks[-1] if looks else None}) within {IDLE} s at most",
            expected="get_message(timeout=LISTEN_FOR), which returns at once when something comes",
            show=show,
        )


def must_hear_all(ear: Ear, server: Redis, channel: str, show: str) -> None:
    """Expect all of several pushes that are published at once."""
    ear.heard.clear()
    wanted = [{**EVENT, "data": [f"ann {number}"]} for number in range(BURST)]
    with server.client.pipeline() as pipeline:
        for event in wanted:
            pipeline.publish(channel, json.dumps(event))
        pipeline.execute()
    wait_until(lambda: len(ear.heard) >= BURST or ear.error, SOON)
    expect(
        [as_json(text) for text in ear.heard] == wanted,
        "_listen() loses pushes that come close together: keep one subscription as long as the connection lives.",
        hop=Hop.QUEUE,
        seen=f"{len(ear.heard)} of {BURST} pushes",
        expected=f"all {BURST}, in the same order",
        show=show,
    )


def must_survive_a_frozen_redis(ear: Ear, port: int, show: str) -> None:
    """Have connections to Redis accepted and not answered; expect the listener to try a second time."""
    with socket.create_server((HOST, port)):
        tries = ear.tries
        wait_until(lambda: ear.error or ear.tries >= tries + 2, FROZEN)
    if isinstance(ear.error, redis.RedisError):
        raise Wrong(
            "When Redis freezes, _listen() ends: it accepts connections and does not answer, which raises "
            "TimeoutError. That is no ConnectionError.",
            hop=Hop.QUEUE,
            seen=f"{type(ear.error).__name__}: {ear.error}",
            expected="it catches RedisError, waits for RECONNECT_AFTER, and subscribes anew",
            show=show,
        )


def test_the_load_balancer_does_not_go_by_address(learner):
    balance = learner.toml("service.toml").get("balance", "roundrobin")
    expect(
        balance not in ("source", "first"),
        "All clients from one address would be held by one instance: a class room behind one router, or a company, "
        "would never use the other. Balance freely, and keep each session where it was opened.",
        hop=Hop.BALANCER,
        seen=f'balance = "{balance}"',
        expected='balance = "roundrobin", or "leastconn"',
        show=f"cat {FOLDER}/service.toml",
    )
    expect(
        balance in BALANCE,
        "The platform would refuse this entry of stage.toml: it does not know such a balance.",
        hop=Hop.BALANCER,
        seen=f'balance = "{balance}"',
        expected='balance = "roundrobin", or "leastconn"',
        show=f"cat {FOLDER}/service.toml",
    )


def test_the_requests_of_a_session_go_to_one_instance(live, stage):
    for _ in range(SESSIONS):
        with session() as http:
            opened = http.get(f"{stage.url}{PATH}/?EIO=4&transport=polling", timeout=TIMEOUT)
            at = opened.headers.get("X-Served-By")
            expect(
                opened.status_code == 200 and opened.text.startswith("0{"),
                "The live service does not open a session.",
                hop=Hop.SERVICE if at in live else Hop.BALANCER,
                seen=f"GET {PATH}/, answered by {at}: {opened.status_code} {opened.text[:120]}",
                expected='200 0{"sid": …}',
                show="./workshop logs haproxy",
                log=stage.log(SERVICE),
            )
            url = f"{stage.url}{PATH}/?EIO=4&transport=polling&sid={json.loads(opened.text[1:])['sid']}"
            posted = http.post(url, data="40", timeout=TIMEOUT)  # Socket.IO's "connect"
            expect(
                posted.status_code == 200 and posted.headers.get("X-Served-By") == at,
                "The requests of one session reach both instances, and only one of them knows it. Long polling is many "
                "requests: they have to stay with the instance where it was opened.",
                hop=Hop.BALANCER,
                seen=f"opened by {at}, then {posted.headers.get('X-Served-By')}: {posted.status_code} {posted.text}",
                expected=f"200, by {at}",
                show=f"cat {FOLDER}/service.toml",
                log="\n".join(line for line in stage.log("haproxy").splitlines() if f" public {SERVICE} " in line),
            )
            http.post(url, data="1", timeout=TIMEOUT)  # Engine.IO's "close"


def test_what_is_pushed_reaches_the_clients_of_both_instances(listeners, stage):
    typist, *others = listeners
    near, far = (
        next(one for one in others if (one.instance == typist.instance) is is_near) for is_near in (True, False)
    )
    typist.client.emit("typing", "ann")
    expect(
        hear(near, "ann"),
        "Who is connected to the same instance is not told who is typing.",
        hop=Hop.SERVICE,
        seen=f"“typing” was sent to {typist.instance}, and is not heard there by another client",
        expected=f"[('typing', 'ann')] within {SOON} s",
        show=f"grep -n 'emit' {FOLDER}/live.py",
        log=stage.log(SERVICE),
    )
    expect(
        hear(far, "ann"),
        "Who is connected to the other instance is not told who is typing: an instance knows its own clients only, and "
        "nothing goes through the queue.",
        hop=Hop.QUEUE,
        seen=f"“typing” was sent to {typist.instance}, and is not heard at {far.instance}",
        expected=f"[('typing', 'ann')] within {SOON} s",
        show=f"grep -n 'push\\|init_app' {FOLDER}/live.py",
        log=stage.log(SERVICE),
    )
    far.client.emit("typing", "bob")  # what ann has caused is in front of this
    expect(
        hear(typist, "bob") and ("typing", "ann") not in typist.typing(),
        "Who is typing is told so: her own page would say that she is typing, all the time.",
        hop=Hop.SERVICE,
        seen=f"heard by the one who has sent “ann”: {typist.typing()}",
        expected="[('typing', 'bob')], which another one has sent",
        show=f"grep -n 'emit' {FOLDER}/live.py",
    )
    expect(
        far.typing().count(("typing", "ann")) == 1,
        "Who is typing is told twice: once by the instance itself, and once through the queue.",
        hop=Hop.QUEUE,
        seen=f"heard at the other instance: {far.typing()}",
        expected="[('typing', 'ann')]",
        show=f"grep -n 'emit\\|publish' {FOLDER}/live.py {FOLDER}/push.py",
    )

    message = stage.user().say("hello, all")
    for listener in listeners:
        expect(
            wait_until(lambda one=listener: one.has_message(message["id"]), SOON),
            "A message that was posted is not pushed to the clients of the live service: messages has put it into the "
            "queue, and nobody has fetched it there.",
            hop=Hop.QUEUE,
            seen=f"message {message['id']} is stored, and not heard at {listener.instance}",
            expected=f"an updated_model at all clients, within {SOON} s",
            show=f"grep -n 'queue\\|push' {FOLDER}/live.py",
            log=stage.log(SERVICE),
        )


def hear(listener: Listener, nickname: str) -> bool:
    """Wait until a client has heard who is typing; tell whether it has."""
    return bool(wait_until(lambda: ("typing", nickname) in listener.typing(), SOON))


def as_json(text):
    """Return what the text says in JSON, or None. A dictionary is decoded already: PubSubManager takes both."""
    if isinstance(text, dict):
        return text
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None
