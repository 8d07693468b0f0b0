"""The load-balancer manager: from what the registry says to what HAProxy serves. serve.py runs it.

    registry ──▶ services ──render──▶ configuration ──apply──▶ compared, checked, renamed, HAProxy reloaded

What stands in the registry may have been written by anybody.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CHECK_TIMEOUT = 10  # seconds for `haproxy -c`
MOST_WEIGHT = 256  # HAProxy's

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
PREFIX = re.compile(r"/[A-Za-z0-9._~/-]{0,127}")
UPSTREAM = re.compile(r"(?P<host>[0-9.]{7,15}):(?P<port>[0-9]{1,5})(?: weight (?P<weight>[0-9]{1,3}))?")

# An ordinary user's PATH does not lead to it on Debian.
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") or "haproxy"

HEAD = """\
# Written by manager.py from the registry; an edit is lost at the next change.
global
    log stdout format raw local0

defaults
    mode http
    log global
    log-format "%b %s %ST %HM %HP"
    timeout connect 1s
    timeout client 60s
    timeout server 4500ms
    option httpchk GET /healthz
    default-server check inter 500ms

frontend public
    bind 127.0.0.1:{port}
    http-response set-header X-Served-By %[srv_name]
"""


@dataclass
class Backend:
    """A service as it stands in the registry: nothing of it has been looked at yet."""

    location: str = ""  # prefixes, separated by spaces
    upstreams: dict[str, str] = field(default_factory=dict)  # instance → host:port, or host:port weight N


class Rejected(Exception):
    """HAProxy does not accept a configuration."""


def believed(services: dict[str, Backend]) -> dict[str, Backend]:
    """Return what of the services is exactly of the expected form; nothing else may get into a configuration."""
    raise NotImplementedError(
        "TODO 1: leave out services and instances whose name is no NAME, and upstreams that are no UPSTREAM, or whose "
        "address, port or weight is impossible; a service whose location is not all PREFIXes stays, with an empty one"
    )


def render(services: dict[str, Backend], port: int) -> str:
    """Return the whole haproxy.cfg for these services; the same for the same services, in whatever order."""
    known = believed(services)
    # HEAD.format(port=port), then a _rule() for each prefix, then for each service such a section:
    #
    #     backend shop
    #         balance roundrobin
    #         server shop_v1_a 127.0.0.1:21001
    raise NotImplementedError(f"TODO 2: render {len(known)} services; HAProxy takes the first rule that fits")


def _rule(prefix: str, service: str) -> str:
    """Return the frontend's line that sends a prefix to a service: `/api` is to fit /api/users, but not /apiary."""
    key = prefix.rstrip("/") + "/"
    return f"    use_backend {service} if {{ path,concat(/) -m beg {key} }}\n"


def apply(config: str, folder: Path, reload: Callable[[], None]) -> bool:
    """Have HAProxy use another configuration, haproxy.cfg in `folder`; tell whether that was necessary.

    Raises Rejected with HAProxy's own words, and leaves everything as it was, when HAProxy does not accept it.
    """
    raise NotImplementedError(
        "TODO 3: nothing, if the file says so already; else write it beside, have `haproxy -c -f FILE` check it, "
        "rename it, reload"
    )
