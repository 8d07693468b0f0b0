"""Bounded waiting for a condition, instead of sleeping for a guess."""

import time
from collections.abc import Callable

POLL = 0.02  # seconds between two looks: short enough not to be noticed, long enough not to load a core


def wait_until(condition: Callable, timeout: float, poll: float = POLL):
    """Call `condition` until what it returns is true, and return that; None once `timeout` seconds are over."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            return None
        time.sleep(poll)
