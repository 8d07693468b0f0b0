"""Twenty people who post through Socket.IO, as the page does: with a key for each message, and again if need be.

Prints "ready" when all are connected; at the end of its input a line for each message: its source, its id or what it
was refused with, how often it was sent until it was acknowledged, when that was the last time, on the monotonic clock,
and how long it took then, both in seconds.
"""

import itertools
import secrets
import sys
import threading
import time

import requests
import socketio
from socketio.exceptions import SocketIOError

PEOPLE = 20
EVERY = 2  # seconds between two messages of one of them
ACKNOWLEDGED_WITHIN = 5  # seconds, or it is sent again: writes may be held for 2


def main() -> None:
    url, token = sys.argv[1:]
    is_over, lines = threading.Event(), []

    def post(client: socketio.Client, name: str) -> None:
        started = time.monotonic()
        for number in itertools.count():
            if is_over.wait(max(0.0, started + number * EVERY - time.monotonic())):
                return
            source = f"{name} {number}"
            acknowledgement, times, at, took = insist(client, token, source)
            lines.append(f"{source}\t{acknowledgement.get('id', acknowledgement)}\t{times}\t{at:.3f}\t{took:.3f}")

    people = []
    for _ in range(PEOPLE):
        http = requests.Session()
        http.trust_env = False
        client = socketio.Client(http_session=http, reconnection_delay=0.1, reconnection_delay_max=0.5)
        client.connect(url, transports=["websocket"])
        people.append(threading.Thread(target=post, args=(client, f"socket-{secrets.token_hex(3)}"), daemon=True))
    for one in people:
        one.start()
    print("ready", flush=True)
    sys.stdin.read()
    is_over.set()
    for one in people:
        one.join()
    print("\n".join(lines), flush=True)


def insist(client: socketio.Client, token: str, source: str) -> tuple[dict, int, float, float]:
    """Send a message until it is acknowledged, always with the same key."""
    key = secrets.token_hex(8)
    for times in itertools.count(1):
        started = time.monotonic()
        try:
            answer = client.call("post_message", ({"source": source}, token, key), timeout=ACKNOWLEDGED_WITHIN)
            return answer, times, started, time.monotonic() - started
        except SocketIOError:
            time.sleep(0.05)  # it is connecting again


if __name__ == "__main__":
    main()
