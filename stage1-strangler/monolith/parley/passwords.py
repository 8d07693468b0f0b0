"""Passwords: hashed with Argon2id (RFC 9106) on a few threads, behind a queue with a bound.

    the queue is full              → refused at once, with Retry-After (load shedding)
    no thread for LONGEST_WAIT     → the same
    a thread is free               → nothing is hashed for a client that has gone away
    hash or compare                → on the thread, while the event loop answers other requests

The parameters are those of OWASP's Password Storage Cheat Sheet.
"""

import os
import socket
from contextlib import contextmanager
from functools import cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from flask import has_request_context, request
from gevent.threadpool import ThreadPool
from werkzeug.security import check_password_hash

from common.refusals import Overloaded

# A hash takes about 30 ms of one core.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # memory_cost in KiB
# Compared when the nickname is unknown, so that the answer takes as long. No password has this hash.
HASH_OF_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ibw$bm90aGluZ25vdGhpbmdub3RoaW5nbm90aGluZ25vdGg"
# One per core: a hash uses a core fully. The bound keeps the memory of the threads below 80 MiB on larger machines.
THREADS = min(4, len(os.sched_getaffinity(0)))
# A class of sixty fits. With two threads the last one waits 1 s, or 2 s while other programs use half of each core.
MOST_WAITING = 64
LONGEST_WAIT = 2  # seconds; the caller gives up after 4 s, and the hash itself takes time
RETRY_AFTER = 2  # seconds: by then the queue has moved on by its whole length
BUSY = "Too many people are signing in or registering right now. Please try again in a moment."


class Turns:
    """Who may use a thread now: as many requests as there are threads, and a queue of bounded length and time."""

    def __init__(self):
        self.free = BoundedSemaphore(THREADS)
        self.waiting = 0

    @contextmanager
    def turn(self):
        """Wait for a free thread and keep it. Raises Overloaded."""
        if self.waiting >= MOST_WAITING:
            raise Overloaded(BUSY, RETRY_AFTER)
        self.waiting += 1
        try:
            has_turn = self.free.acquire(timeout=LONGEST_WAIT)
        finally:
            self.waiting -= 1
        if not has_turn:
            raise Overloaded(BUSY, RETRY_AFTER)
        try:
            yield
        finally:
            self.free.release()


turns = Turns()


@cache
def threads():
    """Return the threads that hash: real ones, also where gevent has replaced Python's by greenlets."""
    return ThreadPool(THREADS)


def hash_password(password):
    """Return the salted hash of a password. Raises Overloaded."""
    return on_a_thread(HASHER.hash, password)


def matches(password_hash, password):
    """Return whether the password has this hash; None stands for an unknown user. Raises Overloaded."""
    return on_a_thread(verify, password_hash or HASH_OF_NOBODY, password)


def needs_rehash(password_hash):
    """Return whether a hash was made with other parameters than today's."""
    return is_from_werkzeug(password_hash) or HASHER.check_needs_rehash(password_hash)


def on_a_thread(function, *arguments):
    """Call a function on one of the threads when it is this request's turn. Raises Overloaded."""
    with turns.turn():
        if has_request_context() and is_gone(request.environ.get("gunicorn.socket")):
            raise Overloaded(BUSY, RETRY_AFTER)  # no client reads this answer
        return threads().apply(function, arguments)


def verify(password_hash, password):
    """Return whether the password has this hash."""
    if is_from_werkzeug(password_hash):
        return check_password_hash(password_hash, password)
    try:
        return HASHER.verify(password_hash, password)
    except VerifyMismatchError:
        return False


def is_from_werkzeug(password_hash):
    """Return whether a hash is one of Werkzeug's (scrypt), which Parley stored before Argon2id."""
    return not password_hash.startswith("$argon2id$")


def is_gone(connection):
    """Return whether the peer has closed a connection; HAProxy closes its own when its client has gone away."""
    if connection is None:  # the application's own tests call it without a server
        return False
    timeout = connection.gettimeout()
    connection.settimeout(0)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False  # open, and silent while it waits for the answer
    except OSError:
        return True
    finally:
        connection.settimeout(timeout)
