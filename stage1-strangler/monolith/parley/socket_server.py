"""The Socket.IO server: holds the connections of the browsers, and bounds what each of them may ask for."""

import json
import logging
import time
from functools import partial
from urllib.parse import parse_qs

import engineio
import simple_websocket
import socketio as python_socketio
from engineio.async_drivers.gevent import WebSocketWSGI
from flask_socketio import SocketIO
from wsproto import ConnectionType, WSConnection
from wsproto.utilities import ProtocolError

log = logging.getLogger(__name__)

# Engine.IO's own pings: who has vanished without closing is noticed after 15 s, or 20 s if nothing is pushed meanwhile.
# (Its defaults of 25 and 20 s would keep filling the buffers of a page that has gone for up to 65 s.)
PING_INTERVAL = 10  # seconds
PING_TIMEOUT = 5  # seconds

# (packets at once, packets a second from then on) of one connection. An event takes about 1.5 ms of the only event
# loop, or 5 ms when it posts a message. A page sends one or two before it shows a token, and afterwards one each 10 s
# and what its user types.
BEFORE_TOKEN = (30, 2)
AFTER_TOKEN = (50, 50)
# The same for the frames of a WebSocket: a packet of 64 KB comes in 16 parts or more, and a ping is a frame without a
# packet. A frame takes about 20 µs.
FRAMES = (500, 500)
MAX_ATTACHMENTS = 3  # binary ones of an event: as many as it has arguments. No event needs any; each gets its answer.
# What parsers raise for a packet that breaks their format.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
OTHER_VERSION = (
    "This server speaks version 4 of the Engine.IO protocol (EIO=4), and version 5 of the Socket.IO protocol. "
    "Use a client that does, for example socket.io-client 3 or 4."
)

socketio = SocketIO()


def init_app(app):
    """Serve Socket.IO to pages of the same origin, and deliver what the message queue brings."""
    socketio.init_app(
        app,
        async_mode="gevent",
        client_manager=app.extensions["push"],
        serializer=EventPacket,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        max_http_buffer_size=app.config["MAX_CONTENT_LENGTH"],
    )
    # python-engineio 4 has no option for these two.
    engineio.socket.Socket = Session
    socketio.server.eio._async["websocket"] = BoundedWebSocket
    socketio.server.eio.on("message", partial(receive_message, socketio.server))
    app.wsgi_app = partial(check_version, app.wsgi_app)


def check_version(application, environ, start_response):
    """Refuse clients of another protocol version with our error shape; Engine.IO's own answer names no version."""
    query = parse_qs(environ.get("QUERY_STRING", ""))
    if not environ["PATH_INFO"].startswith("/socket.io/") or "sid" in query or query.get("EIO") == ["4"]:
        return application(environ, start_response)
    body = json.dumps({"error": OTHER_VERSION, "request_id": environ.get("HTTP_X_REQUEST_ID")}).encode()
    start_response("400 BAD REQUEST", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def trust(sid):
    """Let a connection that has shown a good token send more; sid is Socket.IO's."""
    session = socketio.server.eio.sockets.get(socketio.server.manager.eio_sid_from_sid(sid, "/"))
    if session and not session.is_trusted:  # None in tests, whose client needs no Engine.IO
        session.is_trusted, session.bucket = True, TokenBucket(*AFTER_TOKEN)


def is_connected(sid):
    """Return whether a connection is still open; sid is Socket.IO's."""
    return socketio.server.manager.is_connected(sid, "/")


def receive_message(server, sid, data):
    """Hand a message over to python-socketio; close the connection if the message is malformed."""
    if sid not in server.eio.sockets:
        return  # closed meanwhile: each message has a greenlet of its own
    try:
        if not data or not isinstance(data, (str, bytes)):  # Engine.IO decodes some JSON itself
            raise ValueError("not a Socket.IO packet")
        server._handle_eio_message(sid, data)
    except MALFORMED as error:
        log.info("Closed a connection that sent a malformed packet: %s", error)
        server.eio.disconnect(sid)


class PacketJSON:
    """The JSON of packets. A number of more than 100 digits becomes infinite, so that its event gets an answer."""

    dumps = json.dumps

    def loads(text):
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= 100 else float(digits))


