"""Whatever fails after a commit: the write is stored, and the answer says so."""

import pytest


def fail(*_args, **_kwargs):
    raise RuntimeError("swordfish")


@pytest.mark.parametrize("what", ["common.push.MessageQueue.emit", "parley.tasks.threads"])
def test_what_fails_after_it_changes_no_answer_about_a_message(request, client, auth, ann, monkeypatch, caplog, what):
    if what != "parley.tasks.threads":
        request.getfixturevalue("queued")  # no expansion begins, which would outlive the test
    monkeypatch.setattr(what, fail)
    headers, source = auth.headers(ann), "see https://example.com/"
    posted = client.post("/api/messages", json={"source": source}, headers=headers)
    assert posted.status_code == 201
    changed = client.put(posted.headers["Location"], json={"source": f"{source}2"}, headers=headers)
    assert changed.status_code == 204
    assert client.get(posted.headers["Location"]).json["source"] == f"{source}2"
    assert caplog.text.count("After the commit, ") == 2
