import pytest

from common import seen
from common.refusals import Declined, NotSignedIn
from common.tests.helpers import Answer


def told(others):
    """Return what users was told, in its order."""
    return [options["json"]["ids"] for options in others.called("PUT", "/internal/users/seen")]


def test_a_user_is_asked_about_once_and_then_reported_with_others(context, others, ann, bob):
    for user_id in (ann, bob, ann, bob, ann):
        seen.mark_seen(user_id)
    assert told(others) == [[ann], [bob]]
    seen.tell()
    assert [set(ids) for ids in told(others)[2:]] == [{ann, bob}]
    seen.tell()
    assert len(told(others)) == 3, "nobody was seen since"


def test_the_token_of_an_unknown_user_is_refused(client, auth, others):
    for _ in range(2):
        assert client.get("/things", headers=auth.headers(4711)).status_code == 401
    assert told(others) == [[4711]] * 2


def test_while_users_is_away_everybody_is_accepted_and_reported_later(context, others, ann, caplog):
    others.away = {"users"}
    seen.mark_seen(ann)
    seen.mark_seen(4711)
    assert "taken for known" in caplog.text
    others.away, others.calls = set(), []
    seen.tell()
    assert [set(ids) for ids in told(others)] == [{ann, 4711}]
    seen.mark_seen(ann)
    assert len(told(others)) == 1
    with pytest.raises(NotSignedIn):
        seen.mark_seen(4711)


def test_a_user_whom_users_cannot_look_up_is_accepted_too(context, others, ann):
    others.answers["PUT /internal/users/seen"] = Answer(503, {"error": "The database is busy."})
    seen.mark_seen(ann)
    with pytest.raises(Declined):
        seen.tell()
