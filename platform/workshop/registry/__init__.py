"""The service registry, kept in etcd: which service answers which paths, and at which addresses its instances are.

The layout is one that public HAProxy templates for etcd use, so that a service of any origin can join:

    /services/<service>/location              /api/users           path prefixes, separated by spaces
    /services/<service>/backend/balance       roundrobin
    /services/<service>/backend/sticky        /socket.io           prefixes that stay with one instance
    /services/<service>/upstream/<instance>   127.0.0.1:21034 weight 100   with a TTL: its sidecar keeps it alive
    /routes/<prefixes, slashes escaped>       <service>            wins over the locations; all of them move at once
    /drained/<service>/<instance>             127.0.0.1:21034      empty when an instance deregisters; the load balancer
                                                                   writes the address once nothing is in flight there

Any program that joins writes to the registry, and its values end up in the load balancer's configuration: a snapshot
leaves out each value that is not exactly of these forms, or that exceeds the limits in model.py. The client logs the
key and the reason once, and never the value: a foreign program may have put a secret there.

    model.py    what the keys mean, and which of their values are used
    client.py   `Registry`: what sidecars, the load balancer's manager and the commands do with it
    v2.py       how a key is read, written, kept alive and watched, through etcd's v2 API: a key has a TTL
    v3.py       the same through its v3 API: a key is attached to a lease, which has a TTL

A stage uses one of the two APIs, which stores.py chooses at `up`. In etcd, the keys of one are not seen by the other.

etcd refuses each client that does not have the certificate in .run/certificates: see certificates.py.
"""

from workshop.registry.client import APIS, CA, CLIENT, Registry, client_files
from workshop.registry.model import (
    BALANCE,
    HEARTBEAT,
    MOST_INSTANCES,
    MOST_LOCATIONS,
    MOST_SERVICES,
    MOST_STICKY,
    MOST_WEIGHT,
    PREFIX,
    RESERVED,
    TIMEOUT,
    TTL,
    WEIGHT,
    Backend,
    NotRegistered,
    RegistryUnavailable,
    Snapshot,
    Upstream,
    covers,
    owner,
)

__all__ = [
    "APIS",
    "BALANCE",
    "CA",
    "CLIENT",
    "HEARTBEAT",
    "MOST_INSTANCES",
    "MOST_LOCATIONS",
    "MOST_SERVICES",
    "MOST_STICKY",
    "MOST_WEIGHT",
    "PREFIX",
    "RESERVED",
    "TIMEOUT",
    "TTL",
    "WEIGHT",
    "Backend",
    "NotRegistered",
    "Registry",
    "RegistryUnavailable",
    "Snapshot",
    "Upstream",
    "client_files",
    "covers",
    "owner",
]
