"""Many Socket.IO connections of one user, held by one process, so that all of them can vanish in one moment.

Prints "ready" when all are open; from then on, when a message has been pushed to all of them: its id, and the times at
which it arrived, one by one.
"""

import collections
import json
import socket
import sys
import threading
import time

import websocket

MESSAGE = '42["updated_model",{"class":"Message","model":{"id":'
SMALL_BUFFER = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]  # full soon, when nobody reads


def main() -> None:
    address, token, count = sys.argv[1].replace("http", "ws"), sys.argv[2], int(sys.argv[3])
    arrivals, lock = collections.defaultdict(list), threading.Lock()  # message → when it arrived at each

    def follow(connection: websocket.WebSocket) -> None:
        while text := connection.recv():
            if text == "2":  # Engine.IO's ping
                connection.send("3")
            elif text.startswith(MESSAGE):
                arrived, message_id = time.monotonic(), text[len(MESSAGE) :].partition(",")[0]
                with lock:
                    arrivals[message_id].append(arrived)
                    if len(arrivals[message_id]) == count:
                        print(message_id, *arrivals.pop(message_id), flush=True)

    for connection in [open_one(address, token) for _ in range(count)]:
        threading.Thread(target=follow, args=(connection,)).start()
    print("ready", flush=True)


def open_one(address: str, token: str) -> websocket.WebSocket:
    """Open a connection, join the default namespace and show the token."""
    path = "/socket.io/?EIO=4&transport=websocket"
    # The library checks UTF-8 byte by byte, in Python: a hundred clients could not keep up.
    options = {"timeout": 10, "sockopt": SMALL_BUFFER, "skip_utf8_validation": True}
    connection = websocket.create_connection(address + path, **options)
    connection.recv()  # Engine.IO's open packet
    connection.send("40")
    connection.recv()
    connection.send("42" + json.dumps(["ping_user", token]))
    connection.settimeout(None)
    return connection


if __name__ == "__main__":
    main()
