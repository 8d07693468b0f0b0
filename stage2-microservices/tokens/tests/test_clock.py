"""A clock that is set back by an hour, in the process under test."""

import datetime

import pytest
import time_machine

from common.auth import check_token
from common.refusals import NotSignedIn
from common.tests.helpers import Answer

BEFORE = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)
HOUR = 3600


@pytest.fixture(autouse=True)
def clock():
    """The clock at noon; `clock.shift(-HOUR)` sets it back."""
    with time_machine.travel(BEFORE) as clock:
        yield clock


@pytest.fixture
def ann(ann, others):
    """Ann's id; users finds her password right."""
    others.answers["GET /api/users/me"] = Answer(200, {"id": ann})
    return ann


def sign_in(client):
    token = client.post("/api/tokens", auth=("ann", "correct horse")).json["token"]
    return {"Authorization": f"Bearer {token}"}


def works(client, headers):
    with client.application.app_context():
        try:
            return bool(check_token(headers["Authorization"].removeprefix("Bearer ")))
        except NotSignedIn:
            return False


def test_tokens_go_on_working_and_end_with_signing_out(client, ann, clock):
    this, other = sign_in(client), sign_in(client)
    clock.shift(-HOUR)
    assert works(client, this)
    assert client.delete("/api/tokens", headers=this).status_code == 204
    assert not works(client, this)
    assert works(client, other)


def test_signing_out_everywhere_holds_for_older_tokens_and_one_can_sign_in_again_at_once(client, ann, clock):
    other, this = sign_in(client), sign_in(client)
    clock.shift(-HOUR)
    assert client.delete("/api/tokens?all=1", headers=this).status_code == 204
    assert not works(client, this)
    assert not works(client, other)

    again = sign_in(client)
    assert works(client, again)
    clock.shift(HOUR - 10)
    assert works(client, again)
    assert not works(client, this)
    clock.shift(20)
    assert not works(client, again), "it lives longer than an hour"
    assert not works(client, this)
    assert not works(client, other)


def test_one_who_was_signed_out_by_users_can_sign_in_again_at_once(client, ann, clock):
    headers = sign_in(client)
    told = {"user_id": ann, "issued_until": BEFORE.timestamp() + 1}
    clock.shift(-HOUR)
    assert client.post("/internal/tokens/revocations", json=told).status_code == 204
    assert not works(client, headers)
    assert works(client, sign_in(client))
