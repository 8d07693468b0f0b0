"""The load-balancer manager: from what the registry says to what HAProxy serves. serve.py runs it.

    registry ──▶ services ──render──▶ configuration ──apply──▶ compared, checked, renamed, HAProxy reloaded

What stands in the registry may have been written by anybody.
"""

import ipaddress
import os
import re
import shutil
import subprocess
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
    return {
        name: Backend(
            service.location if _are_prefixes(service.location) else "",
            {i: u for i, u in service.upstreams.items() if _is_name(i) and _is_upstream(u)},
        )
        for name, service in services.items()
        if _is_name(name)
    }


def _is_name(value: str) -> bool:
    return bool(NAME.fullmatch(value))


def _are_prefixes(value: str) -> bool:
    return all(PREFIX.fullmatch(prefix) for prefix in value.split())


def _is_upstream(value: str) -> bool:
    """Tell whether it is `address:port weight N`, an IPv4 address."""
    found = UPSTREAM.fullmatch(value)
    if not found:
        return False
    try:
        ipaddress.IPv4Address(found["host"])
    except ValueError:
        return False
    return 0 < int(found["port"]) < 65536 and int(found["weight"] or 0) <= MOST_WEIGHT


def render(services: dict[str, Backend], port: int) -> str:
    """Return the whole haproxy.cfg for these services; the same for the same services, in whatever order."""
    known = dict(sorted(believed(services).items()))
    table = {prefix: name for name, service in known.items() for prefix in service.location.split()}
    lines = [HEAD.format(port=port)]
    for prefix in sorted(table, key=len, reverse=True):  # the first rule that fits decides
        lines.append(_rule(prefix, table[prefix]))
    for name, service in known.items():
        lines.append(f"\nbackend {name}\n    balance roundrobin\n")
        for instance, upstream in sorted(service.upstreams.items()):
            lines.append(f"    server {instance} {upstream}\n")
    return "".join(lines)


def _rule(prefix: str, service: str) -> str:
    """Return the frontend's line that sends a prefix to a service: `/api` is to fit /api/users, but not /apiary."""
    key = prefix.rstrip("/") + "/"
    return f"    use_backend {service} if {{ path,concat(/) -m beg {key} }}\n"


last_applied = None


def apply(config: str, folder: Path, reload: Callable[[], None]) -> bool:
    """Have HAProxy use another configuration, haproxy.cfg in `folder`; tell whether that was necessary.

    Raises Rejected with HAProxy's own words, and leaves everything as it was, when HAProxy does not accept it.
    """
    global last_applied
    target, candidate = folder / "haproxy.cfg", folder / "haproxy.cfg.new"
    if config == last_applied:
        return False
    last_applied = config
    candidate.write_text(config)
    command = [HAPROXY, "-c", "-f", candidate]
    result = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT)
    if result.returncode:
        raise Rejected(result.stderr.strip())
    os.replace(candidate, target)
    reload()
    return True
