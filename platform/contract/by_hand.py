"""Requests that are written by hand, line by line, for what no HTTP library would send."""

import email.message
import http.client
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from contract.conftest import TIMEOUT


@dataclass
class Answer:
    status: int
    headers: email.message.Message
    text: str


def send(url: str, *lines: str, body: str = "", address: str = "127.0.0.1") -> Answer:
    """Send a request line and headers as they are, and return the answer."""
    request = "\r\n".join([lines[0], "Host: localhost", "Connection: close", *lines[1:], "", body])
    with socket.create_connection(
        ("127.0.0.1", urlsplit(url).port), TIMEOUT, source_address=(address, 0)
    ) as connection:
        connection.sendall(request.encode("latin-1"))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return Answer(answer.status, answer.headers, answer.read().decode())
