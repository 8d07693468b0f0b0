"""How the platform's own processes log: one line per event, to standard output, kept by the supervisor."""

import logging
import sys


def log_to_stdout() -> None:
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03d %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    # It reports each failed call itself, before raising what our callers handle and log.
    logging.getLogger("etcd").setLevel(logging.CRITICAL)
