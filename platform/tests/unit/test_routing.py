"""Who would answer a prefix without a route for it: then `route` needs none."""

import pytest

from workshop import routing
from workshop.registry import Backend, Snapshot

SERVICES = {"monolith": Backend("monolith", ["/"]), "ui": Backend("ui", [])}


@pytest.mark.parametrize(
    ("routes", "prefix", "service"),
    [
        ({}, "/api", "monolith"),
        ({"/": "ui"}, "/", "monolith"),
        ({"/": "ui"}, "/api", "ui"),
        ({"/": "ui", "/api": "monolith"}, "/api", "ui"),
        ({"/api": "ui", "/api/users": "monolith"}, "/api/users", "ui"),
    ],
)
def test_a_route_for_a_longer_prefix_is_needed_when_a_shorter_one_leads_elsewhere(routes, prefix, service):
    assert routing.owner_without_route(Snapshot(SERVICES, routes, index=1), prefix) == service
