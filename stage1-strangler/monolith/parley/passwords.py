"""Passwords: hashed with scrypt, on threads of their own."""

from functools import cache

from gevent.threadpool import ThreadPool
from werkzeug.security import check_password_hash, generate_password_hash

# Stands in when there is no such user: no password has this hash, but to find that out takes as long.
HASH_OF_NOBODY = "scrypt:32768:8:1$nobody$nothing"


@cache
def threads():
    """The threads that hash.

    A hash takes some 80 ms of processor time by design. In the event loop it would stop every other request, and
    a class that signs in at once would look like a dead instance; on threads the loop goes on. Two are enough for
    the processors of a small machine, and bound the memory: 32 MB each.
    """
    return ThreadPool(2)


def hash_password(password):
    """Return the salted hash of a password."""
    return threads().apply(generate_password_hash, (password,))


def matches(password_hash, password):
    """Return whether the password has this hash; None, for no such user, takes as long and matches nothing."""
    return threads().apply(check_password_hash, (password_hash or HASH_OF_NOBODY, password))
