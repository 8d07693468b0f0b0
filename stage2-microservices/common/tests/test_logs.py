import io
import logging

import pytest


@pytest.fixture
def lines(app):
    """Return a function that returns what was logged."""
    stream = io.StringIO()
    next(handler for handler in logging.root.handlers if handler.filters).setStream(stream)
    return lambda: stream.getvalue().splitlines()


def test_a_request_has_one_line_with_instance_request_id_and_status(client, lines):
    client.get("/nothing", headers={"X-Request-ID": "abc-1"})
    [line] = lines()
    assert "service_v1_test abc-1" in line
    assert "GET /nothing 404" in line
    assert line.endswith("ms")


def test_a_request_id_that_is_not_well_formed_is_replaced(client, lines):
    answer = client.get("/nothing", headers={"X-Request-ID": "two words"})
    assert answer.json["request_id"] != "two words"
    assert "two words" not in lines()[0]


def test_health_checks_are_not_logged(client, lines):
    client.get("/healthz")
    assert lines() == []