class EventPacket(python_socketio.packet.Packet):
    """A Socket.IO packet; refuses what python-socketio would fail on only later, where nothing catches it."""

    json = PacketJSON

    def decode(self, encoded_packet):
        attachments = super().decode(encoded_packet)
        if attachments > MAX_ATTACHMENTS:
            raise ValueError("too many attachments")
        is_event = self.packet_type in (python_socketio.packet.EVENT, python_socketio.packet.BINARY_EVENT)
        if is_event and not (isinstance(self.data, list) and self.data and isinstance(self.data[0], str)):
            raise ValueError("an event without a name")
        if is_event and self.data[0] in python_socketio.Server.reserved_events:
            raise ValueError("an event that only the server may raise")
        return attachments


class TokenBucket:
    """A rate limit: so many at once, and so many a second from then on."""

    def __init__(self, burst, rate):
        self.burst = self.left = burst
        self.rate = rate
        self.filled_at = time.monotonic()

    def take(self):
        """Return whether one more is within the limit."""
        now = time.monotonic()
        self.left = min(self.burst, self.left + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Session(engineio.socket.Socket):
    """A connection of Engine.IO, over either transport; closed when it sends too much, or nonsense."""

    def __init__(self, server, sid):
        super().__init__(server, sid)
        self.is_trusted = False
        self.bucket = TokenBucket(*BEFORE_TOKEN)

    def receive(self, pkt):
        if not self.bucket.take():
            log.warning(
                "Closed a connection that sent too many packets, %s", "signed in" if self.is_trusted else "anonymous"
            )
            self.close()
            raise engineio.exceptions.SocketIsClosedError
        super().receive(pkt)

    def handle_get_request(self, environ, start_response):
        tokens = [token.strip() for token in environ.get("HTTP_CONNECTION", "").lower().split(",")]
        if not self.connected and "upgrade" not in tokens:  # Engine.IO would take it for a polling request
            self.close(abort=True)
            return refuse_websocket(start_response, "there is no Connection: Upgrade")
        return super().handle_get_request(environ, start_response)

    def handle_post_request(self, environ):
        try:
            super().handle_post_request(environ)
        except (*MALFORMED, OSError) as error:  # OSError: less came than was announced
            log.info("Refused a polling request with malformed packets: %s", error)
            raise engineio.exceptions.EngineIOError from error  # answered with 400, and the session ends

    def _websocket_handler(self, ws):
        try:
            return super()._websocket_handler(ws)
        except MALFORMED as error:
            log.info("Closed a WebSocket that sent a malformed packet: %s", error)
            self.close()
            return []

    def close(self, wait=False, abort=False, reason=None):
        """Close the connection; never wait until the client has fetched the news of its end, as Engine.IO would."""
        super().close(wait=False, abort=abort, reason=reason)


class BoundedWebSocket(WebSocketWSGI):
    """A WebSocket that is closed as soon as it brings too much; Engine.IO would first take in all of it."""

    def __init__(self, handler, server):
        super().__init__(handler, server)
        self.server_args["max_message_size"] = server.max_http_buffer_size

    def __call__(self, environ, start_response):
        try:
            self.ws = BoundedServer(environ, **self.server_args)
        except (ProtocolError, ValueError) as error:
            return refuse_websocket(start_response, error)
        self.app(self)
        raise StopIteration  # tells gunicorn that nothing is left to answer

    def close(self):
        try:
            super().close()
        except OSError as error:  # gunicorn, or the client, was faster
            log.debug("Already closed: %s", error)


def refuse_websocket(start_response, reason):
    """Answer a handshake that is none; as a tuple, since Engine.IO takes a list for packets of its own."""
    log.info("Refused a WebSocket handshake: %s", reason)
    start_response("400 Bad Request", [("Content-Type", "text/plain")])
    return (b"This is no WebSocket handshake (RFC 6455).",)


class BoundedServer(simple_websocket.Server):
    """Reads the frames of a WebSocket, and closes it when there are too many."""

    def handshake(self):
        self.ws = BoundedFrames(ConnectionType.SERVER)
        super().handshake()


class BoundedFrames(WSConnection):
    """The frames of a WebSocket, each of which takes one from the bucket."""

    def __init__(self, connection_type):
        super().__init__(connection_type)
        self.bucket = TokenBucket(*FRAMES)

    def events(self):
        for event in super().events():
            if not self.bucket.take():
                log.warning("Closed a connection that sent too many WebSocket frames")
                raise ConnectionResetError("too many frames")
            yield event
